//! The write path on disk: what is acknowledged is served and survives a restart, and files that do not fit are told.

use std::fs;
use std::path::PathBuf;

use gateward_zone::{Change, Rtype, parse_record};

use super::*;

mod copies;
mod files;
mod policies;

struct Server {
    dir: PathBuf,
    authority: Arc<Authority>,
}

impl Server {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("gateward-authority-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let authority = start(&dir);
        Server { dir, authority }
    }

    /// As after a crash: nothing is written on the way out.
    fn restart(&mut self) -> Vec<String> {
        self.authority = start(&self.dir);
        let (prepared, mut loaded) = self.authority.prepare(&origin());
        self.authority.adopt(vec![prepared]);
        if loaded.again {
            loaded = self.authority.reload(&origin());
        }
        loaded.problems.iter().map(|problem| problem.rule.to_owned()).collect()
    }

    fn file(&self) -> PathBuf {
        self.authority.folder().zone_file(&origin())
    }

    /// Writes the zone file, as an operator does.
    fn edit(&self, text: &str) {
        fs::write(self.file(), text).expect("it can be written");
    }

    fn damage_journal(&self) {
        let journal = self.authority.folder().journal_file(&origin());
        let mut octets = fs::read(&journal).unwrap();
        octets[70] ^= 1;
        fs::write(&journal, octets).unwrap();
    }

    /// Nothing is left of what the zone may change in a second, and nothing comes before the next change is asked for, however slow the machine is.
    fn spend_quota(&self) {
        let spend = |_: &Authority, _: &Line, state: &mut State| {
            let later = std::time::Instant::now() + std::time::Duration::from_mins(1);
            while state.bucket.take(1, later).is_ok() {}
        };
        self.authority.in_turn_blocking(&origin(), spend).expect("the zone's turn comes");
    }

    fn put_policy(&self, text: &str, actor: &str, force: Option<String>) -> Result<(), Refused> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let actor = Actor::new(Door::Api, actor);
        runtime.block_on(self.authority.put_policy(&origin(), text.into(), PolicyBase::Any, actor, force))
    }

    fn put(&self, text: &str) -> Result<u32, Refused> {
        self.propose(replace(text, &self.authority, Door::Api))
    }

    fn propose(&self, proposal: Proposal) -> Result<u32, Refused> {
        self.authority.apply_blocking(proposal).map(|applied| applied.serial)
    }

    fn change(&self, changes: Vec<Change>) -> Result<u32, Refused> {
        self.propose(Proposal::new(origin(), Edit::Changes(changes), Actor::new(Door::Api, "test")))
    }

    /// The serial, and the last octets of www's addresses.
    fn served(&self) -> Option<(u32, Vec<u8>)> {
        let zone = self.authority.zone(&origin())?;
        let www = zone.set(&"www.example.com".parse().expect("a name"), Rtype::A);
        let data = www.map(|set| set.data).unwrap_or_default();
        let mut last: Vec<u8> = data.iter().map(|rdata| rdata.as_wire()[3]).collect();
        last.sort_unstable();
        Some((zone.serial(), last))
    }

    fn problems(&self) -> Vec<&'static str> {
        let info = self.authority.info(&origin());
        info.iter().flat_map(|info| info.problems.iter()).map(|problem| problem.rule).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn start(dir: &std::path::Path) -> Arc<Authority> {
    let options = Options { journal_bytes: 1 << 12, versions: 5, ..Options::default() };
    Authority::new(Folder::open(dir).unwrap(), Arc::default(), options).unwrap()
}

fn origin() -> Name {
    "example.com".parse().expect("a name")
}

fn zone_text(serial: u32, www: &[u8]) -> String {
    let mut text = format!("; kept\n$TTL 60\n@ SOA ns hm ( {serial} ; serial\n 2 3 4 5 )\n@ NS ns\nns A 192.0.2.1\n");
    for last in www {
        text.push_str(&format!("www A 192.0.2.{last}\n"));
    }
    text
}

fn replace(text: &str, authority: &Authority, door: Door) -> Proposal {
    let parsed = parse(text.as_bytes(), &origin(), "body", authority.folder()).expect("a zone");
    let mut proposal = Proposal::new(origin(), Edit::Replace(Box::new(parsed.zone)), Actor::new(door, "test"));
    proposal.text = Some(text.as_bytes().to_vec());
    proposal.includes = parsed.includes;
    proposal
}

