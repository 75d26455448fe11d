//! Puts an answer together in a buffer: whole sets or nothing of them, pointers that fit, counts that are right.

use crate::message::Question;
use crate::store::{Node, QNAME_AT, QUESTION_TAIL, RECORD_HEAD, Rendered, Set, put_data, put_name, records};

/// A message's section behind the question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

/// Where the owner of a set is to be found in the message.
#[derive(Clone, Copy)]
pub(crate) enum Owner<'n> {
    /// A suffix of the question's name, which starts so many octets into it.
    Suffix(usize),
    /// A wildcard's set: the question's name is its owner.
    Wildcard,
    /// A name that was written at this place.
    At(usize),
    /// A name that is nowhere in the message yet (lower-case wire).
    Name(&'n [u8]),
}

/// Where a set went.
pub(crate) struct Placed {
    /// Where its first record begins.
    pub(crate) at: usize,
    /// Whether places in the rendered body are places in the message, counted from `at`.
    pub(crate) as_rendered: bool,
}

/// Bodies with pointers into themselves are copied up to here only, so that their pointers reach.
const LAST_COPY: usize = 0x1f00;

/// An answer on its way into a buffer.
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
    /// Sets must end before this.
    limit: usize,
    counts: [u16; 3],
    /// Pointers into the question's name would spell names of the data as the asker did.
    mixed_case: bool,
    qname_len: usize,
}

