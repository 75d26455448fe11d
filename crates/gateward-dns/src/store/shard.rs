//! A shard: the names of one slice of a zone in one piece of memory, with a small hash table in front.
//!
//! Packed by hand, because a name with one address must not cost more than what it says: a million records fit into a
//! hundred megabytes, a lookup touches two or three cache lines, and a changed name costs the copy of its shard.
//!
//! ```text
//! shard:  log2 of slots (u32) | slots: tag u32, offset u32 (0 = free) | nodes
//! node:   name length u8 | flags u8 | sets u16 | children u32 | name | sets: 20 octets each | payloads
//! set:    type u16 | count u16 | ttl u32 | body length u16 | patches u16 | targets u16 | 0 u16 | payload u32 (from the node)
//! payload: body | patches u16 each | targets: hash u64, place u16, length u8, name
//! ```
//! Numbers are in the machine's order.

use std::sync::Arc;

use gateward_zone::{Name, RecordSet, Rtype};

use super::render::{RenderError, render};

/// The name is a zone cut: it has NS records and is not the apex.
pub(crate) const CUT: u8 = 1;
/// The name has a DNAME record.
pub(crate) const DNAME: u8 = 2;
/// `*` stands directly below the name.
pub(crate) const WILD: u8 = 4;

const NODE_HEAD: usize = 8;
const SET_HEAD: usize = 20;

/// A slice of a zone's names; cheap to clone.
pub(crate) type Shard = Arc<[u8]>;

#[inline]
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().expect("two octets"))
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four octets"))
}

/// The node of `name` (lower-case wire) with `hash`.
#[inline]
pub(crate) fn find<'a>(shard: &'a [u8], hash: u64, name: &[u8]) -> Option<Node<'a>> {
    let mask = (1_usize << u32_at(shard, 0)) - 1;
    let tag = tag(hash);
    let mut slot = tag as usize & mask;
    loop {
        let at = 4 + slot * 8;
        let offset = u32_at(shard, at + 4);
        if offset == 0 {
            return None;
        }
        if u32_at(shard, at) == tag {
            let node = Node { bytes: &shard[offset as usize..] };
            if node.name() == name {
                return Some(node);
            }
        }
        slot = (slot + 1) & mask;
    }
}

#[inline]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// All nodes of a shard.
pub(crate) fn nodes(shard: &[u8]) -> impl Iterator<Item = Node<'_>> {
    let slots = 1_usize << u32_at(shard, 0);
    (0..slots).filter_map(move |slot| {
        let offset = u32_at(shard, 4 + slot * 8 + 4);
        (offset != 0).then(|| Node { bytes: &shard[offset as usize..] })
    })
}

/// A name of a zone with what stands at it.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    bytes: &'a [u8],
}

impl<'a> Node<'a> {
    /// The name in lower-case wire format.
    #[inline]
    pub(crate) fn name(&self) -> &'a [u8] {
        &self.bytes[NODE_HEAD..NODE_HEAD + usize::from(self.bytes[0])]
    }

    #[inline]
    pub(crate) fn flags(&self) -> u8 {
        self.bytes[1]
    }

    /// How many names stand directly below.
    pub(crate) fn children(&self) -> u32 {
        u32_at(self.bytes, 4)
    }

    #[inline]
    fn set_count(&self) -> usize {
        usize::from(u16_at(self.bytes, 2))
    }

    #[inline]
    fn set_at(&self, index: usize) -> Set<'a> {
        let at = NODE_HEAD + usize::from(self.bytes[0]) + index * SET_HEAD;
        let head = &self.bytes[at..at + SET_HEAD];
        let (body, patches) = (usize::from(u16_at(head, 8)), usize::from(u16_at(head, 10)) * 2);
        let payload = &self.bytes[u32_at(head, 16) as usize..];
        Set {
            rtype: u16_at(head, 0),
            count: u16_at(head, 2),
            ttl: u32_at(head, 4),
            body: &payload[..body],
            patches: &payload[body..body + patches],
            targets: &payload[body + patches..],
            target_count: u16_at(head, 12),
            owner: self.name(),
        }
    }

    /// The set of a type.
    #[inline]
    pub(crate) fn set(&self, rtype: Rtype) -> Option<Set<'a>> {
        let table = NODE_HEAD + usize::from(self.bytes[0]);
        let wanted = rtype.to_int();
        (0..self.set_count())
            .find(|index| u16_at(self.bytes, table + index * SET_HEAD) == wanted)
            .map(|index| self.set_at(index))
    }

    /// All sets, ordered by type.
    pub(crate) fn sets(&self) -> impl Iterator<Item = Set<'a>> + use<'a> {
        let node = *self;
        (0..self.set_count()).map(move |index| node.set_at(index))
    }

    /// The node's octets alone, to be copied into another shard.
    fn whole(&self) -> &'a [u8] {
        let end = match self.set_count() {
            0 => NODE_HEAD + usize::from(self.bytes[0]),
            count => {
                let last = self.set_at(count - 1);
                let end = last.targets().fold(0, |end, target| end + 11 + target.name.len());
                let at = NODE_HEAD + usize::from(self.bytes[0]) + (count - 1) * SET_HEAD;
                u32_at(self.bytes, at + 16) as usize + last.body.len() + last.patches.len() + end
            }
        };
        &self.bytes[..end]
    }
}

