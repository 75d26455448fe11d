//! DNS data without IO: names, records, zone files, differences between versions of a zone, and the guardrails
//! that decide whether a change may happen.
//!
//! Everything here is a function of its arguments: text, bytes and time come in, values and errors come out. The server
//! (`gateward-dns`) and the planner (`gateward-domain`) meet at these types.

mod name;
mod record;
mod view;

pub use domain::base::iana::{Class, Opcode, Rcode, Rtype};
pub use name::{MAX_LABEL_LEN, MAX_NAME_LEN, Name, NameError};
pub use record::{Rdata, Record, RecordSet};
pub use view::{Change, ZoneView};
