//! Who may write by itself: keys of external-dns, cert-manager and others, as grants of a subtree and types.

use std::collections::BTreeMap;
use std::str::FromStr;

use gateward_yaml::{did_you_mean, quote};
use gateward_zone::{Name, Rtype};

use super::keys::{Key, known_key};
use super::reader::{At, Report};
use super::settings::each;
use super::{Grant, Runtime, Service};

/// What kind of program writes, and so which types at which names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A, AAAA, CNAME and TXT at the services' names, and the names of its registry beside them.
    ExternalDns,
    /// TXT at `_acme-challenge` of each name.
    CertManager,
    /// The types that are listed.
    Custom,
}

const KINDS: &[(&str, Kind)] =
    &[("external-dns", Kind::ExternalDns), ("cert-manager", Kind::CertManager), ("custom", Kind::Custom)];

const FIELDS: &[&str] = &["key", "kind", "services", "names", "types"];

/// Types that decide about delegation and signing; no runtime may write them.
pub(crate) const STRUCTURAL: &[Rtype] =
    &[Rtype::SOA, Rtype::NS, Rtype::DS, Rtype::DNAME, Rtype::DNSKEY, Rtype::RRSIG, Rtype::NSEC, Rtype::NSEC3];

/// What external-dns's TXT registry puts before a name (its releases from 0.18 on).
pub(super) const REGISTRY_PREFIXES: [&str; 3] = ["a-", "aaaa-", "cname-"];

/// Where the writers of a level may write.
pub(super) struct Scope<'a> {
    /// The level's own name: what relative names are relative to.
    pub(super) origin: &'a Name,
    /// The services whose names may be written; of a service, itself.
    pub(super) services: &'a [Service],
    /// Whether the level is a service, so that its writers are for its own name.
    pub(super) is_service: bool,
    /// The keys that there are.
    pub(super) keys: &'a BTreeMap<String, Key>,
}

/// Reads `writers`.
pub(super) fn writers(at: At<'_>, scope: &Scope<'_>, report: &mut Report) -> Vec<Grant> {
    let mut grants = Vec::new();
    for (index, node) in at.items().iter().enumerate() {
        let path = gateward_yaml::Path::Index(at.path, index);
        writer(At::new(node, &path), scope, report, &mut grants);
    }
    grants
}

fn writer(at: At<'_>, scope: &Scope<'_>, report: &mut Report, grants: &mut Vec<Grant>) {
    let fields = at.fields(FIELDS, report);
    let key = fields.required("key", report, |at, report| known_key(at, scope.keys, report));
    let kind = fields.required("kind", report, |at, report| at.word(KINDS, report));
    let types = fields.read("types", |at| Some(each(at, report, writable_type)));
    let names = fields.read("names", |at| Some(each(at, report, |at, report| at.text(report).map(str::to_owned))));
    let services = fields.read("services", |at| Some(services(at, scope, report)));
    let (Some(key), Some(kind)) = (key, kind) else { return };
    match (kind, &types) {
        (Kind::Custom, None) => at.fail(report, "a custom writer needs 'types', the types of records it may write"),
        (Kind::ExternalDns | Kind::CertManager, Some(_)) => {
            at.fail(report, "the types follow from the kind; give 'types' for the kind custom only");
        }
        _ => {}
    }
    let mut subjects = services.unwrap_or_default();
    for name in names.iter().flatten() {
        match Name::parse_in(name, scope.origin) {
            Ok(name) if name.is_in(scope.origin) => subjects.push(name),
            Ok(name) => at.fail(report, format!("{name} is not in {}", scope.origin)),
            Err(error) => at.fail(report, format!("'{}' is not a domain name: {error}", quote(name))),
        }
    }
    if subjects.is_empty() && names.is_none() {
        subjects = default_subjects(kind, scope);
    }
    if subjects.is_empty() && !names_are_given(at) {
        at.fail(report, "there is nothing for it to write; give 'services' or 'names'");
    }
    for subject in &subjects {
        grant(at, &key, kind, types.as_deref().unwrap_or(&[]), subject, report, grants);
    }
}

/// Whether names were given, so that what is wrong with them was said already.
fn names_are_given(at: At<'_>) -> bool {
    ["services", "names"].iter().any(|field| at.node.get(field).is_some())
}

/// Without names a writer is for its own service, or for those that register in its way.
fn default_subjects(kind: Kind, scope: &Scope<'_>) -> Vec<Name> {
    let theirs = |service: &&Service| match kind {
        Kind::ExternalDns => scope.is_service || service.runtime == Runtime::Kubernetes,
        Kind::CertManager => true,
        Kind::Custom => scope.is_service,
    };
    scope.services.iter().filter(theirs).map(|service| service.name.clone()).collect()
}

fn services(at: At<'_>, scope: &Scope<'_>, report: &mut Report) -> Vec<Name> {
    let label = |service: &Service| service.name.first_label().map(|label| String::from_utf8_lossy(label).into_owned());
    let mut found = Vec::new();
    for text in each(at, report, |at, report| at.text(report).map(str::to_owned)) {
        match scope.services.iter().find(|service| label(service).as_deref() == Some(&text)) {
            Some(service) => found.push(service.name.clone()),
            None => {
                let known: Vec<String> = scope.services.iter().filter_map(label).collect();
                let hint = did_you_mean(&text, known.iter().map(String::as_str));
                at.fail(report, format!("there is no service '{}' here{hint}", quote(&text)));
            }
        }
    }
    found
}

fn writable_type(at: At<'_>, report: &mut Report) -> Option<Rtype> {
    let text = at.text(report)?;
    match Rtype::from_str(text) {
        Ok(rtype) if !STRUCTURAL.contains(&rtype) => Some(rtype),
        Ok(rtype) => {
            at.fail(report, format!("{rtype} records decide about delegation or signing; no writer may have them"));
            None
        }
        Err(_) => {
            at.fail(report, format!("'{}' is not a type of record", quote(text)));
            None
        }
    }
}

fn grant(
    at: At<'_>,
    key: &str,
    kind: Kind,
    types: &[Rtype],
    subject: &Name,
    report: &mut Report,
    grants: &mut Vec<Grant>,
) {
    let mut add = |subtree: Option<Name>, types: &[Rtype], report: &mut Report| match subtree {
        Some(subtree) => grants.push(Grant { key: key.to_owned(), subtree, types: types.to_vec() }),
        None => at.fail(report, format!("{subject} is too long for the names that this writer needs")),
    };
    match kind {
        Kind::Custom => add(Some(subject.clone()), types, report),
        Kind::CertManager => add(subject.child(b"_acme-challenge").ok(), &[Rtype::TXT], report),
        Kind::ExternalDns => {
            add(Some(subject.clone()), &[Rtype::A, Rtype::AAAA, Rtype::CNAME, Rtype::TXT], report);
            for prefix in REGISTRY_PREFIXES {
                add(beside(subject, prefix), &[Rtype::TXT], report);
            }
        }
    }
}

/// The name beside `name` whose first label begins with `prefix`.
fn beside(name: &Name, prefix: &str) -> Option<Name> {
    let label = [prefix.as_bytes(), name.first_label()?].concat();
    name.parent()?.child(&label).ok()
}
