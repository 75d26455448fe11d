//! Catalog zones, version 2 (RFC 9432), without IO: the zone that lists others is made from a list of members, read back into one,
//! and compared with what a server has.
//!
//! A member is a node `ID.zones.CATALOG` with the zone's name. Its ID is what makes it the same member: with another ID the zone
//! begins anew. A broken catalog is refused as a whole; what was served before stays.

use std::collections::{BTreeMap, BTreeSet};

use gateward_zone::{Change, Name, Rdata, Record, Rtype, Soa, ZoneView, next_serial};
use sha2::{Digest as _, Sha256};

/// The version that is written and read (RFC 9432, 4.2.1).
const VERSION: &[u8] = b"2";
/// Most members of a catalog.
const MAX_MEMBERS: usize = 1_000_000;
/// Octets of the hash that makes an ID; 40 digits fit into a label.
const ID_BYTES: usize = 20;

/// A zone in a catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The zone.
    pub zone: Name,
    /// The label that identifies it, in lower case.
    pub id: Vec<u8>,
    /// Names of sets of settings that its consumers may have for it, sorted (RFC 9432, 4.3.2).
    pub groups: Vec<String>,
    /// The catalog that may take the zone over (RFC 9432, 4.3.1).
    pub coo: Option<Name>,
}

impl Member {
    /// A member whose ID follows from its name, and from how often it began anew.
    #[must_use]
    pub fn new(zone: Name, generation: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(zone.as_wire());
        hash.update(generation.to_be_bytes());
        let digits = |octet: &u8| [octet >> 4, octet & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
        let id = hash.finalize()[..ID_BYTES].iter().flat_map(digits).collect();
        Member { zone, id, groups: Vec::new(), coo: None }
    }
}

/// The records of a catalog zone. `timers` has refresh, retry and expire for its secondaries; serial and names in it do not count.
///
/// # Errors
/// [`Broken`]: what comes out would be refused by those who read it.
pub fn records(catalog: &Name, serial: u32, timers: &Soa, members: &[Member]) -> Result<Vec<Record>, Broken> {
    let long = |_| Broken::LongName(catalog.clone());
    let invalid: Name = "invalid".parse().expect("a name");
    let soa = Soa { mname: invalid.clone(), rname: invalid.clone(), serial, ..timers.clone() };
    let record = |owner: &Name, rtype: Rtype, rdata: Rdata| Record { owner: owner.clone(), rtype, ttl: 0, rdata };
    let pointer = |name: &Name| Rdata::from_wire(name.as_wire());
    let mut all = vec![
        record(catalog, Rtype::SOA, soa.to_rdata()),
        record(catalog, Rtype::NS, pointer(&invalid)),
        record(&catalog.child(b"version").map_err(long)?, Rtype::TXT, text(VERSION)),
    ];
    let zones = catalog.child(b"zones").map_err(long)?;
    let mut seen = (BTreeSet::new(), BTreeSet::new());
    for member in members {
        if !seen.0.insert(&member.zone) {
            return Err(Broken::TwiceListed(member.zone.clone()));
        }
        let node = zones.child(&member.id).map_err(long)?;
        if !seen.1.insert(&member.id) {
            return Err(Broken::Pointers(node));
        }
        all.push(record(&node, Rtype::PTR, pointer(&member.zone)));
        if let Some(coo) = &member.coo {
            all.push(record(&node.child(b"coo").map_err(long)?, Rtype::PTR, pointer(coo)));
        }
        let group_node = node.child(b"group").map_err(long)?;
        all.extend(member.groups.iter().map(|group| record(&group_node, Rtype::TXT, text(group.as_bytes()))));
    }
    Ok(all)
}

/// What makes a catalog zone list these members and no others, its serial raised; nothing when it does already.
///
/// # Errors
/// As for [`records`].
pub fn changes(view: &dyn ZoneView, members: &[Member]) -> Result<Vec<Change>, Broken> {
    let mut served = BTreeSet::new();
    view.for_each_record(&mut |record| {
        served.insert(record);
    });
    let soa = |record: &&Record| record.rtype == Rtype::SOA;
    let timers = served.iter().find(soa).and_then(|record| Soa::read(&record.rdata).ok());
    let timers = timers.ok_or_else(|| Broken::NoSoa(view.origin().clone()))?;
    let wanted = BTreeSet::from_iter(records(view.origin(), next_serial(view.serial()), &timers, members)?);
    let removed: Vec<Change> = served.difference(&wanted).cloned().map(Change::Remove).collect();
    let added: Vec<Change> = wanted.difference(&served).cloned().map(Change::Add).collect();
    // The SOA records always differ.
    let is_same = removed.len() <= 1 && added.len() <= 1;
    Ok(if is_same { Vec::new() } else { [removed, added].concat() })
}

/// TXT data with one string; what is longer than 255 octets is cut.
fn text(octets: &[u8]) -> Rdata {
    let octets = &octets[..octets.len().min(255)];
    let len = u8::try_from(octets.len()).expect("it was cut");
    Rdata::from_wire([&[len], octets].concat())
}

/// Why a catalog is refused (RFC 9432, 5.1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// `version` is missing, or not one record.
    #[error("the catalog has not one `version` TXT record")]
    Version,
    /// A version that is not known.
    #[error("the catalog has version {0:?}; 2 is the only one that is known")]
    OtherVersion(String),
    /// A node with more than one pointer.
    #[error("{0} has more than one PTR record")]
    Pointers(Name),
    /// Two nodes for one zone.
    #[error("the zone {0} is listed twice")]
    TwiceListed(Name),
    /// More members than allowed.
    #[error("the catalog has more than {MAX_MEMBERS} members")]
    TooMany,
    /// It is no zone.
    #[error("{0} has no SOA record")]
    NoSoa(Name),
    /// Names that would be too long.
    #[error("names below {0} are too long")]
    LongName(Name),
}

