//! Fills an answer's sections for one question from one zone: RFC 1034, 4.3.2 with everything that came later.

use gateward_zone::{Rtype, ZoneView};

use super::lookup::{Found, find};
use super::writer::{Owner, Placed, Section, Writer, target_name};
use super::{Kind, rcode};
use crate::message::{Asked, Question};
use crate::store::{Node, QNAME_AT, RECORD_HEAD, Set, TargetRef, Zone};

/// Most CNAMEs and DNAMEs followed within a zone for one question.
const MAX_CHAIN: usize = 16;
const CNAME: u16 = 5;
const ANY: u16 = 255;
/// Pointers lead to names before this place.
const MAX_POINTER: usize = 0x4000;

/// What an answer became.
pub(crate) struct Filled {
    pub(crate) rcode: u16,
    pub(crate) kind: Kind,
    pub(crate) authoritative: bool,
    pub(crate) truncated: bool,
    /// The name does not stand in the zone: a wildcard or a DNAME answers for any of its like.
    pub(crate) made_up: bool,
}

impl Filled {
    /// A whole answer of the authority.
    pub(crate) fn of(kind: Kind, rcode: u16) -> Self {
        Filled { rcode, kind, authoritative: true, truncated: false, made_up: false }
    }

    pub(crate) fn error(rcode: u16) -> Self {
        Filled { authoritative: false, ..Filled::of(Kind::Error, rcode) }
    }

    fn cut_short(self) -> Self {
        Filled { truncated: true, ..self }
    }
}

/// A zone and where it lies in the question.
struct Place<'z> {
    zone: &'z Zone,
    labels: usize,
    hash: u64,
    /// Where the origin starts in the question's name.
    skip: usize,
}

/// Answers `question` from `zone`, whose origin has `labels` labels and the hash `hash`.
#[inline]
pub(crate) fn fill(
    zone: &Zone,
    labels: usize,
    hash: u64,
    question: &Question<'_>,
    writer: &mut Writer<'_>,
    udp: bool,
) -> Filled {
    let place = Place { zone, labels, hash, skip: question.name.suffix_start(labels) };
    let qtype = question.qtype;
    match find(zone, labels, hash, &question.name, qtype) {
        Found::Exact(node) => match node.set(Rtype::from_int(qtype)) {
            Some(set) => put_answer(&place, &set, Owner::Suffix(0), writer),
            None => at_node(&place, node, question, Owner::Suffix(0), writer, udp),
        },
        Found::Nothing => negative(&place, writer, rcode::NXDOMAIN),
        Found::Cut(node, labels) => referral(&place, node, Owner::Suffix(question.name.suffix_start(labels)), writer),
        Found::Wildcard(node) => {
            let filled = match node.set(Rtype::from_int(qtype)) {
                Some(set) => put_answer(&place, &set, Owner::Wildcard, writer),
                None => at_node(&place, node, question, Owner::Wildcard, writer, udp),
            };
            Filled { made_up: true, ..filled }
        }
        Found::Dname(node, labels) => {
            let owner = Owner::Suffix(question.name.suffix_start(labels));
            let step = through_dname(&node, owner, &question.name, labels, QNAME_AT, writer);
            Filled { made_up: true, ..follow(&place, question, step, writer) }
        }
    }
}

/// The set that was asked for.
#[inline]
fn put_answer(place: &Place<'_>, set: &Set<'_>, owner: Owner<'_>, writer: &mut Writer<'_>) -> Filled {
    let filled = Filled::of(Kind::Answer, rcode::NOERROR);
    match writer.put(Section::Answer, owner, set) {
        None => filled.cut_short(),
        Some(placed) => {
            // Helpful, but not owed: what does not fit is left out silently (RFC 2181, 9).
            add_addresses(place, set, &placed, None, writer);
            filled
        }
    }
}

/// A name that has not the type that was asked for.
fn at_node(
    place: &Place<'_>,
    node: Node<'_>,
    question: &Question<'_>,
    owner: Owner<'_>,
    writer: &mut Writer<'_>,
    udp: bool,
) -> Filled {
    if question.qtype == ANY {
        return any(place, node, owner, writer, udp);
    }
    match node.set(Rtype::CNAME) {
        None => negative(place, writer, rcode::NOERROR),
        Some(set) => {
            let step = through_cname(&set, owner, writer);
            follow(place, question, step, writer)
        }
    }
}

