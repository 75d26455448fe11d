//! The leases of one zone: what they want of it, as a function of time and of what is served. No IO, no clock.
//!
//! A lease holds data at a name for as long as it is renewed and healthy. When it ends, its data leaves the zone; never the last that
//! leases hold at a name: an address that may be dead is better than none, until a living one takes its place.

use std::collections::{BTreeMap, BTreeSet};

use gateward_zone::{Change, Name, Rdata, Record, Rtype, ZoneView};

/// Leases of a zone.
pub(super) const MAX_LEASES: usize = 100_000;

/// What somebody registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Where its data stands.
    pub name: Name,
    /// Of which type it is.
    pub rtype: Rtype,
    /// The data.
    pub data: Vec<Rdata>,
    /// Seconds a cache may keep it.
    pub ttl: u32,
    /// How long it lasts without renewal, in seconds.
    pub lease_seconds: u32,
    /// Whether who registered it says that it works.
    pub healthy: bool,
}

impl Lease {
    /// Where its data stands.
    pub(super) fn place(&self) -> Place {
        (self.name.clone(), self.rtype)
    }

    /// What it holds.
    pub(super) fn records(&self) -> Vec<Record> {
        let record =
            |rdata: &Rdata| Record { owner: self.name.clone(), rtype: self.rtype, ttl: self.ttl, rdata: rdata.clone() };
        self.data.iter().map(record).collect()
    }
}

/// A name and a type.
pub(super) type Place = (Name, Rtype);

/// Which of the changes that leases want are meant.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// All at these places.
    At(BTreeSet<Place>),
    /// What somebody registered and is not served, with what goes in its place.
    Of(String),
    /// What ended goes, where something that lives is served; nothing comes.
    Ends,
}

/// A lease and its end.
#[derive(Debug, Clone)]
pub struct Held {
    /// The lease.
    pub lease: Lease,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Who registered it.
    pub actor: String,
}

impl Held {
    /// Whether its data belongs into answers.
    #[must_use]
    pub fn is_live(&self, now_ms: u64) -> bool {
        self.lease.healthy && now_ms < self.expires_ms
    }
}

/// The leases of a zone.
#[derive(Debug, Clone, Default)]
pub struct Table {
    pub(super) leases: BTreeMap<String, Held>,
    /// Data of leases that are gone, which may still be served.
    pub(super) orphans: BTreeSet<(Name, Rtype, Rdata)>,
}

impl Table {
    /// Registers or renews; whether anything but the time changed.
    pub fn put(&mut self, id: &str, lease: Lease, actor: &str, now_ms: u64) -> bool {
        let expires_ms = now_ms + u64::from(lease.lease_seconds) * 1_000;
        if let Some(held) = self.leases.get_mut(id).filter(|held| held.lease == lease) {
            // One that had ended comes back to life, by whoever says so.
            let is_news = !held.is_live(now_ms);
            held.expires_ms = expires_ms;
            if is_news {
                actor.clone_into(&mut held.actor);
            }
            return is_news;
        }
        self.remove(id);
        self.leases.insert(id.to_owned(), Held { lease, expires_ms, actor: actor.to_owned() });
        true
    }

    /// Ends a lease; whether there was one.
    pub fn remove(&mut self, id: &str) -> bool {
        let Some(Held { lease, .. }) = self.leases.remove(id) else { return false };
        let Lease { name, rtype, data, .. } = lease;
        self.orphans.extend(data.into_iter().map(|rdata| (name.clone(), rtype, rdata)));
        true
    }

