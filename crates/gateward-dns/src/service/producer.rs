//! A catalog of a server's own zones (RFC 9432), kept by the server: who follows it has every zone without another word.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use gateward_zone::{Name, Soa, ZoneText, ZoneView};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, timeout_at};

use super::unix_seconds;
use crate::authority::{Actor, Authority, Door, Edit, Event, Happened, Kind, Numbering, Proposal, Refused};
use crate::catalog::{self, Member};
use crate::sources::{Provenance, Role};

/// How long zones are gathered that come or go together.
const GATHER: Duration = Duration::from_millis(200);
/// Wait before another try when the catalog cannot be written.
const RETRY: Duration = Duration::from_secs(10);
/// Times of the catalog's SOA record: changes are told, so that asking is for what was lost.
const REFRESH: u32 = 300;
const RETRY_SECONDS: u32 = 60;
const EXPIRE: u32 = 60 * 86_400;

/// Keeps the catalog until the authority ends.
pub(super) async fn produce(authority: Weak<Authority>, mut events: Receiver<Event>, catalog: Name) {
    loop {
        let Some(strong) = authority.upgrade() else { return };
        let written = list(&strong, &catalog).await;
        drop(strong);
        if let Err(error) = written {
            tracing::error!(%catalog, %error, "the catalog does not list the zones as they are now");
            sleep(RETRY).await;
        } else if !is_due(&mut events, &catalog).await {
            return;
        }
    }
}

/// Waits until zones came or went, and a little longer. False: it is the end.
async fn is_due(events: &mut Receiver<Event>, catalog: &Name) -> bool {
    // From the first of them on: other events, of which there may be many, do not put it off.
    let mut due = None;
    loop {
        let event = match due {
            Some(due) => match timeout_at(due, events.recv()).await {
                Ok(event) => event,
                Err(_) => return true,
            },
            None => events.recv().await,
        };
        match event {
            Ok(Event { origin, .. }) if origin == *catalog => {}
            Ok(Event { what: Happened::Changed(_) | Happened::Policy, .. }) => {}
            Ok(Event { what: Happened::Added(_) | Happened::Removed, .. }) | Err(RecvError::Lagged(_)) => {
                due.get_or_insert_with(|| Instant::now() + GATHER);
            }
            Err(RecvError::Closed) => return false,
        }
    }
}

/// Makes the catalog list the zones that are the server's own.
async fn list(authority: &Arc<Authority>, catalog: &Name) -> Result<(), Refused> {
    authority.copy(catalog, Provenance { role: Role::Produced, primaries: Vec::new() }).await?;
    let actor = || Actor::new(Door::Catalog, String::new());
    if authority.zone(catalog).is_none() {
        let zone = ZoneText::from_records(catalog.clone(), empty(catalog)?);
        let edit = Edit::Replace(Box::new(zone));
        authority
            .apply(Proposal { numbering: Numbering::AsIs, ..Proposal::new(catalog.clone(), edit, actor()) })
            .await?;
    }
    let members = {
        let authority = Arc::clone(authority);
        let members = tokio::task::spawn_blocking(move || members(&authority));
        members.await.map_err(|error| Refused::Failed(error.to_string()))?
    };
    let decide = move |served: &dyn ZoneView| catalog::changes(served, &members).map_err(|error| broken(&error));
    authority.apply(Proposal::new(catalog.clone(), Edit::Decide(Box::new(decide)), actor())).await?;
    Ok(())
}

/// The server's own zones as members. A zone that was deleted and made again is another member (RFC 9432, 5.4): the time of the deletion is in
/// its ID.
fn members(authority: &Authority) -> Vec<Member> {
    let own = authority.all().into_iter().filter(|(_, info)| info.kind == Kind::Primary);
    own.map(|(zone, _)| {
        let deleted = std::fs::metadata(authority.folder().deleted_file(&zone)).and_then(|file| file.modified());
        let generation = deleted.ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        Member::new(
            zone,
            generation.map_or(0, |since| u32::try_from((since.as_nanos() / 1_000) & 0xffff_ffff).unwrap_or(0)),
        )
    })
    .collect()
}

/// A catalog without members. Its serial begins with the time, so that a catalog that was lost does not begin below what others have of it.
fn empty(catalog: &Name) -> Result<Vec<gateward_zone::Record>, Refused> {
    let timers = Soa {
        mname: Name::root(),
        rname: Name::root(),
        serial: 0,
        refresh: REFRESH,
        retry: RETRY_SECONDS,
        expire: EXPIRE,
        minimum: 0,
    };
    let serial = u32::try_from(unix_seconds()).unwrap_or(1);
    catalog::records(catalog, serial, &timers, &[]).map_err(|error| broken(&error))
}

fn broken(error: &catalog::Broken) -> Refused {
    Refused::rule("catalog", error.to_string(), "give --catalog a shorter name")
}
