//! DNS data without IO: names, records, zone files, differences between versions of a zone, and the guardrails
//! that decide whether a change may happen.
//!
//! Everything here is a function of its arguments: text, bytes and time come in, values and errors come out. The server
//! (`gateward-dns`) and the planner (`gateward-domain`) meet at these types.

pub mod audit;
pub mod diff;
pub mod force;
pub mod fuzzing;
mod lexer;
mod lint;
mod name;
pub mod policy;
mod presentation;
mod problem;
pub mod rdata;
mod record;
mod soa;
mod ttl;
mod view;
mod zonefile;

pub use domain::base::iana::{Class, Opcode, Rcode, Rtype};
pub use lint::{lint, lint_names};
pub use name::{MAX_LABEL_LEN, MAX_NAME_LEN, Name, NameError};
pub use presentation::{parse_rdata, parse_record, rdata_to_text, render_zone, to_text};
pub use problem::{Problem, Severity};
pub use record::{Rdata, Record, RecordSet};
pub use soa::{Soa, is_newer, next_serial, with_serial};
pub use view::{Change, ZoneView};
pub use zonefile::{Place, ZoneLimits, ZoneText, parse_zone, parse_zone_within};