    /// Whether there is a lease of that name.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.leases.contains_key(id)
    }

    /// Whether data is served although its lease is gone.
    #[must_use]
    pub fn is_orphan(&self, name: &Name, rtype: Rtype, rdata: &Rdata) -> bool {
        self.orphans.contains(&(name.clone(), rtype, rdata.clone()))
    }

    /// Whether the lease would be nothing but the renewal of one that lives.
    pub(super) fn is_renewal(&self, id: &str, lease: &Lease, now_ms: u64) -> bool {
        self.leases.get(id).is_some_and(|held| held.lease == *lease && held.is_live(now_ms))
    }

    /// Who registered what lives and is not served.
    pub(super) fn absent(&self, zone: &dyn ZoneView, now_ms: u64) -> BTreeSet<String> {
        let is_served = |lease: &Lease| {
            let set = zone.set(&lease.name, lease.rtype);
            set.is_some_and(|set| lease.data.iter().all(|rdata| set.data.contains(rdata)))
        };
        let absent = self.leases.values().filter(|held| held.is_live(now_ms) && !is_served(&held.lease));
        absent.map(|held| held.actor.clone()).collect()
    }

    /// What has to change in the zone, as far as it is wanted.
    pub(super) fn changes(&self, zone: &dyn ZoneView, now_ms: u64, wanted: &Wanted) -> Vec<Change> {
        let mut groups: BTreeMap<(&Name, Rtype), Group<'_>> = BTreeMap::new();
        for held in self.leases.values() {
            let group = groups.entry((&held.lease.name, held.lease.rtype)).or_default();
            group.ours.extend(&held.lease.data);
            if held.is_live(now_ms) {
                group.live.extend(&held.lease.data);
                if matches!(wanted, Wanted::Of(actor) if held.actor == *actor) {
                    group.of_actor.extend(&held.lease.data);
                }
                group.ttl = Some(group.ttl.map_or(held.lease.ttl, |ttl| ttl.min(held.lease.ttl)));
            }
        }
        for (name, rtype, rdata) in &self.orphans {
            groups.entry((name, *rtype)).or_default().ours.insert(rdata);
        }
        let changes = |(name, rtype): (&Name, Rtype), group: &Group<'_>| match wanted {
            Wanted::At(places) if !places.contains(&(name.clone(), rtype)) => Vec::new(),
            Wanted::At(_) => group.changes(zone, name, rtype, &group.live),
            Wanted::Of(_) => {
                let changes = group.changes(zone, name, rtype, &group.of_actor);
                let is_missing = |rdata: &&Rdata| zone.set(name, rtype).is_none_or(|set| !set.data.contains(rdata));
                if group.of_actor.iter().any(is_missing) { changes } else { Vec::new() }
            }
            Wanted::Ends => group.changes(zone, name, rtype, &BTreeSet::new()),
        };
        groups.iter().flat_map(|(place, group)| changes(*place, group)).collect()
    }

    /// Forgets what left the zone: orphans, and leases that ended.
    pub fn sweep(&mut self, zone: &dyn ZoneView, now_ms: u64) {
        let is_served = |name: &Name, rtype: Rtype, rdata: &Rdata| {
            zone.set(name, rtype).is_some_and(|set| set.data.contains(rdata))
        };
        self.leases.retain(|_, held| {
            let Lease { name, rtype, data, .. } = &held.lease;
            now_ms < held.expires_ms || data.iter().any(|rdata| is_served(name, *rtype, rdata))
        });
        let held: BTreeSet<(&Name, Rtype, &Rdata)> = self
            .leases
            .values()
            .flat_map(|held| held.lease.data.iter().map(|rdata| (&held.lease.name, held.lease.rtype, rdata)))
            .collect();
        let mut orphans = std::mem::take(&mut self.orphans);
        orphans.retain(|(name, rtype, rdata)| is_served(name, *rtype, rdata) && !held.contains(&(name, *rtype, rdata)));
        drop(held);
        self.orphans = orphans;
    }

    /// When the next lease that is live ends.
    #[must_use]
    pub fn next_end_ms(&self, now_ms: u64) -> Option<u64> {
        self.leases.values().filter(|held| held.is_live(now_ms)).map(|held| held.expires_ms).min()
    }

    /// The leases by their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Held)> {
        self.leases.iter().map(|(id, held)| (id.as_str(), held))
    }

    /// Whether there is nothing to look after.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty() && self.orphans.is_empty()
    }
}

/// What leases hold of one type at one name.
#[derive(Default)]
struct Group<'a> {
    ours: BTreeSet<&'a Rdata>,
    live: BTreeSet<&'a Rdata>,
    /// What lives of the one who is asked for.
    of_actor: BTreeSet<&'a Rdata>,
    /// The least that a living lease wants.
    ttl: Option<u32>,
}

