//! A folder that people change while the server runs.

use std::path::PathBuf;
use std::time::Duration;

use gateward_zone::ZoneView;

use super::*;
use crate::authority::{Actor, Door, Edit, Options, Proposal};
use crate::folder::Folder;

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn zone(serial: u32, rest: &str) -> String {
    format!("$TTL 60\n@ SOA ns hm {serial} 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n{rest}\n")
}

/// Waits until something is so, for as long as a slow machine may need.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let bell = Bell::default();
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        bell.wait(Duration::from_millis(20));
    }
}

#[test]
fn a_folder_is_served_and_followed() {
    let dir = Dir(std::env::temp_dir().join(format!("gateward-zones-dir-{}", std::process::id())));
    fs::create_dir_all(&dir.0).unwrap();
    let write = |file: &str, text: &str| fs::write(dir.0.join(file), text).unwrap();
    write("a.example.zone", &zone(1, ""));
    write("b.example.zone", "@ SOA broken");
    write("c.example.zone", &zone(1, "$INCLUDE part"));
    write("part", "x A 192.0.2.7");
    write("readme.txt", "not a zone");
    let authority = Authority::new(Folder::open(&dir.0).unwrap(), Arc::default(), Options::default()).unwrap();
    let keys = Arc::new(KeyFile::open(authority.folder().keys_file()).unwrap());
    let (zones, start) = ZonesDir::load(authority.clone(), keys.clone(), 2).unwrap();
    assert_eq!(start, Start { found: 3, refused: 1 });
    let serial = |origin: &str| authority.zone(&name(origin)).map(|zone| zone.serial());
    assert_eq!((serial("a.example"), serial("b.example"), serial("c.example")), (Some(1), None, Some(1)));
    assert!(authority.zones().map().slot(&name("b.example")).is_some(), "questions get SERVFAIL, not REFUSED");

    let bell = Arc::new(Bell::default());
    let watcher = std::thread::spawn({
        let bell = bell.clone();
        move || zones.watch(&bell)
    });
    write("a.example.zone", &zone(2, ""));
    write("b.example.zone", &zone(5, ""));
    write("d.example.zone", &zone(1, ""));
    write("part", "x A 192.0.2.8");
    write("keys.yaml", "k: {algorithm: hmac-sha256, secret: c2VjcmV0}");
    write("a.example.policy.yaml", "protected: true");
    until("changed files are taken over", || {
        serial("a.example") == Some(2)
            && serial("b.example") == Some(5)
            && serial("c.example") == Some(2)
            && serial("d.example") == Some(1)
            && keys.keys().find(&name("k")).is_some()
            && authority.policy(&name("a.example")).protected
    });
    fs::remove_file(dir.0.join("a.example.zone")).unwrap();
    fs::remove_file(dir.0.join("d.example.zone")).unwrap();
    write("b.example.zone", "");
    until("a protected zone stays, another goes", || {
        serial("d.example").is_none()
            && authority.info(&name("a.example")).is_some_and(|info| !info.problems.is_empty())
    });
    assert_eq!((serial("a.example"), serial("b.example")), (Some(2), Some(5)));
    bell.stop();
    watcher.join().unwrap();
}

#[test]
fn a_wish_to_read_everything_is_not_lost_in_a_look_and_the_end_is_the_end() {
    let bell = Bell::default();
    bell.ring();
    assert!(!bell.stops_within(Duration::ZERO), "a look that waits for files to settle");
    assert_eq!(bell.wait(Duration::ZERO), Rung::All);
    assert_eq!(bell.wait(Duration::ZERO), Rung::No);
    bell.stop();
    bell.ring();
    assert!(bell.stops_within(Duration::ZERO));
    assert_eq!(bell.wait(Duration::ZERO), Rung::Stop);
}

#[test]
fn what_cannot_be_taken_over_for_now_is_tried_again_and_missing_parts_are_waited_for() {
    let dir = Dir(std::env::temp_dir().join(format!("gateward-zones-again-{}", std::process::id())));
    let _ = fs::remove_dir_all(&dir.0);
    fs::create_dir_all(&dir.0).unwrap();
    let write = |file: &str, text: &str| fs::write(dir.0.join(file), text).unwrap();
    write("a.example.zone", &zone(1, ""));
    write("b.example.zone", &zone(1, "$INCLUDE part"));
    let authority = Authority::new(Folder::open(&dir.0).unwrap(), Arc::default(), Options::default()).unwrap();
    let keys = Arc::new(KeyFile::open(authority.folder().keys_file()).unwrap());
    let (zones, start) = ZonesDir::load(authority.clone(), keys, 2).unwrap();
    assert_eq!(start, Start { found: 2, refused: 1 });
    let serial = |origin: &str| authority.zone(&name(origin)).map(|zone| zone.serial());
    let bell = Arc::new(Bell::default());
    let watcher = std::thread::spawn({
        let bell = bell.clone();
        move || zones.watch(&bell)
    });
    // No change can be stored: the edit has to wait.
    let (journals, away) = (dir.0.join(".journal"), dir.0.join(".away"));
    fs::rename(&journals, &away).unwrap();
    write("a.example.zone", &zone(2, ""));
    write("part", "x A 192.0.2.7");
    until("the edit is tried", || {
        authority
            .info(&name("a.example"))
            .is_some_and(|info| info.problems.iter().any(|problem| problem.rule == "not-stored"))
    });
    until("the part is found", || serial("b.example") == Some(1));
    assert_eq!(serial("a.example"), Some(1));
    fs::rename(&away, &journals).unwrap();
    until("the edit is taken over", || serial("a.example") == Some(2));
    bell.stop();
    watcher.join().unwrap();
}

