//! An old version of a zone becomes the new one.

use gateward_zone::{Change, Name, Record, Rtype};

use crate::error::{Error, ProviderError};
use crate::force::Author;
use crate::provider::Fleet;

/// Gives a zone the content of the version `to`, if it still is what was looked at. Gives the new serial.
///
/// # Errors
/// The server does not have the zone or the version, or refuses.
pub fn rollback(fleet: &Fleet<'_>, control: &str, origin: &Name, to: u32, author: &Author) -> Result<u32, Error> {
    let missing = |what: String| Error::Provider { control: control.to_owned(), source: ProviderError::NotFound(what) };
    let served = fleet.ask(control, |provider| provider.zone(origin))?;
    let served = served.ok_or_else(|| missing(format!("zone {origin}")))?;
    let old = fleet.ask(control, |provider| provider.version(origin, to))?;
    let old =
        old.ok_or_else(|| missing(format!("version {to} of {origin}; `gateward domain status` lists those kept")))?;
    let by = author.by(origin, &way(&served.records, &old));
    fleet.ask(control, |provider| provider.rollback(origin, served.serial, to, &by))
}

/// The changes that lead back; the serial of the SOA does not count in their digest.
fn way(served: &[Record], old: &[Record]) -> Vec<Change> {
    let not_in = |these: &[Record], those: &[Record]| -> Vec<Record> {
        these.iter().filter(|record| record.rtype == Rtype::SOA || !those.contains(record)).cloned().collect()
    };
    let gone = not_in(served, old).into_iter().map(Change::Remove);
    gone.chain(not_in(old, served).into_iter().map(Change::Add)).collect()
}
