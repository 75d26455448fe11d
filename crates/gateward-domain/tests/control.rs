//! The control API over HTTP: what is sent and what becomes of each kind of answer, against a server that speaks the API
//! with zones in memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateward_domain::declaration::SecretSource;
use gateward_domain::plan::{Document, Options, make};
use gateward_domain::provider::{By, Fleet, HttpProvider, MemoryProvider, Provider, ProviderError};
use gateward_domain::{Author, Current, Declaration, Secrets, apply, drift, rollback, status};
use gateward_model::Secret;
use gateward_zone::{Change, Name, Record, parse_record, to_text};
use serde_json::{Value, json};

const VOICE: &str = include_str!("../../../examples/domains/voice.yaml");

/// A request as it came.
#[derive(Debug, Clone)]
struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

type Script = dyn Fn(&Request) -> Option<(u16, String)> + Send + Sync;

/// A server of the control API.
struct Control {
    url: String,
    zones: Arc<MemoryProvider>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Control {
    fn start() -> Self {
        Self::scripted(Box::new(|_| None))
    }

    /// What `script` gives is answered; the rest by the zones.
    fn scripted(script: Box<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let zones = Arc::new(MemoryProvider::new());
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (served, seen) = (zones.clone(), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(request) = receive(&stream) else { continue };
                seen.lock().expect("one at a time").push(request.clone());
                let (code, body) = script(&request).unwrap_or_else(|| serve(&served, &request));
                let head = format!("HTTP/1.1 {code} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = (&stream).write_all(&[head.as_bytes(), body.as_bytes()].concat());
            }
        });
        Control { url, zones, requests }
    }

    fn provider(&self) -> HttpProvider {
        HttpProvider::new(&self.url, Some(Secret::new("hunter2"))).expect("an address").timeout(Duration::from_secs(5))
    }

    fn last(&self) -> Request {
        self.requests.lock().expect("one at a time").last().expect("a request").clone()
    }
}

