//! Zone files that people edit or remove: while others change the zone, and while the server is down.

use super::*;

impl Server {
    fn rules(&self) -> Vec<&'static str> {
        self.authority.reload(&origin()).problems.iter().map(|problem| problem.rule).collect()
    }

    fn journal_bytes(&self) -> u64 {
        fs::metadata(self.authority.folder().journal_file(&origin())).map_or(0, |file| file.len())
    }

    /// As many changes as make the journal long many times over; it ends with the address 1 and the last of `others`.
    fn change_often(&self, others: std::ops::RangeInclusive<u8>) {
        for last in others.clone() {
            self.change(vec![Change::Add(www(last))]).expect("nothing speaks against it");
            if last > *others.start() {
                self.change(vec![Change::Remove(www(last - 1))]).expect("it is there");
            }
        }
    }
}

#[test]
fn a_file_that_was_read_before_a_change_does_not_undo_it() {
    let server = Server::new("poll");
    server.put(&zone_text(7, &[1])).unwrap();
    let judge = |candidate| {
        server
            .authority
            .in_turn_blocking(&origin(), |authority, line, state| authority.judge(line, state, candidate))
            .unwrap()
    };
    // The file as it was, and a whole zone that comes before it is judged.
    let candidate = server.authority.read_candidate(&origin());
    server.put(&zone_text(8, &[2])).unwrap();
    let loaded = judge(candidate);
    assert!(loaded.again && loaded.problems.is_empty(), "{loaded:?}");
    assert_eq!(server.served(), Some((8, vec![2])));
    assert_eq!(server.rules(), [""; 0]);

    // An edit, and a whole zone that comes before it is judged: both are there still, and somebody has to decide.
    server.edit(&zone_text(9, &[3]));
    let candidate = server.authority.read_candidate(&origin());
    assert_eq!(server.put(&zone_text(9, &[4])), Ok(9));
    assert_eq!(judge(candidate).problems[0].rule, "stale-file");
    assert_eq!((server.served(), server.problems()), (Some((9, vec![4])), vec!["stale-file"]));
    assert!(fs::read_to_string(server.file()).unwrap().contains("192.0.2.3"), "the edit is not lost");
    // The same with changes that wait in the same turn.
    server.edit(&zone_text(30, &[1]));
    assert_eq!(server.rules(), [""; 0]);
    assert_eq!(server.served(), Some((30, vec![1])), "with a higher serial it is the last word");
}

#[test]
fn an_edit_that_nobody_looked_at_yet_is_not_overwritten() {
    let mut server = Server::new("merge");
    server.put(&zone_text(7, &[1])).unwrap();
    let edited = zone_text(8, &[1, 200]);
    server.edit(&edited);
    server.change_often(2..=150);
    assert_eq!(fs::read_to_string(server.file()).unwrap(), edited);
    assert!(server.journal_bytes() < 3 << 12, "the journal is bounded all the same: {}", server.journal_bytes());
    let served = server.served();
    assert_eq!(served, Some((304, vec![1, 150])));
    assert_eq!(server.restart(), ["stale-file"]);
    assert_eq!(server.served(), served, "from the good copy and the journal");
    assert_eq!(server.rules(), ["stale-file"]);
    server.edit(&zone_text(400, &[1, 200]));
    assert_eq!((server.rules(), server.served()), (vec![], Some((400, vec![1, 200]))));
    assert_eq!((server.restart(), server.served()), (vec![], Some((400, vec![1, 200]))));
}

#[test]
fn the_journal_is_bounded_while_the_file_is_bad_and_nothing_of_it_is_lost() {
    let mut server = Server::new("bounded");
    let good = zone_text(7, &[1]);
    server.put(&good).unwrap();
    server.edit("@ SOA broken");
    assert!(!server.rules().is_empty());
    server.change_often(2..=150);
    assert!(server.journal_bytes() < 3 << 12, "{}", server.journal_bytes());
    let served = Some((304, vec![1, 150]));
    assert_eq!(server.served(), served);
    assert_eq!(fs::read_to_string(server.file()).unwrap(), "@ SOA broken");
    assert!(!server.restart().is_empty());
    assert_eq!(server.served(), served);
    // The operator takes the edit back, while the server runs or is down: that is no edit.
    server.edit(&good);
    assert_eq!((server.rules(), server.served()), (vec![], served));
    server.change(vec![Change::Add(www(160))]).unwrap();
    assert_eq!((server.restart(), server.served()), (vec![], Some((305, vec![1, 150, 160]))));
    assert_eq!(server.authority.differences(&origin(), 304).map(|deltas| deltas.len()), Some(1));
}

