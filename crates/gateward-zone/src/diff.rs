//! Differences between versions of a zone: as a list of changes, as text, as JSON, as one digest, and how much they are of the zone.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

use domain::base::iana::Rtype;
use domain::utils::base16;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::name::Name;
use crate::presentation::{parse_record, to_text};
use crate::problem::{Problem, Severity};
use crate::rdata::canonical;
use crate::record::Record;
use crate::soa::with_serial;
use crate::view::{Change, ZoneView};
use crate::zonefile::ZoneText;

/// What must be done to `before` to make it `after`: by name and type, what goes before what comes. A new TTL or a new letter case is a record that
/// goes and one that comes.
#[must_use]
pub fn diff(before: &dyn ZoneView, after: &dyn ZoneView) -> Vec<Change> {
    let (old, new) = (sorted(before), sorted(after));
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    let mut changes = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.cmp(b),
        };
        if order.is_eq() {
            _ = (old.next(), new.next());
        } else if order.is_lt() {
            changes.extend(old.next().map(Change::Remove));
        } else {
            changes.extend(new.next().map(Change::Add));
        }
    }
    sort(&mut changes);
    changes
}

/// All records of a new zone as what comes.
#[must_use]
pub fn creation(after: &dyn ZoneView) -> Vec<Change> {
    sorted(after).into_iter().map(Change::Add).collect()
}

/// All records of a zone that is deleted as what goes.
#[must_use]
pub fn removal(before: &dyn ZoneView) -> Vec<Change> {
    sorted(before).into_iter().map(Change::Remove).collect()
}

fn sorted(view: &dyn ZoneView) -> Vec<Record> {
    let mut records = Vec::with_capacity(view.record_count());
    view.for_each_record(&mut |record| records.push(record));
    records.sort_unstable();
    records
}

fn sort(changes: &mut [Change]) {
    let key = |change: &Change| matches!(change, Change::Add(_));
    changes.sort_unstable_by(|a, b| {
        let (ours, theirs) = (a.record(), b.record());
        let set = ours.owner.cmp(&theirs.owner).then_with(|| ours.rtype.cmp(&theirs.rtype));
        set.then_with(|| key(a).cmp(&key(b))).then_with(|| ours.cmp(theirs))
    });
}

/// `before` with the changes made. What is removed but not there, and what is added but there already, changes nothing.
/// A record that is added gives its TTL to its set.
#[must_use]
pub fn apply(before: &dyn ZoneView, changes: &[Change]) -> ZoneText {
    let identity = |record: &Record| {
        (record.owner.clone(), record.rtype, canonical(record.rtype, record.rdata.as_wire()).into_owned())
    };
    // The last word on each record, in the order of the first.
    let mut last: Vec<Option<&Record>> = Vec::with_capacity(changes.len());
    let mut index = HashMap::new();
    for change in changes {
        let word = if let Change::Add(record) = change { Some(record) } else { None };
        match index.entry(identity(change.record())) {
            Entry::Occupied(known) => last[*known.get()] = word,
            Entry::Vacant(new) => {
                new.insert(last.len());
                last.push(word);
            }
        }
    }
    let come: Vec<Record> = last.into_iter().flatten().cloned().collect();
    let ttls: HashMap<_, _> = come.iter().map(|record| ((record.owner.clone(), record.rtype), record.ttl)).collect();
    let mut records = Vec::with_capacity(before.record_count());
    before.for_each_record(&mut |record| {
        if !index.contains_key(&identity(&record)) {
            records.push(record);
        }
    });
    records.extend(come);
    for record in &mut records {
        if let Some(ttl) = ttls.get(&(record.owner.clone(), record.rtype)) {
            record.ttl = *ttl;
        }
    }
    ZoneText::from_records(before.origin().clone(), records)
}

/// One line for each change: `- www 300 IN A 192.0.2.1`, `+ www 300 IN A 192.0.2.2`. Owners are relative to `origin`.
#[must_use]
pub fn to_text_diff(origin: &Name, changes: &[Change]) -> String {
    let mut text = String::new();
    for change in changes {
        let sign = if matches!(change, Change::Add(_)) { '+' } else { '-' };
        writeln!(text, "{sign} {}", to_text(change.record(), origin)).expect("strings take everything");
    }
    text
}

/// A change as the control API takes and gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeJson {
    /// Whether the record comes or goes.
    pub op: Op,
    /// The record as text, its owner relative to the zone.
    pub record: String,
}

/// Whether a record comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// It comes.
    Add,
    /// It goes.
    Remove,
}

/// The changes as JSON values.
#[must_use]
pub fn to_json(origin: &Name, changes: &[Change]) -> Vec<ChangeJson> {
    let json = |change: &Change| ChangeJson {
        op: if matches!(change, Change::Add(_)) { Op::Add } else { Op::Remove },
        record: to_text(change.record(), origin),
    };
    changes.iter().map(json).collect()
}

