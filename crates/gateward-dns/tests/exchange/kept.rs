//! Servers with a folder of zones: what others change or send is durable, and goes on to their secondaries.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gateward_dns::answer::Settings;
use gateward_dns::authority::{Actor, Authority, Door, Edit, Kind, Options, Proposal};
use gateward_dns::catalog::{self, Member};
use gateward_dns::cookies::CookieKeys;
use gateward_dns::folder::Folder;
use gateward_dns::secondary::Primary;
use gateward_dns::server::{self, Server, Shared};
use gateward_dns::service::{Exchange, Followed};
use gateward_dns::transfer::Limits;
use gateward_dns::tsig::{Algorithm, Key, Keys};
use gateward_zone::{Change, Rtype, Soa, ZoneText, ZoneView as _, parse_record, rdata_to_text};

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
    fn start(dir: &Dir, origins: &[&str]) -> Self {
        let shared = Arc::new(Shared::new(Settings::default(), CookieKeys::new([1; 16], None)));
        let folder = Folder::open(&dir.0).expect("it is there");
        let authority = Authority::new(folder, Arc::clone(&shared.zones), Options::default()).expect("a folder");
        let prepared = origins.iter().map(|origin| {
            let (prepared, loaded) = authority.prepare(&name(origin));
            assert!(loaded.problems.iter().all(|problem| !problem.is_error()), "{:?}", loaded.problems);
            prepared
        });
        authority.adopt(prepared.collect());
        let key = |(key, algorithm): (&str, Algorithm)| Key::from_base64(name(key), algorithm, SECRET).expect("a key");
        let keys: Arc<Keys> = Arc::new(KEYS.map(key).into_iter().collect());
        let exchange = Exchange::start(&shared, &authority, Arc::new(move || Arc::clone(&keys)), Limits::default());
        let options = server::Options {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            tls: None,
            workers: 1,
            rate_limit: 0,
            slip: 0,
            exempt: Vec::new(),
            log: None,
        };
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
    let primary = Kept::start(&dir, &["example.com"]);
    primary.add("late 300 A 192.0.2.9").await;
    secondary.follow("example.com", &primary, false);
    eventually("what it missed", || secondary.serial("example.com") == Some(13));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_fills_and_empties_a_folder() {
    let mine = Dir::new();
    let secondary = Kept::start(&mine, &[]);
    let timers =
        Soa { mname: name("."), rname: name("."), serial: 0, refresh: 60, retry: 10, expire: 86_400, minimum: 0 };
    let listed = name("catalog.invalid");
    let records = |serial, members: &[Member]| catalog::records(&listed, serial, &timers, members).expect("not broken");
    let text = gateward_zone::render_zone(&ZoneText::from_records(listed.clone(), records(1, &[])));
    let dir = Dir::new()
        .with("example.com.zone", ZONE)
        .with("example.com.policy.yaml", &policy(Some(&secondary)))
        .with("catalog.invalid.zone", &text)
        .with("catalog.invalid.policy.yaml", &policy(Some(&secondary)));
    let primary = Kept::start(&dir, &["example.com", "catalog.invalid"]);
    secondary.follow("catalog.invalid", &primary, true);
    eventually("the catalog", || secondary.serial("catalog.invalid") == Some(1));
    let list = |members: Vec<Member>| {
        let served = primary.authority.zone(&listed).expect("it is served");
        let changes = catalog::changes(&*served, &members).expect("not broken");
        // The server's own list, not somebody's change of it.
        let proposal = Proposal::new(listed.clone(), Edit::Changes(changes), Actor::new(Door::Catalog, ""));
        primary.authority.apply(proposal)
    };
    list(vec![Member::new(name("example.com"), 0)]).await.expect("a change");
    eventually("the member", || secondary.serial("example.com") == Some(7));
    eventually("its file", || mine.0.join("example.com.zone").exists());
    list(Vec::new()).await.expect("a change");
    eventually("no member", || secondary.authority.zone(&name("example.com")).is_none());
    eventually("no file", || !mine.0.join("example.com.zone").exists());
}
