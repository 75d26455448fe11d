//! From the top of the file down: the root, its environments, their regions, their services.

use std::collections::BTreeMap;

use gateward_yaml::{Node, Path, Position, quote};
use gateward_zone::Name;

use super::keys::{self, Key};
use super::reader::{At, Fields, Report};
use super::records::Written;
use super::settings::{self, Settings, settings};
use super::writers::{Scope, writers};
use super::{Declaration, Group, Level, Runtime, Service, Zone, conflicts, records, servers};

/// The format this reads.
const VERSION: u32 = 1;

const TOP: &[&str] = &["version", "root", "defaults", "keys", "environments", "name_servers"];
/// What every level that is a zone may say, besides the settings.
const LEVEL: &[&str] = &["owner", "served_by", "writers", "unmanaged", "records"];
const SERVICE: &[&str] = &["owner", "runtime", "writers", "records", "ttl"];

const RUNTIMES: &[(&str, Runtime)] =
    &[("kubernetes", Runtime::Kubernetes), ("vm", Runtime::Vm), ("ecs", Runtime::Ecs), ("static", Runtime::Static)];

/// A level with what only messages need.
pub(super) struct Placed {
    pub(super) zone: Zone,
    pub(super) at: Position,
    pub(super) path: String,
    pub(super) records: Vec<Claim>,
}

/// One of a zone's records, with the level or service that declared it.
pub(super) struct Claim {
    pub(super) written: Written,
    /// The service's name; none for the level itself.
    pub(super) service: Option<Name>,
}

/// What a level takes from those above.
#[derive(Clone)]
struct Inherited<'a> {
    origin: Name,
    environment: Option<&'a str>,
    region: Option<&'a str>,
    owner: Option<String>,
    group: Option<String>,
    settings: Settings,
}

struct Walk<'a> {
    keys: BTreeMap<String, Key>,
    groups: BTreeMap<String, Group>,
    /// Where the groups are, for "there is no such group"; not given when they could not be read.
    group_names: Vec<&'a str>,
    zones: Vec<Placed>,
}

/// Reads the whole file.
pub(super) fn read(node: &Node, report: &mut Report) -> Option<Declaration> {
    let path = Path::Text("");
    let at = At::new(node, &path);
    if node.as_map().is_none() {
        at.fail(report, "expected a map with version, root, name_servers and environments");
        return None;
    }
    let fields = at.fields(&allowed(&[TOP, LEVEL, &settings::FIELDS]), report);
    fields.required("version", report, version);
    let root = fields.required("root", report, servers::host_name)?;
    let keys = fields.read("keys", |at| Some(keys::keys(at, report))).unwrap_or_default();
    let groups = fields.required("name_servers", report, |at, report| Some(servers::groups(at, &root, &keys, report)));
    let group_names = node.get("name_servers").and_then(Node::as_map).unwrap_or(&[]).iter();
    let group_names = group_names.map(|(key, _)| key.text.as_str()).collect();
    let mut walk = Walk { keys, groups: groups.unwrap_or_default(), group_names, zones: Vec::new() };
    let defaults = fields.read("defaults", |at| {
        at.fields(&settings::FIELDS, report);
        Some(settings(at, &Settings::default(), report))
    });
    let settings = defaults.unwrap_or_default();
    let above = Inherited { origin: root.clone(), environment: None, region: None, owner: None, group: None, settings };
    if let Some(own) = walk.level(fields, Level::Root, &above, &[], report) {
        walk.environments(fields, &own, report);
    }
    conflicts::find(&walk.zones, &walk.groups, report);
    let zones = walk.zones.into_iter().map(|placed| placed.zone).collect();
    Some(Declaration { root, groups: walk.groups, keys: walk.keys, zones })
}

fn version(at: At<'_>, report: &mut Report) -> Option<u32> {
    let version = at.integer(0..=u32::MAX, report)?;
    if version != VERSION {
        at.fail(report, format!("this program reads version {VERSION}"));
    }
    Some(version)
}

fn allowed<'a>(lists: &[&[&'a str]]) -> Vec<&'a str> {
    lists.concat()
}

impl<'f> Walk<'f> {
    fn environments(&mut self, fields: Fields<'f>, above: &Inherited<'f>, report: &mut Report) {
        let Some(node) = fields.at.node.get("environments") else { return };
        let path = Path::Key(fields.at.path, "environments");
        for (key, node) in At::new(node, &path).entries(report) {
            let path = Path::Key(&path, &key.text);
            let at = At::new(node, &path);
            let fields = at.fields(&allowed(&[&["regions"], LEVEL, &settings::FIELDS]), report);
            let Some(origin) = child(&above.origin, key, &path, report) else { continue };
            let above = Inherited { origin, environment: Some(&key.text), ..above.clone() };
            if let Some(own) = self.level(fields, Level::Environment, &above, &[], report) {
                self.regions(fields, &own, report);
            }
        }
    }

