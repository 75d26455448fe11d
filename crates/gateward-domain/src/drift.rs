//! The zones of a declaration at a glance, and what differs from it.

use std::fmt::Write;

use serde::Serialize;

use crate::current::Current;
use crate::declaration::{Declaration, Level};
use crate::error::Error;
use crate::plan::{Document, Options, Plan, make};
use crate::provider::Fleet;

/// Every declared zone as it is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The root of the declaration.
    pub root: String,
    /// The declared zones, in the order of the declaration.
    pub zones: Vec<ZoneStatus>,
    /// Zones below the root that are served and not declared.
    pub undeclared: Vec<String>,
}

/// One zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ZoneStatus {
    /// Its apex.
    pub origin: String,
    /// Where it stands.
    pub level: Level,
    /// The team that answers for it.
    pub owner: String,
    /// The control API of its primary.
    pub control: String,
    /// Its serial; none if it is not served.
    pub serial: Option<u32>,
    /// How many records it has.
    pub records: usize,
    /// Old versions that it can be rolled back to, the newest last.
    pub versions: Vec<u32>,
    /// Whether it differs from the declaration.
    pub drift: bool,
}

/// Looks at every declared zone.
///
/// # Errors
/// A control API does not answer.
pub fn status(declaration: &Declaration, fleet: &Fleet<'_>) -> Result<Status, Error> {
    let current = Current::read(declaration, fleet)?;
    let plan = whole_plan(declaration, &current)?;
    let differs = |origin: &str| plan.zones.iter().any(|zone| zone.origin == origin);
    let mut zones = Vec::new();
    for zone in &declaration.zones {
        let control = declaration.groups.get(&zone.group).map(|group| group.control.clone()).unwrap_or_default();
        let now = current.zones.get(&(control.clone(), zone.origin.clone()));
        let mut versions = Vec::new();
        if let Some(now) = now {
            let kept = fleet.ask(&control, |provider| provider.versions(&zone.origin))?;
            versions.extend(kept.iter().map(|version| version.serial).filter(|serial| *serial != now.serial));
        }
        let origin = zone.origin.to_string();
        zones.push(ZoneStatus {
            drift: differs(&origin),
            origin,
            level: zone.level,
            owner: zone.owner.clone(),
            control,
            serial: now.map(|now| now.serial),
            records: now.map_or(0, |now| now.records.len()),
            versions,
        });
    }
    let declared = |origin: &String| zones.iter().any(|zone| zone.origin == *origin);
    let undeclared = plan.zones.iter().map(|zone| zone.origin.clone()).filter(|origin| !declared(origin));
    let undeclared = undeclared.chain(current.strangers.iter().map(ToString::to_string)).collect();
    Ok(Status { root: declaration.root.to_string(), zones, undeclared })
}

/// What differs between what is served and what is declared, all environments together.
///
/// # Errors
/// A control API does not answer, or the zones as declared would be wrong.
pub fn drift(declaration: &Declaration, fleet: &Fleet<'_>) -> Result<Document, Error> {
    let current = Current::read(declaration, fleet)?;
    Ok(Document::new(whole_plan(declaration, &current)?))
}

fn whole_plan(declaration: &Declaration, current: &Current) -> Result<Plan, Error> {
    // Nothing is done with it unless somebody applies it.
    make(declaration, current, &Options { environment: None, allow_cross_environment: true, adopt: true })
}

impl Status {
    /// A table.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let width = self.zones.iter().map(|zone| zone.origin.len()).max().unwrap_or(0).max(4);
        let owners = self.zones.iter().map(|zone| zone.owner.chars().count()).max().unwrap_or(0).max(5);
        let _ = writeln!(
            text,
            "{:<width$}  {:<11}  {:<owners$}  {:>10}  {:>7}  {:<5}  VERSIONS",
            "ZONE", "LEVEL", "OWNER", "SERIAL", "RECORDS", "DRIFT"
        );
        for zone in &self.zones {
            let serial = zone.serial.map_or("-".to_owned(), |serial| serial.to_string());
            let drift = if zone.drift { "yes" } else { "no" };
            let versions: Vec<String> = zone.versions.iter().rev().take(5).map(u32::to_string).collect();
            let line = format!(
                "{:<width$}  {:<11}  {:<owners$}  {serial:>10}  {:>7}  {drift:<5}  {}",
                zone.origin,
                zone.level.as_str(),
                zone.owner,
                zone.records,
                versions.join(" ")
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
        for origin in &self.undeclared {
            let _ = writeln!(text, "{origin} is served and not declared");
        }
        text
    }
}
