//! Sets of records as they will stand in an answer: rendered once when a zone is built, copied for every query.
//!
//! A set is rendered for the question that asks for its owner: the name of the question begins at octet 12, so every
//! suffix of the owner has a known place that names in the data can point at. Where the set is used for a question below its
//! owner (a referral, a negative answer, a wildcard), all pointers move by the same distance; their places are kept for that.

use gateward_zone::rdata::{Compressible, compressible};
use gateward_zone::{Name, RecordSet, Rtype};

use crate::hash;

/// Where the question's name begins in every message.
pub(crate) const QNAME_AT: usize = 12;
/// Octets of type and class behind the question's name.
pub(crate) const QUESTION_TAIL: usize = 4;
/// Octets of a rendered record before its data: pointer to the owner, type, class, TTL, length.
pub(crate) const RECORD_HEAD: usize = 12;
/// Largest rendered set: it must leave room for header, question and OPT in a message of 65,535 octets.
pub(crate) const MAX_BODY: usize = 65_000;
/// Names in a body at or behind this are not pointed at, so that pointers stay in range wherever the body is put.
const MAX_POINTED: usize = 8_192;

/// A set, ready to be copied into an answer.
#[derive(Debug, Default)]
pub(crate) struct Rendered {
    /// The records, each with a pointer to octet 12 as its owner.
    pub(crate) body: Vec<u8>,
    /// Where in `body` pointers of the data stand.
    pub(crate) patches: Vec<u16>,
    /// Names whose addresses belong into the additional section.
    pub(crate) targets: Vec<Target>,
}

/// A name that a set's data leads to.
#[derive(Debug)]
pub(crate) struct Target {
    /// Where it stands in the body.
    pub(crate) at: u16,
    /// Its hash.
    pub(crate) hash: u64,
    /// The name in lower case.
    pub(crate) name: Name,
}

/// Where the name starts whose addresses go into the additional section.
fn target_offset(rtype: Rtype) -> Option<usize> {
    match rtype {
        Rtype::NS => Some(0),
        Rtype::MX | Rtype::SVCB | Rtype::HTTPS => Some(2),
        Rtype::SRV => Some(6),
        _ => None,
    }
}

/// Why a set cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// No message could hold it.
    #[error("the set of records is too large for a DNS message ({MAX_BODY} octets)")]
    TooLarge,
    /// The data of a type with names in it is not well-formed.
    #[error("the data of a record is not what its type asks for")]
    BadData,
}

/// Renders `set` for questions that ask for `owner`, with `ttl`.
pub(crate) fn render(owner: &Name, origin: &Name, set: &RecordSet, ttl: u32) -> Result<Rendered, RenderError> {
    let mut out = Rendered::default();
    let mut places = Places::new(owner);
    for rdata in &set.data {
        let data = rdata.as_wire();
        let start = out.body.len();
        out.body.extend_from_slice(&[0xc0, 12]);
        out.body.extend_from_slice(&set.rtype.to_int().to_be_bytes());
        out.body.extend_from_slice(&[0, 1]);
        out.body.extend_from_slice(&ttl.to_be_bytes());
        let length_at = out.body.len();
        out.body.extend_from_slice(&[0, 0]);
        if let Some(at) = target_offset(set.rtype) {
            let place = out.body.len() + at;
            let (name, _) = Name::from_wire(data.get(at..).unwrap_or_default()).map_err(|_| RenderError::BadData)?;
            match set.rtype {
                // `.` is the owner, where the pointer to it stands (RFC 9460, 2.5.2).
                Rtype::SVCB | Rtype::HTTPS if name.is_root() => {
                    push_target(&mut out.targets, origin, owner.clone(), start);
                }
                _ => push_target(&mut out.targets, origin, name, place),
            }
        }
        match compressible(set.rtype) {
            None => out.body.extend_from_slice(data),
            Some(layout) => put_data(&mut out, &mut places, data, &layout)?,
        }
        if out.body.len() > MAX_BODY {
            return Err(RenderError::TooLarge);
        }
        let length = u16::try_from(out.body.len() - length_at - 2).map_err(|_| RenderError::TooLarge)?;
        out.body[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }
    Ok(out)
}

fn push_target(targets: &mut Vec<Target>, origin: &Name, name: Name, place: usize) {
    let Ok(at) = u16::try_from(place) else { return };
    // What lies elsewhere is not looked for; `.` means that there is none (MX: RFC 7505).
    if !name.is_root()
        && name.is_in(origin)
        && usize::from(at) < MAX_POINTED
        && targets.iter().all(|known| known.name != name)
    {
        targets.push(Target { at, hash: hash::name(name.as_wire()), name });
    }
}

/// Data with its names compressed.
fn put_data(out: &mut Rendered, places: &mut Places, data: &[u8], layout: &Compressible) -> Result<(), RenderError> {
    let mut rest = data.get(layout.names_at..).ok_or(RenderError::BadData)?;
    out.body.extend_from_slice(&data[..layout.names_at]);
    for _ in 0..layout.names {
        let (_, used) = Name::from_wire(rest).map_err(|_| RenderError::BadData)?;
        places.put(out, &rest[..used]);
        rest = &rest[used..];
    }
    out.body.extend_from_slice(rest);
    Ok(())
}

/// What can be pointed at: suffixes of the owner and of names put before. Letter case counts, because a pointer copies it.
struct Places {
    base: usize,
    known: Vec<(Vec<u8>, u16)>,
}

impl Places {
    fn new(owner: &Name) -> Self {
        let wire = owner.as_wire();
        let mut known = Vec::new();
        // Where a wildcard's set is used, its first label is not in the question.
        let mut at = if owner.is_wildcard() { 2 } else { 0 };
        while wire[at] != 0 {
            known.push((wire[at..].to_vec(), u16::try_from(QNAME_AT + at).expect("a name is at most 255 octets")));
            at += 1 + usize::from(wire[at]);
        }
        Places { base: QNAME_AT + wire.len() + QUESTION_TAIL, known }
    }

    fn put(&mut self, out: &mut Rendered, name: &[u8]) {
        let mut at = 0;
        while name[at] != 0 {
            if let Some((_, place)) = self.known.iter().find(|(suffix, _)| **suffix == name[at..]) {
                out.patches.push(u16::try_from(out.body.len()).expect("bodies are below 65,536 octets"));
                out.body.extend_from_slice(&(0xc000 | place).to_be_bytes());
                return;
            }
            let label = &name[at..=at + usize::from(name[at])];
            if out.body.len() < MAX_POINTED && self.known.len() < 256 {
                let place = u16::try_from(self.base + out.body.len()).expect("far below 65,536");
                self.known.push((name[at..].to_vec(), place));
            }
            out.body.extend_from_slice(label);
            at += label.len();
        }
        out.body.push(0);
    }
}
