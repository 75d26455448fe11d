//! Where the zones of a folder come from that are not the operator's own: copies of a primary's, and catalogs that the server writes.
//!
//! It is kept in `.sources/ORIGIN` beside the zone's file, and written before that: whatever a crash leaves behind, a copy never comes back
//! as a zone that may be changed here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use gateward_zone::Name;
use serde::{Deserialize, Serialize};

use crate::catalog::Source;
use crate::folder::{Folder, PUBLIC, origin_of, read_bounded, remove_durably, write_durably};
use crate::secondary::Primary;

/// What a zone is, when it is not the operator's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A copy that the operator asks for.
    Secondary,
    /// A copy of a catalog, whose members are copied too.
    Catalog,
    /// A copy that a catalog asks for.
    Member {
        /// The catalog.
        catalog: Name,
        /// The member's ID in it.
        id: Vec<u8>,
        /// Its groups.
        groups: Vec<String>,
        /// The catalog that may take it over.
        coo: Option<Name>,
    },
    /// A catalog that the server makes of its zones.
    Produced,
}

/// Where a zone comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// What it is.
    pub role: Role,
    /// Where it is copied from.
    pub primaries: Vec<Primary>,
}

impl Provenance {
    /// The same as a catalog's consumer sees it.
    #[must_use]
    pub fn source(&self) -> Source {
        match self.role.clone() {
            Role::Member { catalog, id, groups, coo } => Source::Catalog { catalog, id, groups, coo },
            Role::Secondary | Role::Catalog | Role::Produced => Source::Own,
        }
    }

    /// Whether it is a member of this catalog.
    #[must_use]
    pub fn is_member_of(&self, of: &Name) -> bool {
        matches!(&self.role, Role::Member { catalog, .. } if catalog == of)
    }
}

/// The form of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    role: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    primaries: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    member: Option<WrittenMember>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMember {
    catalog: String,
    id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    coo: Option<String>,
}

const SECONDARY: &str = "secondary";
const CATALOG: &str = "catalog";
const MEMBER: &str = "member";
const PRODUCED: &str = "produced";

impl From<&Provenance> for Written {
    fn from(provenance: &Provenance) -> Self {
        let (role, member) = match &provenance.role {
            Role::Secondary => (SECONDARY, None),
            Role::Catalog => (CATALOG, None),
            Role::Produced => (PRODUCED, None),
            Role::Member { catalog, id, groups, coo } => {
                // An ID is one label; as a name it is text that reads back.
                let id = Name::root().child(id).unwrap_or_else(|_| Name::root()).to_string();
                let (catalog, coo) = (catalog.to_string(), coo.as_ref().map(ToString::to_string));
                (MEMBER, Some(WrittenMember { catalog, id, groups: groups.clone(), coo }))
            }
        };
        let primaries = provenance.primaries.iter().map(ToString::to_string).collect();
        Written { role: role.to_owned(), primaries, member }
    }
}

impl Written {
    fn read(self) -> Result<Provenance, String> {
        let name = |text: &str| text.parse::<Name>().map_err(|error| format!("{text}: {error}"));
        let role = match (self.role.as_str(), self.member) {
            (SECONDARY, None) => Role::Secondary,
            (CATALOG, None) => Role::Catalog,
            (PRODUCED, None) => Role::Produced,
            (MEMBER, Some(member)) => Role::Member {
                catalog: name(&member.catalog)?,
                id: name(&member.id)?.first_label().map(<[u8]>::to_vec).unwrap_or_default(),
                groups: member.groups,
                coo: member.coo.as_deref().map(name).transpose()?,
            },
            (role, _) => return Err(format!("role {role} is not known, or lacks its member")),
        };
        let primaries = self.primaries.iter().map(|primary| primary.parse()).collect::<Result<_, String>>()?;
        Ok(Provenance { role, primaries })
    }
}

/// What is kept, by zone.
pub struct Sources {
    dir: PathBuf,
    known: RwLock<BTreeMap<Name, Arc<Provenance>>>,
}

