//! A zone's leases in a file: JSON, written as a whole when something but a time changes.

use std::io;
use std::path::Path;

use gateward_zone::{Name, Rdata, Rtype};
use serde::{Deserialize, Serialize};

use super::table::{Held, Lease, Table};
use crate::folder::{PUBLIC, read_bounded, remove_durably, write_durably};

#[derive(Serialize, Deserialize)]
struct File {
    leases: Vec<Entry>,
    orphans: Vec<Orphan>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    id: String,
    actor: String,
    name: String,
    #[serde(rename = "type")]
    rtype: u16,
    data: Vec<Vec<u8>>,
    ttl: u32,
    lease_seconds: u32,
    healthy: bool,
}

#[derive(Serialize, Deserialize)]
struct Orphan {
    name: String,
    #[serde(rename = "type")]
    rtype: u16,
    data: Vec<u8>,
}

/// The file's content; `None` for none.
pub(super) fn text(table: &Table) -> Option<Vec<u8>> {
    if table.is_empty() {
        return None;
    }
    let leases = table.iter().map(|(id, Held { lease, actor, .. })| Entry {
        id: id.to_owned(),
        actor: actor.clone(),
        name: lease.name.to_string(),
        rtype: lease.rtype.to_int(),
        data: lease.data.iter().map(|rdata| rdata.as_wire().to_vec()).collect(),
        ttl: lease.ttl,
        lease_seconds: lease.lease_seconds,
        healthy: lease.healthy,
    });
    let orphans = table.orphans.iter().map(|(name, rtype, rdata)| Orphan {
        name: name.to_string(),
        rtype: rtype.to_int(),
        data: rdata.as_wire().to_vec(),
    });
    serde_json::to_vec(&File { leases: leases.collect(), orphans: orphans.collect() }).ok()
}

/// Brings a file to that content, if it has another.
pub(super) fn write(path: &Path, text: Option<Vec<u8>>) -> io::Result<()> {
    // One that cannot be read is written anew.
    let before = read_bounded(path).ok();
    match text {
        text if text == before => Ok(()),
        Some(text) => write_durably(path, &text, PUBLIC),
        None => remove_durably(path),
    }
}

/// The leases in a file, each with its whole time from now on.
pub(super) fn read(path: &Path, now_ms: u64) -> io::Result<Table> {
    let text = match read_bounded(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Table::default()),
        text => text?,
    };
    let broken = |error: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()));
    let File { leases, orphans } = serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
    let name = |text: &str| text.parse::<Name>().map_err(|error| broken(error.to_string()));
    let mut table = Table::default();
    for entry in leases {
        let lease = Lease {
            name: name(&entry.name)?,
            rtype: Rtype::from_int(entry.rtype),
            data: entry.data.into_iter().map(Rdata::from_wire).collect(),
            ttl: entry.ttl,
            lease_seconds: entry.lease_seconds,
            healthy: entry.healthy,
        };
        table.put(&entry.id, lease, &entry.actor, now_ms);
    }
    for orphan in orphans {
        table.orphans.insert((name(&orphan.name)?, Rtype::from_int(orphan.rtype), Rdata::from_wire(orphan.data)));
    }
    Ok(table)
}