/// The records of one type at a name, rendered (see `render`).
#[derive(Clone, Copy)]
pub(crate) struct Set<'a> {
    pub(crate) rtype: u16,
    pub(crate) count: u16,
    pub(crate) ttl: u32,
    pub(crate) body: &'a [u8],
    patches: &'a [u8],
    targets: &'a [u8],
    target_count: u16,
    /// The owner it was rendered for, in lower-case wire format.
    pub(crate) owner: &'a [u8],
}

/// A name of a set's data whose addresses may be added.
pub(crate) struct TargetRef<'a> {
    pub(crate) hash: u64,
    /// Where it stands in the body.
    pub(crate) at: usize,
    /// In lower-case wire format.
    pub(crate) name: &'a [u8],
}

impl<'a> Set<'a> {
    pub(crate) fn rtype(&self) -> Rtype {
        Rtype::from_int(self.rtype)
    }

    /// Where pointers stand in the body's data.
    #[inline]
    pub(crate) fn patches(&self) -> impl Iterator<Item = usize> + use<'a> {
        self.patches.chunks_exact(2).map(|place| usize::from(u16::from_ne_bytes([place[0], place[1]])))
    }

    /// Whether the data holds no pointers.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.patches.is_empty()
    }

    /// Names that the data leads to within the zone.
    #[inline]
    pub(crate) fn targets(&self) -> impl Iterator<Item = TargetRef<'a>> + use<'a> {
        let mut rest = self.targets;
        (0..self.target_count).map(move |_| {
            let len = usize::from(rest[10]);
            let target = TargetRef {
                hash: u64::from_ne_bytes(rest[..8].try_into().expect("eight octets")),
                at: usize::from(u16_at(rest, 8)),
                name: &rest[11..11 + len],
            };
            rest = &rest[11 + len..];
            target
        })
    }
}

/// A node on its way into a shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draft {
    /// How many names stand directly below.
    pub(crate) children: u32,
    /// Whether one of them is `*`.
    pub(crate) wild: bool,
    /// What stands at the name, ordered by type.
    pub(crate) sets: Vec<RecordSet>,
}

impl Draft {
    /// Whether the name exists: it has records, or names below it (RFC 8020, RFC 4592 2.2.2).
    pub(crate) fn exists(&self) -> bool {
        self.children > 0 || !self.sets.is_empty()
    }

    fn flags(&self, is_apex: bool) -> u8 {
        let has = |rtype| self.sets.iter().any(|set| set.rtype == rtype);
        let mut flags = 0;
        if !is_apex && has(Rtype::NS) {
            flags |= CUT;
        }
        if has(Rtype::DNAME) {
            flags |= DNAME;
        }
        if self.wild {
            flags |= WILD;
        }
        flags
    }

