//! Times, limits and guardrails: given once under `defaults`, and differently where a level says so.

use std::collections::BTreeMap;

use gateward_yaml::{Path, quote};
use gateward_zone::Name;
use ipnet::IpNet;

use super::reader::{At, Report};

/// Settings of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Seconds a cache may keep declared records.
    pub ttl: u32,
    /// Seconds a cache may keep delegations and addresses of name servers.
    pub ns_ttl: u32,
    /// Timers and mailbox of the SOA record.
    pub soa: Soa,
    /// What the zone may cost.
    pub limits: Limits,
    /// What may not happen to it.
    pub guardrails: Guardrails,
}

/// What the SOA record says besides server and serial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Soa {
    /// The mailbox as in RNAME; `hostmaster` of the root when none is given.
    pub contact: Option<Name>,
    /// Seconds between a secondary's checks.
    pub refresh: u32,
    /// Seconds until a failed check is repeated.
    pub retry: u32,
    /// Seconds after which a secondary without news stops to answer.
    pub expire: u32,
    /// Seconds a cache may keep "there is no such name".
    pub negative_ttl: u32,
}

/// What a zone may cost its servers; none is the server's own limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Answered queries per second and server.
    pub queries_per_second: Option<u32>,
    /// Accepted dynamic updates per second.
    pub updates_per_second: Option<u32>,
    /// Records in the zone.
    pub records: Option<u32>,
}

/// Rules the server applies to every change of the zone, whoever makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guardrails {
    /// The zone cannot be deleted without a force token.
    pub deletion_protection: bool,
    /// Share of the records one change may remove.
    pub max_deleted_percent: Option<u32>,
    /// Share of the records one change may touch.
    pub max_changed_percent: Option<u32>,
    /// Least and greatest time to live.
    pub min_ttl: Option<u32>,
    /// Greatest time to live.
    pub max_ttl: Option<u32>,
    /// Networks that addresses must lie in; empty for all.
    pub allowed_addresses: Vec<IpNet>,
    /// Names, relative to the zone, that must always have records.
    pub never_empty: Vec<String>,
    /// Names, relative to the zone, that change with a force token only.
    pub protected_names: Vec<String>,
    /// Times in which nothing changes.
    pub freezes: Vec<Freeze>,
    /// Zones with fewer records than this know no percentages.
    pub percent_floor: Option<u32>,
    /// Whether the name servers at the apex change with a force token only.
    pub lock_apex: bool,
    /// Who may sign for exceptions.
    pub force: Force,
}

/// A time without changes, in RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// Its first moment.
    pub start: String,
    /// The first moment after it.
    pub end: String,
    /// Why.
    pub reason: String,
}

/// Who may sign for a change against the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Force {
    /// Ed25519 public keys (Base64) by person.
    pub keys: BTreeMap<String, String>,
    /// How many of them must sign.
    pub signatures: Option<u32>,
    /// How long a signature may hold.
    pub max_hours: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            ttl: 300,
            ns_ttl: 3_600,
            // Of RIPE-203 what is for zones that change often; the negative TTL is Route 53's.
            soa: Soa { contact: None, refresh: 3_600, retry: 900, expire: 1_209_600, negative_ttl: 900 },
            limits: Limits::default(),
            guardrails: Guardrails {
                deletion_protection: true,
                max_deleted_percent: None,
                max_changed_percent: None,
                min_ttl: None,
                max_ttl: None,
                allowed_addresses: Vec::new(),
                never_empty: Vec::new(),
                protected_names: Vec::new(),
                freezes: Vec::new(),
                percent_floor: None,
                lock_apex: true,
                force: Force::default(),
            },
        }
    }
}

/// Names of the fields that [`settings`] reads; they stand directly in a level or in `defaults`.
pub(super) const FIELDS: [&str; 5] = ["ttl", "ns_ttl", "soa", "limits", "guardrails"];

const SOA: &[&str] = &["contact", "refresh", "retry", "expire", "negative_ttl"];
const LIMITS: &[&str] = &["queries_per_second", "updates_per_second", "records"];
const GUARDRAILS: &[&str] = &[
    "deletion_protection",
    "max_deleted_percent",
    "max_changed_percent",
    "min_ttl",
    "max_ttl",
    "allowed_addresses",
    "never_empty",
    "protected_names",
    "freezes",
    "percent_floor",
    "lock_apex",
    "force",
];

const YEAR: u32 = 31_536_000;

/// Seconds a cache may keep something (RFC 2181, 8).
pub(super) fn ttl(at: At<'_>, report: &mut Report) -> Option<u32> {
    at.seconds(0..=i32::MAX.unsigned_abs(), report)
}

/// What a level says, over what it inherits.
pub(super) fn settings(at: At<'_>, inherited: &Settings, report: &mut Report) -> Settings {
    let mut settings = inherited.clone();
    // Names are relative to their zone: they are not inherited.
    settings.guardrails.never_empty.clear();
    settings.guardrails.protected_names.clear();
    let fields = at.fields_unchecked();
    put(&mut settings.ttl, fields.read("ttl", |at| ttl(at, report)));
    put(&mut settings.ns_ttl, fields.read("ns_ttl", |at| ttl(at, report)));
    fields.look("soa", |at| soa(at, &mut settings.soa, report));
    fields.look("limits", |at| limits(at, &mut settings.limits, report));
    fields.look("guardrails", |at| guardrails(at, &mut settings.guardrails, report));
    settings
}

