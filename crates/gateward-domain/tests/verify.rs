//! Verification against name servers that answer over UDP and TCP as Gateward's do: what is right is found right, and
//! every kind of mistake is found where it is.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateward_dns::answer::{Context, Settings, Transport, Verdict, respond};
use gateward_dns::cookies::CookieKeys;
use gateward_dns::store::{Zone, Zones};
use gateward_domain::provider::{By, Fleet, MemoryProvider, Provider};
use gateward_domain::verify::{Client, Outcome, Verification, Verifier};
use gateward_domain::{Declaration, Desired};
use gateward_zone::{Name, Record, Rtype, parse_record};

/// A domain whose root, environment and region are served by different servers.
const TEXT: &str = "\
version: 1
root: example.com
owner: platform
served_by: core
name_servers:
  core:
    control: http://127.0.0.1:1
    servers: [{ name: ns1.example.com, addresses: [192.0.2.1], query: CORE }]
  prod:
    control: http://127.0.0.1:2
    servers: [{ name: ns1.prod.example.com, addresses: [192.0.2.2, '2001:db8::2'], query: PROD }]
  region:
    control: http://127.0.0.1:3
    servers:
      - { name: ns1.use1.prod.example.com, addresses: [192.0.2.3], query: REGION1 }
      - { name: ns2.use1.prod.example.com, addresses: [192.0.2.4], query: REGION2 }
environments:
  prod:
    served_by: prod
    regions:
      use1:
        served_by: region
        services:
          web: { owner: web-team, runtime: static, records: { '@': { A: 192.0.2.80 }, big: { TXT: BIG } } }
          api: { owner: api-team, runtime: kubernetes }
";

/// A name server whose zones can be changed while it runs.
struct NameServer {
    address: SocketAddr,
    zones: Arc<Zones>,
    records: Mutex<Vec<(Name, Vec<Record>)>>,
}

impl NameServer {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let socket = UdpSocket::bind(address).expect("the same port for datagrams");
        let zones = Arc::new(Zones::new());
        let shared = zones.clone();
        std::thread::spawn(move || datagrams(&socket, &shared));
        let shared = zones.clone();
        std::thread::spawn(move || streams(&listener, &shared));
        NameServer { address, zones, records: Mutex::default() }
    }

    fn serve(&self, origin: &Name, records: Vec<Record>) {
        let zone = Zone::build(origin, records.clone()).expect("a zone");
        self.zones.put(Arc::new(zone));
        let mut all = self.records.lock().expect("one at a time");
        all.retain(|(other, _)| other != origin);
        all.push((origin.clone(), records));
    }

    /// Serves a zone with some of its records changed.
    fn edit(&self, origin: &str, edit: impl Fn(&mut Vec<Record>)) {
        let origin = name(origin);
        let all = self.records.lock().expect("one at a time").clone();
        let (_, mut records) = all.into_iter().find(|(other, _)| *other == origin).expect("a zone");
        edit(&mut records);
        self.serve(&origin, records);
    }
}

fn answer(zones: &Zones, message: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let mut out = vec![0; 65_535];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let (settings, cookies) = (Settings::default(), CookieKeys::new([7; 16], None));
    let zones = zones.map();
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let context = Context { zones: &zones, settings: &settings, cookies: &cookies, now, client, transport, room: 0 };
    match respond(&context, message, &mut out) {
        Verdict::Reply(reply) => Some(out[..reply.len].to_vec()),
        Verdict::Silent | Verdict::Elsewhere => None,
    }
}

fn datagrams(socket: &UdpSocket, zones: &Zones) {
    let mut buffer = [0; 4096];
    while let Ok((len, from)) = socket.recv_from(&mut buffer) {
        if let Some(reply) = answer(zones, &buffer[..len], Transport::Udp) {
            let _ = socket.send_to(&reply, from);
        }
    }
}

fn streams(listener: &TcpListener, zones: &Zones) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut len = [0; 2];
        if stream.read_exact(&mut len).is_err() {
            continue;
        }
        let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
        if stream.read_exact(&mut message).is_ok()
            && let Some(reply) = answer(zones, &message, Transport::Tcp)
        {
            let len = u16::try_from(reply.len()).expect("a message");
            let _ = stream.write_all(&[&len.to_be_bytes(), &reply[..]].concat());
        }
    }
}

struct World {
    declaration: Declaration,
    core: NameServer,
    prod: NameServer,
    region: [NameServer; 2],
}