impl ChangeJson {
    /// The change it stands for. Only removals may leave the TTL out: it does not count for them.
    ///
    /// # Errors
    /// The text is not one record of the zone `origin`.
    pub fn parse(&self, origin: &Name, default_ttl: Option<u32>) -> Result<Change, Problem> {
        let ttl = if self.op == Op::Remove { default_ttl.or(Some(0)) } else { default_ttl };
        let record = parse_record(&self.record, origin, ttl)?;
        if !record.owner.is_in(origin) {
            return Err(Problem {
                file: "".into(),
                line: 0,
                rule: "out-of-zone",
                severity: Severity::Error,
                message: format!("{} is not in the zone {origin}", record.owner),
                remedy: Some("send it to the zone it belongs to".to_owned()),
            });
        }
        Ok(match self.op {
            Op::Add => Change::Add(record),
            Op::Remove => Change::Remove(record),
        })
    }
}

/// A name for a set of changes: SHA-256 in hexadecimal digits, whatever their order. The SOA's serial does not count, because the
/// server sets it.
#[must_use]
pub fn digest(zone: &Name, changes: &[Change]) -> String {
    let mut items: BTreeSet<(bool, Record)> = BTreeSet::new();
    for change in changes {
        let mut record = change.record().clone();
        let data = canonical(record.rtype, record.rdata.as_wire()).into_owned();
        record.rdata = crate::record::Rdata::from_wire(data);
        if record.rtype == Rtype::SOA {
            record.rdata = with_serial(&record.rdata, 0).unwrap_or(record.rdata);
        }
        let adds = matches!(change, Change::Add(_));
        // A SOA whose serial alone changes is no change.
        if record.rtype == Rtype::SOA && items.remove(&(!adds, record.clone())) {
            continue;
        }
        items.insert((adds, record));
    }
    let mut hash = Sha256::new();
    hash.update(b"gateward changes 1\0");
    hash.update(zone.as_wire());
    for (adds, record) in items {
        hash.update([u8::from(adds)]);
        hash.update(record.owner.as_wire());
        hash.update(record.rtype.to_int().to_be_bytes());
        hash.update(record.ttl.to_be_bytes());
        hash.update(u64::try_from(record.rdata.as_wire().len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(record.rdata.as_wire());
    }
    base16::encode_string(&hash.finalize()[..]).to_ascii_lowercase()
}

/// How much changes. The SOA record does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Records before, without the SOA.
    pub records: usize,
    /// Records that come without taking another one's place.
    pub added: usize,
    /// Records that another one of the same name and type replaces.
    pub updated: usize,
    /// Records that go without another one in their place.
    pub removed: usize,
    /// Records that stay with another TTL.
    pub retimed: usize,
    /// Names that something happens at, without the apex when only the SOA changes.
    #[serde(skip)]
    pub names: BTreeSet<Name>,
}

impl Summary {
    /// What the changes do to a zone of `records_before` records, its SOA included; 0 for a new zone.
    #[must_use]
    pub fn of(records_before: usize, changes: &[Change]) -> Self {
        let mut sets: HashMap<_, HashMap<_, (bool, bool)>> = HashMap::new();
        for change in changes.iter().filter(|change| change.record().rtype != Rtype::SOA) {
            let record = change.record();
            let data = canonical(record.rtype, record.rdata.as_wire());
            let (goes, comes) = sets.entry((&record.owner, record.rtype)).or_default().entry(data).or_default();
            match change {
                Change::Remove(_) => *goes = true,
                Change::Add(_) => *comes = true,
            }
        }
        let mut summary = Summary {
            records: records_before.saturating_sub(1),
            added: 0,
            updated: 0,
            removed: 0,
            retimed: 0,
            names: sets.keys().map(|(name, _)| (*name).clone()).collect(),
        };
        for set in sets.values() {
            let count = |what| set.values().filter(|(goes, comes)| (*goes, *comes) == what).count();
            let (gone, come) = (count((true, false)), count((false, true)));
            summary.updated += gone.min(come);
            summary.removed += gone - gone.min(come);
            summary.added += come - gone.min(come);
            summary.retimed += count((true, true));
        }
        summary
    }

    /// Percent of the records that go without replacement, rounded up; 0 when there were none.
    #[must_use]
    pub fn removed_percent(&self) -> u64 {
        self.percent(self.removed)
    }

    /// Percent of the records that go, are replaced or get another TTL, rounded up. New ones do not count.
    #[must_use]
    pub fn changed_percent(&self) -> u64 {
        self.percent(self.removed + self.updated + self.retimed)
    }

    fn percent(&self, count: usize) -> u64 {
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        if self.records == 0 { 0 } else { wide(count).saturating_mul(100).div_ceil(wide(self.records)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::zonefile::parse_zone;

    fn origin() -> Name {
        "example.com".parse().expect("a name")
    }

    fn zone(text: &str) -> ZoneText {
        let text = format!("$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n{text}");
        parse_zone(text.as_bytes(), &origin(), "z", &|_| Err(String::new())).expect(&text)
    }

    #[test]
    fn differences_are_by_name_and_what_goes_goes_first() {
        let before = zone("a A 192.0.2.1\nb A 192.0.2.1\nc 60 A 192.0.2.1\nd CNAME a\n");
        let after = zone("b A 192.0.2.1\na A 192.0.2.2\nc 30 A 192.0.2.1\ne TXT x\nd CNAME A\n");
        let changes = diff(&before, &after);
        assert_eq!(
            to_text_diff(&origin(), &changes),
            "- a 60 IN A 192.0.2.1\n+ a 60 IN A 192.0.2.2\n- c 60 IN A 192.0.2.1\n+ c 30 IN A 192.0.2.1\n\
             - d 60 IN CNAME a.example.com.\n+ d 60 IN CNAME A.example.com.\n+ e 60 IN TXT \"x\"\n"
        );
        assert_eq!(apply(&before, &changes).records(), after.records());
        assert_eq!(diff(&after, &after), []);
        let summary = Summary::of(before.record_count(), &changes);
        assert_eq!(
            (summary.records, summary.added, summary.updated, summary.removed, summary.retimed),
            (4, 1, 1, 0, 2)
        );
        assert_eq!((summary.removed_percent(), summary.changed_percent(), summary.names.len()), (0, 75, 4));
        assert_eq!((creation(&before).len(), removal(&before).len()), (5, 5));
    }

    #[test]
    fn changes_are_json_and_back() {
        let changes = diff(&zone("a A 192.0.2.1\n"), &zone("a A 192.0.2.2\n"));
        let json = serde_json::to_string(&to_json(&origin(), &changes)).expect("it is plain data");
        assert_eq!(
            json,
            r#"[{"op":"remove","record":"a 60 IN A 192.0.2.1"},{"op":"add","record":"a 60 IN A 192.0.2.2"}]"#
        );
        let parsed: Vec<ChangeJson> = serde_json::from_str(&json).expect("it was written above");
        let again: Vec<Change> = parsed.iter().map(|change| change.parse(&origin(), None).expect("good")).collect();
        assert_eq!(again, changes);
        let change = |op, record: &str| ChangeJson { op, record: record.to_owned() }.parse(&origin(), None);
        assert!(change(Op::Remove, "a A 192.0.2.1").is_ok());
        assert!(change(Op::Add, "a A 192.0.2.1").is_err());
        assert_eq!(change(Op::Add, "a.example.net. 60 A 192.0.2.1").expect_err("elsewhere").rule, "out-of-zone");
    }

    #[test]
    fn a_digest_names_the_changes_whatever_their_order_and_the_serial() {
        let (before, after) = (zone("a A 192.0.2.1\nb A 192.0.2.1\n"), zone("a A 192.0.2.2\nb A 192.0.2.3\n"));
        let changes = diff(&before, &after);
        let digest_of = |changes: &[Change]| digest(&origin(), changes);
        let mut turned = changes.clone();
        turned.reverse();
        assert_eq!(digest_of(&changes), digest_of(&turned));
        assert_ne!(digest_of(&changes), digest_of(&changes[1..]));
        assert_ne!(digest_of(&changes), digest(&"example.net".parse().expect("a name"), &changes));
        let soa = before.set(&origin(), Rtype::SOA).expect("it has one");
        let soa = |serial, ttl| Record {
            owner: origin(),
            rtype: Rtype::SOA,
            ttl,
            rdata: with_serial(&soa.data[0], serial).expect("SOA data"),
        };
        let mut raised = changes.clone();
        raised.extend([Change::Remove(soa(1, 60)), Change::Add(soa(2, 60))]);
        assert_eq!(digest_of(&changes), digest_of(&raised));
        raised.push(Change::Add(soa(2, 61)));
        assert_ne!(digest_of(&changes), digest_of(&raised));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_a_difference_says_leads_from_one_version_to_the_other(
            before in proptest::collection::vec((0..6_u8, 0..4_u8), 0..20),
            after in proptest::collection::vec((0..6_u8, 0..4_u8), 0..20),
        ) {
            let text = |rows: &[(u8, u8)]| rows.iter().fold(String::new(), |mut text, (name, last)| {
                writeln!(text, "n{name} A 192.0.2.{last}").expect("strings take everything");
                text
            });
            let (before, after) = (zone(&text(&before)), zone(&text(&after)));
            let changes = diff(&before, &after);
            let applied = apply(&before, &changes);
            prop_assert_eq!(diff(&applied, &after), []);
            let summary = Summary::of(before.record_count(), &changes);
            prop_assert_eq!(before.record_count() + summary.added - summary.removed, after.record_count());
        }
    }
}
