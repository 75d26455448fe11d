//! The store of zones: immutable versions, found by hash, rendered ahead.

mod map;
mod read;
mod render;
mod shard;
mod zone;

pub use map::{Slot, ZoneMap, Zones};
pub(crate) use read::{put_data, put_name, records};
pub use render::RenderError;
pub(crate) use render::{QNAME_AT, QUESTION_TAIL, RECORD_HEAD, Rendered};
pub(crate) use shard::{CUT, DNAME, Node, Set, TargetRef, WILD};
pub use zone::{Zone, ZoneError};
