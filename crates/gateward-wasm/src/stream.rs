//! A request and its response, as the host functions see them.
//!
//! The gateway implements this for its exchange, tests for a plain value. Nothing is copied until a filter asks for
//! it: a filter that reads three fields costs three look-ups.

use crate::callout::Fields;
use crate::types::{DataBuffer, FieldMap};

/// Whether a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// Yes.
    Done,
    /// The map is not there or can no longer be changed in this phase.
    NotNow,
    /// The name or value cannot stand in a message.
    Refused,
}

/// One stream under way. Names of fields come in any case and compare without it; `:method`, `:path`, `:authority`,
/// `:scheme` and `:status` are fields like others and come first.
pub trait Stream {
    /// Show every field of `map`, in order; `false`: there is no such map in this phase.
    fn each_field(&self, map: FieldMap, show: &mut dyn FnMut(&[u8], &[u8])) -> bool;

    /// How many fields [`Self::each_field`] shows: asked for at every head, so worth an answer that shows none.
    fn count_fields(&self, map: FieldMap) -> u32 {
        let mut count = 0;
        self.each_field(map, &mut |_, _| count += 1);
        count
    }

    /// Append the value of `name` to `out`; of a repeated field all values, joined as RFC 9110 section 5.3 says.
    /// `false`: there is none.
    fn field(&self, map: FieldMap, name: &[u8], out: &mut Vec<u8>) -> bool;

    /// Append a field.
    fn add_field(&mut self, map: FieldMap, name: &[u8], value: &[u8]) -> Edit;

    /// Make `value` the only value of `name`.
    fn replace_field(&mut self, map: FieldMap, name: &[u8], value: &[u8]) -> Edit;

    /// Remove every occurrence of `name`.
    fn remove_field(&mut self, map: FieldMap, name: &[u8]) -> Edit;

    /// Remove every field that is not a pseudo field, before others are set.
    fn clear_fields(&mut self, map: FieldMap) -> Edit;

    /// What is held of a body in this phase.
    fn data(&self, buffer: DataBuffer) -> Option<&[u8]>;

    /// Likewise, to change.
    fn data_mut(&mut self, buffer: DataBuffer) -> Option<&mut Vec<u8>>;

    /// Append the value of a property to `out`. Integers, booleans and times are little-endian bytes as in Envoy.
    /// `false`: there is none.
    fn property(&self, path: &[&str], out: &mut Vec<u8>) -> bool;

    /// Whether a response of the filter can still take the place of the upstream's.
    fn can_respond(&self) -> bool;

    /// Find the route again after fields changed. Hosts that find it before filters run need not do anything.
    fn clear_route_cache(&mut self) {}
}

/// A response that a filter made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalReply {
    /// Status code.
    pub status: u16,
    /// Why, for logs.
    pub details: String,
    /// Content.
    pub body: Vec<u8>,
    /// Fields.
    pub headers: Fields,
    /// The status of a gRPC call.
    pub grpc_status: Option<u32>,
}
