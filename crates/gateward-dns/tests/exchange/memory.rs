//! A server whose zones are kept in memory, for the tests of what servers say to each other.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use gateward_dns::answer::Settings;
use gateward_dns::cookies::CookieKeys;
use gateward_dns::secondary::Primary;
use gateward_dns::server::slow::Slow;
use gateward_dns::server::{Options, Server, Shared};
use gateward_dns::service::{
    Content, Followed, Followers, Herald, Keeper, Later, MakeChange, Permits, Requester, Service,
};
use gateward_dns::sources::Provenance;
use gateward_dns::store::Zone;
use gateward_dns::transfer::{Difference, Limits};
use gateward_dns::tsig::{Algorithm, Key, Keys};
use gateward_dns::update::Refusal;
use gateward_zone::{Change, Name, Rcode, Record, Rtype, ZoneView, parse_record};

pub(crate) const SECRET: &str = "Z2F0ZXdhcmQtdGVzdC1zZWNyZXQtMDEyMzQ1Njc4OQ==";

/// All algorithms, by the names of the keys in the tests.
pub(crate) const KEYS: [(&str, Algorithm); 6] = [
    ("md5.key", Algorithm::HmacMd5),
    ("sha1.key", Algorithm::HmacSha1),
    ("sha224.key", Algorithm::HmacSha224),
    ("sha256.key", Algorithm::HmacSha256),
    ("sha384.key", Algorithm::HmacSha384),
    ("sha512.key", Algorithm::HmacSha512),
];

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect(text)
}

/// A zone from lines.
pub(crate) fn zone(origin: &str, lines: &[&str]) -> Zone {
    let origin = name(origin);
    let records = lines.iter().map(|line| parse_record(line, &origin, None).expect(line)).collect();
    Zone::build(&origin, records).expect("a zone")
}

struct Memory {
    shared: Arc<Shared>,
    keys: Arc<Keys>,
    herald: Arc<Herald>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    history: HashMap<Name, Vec<Difference>>,
    secondaries: Vec<(SocketAddr, Option<Name>)>,
    /// How secondary zones came: `whole`, `changes`.
    arrivals: Vec<&'static str>,
    requesters: Vec<Requester>,
    sources: BTreeMap<Name, Arc<Provenance>>,
    /// For how long secondary zones have been without confirmation.
    unconfirmed: Option<Duration>,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }

    fn change(
        &self,
        zone: &Name,
        make: impl FnOnce(&dyn ZoneView) -> Result<Vec<Change>, Refusal>,
    ) -> Result<(), Refusal> {
        let mut state = self.state();
        let served = self.shared.zones.map().slot(zone).and_then(|slot| slot.zone());
        let served = served.ok_or_else(|| Refusal::new(Rcode::SERVFAIL, "no version"))?;
        let changes = make(&*served)?;
        if changes.is_empty() {
            return Ok(());
        }
        let next = served.with(&changes).map_err(|error| Refusal::new(Rcode::REFUSED, error.to_string()))?;
        let difference = Difference::from_changes(zone, &changes).expect("changes raise the serial");
        state.history.entry(zone.clone()).or_default().push(difference);
        self.shared.zones.put(Arc::new(next));
        self.herald.changed(zone);
        Ok(())
    }
}

impl Keeper for Memory {
    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys)
    }

    fn may_update(&self, _: &Name, key: &Name) -> Option<Permits> {
        // One key is for challenges only, as cert-manager's should be.
        if *key == name("md5.key") {
            return Some(Box::new(|owner, rtype| {
                rtype == Rtype::TXT && owner.first_label() == Some(b"_acme-challenge")
            }));
        }
        Some(Box::new(|_, _| true))
    }

    fn ttl(&self, _: &Name, _: Rtype, ttl: u32) -> u32 {
        ttl.max(30)
    }

    fn may_transfer(&self, _: &Name, _: IpAddr, key: Option<&Name>) -> bool {
        key.is_some()
    }

    fn secondaries(&self, _: &Name) -> Vec<(SocketAddr, Option<Name>)> {
        self.state().secondaries.clone()
    }

    fn history(&self, zone: &Name, _: u32) -> Later<Vec<Difference>> {
        let history = self.state().history.get(zone).cloned().unwrap_or_default();
        Box::pin(std::future::ready(history))
    }

    fn update(&self, zone: &Name, make: MakeChange, requester: Requester) -> Later<Result<(), Refusal>> {
        let result = self.change(zone, make);
        self.state().requesters.push(requester);
        Box::pin(std::future::ready(result))
    }

    fn replace(&self, zone: &Name, content: Content, _: SocketAddr) -> Later<Result<(), String>> {
        let served = self.shared.zones.map().slot(zone).and_then(|slot| slot.zone());
        let (how, next) = match content {
            Content::Whole(records) => ("whole", Zone::build(zone, records)),
            Content::Changes(changes) => ("changes", served.expect("there is a version").with(&changes)),
        };
        self.state().arrivals.push(how);
        let result = next.map_err(|error| error.to_string()).map(|next| self.shared.zones.put(Arc::new(next)));
        Box::pin(std::future::ready(result))
    }

    fn confirmed(&self, _: &Name) {}

    fn expired(&self, zone: &Name) {
        self.shared.zones.put_empty(zone);
    }

    fn joined(&self, zone: &Name) {
        self.shared.zones.put_empty(zone);
    }

    fn left(&self, zone: &Name) -> Later<Result<(), String>> {
        self.shared.zones.remove(zone);
        self.state().sources.remove(zone);
        Box::pin(std::future::ready(Ok(())))
    }

    fn following(&self, zone: &Name, provenance: Provenance) -> Later<Result<(), String>> {
        self.state().sources.insert(zone.clone(), Arc::new(provenance));
        Box::pin(std::future::ready(Ok(())))
    }

    fn sources(&self) -> BTreeMap<Name, Arc<Provenance>> {
        self.state().sources.clone()
    }

    fn may_leave(&self, _: &Name, _: usize, _: usize) -> Result<(), String> {
        Ok(())
    }

    fn unconfirmed_for(&self, _: &Name) -> Option<Duration> {
        self.state().unconfirmed
    }
}

