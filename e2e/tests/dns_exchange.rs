//! Zones that travel from server to server, with the real binary on one side or on both: copies, notices, catalogs (RFC 9432), signed with TSIG.

use gateward_e2e::name_daemons::{Brand, Daemon};
use gateward_e2e::names::{NameServer, program, said};
use gateward_testkit::{eventually, free_port};
use std::net::SocketAddr;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "c2VjcmV0IG9mIHRoZSB0ZXN0cywgbG9uZyBlbm91Z2g=";
const KEYS: &str = "xfr: {algorithm: hmac-sha256, secret: c2VjcmV0IG9mIHRoZSB0ZXN0cywgbG9uZyBlbm91Z2g=}\n";
const CATALOG: &str = "catalog.example";

/// Its secondaries would ask again after an hour: whatever comes sooner comes because they are told.
fn zone(address: &str) -> String {
    format!("$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 300\n@ NS ns\nns A 192.0.2.53\nwww A {address}\n")
}

/// Who may copy a zone, and who is told of it.
fn policy(secondary: SocketAddr) -> String {
    format!(
        "keys: [{{key: xfr}}]\ntransfers: {{keys: [xfr]}}\nsecondaries: [{{address: 127.0.0.1, port: {}, key: xfr}}]\n",
        secondary.port()
    )
}