#[test]
fn a_protected_zone_outlives_its_file() {
    let mut server = Server::new("gone");
    server.put(&zone_text(7, &[1])).unwrap();
    server.put_policy("protected: true", "test", None).unwrap();
    server.change(vec![Change::Add(www(2))]).unwrap();
    fs::remove_file(server.file()).unwrap();
    for _ in 0..2 {
        assert_eq!(server.restart(), ["zone-file-gone"]);
        assert_eq!((server.served(), server.problems()), (Some((8, vec![1, 2])), vec!["zone-file-gone"]));
    }
    assert_eq!(server.change(vec![Change::Add(www(3))]), Ok(9), "the zone itself is in order");
    assert_eq!((server.restart(), server.served()), (vec!["zone-file-gone".to_owned()], Some((9, vec![1, 2, 3]))));
    assert_eq!(server.put(&zone_text(9, &[4])), Ok(10));
    assert_eq!((server.restart(), server.served()), (vec![], Some((10, vec![4]))));

    server.put_policy("protected: false", "test", None).unwrap();
    fs::remove_file(server.file()).unwrap();
    assert_eq!((server.restart(), server.served()), (vec![], None), "as while it runs");
    let folder = server.authority.folder();
    assert!(fs::read_to_string(folder.versions_dir(&origin()).join("deleted.zone")).unwrap().contains("192.0.2.4"));
    assert!(fs::read_to_string(folder.audit_file()).unwrap().contains("\"action\":\"delete\""));
    assert_eq!((server.restart(), server.served()), (vec![], None), "and it does not come again");
}

#[test]
fn an_edit_while_the_server_was_down_is_judged_like_any_other() {
    let mut server = Server::new("down");
    server.put(&zone_text(7, &[1, 2])).unwrap();
    server.put_policy("never_empty: [www]", "test", None).unwrap();
    server.edit(&zone_text(8, &[]));
    for _ in 0..2 {
        assert_eq!(server.restart(), ["never-empty"]);
        assert_eq!((server.served(), server.problems()), (Some((7, vec![1, 2])), vec!["never-empty"]));
    }
    // One that nothing speaks against counts, and the serial rises although the file forgot it.
    server.edit(&zone_text(7, &[1, 3]));
    assert_eq!((server.restart(), server.served()), (vec![], Some((8, vec![1, 3]))));
    assert_eq!((server.restart(), server.served()), (vec![], Some((8, vec![1, 3]))));
    // The same with changes in the journal: the higher serial wins.
    server.change(vec![Change::Add(www(4))]).unwrap();
    server.edit(&zone_text(9, &[5]));
    assert_eq!(server.restart(), ["stale-file"]);
    assert_eq!(server.served(), Some((9, vec![1, 3, 4])));
    server.edit(&zone_text(10, &[]));
    assert_eq!(server.restart(), ["never-empty"], "and the guardrails hold all the same");
    server.edit(&zone_text(10, &[5]));
    assert_eq!((server.restart(), server.served()), (vec![], Some((10, vec![5]))));
    assert_eq!(server.authority.version(&origin(), 9).unwrap().serial(), 9, "what went can be brought back");
    // An old version of the file with a serial above all others is meant to be the last word; with its own serial it is but old.
    server.change(vec![Change::Add(www(6))]).unwrap();
    server.edit(&zone_text(10, &[5]));
    assert_eq!((server.restart(), server.served()), (vec![], Some((11, vec![5, 6]))));
    server.edit(&zone_text(12, &[5]));
    assert_eq!((server.restart(), server.served()), (vec![], Some((12, vec![5]))));
}

