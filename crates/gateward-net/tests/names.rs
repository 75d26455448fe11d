//! Names over the wire, with a DNS server that follows a script: short names, hosts of SRV records, and names that
//! nobody wants any more.

use gateward_net::dns::{Answer, DnsSettings, Failure, Name, Names};
use gateward_testkit::dns::{Kind, Manner};
use gateward_testkit::{DnsServer, TempDir};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Settings to ask `dns`, with short names completed by these lines of resolv.conf.
fn settings(dns: &DnsServer, folder: &TempDir, resolv_conf: &str) -> DnsSettings {
    let file = folder.path().join("resolv.conf");
    std::fs::write(&file, resolv_conf).expect("the folder is the test's");
    DnsSettings {
        servers: vec![dns.addr()],
        resolv_conf: file,
        hosts_file: folder.path().join("hosts"),
        error_ttl: Duration::from_millis(100),
        ..DnsSettings::default()
    }
}

fn start(settings: DnsSettings) -> Arc<Names> {
    Names::new(settings, Handle::current()).expect("the settings can be used")
}

/// Where `name` leads.
fn endpoints(answer: &Arc<Answer>) -> Vec<String> {
    let text = |it: &gateward_net::dns::Endpoint| {
        format!("{}:{} {}", it.ip, it.port.map_or(0, u16::from), it.weight.map_or(0, u16::from))
    };
    answer.endpoints().iter().map(text).collect()
}

/// Wait until `name` leads elsewhere than to `before`.
async fn changes(name: &Name, before: &Arc<Answer>) -> Arc<Answer> {
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match name.answer() {
                Some(answer) if !Arc::ptr_eq(&answer, before) => return answer,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
    .expect("the answer changes")
}

#[tokio::test]
async fn short_names_are_completed_and_what_answered_is_remembered() {
    let (dns, folder) = (DnsServer::start(), TempDir::new().expect("there is room"));
    dns.addresses("api.two.test", 0, &["10.0.0.1"]);
    let names = start(settings(&dns, &folder, "search one.test two.test\noptions ndots:2\n"));
    let name = names.name("api").expect("there is room");
    let first = name.wait().await.expect("it is kept");
    assert_eq!(endpoints(&first), ["10.0.0.1:0 0"]);
    assert_eq!(dns.queries("api.one.test", Kind::A), 1);
    dns.addresses("api.two.test", 0, &["10.0.0.2"]);
    name.want();
    assert_eq!(endpoints(&changes(&name, &first).await), ["10.0.0.2:0 0"]);
    assert_eq!(dns.queries("api.one.test", Kind::A), 1, "asked for once only");
    assert_eq!(dns.queries("api", Kind::A), 0);
}

/// That the other candidates do not exist must not hide that the right one could not be asked for.
#[tokio::test]
async fn a_failure_of_one_candidate_is_a_failure_of_the_name() {
    let (dns, folder) = (DnsServer::start(), TempDir::new().expect("there is room"));
    for kind in [Kind::A, Kind::Srv] {
        dns.behave_for("api.one.test", kind, Manner::Code(2));
    }
    let names = start(settings(&dns, &folder, "search one.test two.test\n"));
    let name = names.name("api").expect("there is room");
    assert_eq!(*name.wait().await.expect("it is kept"), Answer::Failed(Failure::Failed));
}

#[tokio::test]
async fn a_host_of_srv_records_that_cannot_be_asked_for_keeps_its_addresses() {
    let (dns, folder) = (DnsServer::start(), TempDir::new().expect("there is room"));
    dns.services("srv.test", 0, &[(1, 6, 81, "one.test"), (1, 4, 82, "two.test"), (1, 2, 83, "one.test")]);
    dns.addresses("one.test", 0, &["10.0.0.1", "10.0.0.2"]);
    dns.addresses("two.test", 0, &["10.0.0.3"]);
    let names = start(settings(&dns, &folder, ""));
    names.hold(["srv.test"]);
    let name = names.name("srv.test").expect("it is held");
    let first = name.wait().await.expect("it is kept");
    let one = ["10.0.0.1:81 3", "10.0.0.1:83 1", "10.0.0.2:81 3", "10.0.0.2:83 1"];
    assert_eq!(endpoints(&first), [&one[..], &["10.0.0.3:82 4"]].concat());
    dns.behave_for("one.test", Kind::A, Manner::Code(5));
    dns.addresses("two.test", 0, &["10.0.0.4"]);
    let second = changes(&name, &first).await;
    assert_eq!(endpoints(&second), [&one[..], &["10.0.0.4:82 4"]].concat());
    // That it has none is another matter.
    dns.behave_for("one.test", Kind::A, Manner::Answer);
    dns.remove("one.test");
    assert_eq!(endpoints(&changes(&name, &second).await), ["10.0.0.4:82 4"]);
}

#[tokio::test]
async fn a_name_that_nobody_wants_is_forgotten_unless_it_is_held() {
    let (dns, folder) = (DnsServer::start(), TempDir::new().expect("there is room"));
    for name in ["held.test", "wanted.test", "unwanted.test"] {
        dns.addresses(name, 0, &["10.0.0.1"]);
    }
    let names = start(settings(&dns, &folder, ""));
    names.hold(["held.test"]);
    let [wanted, unwanted] = ["wanted.test", "unwanted.test"].map(|host| names.name(host).expect("there is room"));
    assert!(wanted.wait().await.is_some() && unwanted.wait().await.is_some());
    tokio::time::timeout(Duration::from_secs(20), async {
        while !unwanted.is_gone() {
            wanted.want();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is forgotten");
    assert!(!wanted.is_gone() && names.counts().fresh == 2);
    let again = names.name("unwanted.test").expect("there is room");
    assert!(!Arc::ptr_eq(&again, &unwanted) && again.wait().await.is_some());
    assert!(unwanted.wait().await.is_some(), "what it led to is still known to who holds it");
    // The configuration gives it up.
    names.hold([]);
    let held = names.name("held.test").expect("it is known");
    tokio::time::timeout(Duration::from_secs(20), async {
        while !held.is_gone() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is forgotten");
}

/// A failure that nobody asks about is not asked for again and again; who asks then waits for a new answer.
#[tokio::test]
async fn a_failure_is_over_after_its_time() {
    let (dns, folder) = (DnsServer::start(), TempDir::new().expect("there is room"));
    let mut settings = settings(&dns, &folder, "");
    settings.not_found_ttl = Duration::from_millis(100);
    let names = start(settings);
    names.hold(["late.test"]);
    let name = names.name("late.test").expect("it is held");
    assert_eq!(*name.wait().await.expect("it is kept"), Answer::Failed(Failure::NotFound));
    tokio::time::timeout(Duration::from_secs(20), async {
        while name.answer().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the failure is forgotten");
    let asked = dns.queries("late.test", Kind::A);
    dns.addresses("late.test", 60, &["10.0.0.1"]);
    assert_eq!(endpoints(&name.wait().await.expect("it is kept")), ["10.0.0.1:0 0"]);
    assert_eq!(dns.queries("late.test", Kind::A), asked + 1);
}
