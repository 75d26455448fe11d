//! The policy file: YAML (or JSON) to [`Policy`], every error with its line.
//!
//! Names are relative to the zone unless they end with a dot; `@` is its apex. All fields may be left out:
//!
//! ```yaml
//! owner: platform                   # for people
//! principals: [alice, ci]           # who may change the zone by API, plan or lease; none: everybody who reaches the control API
//! subtrees:                         # parts that only others may change
//!   - {subtree: team-a, owner: team-a, principals: [bob], types: [A, AAAA, CNAME, TXT]}
//! keys:                             # what TSIG keys may update
//!   - {key: external-dns, subtree: k8s, types: [A, AAAA, CNAME, TXT]}
//!   - {key: cert-manager, labels: [_acme-challenge], types: [TXT]}
//! transfers: {keys: [secondary], networks: [192.0.2.0/24]}
//! secondaries: [{address: 192.0.2.53, port: 53, key: secondary}]
//! protected: true                   # the zone cannot be deleted
//! protected_names: [www, "@ MX"]    # records that may not go
//! never_empty: ["api A"]            # names that keep at least one record
//! max_deleted_percent: 30           # of the records, in one change
//! max_changed_percent: 30
//! percent_floor: 10                 # smaller zones know no percentages
//! lock_apex: true                   # SOA and NS of the apex
//! ttl: {min: 30, max: 1d, clamp: false}
//! addresses: [10.0.0.0/8]           # what A and AAAA may point into
//! targets: ["@", elb.amazonaws.com.] # what CNAME and DNAME may point into
//! freezes:
//!   - {start: 2026-12-20T00:00:00Z, end: 2027-01-04T00:00:00Z, reason: holidays, except: [lease]}
//! limits: {queries_per_second: 20000, updates_per_second: 100, records: 10000}
//! force: {keys: {alice: "BASE64", bob: "BASE64"}, signatures: 2, max_hours: 24}
//! ```

use gateward_yaml::{Node, Tree, did_you_mean, parse_json, parse_yaml, quote};

use super::{ActorKind, Freeze, KeyGrant, Limits, NameRule, Policy, Secondary, Subtree, Transfers, TtlBounds};
use crate::force::{ForcePolicy, PublicKey};
use crate::name::Name;
use crate::problem::{Problem, Severity};
use crate::ttl::parse_ttl;

const FIELDS: &[&str] = &[
    "owner",
    "principals",
    "subtrees",
    "keys",
    "transfers",
    "secondaries",
    "protected",
    "protected_names",
    "never_empty",
    "max_deleted_percent",
    "max_changed_percent",
    "percent_floor",
    "lock_apex",
    "ttl",
    "addresses",
    "targets",
    "freezes",
    "force",
    "limits",
];

impl Policy {
    /// Reads a policy file of the zone `origin`; `file` names it in errors.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn from_yaml(text: &[u8], origin: &Name, file: &str) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader { origin, file, problems: Vec::new() };
        // JSON is YAML, but for a few characters in strings.
        let json = text.trim_ascii_start().starts_with(b"{").then(|| parse_json(text).ok()).flatten();
        match json.map_or_else(|| parse_yaml(text), Ok) {
            Err(error) => reader.problem(error.position.line, error.message),
            Ok(node) => {
                let policy = reader.policy(&node);
                if reader.problems.is_empty() {
                    return Ok(policy);
                }
            }
        }
        Err(reader.problems)
    }
}

struct Reader<'a> {
    origin: &'a Name,
    file: &'a str,
    problems: Vec<Problem>,
}

/// The fields of a map that was checked for unknown ones.
struct Fields<'n>(Option<&'n Node>);

impl<'n> Fields<'n> {
    /// The value of a field that is there.
    fn get(&self, name: &str) -> Option<&'n Node> {
        self.0?.get(name).filter(|node| !node.is_null())
    }
}