    fn regions(&mut self, fields: Fields<'_>, above: &Inherited<'_>, report: &mut Report) {
        let Some(node) = fields.at.node.get("regions") else { return };
        let path = Path::Key(fields.at.path, "regions");
        for (key, node) in At::new(node, &path).entries(report) {
            let path = Path::Key(&path, &key.text);
            let at = At::new(node, &path);
            let fields = at.fields(&allowed(&[&["services"], LEVEL, &settings::FIELDS]), report);
            let Some(origin) = child(&above.origin, key, &path, report) else { continue };
            let own = Inherited { origin, region: Some(&key.text), ..above.clone() };
            self.region(fields, &own, report);
        }
    }

    /// A region with its services: those without a zone of their own belong to its zone.
    fn region(&mut self, fields: Fields<'_>, above: &Inherited<'_>, report: &mut Report) {
        let path = Path::Key(fields.at.path, "services");
        let entries = fields.at.node.get("services").map_or(&[][..], |node| At::new(node, &path).entries(report));
        let (mut inside, mut apart) = (Vec::new(), Vec::new());
        for (key, node) in entries {
            let path = Path::Key(&path, &key.text);
            let Some(name) = child(&above.origin, key, &path, report) else { continue };
            let own_zone = node.get("zone").is_some_and(|_| {
                let at = Path::Key(&path, "zone");
                node.get("zone").and_then(|node| At::new(node, &at).boolean(report)).unwrap_or(false)
            });
            if own_zone { apart.push((key, node, name)) } else { inside.push((key, node, name)) }
        }
        let mut services = Vec::new();
        let (mut declared, mut grants) = (Vec::new(), Vec::new());
        let ttl = settings(fields.at, &above.settings, &mut Report::default()).ttl;
        for (key, node, name) in inside {
            let path = Path::Key(&path, &key.text);
            let at = At::new(node, &path);
            let fields = at.fields(&allowed(&[&["zone"], SERVICE]), report);
            let Some(service) = service(fields, name, report) else { continue };
            let ttl = fields.read("ttl", |at| settings::ttl(at, report)).unwrap_or(ttl);
            let written = service_records(fields, &service, ttl, report);
            declared.extend(written.into_iter().map(|written| Claim { written, service: Some(service.name.clone()) }));
            grants.extend(self.service_writers(fields, &service, report));
            services.push(service);
        }
        let Some(own) = self.level(fields, Level::Region, above, &services, report) else { return };
        if let Some(placed) = self.zones.last_mut() {
            placed.add(declared);
            placed.zone.grants.extend(grants);
        }
        for (key, node, name) in apart {
            let path = Path::Key(&path, &key.text);
            let above = Inherited { origin: name, owner: None, ..own.clone() };
            self.service_zone(At::new(node, &path), &above, report);
        }
    }

    /// A service with a zone of its own.
    fn service_zone(&mut self, at: At<'_>, above: &Inherited<'_>, report: &mut Report) {
        let fields = at.fields(&allowed(&[&["zone", "runtime"], LEVEL, &settings::FIELDS]), report);
        let Some(service) = service(fields, above.origin.clone(), report) else { return };
        let above = Inherited { owner: Some(service.owner.clone()), ..above.clone() };
        self.level(fields, Level::Service, &above, &[service], report);
    }

    fn service_writers(&self, fields: Fields<'_>, service: &Service, report: &mut Report) -> Vec<super::Grant> {
        let services = std::slice::from_ref(service);
        let scope = Scope { origin: &service.name, services, is_service: true, keys: &self.keys };
        fields.read("writers", |at| Some(writers(at, &scope, report))).unwrap_or_default()
    }

