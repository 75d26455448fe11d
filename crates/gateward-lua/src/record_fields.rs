//! Fields of log records whose values are Lua in a native log plugin's settings.

use crate::code::Code;
use crate::vm::{self, Vm};
use gateward_plugin::{RecordFields, RequestRecord, StreamRecord};
use std::rc::Rc;
use std::sync::Arc;

/// Those of one plugin: their paths and their code.
struct Fields {
    code: Arc<Code>,
    fields: Vec<(String, String)>,
}

/// Make them of `fields`.
///
/// # Errors
/// The first code that is none, by its path, and why.
pub(crate) fn of(code: Arc<Code>, fields: &[(String, String)]) -> Result<Arc<dyn RecordFields>, (String, String)> {
    for (path, text) in fields {
        vm::check_field(&code, text).map_err(|reason| (path.clone(), reason))?;
    }
    Ok(Arc::new(Fields { code, fields: fields.to_vec() }))
}

impl Fields {
    fn vm(&self) -> Option<Rc<Vm>> {
        vm::of(&self.code).inspect_err(|error| tracing::error!(target: "lua", "{error}")).ok()
    }
}

impl RecordFields for Fields {
    fn add(&self, record: &RequestRecord<'_>) {
        if let Some(vm) = self.vm() {
            vm.set_fields(&self.fields, record);
        }
    }

    fn add_to_stream(&self, record: &StreamRecord<'_>) {
        if let Some(vm) = self.vm() {
            vm.set_stream_fields(&self.fields, record);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{LuaHost, LuaOptions, Untrusted, UntrustedMode};
    use gateward_plugin::{Exchange, PluginHost, RequestRecord};
    use serde_json::json;

    fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(path, code)| ((*path).to_owned(), (*code).to_owned())).collect()
    }

    #[test]
    fn code_sets_fields_of_the_record_and_what_fails_is_left_out() {
        let host = LuaHost::new(LuaOptions::default());
        let code = fields(&[
            ("request.tenant", "return kong.request.get_header('x-tenant')"),
            ("request.headers", "return nil"),
            ("list", "return { 1, 'two', ngx.null }"),
            ("method", "return ngx.req.get_method()"),
            ("failing", "error('x')"),
            ("endless", "while true do end"),
            ("function", "return print"),
            ("open", "return io.open('/etc/passwd')"),
            ("last", "return true"),
        ]);
        let made = host.templates().unwrap().record_fields(&code).ok().unwrap();
        let mut exchange = Exchange::new();
        exchange.request.headers.add("X-Tenant", "acme");
        for _ in 0..2 {
            exchange.changes.clear();
            let record = RequestRecord::of(&exchange);
            made.add(&record);
            let written = record.to_json();
            assert_eq!(written["request"]["tenant"], "acme");
            assert_eq!(written["request"].get("headers"), None);
            assert_eq!(written["list"], json!([1, "two", null]));
            assert_eq!((&written["method"], &written["last"]), (&json!("GET"), &json!(true)));
            for failed in ["failing", "endless", "function", "open"] {
                assert_eq!(written.get(failed), None);
            }
        }
    }

    #[test]
    fn what_is_no_code_is_found_before() {
        let host = LuaHost::new(LuaOptions::default());
        let (path, reason) =
            host.templates().unwrap().record_fields(&fields(&[("a", "return 1"), ("b", "return +")])).err().unwrap();
        assert!(path == "b" && reason.contains("unexpected symbol"), "{path}: {reason}");
        let untrusted = Untrusted { mode: UntrustedMode::Off, ..Untrusted::default() };
        let host = LuaHost::new(LuaOptions { untrusted, ..LuaOptions::default() });
        let (_, reason) = host.templates().unwrap().record_fields(&fields(&[("a", "return 1")])).err().unwrap();
        assert!(reason.contains("'untrusted_lua'"), "{reason}");
    }
}