impl Sources {
    /// Reads what is kept in a folder.
    ///
    /// # Errors
    /// A file that cannot be read: without it a copy would pass for a zone of the operator's.
    pub fn open(folder: &Folder) -> io::Result<Self> {
        let dir = folder.sources_dir();
        let mut known = BTreeMap::new();
        for file in std::fs::read_dir(&dir)? {
            let path = file?.path();
            let stem = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.'));
            let Some(origin) = stem.and_then(origin_of) else { continue };
            known.insert(origin, Arc::new(read(&path)?));
        }
        Ok(Sources { dir, known: RwLock::new(known) })
    }

    /// Where a zone comes from; `None` for the operator's own.
    #[must_use]
    pub fn of(&self, origin: &Name) -> Option<Arc<Provenance>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(origin).cloned()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> BTreeMap<Name, Arc<Provenance>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A zone comes from there from now on; durable when it returns.
    ///
    /// # Errors
    /// It cannot be written; what was known stays.
    pub fn put(&self, origin: &Name, provenance: Provenance) -> io::Result<()> {
        if self.of(origin).is_some_and(|known| *known == provenance) {
            return Ok(());
        }
        let text = serde_json::to_string(&Written::from(&provenance))? + "\n";
        write_durably(&self.file(origin), text.as_bytes(), PUBLIC)?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(origin.clone(), Arc::new(provenance));
        Ok(())
    }

    /// A zone is the operator's own again, or gone.
    ///
    /// # Errors
    /// The file is still there; what was known stays.
    pub fn remove(&self, origin: &Name) -> io::Result<()> {
        remove_durably(&self.file(origin))?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(origin);
        Ok(())
    }

    fn file(&self, origin: &Name) -> PathBuf {
        self.dir.join(crate::folder::stem(origin))
    }
}

fn read(path: &Path) -> io::Result<Provenance> {
    let text = read_bounded(path)?;
    let written = serde_json::from_slice::<Written>(&text).map_err(|error| error.to_string());
    written.and_then(Written::read).map_err(|error| {
        let message = format!(
            "{} does not say where the zone comes from ({error}); bring it back from a backup, or remove it together with the zone's \
             file to have the zone copied anew",
            path.display()
        );
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect(text)
    }

    #[test]
    fn where_zones_come_from_outlives_the_process() {
        let root = std::env::temp_dir().join(format!("gateward-sources-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a folder");
        let folder = Folder::open(&root).expect("it is there");
        let sources = Sources::open(&folder).expect("nothing is there");
        let primaries: Vec<Primary> =
            ["192.0.2.1", "[2001:db8::1]:5353#key.example."].map(|text| text.parse().expect(text)).into();
        let member = Role::Member {
            catalog: name("catalog.example"),
            id: b"a\0.b".to_vec(),
            groups: vec!["slow".to_owned()],
            coo: Some(name("other.example")),
        };
        let roles = [Role::Secondary, Role::Catalog, member, Role::Produced];
        for (index, role) in roles.into_iter().enumerate() {
            let origin = name(&format!("z{index}.example"));
            sources.put(&origin, Provenance { role, primaries: primaries.clone() }).expect("it is written");
        }
        let again = Sources::open(&folder).expect("it reads back");
        assert_eq!(again.all(), sources.all());
        assert_eq!(again.all().len(), 4);
        assert!(again.of(&name("z2.example")).is_some_and(|zone| zone.is_member_of(&name("catalog.example"))));
        again.remove(&name("z0.example")).expect("it was there");
        assert_eq!(Sources::open(&folder).expect("it reads back").of(&name("z0.example")), None);
        for broken in ["", "{}", r#"{"role":"member"}"#, r#"{"role":"secondary","primaries":["nowhere"]}"#] {
            std::fs::write(root.join(".sources/z9.example"), broken).expect("a file");
            let error = Sources::open(&folder).err().expect(broken);
            assert!(error.to_string().contains("z9.example"), "{error}");
        }
        std::fs::remove_dir_all(&root).expect("it was ours");
    }
}