fn www(last: u8) -> gateward_zone::Record {
    parse_record(&format!("www 60 A 192.0.2.{last}"), &origin(), None).expect("a record")
}

#[test]
fn what_is_acknowledged_is_served_and_survives() {
    let mut server = Server::new("survives");
    assert_eq!(server.change(vec![Change::Add(www(9))]), Err(Refused::NoZone(origin())));
    assert_eq!(server.put(&zone_text(7, &[1])), Ok(7));
    assert_eq!(server.served(), Some((7, vec![1])));
    assert_eq!(server.change(vec![Change::Add(www(2))]), Ok(8));
    assert_eq!(server.change(vec![Change::Add(www(2))]), Ok(8), "it is there already");
    assert_eq!(server.change(vec![Change::Remove(www(1)), Change::Add(www(3))]), Ok(9));
    assert_eq!(server.served(), Some((9, vec![2, 3])));
    assert_eq!(server.restart(), [""; 0]);
    assert_eq!(server.served(), Some((9, vec![2, 3])));
    // A whole zone with a serial that is too low: it is raised, and the rest of the text stays.
    assert_eq!(server.put(&zone_text(7, &[5])), Ok(10));
    let text = fs::read_to_string(server.file()).unwrap();
    assert!(text.starts_with("; kept") && text.contains("( 10 ; serial"), "{text}");
    assert_eq!(server.restart(), [""; 0]);
    assert_eq!(server.served(), Some((10, vec![5])));
    assert_eq!(server.change(vec![Change::Add(www(6))]), Ok(11));
    assert_eq!(server.restart(), [""; 0]);
    assert_eq!(server.served(), Some((11, vec![5, 6])));
}

#[test]
fn changes_for_another_version_are_refused() {
    let server = Server::new("base");
    server.put(&zone_text(7, &[1])).unwrap();
    let based = |base| {
        let mut proposal = replace(&zone_text(7, &[2]), &server.authority, Door::Api);
        proposal.base = base;
        server.propose(proposal)
    };
    assert_eq!(based(Base::Absent), Err(Refused::Base { served: 7, wanted: None }));
    assert_eq!(based(Base::Serial(6)), Err(Refused::Base { served: 7, wanted: Some(6) }));
    assert_eq!(based(Base::Serial(7)), Ok(8));
    let mut dry = replace(&zone_text(7, &[3]), &server.authority, Door::Api);
    dry.is_dry_run = true;
    let applied = server.authority.apply_blocking(dry).unwrap();
    assert_eq!((applied.serial, applied.changes.len()), (8, 4), "said, not done");
    assert_eq!(server.served(), Some((8, vec![2])));
}

#[test]
fn many_at_once_are_made_one_after_the_other() {
    let mut server = Server::new("many");
    server.put(&zone_text(1, &[])).unwrap();
    let answers: Vec<_> = (0..200)
        .map(|last| {
            let edit = Edit::Changes(vec![Change::Add(www(last))]);
            server.authority.submit(Proposal::new(origin(), edit, Actor::new(Door::Api, "test")))
        })
        .collect();
    let mut serials: Vec<u32> =
        answers.into_iter().map(|answer| answer.blocking_recv().unwrap().unwrap().serial).collect();
    serials.sort_unstable();
    assert_eq!(serials, (2..=201).collect::<Vec<_>>());
    let differences = server.authority.differences(&origin(), 199).unwrap();
    assert_eq!(differences.iter().map(|delta| (delta.from, delta.to)).collect::<Vec<_>>(), [(199, 200), (200, 201)]);
    // The journal was merged into the zone file on the way.
    assert!(fs::read_to_string(server.file()).unwrap().contains("192.0.2.100"));
    assert_eq!(server.restart(), [""; 0]);
    assert_eq!(server.served().map(|(serial, www)| (serial, www.len())), Some((201, 200)));
    assert_eq!(server.authority.differences(&origin(), 199).map(|deltas| deltas.len()), Some(2), "across a restart");
}

