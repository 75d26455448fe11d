//! Where a name leads within a zone: RFC 1034, 4.3.2, from the apex down.

use gateward_zone::Rtype;

use crate::hash;
use crate::message::Asked;
use crate::store::{CUT, DNAME, Node, WILD, Zone};

/// Where a name leads.
pub(crate) enum Found<'z> {
    /// The name exists.
    Exact(Node<'z>),
    /// The name does not exist, but its closest encloser has a wildcard (RFC 4592).
    Wildcard(Node<'z>),
    /// The name is at or below this zone cut, the highest one; it has so many labels.
    Cut(Node<'z>, usize),
    /// The name is below this DNAME; it has so many labels.
    Dname(Node<'z>, usize),
    /// The name does not exist.
    Nothing,
}

/// Looks for `name`, which is in `zone`, whose origin has `apex_labels` labels and the hash `apex_hash`.
#[inline]
pub(crate) fn find<'z>(zone: &'z Zone, apex_labels: usize, apex_hash: u64, name: &Asked, qtype: u16) -> Found<'z> {
    let (mut node, mut labels, mut hash) = (None, apex_labels, apex_hash);
    loop {
        if labels == name.labels() {
            return Found::Exact(node.unwrap_or_else(|| zone.apex()));
        }
        let above = node.unwrap_or_else(|| zone.apex());
        if above.flags() & DNAME != 0 {
            return Found::Dname(above, labels);
        }
        let parent = hash;
        labels += 1;
        hash = name.hash_below(parent, labels);
        let Some(next) = zone.node(hash, name.suffix(labels)) else {
            return if above.flags() & WILD == 0 { Found::Nothing } else { wildcard(zone, parent, above) };
        };
        // DS belongs to the parent's side of a cut (RFC 4035, 3.1.4.1).
        if next.flags() & CUT != 0 && !(labels == name.labels() && qtype == Rtype::DS.to_int()) {
            return Found::Cut(next, labels);
        }
        node = Some(next);
    }
}

/// The wildcard directly below a name.
fn wildcard<'z>(zone: &'z Zone, parent_hash: u64, parent: Node<'_>) -> Found<'z> {
    let mut name = [0_u8; 257];
    let end = 2 + parent.name().len();
    name[..2].copy_from_slice(b"\x01*");
    name[2..end].copy_from_slice(parent.name());
    zone.node(hash::child(parent_hash, b"*"), &name[..end]).map_or(Found::Nothing, Found::Wildcard)
}