#[test]
fn what_a_zone_file_includes_is_part_of_it() {
    let mut server = Server::new("included");
    let part = server.dir.join("part");
    fs::write(&part, "www A 192.0.2.1\n").unwrap();
    let text = zone_text(7, &[]) + "$INCLUDE part\n$INCLUDE missing\n";
    server.edit(&text);
    let loaded = server.authority.reload(&origin());
    let names =
        loaded.includes.iter().map(|(path, stamp)| (path.file_name().unwrap().to_str().unwrap(), stamp.is_some()));
    assert_eq!(names.collect::<Vec<_>>(), [("part", true), ("missing", false)]);
    assert!(server.served().is_none() && !loaded.problems.is_empty());
    fs::write(server.dir.join("missing"), "").unwrap();
    assert_eq!((server.rules(), server.served()), (vec![], Some((7, vec![1]))));
    server.authority.keep_good_copy(&origin());
    server.put_policy("never_empty: [www]", "test", None).unwrap();
    fs::write(&part, "").unwrap();
    assert_eq!((server.restart(), server.served()), (vec!["never-empty".to_owned()], Some((7, vec![1]))));
    fs::write(&part, "www A 192.0.2.9\n").unwrap();
    assert_eq!((server.restart(), server.served()), (vec![], Some((8, vec![9]))));
}

#[test]
fn a_removal_that_a_crash_cut_short_is_finished_or_did_not_happen() {
    let mut server = Server::new("removing");
    server.put(&zone_text(7, &[1])).unwrap();
    server.change(vec![Change::Add(www(2))]).unwrap();
    let mark = server.authority.folder().removal_file(&origin());
    fs::write(&mark, "").unwrap();
    assert_eq!((server.restart(), server.served()), (vec![], Some((8, vec![1, 2]))));
    assert!(!mark.exists());
    fs::write(&mark, "").unwrap();
    fs::remove_file(server.file()).unwrap();
    assert_eq!((server.restart(), server.served()), (vec![], None));
    assert!(!mark.exists() && !server.authority.folder().good_file(&origin()).exists());
    assert!(server.authority.zones().map().slot(&origin()).is_none(), "questions are not ours any more");
    assert_eq!(server.put(&zone_text(3, &[1])), Ok(3));
}

#[test]
fn a_file_that_is_new_and_not_read_yet_is_not_overwritten() {
    let server = Server::new("unread");
    server.edit(&zone_text(5, &[5]));
    let refused = server.put(&zone_text(7, &[1]));
    assert!(matches!(&refused, Err(Refused::Rules(rules)) if rules[0].rule == "unread-file"), "{refused:?}");
    assert!(server.served().is_none());
    assert_eq!((server.rules(), server.served()), (vec![], Some((5, vec![5]))));
    assert_eq!(server.put(&zone_text(7, &[1])), Ok(7));
    // An edit at the moment of a removal is kept.
    server.edit("; half an edit");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let actor = Actor::new(Door::Api, "test");
    runtime.block_on(server.authority.remove(&origin(), Base::Any, actor, None)).unwrap();
    let kept = server.authority.folder().versions_dir(&origin()).join("deleted.edited.zone");
    assert_eq!(fs::read_to_string(kept).unwrap(), "; half an edit");
}

#[test]
fn an_edit_that_comes_too_soon_is_looked_at_again() {
    let server = Server::new("busy");
    server.put(&zone_text(7, &[1])).unwrap();
    server.put_policy("limits: {updates_per_second: 1}", "test", None).unwrap();
    let mut last = 2;
    while server.change(vec![Change::Add(www(last))]).is_ok() {
        last += 1;
    }
    server.edit(&zone_text(100, &[100]));
    server.spend_quota();
    let (served, first) = (server.served(), server.authority.reload(&origin()));
    assert!(first.again && first.problems.iter().map(|problem| problem.rule).eq(["not-stored"]), "{first:?}");
    assert_eq!((server.served(), server.problems()), (served, vec!["not-stored"]));
    let start = std::time::Instant::now();
    while server.authority.reload(&origin()).again {
        assert!(start.elapsed() < std::time::Duration::from_secs(30));
        assert!(matches!(server.problems()[..], ["not-stored"] | []));
    }
    assert_eq!((server.served(), server.problems()), (Some((100, vec![100])), vec![]));
    assert!(server.authority.metrics().lines().any(|line| line.contains("busy") && !line.ends_with(" 0")));
}