/// A running server.
pub(crate) struct TestServer {
    memory: Arc<Memory>,
    pub(crate) followers: Arc<Followers>,
    server: Server,
    herald: tokio::task::JoinHandle<()>,
}

impl TestServer {
    /// A server with these zones. Called within a runtime.
    pub(crate) fn start(zones: Vec<Zone>) -> Self {
        let shared = Arc::new(Shared::new(Settings::default(), CookieKeys::new([1; 16], None)));
        shared.zones.put_all(zones.into_iter().map(Arc::new).collect());
        let key = |(key, algorithm): (&str, Algorithm)| Key::from_base64(name(key), algorithm, SECRET).expect("a key");
        let herald = Arc::new(Herald::default());
        let memory = Arc::new(Memory {
            shared: Arc::clone(&shared),
            keys: Arc::new(KEYS.map(key).into_iter().collect()),
            herald: Arc::clone(&herald),
            state: Mutex::default(),
        });
        let keeper: Arc<dyn Keeper> = Arc::<Memory>::clone(&memory);
        let followers = Followers::new(Arc::clone(&shared), Arc::clone(&keeper), Limits::default());
        let service = Service::new(Arc::clone(&shared), Arc::clone(&keeper), Arc::clone(&followers));
        let slow: Arc<dyn Slow> = Arc::new(service);
        let options = Options { listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))], ..Options::default() };
        let server = Server::start(Arc::clone(&shared), &options, &slow).expect("ports are free");
        let herald = tokio::spawn(async move {
            herald.run(shared, keeper).await.expect("sockets can be had");
        });
        TestServer { memory, followers, server, herald }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    /// As a primary, with a key.
    pub(crate) fn primary(&self, key: &str) -> Primary {
        Primary { address: self.address(), key: Some(name(key)) }
    }

    pub(crate) fn follow(&self, zone: &str, primary: Primary, is_catalog: bool) {
        self.followers.follow(&Followed { zone: name(zone), primaries: vec![primary], is_catalog });
    }

    /// Its secondary zones were last confirmed so long ago.
    pub(crate) fn unconfirmed_for(&self, age: Duration) {
        self.memory.state().unconfirmed = Some(age);
    }

    pub(crate) fn tell(&self, secondary: SocketAddr, key: Option<&str>) {
        self.memory.state().secondaries.push((secondary, key.map(name)));
    }

    /// Changes a zone as an update would.
    pub(crate) fn change(&self, zone: &str, make: impl FnOnce(&dyn ZoneView) -> Vec<Change>) {
        self.memory.change(&name(zone), |served| Ok(make(served))).expect("a change");
    }

    /// Adds a record and raises the serial.
    pub(crate) fn add(&self, origin: &str, line: &str) {
        self.change(origin, |served| {
            let soa = |serial| {
                let set = served.set(served.origin(), Rtype::SOA).expect("a zone has one");
                let rdata = gateward_zone::with_serial(&set.data[0], serial).expect("SOA data");
                Record { owner: served.origin().clone(), rtype: Rtype::SOA, ttl: set.ttl, rdata }
            };
            let serial = served.serial();
            let record = parse_record(line, served.origin(), None).expect(line);
            vec![Change::Remove(soa(serial)), Change::Add(soa(serial + 1)), Change::Add(record)]
        });
    }

    pub(crate) fn served(&self, zone: &str) -> Option<Arc<Zone>> {
        self.memory.shared.zones.map().slot(&name(zone)).and_then(|slot| slot.zone())
    }

    pub(crate) fn serial(&self, zone: &str) -> Option<u32> {
        self.served(zone).map(|zone| zone.serial())
    }

    /// The data of a set, as text.
    pub(crate) fn data(&self, zone: &str, owner: &str, rtype: Rtype) -> Vec<String> {
        let set = self.served(zone).and_then(|zone| zone.set(&name(owner), rtype));
        let set = set.into_iter().flat_map(|set| set.data);
        set.map(|rdata| gateward_zone::rdata_to_text(rtype, &rdata)).collect()
    }

    pub(crate) fn arrivals(&self) -> Vec<&'static str> {
        self.memory.state().arrivals.clone()
    }

    pub(crate) fn last_requester(&self) -> Option<Requester> {
        self.memory.state().requesters.last().cloned()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.herald.abort();
    }
}

/// Waits until `condition` holds. Called from a test's own thread, beside the runtime's.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "the thread is the test's own")]
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
