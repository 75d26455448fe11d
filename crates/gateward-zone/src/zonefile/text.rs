//! A zone that was read: its records in canonical order, each with its place in the text.

use std::sync::Arc;

use domain::base::iana::Rtype;

use super::may_differ_in_ttl;
use crate::name::Name;
use crate::presentation::to_text;
use crate::problem::{Problem, Severity};
use crate::rdata::canonical;
use crate::record::{Record, RecordSet};
use crate::soa::Soa;
use crate::view::ZoneView;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index into the zone's files.
    pub(crate) file: u32,
    /// Its first line, from 1.
    pub line: u32,
}

/// A zone from text or from a list of records.
///
/// The records are sorted by name in canonical order and by type; within a set the order is that of the text. No record is there
/// twice, and the records of a set have one TTL, the lowest that was written.
#[derive(Debug, Clone)]
pub struct ZoneText {
    origin: Name,
    records: Vec<Record>,
    /// One for each record; empty when there was no text.
    places: Vec<Place>,
    files: Vec<Arc<str>>,
    default_ttl: Option<u32>,
    warnings: Vec<Problem>,
}

impl ZoneText {
    /// A zone that was not read from text: for checks, differences and rendering.
    #[must_use]
    pub fn from_records(origin: Name, records: Vec<Record>) -> Self {
        let records = records.into_iter().map(|record| (record, Place { file: 0, line: 0 })).collect();
        ZoneText::new(origin, records, Vec::new(), None, Vec::new())
    }

    pub(super) fn new(
        origin: Name,
        mut found: Vec<(Record, Place)>,
        files: Vec<Arc<str>>,
        default_ttl: Option<u32>,
        warnings: Vec<Problem>,
    ) -> Self {
        found.sort_by(|(a, _), (b, _)| a.owner.cmp(&b.owner).then_with(|| a.rtype.cmp(&b.rtype)));
        let (records, places) = found.into_iter().unzip();
        let mut zone = ZoneText { origin, records, places, files, default_ttl, warnings };
        zone.drop_duplicates();
        zone.level_ttls();
        zone
    }

    /// The records, sorted as the type says.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records, without a copy.
    #[must_use]
    pub fn into_records(self) -> Vec<Record> {
        self.records
    }

    /// What `$TTL` said last; seconds.
    #[must_use]
    pub fn default_ttl(&self) -> Option<u32> {
        self.default_ttl
    }

    /// What was odd while reading, and was put right: records given twice, differing TTLs in a set.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The file and line of the first record of a type at a name; an empty file and 0 when there is none.
    #[must_use]
    pub fn place(&self, name: &Name, rtype: Rtype) -> (Arc<str>, u32) {
        let index = self.records.partition_point(|record| (&record.owner, record.rtype) < (name, rtype));
        let found = self.records.get(index).is_some_and(|record| record.owner == *name && record.rtype == rtype);
        if found { self.place_at(index) } else { ("".into(), 0) }
    }

    fn place_at(&self, index: usize) -> (Arc<str>, u32) {
        let place = self.places.get(index).copied().unwrap_or(Place { file: 0, line: 0 });
        let file = usize::try_from(place.file).ok().and_then(|file| self.files.get(file));
        (file.cloned().unwrap_or_else(|| "".into()), place.line)
    }

    fn warn(&mut self, index: usize, rule: &'static str, message: String, remedy: &str) {
        let (file, line) = self.place_at(index);
        let remedy = Some(remedy.to_owned());
        self.warnings.push(Problem { file, line, rule, severity: Severity::Warning, message, remedy });
    }

    /// Where each set begins and ends.
    fn set_ranges(&self) -> Vec<std::ops::Range<usize>> {
        let mut at = 0;
        let same = |a: &Record, b: &Record| a.rtype == b.rtype && a.owner == b.owner;
        let ranges = self.records.chunk_by(same).filter_map(|set| {
            let range = at..at + set.len();
            at = range.end;
            (set.len() > 1).then_some(range)
        });
        ranges.collect()
    }

    /// RFC 2181, 5: a set is a set.
    fn drop_duplicates(&mut self) {
        let mut twice = Vec::new();
        for range in self.set_ranges() {
            let mut seen = std::collections::HashSet::new();
            twice.extend(range.filter(|index| {
                let record = &self.records[*index];
                !seen.insert(canonical(record.rtype, record.rdata.as_wire()))
            }));
        }
        for index in &twice {
            let message = format!("`{}` is given twice", to_text(&self.records[*index], &self.origin));
            self.warn(*index, "duplicate-record", message, "remove one of them");
        }
        let mut index = 0;
        let mut is_twice = |_: &Record| {
            index += 1;
            twice.binary_search(&(index - 1)).is_err()
        };
        if !twice.is_empty() {
            self.records.retain(&mut is_twice);
            let mut index = 0;
            self.places.retain(|_| {
                index += 1;
                twice.binary_search(&(index - 1)).is_err()
            });
        }
    }

    /// RFC 2181, 5.2: the records of a set have one TTL.
    fn level_ttls(&mut self) {
        for range in self.set_ranges() {
            let set = &self.records[range.clone()];
            let lowest = set.iter().map(|record| record.ttl).min().unwrap_or_default();
            if may_differ_in_ttl(set[0].rtype) || set.iter().all(|record| record.ttl == lowest) {
                continue;
            }
            let message = format!(
                "the records of {} {} have several TTLs; the lowest, {lowest}, is used for all",
                set[0].owner, set[0].rtype
            );
            self.warn(range.start, "ttl-differs", message, "give them the same TTL (RFC 2181, 5.2)");
            for record in &mut self.records[range] {
                record.ttl = lowest;
            }
        }
    }
}

impl ZoneView for ZoneText {
    fn origin(&self) -> &Name {
        &self.origin
    }

    fn serial(&self) -> u32 {
        let soa = self.set(&self.origin, Rtype::SOA);
        soa.and_then(|set| set.data.first().and_then(|data| Soa::read(data).ok())).map_or(0, |soa| soa.serial)
    }

    fn record_count(&self) -> usize {
        self.records.len()
    }

    fn sets_at(&self, name: &Name) -> Vec<RecordSet> {
        let from = self.records.partition_point(|record| record.owner < *name);
        let len = self.records[from..].partition_point(|record| record.owner == *name);
        RecordSet::group(&self.records[from..from + len])
    }

    fn for_each_record(&self, visit: &mut dyn FnMut(Record)) {
        let is_soa = |record: &&Record| record.rtype == Rtype::SOA && record.owner == self.origin;
        self.records.iter().filter(is_soa).cloned().for_each(&mut *visit);
        self.records.iter().filter(|record| !is_soa(record)).cloned().for_each(visit);
    }
}
