//! Groups of name servers.

use std::collections::BTreeMap;

use gateward_yaml::{Path, quote};
use gateward_zone::Name;

use super::keys::{Key, known_key, secret_source};
use super::reader::{At, Report};
use super::{Group, Server};

const GROUP: &[&str] = &["control", "token", "transfer_key", "servers"];
const SERVER: &[&str] = &["name", "addresses", "query"];

/// Servers of one group: what a delegation can name without its referral being cut short over UDP.
const MAX_SERVERS: usize = 13;

/// Reads `name_servers`.
pub(super) fn groups(
    at: At<'_>,
    root: &Name,
    keys: &BTreeMap<String, Key>,
    report: &mut Report,
) -> BTreeMap<String, Group> {
    let mut groups = BTreeMap::new();
    for (key, node) in at.entries(report) {
        let path = Path::Key(at.path, &key.text);
        if let Some(group) = group(At::new(node, &path), root, keys, report) {
            groups.insert(key.text.clone(), group);
        }
    }
    groups
}

fn group(at: At<'_>, root: &Name, keys: &BTreeMap<String, Key>, report: &mut Report) -> Option<Group> {
    let fields = at.fields(GROUP, report);
    let control = fields.required("control", report, control);
    let token = fields.read("token", |at| secret_source(at, report));
    let transfer_key = fields.read("transfer_key", |at| known_key(at, keys, report));
    let servers = fields.required("servers", report, |at, report| Some(servers(at, root, report)))?;
    Some(Group { control: control?, token, transfer_key, servers })
}

fn control(at: At<'_>, report: &mut Report) -> Option<String> {
    let text = at.text(report)?;
    let authority = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    let port = authority.filter(|rest| !rest.contains('/')).and_then(|rest| rest.rsplit_once(':'));
    if port.is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        at.fail(report, format!("'{}' is not http://HOST:PORT of a control API", quote(text)));
        return None;
    }
    authority.map(|authority| format!("http://{authority}"))
}

fn servers(at: At<'_>, root: &Name, report: &mut Report) -> Vec<Server> {
    let mut servers: Vec<Server> = Vec::new();
    for (index, node) in at.items().iter().enumerate() {
        let path = Path::Index(at.path, index);
        let at = At::new(node, &path);
        let Some(server) = server(at, root, report) else { continue };
        if servers.iter().any(|other| other.name == server.name) {
            at.fail(report, format!("{} is in this group twice", server.name));
        }
        servers.push(server);
    }
    match at.items().len() {
        0 => at
            .fail(report, "a group needs at least one server; two or more in different places survive the loss of one"),
        count if count > MAX_SERVERS => {
            at.fail(report, format!("{count} servers; a delegation has {MAX_SERVERS} at most"));
        }
        _ => {}
    }
    servers
}

fn server(at: At<'_>, root: &Name, report: &mut Report) -> Option<Server> {
    let fields = at.fields(SERVER, report);
    let name = fields.required("name", report, host_name);
    let addresses: Vec<_> = fields
        .read("addresses", |at| {
            let items = at.items().iter().enumerate();
            Some(
                items.filter_map(|(index, node)| At::new(node, &Path::Index(at.path, index)).address(report)).collect(),
            )
        })
        .unwrap_or_default();
    let query = fields.read("query", |at| {
        let parsed = at.text(report)?.parse();
        if parsed.is_err() {
            at.fail(report, "not ADDRESS:PORT, such as 127.0.0.1:5300");
        }
        parsed.ok()
    });
    let name = name?;
    if addresses.is_empty() && name.is_in(root) {
        at.fail(report, format!("{name} is a name in {root}, so its addresses have to be declared: give 'addresses'"));
    }
    Some(Server { name, addresses, query })
}

/// A whole name made of letters, digits and hyphens (RFC 1123, 2.1).
pub(super) fn host_name(at: At<'_>, report: &mut Report) -> Option<Name> {
    let text = at.text(report)?;
    let host = |label: &[u8]| {
        let edge = |octet: Option<&u8>| octet.is_some_and(u8::is_ascii_alphanumeric);
        edge(label.first())
            && edge(label.last())
            && label.iter().all(|octet| octet.is_ascii_alphanumeric() || *octet == b'-')
    };
    match text.parse::<Name>() {
        Ok(name) if !name.is_root() && name.labels().all(host) => Some(name),
        Ok(_) => {
            at.fail(report, format!("'{}' is not a host name: letters, digits and hyphens between dots", quote(text)));
            None
        }
        Err(error) => {
            at.fail(report, format!("'{}' is not a domain name: {error}", quote(text)));
            None
        }
    }
}