/// All types at once: one set over UDP, because such answers serve floods best (RFC 8482, 4.1), everything over a stream.
fn any(place: &Place<'_>, node: Node<'_>, owner: Owner<'_>, writer: &mut Writer<'_>, udp: bool) -> Filled {
    let mut filled = Filled::of(Kind::Answer, rcode::NOERROR);
    let mut count = 0;
    for set in node.sets().take(if udp { 1 } else { usize::MAX }) {
        count += 1;
        filled.truncated |= writer.put(Section::Answer, owner, &set).is_none();
    }
    if count == 0 { negative(place, writer, rcode::NOERROR) } else { filled }
}

/// No such name, or no such type at it: the SOA record says how long that may be remembered (RFC 2308, 2).
#[inline]
fn negative(place: &Place<'_>, writer: &mut Writer<'_>, code: u16) -> Filled {
    let kind = if code == rcode::NXDOMAIN { Kind::NxDomain } else { Kind::NoData };
    let put = writer.put_negative(place.skip, place.zone.negative(), &place.zone.apex());
    Filled { truncated: put.is_none(), ..Filled::of(kind, code) }
}

/// Other servers are responsible: their names, and the addresses that could not be found otherwise.
#[inline]
fn referral(place: &Place<'_>, cut: Node<'_>, owner: Owner<'_>, writer: &mut Writer<'_>) -> Filled {
    let filled = Filled { authoritative: false, ..Filled::of(Kind::Referral, rcode::NOERROR) };
    let Some(set) = cut.set(Rtype::NS) else { return filled };
    let Some(placed) = writer.put(Section::Authority, owner, &set) else { return filled.cut_short() };
    // Addresses of servers within the delegated zone are owed (RFC 9471, 3.1).
    let all = add_addresses(place, &set, &placed, Some(cut.name()), writer);
    Filled { truncated: !all, ..filled }
}

/// Adds the addresses of the names that a set's data leads to. Below `cut`, where a referral leads, they are owed: `false` when one
/// of these did not fit.
#[inline]
fn add_addresses(
    place: &Place<'_>,
    set: &Set<'_>,
    placed: &Placed,
    cut: Option<&[u8]>,
    writer: &mut Writer<'_>,
) -> bool {
    let mut all = true;
    for target in set.targets() {
        let owed = cut.is_some_and(|cut| target.name.ends_with(cut));
        let node = if owed { place.zone.node(target.hash, target.name) } else { told(place, set, &target) };
        let Some(node) = node else { continue };
        let at = placed.at + target.at;
        let owner = if placed.as_rendered && at < MAX_POINTER { Owner::At(at) } else { Owner::Name(target.name) };
        for rtype in [Rtype::A, Rtype::AAAA] {
            if let Some(addresses) = node.set(rtype)
                && writer.put(Section::Additional, owner, &addresses).is_none()
            {
                all &= !owed;
            }
        }
    }
    all
}

/// The name that a set leads to, if its addresses may be told. What stands below a DNAME is not there for anybody, and what stands at
/// or below a cut is another server's to tell: only sets of name servers may bring it, as glue.
fn told<'z>(place: &Place<'z>, set: &Set<'_>, target: &TargetRef<'_>) -> Option<Node<'z>> {
    match find(place.zone, place.labels, place.hash, &Asked::from_wire(target.name), Rtype::A.to_int()) {
        Found::Exact(node) => Some(node),
        Found::Cut(..) if set.rtype() == Rtype::NS => place.zone.node(target.hash, target.name),
        Found::Cut(..) | Found::Dname(..) | Found::Wildcard(_) | Found::Nothing => None,
    }
}

/// A step along a chain.
#[expect(clippy::large_enum_variant, reason = "it lives on the stack, for one step")]
enum Step {
    /// The answer goes on with this name; it stands at this place in the message.
    To(Asked, usize),
    /// A record of the chain does not fit.
    Full,
    /// The name that a DNAME leads to would be too long (RFC 6672, 2.2).
    TooLong,
}