/// A server of its own zones, and of a catalog of them.
fn primary(zones: &[(&str, &str)], secondary: SocketAddr) -> NameServer {
    let policy = policy(secondary);
    let mut files = vec![("keys.yaml".to_owned(), KEYS.to_owned()), (format!("{CATALOG}.policy.yaml"), policy.clone())];
    for (origin, address) in zones {
        files.push((format!("{origin}.policy.yaml"), policy.clone()));
        files.push((format!("{origin}.zone"), zone(address)));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    NameServer::start(&files, &["--catalog", CATALOG])
}

/// Its operator adds a zone.
fn add(server: &NameServer, origin: &str, address: &str, secondary: SocketAddr) {
    server.write(&format!("{origin}.policy.yaml"), &policy(secondary));
    server.write(&format!("{origin}.zone"), &zone(address));
}

fn remove(server: &NameServer, origin: &str) {
    std::fs::remove_file(server.folder().join(format!("{origin}.zone"))).expect("it is there");
}

#[track_caller]
fn will_answer(server: &NameServer, name: &str, answer: &str) {
    let start = std::time::Instant::now();
    while server.dig(&[name, "A", "+short"]) != answer {
        assert!(start.elapsed() < PATIENCE, "{name} is never {answer:?}:\n{}", server.log());
        gateward_testkit::pause(Duration::from_millis(50));
    }
}

/// Adds to a zone by an update.
#[track_caller]
fn update(server: SocketAddr, zone: &str, lines: &str) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new("nsupdate")
        .args(["-v", "-t", "10", "-y", &format!("hmac-sha256:xfr:{SECRET}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nsupdate is installed by the set-up");
    let input = format!("server 127.0.0.1 {}\nzone {zone}\n{lines}\nsend\n", server.port());
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
    said(&child.wait_with_output().expect("it ends"))
}

#[test]
fn a_second_server_copies_every_zone_of_the_first() {
    let (address, control) = (free_port(), free_port().to_string());
    let primary = primary(&[("a.example", "192.0.2.1"), ("b.example", "192.0.2.2")], address);
    let port = primary.address().port();
    let listed = format!("{CATALOG}=127.0.0.1:{port}#xfr");
    let flags = ["--secondary-catalog", &listed, "--control-listen", &control];
    let mut secondary = NameServer::start_at(address, &[("keys.yaml", KEYS)], &flags);
    will_answer(&secondary, "www.a.example", "192.0.2.1");
    will_answer(&secondary, "www.b.example", "192.0.2.2");
    // Zones, and changes of them, come by themselves.
    add(&primary, "c.example", "192.0.2.3", address);
    will_answer(&secondary, "www.c.example", "192.0.2.3");
    assert_eq!(update(primary.address(), "a.example", "update add new.a.example 60 A 192.0.2.9"), "");
    will_answer(&secondary, "new.a.example", "192.0.2.9");
    remove(&primary, "b.example");
    eventually(PATIENCE, || secondary.dig(&["www.b.example"]).contains("status: REFUSED"));
    for file in ["b.example.zone", ".sources/b.example"] {
        eventually(PATIENCE, || !secondary.folder().join(file).exists());
    }
    nobody_changes_it(&secondary, &control);
    // After a restart they are served at once, and are copies still.
    secondary.signal("KILL");
    secondary.restart();
    will_answer(&secondary, "www.a.example", "192.0.2.1");
    nobody_changes_it(&secondary, &control);
    assert_eq!(update(primary.address(), "a.example", "update add late.a.example 60 A 192.0.2.10"), "");
    will_answer(&secondary, "late.a.example", "192.0.2.10");
    // Also without the primary.
    drop(primary);
    assert!(secondary.stop().success());
    secondary.restart();
    will_answer(&secondary, "late.a.example", "192.0.2.10");
    let listed = said(&program("curl", &["-s", &format!("http://{control}/v1/zones")]));
    let zones: serde_json::Value = serde_json::from_str(&listed).expect(&listed);
    let mut kinds: Vec<(&str, &str)> = zones["zones"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|zone| Some((zone["origin"].as_str()?, zone["kind"].as_str()?)))
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [("a.example", "secondary"), ("c.example", "secondary"), (CATALOG, "catalog")]);
}

/// Neither by API, nor by update, nor by file; each time with the reason.
#[track_caller]
fn nobody_changes_it(secondary: &NameServer, control: &str) {
    let url = format!("http://{control}/v1/zones/a.example/changes");
    let body = r#"{"changes": [{"op": "add", "record": "x 60 IN A 192.0.2.66"}]}"#;
    let refused = said(&program("curl", &["-s", "-H", "Content-Type: application/json", "-d", body, &url]));
    assert!(refused.contains("copy") && refused.contains("primary"), "{refused}");
    let refused = update(secondary.address(), "a.example", "update add x.a.example 60 A 192.0.2.66");
    assert!(refused.contains("REFUSED"), "{refused}");
    let file = secondary.folder().join("a.example.zone");
    let edits = || secondary.log().matches("was edited or removed").count();
    let before = edits();
    std::fs::write(&file, zone("192.0.2.66")).expect("it is written");
    eventually(PATIENCE, || edits() > before);
    eventually(PATIENCE, || std::fs::read_to_string(&file).is_ok_and(|text| !text.contains("192.0.2.66")));
    assert_eq!(secondary.dig(&["www.a.example", "A", "+short"]), "192.0.2.1");
}

#[test]
fn flags_that_cannot_work_are_refused_at_the_start() {
    let folder = gateward_testkit::TempDir::new().expect("a directory can be made");
    std::fs::write(folder.path().join("own.example.zone"), zone("192.0.2.1")).expect("files can be written");
    let start = |flags: &[&str]| {
        let mut command = gateward_testkit::gateward_command();
        command.args(["dns", "--listen", "127.0.0.1:0", "--zones-dir"]).arg(folder.path()).args(flags);
        let output = command.output().expect("gateward can be started");
        assert!(!output.status.success(), "{flags:?}");
        said(&output)
    };
    for (flags, reason) in [
        (&["--secondary", "a.example"][..], "where the zone is copied from"),
        (&["--secondary", "a.example=ns.example"], "not the address of a primary"),
        (&["--secondary", "a.example=192.0.2.1#nokey"], "nokey. is not in"),
        (&["--secondary", "a.example=192.0.2.1", "--secondary-catalog", "a.example=192.0.2.1"], "named twice"),
        (&["--secondary", "own.example=192.0.2.1"], "a zone of your own"),
        (&["--catalog", "own.example"], "a zone of your own"),
        (&["--secondary", "a.example=192.0.2.1", "--catalog", "a.example"], "another name"),
    ] {
        let said = start(flags);
        assert!(said.contains(reason), "{flags:?}: {said}");
    }
}

fn named_conf(folder: &str, address: SocketAddr, catalogs: &str, zones: &str) -> String {
    let port = address.port();
    format!(
        r#"options {{ directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file "{folder}/pid";
session-keyfile "{folder}/session"; recursion no; dnssec-validation no; allow-new-zones yes; notify-delay 0; serial-query-rate 100; {catalogs} }};
controls {{ }};
key "xfr" {{ algorithm hmac-sha256; secret "{SECRET}"; }};
{zones}"#
    )
}