/// Members of a catalog zone, by name. Properties that are not known are passed over (RFC 9432, 4.4).
///
/// # Errors
/// [`Broken`]: nothing of it may be used.
pub fn members(view: &dyn ZoneView) -> Result<BTreeMap<Name, Member>, Broken> {
    let catalog = view.origin();
    check_version(view)?;
    let zones = catalog.child(b"zones").map_err(|_| Broken::LongName(catalog.clone()))?;
    let depth = zones.label_count();
    let mut nodes: BTreeMap<Vec<u8>, Node> = BTreeMap::new();
    let mut error = None;
    view.for_each_record(&mut |record| {
        if error.is_none() && record.owner.is_in(&zones) {
            error = take(&mut nodes, &record, depth).err();
        }
    });
    if let Some(error) = error {
        return Err(error);
    }
    let mut members = BTreeMap::new();
    for (id, node) in nodes {
        // Properties without a member say nothing.
        let Some(zone) = node.zone else { continue };
        let member = Member { zone: zone.clone(), id, groups: node.groups.into_iter().collect(), coo: node.coo };
        if members.insert(zone.clone(), member).is_some() {
            return Err(Broken::TwiceListed(zone));
        }
        if members.len() > MAX_MEMBERS {
            return Err(Broken::TooMany);
        }
    }
    Ok(members)
}

#[derive(Default)]
struct Node {
    zone: Option<Name>,
    groups: BTreeSet<String>,
    coo: Option<Name>,
}

fn check_version(view: &dyn ZoneView) -> Result<(), Broken> {
    let owner = view.origin().child(b"version").map_err(|_| Broken::Version)?;
    let set = view.set(&owner, Rtype::TXT).filter(|set| set.data.len() == 1).ok_or(Broken::Version)?;
    match strings(set.data[0].as_wire()).as_slice() {
        [VERSION] => Ok(()),
        [other] => Err(Broken::OtherVersion(String::from_utf8_lossy(other).into_owned())),
        _ => Err(Broken::Version),
    }
}

