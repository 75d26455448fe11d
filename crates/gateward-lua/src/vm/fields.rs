//! Fields of log records in a machine.

use super::Vm;
use super::template::first_line;
use crate::state::{Phase, Reach, Scene};
use crate::wire;
use gateward_plugin::{RequestRecord, StreamRecord};
use mlua::Function;

impl Vm {
    /// Whether `code` can be the value of a field.
    ///
    /// # Errors
    /// It cannot, and why.
    pub(crate) fn field(&self, code: &str) -> Result<(), String> {
        let check = || self.record_fields.raw_get::<Function>("check")?.call::<()>(code);
        self.watched.during(check).0.map_err(|error| first_line(&error))
    }

    /// Set these fields of the record, by their paths and code.
    pub(crate) fn set_fields(&self, fields: &[(String, String)], record: &RequestRecord<'_>) {
        let request = self.past_request(record.exchange);
        self.set_each(fields, request, || Reach::Record(record));
    }

    /// Likewise of a stream.
    pub(crate) fn set_stream_fields(&self, fields: &[(String, String)], record: &StreamRecord<'_>) {
        let made;
        let exchange = match wire::stood_in(record.stream) {
            Some(exchange) => exchange,
            None => {
                made = wire::exchange_of(record.stream);
                &made
            }
        };
        let request = self.past_request(exchange);
        self.set_each(fields, request, || Reach::Stream(exchange, record));
    }

    /// Each in a call of its own: one that fails or runs too long costs nothing but itself.
    fn set_each<'a>(&self, fields: &[(String, String)], request: (f64, u32), reach: impl Fn() -> Reach<'a>) {
        for (path, code) in fields {
            let mut scene = Scene { reach: reach(), chunk: None, phase: Phase::Log, instance: 0, request };
            let set = || self.record_fields.raw_get::<Function>("set")?.call::<()>((path.as_str(), code.as_str()));
            let (done, _) = self.watched.during(|| self.shared.state.enter(&mut scene, set));
            // What the code said is no answer.
            self.shared.forget();
            if let Err(error) = done {
                tracing::error!(target: "lua", "custom_fields_by_lua.{path}: {}", first_line(&error));
            }
        }
    }
}
