//! Gateward's vocabulary: what a configuration says, in types.
//!
//! No IO and no clock. `gateward-config` builds these values from files, the planes read them. Wire formats
//! stay with the crate that parses them; the `Serialize` here writes the entity as Kong's Admin API shows it.

pub mod directory;
pub mod entity;
pub mod id;
pub mod resilience;
pub mod schema;
pub mod secret;
pub mod snapshot;

pub use directory::Directory;
pub use entity::{
    AclGroup, Algorithm, BasicAuthCredential, CaCertificate, Certificate, Consumer, GenericEntity, HashOn,
    HealthChecks, KeyAuthCredential, PathHandling, PluginConfig, Protocol, ProxyProtocolVersion, Route, RouterFlavor,
    Service, Sni, Target, Upstream, Vault,
};
pub use id::EntityId;
pub use resilience::{CircuitBreaker, Hedging, OutlierDetection, Resilience, RetryBudget, SlowStart};
pub use secret::Secret;
pub use snapshot::{Config, Snapshot};