#[test]
fn what_the_server_wrote_itself_costs_the_zone_nothing() {
    let server = Server::new("own-writes");
    server.put_policy("limits: {updates_per_second: 1}", "test", None).unwrap_err();
    server.put(&zone_text(7, &[1])).unwrap();
    server.put_policy("limits: {updates_per_second: 1}", "test", None).unwrap();
    server.spend_quota();
    assert_eq!(server.rules(), [""; 0]);
    server.edit(&(zone_text(7, &[1]) + "; another comment\n"));
    assert_eq!(server.rules(), [""; 0], "nor does what changes nothing");
    server.edit(&zone_text(8, &[2]));
    server.spend_quota();
    assert_eq!(server.rules(), ["not-stored"], "an edit does");
}

#[test]
fn an_edit_of_an_included_file_that_nobody_looked_at_yet_is_not_lost() {
    let server = Server::new("part");
    let part = server.dir.join("part");
    let text = |serial| zone_text(serial, &[]) + "$INCLUDE part\n";
    let includes = || fs::read_to_string(server.file()).unwrap().contains("$INCLUDE part");
    fs::write(&part, "www A 192.0.2.1\n").unwrap();
    server.edit(&text(7));
    assert_eq!((server.rules(), server.served()), (vec![], Some((7, vec![1]))));
    fs::write(&part, "www A 192.0.2.1\nwww A 192.0.2.200\n").unwrap();
    server.change_often(2..=150);
    assert!(includes() && server.journal_bytes() < 3 << 12, "the journal is turned over without the file");
    assert_eq!(server.rules(), ["stale-file"], "and the edit is judged");
    server.edit(&text(400));
    assert_eq!((server.rules(), server.served()), (vec![], Some((400, vec![1, 200]))));

    // The same where the text comes by the API, and a part of it changes behind it.
    let part = server.dir.join("part-of-api");
    fs::write(&part, "www A 192.0.2.1\nwww A 192.0.2.200\n").unwrap();
    let text = |serial| text(serial).replace("part", "part-of-api");
    let proposal = replace(&text(500), &server.authority, Door::Api);
    fs::write(&part, "www A 192.0.2.201\n").unwrap();
    assert_eq!(server.propose(proposal), Ok(500));
    assert_eq!(server.served(), Some((500, vec![1, 200])));
    server.change(vec![Change::Remove(www(200))]).unwrap();
    server.change_often(2..=150);
    assert!(includes());
    assert_eq!(server.rules(), ["stale-file"]);
    // With nothing unread the file is written, and stands alone.
    server.edit(&text(900));
    assert_eq!((server.rules(), server.served()), (vec![], Some((900, vec![201]))));
    server.change_often(2..=150);
    assert!(!includes());
}

#[test]
fn a_removal_that_could_not_be_stored_is_tried_again_and_one_that_rules_forbid_is_not() {
    let server = Server::new("removal-again");
    server.put(&zone_text(7, &[1])).unwrap();
    // The last version cannot be kept.
    let deleted = server.authority.folder().deleted_file(&origin());
    fs::create_dir_all(deleted.join("x")).unwrap();
    fs::remove_file(server.file()).unwrap();
    let judged = || {
        let loaded = server.authority.reload(&origin());
        (loaded.again, loaded.problems.iter().map(|problem| problem.rule).collect::<Vec<_>>())
    };
    assert_eq!(judged(), (true, vec!["zone-file-gone"]));
    server.put_policy("protected: true", "test", None).unwrap();
    assert_eq!(judged(), (false, vec!["zone-file-gone"]), "the rule would say the same again");
    server.put_policy("protected: false", "test", None).unwrap();
    assert_eq!(judged(), (true, vec!["zone-file-gone"]));
    assert_eq!(server.served(), Some((7, vec![1])));
    fs::remove_dir_all(deleted).unwrap();
    assert_eq!((judged(), server.served()), ((false, vec![]), None));
}