fn receive(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim_end().split_once(": ") {
            Some((key, value)) => headers.push((key.to_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let mut request = Request { line: line.trim_end().replace(" HTTP/1.1", ""), headers, body: String::new() };
    let len = request.header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

fn record(text: &str) -> Record {
    parse_record(text, &Name::root(), None).expect(text)
}

fn by() -> By {
    By { actor: "tester".to_owned(), force: None }
}

/// The API over zones in memory.
fn serve(zones: &MemoryProvider, request: &Request) -> (u16, String) {
    match try_serve(zones, request) {
        Ok(answer) => answer,
        Err(ProviderError::Conflict) => (409, String::new()),
        Err(ProviderError::NotFound(_)) => (404, String::new()),
        Err(error) => (422, json!({"errors": [{"message": error.to_string()}]}).to_string()),
    }
}

fn try_serve(zones: &MemoryProvider, request: &Request) -> Result<(u16, String), ProviderError> {
    let (method, path) = request.line.split_once(' ').expect("a request line");
    let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
    let by = By { actor: request.header("x-gateward-actor").unwrap_or_default().to_owned(), force: None };
    let text = |origin: &Name, records: Vec<Record>| {
        records.iter().map(|record| to_text(record, origin) + "\n").collect::<String>()
    };
    let body = || serde_json::from_str::<Value>(&request.body).expect("JSON");
    Ok(match (method, &parts[..]) {
        ("GET", ["zones"]) => (200, list(zones)?),
        ("GET", ["keys"]) => {
            let keys = zones.keys()?.into_iter().map(|key| json!({"name": key, "algorithm": "hmac-sha256"}));
            (200, json!({"keys": keys.collect::<Vec<_>>()}).to_string())
        }
        ("PUT", ["keys", key]) => {
            let body = body();
            let secret = Secret::new(body["secret"].as_str().expect("a secret"));
            zones.put_key(key, body["algorithm"].as_str().expect("an algorithm"), &secret, &by)?;
            (204, String::new())
        }
        ("GET", ["zones", origin]) => match zones.zone(&name(origin))? {
            None => (404, String::new()),
            Some(zone) if request.header("accept") == Some("application/json") => {
                (200, json!({"origin": origin, "serial": zone.serial}).to_string())
            }
            Some(zone) => (200, text(&name(origin), zone.records)),
        },
        ("PUT", ["zones", origin]) => {
            assert_eq!(request.header("if-none-match"), Some("*"));
            zones.create_zone(&name(origin), &request.body, &by)?;
            (204, String::new())
        }
        ("DELETE", ["zones", origin]) => {
            zones.delete_zone(&name(origin), serial(request), &by).map(|()| (204, String::new()))?
        }
        ("GET", ["zones", origin, "policy"]) => match zones.policy(&name(origin))? {
            Some(policy) => (200, policy),
            None => (404, String::new()),
        },
        ("PUT", ["zones", origin, "policy"]) => {
            replace_policy(zones, &name(origin), request, &by)?;
            (204, String::new())
        }
        ("POST", ["zones", origin, "changes"]) => {
            let body = body();
            let changes: Vec<Change> = body["changes"].as_array().expect("changes").iter().map(change).collect();
            let base = u32::try_from(body["base_serial"].as_u64().expect("a serial")).expect("32 bits");
            let serial = zones.change(&name(origin), base, &changes, &by)?;
            (200, json!({"serial": serial}).to_string())
        }
        ("GET", ["zones", origin, "versions"]) => {
            // The newest first, as a server may well do.
            let versions: Vec<_> = zones.versions(&name(origin))?.into_iter().rev().collect();
            (200, json!({"versions": versions}).to_string())
        }
        ("GET", ["zones", origin, "versions", serial]) => {
            match zones.version(&name(origin), serial.parse().expect("a serial"))? {
                Some(records) => (200, text(&name(origin), records)),
                None => (404, String::new()),
            }
        }
        ("POST", ["zones", origin, "rollback"]) => {
            let to = u32::try_from(body()["to"].as_u64().expect("a serial")).expect("32 bits");
            (200, json!({"serial": zones.rollback(&name(origin), serial(request), to, &by)?}).to_string())
        }
        _ => panic!("not in the API: {}", request.line),
    })
}

/// The answer to `GET /v1/zones`.
fn list(zones: &MemoryProvider) -> Result<String, ProviderError> {
    let zones = zones.zones()?.into_iter().map(|zone| {
        json!({"origin": zone.origin.to_string(), "serial": zone.serial, "records": zone.records,
               "owner": null, "kind": "primary", "state": "serving", "protected": false})
    });
    Ok(json!({"zones": zones.collect::<Vec<_>>()}).to_string())
}

/// Replaces a policy on the condition that the request names.
fn replace_policy(zones: &MemoryProvider, origin: &Name, request: &Request, by: &By) -> Result<(), ProviderError> {
    let now = zones.policy(origin)?;
    let tag = now.as_ref().map(|now| format!("\"{}\"", gateward_zone::policy::tag(now.as_bytes())));
    if request.header("if-match") != tag.as_deref() {
        return Err(ProviderError::Conflict);
    }
    assert_eq!(request.header("if-none-match").is_some(), now.is_none());
    zones.put_policy(origin, now.as_deref(), &request.body, by)
}

/// The serial that a request is made for.
fn serial(request: &Request) -> u32 {
    request.header("if-match").expect("a condition").trim_matches('"').parse().expect("a serial")
}

fn change(value: &Value) -> Change {
    let record = record(value["record"].as_str().expect("a record"));
    if value["op"] == "add" { Change::Add(record) } else { Change::Remove(record) }
}

struct Fixed;

impl Secrets for Fixed {
    fn secret(&self, _: &str, _: &SecretSource) -> Result<Secret, String> {
        Ok(Secret::new("c2VjcmV0"))
    }
}

#[test]
fn a_domain_is_bootstrapped_and_repaired_over_http() {
    let control = Control::start();
    let text = VOICE.replace("http://127.0.0.1:8053", &control.url);
    let declaration = Declaration::read(text.as_bytes()).expect("right");
    let mut fleet = Fleet::new();
    fleet.add(&control.url, control.provider());
    let options = Options { allow_cross_environment: true, ..Options::default() };
    let current = Current::read(&declaration, &fleet).expect("it answers");
    let document = Document::new(make(&declaration, &current, &options).expect("a plan"));
    let author = Author::new("tester");
    let time = std::time::SystemTime::now();
    let account = apply(&document, &declaration, &fleet, &Fixed, &author, time).expect("applied");
    assert!(account.is_complete(), "{}", account.to_text());
    assert_eq!(control.zones.keys().expect("in memory"), ["external-dns.voice", "provisioning.voice"]);
    assert!(drift(&declaration, &fleet).expect("it answers").plan.is_empty());
    // Somebody changes a zone; it shows, and goes again.
    let extra = [Change::Add(record("hand.made.voice.example. 60 IN A 192.0.2.1"))];
    control.zones.change(&name("voice.example"), 1, &extra, &by()).expect("changed");
    let now = status(&declaration, &fleet).expect("it answers");
    let drifted: Vec<&str> = now.zones.iter().filter(|zone| zone.drift).map(|zone| zone.origin.as_str()).collect();
    assert_eq!(drifted, ["voice.example."]);
    assert_eq!((now.zones[0].serial, &now.zones[0].versions[..]), (Some(2), &[1][..]));
    let document = drift(&declaration, &fleet).expect("it answers");
    assert!(apply(&document, &declaration, &fleet, &Fixed, &author, time).expect("applied").is_complete());
    assert!(drift(&declaration, &fleet).expect("it answers").plan.is_empty());
    assert_eq!(rollback(&fleet, &control.url, &name("voice.example"), 2, &author).expect("kept"), 4);
    assert!(rollback(&fleet, &control.url, &name("voice.example"), 77, &author).is_err());
    let now = control.zones.policy(&name("voice.example")).expect("in memory");
    let put = control.provider().put_policy(&name("voice.example"), Some("another"), "owner: x\n", &by());
    assert_eq!(
        (put, control.zones.policy(&name("voice.example")).expect("in memory")),
        (Err(ProviderError::Conflict), now)
    );
    let actor = &control.zones.versions(&name("voice.example")).expect("kept")[2].actor;
    assert!(actor.starts_with("tester plan:"), "{actor}");
}

#[test]
fn requests_say_who_asks_and_with_what_leave() {
    let control = Control::start();
    let provider = control.provider();
    let zone = "$TTL 60\n@ IN SOA a. b. 5 3600 900 1209600 60\n@ IN NS ns.example.net.\n";
    let by = By { actor: "ci\r\nx: y".to_owned(), force: Some(Secret::new("leave")) };
    assert_eq!(provider.create_zone(&name("example.com"), zone, &by), Ok(5));
    let requests = control.requests.lock().expect("one at a time").clone();
    assert_eq!(requests[0].line, "PUT /v1/zones/example.com");
    assert_eq!(requests[0].header("x-gateward-actor"), Some("ci??x: y"));
    assert_eq!(requests[0].header("x-gateward-force"), Some("leave"));
    assert_eq!(requests[0].header("authorization"), Some("Bearer hunter2"));
    assert_eq!(requests[0].header("content-type"), Some("text/dns"));
    let changes = [
        Change::Remove(record("a.example.com. 60 IN TXT \"x y\"")),
        Change::Add(record("b.example.com. 60 IN MX 10 c.example.com.")),
    ];
    assert_eq!(provider.change(&name("example.com"), 5, &changes, &by), Ok(6));
    assert_eq!(control.last().line, "POST /v1/zones/example.com/changes");
    assert_eq!(
        serde_json::from_str::<Value>(&control.last().body).expect("JSON"),
        json!({"base_serial": 5, "changes": [
            {"op": "remove", "record": "a.example.com. 60 IN TXT \"x y\""},
            {"op": "add", "record": "b.example.com. 60 IN MX 10 c.example.com."},
        ]})
    );
    assert_eq!(provider.change(&name("example.com"), 5, &changes, &by), Err(ProviderError::Conflict));
    assert_eq!(provider.rollback(&name("example.com"), 6, 5, &by), Ok(7));
    let serials: Vec<u32> =
        provider.versions(&name("example.com")).expect("kept").iter().map(|version| version.serial).collect();
    assert_eq!(serials, [5, 6, 7]);
    assert_eq!(provider.version(&name("example.com"), 4), Ok(None));
    assert_eq!(provider.zone(&name("example.org")), Ok(None));
}

#[test]
fn refusals_are_passed_on_and_nonsense_is_told() {
    let check = |code: u16, body: &str, expected: &str| {
        let body = body.to_owned();
        let control = Control::scripted(Box::new(move |_| Some((code, body.clone()))));
        let error = control.provider().delete_zone(&name("example.com"), 1, &by()).expect_err("refused");
        assert!(error.to_string().contains(expected), "{code}: {error}");
    };
    let refusal = json!({"errors": [{"message": "example.com. is protected", "rule": "deletion-protection",
                                     "remedy": "get a force token"}]});
    check(422, &refusal.to_string(), "example.com. is protected (deletion-protection); get a force token");
    check(401, "", "access is denied (status 401)");
    check(412, "", "changed by somebody else");
    check(404, "", "there is no zones/example.com");
    check(500, "<html>", "status 500 for /v1/zones/example.com");
    let nonsense = Control::scripted(Box::new(|_| Some((200, "{\"zones\": 3}".to_owned()))));
    assert!(matches!(nonsense.provider().zones(), Err(ProviderError::Protocol(_))));
    let no_zone = Control::scripted(Box::new(|_| Some((200, "@ 60 IN A x\n".to_owned()))));
    assert!(matches!(no_zone.provider().zone(&name("example.com")), Err(ProviderError::Protocol(_))));
}

#[test]
fn a_server_that_is_away_or_slow_is_told_in_time() {
    let away = HttpProvider::new("http://127.0.0.1:9", None).expect("an address");
    assert!(matches!(away.zones(), Err(ProviderError::Unreachable(_))));
    // Accepts and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let slow = HttpProvider::new(&url, None).expect("an address").timeout(Duration::from_millis(50));
    assert!(matches!(slow.zones(), Err(ProviderError::Unreachable(reason)) if reason.contains("no answer within")));
}

#[test]
fn zones_it_only_follows_are_not_its_own() {
    let zones = json!({"zones": [
        {"origin": "a.example.", "serial": 1, "records": 2, "kind": "primary", "state": "serving"},
        {"origin": "b.example.", "serial": 1, "records": 2, "kind": "secondary", "state": "serving"},
        {"origin": "catalog.", "serial": 1, "records": 2, "kind": "catalog", "state": "serving"},
    ]});
    let control = Control::scripted(Box::new(move |_| Some((200, zones.to_string()))));
    let origins: Vec<Name> = control.provider().zones().expect("a list").into_iter().map(|zone| zone.origin).collect();
    assert_eq!(origins, [name("a.example")]);
}