fn put<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn soa(at: At<'_>, soa: &mut Soa, report: &mut Report) {
    let fields = at.fields(SOA, report);
    if let Some(contact) = fields.read("contact", |at| contact(at, report)) {
        soa.contact = Some(contact);
    }
    for (name, place) in [
        ("refresh", &mut soa.refresh),
        ("retry", &mut soa.retry),
        ("expire", &mut soa.expire),
        ("negative_ttl", &mut soa.negative_ttl),
    ] {
        put(place, fields.read(name, |at| at.seconds(1..=YEAR, report)));
    }
    if soa.expire <= soa.refresh.saturating_add(soa.retry) {
        at.fail(report, "expire must be longer than refresh and retry together, or secondaries give up too early");
    }
}

/// A mailbox, written with @ or as a name.
fn contact(at: At<'_>, report: &mut Report) -> Option<Name> {
    let text = at.text(report)?;
    let name = match text.split_once('@') {
        Some((user, host)) => host.parse::<Name>().and_then(|host| host.child(user.as_bytes())),
        None => text.parse(),
    };
    name.map_err(|error| at.fail(report, format!("'{}' is not a mailbox: {error}", quote(text)))).ok()
}

fn limits(at: At<'_>, limits: &mut Limits, report: &mut Report) {
    let fields = at.fields(LIMITS, report);
    for (name, place) in [
        ("queries_per_second", &mut limits.queries_per_second),
        ("updates_per_second", &mut limits.updates_per_second),
        ("records", &mut limits.records),
    ] {
        if let Some(value) = fields.read(name, |at| at.integer(1..=u32::MAX, report)) {
            *place = Some(value);
        }
    }
}

fn guardrails(at: At<'_>, rails: &mut Guardrails, report: &mut Report) {
    let fields = at.fields(GUARDRAILS, report);
    put(&mut rails.deletion_protection, fields.read("deletion_protection", |at| at.boolean(report)));
    put(&mut rails.lock_apex, fields.read("lock_apex", |at| at.boolean(report)));
    if let Some(floor) = fields.read("percent_floor", |at| at.integer(0..=u32::MAX, report)) {
        rails.percent_floor = Some(floor);
    }
    fields.look("force", |at| force(at, &mut rails.force, report));
    for (name, place) in [
        ("max_deleted_percent", &mut rails.max_deleted_percent),
        ("max_changed_percent", &mut rails.max_changed_percent),
    ] {
        if let Some(value) = fields.read(name, |at| at.integer(0..=100, report)) {
            *place = Some(value);
        }
    }
    for (name, place) in [("min_ttl", &mut rails.min_ttl), ("max_ttl", &mut rails.max_ttl)] {
        if let Some(value) = fields.read(name, |at| ttl(at, report)) {
            *place = Some(value);
        }
    }
    if rails.min_ttl.zip(rails.max_ttl).is_some_and(|(min, max)| min > max) {
        at.fail(report, "min_ttl is greater than max_ttl");
    }
    put(&mut rails.allowed_addresses, fields.read("allowed_addresses", |at| Some(each(at, report, network))));
    put(&mut rails.never_empty, fields.read("never_empty", |at| Some(each(at, report, relative_name))));
    put(&mut rails.protected_names, fields.read("protected_names", |at| Some(each(at, report, relative_name))));
    put(&mut rails.freezes, fields.read("freezes", |at| Some(each(at, report, freeze))));
}

/// Every item of a list that is right.
pub(super) fn each<T>(at: At<'_>, report: &mut Report, read: fn(At<'_>, &mut Report) -> Option<T>) -> Vec<T> {
    let items = at.items().iter().enumerate();
    items.filter_map(|(index, node)| read(At::new(node, &Path::Index(at.path, index)), report)).collect()
}

fn network(at: At<'_>, report: &mut Report) -> Option<IpNet> {
    let text = at.text(report)?;
    let parsed = text.parse::<IpNet>();
    if parsed.is_err() {
        at.fail(report, format!("'{}' is not a network such as 10.0.0.0/8", quote(text)));
    }
    parsed.ok()
}

fn relative_name(at: At<'_>, report: &mut Report) -> Option<String> {
    let text = at.text(report)?;
    match Name::parse_in(text, &Name::root()) {
        Ok(_) if !text.ends_with('.') => Some(text.to_owned()),
        Ok(_) => {
            at.fail(report, "a name relative to its zone has no dot at its end; @ is the zone itself");
            None
        }
        Err(error) => {
            at.fail(report, format!("'{}' is not a domain name: {error}", quote(text)));
            None
        }
    }
}

fn freeze(at: At<'_>, report: &mut Report) -> Option<Freeze> {
    let fields = at.fields(&["start", "end", "reason"], report);
    let start = fields.required("start", report, |at, report| at.text(report).map(str::to_owned));
    let end = fields.required("end", report, |at, report| at.text(report).map(str::to_owned));
    let reason = fields.text("reason", report).unwrap_or_default();
    Some(Freeze { start: start?, end: end?, reason })
}

fn force(at: At<'_>, force: &mut Force, report: &mut Report) {
    let fields = at.fields(&["keys", "signatures", "max_hours"], report);
    fields.look("keys", |at| {
        for (person, node) in at.entries(report) {
            let path = Path::Key(at.path, &person.text);
            if let Some(key) = At::new(node, &path).text(report) {
                force.keys.insert(person.text.clone(), key.to_owned());
            }
        }
    });
    for (name, place) in [("signatures", &mut force.signatures), ("max_hours", &mut force.max_hours)] {
        if let Some(value) = fields.read(name, |at| at.integer(1..=10_000, report)) {
            *place = Some(value);
        }
    }
}
