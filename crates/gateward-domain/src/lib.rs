//! A domain as one declaration: what its zones must hold, plans to get there, and proof that it answers.
//!
//! ```text
//! domain.yaml -> Declaration -> Desired --+-> Plan -> apply -> Account
//! control APIs -> Current ----------------+
//! name servers -> verify -> Verification
//! ```
//!
//! Everything up to the plan is a function of its arguments. Servers are reached in two places: `provider` (control APIs)
//! and `verify` (DNS queries).
#![forbid(unsafe_code)]

mod apply;
mod current;
pub mod declaration;
mod desired;
mod drift;
mod error;
mod force;
mod need;
pub mod plan;
pub mod provider;
mod rollback;
mod text;
pub mod verify;

pub use apply::{Account, KeyAccount, Secrets, State, StepAccount, ZoneAccount, apply};
pub use current::{Current, CurrentZone};
pub use declaration::Declaration;
pub use desired::{Desired, DesiredZone, LeftAlone};
pub use drift::{Status, ZoneStatus, drift, status};
pub use error::{Error, MissingLeave, ProviderError, Refusal, StaleZone};
pub use force::{Author, Tokens};
pub use rollback::rollback;
