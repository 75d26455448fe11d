//! `custom_fields_by_lua` of log plugins: fields whose values Lua code returns when the record is written.
//!
//! As in Kong they are set for all log plugins that come later too. A field that fails is left out (Kong: the record is lost).

use crate::native::settings;
use crate::{BuildContext, BuildError, RecordFields, RequestRecord, StreamRecord, Templates};
use gateward_model::schema::{Field, HostedRule, Rule};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The setting as text, by the fields' paths.
pub(super) type Settings = Option<BTreeMap<String, String>>;

/// The setting where nobody evaluates Lua: an empty map only.
pub(super) fn refused() -> Field {
    Field::map(Field::string(), Field::string()).rule(Rule::Custom(|value| match value.as_object() {
        Some(fields) if !fields.is_empty() => Err(NOBODY.to_owned()),
        _ => Ok(()),
    }))
}

const NOBODY: &str = "Lua code for log fields is not served by this build: remove custom_fields_by_lua";

/// The setting where `templates` evaluates it.
pub(super) fn evaluated(templates: Arc<dyn Templates>) -> Field {
    let test = move |value: &Value| {
        let field = ("field".to_owned(), value.as_str().unwrap_or_default().to_owned());
        templates.record_fields(&[field]).map(drop).map_err(|(_, reason)| reason)
    };
    let rule = HostedRule { name: "lua_code".into(), argument: Value::Null, test: Arc::new(test) };
    Field::map(Field::string(), Field::string().rule(Rule::Hosted(rule)))
}

/// The fields of one plugin; seldom any.
pub(super) struct CustomFields(Option<Arc<dyn RecordFields>>);

impl CustomFields {
    pub(super) fn of(context: &BuildContext<'_>, settings: Settings) -> Result<Self, BuildError> {
        let fields: Vec<_> = settings.unwrap_or_default().into_iter().collect();
        if fields.is_empty() {
            return Ok(Self(None));
        }
        let Some(templates) = &context.env.templates else { return Err(settings::refuse(context, NOBODY.to_owned())) };
        let made = templates.record_fields(&fields);
        made.map(|fields| Self(Some(fields)))
            .map_err(|(field, reason)| settings::refuse(context, format!("custom_fields_by_lua.{field}: {reason}")))
    }

    pub(super) fn add(&self, record: &RequestRecord<'_>) {
        if let Some(fields) = &self.0 {
            fields.add(record);
        }
    }

    pub(super) fn add_to_stream(&self, record: &StreamRecord<'_>) {
        if let Some(fields) = &self.0 {
            fields.add_to_stream(record);
        }
    }
}