fn knot_conf(folder: &str, address: SocketAddr, other: SocketAddr, zones: &str) -> String {
    format!(
        "server:\n    listen: 127.0.0.1@{}\n    rundir: {folder}\n\
log:\n  - target: stderr\n    any: info\n\
database:\n    storage: {folder}\n\
key:\n  - id: xfr\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
remote:\n  - id: other\n    address: 127.0.0.1@{}\n    key: xfr\n\
acl:\n  - id: key\n    key: xfr\n    action: [notify, transfer, update]\n\
template:\n  - id: default\n    storage: {folder}\n  - id: member\n    storage: {folder}\n    master: other\n    acl: key\n{zones}",
        address.port(),
        other.port()
    )
}

/// A catalog as its operator writes it.
const WRITTEN_CATALOG: &str =
    "$TTL 0\n@ SOA invalid. invalid. 1 3600 600 86400 0\n@ NS invalid.\nversion TXT 2\none.zones PTR a.example.\n";

/// The zones of a primary that was just started with `a.example` in its catalog come here, and changes of them, and other members.
#[track_caller]
fn we_follow(daemon: &Daemon, secondary: &NameServer, list: impl Fn(bool)) {
    will_answer(secondary, "www.a.example", "192.0.2.1");
    will_answer(secondary, "www.plain.example", "192.0.2.3");
    assert_eq!(update(daemon.address(), "a.example", "update add new.a.example 60 A 192.0.2.9"), "");
    will_answer(secondary, "new.a.example", "192.0.2.9");
    list(true);
    will_answer(secondary, "www.b.example", "192.0.2.2");
    list(false);
    eventually(PATIENCE, || secondary.dig(&["www.b.example"]).contains("status: REFUSED"));
    will_answer(secondary, "www.a.example", "192.0.2.1");
}

fn secondary_of(daemon: SocketAddr, address: SocketAddr) -> NameServer {
    let from = |zone: &str| format!("{zone}=127.0.0.1:{}#xfr", daemon.port());
    let flags = ["--secondary-catalog", &from(CATALOG), "--secondary", &from("plain.example")];
    NameServer::start_at(address, &[("keys.yaml", KEYS)], &flags)
}

#[test]
fn we_copy_the_zones_of_named() {
    if !Brand::Named.is_here() {
        return;
    }
    let address = free_port();
    let told = format!(
        r#"allow-transfer {{ key "xfr"; }}; allow-update {{ key "xfr"; }}; notify explicit; also-notify {{ 127.0.0.1 port {} key "xfr"; }};"#,
        address.port()
    );
    let zones: String = [CATALOG, "a.example", "b.example", "plain.example"]
        .iter()
        .map(|zone| format!("zone \"{zone}\" {{ type primary; file \"{zone}\"; {told} }};\n"))
        .collect();
    let (a, b, plain) = (zone("192.0.2.1"), zone("192.0.2.2"), zone("192.0.2.3"));
    let files = [(CATALOG, WRITTEN_CATALOG), ("a.example", &*a), ("b.example", &*b), ("plain.example", &*plain)];
    let named = Daemon::start(Brand::Named, free_port(), &files, |folder, own| named_conf(folder, own, "", &zones));
    let secondary = secondary_of(named.address(), address);
    we_follow(&named, &secondary, |is_listed| {
        let verb = if is_listed { "add" } else { "delete" };
        let line = format!("update {verb} two.zones.{CATALOG} 0 PTR b.example.");
        assert_eq!(update(named.address(), CATALOG, &line), "");
    });
}