impl World {
    /// Everything as declared.
    fn new() -> Self {
        let (core, prod) = (NameServer::start(), NameServer::start());
        let region = [NameServer::start(), NameServer::start()];
        let text = TEXT
            .replace("CORE", &core.address.to_string())
            .replace("PROD", &prod.address.to_string())
            .replace("REGION1", &region[0].address.to_string())
            .replace("REGION2", &region[1].address.to_string())
            .replace("BIG", &"b".repeat(3_000));
        let declaration = Declaration::read(text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"));
        let world = World { declaration, core, prod, region };
        for zone in &Desired::of(&world.declaration).zones {
            let records: Vec<Record> = zone.target(&[]).into_iter().collect();
            for server in world.servers(&zone.origin) {
                server.serve(&zone.origin, records.clone());
            }
        }
        world
    }

    fn servers(&self, origin: &Name) -> Vec<&NameServer> {
        match origin.label_count() {
            2 => vec![&self.core],
            3 => vec![&self.prod],
            _ => self.region.iter().collect(),
        }
    }

    fn verify(&self) -> Verification {
        let verifier = Verifier { client: Client { timeout: Duration::from_millis(500) }, ipv4_only: true };
        verifier.verify(&self.declaration, &Fleet::new())
    }

    /// What is wrong, as `ZONE CHECK: DETAIL`.
    fn wrong(&self) -> Vec<String> {
        let verification = self.verify();
        let failed = verification.checks.iter().filter(|check| check.outcome == Outcome::Failed);
        failed.map(|check| format!("{} {}: {}", check.zone, check.check, check.detail)).collect()
    }
}

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

fn record(text: &str) -> Record {
    parse_record(text, &Name::root(), None).expect(text)
}

#[test]
fn a_domain_as_declared_is_right() {
    let world = World::new();
    let verification = world.verify();
    assert!(verification.is_right(), "{}", verification.to_text());
    let detail = |check: &str, subject: &str| {
        let found = verification.checks.iter().find(|one| one.check == check && one.subject.starts_with(subject));
        found.unwrap_or_else(|| panic!("no {check} of {subject}\n{}", verification.to_text())).detail.clone()
    };
    assert_eq!(
        detail("service", "web.use1.prod.example.com. A"),
        "1 records, by example.com. -> prod.example.com. -> use1.prod.example.com."
    );
    // Too large for a datagram.
    assert!(detail("service", "big.web.use1.prod.example.com. TXT").starts_with("1 records"));
    assert_eq!(detail("glue", "ns1.example.com."), "2 addresses, as declared");
    assert_eq!(detail("service", "api."), "no address yet; external-dns registers it");
    let warnings = verification.checks.iter().filter(|check| check.outcome == Outcome::Warning).count();
    assert_eq!(warnings, 1);
    assert!(verification.to_text().ends_with("1 warnings, 0 unknown, 0 wrong\n"));
    for server in &world.region {
        server.edit("use1.prod.example.com", |records| {
            records.push(record("api.use1.prod.example.com. 60 IN A 10.0.0.1"));
        });
    }
    assert!(world.verify().checks.iter().all(|check| check.outcome == Outcome::Ok));
}

#[test]
fn a_missing_delegation_is_found() {
    let world = World::new();
    world.core.edit("example.com", |records| {
        records.retain(|record| record.rtype != Rtype::NS || record.owner == name("example.com"));
    });
    let wrong = world.wrong();
    assert!(wrong.iter().any(|line| line.starts_with("prod.example.com. delegation: ")), "{wrong:#?}");
    assert!(wrong.iter().any(|line| line.starts_with("use1.prod.example.com. service: ")), "{wrong:#?}");
}

#[test]
fn a_delegation_to_others_is_found() {
    let world = World::new();
    world.prod.edit("prod.example.com", |records| {
        records
            .retain(|one| one.rtype != Rtype::NS || one.rdata.as_wire() != name("ns2.use1.prod.example.com").as_wire());
        records.push(record("use1.prod.example.com. 3600 IN NS old.example.net."));
    });
    assert_eq!(
        world.wrong(),
        [
            "use1.prod.example.com. delegation: missing: ns2.use1.prod.example.com.; not declared: old.example.net.",
            "use1.prod.example.com. glue: ns2.use1.prod.example.com.: none; declared: 192.0.2.4"
        ]
    );
}

#[test]
fn wrong_glue_is_found() {
    let world = World::new();
    world.core.edit("example.com", |records| {
        records.retain(|one| one.rtype != Rtype::AAAA);
    });
    assert_eq!(
        world.wrong(),
        ["prod.example.com. glue: ns1.prod.example.com.: 192.0.2.2; declared: 192.0.2.2, 2001:db8::2"]
    );
}

#[test]
fn servers_that_differ_are_found() {
    let world = World::new();
    world.region[1].edit("use1.prod.example.com", |records| {
        let newer = "use1.prod.example.com. 3600 IN SOA ns1.use1.prod.example.com. hostmaster.example.com. 9 3600 900 1209600 900";
        records.retain(|one| one.rtype != Rtype::SOA);
        records.push(record(newer));
        records.retain(|one| one.rtype != Rtype::NS || one.rdata.as_wire() != name("ns1.use1.prod.example.com").as_wire());
    });
    assert_eq!(
        world.wrong(),
        [
            "use1.prod.example.com. ns: missing: ns1.use1.prod.example.com.",
            "use1.prod.example.com. serials: the servers have 1, 9; transfers do not arrive"
        ]
    );
}

#[test]
fn a_server_without_the_zone_and_a_dead_one_are_found() {
    let world = World::new();
    world.region[0].zones.remove(&name("use1.prod.example.com"));
    let wrong = world.wrong();
    assert_eq!(wrong, ["use1.prod.example.com. authoritative: REFUSED for the SOA record"], "the other one answers");
    let text = TEXT
        .replace("CORE", &world.core.address.to_string())
        .replace("PROD", "127.0.0.1:9")
        .replace("REGION1", &world.region[0].address.to_string())
        .replace("REGION2", &world.region[1].address.to_string());
    let world = World { declaration: Declaration::read(text.as_bytes()).expect("right"), ..world };
    let wrong = world.wrong();
    assert!(wrong[0].starts_with("prod.example.com. authoritative: UDP: "), "{wrong:#?}");
}

#[test]
fn a_service_that_answers_otherwise_is_found() {
    let world = World::new();
    for server in &world.region {
        server.edit("use1.prod.example.com", |records| {
            records.retain(|one| one.rtype != Rtype::A || one.owner != name("web.use1.prod.example.com"));
            records.push(record("web.use1.prod.example.com. 300 IN A 192.0.2.66"));
        });
    }
    assert_eq!(world.wrong(), ["use1.prod.example.com. service: not what is declared: 192.0.2.66"]);
}

/// The root's server has the environment's zone too, and answers from it: the delegation does not show.
#[test]
fn a_delegation_that_cannot_be_seen_is_not_called_right() {
    let world = World::new();
    let text = |origin: &str| {
        let zones = Desired::of(&world.declaration).zones;
        let zone = zones.into_iter().find(|zone| zone.origin == name(origin)).expect(origin);
        zone.target(&[]).into_iter().collect::<Vec<Record>>()
    };
    world.core.serve(&name("prod.example.com"), text("prod.example.com"));
    let of_prod = |verification: &Verification| {
        let found =
            verification.checks.iter().find(|check| check.zone == "prod.example.com." && check.check == "delegation");
        found.expect("it is looked at").clone()
    };
    let unknown = world.verify();
    assert_eq!(of_prod(&unknown).outcome, Outcome::Unknown, "{}", unknown.to_text());
    assert!(!unknown.is_right() && unknown.to_text().contains(" 1 unknown, 0 wrong"), "{}", unknown.to_text());
    // The control API shows it, and what is wrong with it.
    let verify = |records: Vec<Record>| {
        let control = MemoryProvider::new();
        let file: String = records.iter().map(|one| gateward_zone::to_text(one, &Name::root()) + "\n").collect();
        control.create_zone(&name("example.com"), &file, &By::default()).expect("a zone");
        let mut fleet = Fleet::new();
        fleet.add("http://127.0.0.1:1", control);
        let verifier = Verifier { client: Client { timeout: Duration::from_millis(500) }, ipv4_only: true };
        of_prod(&verifier.verify(&world.declaration, &fleet))
    };
    let seen = verify(text("example.com"));
    assert_eq!(seen.outcome, Outcome::Ok, "{}", seen.detail);
    let without = text("example.com").into_iter().filter(|one| one.owner != name("prod.example.com")).collect();
    let missing = verify(without);
    assert_eq!((missing.outcome, missing.detail.as_str()), (Outcome::Failed, "the zone is not delegated"));
    let glueless = text("example.com").into_iter().filter(|one| one.owner != name("ns1.prod.example.com")).collect();
    assert_eq!(verify(glueless).outcome, Outcome::Failed);
}

#[test]
fn a_server_that_cannot_be_asked_is_not_called_right() {
    let world = World::new();
    let text = TEXT
        .replace("CORE", &world.core.address.to_string())
        .replace("PROD", &world.prod.address.to_string())
        .replace("REGION1", &world.region[0].address.to_string())
        .replace(
            "      - { name: ns2.use1.prod.example.com, addresses: [192.0.2.4], query: REGION2 }",
            "      - { name: ns2.example.net }",
        )
        .replace("BIG", "b");
    let world = World { declaration: Declaration::read(text.as_bytes()).expect("right"), ..world };
    let verification = world.verify();
    let unknown: Vec<&str> =
        verification.checks.iter().filter(|check| check.outcome == Outcome::Unknown).map(|check| check.check).collect();
    assert_eq!(unknown, ["authoritative", "serials"], "{}", verification.to_text());
    assert!(!verification.is_right());
}