impl Reader<'_> {
    fn policy(&mut self, node: &Node) -> Policy {
        let fields = self.fields(node, FIELDS);
        let default = Policy::default();
        let percent = |reader: &mut Self, name: &str, default: u8| {
            let value = fields.get(name).map(|node| (node, reader.integer(node, 0, 100)));
            value.map_or(default, |(_, value)| u8::try_from(value).unwrap_or(100))
        };
        Policy {
            max_deleted_percent: percent(self, "max_deleted_percent", default.max_deleted_percent),
            max_changed_percent: percent(self, "max_changed_percent", default.max_changed_percent),
            percent_floor: fields.get("percent_floor").map_or(default.percent_floor, |node| {
                usize::try_from(self.integer(node, 0, i64::from(u32::MAX))).unwrap_or(usize::MAX)
            }),
            owner: fields.get("owner").map(|node| self.text(node)),
            principals: self.list(fields.get("principals"), Self::text),
            subtrees: self.list(fields.get("subtrees"), Self::subtree),
            keys: self.list(fields.get("keys"), Self::key_grant),
            transfers: fields.get("transfers").map(|node| self.transfers(node)).unwrap_or_default(),
            secondaries: self.list(fields.get("secondaries"), Self::secondary).into_iter().flatten().collect(),
            protected: fields.get("protected").map_or(default.protected, |node| self.boolean(node)),
            protected_names: self.list(fields.get("protected_names"), Self::name_rule),
            never_empty: self.list(fields.get("never_empty"), Self::name_rule),
            lock_apex: fields.get("lock_apex").map_or(default.lock_apex, |node| self.boolean(node)),
            ttl: fields.get("ttl").map(|node| self.ttl_bounds(node)).unwrap_or_default(),
            addresses: self.networks(fields.get("addresses")),
            targets: self.list(fields.get("targets"), Self::name),
            freezes: self.list(fields.get("freezes"), Self::freeze),
            force: fields.get("force").map(|node| self.force(node)).unwrap_or_default(),
            limits: fields.get("limits").map(|node| self.limits(node)).unwrap_or_default(),
        }
    }

    fn subtree(&mut self, node: &Node) -> Subtree {
        let fields = self.fields(node, &["subtree", "owner", "principals", "types"]);
        let principals = self.list(fields.get("principals"), Self::text);
        if principals.is_empty() {
            self.problem(node.position.line, "a subtree needs `principals`: who may change it");
        }
        Subtree {
            name: self.required(node, &fields, "subtree").map_or_else(Name::root, |node| self.name_in_zone(node)),
            owner: fields.get("owner").map(|node| self.text(node)),
            principals,
            types: self.list(fields.get("types"), Self::rtype).into_iter().flatten().collect(),
        }
    }

    fn key_grant(&mut self, node: &Node) -> KeyGrant {
        let fields = self.fields(node, &["key", "subtree", "labels", "types"]);
        KeyGrant {
            key: self.required(node, &fields, "key").map_or_else(Name::root, |node| self.key_name(node)),
            subtree: fields.get("subtree").map_or_else(|| self.origin.clone(), |node| self.name_in_zone(node)),
            labels: self.list(fields.get("labels"), |reader, node| reader.text(node).to_ascii_lowercase()),
            types: self.list(fields.get("types"), Self::rtype).into_iter().flatten().collect(),
        }
    }

    fn limits(&mut self, node: &Node) -> Limits {
        let fields = self.fields(node, &["queries_per_second", "updates_per_second", "records"]);
        let mut number = |name: &str| {
            let value = fields.get(name).map(|node| self.integer(node, 1, i64::from(u32::MAX)))?;
            u32::try_from(value).ok()
        };
        Limits {
            queries_per_second: number("queries_per_second"),
            updates_per_second: number("updates_per_second"),
            records: number("records"),
        }
    }

    fn transfers(&mut self, node: &Node) -> Transfers {
        let fields = self.fields(node, &["keys", "networks"]);
        Transfers {
            keys: self.list(fields.get("keys"), Self::key_name),
            networks: self.networks(fields.get("networks")),
        }
    }

    fn secondary(&mut self, node: &Node) -> Option<Secondary> {
        let fields = self.fields(node, &["address", "port", "key"]);
        let port = fields.get("port").map_or(53, |node| self.integer(node, 1, 65_535));
        let key = fields.get("key").map(|node| self.key_name(node));
        let address = self.required(node, &fields, "address")?;
        let text = self.text(address);
        let address = text.parse().map_err(|_| self.wrong(address, "an IP address", &text)).ok()?;
        Some(Secondary { address, port: u16::try_from(port).unwrap_or(53), key })
    }

    fn ttl_bounds(&mut self, node: &Node) -> TtlBounds {
        let fields = self.fields(node, &["min", "max", "clamp"]);
        let bounds = TtlBounds {
            min: fields.get("min").map(|node| self.seconds(node)),
            max: fields.get("max").map(|node| self.seconds(node)),
            clamp: fields.get("clamp").is_some_and(|node| self.boolean(node)),
        };
        if let (Some(min), Some(max)) = (bounds.min, bounds.max)
            && min > max
        {
            self.problem(node.position.line, format!("the least TTL, {min}, is above the most, {max}"));
        }
        bounds
    }

    fn freeze(&mut self, node: &Node) -> Freeze {
        let fields = self.fields(node, &["start", "end", "reason", "except"]);
        let freeze = Freeze {
            start: self.required(node, &fields, "start").map_or(0, |node| self.time(node)),
            end: self.required(node, &fields, "end").map_or(0, |node| self.time(node)),
            reason: fields.get("reason").map(|node| self.text(node)).unwrap_or_default(),
            except: match fields.get("except") {
                Some(list) => self.list(Some(list), Self::actor_kind).into_iter().flatten().collect(),
                None => vec![ActorKind::Lease],
            },
        };
        if freeze.start > freeze.end {
            self.problem(node.position.line, "the freeze ends before it starts");
        }
        freeze
    }

    fn force(&mut self, node: &Node) -> ForcePolicy {
        let fields = self.fields(node, &["keys", "signatures", "max_hours"]);
        let mut force = ForcePolicy::default();
        match fields.get("keys").map(|node| (node, node.as_map())) {
            None => {}
            Some((node, None)) => {
                self.problem(
                    node.position.line,
                    format!("`keys` is {}, not a map of people and keys", node.describe()),
                );
            }
            Some((_, Some(entries))) => {
                for (person, node) in entries {
                    let text = self.text(node);
                    match PublicKey::from_base64(&text) {
                        Some(key) => _ = force.keys.insert(person.text.clone(), key),
                        None => self.wrong(node, "the Base64 of an Ed25519 public key (32 octets)", &text),
                    }
                }
            }
        }
        if let Some(node) = fields.get("signatures") {
            force.signatures = u8::try_from(self.integer(node, 1, 2)).unwrap_or(2);
        }
        if let Some(node) = fields.get("max_hours") {
            force.max_seconds = 3_600 * self.integer(node, 1, 24 * 31);
        }
        force
    }

    /// A name with an optional type behind it.
    fn name_rule(&mut self, node: &Node) -> NameRule {
        let text = self.text(node);
        let (name, rtype) = match text.split_once(' ') {
            None => (&*text, None),
            Some((name, rtype)) => match rtype.trim().parse() {
                Ok(rtype) => (name, Some(rtype)),
                Err(_) => {
                    self.wrong(node, "a name, or a name and a record type", &text);
                    (name, None)
                }
            },
        };
        let name = self.parse_name(node, name);
        self.in_zone(node, &name);
        NameRule { name, rtype }
    }

    fn name(&mut self, node: &Node) -> Name {
        let text = self.text(node);
        self.parse_name(node, &text)
    }

    fn name_in_zone(&mut self, node: &Node) -> Name {
        let name = self.name(node);
        self.in_zone(node, &name);
        name
    }

    /// Names of keys are relative to nothing.
    fn key_name(&mut self, node: &Node) -> Name {
        let text = self.text(node);
        text.parse().unwrap_or_else(|error| {
            self.problem(node.position.line, format!("`{}` is not the name of a key: {error}", quote(&text)));
            Name::root()
        })
    }

    fn parse_name(&mut self, node: &Node, text: &str) -> Name {
        Name::parse_in(text, self.origin).unwrap_or_else(|error| {
            self.problem(node.position.line, format!("`{}` is not a domain name: {error}", quote(text)));
            self.origin.clone()
        })
    }

    fn in_zone(&mut self, node: &Node, name: &Name) {
        if !name.is_in(self.origin) {
            self.problem(node.position.line, format!("{name} is not in the zone {}", self.origin));
        }
    }

    fn rtype(&mut self, node: &Node) -> Option<domain::base::iana::Rtype> {
        let text = self.text(node);
        text.parse().map_err(|_| self.wrong(node, "a record type", &text)).ok()
    }

    fn actor_kind(&mut self, node: &Node) -> Option<ActorKind> {
        let text = self.text(node);
        let found = ActorKind::ALL.iter().find(|(word, _)| *word == text).map(|(_, kind)| *kind);
        if found.is_none() {
            self.wrong(node, "one of file, api, update, plan, lease", &text);
        }
        found
    }

    fn networks(&mut self, node: Option<&Node>) -> Vec<ipnet::IpNet> {
        let network = |reader: &mut Self, node: &Node| {
            let text = reader.text(node);
            let network =
                text.parse::<ipnet::IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(Into::into));
            if network.is_none() {
                reader.wrong(node, "a network such as 10.0.0.0/8", &text);
            }
            network
        };
        self.list(node, network).into_iter().flatten().collect()
    }

    fn time(&mut self, node: &Node) -> i64 {
        let text = self.text(node);
        text.parse::<jiff::Timestamp>().map_or_else(
            |_| {
                self.wrong(node, "a time such as 2026-12-20T00:00:00Z (RFC 3339)", &text);
                0
            },
            jiff::Timestamp::as_second,
        )
    }

    fn seconds(&mut self, node: &Node) -> u32 {
        if matches!(node.value, Tree::Int(_)) {
            return u32::try_from(self.integer(node, 0, i64::from(u32::MAX))).unwrap_or(0);
        }
        let text = self.text(node);
        parse_ttl(text.as_bytes()).unwrap_or_else(|| {
            self.wrong(node, "seconds, or a time such as 1h30m", &text);
            0
        })
    }

    fn list<T>(&mut self, node: Option<&Node>, mut item: impl FnMut(&mut Self, &Node) -> T) -> Vec<T> {
        match node.map(|node| (node, &node.value)) {
            None => Vec::new(),
            Some((_, Tree::Seq(items))) => items.iter().map(|node| item(self, node)).collect(),
            Some((node, _)) => {
                self.problem(node.position.line, format!("a list is expected, this is {}", node.describe()));
                Vec::new()
            }
        }
    }

    fn fields<'n>(&mut self, node: &'n Node, known: &[&str]) -> Fields<'n> {
        if node.is_null() {
            return Fields(None);
        }
        let Some(entries) = node.as_map() else {
            self.problem(node.position.line, format!("a map is expected, this is {}", node.describe()));
            return Fields(None);
        };
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&&*key.text)) {
            let hint = did_you_mean(&key.text, known.iter().copied());
            self.problem(key.position.line, format!("`{}` is not a field of a policy{hint}", quote(&key.text)));
        }
        Fields(Some(node))
    }

    fn required<'n>(&mut self, node: &Node, fields: &Fields<'n>, name: &str) -> Option<&'n Node> {
        let found = fields.get(name);
        if found.is_none() {
            self.problem(node.position.line, format!("`{name}` is missing"));
        }
        found
    }

    fn text(&mut self, node: &Node) -> String {
        match &node.value {
            Tree::String { text, .. } => text.clone(),
            Tree::Int(number) => number.to_string(),
            _ => {
                self.problem(node.position.line, format!("a text is expected, this is {}", node.describe()));
                String::new()
            }
        }
    }

    fn boolean(&mut self, node: &Node) -> bool {
        if let Tree::Bool(value) = node.value {
            return value;
        }
        self.problem(node.position.line, format!("true or false is expected, this is {}", node.describe()));
        false
    }

    fn integer(&mut self, node: &Node, least: i64, most: i64) -> i64 {
        if let Tree::Int(value) = node.value
            && (least..=most).contains(&value)
        {
            return value;
        }
        self.problem(node.position.line, format!("a number from {least} to {most} is expected"));
        least
    }

    fn wrong(&mut self, node: &Node, what: &str, text: &str) {
        self.problem(node.position.line, format!("`{}` is not {what}", quote(text)));
    }

    fn problem(&mut self, line: u32, message: impl Into<String>) {
        let (file, message) = (self.file.into(), message.into());
        self.problems.push(Problem { file, line, rule: "policy", severity: Severity::Error, message, remedy: None });
    }
}
