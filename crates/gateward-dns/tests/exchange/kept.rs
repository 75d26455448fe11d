//! Servers with a folder of zones: what others change or send is durable, and goes on to their secondaries.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gateward_dns::answer::Settings;
use gateward_dns::authority::{Actor, Authority, Base, Door, Edit, Kind, Options, PolicyBase, Proposal};
use gateward_dns::catalog;
use gateward_dns::cookies::CookieKeys;
use gateward_dns::folder::Folder;
use gateward_dns::secondary::Primary;
use gateward_dns::server::{self, Server, Shared};
use gateward_dns::service::{Exchange, Followed};
use gateward_dns::transfer::Limits;
use gateward_dns::tsig::{Algorithm, Key, Keys};
use gateward_zone::{Change, Rtype, ZoneView as _, parse_record, rdata_to_text};

use crate::memory::{KEYS, SECRET, eventually, name};
use crate::tools::{dig, has, key_argument, nsupdate};

const ZONE: &str = "$TTL 300\n@ SOA ns hostmaster 7 3600 600 86400 300\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.1\n\
                    a TXT a\nb TXT b\nc TXT c\nd TXT d\ne TXT e\n";

/// A folder that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("kept-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Dir(path)
    }

    fn with(self, file: &str, text: &str) -> Self {
        fs::write(self.0.join(file), text).expect("a file");
        self
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Kept {
    exchange: Exchange,
    server: Server,
    authority: Arc<Authority>,
}

impl Kept {
    /// With files that have nothing wrong.
    fn start(dir: &Dir, origins: &[&str]) -> Self {
        Kept::begin(dir, origins, true)
    }

    /// With files as they are.
    fn prepared(dir: &Dir, origins: &[&str]) -> Self {
        Kept::begin(dir, origins, false)
    }

    fn begin(dir: &Dir, origins: &[&str], is_clean: bool) -> Self {
        let shared = Arc::new(Shared::new(Settings::default(), CookieKeys::new([1; 16], None)));
        let folder = Folder::open(&dir.0).expect("it is there");
        let authority = Authority::new(folder, Arc::clone(&shared.zones), Options::default()).expect("a folder");
        let prepared = origins.iter().map(|origin| {
            let (prepared, loaded) = authority.prepare(&name(origin));
            assert!(!is_clean || loaded.problems.iter().all(|problem| !problem.is_error()), "{:?}", loaded.problems);
            prepared
        });
        authority.adopt(prepared.collect());
        let key = |(key, algorithm): (&str, Algorithm)| Key::from_base64(name(key), algorithm, SECRET).expect("a key");
        let keys: Arc<Keys> = Arc::new(KEYS.map(key).into_iter().collect());
        let exchange = Exchange::start(&shared, &authority, Arc::new(move || Arc::clone(&keys)), Limits::default());
        let options =
            server::Options { listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))], ..server::Options::default() };
        let server = Server::start(shared, &options, &exchange.service).expect("ports are free");
        Kept { exchange, server, authority }
    }

    fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    fn follow(&self, zone: &str, primary: &Kept, is_catalog: bool) {
        let primary = Primary { address: primary.address(), key: Some(name("sha256.key")) };
        self.exchange.followers.follow(&Followed { zone: name(zone), primaries: vec![primary], is_catalog });
    }

    fn serial(&self, zone: &str) -> Option<u32> {
        self.authority.zone(&name(zone)).map(|zone| zone.serial())
    }

    fn data(&self, zone: &str, owner: &str, rtype: Rtype) -> Vec<String> {
        let set = self.authority.zone(&name(zone)).and_then(|zone| zone.set(&name(owner), rtype));
        set.into_iter().flat_map(|set| set.data).map(|rdata| rdata_to_text(rtype, &rdata)).collect()
    }

    async fn add(&self, line: &str) {
        let record = parse_record(line, &name("example.com"), None).expect(line);
        let edit = Edit::Changes(vec![Change::Add(record)]);
        let applied =
            self.authority.apply(Proposal::new(name("example.com"), edit, Actor::new(Door::Api, "test"))).await;
        applied.expect("nothing speaks against it");
    }
}

