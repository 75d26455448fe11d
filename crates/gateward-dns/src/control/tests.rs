//! The API without sockets, and as its description says.

use std::fs;
use std::path::PathBuf;

use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::*;
use crate::authority::{Options, Refused};
use crate::folder::Folder;

struct Api {
    dir: PathBuf,
    control: Arc<Control>,
}

impl Api {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("gateward-control-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let authority = Authority::new(Folder::open(&dir).unwrap(), Arc::default(), Options::default()).unwrap();
        let keys = Arc::new(KeyFile::open(authority.folder().keys_file()).unwrap());
        let leases = Leases::open(authority.clone());
        let metrics = Box::new(|| "# of the servers\n".to_owned());
        let control = Arc::new(Control { authority, keys, leases, metrics, token: None });
        Api { dir, control }
    }

    /// Status and content.
    async fn ask(&self, method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let request = request(method, target, headers, body);
        let response = self.control.answer(request).await;
        (response.status.as_u16(), String::from_utf8_lossy(&response.body).into_owned())
    }

    async fn get(&self, target: &str) -> (u16, Value) {
        let (status, text) = self.ask(Method::GET, target, &[("accept", "application/json")], "").await;
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    async fn send(&self, method: Method, target: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.ask(method, target, &[("content-type", "application/json")], &body.to_string()).await;
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    async fn webhook(&self, method: Method, target: &str, body: &Value) -> (u16, Value) {
        let response = webhook::answer(&self.control, &request(method, target, &[], &body.to_string())).await;
        (response.status.as_u16(), serde_json::from_slice(&response.body).unwrap_or_default())
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn request(method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> ApiRequest {
    let mut request = ApiRequest::new(method, target);
    for (name, value) in headers {
        request.headers.insert(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    request.body = body.to_owned().into();
    request
}

const ZONE: &str = "$TTL 60\n@ SOA ns hm 7 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nwww A 192.0.2.2\n";

#[tokio::test]
async fn zones_are_made_read_changed_and_removed() {
    let api = Api::new("zones");
    let put = |headers: &'static [(&str, &str)], body: &'static str| {
        api.ask(Method::PUT, "/v1/zones/Example.COM.", headers, body)
    };
    assert_eq!(put(&[("if-none-match", "*")], ZONE).await.0, 204);
    assert_eq!(put(&[("if-none-match", "*")], ZONE).await.0, 412);
    assert_eq!(put(&[("if-match", "\"6\"")], ZONE).await.0, 412);
    assert_eq!(put(&[("if-match", "six")], ZONE).await.0, 400);
    for method in [Method::PUT, Method::DELETE] {
        let missing = api.ask(method.clone(), "/v1/zones/missing.example", &[("if-match", "\"6\"")], ZONE).await;
        assert_eq!(missing.0, 412, "{method}");
    }
    assert_eq!(api.ask(Method::DELETE, "/v1/zones/example.com", &[("if-none-match", "*")], "").await.0, 412);
    assert_eq!(api.ask(Method::DELETE, "/v1/zones/example.com", &[("if-match", "\"6\"")], "").await.0, 412);
    let (status, text) = put(&[], "@ SOA ns hm 1 2 3 4 5\n@ 5 NS ns\nx A 1.2.3\ny B z\n").await;
    assert_eq!(status, 422);
    let errors: Value = serde_json::from_str(&text).unwrap();
    let lines: Vec<u64> =
        errors["errors"].as_array().unwrap().iter().filter_map(|error| error["line"].as_u64()).collect();
    assert!(lines.contains(&3) && lines.contains(&4), "{text}");

    let (status, zones) = api.get("/v1/zones").await;
    let expected = json!({
        "origin": "example.com", "serial": 7, "records": 4, "owner": null, "kind": "primary", "state": "serving",
        "protected": false, "problems": [],
    });
    assert_eq!((status, &zones["zones"][0]), (200, &expected));
    let response = api.control.answer(request(Method::GET, "/v1/zones/example.com", &[], "")).await;
    assert!(response.headers.iter().any(|(name, value)| name == "etag" && value == "\"7\""));
    assert!(response.headers.iter().any(|(name, value)| *name == CONTENT_TYPE && value == "text/dns"));
    assert!(String::from_utf8_lossy(&response.body).contains("www"));

    let changes = |base, changes: Value| json!({ "base_serial": base, "changes": changes });
    let add = json!([{ "op": "add", "record": "api 60 IN A 192.0.2.9" }]);
    let path = "/v1/zones/example.com/changes";
    let (status, dry) = api.send(Method::POST, &format!("{path}?dry_run=true"), &changes(7, add.clone())).await;
    assert_eq!((status, &dry["serial"], &dry["changes"]), (200, &json!(7), &add));
    assert_eq!(api.send(Method::POST, path, &changes(7, add.clone())).await.1["serial"], 8);
    assert_eq!(api.send(Method::POST, path, &changes(7, add)).await.0, 409);
    let bad = json!([{ "op": "add", "record": "api A" }, { "op": "remove", "record": "a.example.net. A 192.0.2.1" }]);
    let (status, errors) = api.send(Method::POST, path, &changes(8, bad)).await;
    assert_eq!((status, errors["errors"].as_array().map(Vec::len)), (422, Some(2)));
    assert_eq!(api.ask(Method::POST, path, &[], "{}").await.0, 415, "browsers send that to strangers");

    let (_, versions) = api.get("/v1/zones/example.com/versions").await;
    let serials: Vec<u64> =
        versions["versions"].as_array().unwrap().iter().filter_map(|version| version["serial"].as_u64()).collect();
    assert_eq!(serials, [7, 8]);
    assert_eq!(versions["versions"][1]["actor"], "api:anonymous");
    let (status, text) = api.ask(Method::GET, "/v1/zones/example.com/versions/7", &[], "").await;
    assert!(status == 200 && !text.contains("192.0.2.9"));
    assert_eq!(
        api.send(Method::POST, "/v1/zones/example.com/rollback", &json!({ "to": 7 })).await.1,
        json!({ "serial": 9 })
    );
    assert_eq!(api.send(Method::POST, "/v1/zones/example.com/rollback", &json!({ "to": 99 })).await.0, 404);
    assert_eq!(api.get("/v1/zones/example.com/versions/99").await.0, 404);

    assert_eq!(api.ask(Method::DELETE, "/v1/zones/example.com", &[], "").await.0, 204);
    assert_eq!(api.ask(Method::DELETE, "/v1/zones/example.com", &[], "").await.0, 404);
    assert_eq!(api.get("/v1/zones/example.com").await.0, 404);
    let (_, audit) = api.get("/v1/audit?zone=example.com&after=1").await;
    let actions: Vec<&str> =
        audit["entries"].as_array().unwrap().iter().filter_map(|entry| entry["action"].as_str()).collect();
    assert_eq!(actions, ["write", "rollback", "delete"]);
}

#[tokio::test]
async fn policies_and_keys_are_kept() {
    let api = Api::new("policies");
    api.ask(Method::PUT, "/v1/zones/example.com", &[], ZONE).await;
    let policy = |body: &'static str| api.ask(Method::PUT, "/v1/zones/example.com/policy", &[], body);
    assert_eq!(api.ask(Method::GET, "/v1/zones/example.com/policy", &[], "").await.0, 404);
    assert_eq!(policy("protected: perhaps").await.0, 422);
    assert_eq!(policy("owner: dns-team\nprotected: true\nnever_empty: [www]\n").await.0, 204);
    assert!(api.ask(Method::GET, "/v1/zones/example.com/policy", &[], "").await.1.contains("dns-team"));
    assert_eq!(api.get("/v1/zones").await.1["zones"][0]["owner"], "dns-team");
    // Only who has seen what there is replaces it, if he says what he has seen.
    let conditional = async |name: &str, value: &str, text: &str| {
        api.ask(Method::PUT, "/v1/zones/example.com/policy", &[(name, value)], text).await.0
    };
    let tag = gateward_zone::policy::tag(b"owner: dns-team\nprotected: true\nnever_empty: [www]\n");
    let shown = request(Method::GET, "/v1/zones/example.com/policy", &[], "");
    assert!(format!("{:?}", api.control.answer(shown).await.headers).contains(&tag));
    assert_eq!(conditional("if-none-match", "*", "owner: x\n").await, 412);
    assert_eq!(conditional("if-match", "\"0123\"", "owner: x\n").await, 412);
    assert_eq!(conditional("if-match", "*", "owner: x\n").await, 400);
    let same = "owner: dns-team\nprotected: true\nnever_empty: [www] \n";
    assert_eq!(conditional("if-match", &format!("\"{tag}\""), same).await, 204);
    let (status, errors) = api.send(Method::DELETE, "/v1/zones/example.com", &Value::Null).await;
    assert_eq!(status, 422);
    assert!(errors["errors"][0]["rule"].is_string() && errors["errors"][0]["remedy"].is_string(), "{errors}");
    let gone = json!({ "changes": [{ "op": "remove", "record": "www A 192.0.2.2" }] });
    assert_eq!(api.send(Method::POST, "/v1/zones/example.com/changes", &gone).await.0, 422);

    let key = json!({ "algorithm": "hmac-sha256", "secret": "c2VjcmV0" });
    assert_eq!(api.send(Method::PUT, "/v1/keys/external-dns", &key).await.0, 204);
    assert_eq!(api.send(Method::PUT, "/v1/keys/b", &json!({ "algorithm": "hmac-sha256", "secret": "?" })).await.0, 422);
    let keys = api.get("/v1/keys").await.1;
    assert_eq!(keys, json!({ "keys": [{ "name": "external-dns", "algorithm": "hmac-sha256" }] }));
    assert_eq!(api.send(Method::DELETE, "/v1/keys/external-dns", &Value::Null).await.0, 204);
    assert_eq!(api.send(Method::DELETE, "/v1/keys/external-dns", &Value::Null).await.0, 404);
    let log = fs::read_to_string(api.control.authority.folder().audit_file()).unwrap();
    assert!(!log.contains("c2VjcmV0"));
}

#[tokio::test]
async fn leases_come_and_go() {
    let api = Api::new("leases");
    api.ask(Method::PUT, "/v1/zones/example.com", &[], ZONE).await;
    let lease = |address: &str, healthy| json!({ "name": "vm", "type": "A", "data": [address], "ttl": 30, "lease_seconds": 90, "healthy": healthy });
    let addresses = || {
        let zone = api.control.authority.zone(&origin("example.com").unwrap()).unwrap();
        let set = gateward_zone::ZoneView::set(&*zone, &origin("vm.example.com").unwrap(), gateward_zone::Rtype::A);
        set.map_or(0, |set| set.data.len())
    };
    let (status, put) = api.send(Method::PUT, "/v1/leases/example.com/a", &lease("192.0.2.50", true)).await;
    assert!(status == 200 && put["expires"].as_str().is_some_and(|time| time.ends_with('Z')), "{put}");
    api.send(Method::PUT, "/v1/leases/example.com/b", &lease("192.0.2.51", true)).await;
    assert_eq!(addresses(), 2);
    api.send(Method::PUT, "/v1/leases/example.com/b", &lease("192.0.2.51", false)).await;
    assert_eq!(addresses(), 1);
    // As after a restart.
    let again = Leases::open(api.control.authority.clone());
    assert_eq!(again.list(&origin("example.com").unwrap()).await.len(), 2);
    let (_, list) = api.get("/v1/leases/example.com").await;
    assert_eq!((&list["leases"][0]["id"], &list["leases"][1]["live"]), (&json!("a"), &json!(false)));
    assert_eq!(api.send(Method::DELETE, "/v1/leases/example.com/b", &Value::Null).await.1, json!({ "kept": false }));
    assert_eq!(api.send(Method::DELETE, "/v1/leases/example.com/a", &Value::Null).await.1, json!({ "kept": true }));
    assert_eq!(api.send(Method::DELETE, "/v1/leases/example.com/a", &Value::Null).await.0, 404);
    assert_eq!(addresses(), 1, "never the last one");
    for (bad, status) in [
        (json!({ "name": "vm", "type": "A", "data": ["x"], "lease_seconds": 90 }), 422),
        (json!({ "name": "vm", "type": "A", "data": [], "lease_seconds": 90 }), 422),
        (json!({ "name": "vm", "type": "A", "data": ["192.0.2.1"], "lease_seconds": 1 }), 422),
        (json!({ "name": "vm.example.net.", "type": "A", "data": ["192.0.2.1"], "lease_seconds": 90 }), 422),
        (json!({ "name": "vm", "type": "CNAME", "data": ["www"], "lease_seconds": 90 }), 422),
        (json!({ "name": "vm" }), 400),
    ] {
        assert_eq!(api.send(Method::PUT, "/v1/leases/example.com/c", &bad).await.0, status, "{bad}");
    }
    assert_eq!(api.get("/v1/leases/example.com").await.1["leases"], json!([]));
    assert_eq!(api.send(Method::PUT, "/v1/leases/example.net/a", &lease("192.0.2.1", true)).await.0, 404);
}

#[tokio::test]
async fn external_dns_lists_adjusts_and_changes() {
    let api = Api::new("webhook");
    api.ask(Method::PUT, "/v1/zones/example.com", &[], ZONE).await;
    assert_eq!(api.webhook(Method::GET, "/", &Value::Null).await.1, json!({ "include": ["example.com"] }));
    let endpoint =
        |name: &str, rtype: &str, targets: &[&str]| json!({ "dnsName": name, "recordType": rtype, "targets": targets });
    let wanted = json!([
        { "dnsName": "A.example.com", "recordType": "TXT", "targets": ["\"heritage=x\""], "labels": { "owner": "me" } },
        endpoint("c.example.com", "CNAME", &["Www.example.com."]),
    ]);
    let (_, adjusted) = api.webhook(Method::POST, "/adjustendpoints", &wanted).await;
    assert_eq!(adjusted[0]["targets"], json!(["heritage=x"]));
    assert_eq!(
        (&adjusted[0]["labels"]["owner"], &adjusted[1]["targets"][0]),
        (&json!("me"), &json!("Www.example.com"))
    );
    let create = json!({ "Create": [endpoint("a.example.com", "A", &["192.0.2.5", "192.0.2.6"]),
        endpoint("a-a.example.com", "TXT", &["\"heritage=external-dns,external-dns/owner=x\""])], "Delete": null });
    assert_eq!(api.webhook(Method::POST, "/records", &create).await.0, 204);
    let (_, records) = api.webhook(Method::GET, "/records", &Value::Null).await;
    let find = |records: &Value, name: &str| {
        records.as_array().unwrap().iter().find(|record| record["dnsName"] == name).cloned()
    };
    assert_eq!(find(&records, "a.example.com").unwrap()["targets"], json!(["192.0.2.5", "192.0.2.6"]));
    assert_eq!(find(&records, "a-a.example.com").unwrap()["targets"][0], "heritage=external-dns,external-dns/owner=x");
    let update = json!({ "updateOld": [endpoint("a.example.com", "A", &["192.0.2.5", "192.0.2.6"])],
        "updateNew": [endpoint("a.example.com", "A", &["192.0.2.6", "192.0.2.7"])],
        "delete": [endpoint("gone.example.com", "A", &["192.0.2.5"])] });
    assert_eq!(api.webhook(Method::POST, "/records", &update).await.0, 204);
    let (_, records) = api.webhook(Method::GET, "/records", &Value::Null).await;
    assert_eq!(find(&records, "a.example.com").unwrap()["targets"], json!(["192.0.2.6", "192.0.2.7"]));

    api.ask(Method::PUT, "/v1/zones/example.com/policy", &[], "never_empty: [a]\n").await;
    let delete = json!({ "delete": [endpoint("a.example.com", "A", &["192.0.2.6", "192.0.2.7"])] });
    let (status, errors) = api.webhook(Method::POST, "/records", &delete).await;
    assert_eq!((status, &errors["errors"][0]["rule"]), (422, &json!("never-empty")));
    for bad in [
        endpoint("a.example.net", "A", &["192.0.2.1"]),
        endpoint("a.example.com", "A", &["::1"]),
        endpoint("a.example.com", "SOA", &["x"]),
        endpoint("a..example.com", "A", &["192.0.2.1"]),
    ] {
        assert_eq!(api.webhook(Method::POST, "/records", &json!({ "create": [bad] })).await.0, 422);
    }
    assert_eq!(api.webhook(Method::POST, "/records", &json!("x")).await.0, 400);
    // What may pass by itself is answered so that external-dns tries again.
    api.ask(Method::PUT, "/v1/zones/example.com/policy", &[], "limits: {updates_per_second: 1}\n").await;
    let mut statuses = Vec::new();
    while statuses.last() != Some(&503) {
        let name = format!("n{}.example.com", statuses.len());
        let create = json!({ "create": [endpoint(&name, "A", &["192.0.2.1"])] });
        statuses.push(api.webhook(Method::POST, "/records", &create).await.0);
        assert!(statuses.len() < 10_000 && statuses.iter().all(|status| matches!(status, 204 | 503)), "{statuses:?}");
    }
    assert_eq!(api.webhook(Method::GET, "/healthz", &Value::Null).await.0, 200);
}

#[test]
fn browsers_that_were_led_here_are_sent_away_from_the_webhook() {
    let admitted = |method, headers: &[(&str, &str)]| {
        webhook::admit(&request(method, "/records", headers, "")).map_err(|response| response.status.as_u16())
    };
    let ours = ("content-type", "application/external.dns.webhook+json;version=1");
    let here = ("host", "localhost:8888");
    assert_eq!(admitted(Method::GET, &[here]), Ok(()));
    assert_eq!(admitted(Method::POST, &[here, ours]), Ok(()));
    assert_eq!(admitted(Method::POST, &[("host", "127.0.0.1:8888"), ours]), Ok(()));
    assert_eq!(admitted(Method::GET, &[("host", "evil.example")]), Err(421));
    assert_eq!(admitted(Method::POST, &[("host", "evil.example"), ours]), Err(421));
    for other in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"] {
        assert_eq!(admitted(Method::POST, &[here, ("content-type", other)]), Err(415), "{other}");
    }
    assert_eq!(admitted(Method::POST, &[here]), Err(415));
}

#[tokio::test]
async fn leases_are_kept_in_step_with_the_zone_and_no_zone_costs_anything_without_them() {
    let api = Api::new("lease-files");
    api.ask(Method::PUT, "/v1/zones/example.com", &[], ZONE).await;
    let zone = origin("example.com").unwrap();
    let file = api.control.authority.folder().lease_file(&zone);
    for path in ["/v1/leases/example.com/a", "/v1/leases/example.net/a"] {
        assert_eq!(api.send(Method::DELETE, path, &Value::Null).await.0, 404);
    }
    assert_eq!(api.control.leases.count(), 0);
    let lease = |name: &str| json!({ "name": name, "type": "A", "data": ["192.0.2.50"], "lease_seconds": 90 });
    api.ask(Method::PUT, "/v1/zones/example.com/policy", &[], "addresses: [10.0.0.0/8]\n").await;
    assert_eq!(api.send(Method::PUT, "/v1/leases/example.com/a", &lease("vm")).await.0, 422);
    assert!(api.control.leases.count() == 0 && !file.exists(), "the zone did not take it");
    api.ask(Method::PUT, "/v1/zones/example.com/policy", &[], "").await;
    assert_eq!(api.send(Method::PUT, "/v1/leases/example.com/a", &lease("vm")).await.0, 200);
    assert!(file.exists());

    // A crash between the file and the zone: what the file says comes into the zone, or leaves it.
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("vm.", "other.")).unwrap();
    let again = Leases::open(api.control.authority.clone());
    let has = |name: &str| {
        let zone = api.control.authority.zone(&zone).unwrap();
        gateward_zone::ZoneView::set(&*zone, &origin(name).unwrap(), gateward_zone::Rtype::A).is_some()
    };
    again.look_at_all().await;
    assert!(has("other.example.com"));

    // A file that is none does not keep anybody from serving.
    fs::write(&file, "{").unwrap();
    let again = Leases::open(api.control.authority.clone());
    assert!(again.count() == 0 && !file.exists() && file.with_extension("leases.broken").exists());

    // A zone that goes takes its leases along.
    assert_eq!(api.ask(Method::DELETE, "/v1/zones/example.com", &[], "").await.0, 204);
    api.control.leases.look_at_all().await;
    assert_eq!(api.control.leases.count(), 0);
}

#[tokio::test]
async fn leases_end_whoever_the_policy_names() {
    let api = Api::new("lease-ends");
    api.ask(Method::PUT, "/v1/zones/example.com", &[], ZONE).await;
    let policy = async |text: &str| {
        let put = api.ask(Method::PUT, "/v1/zones/example.com/policy", &[("x-gateward-actor", "vm")], text).await;
        assert_eq!(put.0, 204, "{}", put.1);
    };
    policy("principals: [vm]\n").await;
    let (zone, leases) = (origin("example.com").unwrap(), &api.control.leases);
    let served = |name: &str| {
        let zone = api.control.authority.zone(&zone).unwrap();
        let set = gateward_zone::ZoneView::set(&*zone, &origin(name).unwrap(), gateward_zone::Rtype::A);
        let last = |rdata: &gateward_zone::Rdata| rdata.as_wire()[3];
        set.map(|set| set.data.iter().map(last).collect::<Vec<u8>>()).unwrap_or_default()
    };
    let lease = |name: &str, last: u8, lease_seconds: u32| crate::leases::Lease {
        name: origin(name).unwrap(),
        rtype: gateward_zone::Rtype::A,
        data: vec![gateward_zone::Rdata::from_wire([192, 0, 2, last])],
        ttl: 30,
        lease_seconds,
        healthy: true,
    };
    let put = async |id: &str, lease, actor: &str| match leases.put(&zone, id, lease, actor).await {
        Ok(_) => "taken",
        Err(Refused::Rules(rules)) => rules[0].rule,
        Err(other) => panic!("{other}"),
    };
    // What is there already is not held by somebody else either, or it would go with the lease.
    assert_eq!(put("x", lease("www.example.com", 2, 90), "eve").await, "owner");
    // It ends before the next one.
    assert_eq!(put("c", lease("one.example.com", 60, 1), "vm").await, "taken");
    assert_eq!(put("a", lease("vm.example.com", 50, 1), "vm").await, "taken");
    assert_eq!(put("b", lease("vm.example.com", 51, 90), "vm").await, "taken");
    assert_eq!(put("b", lease("eve.example.com", 9, 90), "eve").await, "owner", "nor taken over");
    assert_eq!(put("b", lease("vm.example.com", 51, 90), "eve").await, "owner", "nor kept alive");
    assert_eq!(put("b", lease("vm.example.com", 51, 90), "vm").await, "taken", "but by those who may");
    assert!(leases.remove(&zone, "b", "eve").await.is_err());
    let start = std::time::Instant::now();
    while served("vm.example.com") != [51] {
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "{:?}", served("vm.example.com"));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        leases.look_at_all().await;
    }
    let ends = async || {
        let held = leases.list(&zone).await;
        held.into_iter().find(|(id, _)| id == "c").map(|(_, held)| held.expires_ms)
    };
    let ended = ends().await;
    assert_eq!(served("one.example.com"), [60], "the last one stays");
    let (_, audit) = api.get("/v1/audit?zone=example.com").await;
    assert!(audit["entries"].as_array().unwrap().iter().any(|entry| entry["kind"] == "expiry"), "{audit}");

    // It is renewed when its data is not there any more and may not come again: the lease is over as before.
    let gone = json!({ "changes": [{ "op": "remove", "record": "one A 192.0.2.60" }] });
    let headers = [("content-type", "application/json"), ("x-gateward-actor", "vm")];
    let removed = api.ask(Method::POST, "/v1/zones/example.com/changes", &headers, &gone.to_string()).await;
    assert_eq!(removed.0, 200, "{}", removed.1);
    policy("principals: [vm]\naddresses: [10.0.0.0/8]\n").await;
    assert_eq!(put("c", lease("one.example.com", 60, 1), "vm").await, "addresses");
    assert_eq!(ends().await, ended);
    assert!(ended.is_some());
}

#[tokio::test]
async fn who_may_ask() {
    let mut api = Api::new("token");
    assert_eq!(api.ask(Method::GET, "/v1/zones", &[("host", "evil.example:80")], "").await.0, 421);
    assert_eq!(api.ask(Method::GET, "/v1/zones", &[("host", "127.0.0.1:80")], "").await.0, 200);
    let open = api.control.listen(([0, 0, 0, 0], 0).into()).await;
    assert!(matches!(open, Err(ControlError::Open(_))));
    assert!(matches!(api.control.listen_webhook(([0, 0, 0, 0], 0).into()).await, Err(ControlError::Open(_))));
    Arc::get_mut(&mut api.control).unwrap().token = Some(Secret::new("sesame"));
    assert_eq!(api.ask(Method::GET, "/v1/zones", &[], "").await.0, 401);
    assert_eq!(api.ask(Method::GET, "/v1/zones", &[("authorization", "Bearer sesam")], "").await.0, 401);
    assert_eq!(api.ask(Method::GET, "/v1/zones", &[("authorization", "Bearer sesame")], "").await.0, 200);
    assert_eq!(api.ask(Method::GET, "/healthz", &[], "").await.0, 200);
    assert_eq!(api.ask(Method::GET, "/healthz", &[("content-length", "0")], "").await.0, 200);
    // What is no probe has no place before those who have a token.
    for (method, headers) in [
        (Method::POST, &[][..]),
        (Method::DELETE, &[]),
        (Method::GET, &[("content-length", "67108864")]),
        (Method::GET, &[("transfer-encoding", "chunked")]),
    ] {
        assert_eq!(api.ask(method.clone(), "/healthz", headers, "").await.0, 401, "{method} {headers:?}");
    }
    let head = request(Method::HEAD, "/healthz", &[], "");
    assert!(api.control.admit(&head).is_ok() && api.control.admit(&request(Method::PUT, "/healthz", &[], "")).is_err());
    assert!(api.control.listen(([0, 0, 0, 0], 0).into()).await.is_ok());
}

#[tokio::test]
async fn the_description_has_the_routes_and_no_others() {
    let api = Api::new("openapi");
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters")
        {
            assert!(operation["summary"].is_string() && operation["operationId"].is_string(), "{method} {path}");
            described.push((method.to_uppercase(), path.clone()));
        }
    }
    let mut routes: Vec<(String, String)> =
        ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    described.sort();
    routes.sort();
    assert_eq!(described, routes);
    // Every route leads somewhere: what it answers for what is not there is not "no such path".
    for (method, path) in ROUTES {
        let target = path.replace("{origin}", "a.example").replace("{zone}", "a.example").replace("{serial}", "1");
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let (status, text) = api.ask(method, &target, &[("content-type", "application/json")], "").await;
        assert!(status != 405 && status != 500 && !text.contains("no such path"), "{path}: {status} {text}");
    }
    assert_eq!(api.ask(Method::PATCH, "/v1/zones", &[], "").await.0, 405);
    assert_eq!(api.ask(Method::GET, "/v2/zones", &[], "").await.0, 404);
    let metrics = api.ask(Method::GET, "/metrics", &[], "").await.1;
    assert!(metrics.contains("# of the servers") && metrics.contains("gateward_dns_changes_total{outcome=\"made\"} 0"));
}
