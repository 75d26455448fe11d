//! Who serves zones: what plans need of a DNS server's management interface, whoever makes it.
//!
//! [`HttpProvider`] speaks to Gateward's own servers, [`MemoryProvider`] is for tests. Another service (Route 53) is one more
//! implementation: it has versions as change ids or none, and a serial of its own making.

mod http;
mod memory;

use std::collections::BTreeMap;

use gateward_model::Secret;
use gateward_zone::{Change, Name, Record};
use serde::{Deserialize, Serialize};

use crate::error::Error;
pub use crate::error::{ProviderError, Refusal};
pub use http::HttpProvider;
pub use memory::MemoryProvider;

/// What a provider says.
pub type Answer<T> = Result<T, ProviderError>;

/// A server that zones are managed on. Calls block; each is atomic.
pub trait Provider {
    /// The zones it has.
    fn zones(&self) -> Answer<Vec<ZoneSummary>>;
    /// A zone as it is served; `None` if it is not there.
    fn zone(&self, origin: &Name) -> Answer<Option<ServedZone>>;
    /// The zone's policy file; `None` if it has none.
    fn policy(&self, origin: &Name) -> Answer<Option<String>>;
    /// Makes a zone that must not be there yet, from a zone file's text. Gives its serial.
    fn create_zone(&self, origin: &Name, text: &str, by: &By) -> Answer<u32>;
    /// Changes a zone that must have the serial `base`. Gives the new serial.
    fn change(&self, origin: &Name, base: u32, changes: &[Change], by: &By) -> Answer<u32>;
    /// Removes a zone that must have the serial `base`.
    fn delete_zone(&self, origin: &Name, base: u32, by: &By) -> Answer<()>;
    /// Replaces the zone's policy file, which must be `from`; none if there must be no file yet.
    fn put_policy(&self, origin: &Name, from: Option<&str>, text: &str, by: &By) -> Answer<()>;
    /// The names of the keys it knows.
    fn keys(&self) -> Answer<Vec<String>>;
    /// Adds or replaces a key; `secret` is base64.
    fn put_key(&self, name: &str, algorithm: &str, secret: &Secret, by: &By) -> Answer<()>;
    /// The versions of a zone that it keeps, the newest last; none of a zone that never changed.
    fn versions(&self, origin: &Name) -> Answer<Vec<Version>>;
    /// The records of an old version; `None` if it is not kept.
    fn version(&self, origin: &Name, serial: u32) -> Answer<Option<Vec<Record>>>;
    /// Gives a zone that must have the serial `base` the content of an old version, with a new serial, which it gives back.
    fn rollback(&self, origin: &Name, base: u32, to: u32, by: &By) -> Answer<u32>;
}

/// Who asks for a change.
#[derive(Debug, Clone, Default)]
pub struct By {
    /// For the server's audit log.
    pub actor: String,
    /// A signed token that lifts guardrails for exactly what is asked.
    pub force: Option<Secret>,
}

/// A zone in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneSummary {
    /// Its apex.
    pub origin: Name,
    /// Its serial.
    pub serial: u32,
    /// How many records it has.
    pub records: u64,
    /// `serving`, `refused` or `expired`.
    pub state: String,
}

/// A zone as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedZone {
    /// Its serial.
    pub serial: u32,
    /// All its records, the SOA included.
    pub records: Vec<Record>,
}

/// A version in a zone's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its serial.
    pub serial: u32,
    /// When it came to be served (RFC 3339).
    #[serde(default)]
    pub time: String,
    /// Who made it.
    #[serde(default)]
    pub actor: String,
    /// Records that came with it.
    #[serde(default)]
    pub added: u64,
    /// Records that went.
    #[serde(default)]
    pub removed: u64,
}

/// The providers of a declaration by the address of their control API.
#[derive(Default)]
pub struct Fleet<'p> {
    providers: BTreeMap<String, Box<dyn Provider + 'p>>,
}

impl<'p> Fleet<'p> {
    /// A fleet of nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the provider at `control`.
    pub fn add(&mut self, control: impl Into<String>, provider: impl Provider + 'p) {
        self.providers.insert(control.into(), Box::new(provider));
    }

    /// The providers with their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &(dyn Provider + 'p))> {
        self.providers.iter().map(|(control, provider)| (control.as_str(), &**provider))
    }

    /// Asks the provider at `control`.
    ///
    /// # Errors
    /// There is none, or it does not do it.
    pub fn ask<T>(&self, control: &str, question: impl FnOnce(&dyn Provider) -> Answer<T>) -> Result<T, Error> {
        let absent = || ProviderError::Unreachable("no provider is set up for it".to_owned());
        let provider = self.providers.get(control).ok_or_else(absent);
        provider
            .and_then(|provider| question(&**provider))
            .map_err(|source| Error::Provider { control: control.to_owned(), source })
    }
}

/// A provider that others keep too.
impl<P: Provider + ?Sized> Provider for &P {
    fn zones(&self) -> Answer<Vec<ZoneSummary>> {
        (**self).zones()
    }

    fn zone(&self, origin: &Name) -> Answer<Option<ServedZone>> {
        (**self).zone(origin)
    }

    fn policy(&self, origin: &Name) -> Answer<Option<String>> {
        (**self).policy(origin)
    }

    fn create_zone(&self, origin: &Name, text: &str, by: &By) -> Answer<u32> {
        (**self).create_zone(origin, text, by)
    }

    fn change(&self, origin: &Name, base: u32, changes: &[Change], by: &By) -> Answer<u32> {
        (**self).change(origin, base, changes, by)
    }

    fn delete_zone(&self, origin: &Name, base: u32, by: &By) -> Answer<()> {
        (**self).delete_zone(origin, base, by)
    }

    fn put_policy(&self, origin: &Name, from: Option<&str>, text: &str, by: &By) -> Answer<()> {
        (**self).put_policy(origin, from, text, by)
    }

    fn keys(&self) -> Answer<Vec<String>> {
        (**self).keys()
    }

    fn put_key(&self, name: &str, algorithm: &str, secret: &Secret, by: &By) -> Answer<()> {
        (**self).put_key(name, algorithm, secret, by)
    }

    fn versions(&self, origin: &Name) -> Answer<Vec<Version>> {
        (**self).versions(origin)
    }

    fn version(&self, origin: &Name, serial: u32) -> Answer<Option<Vec<Record>>> {
        (**self).version(origin, serial)
    }

    fn rollback(&self, origin: &Name, base: u32, to: u32, by: &By) -> Answer<u32> {
        (**self).rollback(origin, base, to, by)
    }
}