/// A record below `zones`: a member, a property that is known, or nothing.
fn take(nodes: &mut BTreeMap<Vec<u8>, Node>, record: &Record, depth: usize) -> Result<(), Broken> {
    let labels: Vec<&[u8]> = record.owner.labels().collect();
    let (property, id) = match labels.len() - depth {
        1 => (None, labels[0]),
        2 => (Some(labels[0]), labels[1]),
        _ => return Ok(()),
    };
    let pointer = || Name::from_wire(record.rdata.as_wire()).map(|(name, _)| name).ok();
    let put = |into: &mut Option<Name>| match (into.is_some(), pointer()) {
        (true, _) => Err(Broken::Pointers(record.owner.clone())),
        (false, name) => {
            *into = name;
            Ok(())
        }
    };
    match (property, record.rtype) {
        (None, Rtype::PTR) => put(&mut nodes.entry(id.to_vec()).or_default().zone),
        (Some(b"coo"), Rtype::PTR) => put(&mut nodes.entry(id.to_vec()).or_default().coo),
        (Some(b"group"), Rtype::TXT) => {
            let group = strings(record.rdata.as_wire()).concat();
            nodes.entry(id.to_vec()).or_default().groups.insert(String::from_utf8_lossy(&group).into_owned());
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The strings of TXT data.
fn strings(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut strings = Vec::new();
    while let Some((len, tail)) = rest.split_first() {
        let Some((string, tail)) = tail.split_at_checked(usize::from(*len)) else { break };
        strings.push(string);
        rest = tail;
    }
    strings
}

/// Where a zone that a server has comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Its own configuration.
    Own,
    /// A catalog, as this member.
    Catalog {
        /// The catalog zone.
        catalog: Name,
        /// The member's ID.
        id: Vec<u8>,
        /// The member's groups.
        groups: Vec<String>,
        /// The catalog that may take it over.
        coo: Option<Name>,
    },
}

/// What a new version of a catalog asks of its consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Serve this zone.
    Add(Member),
    /// Serve it no more, and forget its data.
    Remove(Name),
    /// It is another zone of the same name now: forget its data, transfer it anew (RFC 9432, 5.4).
    Reset(Member),
    /// Properties changed; the data stays.
    Change(Member),
    /// The other catalog gave it away: it is a member of this one now. The data stays if the ID is the same (RFC 9432, 4.3.1).
    TakeOver {
        /// The member in this catalog.
        member: Member,
        /// The catalog it was in.
        from: Name,
        /// Whether the data stays.
        keeps_data: bool,
    },
    /// The name is taken by a zone of another source, which stays as it is (RFC 9432, 5.2).
    Clash {
        /// The zone.
        zone: Name,
        /// Who has it.
        held_by: Source,
    },
}

/// Compares a catalog with the zones that a server has. Removals come first.
#[must_use]
pub fn steps(catalog: &Name, members: &BTreeMap<Name, Member>, served: &BTreeMap<Name, Source>) -> Vec<Step> {
    let is_ours = |source: &Source| matches!(source, Source::Catalog { catalog: of, .. } if of == catalog);
    let gone = served.iter().filter(|(zone, source)| is_ours(source) && !members.contains_key(zone));
    let mut steps: Vec<Step> = gone.map(|(zone, _)| Step::Remove(zone.clone())).collect();
    for (zone, member) in members {
        let step = match served.get(zone) {
            None => Some(Step::Add(member.clone())),
            Some(Source::Catalog { catalog: of, id, groups, coo }) if of == catalog => match () {
                () if *id != member.id => Some(Step::Reset(member.clone())),
                () if *groups != member.groups || *coo != member.coo => Some(Step::Change(member.clone())),
                () => None,
            },
            Some(Source::Catalog { catalog: from, id, coo: Some(to), .. }) if to == catalog => {
                Some(Step::TakeOver { member: member.clone(), from: from.clone(), keeps_data: *id == member.id })
            }
            Some(other) => Some(Step::Clash { zone: zone.clone(), held_by: other.clone() }),
        };
        steps.extend(step);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Zone;
    use gateward_zone::parse_record;

    fn name(text: &str) -> Name {
        text.parse().expect(text)
    }

    fn timers() -> Soa {
        Soa { mname: Name::root(), rname: Name::root(), serial: 0, refresh: 60, retry: 10, expire: 86_400, minimum: 0 }
    }

    fn member(zone: &str) -> Member {
        Member::new(name(zone), 0)
    }

    fn zone(records: Vec<Record>) -> Zone {
        Zone::build(&name("catalog.example"), records).expect("a zone")
    }

    fn produced(list: &[Member]) -> Vec<Record> {
        records(&name("catalog.example"), 7, &timers(), list).expect("not broken")
    }

    /// A catalog with one member and these lines.
    fn with(lines: &[&str]) -> Result<BTreeMap<Name, Member>, Broken> {
        let mut all = produced(&[member("a.example")]);
        all.extend(lines.iter().map(|line| parse_record(line, &name("catalog.example"), None).expect(line)));
        members(&zone(all))
    }

    #[test]
    fn what_is_produced_is_consumed() {
        let mut list = vec![member("a.example"), member("b.example"), member("c.example")];
        list[0].groups = vec!["signed".to_owned(), "slow".to_owned()];
        list[1].coo = Some(name("other.example"));
        let all = produced(&list);
        assert!(all.iter().all(|record| record.owner.is_in(&name("catalog.example"))));
        let read = members(&zone(all)).expect("not broken");
        assert_eq!(read.into_values().collect::<Vec<_>>(), list);
        assert_ne!(Member::new(name("a.example"), 0).id, Member::new(name("a.example"), 1).id);
        let twice =
            records(&name("catalog.example"), 7, &timers(), &[member("a.example"), Member::new(name("a.example"), 1)]);
        assert_eq!(twice, Err(Broken::TwiceListed(name("a.example"))));
    }

    #[test]
    fn a_catalog_changes_with_its_members() {
        let (a, b) = (member("a.example"), member("b.example"));
        let old = zone(produced(std::slice::from_ref(&a)));
        assert_eq!(changes(&old, std::slice::from_ref(&a)), Ok(Vec::new()));
        let made = changes(&old, &[a, b]).expect("not broken");
        assert_eq!(made.len(), 3);
        let next = old.with(&made).expect("they fit");
        assert_eq!((next.serial(), members(&next).expect("not broken").len()), (8, 2));
        let emptied = next.with(&changes(&next, &[]).expect("not broken")).expect("they fit");
        assert_eq!((emptied.serial(), emptied.record_count()), (9, 3));
    }

    #[test]
    fn rfc9432_5_1_broken_catalogs_are_refused_whole() {
        let id = String::from_utf8(member("a.example").id).expect("digits");
        for (line, broken) in [
            ("version 0 TXT 3".to_owned(), Broken::Version),
            (format!("{id}.zones 0 PTR b.example."), Broken::Pointers(name(&format!("{id}.zones.catalog.example")))),
            ("other.zones 0 PTR a.example.".to_owned(), Broken::TwiceListed(name("a.example"))),
        ] {
            assert_eq!(with(&[&line]), Err(broken), "{line}");
        }
        let coo = [format!("coo.{id}.zones 0 PTR x."), format!("coo.{id}.zones 0 PTR y.")];
        assert!(matches!(with(&[&coo[0], &coo[1]]), Err(Broken::Pointers(_))));
        let no_version: Vec<Record> = produced(&[]).into_iter().filter(|record| record.rtype != Rtype::TXT).collect();
        for (lines, broken) in [
            (&[][..], Broken::Version),
            (&["version 0 TXT 1"], Broken::OtherVersion("1".to_owned())),
            (&["version 0 TXT 2 2"], Broken::Version),
            (&["version 0 A 192.0.2.1"], Broken::Version),
        ] {
            let lines = lines.iter().map(|line| parse_record(line, &name("catalog.example"), None).expect(line));
            assert_eq!(members(&zone(no_version.iter().cloned().chain(lines).collect())), Err(broken));
        }
    }

    #[test]
    fn rfc9432_4_4_what_is_not_known_is_passed_over() {
        let id = String::from_utf8(member("a.example").id).expect("digits");
        let lines = [
            format!("thing.ext.{id}.zones 0 TXT x"),
            format!("new.{id}.zones 0 TXT x"),
            "ext 0 TXT x".to_owned(),
            "orphan.zones 0 TXT x".to_owned(),
            "group.orphan2.zones 0 TXT x".to_owned(),
            "zones 0 PTR x.".to_owned(),
        ];
        let read = with(&lines.iter().map(String::as_str).collect::<Vec<_>>()).expect("not broken");
        assert_eq!(read.into_values().collect::<Vec<_>>(), [member("a.example")]);
    }

    fn held(member: &Member, catalog: &str) -> Source {
        Source::Catalog {
            catalog: name(catalog),
            id: member.id.clone(),
            groups: member.groups.clone(),
            coo: member.coo.clone(),
        }
    }

    #[test]
    fn rfc9432_5_members_come_go_and_begin_anew() {
        let list = |members: &[Member]| members.iter().map(|member| (member.zone.clone(), member.clone())).collect();
        let after = |members: &[Member], served: &[(&Member, Source)]| {
            let served = served.iter().map(|(member, source)| (member.zone.clone(), source.clone())).collect();
            steps(&name("catalog.example"), &list(members), &served)
        };
        let (a, b) = (member("a.example"), member("b.example"));
        let here = |member: &Member| held(member, "catalog.example");
        assert_eq!(after(std::slice::from_ref(&a), &[]), [Step::Add(a.clone())]);
        assert_eq!(after(std::slice::from_ref(&a), &[(&a, here(&a))]), []);
        assert_eq!(
            after(std::slice::from_ref(&b), &[(&a, here(&a))]),
            [Step::Remove(a.zone.clone()), Step::Add(b.clone())]
        );
        let anew = Member::new(a.zone.clone(), 1);
        assert_eq!(after(std::slice::from_ref(&anew), &[(&a, here(&a))]), [Step::Reset(anew.clone())]);
        let grouped = Member { groups: vec!["g".to_owned()], ..a.clone() };
        assert_eq!(after(std::slice::from_ref(&grouped), &[(&a, here(&a))]), [Step::Change(grouped.clone())]);
        // Zones of others stay, whether they are listed or not.
        assert_eq!(after(&[], &[(&a, Source::Own), (&b, held(&b, "other.example"))]), []);
        for source in [Source::Own, held(&a, "other.example")] {
            let clash = Step::Clash { zone: a.zone.clone(), held_by: source.clone() };
            assert_eq!(after(std::slice::from_ref(&a), &[(&a, source)]), [clash]);
        }
    }

    #[test]
    fn rfc9432_4_3_1_change_of_ownership() {
        let a = member("a.example");
        let take_over = |to: &str, member: &Member| {
            let given = Member { coo: Some(name(to)), ..a.clone() };
            let members = BTreeMap::from([(member.zone.clone(), member.clone())]);
            let served = BTreeMap::from([(a.zone.clone(), held(&given, "old.example"))]);
            steps(&name("catalog.example"), &members, &served)
        };
        let step = |member: &Member, keeps_data| Step::TakeOver {
            member: member.clone(),
            from: name("old.example"),
            keeps_data,
        };
        assert_eq!(take_over("catalog.example", &a), [step(&a, true)]);
        let anew = Member::new(a.zone.clone(), 1);
        assert_eq!(take_over("catalog.example", &anew), [step(&anew, false)]);
        assert!(matches!(take_over("third.example", &a)[..], [Step::Clash { .. }]));
    }
}