#[test]
fn old_versions_can_be_read_and_brought_back() {
    let mut server = Server::new("rollback");
    server.put(&zone_text(7, &[1])).unwrap();
    for last in 2..6 {
        server.change(vec![Change::Add(www(last))]).unwrap();
    }
    assert_eq!(server.served(), Some((11, vec![1, 2, 3, 4, 5])));
    assert_eq!(server.restart(), [""; 0]);
    let versions: Vec<u32> = server.authority.versions(&origin()).iter().map(|entry| entry.to).collect();
    assert_eq!(versions, [8, 9, 10, 11]);
    let old = server.authority.version(&origin(), 9).unwrap();
    assert_eq!((old.serial(), old.record_count()), (9, 6));
    let rollback = |to| server.propose(Proposal::new(origin(), Edit::Rollback(to), Actor::new(Door::Api, "test")));
    assert_eq!(rollback(8), Ok(12));
    assert_eq!(server.served(), Some((12, vec![1, 2])));
    assert_eq!(rollback(11), Ok(13), "and forward again");
    assert_eq!(server.served(), Some((13, vec![1, 2, 3, 4, 5])));
    assert_eq!(rollback(99), Err(Refused::NoVersion(99)));
}

#[test]
fn an_edited_file_counts_with_a_higher_serial_only() {
    let mut server = Server::new("edited");
    server.put(&zone_text(7, &[1])).unwrap();
    fs::write(server.file(), zone_text(7, &[1, 2])).unwrap();
    assert_eq!(server.authority.reload(&origin()).problems, []);
    assert_eq!(server.served(), Some((8, vec![1, 2])), "nothing is lost: the serial is raised");
    assert_eq!(server.restart(), [""; 0]);
    assert_eq!(server.served(), Some((8, vec![1, 2])), "although the file still says 7");

    server.change(vec![Change::Add(www(3))]).unwrap();
    assert_eq!(server.authority.reload(&origin()).problems, [], "the file is as it was");
    assert_eq!(server.served(), Some((9, vec![1, 2, 3])));
    fs::write(server.file(), zone_text(8, &[4])).unwrap();
    assert_eq!(server.authority.reload(&origin()).problems[0].rule, "stale-file");
    assert_eq!((server.served(), server.problems()), (Some((9, vec![1, 2, 3])), vec!["stale-file"]));
    assert_eq!(server.change(vec![Change::Add(www(5))]), Ok(10), "the zone itself is in order");

    assert_eq!(server.restart(), ["stale-file"]);
    assert_eq!(server.served(), Some((10, vec![1, 2, 3, 5])), "from the good copy and the journal");
    fs::write(server.file(), zone_text(20, &[4])).unwrap();
    assert_eq!(server.authority.reload(&origin()).problems, []);
    assert_eq!((server.served(), server.problems()), (Some((20, vec![4])), vec![]));

    // The same with the server down.
    server.change(vec![Change::Add(www(6))]).unwrap();
    fs::write(server.file(), zone_text(30, &[7])).unwrap();
    assert_eq!(server.restart(), [""; 0]);
    assert_eq!(server.served(), Some((30, vec![7])));
}

#[test]
fn a_bad_file_is_refused_whole_with_every_error_and_the_served_version_stays() {
    let mut server = Server::new("bad");
    server.put(&zone_text(7, &[1])).unwrap();
    fs::write(server.file(), zone_text(8, &[2])).unwrap();
    assert_eq!(server.authority.reload(&origin()).problems, []);
    server.change(vec![Change::Add(www(3))]).unwrap();
    fs::write(server.file(), "@ SOA ns hm 9 2 3 4 5\nwww A 192.0.2.999\nwww B 1\nx AAAA ::1 ::2\n").unwrap();
    let problems = server.authority.reload(&origin()).problems;
    let lines: Vec<u32> = problems.iter().map(|problem| problem.line).collect();
    assert!([2, 3, 4].iter().all(|line| lines.contains(line)), "{problems:?}");
    assert!(problems.iter().all(|problem| &*problem.file == "example.com.zone"));
    assert_eq!(server.served(), Some((9, vec![2, 3])));
    assert!(!server.restart().is_empty());
    assert_eq!(server.served(), Some((9, vec![2, 3])), "the good copy with the journal");
    assert_eq!(server.put(&zone_text(9, &[4])), Ok(10), "a whole zone replaces the file");
    assert_eq!(server.restart(), [""; 0]);
    assert_eq!(server.served(), Some((10, vec![4])));
}