impl Group<'_> {
    /// What has to change, where only what `may_come` says comes.
    fn changes(&self, zone: &dyn ZoneView, name: &Name, rtype: Rtype, may_come: &BTreeSet<&Rdata>) -> Vec<Change> {
        // Nobody lives: what is there stays.
        let Some(ttl) = self.ttl else { return Vec::new() };
        let set = zone.set(name, rtype);
        let served = set.as_ref().map(|set| &set.data[..]).unwrap_or_default();
        let new: Vec<&Rdata> =
            self.live.iter().copied().filter(|rdata| may_come.contains(rdata) && !served.contains(rdata)).collect();
        if new.is_empty() && !served.iter().any(|rdata| self.live.contains(rdata)) {
            // Nor may what has not come yet take the place of what is there.
            return Vec::new();
        }
        let record = |ttl, rdata: &Rdata| Record { owner: name.clone(), rtype, ttl, rdata: rdata.clone() };
        let dead = served.iter().filter(|rdata| self.ours.contains(rdata) && !self.live.contains(rdata));
        let mut changes: Vec<Change> = dead.map(|rdata| Change::Remove(record(ttl, rdata))).collect();
        let is_all_ours = served.iter().all(|rdata| self.ours.contains(rdata));
        // Records that people wrote keep their TTL, and the leases' take it on.
        let ttl = set.as_ref().filter(|_| !is_all_ours).map_or(ttl, |set| set.ttl);
        changes.extend(new.iter().map(|rdata| Change::Add(record(ttl, rdata))));
        let is_retimed = set.as_ref().is_some_and(|set| set.ttl != ttl)
            && changes.iter().all(|change| matches!(change, Change::Remove(_)));
        if is_retimed && let Some(rdata) = self.live.iter().find(|rdata| served.contains(rdata)) {
            changes.push(Change::Add(record(ttl, rdata)));
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Zone;

    fn origin() -> Name {
        "example.com".parse().expect("a name")
    }

    fn zone() -> Zone {
        let text = "$TTL 60\n@ SOA ns hm 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nfixed A 192.0.2.200\n";
        let text = gateward_zone::parse_zone(text.as_bytes(), &origin(), "z", &|_| Err(String::new())).expect("a zone");
        Zone::build(&origin(), text.into_records()).expect("a zone")
    }

    fn lease(name: &str, last: u8, healthy: bool) -> Lease {
        Lease {
            name: Name::parse_in(name, &origin()).expect("a name"),
            rtype: Rtype::A,
            data: vec![Rdata::from_wire([192, 0, 2, last])],
            ttl: 30,
            lease_seconds: 10,
            healthy,
        }
    }

    /// Everywhere.
    fn all(table: &Table) -> Wanted {
        let held = table.leases.values().map(|held| held.lease.place());
        Wanted::At(held.chain(table.orphans.iter().map(|(name, rtype, _)| (name.clone(), *rtype))).collect())
    }

    /// The zone after what the leases want, and the last octets at a name. In steps, as the server does it by itself, it is the same as at once.
    fn settle(table: &mut Table, zone: &mut Zone, name: &str, now_ms: u64) -> Vec<u8> {
        let at_once = zone.with(&table.changes(zone, now_ms, &all(table))).expect("the changes fit");
        for actor in table.absent(zone, now_ms) {
            *zone = zone.with(&table.changes(zone, now_ms, &Wanted::Of(actor))).expect("the changes fit");
        }
        *zone = zone.with(&table.changes(zone, now_ms, &Wanted::Ends)).expect("the changes fit");
        assert_eq!(gateward_zone::diff::diff(zone, &at_once), []);
        assert_eq!(table.changes(zone, now_ms, &all(table)), [], "settled at once");
        table.sweep(zone, now_ms);
        let set = zone.set(&Name::parse_in(name, &origin()).expect("a name"), Rtype::A);
        let mut last: Vec<u8> = set.iter().flat_map(|set| &set.data).map(|rdata| rdata.as_wire()[3]).collect();
        last.sort_unstable();
        last
    }

    #[test]
    fn what_ends_leaves_but_never_the_last() {
        let (mut table, mut zone) = (Table::default(), zone());
        assert!(table.put("a", lease("www", 1, true), "vm", 0));
        assert!(table.put("b", lease("www", 2, true), "vm", 5_000));
        assert_eq!(settle(&mut table, &mut zone, "www", 5_000), [1, 2]);
        assert!(!table.put("a", lease("www", 1, true), "vm", 6_000), "a renewal is no news");
        assert_eq!(table.next_end_ms(6_000), Some(15_000));
        assert_eq!(settle(&mut table, &mut zone, "www", 15_000), [1]);
        assert_eq!(table.iter().map(|(id, _)| id).collect::<Vec<_>>(), ["a"], "what left is forgotten");
        assert_eq!(settle(&mut table, &mut zone, "www", 60_000), [1], "the last one stays");
        assert!(table.put("c", lease("www", 3, true), "vm", 60_000));
        assert_eq!(settle(&mut table, &mut zone, "www", 60_000), [3], "until a living one comes");
        assert!(table.put("c", lease("www", 3, false), "vm", 61_000));
        assert_eq!(settle(&mut table, &mut zone, "www", 61_000), [3]);
        assert!(table.put("d", lease("www", 4, true), "vm", 61_000));
        assert_eq!(settle(&mut table, &mut zone, "www", 61_000), [4], "unhealthy is as good as gone");
        assert!(table.remove("d") && !table.remove("d"));
        assert_eq!(settle(&mut table, &mut zone, "www", 61_000), [4], "not even when it says good-bye");
        assert!(table.put("c", lease("www", 3, true), "vm", 62_000));
        assert_eq!(settle(&mut table, &mut zone, "www", 62_000), [3]);
        assert!(table.put("c", lease("www", 5, true), "vm", 63_000), "another address under the same id");
        assert_eq!(settle(&mut table, &mut zone, "www", 63_000), [5]);
    }

    #[test]
    fn what_people_wrote_stays() {
        let (mut table, mut zone) = (Table::default(), zone());
        table.put("a", lease("fixed", 1, true), "vm", 0);
        table.put("b", lease("fixed", 2, true), "vm", 5_000);
        assert_eq!(settle(&mut table, &mut zone, "fixed", 5_000), [1, 2, 200]);
        assert_eq!(zone.set(&"fixed.example.com".parse().expect("a name"), Rtype::A).expect("a set").ttl, 60);
        assert_eq!(settle(&mut table, &mut zone, "fixed", 12_000), [2, 200]);
        table.put("b", Lease { ttl: 5, ..lease("www", 2, true) }, "vm", 12_000);
        settle(&mut table, &mut zone, "www", 12_000);
        assert_eq!(settle(&mut table, &mut zone, "www", 12_000), [2]);
        table.put("b", Lease { ttl: 7, ..lease("www", 2, true) }, "vm", 12_000);
        settle(&mut table, &mut zone, "www", 12_000);
        assert_eq!(zone.set(&"www.example.com".parse().expect("a name"), Rtype::A).expect("a set").ttl, 7);
    }

    #[test]
    fn what_ended_goes_for_nothing_that_has_not_come() {
        let (mut table, mut zone) = (Table::default(), zone());
        table.put("a", lease("www", 1, true), "alice", 0);
        assert_eq!(settle(&mut table, &mut zone, "www", 0), [1]);
        table.put("b", lease("www", 2, true), "bob", 5_000);
        table.put("c", lease("api", 3, true), "carol", 5_000);
        let changes = |zone: &Zone, wanted: &Wanted| table.changes(zone, 12_000, wanted);
        assert_eq!(changes(&zone, &Wanted::Ends), [], "bob's data was not taken yet, and alice's is the last");
        assert_eq!(table.absent(&zone, 12_000), ["bob".to_owned(), "carol".to_owned()].into());
        let owners =
            |changes: Vec<Change>| changes.iter().map(|one| one.record().owner.to_string()).collect::<Vec<_>>();
        assert_eq!(owners(changes(&zone, &Wanted::Of("carol".to_owned()))), ["api.example.com."]);
        let at_api = Wanted::At([lease("api", 3, true).place()].into());
        assert_eq!(owners(changes(&zone, &at_api)), ["api.example.com."], "elsewhere is for others to ask");
        zone = zone.with(&changes(&zone, &Wanted::Of("bob".to_owned()))).expect("the changes fit");
        assert_eq!(settle(&mut table, &mut zone, "www", 12_000), [2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever happens: a name that had data keeps some, and as long as somebody lives there, all who live and nobody else are answered.
        #[test]
        fn names_are_never_left_empty(steps in proptest::collection::vec((0..5_u8, 0..4_u8, 1..6_u8, any::<bool>(), 0..6_000_u64), 1..60)) {
            let (mut table, mut zone, mut now_ms) = (Table::default(), zone(), 0);
            let mut had_some = false;
            for (kind, id, last, healthy, wait) in steps {
                now_ms += wait;
                match kind {
                    0 => _ = table.remove(&id.to_string()),
                    _ => _ = table.put(&id.to_string(), lease("www", last, healthy), "vm", now_ms),
                }
                let live: BTreeSet<u8> = table.iter().filter(|(_, held)| held.is_live(now_ms)).map(|(_, held)| held.lease.data[0].as_wire()[3]).collect();
                let served = settle(&mut table, &mut zone, "www", now_ms);
                had_some |= !served.is_empty();
                prop_assert!(!had_some || !served.is_empty());
                prop_assert!(live.is_empty() || served == live.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