#[test]
fn zones_whose_files_went_while_nobody_looked_are_judged_at_the_start() {
    let dir = Dir(std::env::temp_dir().join(format!("gateward-zones-gone-{}", std::process::id())));
    let _ = fs::remove_dir_all(&dir.0);
    fs::create_dir_all(&dir.0).unwrap();
    let write = |file: &str, text: &str| fs::write(dir.0.join(file), text).unwrap();
    for (origin, rest) in [("a.example", "sub NS ns"), ("sub.a.example", ""), ("b.example", ""), ("c.example", "")] {
        write(&format!("{origin}.zone"), &zone(1, rest));
    }
    write("b.example.policy.yaml", "protected: true");
    let start = || {
        let authority = Authority::new(Folder::open(&dir.0).unwrap(), Arc::default(), Options::default()).unwrap();
        let keys = Arc::new(KeyFile::open(authority.folder().keys_file()).unwrap());
        let (_, start) = ZonesDir::load(authority.clone(), keys, 2).unwrap();
        (authority, start)
    };
    let served = |authority: &Authority| {
        ["a.example", "sub.a.example", "b.example", "c.example"].map(|origin| authority.zone(&name(origin)).is_some())
    };
    let (authority, first) = start();
    assert_eq!(first, Start { found: 4, refused: 0 });
    for (origin, _) in authority.all() {
        authority.keep_good_copy(&origin);
    }
    drop(authority);
    for origin in ["sub.a.example", "b.example", "c.example"] {
        fs::remove_file(dir.0.join(format!("{origin}.zone"))).unwrap();
    }
    let (authority, second) = start();
    assert_eq!((served(&authority), second), ([true, true, true, false], Start { found: 3, refused: 2 }));
    drop(authority);
    write("a.example.zone", &zone(2, ""));
    let (authority, third) = start();
    assert_eq!(third.refused, 1, "the delegation is gone, and the zone may go");
    assert_eq!(served(&authority), [true, false, true, false]);
}

#[test]
fn a_zone_that_outlived_its_files_is_judged_again_when_everything_is_read_again() {
    let dir = Dir(std::env::temp_dir().join(format!("gateward-zones-outlived-{}", std::process::id())));
    let _ = fs::remove_dir_all(&dir.0);
    fs::create_dir_all(&dir.0).unwrap();
    let write = |file: &str, text: &str| fs::write(dir.0.join(file), text).unwrap();
    write("a.example.zone", &zone(1, "sub NS ns"));
    write("sub.a.example.zone", &zone(1, ""));
    let authority = Authority::new(Folder::open(&dir.0).unwrap(), Arc::default(), Options::default()).unwrap();
    let keys = Arc::new(KeyFile::open(authority.folder().keys_file()).unwrap());
    let (mut zones, _) = ZonesDir::load(authority.clone(), keys, 2).unwrap();
    let (bell, sub) = (Bell::default(), name("sub.a.example"));
    fs::remove_file(dir.0.join("sub.a.example.zone")).unwrap();
    zones.look(false, &bell);
    let problems = |origin| authority.info(origin).map_or(0, |info| info.problems.len());
    assert!(authority.zone(&sub).is_some() && problems(&sub) == 1, "it is delegated to");
    assert!(zones.unsettled.is_empty(), "a rule says the same until something is done");
    let delegation = gateward_zone::parse_record("sub 60 NS ns", &name("a.example"), None).unwrap();
    let edit = Edit::Changes(vec![gateward_zone::Change::Remove(delegation)]);
    authority.apply_blocking(Proposal::new(name("a.example"), edit, Actor::new(Door::Api, "test"))).unwrap();
    zones.look(false, &bell);
    assert!(authority.zone(&sub).is_some(), "nothing in the folder looks different");
    zones.look(true, &bell);
    assert!(authority.zone(&sub).is_none() && authority.info(&sub).is_none());
}