    /// Renders the node.
    pub(crate) fn pack(&self, name: &Name, origin: &Name) -> Result<Vec<u8>, RenderError> {
        let wire = name.as_wire();
        let mut out = Vec::with_capacity(NODE_HEAD + wire.len() + self.sets.len() * 64);
        out.push(u8::try_from(wire.len()).expect("a name is at most 255 octets"));
        out.push(self.flags(name == origin));
        out.extend(u16::try_from(self.sets.len()).map_err(|_| RenderError::TooLarge)?.to_ne_bytes());
        out.extend(self.children.to_ne_bytes());
        out.extend_from_slice(wire);
        let table = out.len();
        out.resize(table + self.sets.len() * SET_HEAD, 0);
        for (index, set) in self.sets.iter().enumerate() {
            let rendered = render(name, origin, set, set.ttl)?;
            let payload = u32::try_from(out.len()).map_err(|_| RenderError::TooLarge)?;
            let count = u16::try_from(set.data.len()).map_err(|_| RenderError::TooLarge)?;
            let head = &mut out[table + index * SET_HEAD..][..SET_HEAD];
            head[..2].copy_from_slice(&set.rtype.to_int().to_ne_bytes());
            head[2..4].copy_from_slice(&count.to_ne_bytes());
            head[4..8].copy_from_slice(&set.ttl.to_ne_bytes());
            head[8..10].copy_from_slice(&length(rendered.body.len()).to_ne_bytes());
            head[10..12].copy_from_slice(&length(rendered.patches.len()).to_ne_bytes());
            head[12..14].copy_from_slice(&length(rendered.targets.len()).to_ne_bytes());
            head[16..].copy_from_slice(&payload.to_ne_bytes());
            out.extend_from_slice(&rendered.body);
            out.extend(rendered.patches.iter().flat_map(|place| place.to_ne_bytes()));
            for target in &rendered.targets {
                out.extend(target.hash.to_ne_bytes());
                out.extend(target.at.to_ne_bytes());
                out.push(u8::try_from(target.name.as_wire().len()).expect("a name is at most 255 octets"));
                out.extend_from_slice(target.name.as_wire());
            }
        }
        Ok(out)
    }
}

/// Lengths within a rendered set: bodies are limited to less than 65,536 octets.
fn length(len: usize) -> u16 {
    u16::try_from(len).expect("a rendered set is below 65,536 octets")
}

/// A shard being put together.
#[derive(Debug, Default)]
pub(crate) struct ShardBuilder {
    nodes: Vec<u8>,
    /// Hash and place in `nodes` of each.
    index: Vec<(u64, usize)>,
}

impl ShardBuilder {
    /// Adds a packed node; returns where it stands, for [`Self::set_family`].
    pub(crate) fn push(&mut self, hash: u64, node: &[u8]) -> usize {
        let at = self.nodes.len();
        self.nodes.extend_from_slice(node);
        self.index.push((hash, at));
        at
    }

    /// Adds a node of another shard as it is.
    pub(crate) fn copy(&mut self, hash: u64, node: &Node<'_>) {
        self.push(hash, node.whole());
    }

    /// Tells a node pushed earlier what stands below it.
    pub(crate) fn set_family(&mut self, at: usize, children: u32, wild: bool) {
        self.nodes[at + 4..at + 8].copy_from_slice(&children.to_ne_bytes());
        if wild {
            self.nodes[at + 1] |= WILD;
        }
    }

    /// The finished shard.
    pub(crate) fn finish(self) -> Shard {
        let bits = (self.index.len() * 2).next_power_of_two().trailing_zeros().max(1);
        let slots = 1_usize << bits;
        let nodes_at = 4 + slots * 8;
        let mut out = vec![0; nodes_at];
        out[..4].copy_from_slice(&bits.to_ne_bytes());
        for (hash, at) in self.index {
            let offset = u32::try_from(nodes_at + at).expect("a shard is far below four gigabytes");
            let mut slot = tag(hash) as usize & (slots - 1);
            while u32_at(&out, 4 + slot * 8 + 4) != 0 {
                slot = (slot + 1) & (slots - 1);
            }
            out[4 + slot * 8..][..4].copy_from_slice(&tag(hash).to_ne_bytes());
            out[4 + slot * 8 + 4..][..4].copy_from_slice(&offset.to_ne_bytes());
        }
        out.extend_from_slice(&self.nodes);
        out.into()
    }
}