fn through_cname(set: &Set<'_>, owner: Owner<'_>, writer: &mut Writer<'_>) -> Step {
    let Some(placed) = writer.put(Section::Answer, owner, set) else { return Step::Full };
    let mut target = [0; 255];
    let len = target_name(set, &mut target);
    let owner_len = match owner {
        Owner::Name(name) => name.len() - 2,
        _ => 0,
    };
    Step::To(Asked::from_wire(&target[..len]), placed.at + owner_len + RECORD_HEAD)
}

/// A DNAME above `name` and the CNAME made from it (RFC 6672, 3.1); `name` stands at `name_at`, the DNAME has `labels` labels.
fn through_dname(
    node: &Node<'_>,
    owner: Owner<'_>,
    name: &Asked,
    labels: usize,
    name_at: usize,
    writer: &mut Writer<'_>,
) -> Step {
    let Some(set) = node.set(Rtype::DNAME) else { return Step::Full };
    let (len, counts) = (writer.len(), writer.counts());
    if writer.put(Section::Answer, owner, &set).is_none() {
        return Step::Full;
    }
    let mut target = [0; 255];
    let target_len = target_name(&set, &mut target);
    let prefix = &name.wire()[..name.suffix_start(labels)];
    let mut made = [0; 510];
    let made_len = prefix.len() + target_len;
    made[..prefix.len()].copy_from_slice(prefix);
    made[prefix.len()..made_len].copy_from_slice(&target[..target_len]);
    if made_len > 255 {
        return Step::TooLong;
    }
    match writer.put_record(Section::Answer, name_at, Rtype::CNAME.to_int(), set.ttl, &made[..made_len]) {
        Some(at) => Step::To(Asked::from_wire(&made[..made_len]), at + RECORD_HEAD),
        None => {
            writer.rewind(len, counts);
            Step::Full
        }
    }
}

/// Goes on with the name a CNAME or DNAME leads to, as long as it stays in the zone. The response code is that of the last name (RFC 6604, 2.1).
fn follow(place: &Place<'_>, question: &Question<'_>, mut step: Step, writer: &mut Writer<'_>) -> Filled {
    let done = Filled::of(Kind::Answer, rcode::NOERROR);
    // A CNAME that was asked for, among all types or alone, is the answer.
    if matches!(question.qtype, CNAME | ANY) {
        return match step {
            Step::Full => done.cut_short(),
            Step::TooLong => Filled { rcode: rcode::YXDOMAIN, ..done },
            Step::To(..) => done,
        };
    }
    let origin = place.zone.origin().as_wire();
    let mut seen = [0_u64; MAX_CHAIN + 1];
    seen[0] = crate::hash::name(question.name.wire());
    for index in 1..=MAX_CHAIN {
        let (name, at) = match step {
            Step::Full => return done.cut_short(),
            Step::TooLong => return Filled { rcode: rcode::YXDOMAIN, ..done },
            Step::To(name, at) => (name, at),
        };
        let within = name.labels() >= place.labels && name.suffix(place.labels) == origin;
        let hash = crate::hash::name(name.wire());
        if !within || seen[..index].contains(&hash) {
            return done;
        }
        seen[index] = hash;
        let owner = if at < MAX_POINTER { Owner::At(at) } else { Owner::Name(name.wire()) };
        let node = match find(place.zone, place.labels, place.hash, &name, question.qtype) {
            Found::Nothing => return Filled { kind: Kind::NxDomain, ..negative(place, writer, rcode::NXDOMAIN) },
            Found::Cut(cut, _) => {
                let truncated = referral(place, cut, Owner::Name(cut.name()), writer).truncated;
                return Filled { truncated, ..done };
            }
            Found::Dname(node, labels) => {
                step = through_dname(&node, Owner::Name(node.name()), &name, labels, at, writer);
                continue;
            }
            Found::Exact(node) | Found::Wildcard(node) => node,
        };
        if let Some(set) = node.set(Rtype::from_int(question.qtype)) {
            return put_answer(place, &set, owner, writer);
        }
        match node.set(Rtype::CNAME) {
            Some(set) => step = through_cname(&set, owner, writer),
            None => return negative(place, writer, rcode::NOERROR),
        }
    }
    done
}