impl<'a> Writer<'a> {
    /// Begins behind the question, which is copied. `limit` is the most octets the records may reach.
    pub(crate) fn new(out: &'a mut [u8], question: &Question<'_>, limit: usize) -> Self {
        let len = QNAME_AT + question.wire.len();
        out[QNAME_AT..len].copy_from_slice(question.wire);
        Writer {
            limit: limit.min(out.len()),
            out,
            len,
            counts: [0; 3],
            mixed_case: question.mixed_case,
            qname_len: question.name.wire().len(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn counts(&self) -> [u16; 3] {
        self.counts
    }

    /// Counts of the sections, octets written and the buffer.
    pub(crate) fn into_parts(self) -> ([u16; 3], usize, &'a mut [u8]) {
        (self.counts, self.len, self.out)
    }

    /// Puts a TXT record of class CHAOS at the question's name.
    pub(crate) fn put_chaos(&mut self, data: &[u8]) -> Option<()> {
        let at = self.put_record(Section::Answer, QNAME_AT, 16, 0, data)?;
        self.out[at + 5] = 3;
        Some(())
    }

    /// Puts a set; `None` when it does not fit and nothing was written.
    #[inline]
    pub(crate) fn put(&mut self, section: Section, owner: Owner<'_>, set: &Set<'_>) -> Option<Placed> {
        let at = self.len;
        let (owner_at, distance) = match owner {
            Owner::Suffix(skip) => (QNAME_AT + skip, Some(skip)),
            Owner::Wildcard => (QNAME_AT, Some(self.qname_len - set.owner.len())),
            Owner::At(place) => (place, None),
            Owner::Name(_) => (QNAME_AT, None),
        };
        let mut as_rendered = true;
        let done = match (owner, distance) {
            (Owner::Name(name), _) => {
                as_rendered = false;
                self.expand(set, Some(name))
            }
            _ if set.is_plain() => self.copy(set.body),
            (_, Some(distance)) if !self.mixed_case && at < LAST_COPY => {
                let fits = self.copy(set.body);
                if fits {
                    self.shift(at, distance, set.owner.len(), set.patches());
                }
                fits
            }
            _ => {
                as_rendered = false;
                self.expand(set, None)
            }
        };
        if !done {
            self.len = at;
            return None;
        }
        if owner_at != QNAME_AT {
            self.point_owners(at, owner_at);
        }
        self.counts[section as usize] += set.count;
        Some(Placed { at, as_rendered })
    }

    /// Puts the SOA record of a negative answer; its owner starts `skip` octets into the question's name.
    #[inline]
    pub(crate) fn put_negative(&mut self, skip: usize, negative: &Rendered, apex: &Node<'_>) -> Option<()> {
        let start = self.len;
        let done = if self.mixed_case {
            // Read back from the apex's own set, then given the lower TTL.
            apex.set(gateward_zone::Rtype::SOA).is_some_and(|set| self.expand(&set, None)) && {
                self.out[start + 6..start + 10].copy_from_slice(&negative.body[6..10]);
                true
            }
        } else {
            self.copy(&negative.body) && {
                self.shift(start, skip, apex.name().len(), negative.patches.iter().map(|place| usize::from(*place)));
                true
            }
        };
        if !done {
            self.len = start;
            return None;
        }
        self.point_owners(start, QNAME_AT + skip);
        self.counts[Section::Authority as usize] += 1;
        Some(())
    }

    /// Puts one record with data of its own making.
    pub(crate) fn put_record(
        &mut self,
        section: Section,
        owner_at: usize,
        rtype: u16,
        ttl: u32,
        data: &[u8],
    ) -> Option<usize> {
        let start = self.len;
        let mut head = [0; RECORD_HEAD];
        head[..2].copy_from_slice(&pointer(owner_at)?);
        head[2..4].copy_from_slice(&rtype.to_be_bytes());
        head[5] = 1;
        head[6..10].copy_from_slice(&ttl.to_be_bytes());
        head[10..].copy_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        if self.copy(&head) && self.copy(data) {
            self.counts[section as usize] += 1;
            return Some(start);
        }
        self.len = start;
        None
    }

    /// Copies octets if they fit.
    #[inline]
    fn copy(&mut self, octets: &[u8]) -> bool {
        let end = self.len + octets.len();
        if end > self.limit {
            return false;
        }
        self.out[self.len..end].copy_from_slice(octets);
        self.len = end;
        true
    }

    /// Moves the pointers of a body's data: those into the owner by `distance`, those into the body to where it stands now.
    #[inline]
    fn shift(&mut self, start: usize, distance: usize, owner_len: usize, patches: impl Iterator<Item = usize>) {
        let behind = QNAME_AT + owner_len + QUESTION_TAIL;
        if distance == 0 && start == behind {
            return;
        }
        for place in patches {
            let octets = &mut self.out[start + place..start + place + 2];
            let target = usize::from(u16::from_be_bytes([octets[0], octets[1]]) & 0x3fff);
            let moved = if target < behind { target.wrapping_add(distance) } else { target - behind + start };
            octets.copy_from_slice(&pointer(moved).unwrap_or([0, 0]));
        }
    }

    /// Lets the records from `start` on have their owner at another place than octet 12.
    fn point_owners(&mut self, start: usize, owner_at: usize) {
        let Some(pointer) = pointer(owner_at) else { return };
        let mut at = start;
        while at < self.len {
            self.out[at..at + 2].copy_from_slice(&pointer);
            at += RECORD_HEAD + usize::from(u16::from_be_bytes([self.out[at + 10], self.out[at + 11]]));
        }
    }

    /// Puts a set with the names of its data in full, and its owner too if it is given.
    fn expand(&mut self, set: &Set<'_>, owner: Option<&[u8]>) -> bool {
        for range in records(set) {
            let head = &set.body[range.start - RECORD_HEAD..range.start];
            let mut fits = self.copy(owner.unwrap_or(&head[..2])) && self.copy(&head[2..]);
            let start = self.len;
            put_data(set, range, &mut |part| fits = fits && self.copy(part));
            let Ok(length) = u16::try_from(self.len - start) else { return false };
            if !fits {
                return false;
            }
            self.out[start - 2..start].copy_from_slice(&length.to_be_bytes());
        }
        true
    }

    /// Back to how much was written before.
    pub(crate) fn rewind(&mut self, len: usize, counts: [u16; 3]) {
        self.len = len;
        self.counts = counts;
    }
}

/// A pointer to a place, if pointers reach so far.
fn pointer(place: usize) -> Option<[u8; 2]> {
    u16::try_from(place).ok().filter(|place| *place < 0x4000).map(|place| (0xc000 | place).to_be_bytes())
}

/// The first name of a set's data (a CNAME's or DNAME's target), uncompressed and as it was written.
pub(crate) fn target_name(set: &Set<'_>, into: &mut [u8; 255]) -> usize {
    let mut len = 0;
    put_name(set, RECORD_HEAD, &mut |part| {
        into[len..len + part.len()].copy_from_slice(part);
        len += part.len();
    });
    len
}
