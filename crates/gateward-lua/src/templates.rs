//! Templates of native plugins that are more than look-ups, rendered in the worker's machine.

use crate::code::Code;
use crate::record_fields;
use crate::vm;
use gateward_plugin::{Exchange, RecordFields, RequestTemplates, Templates};
use std::sync::Arc;

/// Makes templates in the machines of the sources that count when they are made.
pub(crate) struct LuaTemplates<F>(pub(crate) F);

/// Some of them.
struct Compiled {
    code: Arc<Code>,
    texts: Vec<String>,
}

impl<F: Fn() -> Option<Arc<Code>> + Send + Sync> Templates for LuaTemplates<F> {
    fn compile(&self, texts: &[String]) -> Result<Arc<dyn RequestTemplates>, (usize, String)> {
        let code = (self.0)().ok_or_else(|| (0, "the Lua plugins cannot be read".to_owned()))?;
        for (index, text) in texts.iter().enumerate() {
            vm::check_template(&code, text)
                .map_err(|reason| (index, format!("template '{text}' is not right: {reason}")))?;
        }
        Ok(Arc::new(Compiled { code, texts: texts.to_vec() }))
    }

    fn record_fields(&self, fields: &[(String, String)]) -> Result<Arc<dyn RecordFields>, (String, String)> {
        let code = (self.0)().ok_or_else(|| (String::new(), "the Lua plugins cannot be read".to_owned()))?;
        record_fields::of(code, fields)
    }
}

impl RequestTemplates for Compiled {
    fn render(&self, exchange: &mut Exchange) -> Result<Vec<String>, String> {
        vm::of(&self.code)?.render(&self.texts, exchange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LuaHost, LuaOptions};
    use gateward_plugin::PluginHost;

    #[test]
    fn expressions_see_the_request() {
        let host = LuaHost::new(LuaOptions::default());
        let templates = host.templates().unwrap();
        let mut exchange = Exchange::new();
        for (name, value) in [("X-Tenant", "acme"), ("twice", "1"), ("twice", "2")] {
            exchange.request.headers.add(name, value);
        }
        exchange.upstream.query = Some("a=1%202&flag&b=x&b=y".to_owned());
        exchange.captures.unnamed = vec!["/u/7".into(), "7".into()];
        exchange.captures.named = vec![("user".into(), "seven".into())];
        let cases = [
            ("$(headers.x_tenant:upper())!", "ACME!"),
            ("$(headers['X-Tenant'] .. '-' .. uri_captures[1])", "acme-7"),
            ("$((function() return uri_captures.user end)())", "seven"),
            ("$(headers.none)$(nil)$(false)", ""),
            (
                "$(query_params.flag and 'set' or 'unset') $(query_params.a) $(query_params.b[2]) $(headers.twice[1])",
                "set 1 2 y 1",
            ),
            ("$(type(headers)) $(tostring(1 + 1)) $(string.format('%05.1f', 2)) $(math.max(1, 2))", "table 2 002.0 2"),
            ("$(shared.none == nil)", "true"),
            ("line\n\"quoted\" $(1)", "line\n\"quoted\" 1"),
        ];
        let texts: Vec<String> = cases.iter().map(|(text, _)| (*text).to_owned()).collect();
        let rendered = templates.compile(&texts).ok().unwrap().render(&mut exchange).unwrap();
        let expected: Vec<_> = cases.iter().map(|(_, expected)| (*expected).to_owned()).collect();
        assert_eq!(rendered, expected);
    }

    #[test]
    fn what_is_no_template_is_found_before_and_what_fails_is_an_error() {
        let host = LuaHost::new(LuaOptions::default());
        let templates = host.templates().unwrap();
        for text in ["$(1 +)", "$(a", "$(return 1)"] {
            let (index, reason) = templates.compile(&["ok".to_owned(), text.to_owned()]).err().unwrap();
            assert!(index == 1 && reason.contains("is not right"), "{text}: {reason}");
        }
        for text in [
            "$(headers.none:upper())",
            "$(error('x'))",
            "$((function() while true do end end)())",
            "$(io.open('/x'))",
            "$(setmetatable({}, {}))",
            "$(kong.log('x'))",
        ] {
            let made = templates.compile(&[text.to_owned()]).ok().unwrap();
            assert!(made.render(&mut Exchange::new()).is_err(), "{text}");
            assert!(made.render(&mut Exchange::new()).is_err(), "{text} again");
        }
    }
}