#[test]
fn we_copy_the_zones_of_knot() {
    if !Brand::Knot.is_here() {
        return;
    }
    let address = free_port();
    let member = format!("    catalog-role: member\n    catalog-zone: {CATALOG}\n");
    let zones = |with_b: bool| {
        let one = |zone: &str, more: &str| format!("  - domain: {zone}\n    notify: other\n    acl: key\n{more}");
        let b = if with_b { one("b.example", &format!("    file: b\n{member}")) } else { String::new() };
        format!(
            "zone:\n{}{}{}{b}",
            one(CATALOG, "    catalog-role: generate\n"),
            one("a.example", &format!("    file: a\n{member}")),
            one("plain.example", "    file: plain\n"),
        )
    };
    let (a, b, plain) = (zone("192.0.2.1"), zone("192.0.2.2"), zone("192.0.2.3"));
    let knot = Daemon::start(Brand::Knot, free_port(), &[("a", &*a), ("b", &*b), ("plain", &*plain)], |folder, own| {
        knot_conf(folder, own, address, &zones(false))
    });
    let secondary = secondary_of(knot.address(), address);
    we_follow(&knot, &secondary, |is_listed| {
        knot.reconfigure(&knot_conf(&knot.folder().display().to_string(), knot.address(), address, &zones(is_listed)));
    });
}

/// Another server follows our catalog: what it lists is served there, changes arrive, and what it lists no more goes.
#[track_caller]
fn they_follow(daemon: &Daemon, primary: &NameServer, gone: &str) {
    daemon.will_answer("www.a.example", "A", "192.0.2.1");
    add(primary, "b.example", "192.0.2.2", daemon.address());
    daemon.will_answer("www.b.example", "A", "192.0.2.2");
    assert_eq!(update(primary.address(), "a.example", "update add new.a.example 60 A 192.0.2.9"), "");
    daemon.will_answer("new.a.example", "A", "192.0.2.9");
    remove(primary, "b.example");
    daemon.will_answer("www.b.example", "A", gone);
    daemon.will_answer("www.a.example", "A", "192.0.2.1");
}

#[test]
fn named_copies_our_zones() {
    if !Brand::Named.is_here() {
        return;
    }
    let address = free_port();
    let primary = primary(&[("a.example", "192.0.2.1")], address);
    let from = format!(r#"{{ 127.0.0.1 port {} key "xfr"; }}"#, primary.address().port());
    let named = Daemon::start(Brand::Named, address, &[], |folder, own| {
        let catalogs = format!(
            r#"catalog-zones {{ zone "{CATALOG}" default-primaries {from} zone-directory "{folder}" min-update-interval 1; }};"#
        );
        let zone = format!(r#"zone "{CATALOG}" {{ type secondary; file "catalog"; primaries {from}; }};"#);
        named_conf(folder, own, &catalogs, &zone)
    });
    they_follow(&named, &primary, "");
}

#[test]
fn knot_copies_our_zones() {
    if !Brand::Knot.is_here() {
        return;
    }
    let address = free_port();
    let primary = primary(&[("a.example", "192.0.2.1")], address);
    let knot = Daemon::start(Brand::Knot, address, &[], |folder, own| {
        let zone = format!(
            "zone:\n  - domain: {CATALOG}\n    master: other\n    acl: key\n    catalog-role: interpret\n    catalog-template: member\n"
        );
        knot_conf(folder, own, primary.address(), &zone)
    });
    they_follow(&knot, &primary, "");
}