/// The policy of a zone whose secondary listens there.
fn policy(secondary: Option<&Kept>) -> String {
    let secondary = secondary.map(|secondary| {
        format!("secondaries: [{{address: 127.0.0.1, port: {}, key: sha256.key}}]\n", secondary.address().port())
    });
    "keys: [{key: sha256.key, types: [A, AAAA, TXT]}, {key: md5.key, labels: [_acme-challenge], types: [TXT]}]\n\
     transfers: {keys: [sha256.key]}\nttl: {min: 60, clamp: true}\npercent_floor: 5\n"
        .to_owned()
        + &secondary.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_are_durable_and_within_the_policy() {
    if !has("nsupdate") {
        return;
    }
    let dir = Dir::new().with("example.com.zone", ZONE).with("example.com.policy.yaml", &policy(None));
    let server = Kept::start(&dir, &["example.com"]);
    let sha256 = key_argument("hmac-sha256", "sha256.key");
    let md5 = key_argument("hmac-md5", "md5.key");
    let update = |server: &Kept, key: &str, lines: &[&str]| nsupdate(server.address(), key, true, lines);
    assert_eq!(update(&server, &sha256, &["update add new.example.com. 0 A 192.0.2.9"]), "");
    assert_eq!(update(&server, &md5, &["update add _acme-challenge.www.example.com. 60 TXT token"]), "");
    assert_eq!(server.serial("example.com"), Some(9));
    let new = dig(server.address(), &["new.example.com", "A"]);
    assert!(new.contains("60\tIN\tA\t192.0.2.9"), "the TTL is clamped: {new}");
    for (key, line) in [
        (&md5, "update add new.example.com. 60 A 192.0.2.8"),
        (&sha256, "update add sub.example.com. 60 NS ns.example.com."),
        (&sha256, "update delete www.example.com."),
    ] {
        // The last one is allowed by the key; alone it is.
        let said = update(&server, key, &[line]);
        assert_eq!(said.contains("REFUSED"), !line.contains("delete"), "{line}: {said}");
    }
    // A guardrail: too much of the zone at once.
    let much: Vec<String> =
        ["a", "b", "c", "d", "e"].map(|name| format!("update delete {name}.example.com. TXT")).into();
    let said = update(&server, &sha256, &much.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.contains("REFUSED"), "{said}");
    let served = server.serial("example.com");
    drop(server);
    let server = Kept::start(&dir, &["example.com"]);
    assert_eq!(server.serial("example.com"), served);
    assert_eq!(server.data("example.com", "new.example.com", Rtype::A), ["192.0.2.9"]);
    assert_eq!(server.data("example.com", "a.example.com", Rtype::TXT), ["\"a\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_reach_secondaries_and_outlive_them() {
    let mine = Dir::new();
    let secondary = Kept::start(&mine, &[]);
    let dir = Dir::new().with("example.com.zone", ZONE).with("example.com.policy.yaml", &policy(Some(&secondary)));
    let primary = Kept::start(&dir, &["example.com"]);
    secondary.follow("example.com", &primary, false);
    eventually("the first transfer", || secondary.serial("example.com") == Some(7));
    for index in 0..5 {
        primary.add(&format!("many 300 TXT {index}")).await;
    }
    eventually("the changes", || secondary.serial("example.com") == Some(12));
    assert_eq!(secondary.data("example.com", "many.example.com", Rtype::TXT).len(), 5);
    let info = secondary.authority.info(&name("example.com")).expect("it is known");
    assert_eq!(info.kind, Kind::Secondary);
    // Differences are asked for from any version that is kept, also after a restart.
    if has("dig") {
        let key = key_argument("hmac-sha256", "sha256.key");
        let said = dig(primary.address(), &["-y", &key, "example.com", "IXFR=10"]);
        assert_eq!(said.lines().filter(|line| line.contains("\tIN\t")).count(), 6, "{said}");
    }
    // Nobody else changes a copy.
    let edit =
        Edit::Changes(vec![Change::Add(parse_record("x 1 TXT x", &name("example.com"), None).expect("a record"))]);
    let proposal = Proposal::new(name("example.com"), edit, Actor::new(Door::Api, "test"));
    assert!(secondary.authority.apply(proposal).await.is_err());
    drop(primary);
    drop(secondary);
    let secondary = Kept::start(&mine, &["example.com"]);
    assert_eq!(secondary.serial("example.com"), Some(12));
    let info = secondary.authority.info(&name("example.com")).expect("it is known");
    assert_eq!(info.kind, Kind::Secondary, "it is known to be a copy before anybody follows it");
    let primary = Kept::start(&dir, &["example.com"]);
    primary.add("late 300 A 192.0.2.9").await;
    secondary.follow("example.com", &primary, false);
    eventually("what it missed", || secondary.serial("example.com") == Some(13));
}

const CATALOG: &str = "catalog.invalid";

/// A primary that lists its own zones, and a secondary that follows the list.
struct Pair {
    mine: Dir,
    theirs: Dir,
    secondary: Kept,
    primary: Kept,
}

impl Pair {
    fn start(zones: &[&str]) -> Self {
        let mine = Dir::new();
        let secondary = Kept::start(&mine, &[]);
        let mut theirs = Dir::new().with(&format!("{CATALOG}.policy.yaml"), &policy(Some(&secondary)));
        for zone in zones {
            theirs = theirs
                .with(&format!("{zone}.zone"), ZONE)
                .with(&format!("{zone}.policy.yaml"), &policy(Some(&secondary)));
        }
        // The catalog has its policy before it has its first version.
        let mut primary = Kept::start(&theirs, &[zones, &[CATALOG]].concat());
        primary.exchange.produce(&primary.authority, name(CATALOG));
        let pair = Pair { mine, theirs, secondary, primary };
        pair.secondary.follow(CATALOG, &pair.primary, true);
        pair
    }

    /// The secondary's zones besides the catalog.
    fn members(&self) -> Vec<String> {
        let all = self.secondary.authority.all().into_iter();
        let here =
            all.filter(|(zone, info)| info.kind == Kind::Secondary && self.secondary.authority.zone(zone).is_some());
        let mut names: Vec<String> = here.map(|(zone, _)| zone.to_string()).collect();
        names.sort();
        names
    }

    /// The operator of the primary adds a zone.
    async fn add(&self, zone: &str) {
        let text = format!("$ORIGIN {zone}.\n{ZONE}");
        let parsed = gateward_zone::parse_zone(text.as_bytes(), &name(zone), "z", &|_| Err(String::new()));
        let edit = Edit::Replace(Box::new(parsed.expect("a zone")));
        let actor = Actor::new(Door::Api, "test");
        self.primary.authority.apply(Proposal::new(name(zone), edit, actor.clone())).await.expect("it is new");
        let policy = policy(Some(&self.secondary)).into_bytes();
        self.primary.authority.put_policy(&name(zone), policy, PolicyBase::Any, actor, None).await.expect("a policy");
    }

    async fn remove(&self, zone: &str) {
        let removed = self.primary.authority.remove(&name(zone), Base::Any, Actor::new(Door::Api, "test"), None).await;
        removed.expect("nothing speaks against it");
    }
}

/// RFC 9432: zones come and go with the list, their files too.
#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_fills_and_empties_a_folder() {
    let pair = Pair::start(&["a.example"]);
    eventually("the member", || pair.members() == ["a.example."]);
    eventually("its file", || pair.mine.0.join("a.example.zone").exists());
    pair.add("b.example").await;
    eventually("the second", || pair.members() == ["a.example.", "b.example."]);
    pair.remove("a.example").await;
    eventually("the first is gone", || pair.members() == ["b.example."]);
    for file in ["a.example.zone", ".sources/a.example", ".confirmed/a.example"] {
        eventually(file, || !pair.mine.0.join(file).exists());
    }
    // A zone of the same name is another zone, whatever its serial.
    pair.remove("b.example").await;
    pair.add("b.example").await;
    eventually("the zone that began anew", || {
        pair.mine.0.join(".versions/b.example/deleted.zone").exists() && pair.members() == ["b.example."]
    });
    assert_eq!(pair.secondary.serial("b.example"), Some(7));
    // The list is nobody's to change, on both sides.
    for server in [&pair.primary, &pair.secondary] {
        let info = server.authority.info(&name(CATALOG)).expect("it is known");
        assert_eq!(info.kind, Kind::Catalog);
    }
}

/// What was copied stays a copy, and goes on to be followed.
#[tokio::test(flavor = "multi_thread")]
async fn members_outlive_a_restart_as_members() {
    let pair = Pair::start(&["a.example", "b.example"]);
    eventually("both members", || pair.members().len() == 2);
    let Pair { mine, theirs: _theirs, secondary, primary } = pair;
    drop(secondary);
    let (actor, listed) = (Actor::new(Door::Api, "test"), primary.serial(CATALOG));
    primary.authority.remove(&name("b.example"), Base::Any, actor, None).await.expect("nothing speaks against it");
    // Nobody tells the next one, which listens elsewhere.
    eventually("the shorter list", || primary.serial(CATALOG) != listed);
    let again = Kept::start(&mine, &["a.example", "b.example", CATALOG]);
    for zone in ["a.example", "b.example"] {
        assert_eq!(again.serial(zone), Some(7), "it is served at once");
        assert_eq!(again.authority.info(&name(zone)).map(|info| info.kind), Some(Kind::Secondary));
    }
    again.follow(CATALOG, &primary, true);
    eventually("what left meanwhile", || again.serial("b.example").is_none());
    assert!(!mine.0.join("b.example.zone").exists());
    let record = parse_record("late 300 A 192.0.2.9", &name("a.example"), None).expect("a record");
    let edit = Edit::Changes(vec![Change::Add(record)]);
    let proposal = Proposal::new(name("a.example"), edit, Actor::new(Door::Api, "test"));
    primary.authority.apply(proposal).await.expect("nothing speaks against it");
    again.exchange.followers.notified(&name("a.example"), None);
    eventually("a change of a member", || again.serial("a.example") == Some(8));
}

/// A list that loses everything at once is a mistake until somebody says that it is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_becomes_empty_takes_nothing_away() {
    let pair = Pair::start(&["a.example", "b.example"]);
    eventually("both members", || pair.members().len() == 2);
    let before = pair.primary.serial(CATALOG);
    // Together, so that there is one new version of the list.
    let empty = |served: &dyn gateward_zone::ZoneView| Ok(catalog::changes(served, &[]).expect("not broken"));
    let proposal = Proposal::new(name(CATALOG), Edit::Decide(Box::new(empty)), Actor::new(Door::Catalog, ""));
    pair.primary.authority.apply(proposal).await.expect("a change");
    assert_ne!(pair.primary.serial(CATALOG), before);
    eventually("the empty list", || pair.secondary.serial(CATALOG) == pair.primary.serial(CATALOG));
    // The next version is looked at after the empty one: whatever that took away would be gone.
    pair.add("c.example").await;
    eventually("all of them", || pair.members() == ["a.example.", "b.example.", "c.example."]);
    assert!(!pair.mine.0.join(".versions/a.example/deleted.zone").exists());
    // The operator says that it is meant.
    let allow = b"max_deleted_percent: 100\n".to_vec();
    let actor = Actor::new(Door::Api, "test");
    pair.secondary.authority.put_policy(&name(CATALOG), allow, PolicyBase::Any, actor, None).await.expect("a policy");
    let proposal = Proposal::new(name(CATALOG), Edit::Decide(Box::new(empty)), Actor::new(Door::Catalog, ""));
    pair.primary.authority.apply(proposal).await.expect("a change");
    eventually("nothing", || pair.members().is_empty());
}

/// Files of copies are the server's: what others do to them is undone, while it runs and before.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_copies_are_not_for_editing() {
    let mine = Dir::new();
    let secondary = Kept::start(&mine, &[]);
    let dir = Dir::new().with("example.com.zone", ZONE).with("example.com.policy.yaml", &policy(Some(&secondary)));
    let primary = Kept::start(&dir, &["example.com"]);
    secondary.follow("example.com", &primary, false);
    eventually("the first transfer", || secondary.serial("example.com") == Some(7));
    primary.add("new 300 A 192.0.2.9").await;
    eventually("the change", || secondary.serial("example.com") == Some(8));
    let file = mine.0.join("example.com.zone");
    let edit = || {
        let text =
            fs::read_to_string(&file).expect("it is there").replace("192.0.2.1", "192.0.2.66").replace(" 7 ", " 99 ");
        fs::write(&file, text).expect("it is written");
    };
    let reload = |server: &Kept| {
        let authority = Arc::clone(&server.authority);
        let reload = std::thread::spawn(move || authority.reload(&name("example.com")));
        reload.join().expect("no panic").problems
    };
    assert_eq!(reload(&secondary), [], "the server's own writing is no edit");
    for undo in ["edited", "removed"] {
        if undo == "edited" {
            edit();
        } else {
            fs::remove_file(&file).expect("it is there");
        }
        let problems = reload(&secondary);
        assert_eq!(problems.iter().map(|problem| problem.rule).collect::<Vec<_>>(), ["copy"], "{undo}");
        assert_eq!(secondary.data("example.com", "www.example.com", Rtype::A), ["192.0.2.1"]);
        assert!(fs::read_to_string(&file).is_ok_and(|text| text.contains("192.0.2.9")), "it is written anew");
        assert_eq!(reload(&secondary), []);
    }
    drop(secondary);
    edit();
    let shared_with_nobody = Kept::prepared(&mine, &["example.com"]);
    assert_eq!(shared_with_nobody.data("example.com", "www.example.com", Rtype::A), ["192.0.2.1"]);
    assert_eq!(shared_with_nobody.serial("example.com"), Some(8));
}
