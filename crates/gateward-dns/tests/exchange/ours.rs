//! Two of our servers with each other.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gateward_dns::catalog::{self, Member};
use gateward_dns::tsig::{Algorithm, Key, sign_request};
use gateward_dns::wire::{CLASS_IN, Header, Writer, flags};
use gateward_zone::{Rtype, Soa, ZoneView as _};

use crate::memory::{SECRET, TestServer, eventually, name, zone};

const LINES: &[&str] = &[
    "@ 300 SOA ns hostmaster 7 3600 600 86400 300",
    "@ 300 NS ns",
    "ns 300 A 192.0.2.53",
    "www 300 A 192.0.2.1",
    "a 300 TXT a",
    "b 300 TXT b",
    "c 300 TXT c",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_follows_its_primary() {
    let primary = TestServer::start(vec![zone("example.com", LINES)]);
    let secondary = TestServer::start(Vec::new());
    primary.tell(secondary.address(), Some("sha256.key"));
    secondary.follow("example.com", primary.primary("sha256.key"), false);
    eventually("the first transfer", || secondary.serial("example.com") == Some(7));
    assert_eq!(secondary.served("example.com").map(|zone| zone.record_count()), Some(LINES.len()));
    // A change arrives because the primary tells of it: the refresh time is an hour.
    primary.add("example.com", "new 300 A 192.0.2.9");
    eventually("the change", || secondary.serial("example.com") == Some(8));
    assert_eq!(secondary.data("example.com", "new.example.com", Rtype::A), ["192.0.2.9"]);
    assert_eq!(secondary.arrivals(), ["whole", "changes"]);
    // Many changes, one after the other.
    for index in 0..20 {
        primary.add("example.com", &format!("many 300 TXT {index}"));
    }
    eventually("all changes", || secondary.serial("example.com") == Some(28));
    assert_eq!(secondary.data("example.com", "many.example.com", Rtype::TXT).len(), 20);
    assert!(secondary.arrivals().len() < 12, "a storm of changes is told in few messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_have_the_key_gets_nothing() {
    let primary = TestServer::start(vec![zone("example.com", LINES)]);
    let stranger = TestServer::start(Vec::new());
    let without_key = gateward_dns::secondary::Primary { address: primary.address(), key: None };
    stranger.follow("example.com", without_key, false);
    let other_key = gateward_dns::secondary::Primary { address: primary.address(), key: Some(name("unknown.key")) };
    stranger.follow("example.org", other_key, false);
    let friend = TestServer::start(Vec::new());
    friend.follow("example.com", primary.primary("sha512.key"), false);
    eventually("the friend's transfer", || friend.serial("example.com") == Some(7));
    assert_eq!(stranger.serial("example.com"), None);
}

/// RFC 1035, 3.3.13: a primary that keeps its secondary waiting does not keep the zone alive there.
#[tokio::test(flavor = "multi_thread")]
async fn a_zone_expires_while_its_primary_is_silent() {
    let lines = ["@ 300 SOA ns hostmaster 7 3600 600 120 300", "@ 300 NS ns", "ns 300 A 192.0.2.53"];
    // Nobody reads what comes here, and the wait for an answer is longer than the zone's time.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let primary = gateward_dns::secondary::Primary { address: silent.local_addr().expect("it is bound"), key: None };
    let secondary = TestServer::start(vec![zone("example.com", &lines), zone("example.org", &lines)]);
    secondary.unconfirmed_for(Duration::from_secs(118));
    secondary.follow("example.com", primary.clone(), false);
    eventually("the end of its time", || secondary.served("example.com").is_none());
    // What was over before anybody followed it is not served meanwhile.
    secondary.unconfirmed_for(Duration::from_secs(121));
    secondary.follow("example.org", primary, false);
    assert!(secondary.served("example.org").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_zone_is_transferred() {
    let mut lines: Vec<String> = LINES.iter().map(|line| (*line).to_owned()).collect();
    lines.extend((0..50_000).map(|index| format!("host{index} 300 A 192.0.2.{}", index % 256)));
    let large = zone("example.com", &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let primary = TestServer::start(vec![large]);
    let secondary = TestServer::start(Vec::new());
    secondary.follow("example.com", primary.primary("sha256.key"), false);
    eventually("the transfer", || {
        secondary.served("example.com").is_some_and(|zone| zone.record_count() == lines.len())
    });
}

/// RFC 9432: a new zone reaches the secondary by itself, and goes again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_brings_zones_and_takes_them_away() {
    let timers =
        Soa { mname: name("."), rname: name("."), serial: 0, refresh: 60, retry: 10, expire: 86_400, minimum: 0 };
    let records = catalog::records(&name("catalog.invalid"), 1, &timers, &[]).expect("not broken");
    let listed = gateward_dns::store::Zone::build(&name("catalog.invalid"), records).expect("a zone");
    let primary = TestServer::start(vec![listed, zone("example.com", LINES), zone("example.org", LINES)]);
    let secondary = TestServer::start(vec![zone("own.example", LINES)]);
    primary.tell(secondary.address(), Some("sha256.key"));
    secondary.follow("catalog.invalid", primary.primary("sha256.key"), true);
    eventually("the catalog", || secondary.serial("catalog.invalid") == Some(1));
    let list = |zones: &[(&str, u32)]| {
        let members: Vec<Member> =
            zones.iter().map(|(zone, generation)| Member::new(name(zone), *generation)).collect();
        primary.change("catalog.invalid", |served| catalog::changes(served, &members).expect("not broken"));
    };
    list(&[("example.com", 0), ("example.org", 0), ("own.example", 0)]);
    eventually("both zones", || {
        secondary.serial("example.com") == Some(7) && secondary.serial("example.org") == Some(7)
    });
    // A zone of its own is left alone.
    primary.add("example.com", "new 300 A 192.0.2.9");
    eventually("a change of a member", || secondary.serial("example.com") == Some(8));
    list(&[("example.com", 1), ("own.example", 0)]);
    eventually("the zone that is listed no more", || secondary.served("example.org").is_none());
    eventually("the zone that began anew", || secondary.serial("example.com") == Some(8));
    list(&[]);
    eventually("no member", || secondary.served("example.com").is_none());
    assert_eq!(secondary.serial("own.example"), Some(7));
}

/// RFC 8945, 5.3: an answer that fits a datagram only without its signature is cut, with TC.
#[tokio::test(flavor = "multi_thread")]
async fn a_signed_answer_is_no_longer_than_its_asker_can_take() {
    let mut lines: Vec<String> = LINES.iter().map(|line| (*line).to_owned()).collect();
    // 33 octets each: all of them make an answer of 498.
    lines.extend((0..14).map(|index| format!("nearly 300 TXT full-of-text-{index:07}")));
    let server = TestServer::start(vec![zone("example.com", &lines.iter().map(String::as_str).collect::<Vec<_>>())]);
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let key = Arc::new(Key::from_base64(name("sha256.key"), Algorithm::HmacSha256, SECRET).expect("a key"));
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    socket.connect(server.address()).await.expect("loopback");
    let mut lengths = Vec::new();
    for signed in [false, true] {
        let mut query = Writer::new(7, 0, 512);
        query.question(&name("nearly.example.com"), Rtype::TXT, CLASS_IN);
        let mut query = query.finish();
        let session = signed.then(|| sign_request(&key, &mut query, now()));
        socket.send(&query).await.expect("sent");
        let mut answer = [0; 4096];
        let received = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut answer)).await;
        let len = received.expect("in time").expect("an answer");
        if let Some(mut session) = session {
            session.verify(&answer[..len], now()).expect("the right signature");
        }
        let header = Header::read(&answer[..len]).expect("a header");
        lengths.push((len <= 512, header.counts[1], header.flags & flags::TC != 0));
    }
    assert_eq!(lengths, [(true, 14, false), (true, 0, true)]);
}
