//! The zones that `gateward dns` copies from others, and the catalog that it keeps for others: from flags to what is followed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use gateward_dns::authority::Authority;
use gateward_dns::keys::KeyFile;
use gateward_dns::secondary::Primary;
use gateward_dns::service::{Exchange, Followed};
use gateward_dns::sources::{Provenance, Role};
use gateward_zone::Name;

use super::Arguments;

/// A zone and where it is copied from: `ORIGIN=PRIMARY[,PRIMARY]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copied {
    zone: Name,
    primaries: Vec<Primary>,
}

impl std::str::FromStr for Copied {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (zone, primaries) = text.split_once('=').ok_or_else(|| {
            format!("{text:?} does not say where the zone is copied from; write it as example.com=192.0.2.1:53#KEY")
        })?;
        let zone = zone.parse().map_err(|error| format!("{zone:?} is not the name of a zone: {error}"))?;
        let primaries = primaries.split(',').map(str::parse).collect::<Result<_, String>>()?;
        Ok(Copied { zone, primaries })
    }
}

/// Looks for what cannot work, and gives zones back to the operator that no flag asks for any more as the server's: before zones are loaded.
///
/// # Errors
/// Flags that contradict one another or the folder.
pub(super) fn settle(arguments: &Arguments, authority: &Authority, keys: &KeyFile) -> Result<()> {
    let known = keys.keys();
    let mut seen = BTreeSet::new();
    let flags = [("--secondary", &arguments.secondary), ("--secondary-catalog", &arguments.secondary_catalog)];
    for (flag, Copied { zone, primaries }) in
        flags.iter().flat_map(|(flag, all)| all.iter().map(move |one| (flag, one)))
    {
        ensure!(
            seen.insert(zone),
            "{flag} {zone}: the zone is named twice; give all its primaries at once, with commas"
        );
        for key in primaries.iter().filter_map(|primary| primary.key.as_ref()) {
            ensure!(known.find(key).is_some(), "{flag} {zone}: the key {key} is not in {}", keys.path().display());
        }
        is_free(authority, zone).with_context(|| format!("{flag} {zone}"))?;
    }
    if let Some(catalog) = &arguments.catalog {
        ensure!(!seen.contains(catalog), "--catalog {catalog}: the zone is copied, too; give the catalog another name");
        is_free(authority, catalog).with_context(|| format!("--catalog {catalog}"))?;
    }
    for (zone, provenance) in authority.sources().all() {
        let is_copy = provenance.role != Role::Produced;
        if arguments.catalog.as_ref() == Some(&zone) && is_copy {
            bail!("--catalog {zone}: the zone is a copy of another server's; give the catalog another name");
        }
        if arguments.catalog.as_ref() != Some(&zone) && !is_copy && !seen.contains(&zone) {
            tracing::info!(%zone, "the catalog is not kept any more; it is a zone like others now");
            authority.sources().remove(&zone).with_context(|| format!("where {zone} comes from"))?;
        }
    }
    Ok(())
}

/// The zone is not one of the operator's.
fn is_free(authority: &Authority, zone: &Name) -> Result<()> {
    let file = authority.folder().zone_file(zone);
    ensure!(
        authority.sources().of(zone).is_some() || !file.exists(),
        "{} is the file of a zone of your own; move it away first, and the zone is written by the server",
        file.display()
    );
    Ok(())
}

/// Follows what flags ask for; what was copied before and is not asked for any more is served until it expires. The zones are loaded.
pub(super) fn begin(arguments: &Arguments, authority: &Arc<Authority>, exchange: &mut Exchange) {
    let kept = authority.sources().all();
    for (all, is_catalog) in [(&arguments.secondary, false), (&arguments.secondary_catalog, true)] {
        for Copied { zone, primaries } in all {
            exchange.followers.follow(&Followed { zone: zone.clone(), primaries: primaries.clone(), is_catalog });
        }
    }
    for zone in orphans(arguments, kept) {
        tracing::warn!(
            %zone,
            "the zone is a copy, and no flag says where it is copied from now; it is served until it expires. Give --secondary or \
             --secondary-catalog; or stop the server and remove the zone's file in .sources to have it as a zone of its own, and its \
             zone file to have it gone"
        );
        exchange.followers.follow(&Followed { zone, primaries: Vec::new(), is_catalog: false });
    }
    if let Some(catalog) = &arguments.catalog {
        exchange.produce(authority, catalog.clone());
    }
}

/// Copies that no flag leads to.
fn orphans(arguments: &Arguments, kept: BTreeMap<Name, Arc<Provenance>>) -> Vec<Name> {
    let asked: BTreeSet<&Name> =
        arguments.secondary.iter().chain(&arguments.secondary_catalog).map(|copied| &copied.zone).collect();
    let is_orphan = |zone: &Name, provenance: &Provenance| match &provenance.role {
        Role::Produced => false,
        _ if asked.contains(zone) => false,
        Role::Secondary | Role::Catalog => true,
        Role::Member { catalog, .. } => !arguments.secondary_catalog.iter().any(|copied| copied.zone == *catalog),
    };
    kept.into_iter().filter(|(zone, provenance)| is_orphan(zone, provenance)).map(|(zone, _)| zone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_copied_from_one_primary_or_several() {
        let read = |text: &str| text.parse::<Copied>();
        let both = read("Example.com=192.0.2.1,[2001:db8::1]:5353#transfer.key").expect("well-formed");
        assert_eq!(both.zone, "example.com".parse().expect("a name"));
        let shown: Vec<String> = both.primaries.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.1:53", "[2001:db8::1]:5353#transfer.key."]);
        for wrong in ["example.com", "example.com=", "a..b=192.0.2.1", "example.com=192.0.2.1,", "=192.0.2.1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
