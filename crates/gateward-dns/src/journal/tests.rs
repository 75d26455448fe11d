//! Journals on disk.

use std::fs;

use gateward_zone::{Change, Rdata, Record, Rtype};
use proptest::prelude::*;

use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gateward-journal-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn journal(&self) -> PathBuf {
        self.0.join("a.journal")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const BASE: Base = Base { serial: 1, digest: 1 };

fn delta(from: u32, changes: u8) -> Delta {
    let record = |last| Record {
        owner: "www.example.com".parse().expect("a name"),
        rtype: Rtype::A,
        ttl: 60,
        rdata: Rdata::from_wire([192, 0, 2, last]),
    };
    Delta {
        from,
        to: from + 1,
        time_ms: u64::from(from),
        actor: "test".into(),
        digest: u128::from(from + 1),
        changes: (0..changes).map(|last| Change::Add(record(last))).collect(),
    }
}

#[test]
fn what_was_appended_is_read_again() {
    let dir = Dir::new("again");
    assert!(Journal::open(&dir.journal()).unwrap().is_none());
    let mut journal = Journal::create(&dir.journal(), BASE).unwrap();
    journal.append(&[delta(1, 1), delta(2, 2)]).unwrap();
    journal.append(&[delta(3, 0)]).unwrap();
    let (read, deltas) = Journal::open(&dir.journal()).unwrap().expect("it is there");
    assert_eq!(deltas, [delta(1, 1), delta(2, 2), delta(3, 0)]);
    assert_eq!((read.base(), read.state(), read.bytes()), (BASE, Base { serial: 4, digest: 4 }, journal.bytes()));
    assert_eq!(position(BASE, &deltas, 1), Some(0));
    assert_eq!(position(BASE, &deltas, 3), Some(2));
    assert_eq!(position(BASE, &deltas, 9), None);
}

#[test]
fn damage_names_file_and_place() {
    let dir = Dir::new("damage");
    let mut journal = Journal::create(&dir.journal(), BASE).unwrap();
    let at = journal.bytes();
    journal.append(&[delta(1, 1)]).unwrap();
    journal.append(&[delta(2, 1)]).unwrap();
    let mut octets = fs::read(dir.journal()).unwrap();
    octets[usize::try_from(at).unwrap() + 20] ^= 1;
    fs::write(dir.journal(), octets).unwrap();
    let error = Journal::open(&dir.journal()).unwrap_err().to_string();
    assert!(error.contains("a.journal: damaged at octet") && error.contains(&at.to_string()), "{error}");
    fs::write(dir.journal(), "something else altogether").unwrap();
    assert!(Journal::open(&dir.journal()).unwrap_err().to_string().contains("damaged at octet 0"));
    fs::write(dir.journal(), "GWDNS").unwrap();
    assert!(Journal::open(&dir.journal()).unwrap().is_none(), "torn before anything was acknowledged");
}

#[test]
fn history_goes_on_behind_a_journal_that_was_turned_over() {
    let dir = Dir::new("history");
    let versions = dir.0.join("versions");
    let mut history = History::default();
    let mut serial = 1;
    for _ in 0..4 {
        let base = Base { serial, digest: u128::from(serial) };
        let mut journal = Journal::create(&dir.journal(), base).unwrap();
        journal.append(&[delta(serial, 1), delta(serial + 1, 1)]).unwrap();
        history.journal = Some(journal);
        serial += 2;
        if serial < 9 {
            history.turn_over(&versions, 3).unwrap();
        }
    }
    let now = Base { serial: 9, digest: 9 };
    for mut history in [history, History::new(Journal::open(&dir.journal()).unwrap().map(|(journal, _)| journal))] {
        // Two journals of two steps each make up for three steps; the one before them went.
        let serials: Vec<u32> = history.entries(&versions, now).iter().map(|entry| entry.from).collect();
        assert_eq!(serials, [3, 4, 5, 6, 7, 8]);
        let from = |history: &mut History, from, most| {
            let deltas = history.differences(&versions, now, from, most).unwrap();
            deltas.map(|deltas| deltas.iter().map(|delta| delta.to).collect::<Vec<_>>())
        };
        assert_eq!(from(&mut history, 4, 100), Some(vec![5, 6, 7, 8, 9]));
        assert_eq!(from(&mut history, 8, 1), Some(vec![9]));
        assert_eq!(from(&mut history, 7, 1), None, "more records than wanted");
        assert_eq!(from(&mut history, 2, 100), None);
        assert_eq!(from(&mut history, 9, 100), None);
    }
}

#[test]
fn older_journals_that_do_not_lead_here_do_not_count() {
    let dir = Dir::new("link");
    let mut journal = Journal::create(&dir.journal(), BASE).unwrap();
    journal.append(&[delta(1, 1)]).unwrap();
    History::new(Some(journal)).turn_over(&dir.0, 9).unwrap();
    assert_eq!(History::default().entries(&dir.0, Base { serial: 2, digest: 2 }).len(), 1);
    assert_eq!(History::default().entries(&dir.0, Base { serial: 2, digest: 3 }).len(), 0);
    let mut history = History::default();
    history.set_aside(&dir.0, &dir.journal()).unwrap();
    assert_eq!(history.entries(&dir.0, Base { serial: 2, digest: 2 }).len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Wherever the file is cut, the batches that were synced whole are read, and appending goes on from there.
    #[test]
    fn a_torn_file_is_cut_and_goes_on(batches in proptest::collection::vec(1..4_u32, 1..5), cut in any::<prop::sample::Index>()) {
        let dir = Dir::new("torn");
        let mut journal = Journal::create(&dir.journal(), BASE).expect("a journal");
        let mut ends = vec![(journal.bytes(), 1)];
        let mut serial = 1;
        for count in batches {
            let deltas: Vec<Delta> = (0..count).map(|step| delta(serial + step, 1)).collect();
            journal.append(&deltas).expect("room");
            serial += count;
            ends.push((journal.bytes(), serial));
        }
        let first = ends[0].0;
        let length = first + cut.index(usize::try_from(journal.bytes() - first).expect("small") + 1) as u64;
        OpenOptions::new().write(true).open(dir.journal()).expect("it is there").set_len(length).expect("it shrinks");
        let (end, serial) = *ends.iter().rfind(|(end, _)| *end <= length).expect("the first fits");
        let (mut journal, deltas) = Journal::open(&dir.journal()).expect("not damaged").expect("it is there");
        prop_assert_eq!((journal.bytes(), journal.state().serial), (end, serial));
        journal.append(&[delta(serial, 1)]).expect("room");
        let (_, again) = Journal::open(&dir.journal()).expect("not damaged").expect("it is there");
        prop_assert_eq!(&again[..again.len() - 1], &deltas[..]);
    }
}
