//! A folder that people change while the server runs.

use std::time::Duration;

use gateward_zone::ZoneView;

use super::*;
use crate::authority::Options;
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