    /// What every zone has; what its children inherit.
    fn level<'b>(
        &mut self,
        fields: Fields<'_>,
        level: Level,
        above: &Inherited<'b>,
        services: &[Service],
        report: &mut Report,
    ) -> Option<Inherited<'b>> {
        let settings = settings(fields.at, &above.settings, report);
        let owner = fields.text("owner", report).or_else(|| above.owner.clone());
        if owner.is_none() && fields.at.node.get("owner").is_none() {
            fields.at.fail(report, "'owner' is missing: the team that answers for this level");
        }
        let group = self.group(fields, above, report);
        let origin = &above.origin;
        let scope = Scope { origin, services, is_service: level == Level::Service, keys: &self.keys };
        let grants = fields.read("writers", |at| Some(writers(at, &scope, report))).unwrap_or_default();
        let unmanaged = fields.read("unmanaged", |at| Some(unmanaged(at, origin, report))).unwrap_or_default();
        let records = fields.read("records", |at| Some(records::records(at, origin, settings.ttl, report)));
        let own = Inherited { owner: owner.clone(), group: group.clone(), settings: settings.clone(), ..above.clone() };
        let (owner, group) = (owner?, group?);
        let zone = Zone {
            origin: origin.clone(),
            level,
            environment: above.environment.map(str::to_owned),
            region: above.region.map(str::to_owned),
            owner,
            group,
            settings,
            grants,
            unmanaged,
            records: Vec::new(),
            services: services.to_vec(),
        };
        let path = fields.at.path.to_string();
        let mut placed = Placed { zone, at: fields.at.node.position, path, records: Vec::new() };
        let service = (level == Level::Service).then(|| origin.clone());
        let written = records.unwrap_or_default().into_iter();
        placed.add(written.map(|written| Claim { written, service: service.clone() }).collect());
        self.zones.push(placed);
        Some(own)
    }

    fn group(&self, fields: Fields<'_>, above: &Inherited<'_>, report: &mut Report) -> Option<String> {
        let Some(_) = fields.at.node.get("served_by") else {
            if above.group.is_none() && above.environment.is_none() {
                fields.at.fail(report, "'served_by' is missing: the group of name_servers that serves the root");
            }
            return above.group.clone();
        };
        fields.read("served_by", |at| {
            let name = at.text(report)?;
            if !self.group_names.contains(&name) {
                let hint = gateward_yaml::did_you_mean(name, self.group_names.iter().copied());
                at.fail(report, format!("there is no group '{}' under name_servers{hint}", quote(name)));
                return None;
            }
            Some(name.to_owned())
        })
    }
}

impl Placed {
    fn add(&mut self, claims: Vec<Claim>) {
        self.zone.records.extend(claims.iter().map(|claim| claim.written.record.clone()));
        self.records.extend(claims);
    }
}

/// The name of a level below `origin`: one label of lower-case letters, digits and hyphens.
fn child(origin: &Name, key: &gateward_yaml::Key, path: &Path<'_>, report: &mut Report) -> Option<Name> {
    let label = key.text.as_bytes();
    let letter = |octet: &u8| octet.is_ascii_lowercase() || octet.is_ascii_digit();
    let good = label.iter().all(|octet| letter(octet) || *octet == b'-')
        && label.first().is_some_and(letter)
        && label.last().is_some_and(letter);
    if !good {
        let message = "a level's name is one label of a domain name: lower-case letters, digits and hyphens within";
        report.add(key.position, path, message);
        return None;
    }
    origin.child(label).map_err(|error| report.add(key.position, path, error.to_string())).ok()
}

fn service(fields: Fields<'_>, name: Name, report: &mut Report) -> Option<Service> {
    let owner = fields.required("owner", report, |at, report| at.text(report).map(str::to_owned));
    let runtime = fields.required("runtime", report, |at, report| at.word(RUNTIMES, report));
    let line = fields.at.node.position.line;
    let (owner, runtime) = (owner?, runtime?);
    if runtime == Runtime::Static && fields.at.node.get("records").is_none_or(Node::is_null) {
        fields.at.fail(report, "a static service needs 'records': nothing else registers its addresses");
    }
    Some(Service { name, owner, runtime, line })
}

fn service_records(fields: Fields<'_>, service: &Service, ttl: u32, report: &mut Report) -> Vec<Written> {
    fields.read("records", |at| Some(records::records(at, &service.name, ttl, report))).unwrap_or_default()
}

/// Subtrees that plans leave alone.
fn unmanaged(at: At<'_>, origin: &Name, report: &mut Report) -> Vec<Name> {
    let mut names = Vec::new();
    for (index, node) in at.items().iter().enumerate() {
        let path = Path::Index(at.path, index);
        let at = At::new(node, &path);
        let Some(text) = at.text(report) else { continue };
        match Name::parse_in(text, origin) {
            Ok(name) if name.is_in(origin) && name != *origin => names.push(name),
            Ok(_) => at.fail(report, format!("not a name below {origin}")),
            Err(error) => at.fail(report, format!("'{}' is not a domain name: {error}", quote(text))),
        }
    }
    names
}
