//! octodns keeps a zone as its files say: it copies what is there (AXFR with a key), and sends the difference (RFC 2136).

use gateward_e2e::names::{NameServer, said};
use gateward_testkit::TempDir;
use std::path::Path;
use std::process::Command;

const SECRET: &str = "c2VjcmV0IG9mIHRoZSB0ZXN0cywgbG9uZyBlbm91Z2g=";

const ZONE: &str = "\
$TTL 300
@ SOA ns1 hostmaster 1 3600 600 86400 300
@ NS ns1.example.com.
ns1 A 192.0.2.53
old A 192.0.2.9
";

const RECORDS: &str = "\
'': {ttl: 300, type: NS, values: [ns1.example.com.]}
ns1: {ttl: 300, type: A, values: [192.0.2.53]}
api: {ttl: 60, type: A, values: [192.0.2.1, 192.0.2.2]}
six: {ttl: 60, type: AAAA, value: '2001:db8::1'}
www: {ttl: 60, type: CNAME, value: api.example.com.}
mail: {ttl: 60, type: MX, values: [{preference: 10, exchange: api.example.com.}]}
note: {ttl: 60, type: TXT, value: 'v=spf1 -all'}
_sip._tcp: {ttl: 60, type: SRV, values: [{priority: 1, weight: 2, port: 5060, target: api.example.com.}]}
";

/// octodns with its files.
struct Octodns(TempDir);

impl Octodns {
    fn of(server: &NameServer) -> Self {
        let folder = TempDir::new().expect("a folder can be made");
        let config = format!(
            "providers:\n  files: {{class: octodns.provider.yaml.YamlProvider, directory: {}, enforce_order: false}}\n  \
             server: {{class: octodns_bind.Rfc2136Provider, host: 127.0.0.1, port: {}, key_name: octodns, \
             key_secret: {SECRET}, key_algorithm: hmac-sha256}}\n\
             zones:\n  example.com.: {{sources: [files], targets: [server]}}\n",
            folder.path().display(),
            server.address().port()
        );
        std::fs::write(folder.path().join("config.yaml"), config).expect("files can be written");
        Self(folder)
    }

    /// Make the server's zone what `records` say; what it says of its doings.
    #[track_caller]
    fn sync(&self, records: &str) -> String {
        std::fs::write(self.0.path().join("example.com.yaml"), records).expect("files can be written");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e is in the workspace");
        let mut sync = Command::new(root.join(".venv/bin/octodns-sync"));
        sync.arg("--config-file").arg(self.0.path().join("config.yaml")).args(["--doit", "--force"]);
        let output = sync.output().expect("`cargo xtask setup` installs octodns into .venv");
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    }
}

fn policy(types: &str) -> String {
    format!("keys:\n- {{key: octodns, types: [{types}]}}\ntransfers: {{keys: [octodns]}}\n")
}

#[test]
fn a_zone_is_kept_as_its_files_say() {
    let keys = format!("octodns: {{algorithm: hmac-sha256, secret: {SECRET}}}\n");
    let policy = policy("A, AAAA, CNAME, MX, TXT, SRV");
    let files =
        [("example.com.zone", ZONE), ("example.com.policy.yaml", policy.as_str()), ("keys.yaml", keys.as_str())];
    let server = NameServer::start(&files, &[]);
    let octodns = Octodns::of(&server);
    octodns.sync(RECORDS);
    let short = |name: &str, kind: &str| {
        let mut lines: Vec<_> = server.dig(&[name, kind, "+short"]).lines().map(str::to_owned).collect();
        lines.sort();
        lines.join(" ")
    };
    assert_eq!(short("api.example.com", "A"), "192.0.2.1 192.0.2.2");
    assert_eq!(short("six.example.com", "AAAA"), "2001:db8::1");
    assert_eq!(short("www.example.com", "CNAME"), "api.example.com.");
    assert_eq!(short("mail.example.com", "MX"), "10 api.example.com.");
    assert_eq!(short("note.example.com", "TXT"), "\"v=spf1 -all\"");
    assert_eq!(short("_sip._tcp.example.com", "SRV"), "1 2 5060 api.example.com.");
    assert_eq!(short("old.example.com", "A"), "", "what the files do not have goes");
    let serial = || server.dig(&["example.com", "SOA", "+short"]).split(' ').nth(2).map(str::to_owned);
    let after = serial();
    let said = octodns.sync(RECORDS);
    assert!(said.contains("No changes were planned"), "{said}");
    assert_eq!(serial(), after, "nothing is sent where nothing differs");
    octodns.sync(&RECORDS.replace("192.0.2.2]", "192.0.2.3]").replace("ttl: 60, type: TXT", "ttl: 120, type: TXT"));
    assert_eq!(short("api.example.com", "A"), "192.0.2.1 192.0.2.3");
    assert!(server.dig(&["note.example.com", "TXT", "+noall", "+answer"]).contains("\t120\t"));
}