#[test]
fn a_damaged_zone_whose_files_are_all_gone_is_judged_like_any_other() {
    let all_gone = |server: &Server| {
        let folder = server.authority.folder();
        for file in [server.file(), folder.journal_file(&origin()), folder.good_file(&origin())] {
            let _ = fs::remove_file(file);
        }
    };
    let is_known = |server: &Server| server.authority.zones().map().slot(&origin()).is_some();
    for is_protected in [false, true] {
        let mut server = Server::new(&format!("damaged-gone-{is_protected}"));
        server.put(&zone_text(7, &[1])).unwrap();
        server.put_policy(&format!("protected: {is_protected}"), "test", None).unwrap();
        server.change(vec![Change::Add(www(2))]).unwrap();
        server.change(vec![Change::Add(www(4))]).unwrap();
        server.damage_journal();
        assert_eq!((server.restart(), server.served()), (vec!["journal".to_owned()], Some((7, vec![1]))));
        all_gone(&server);
        if !is_protected {
            assert_eq!((server.rules(), server.served(), is_known(&server)), (vec![], None, false));
            continue;
        }
        assert_eq!((server.rules(), server.served()), (vec!["zone-file-gone"], Some((7, vec![1]))));
        assert_eq!(server.change(vec![Change::Add(www(3))]), Ok(8), "it is whole again");
        assert_eq!(server.restart(), ["zone-file-gone"]);
        assert_eq!(server.served(), Some((8, vec![1, 3])), "and what it is now is on disk");
    }
    // Of one that was not served nothing is left.
    let mut server = Server::new("damaged-bad");
    server.put(&zone_text(7, &[1])).unwrap();
    server.change(vec![Change::Add(www(2))]).unwrap();
    server.change(vec![Change::Add(www(4))]).unwrap();
    server.damage_journal();
    server.edit("@ SOA broken");
    assert!(server.restart().len() > 1 && server.served().is_none() && is_known(&server));
    all_gone(&server);
    assert_eq!((server.rules(), is_known(&server)), (vec![], false));
}

#[test]
fn a_zone_that_starts_anew_is_what_it_is_wherever_a_crash_comes() {
    let mut server = Server::new("anew");
    server.put(&zone_text(7, &[1])).unwrap();
    server.put_policy("never_empty: [www]", "test", None).unwrap();
    server.change(vec![Change::Add(www(2))]).unwrap();
    server.change(vec![Change::Add(www(4))]).unwrap();
    server.damage_journal();
    assert_eq!(server.restart(), ["journal"]);
    let folder = server.authority.folder().clone();
    let (good, mark) = (folder.good_file(&origin()), folder.removal_file(&origin()));
    assert!(good.exists());

    // Before the journal is away: it says that something is wrong.
    let aside = folder.versions_dir(&origin()).join("set-aside.journal");
    fs::create_dir_all(aside.join("x")).unwrap();
    assert!(matches!(server.put(&zone_text(20, &[5])), Err(Refused::Failed(_))));
    assert!(!good.exists() && server.problems() == ["journal"]);
    assert_eq!((server.restart(), server.served()), (vec!["journal".to_owned()], Some((20, vec![5]))));
    fs::remove_dir_all(aside).unwrap();

    // Behind it: an old good copy is nothing to hold the new zone against, and an old removal is over.
    fs::write(&good, zone_text(7, &[1])).unwrap();
    fs::write(&mark, "").unwrap();
    let text = zone_text(30, &[]);
    let parsed = parse(text.as_bytes(), &origin(), "body", &folder).expect("a zone");
    let next = Arc::new(Zone::build(&origin(), parsed.zone.into_records()).expect("a zone"));
    let actor = Actor::new(Door::Api, "test");
    let commit = move |authority: &Authority, line: &Line, state: &mut State| {
        let proposal = turn::ProposalHead {
            actor,
            action: "write",
            text: Some(text.into_bytes()),
            includes: Vec::new(),
            stated: Some(30),
            is_dry_run: false,
        };
        let applied = Applied { serial: 30, changes: Vec::new(), is_new: false, warnings: Vec::new() };
        let (from, allowed) = (Some(20), guard::Allowed::default());
        let mut accepted = vec![turn::Accepted { reply: None, proposal, from, next, applied, allowed }];
        authority.commit(line, state, &mut accepted, SystemTime::now())
    };
    assert_eq!(server.authority.in_turn_blocking(&origin(), commit), Some(Ok(())));
    assert!(!mark.exists());
    assert_eq!((server.restart(), server.served()), (vec![], Some((30, vec![]))));
}