#[test]
fn a_damaged_journal_is_told_and_only_a_whole_zone_goes_on() {
    let mut server = Server::new("damaged");
    server.put(&zone_text(7, &[1])).unwrap();
    server.change(vec![Change::Add(www(2))]).unwrap();
    server.change(vec![Change::Add(www(3))]).unwrap();
    server.damage_journal();
    assert_eq!(server.restart(), ["journal"]);
    assert_eq!(server.served(), Some((7, vec![1])), "what the file says is better than nothing");
    assert!(
        matches!(server.change(vec![Change::Add(www(4))]), Err(Refused::Rules(rules)) if rules[0].rule == "journal")
    );
    assert_eq!(server.put(&zone_text(20, &[5])), Ok(20));
    assert_eq!((server.restart(), server.served()), (vec![], Some((20, vec![5]))));
}

#[test]
fn guardrails_hold_at_every_door() {
    let server = Server::new("doors");
    server.put(&zone_text(7, &[1, 2])).unwrap();
    server.put_policy("never_empty: [www]\nprotected: true\n", "test", None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let gone = || vec![Change::Remove(www(1)), Change::Remove(www(2))];
    let decide = move || Edit::Decide(Box::new(move |_: &dyn ZoneView| Ok(gone())));
    let refused = |proposal| match server.propose(proposal) {
        Err(Refused::Rules(rules)) => rules.iter().any(|rule| rule.rule == "never-empty" && rule.remedy.is_some()),
        other => panic!("{other:?}"),
    };
    for door in [Door::Api, Door::Lease, Door::Webhook, Door::Update] {
        assert!(refused(Proposal::new(origin(), Edit::Changes(gone()), Actor::new(door, "test"))), "{door:?}");
        assert!(refused(Proposal::new(origin(), decide(), Actor::new(door, "test"))), "{door:?}");
    }
    assert!(refused(replace(&zone_text(9, &[]), &server.authority, Door::Api)));
    fs::write(server.file(), zone_text(9, &[])).unwrap();
    assert!(server.authority.reload(&origin()).problems.iter().any(|problem| problem.rule == "never-empty"));
    fs::remove_file(server.file()).unwrap();
    assert_eq!(server.authority.reload(&origin()).problems[0].rule, "zone-file-gone");
    let origin = origin();
    let removed = server.authority.remove(&origin, Base::Any, Actor::new(Door::Api, "test"), None);
    assert!(matches!(runtime.block_on(removed), Err(Refused::Rules(_))));
    assert_eq!(server.served(), Some((7, vec![1, 2])));

    let log = fs::read_to_string(server.authority.folder().audit_file()).unwrap();
    assert!(gateward_zone::audit::verify(gateward_zone::audit::GENESIS, log.lines()).is_ok());
    assert!(log.lines().filter(|line| line.contains("\"refuse\"")).count() >= 11, "{log}");
    assert_eq!(server.authority.audit().read(Some(&origin), 1, 2).unwrap()[0].0, 2);
}

#[test]
fn a_zone_goes_when_nobody_needs_it_and_can_be_made_again() {
    let server = Server::new("removal");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let remove = |name: &str| {
        let name = name.parse().expect("a name");
        runtime.block_on(server.authority.remove(&name, Base::Any, Actor::new(Door::Api, "test"), None))
    };
    server.put(&zone_text(7, &[1])).unwrap();
    let child: Name = "sub.example.com".parse().expect("a name");
    let text = "@ 60 SOA ns hm 1 2 3 4 5\n@ 60 NS ns\nns 60 A 192.0.2.1\n";
    let parsed = parse(text.as_bytes(), &child, "body", server.authority.folder()).expect("a zone");
    let edit = Edit::Replace(Box::new(parsed.zone));
    server.propose(Proposal::new(child.clone(), edit, Actor::new(Door::Api, "test"))).unwrap();
    let delegation = || parse_record("sub 60 NS ns", &origin(), None).expect("a record");
    server.change(vec![Change::Add(delegation())]).unwrap();
    let rule = |refused: Result<(), Refused>| match refused {
        Err(Refused::Rules(rules)) => rules[0].rule,
        other => panic!("{other:?}"),
    };
    assert_eq!(rule(remove("sub.example.com")), "still-delegated");
    assert_eq!(rule(remove("example.com")), "child-zones");
    // A delegation to other servers does not need the copy here, and leads to nothing that is here.
    let elsewhere = || parse_record("sub 60 NS ns.example.net.", &origin(), None).expect("a record");
    server.change(vec![Change::Remove(delegation()), Change::Add(elsewhere())]).unwrap();
    let mut events = server.authority.subscribe();
    assert_eq!(remove("sub.example.com"), Ok(()));
    assert_eq!(events.try_recv().ok(), Some(Event { origin: child.clone(), what: Happened::Removed }));
    assert!(server.authority.zone(&child).is_none() && server.authority.info(&child).is_none());
    assert!(server.authority.folder().versions_dir(&child).join("deleted.zone").exists());
    assert_eq!(remove("example.com"), Ok(()));
    assert_eq!(remove("example.com"), Err(Refused::NoZone(origin())));
    assert_eq!(server.put(&zone_text(3, &[1])), Ok(3));
}

#[test]
fn the_policy_limits_what_a_zone_may_cost() {
    let server = Server::new("limits");
    server.put(&zone_text(7, &[1])).unwrap();
    let policy = |text: &str| server.put_policy(text, "test", None).unwrap();
    policy("limits: {records: 5}\n");
    assert_eq!(server.change(vec![Change::Add(www(2))]), Ok(8));
    assert!(
        matches!(server.change(vec![Change::Add(www(3))]), Err(Refused::Rules(rules)) if rules[0].rule == "max-records")
    );
    policy("limits: {updates_per_second: 1}\n");
    let answers: Vec<_> = (10..20).map(|last| server.change(vec![Change::Add(www(last))])).collect();
    assert!(
        answers[0].is_ok() && answers.iter().any(|answer| matches!(answer, Err(Refused::Busy { per_second: 1, .. })))
    );
}

#[test]
fn going_back_shares_a_turn_with_nobody_before_it() {
    let server = Server::new("rollback-batch");
    server.put(&zone_text(7, &[1])).unwrap();
    server.change(vec![Change::Add(www(2))]).unwrap();
    let line = server.authority.known(&origin()).unwrap();
    let held = line.state();
    let submit = |edit| server.authority.submit(Proposal::new(origin(), edit, Actor::new(Door::Api, "test")));
    // They wait together.
    let edits = [Edit::Changes(vec![Change::Add(www(3))]), Edit::Changes(vec![Change::Add(www(4))]), Edit::Rollback(7)];
    let answers = edits.map(submit);
    drop(held);
    let serials = answers.map(|answer| answer.blocking_recv().unwrap().map(|applied| applied.serial));
    assert_eq!(serials, [Ok(9), Ok(10), Ok(11)]);
    assert_eq!(server.served(), Some((11, vec![1])));
}

#[test]
fn what_could_not_be_stored_is_counted_and_loses_nothing() {
    let server = Server::new("failed");
    server.put(&zone_text(7, &[1])).unwrap();
    let (journals, away) = (server.dir.join(".journal"), server.dir.join(".journal-away"));
    fs::rename(&journals, &away).unwrap();
    assert!(matches!(server.change(vec![Change::Add(www(2))]), Err(Refused::Failed(_))));
    server.edit(&zone_text(8, &[1, 3]));
    let loaded = server.authority.reload(&origin());
    assert!(loaded.again && loaded.problems[0].rule == "not-stored", "{loaded:?}");
    assert_eq!((server.served(), server.problems()), (Some((7, vec![1])), vec!["not-stored"]));
    assert!(server.authority.metrics().contains("outcome=\"failed\"} 2"), "{}", server.authority.metrics());
    fs::rename(&away, &journals).unwrap();
    assert_eq!(server.authority.reload(&origin()).problems, []);
    assert_eq!((server.served(), server.problems()), (Some((8, vec![1, 3])), vec![]));
}
