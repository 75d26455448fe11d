//! Records written in the declaration: `name: { TYPE: data | [data, ...], ttl: 60 }`.

use std::str::FromStr;

use gateward_yaml::{Node, Path, Position, Tree, quote};
use gateward_zone::{Name, Rdata, Record, Rtype, parse_rdata};

use super::reader::{At, Report};
use super::settings::ttl;

/// A record and where it was written.
pub(super) struct Written {
    pub(super) record: Record,
    pub(super) at: Position,
    pub(super) path: String,
}

/// Types that follow from the hierarchy, or that only a signer may write.
const DERIVED: &[Rtype] = &[Rtype::SOA, Rtype::NS, Rtype::DNSKEY, Rtype::RRSIG, Rtype::NSEC, Rtype::NSEC3];

/// Reads `records`; names and names in data are relative to `origin`.
pub(super) fn records(at: At<'_>, origin: &Name, default_ttl: u32, report: &mut Report) -> Vec<Written> {
    let mut records = Vec::new();
    for (key, node) in at.entries(report) {
        let path = Path::Key(at.path, &key.text);
        let at = At::new(node, &path);
        match Name::parse_in(&key.text, origin) {
            Ok(name) if !name.is_in(origin) => report.add(key.position, &path, format!("{name} is not in {origin}")),
            Ok(name) => sets(at, &name, origin, default_ttl, report, &mut records),
            Err(error) => report.add(key.position, &path, format!("not a domain name: {error}")),
        }
    }
    records
}

/// The sets at one name.
fn sets(at: At<'_>, name: &Name, origin: &Name, default_ttl: u32, report: &mut Report, into: &mut Vec<Written>) {
    let mut ttl_of_name = default_ttl;
    if let Some(node) = at.node.get("ttl") {
        ttl_of_name = ttl(At::new(node, &Path::Key(at.path, "ttl")), report).unwrap_or(default_ttl);
    }
    let mut types = 0;
    for (key, node) in at.entries(report).iter().filter(|(key, _)| key.text != "ttl") {
        types += 1;
        let path = Path::Key(at.path, &key.text);
        let Ok(rtype) = Rtype::from_str(&key.text) else {
            let message = "neither 'ttl' nor a type of record in capitals, such as A, AAAA, CNAME, TXT, MX, SRV";
            report.add(key.position, &path, message);
            continue;
        };
        if DERIVED.contains(&rtype) {
            let message = format!("{rtype} records follow from the hierarchy and are not declared");
            report.add(key.position, &path, message);
            continue;
        }
        let items = At::new(node, &path).items();
        for (index, item) in items.iter().enumerate() {
            let path = if items.len() > 1 { Path::Index(&path, index) } else { Path::Text(&path.to_string()) };
            datum(At::new(item, &path), name, rtype, ttl_of_name, origin, report, into);
        }
    }
    if types == 0 && at.node.as_map().is_some() {
        at.fail(report, "no records; give at least one type, such as A: 192.0.2.1");
    }
}

fn datum(
    at: At<'_>,
    owner: &Name,
    rtype: Rtype,
    ttl: u32,
    origin: &Name,
    report: &mut Report,
    into: &mut Vec<Written>,
) {
    let Some(written) = scalar(at.node) else {
        at.fail(report, format!("expected the record's data as text; found {}", at.node.describe()));
        return;
    };
    match rdata(rtype, &written, origin) {
        Ok(rdata) => {
            let record = Record { owner: owner.clone(), rtype, ttl, rdata };
            if into.iter().any(|other| other.record == record) {
                at.fail(report, "this record is given twice");
            }
            into.push(Written { record, at: at.node.position, path: at.path.to_string() });
        }
        Err(message) => {
            at.fail(report, format!("'{}' is not the data of a {rtype} record: {message}", quote(&written)));
        }
    }
}

/// Data in the form of zone files. Texts may stand as they are: `v=spf1 -all` is one text and not two.
fn rdata(rtype: Rtype, written: &str, origin: &Name) -> Result<Rdata, String> {
    if rtype == Rtype::TXT && !written.starts_with('"') {
        return Ok(text(written.as_bytes()));
    }
    parse_rdata(rtype, written, origin).map_err(|problem| problem.message)
}

/// The data of a TXT record: character strings of at most 255 octets (RFC 1035, 3.3.14).
pub(crate) fn text(octets: &[u8]) -> Rdata {
    let mut wire = Vec::with_capacity(octets.len() + 1);
    for part in octets.chunks(255) {
        wire.push(u8::try_from(part.len()).expect("chunks are at most 255 octets"));
        wire.extend_from_slice(part);
    }
    Rdata::from_wire(wire)
}

/// A number without quotes is text here.
fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Tree::String { text, .. } => Some(text.clone()),
        Tree::Int(value) => Some(value.to_string()),
        _ => None,
    }
}
