//! Authoritative DNS: a store of zones, answers as a pure function of a query and the store, and the servers around them.

pub mod answer;
pub mod authority;
pub mod catalog;
pub mod control;
pub mod cookies;
pub mod folder;
#[doc(hidden)]
pub mod fuzzing;
mod hash;
pub mod journal;
pub mod keys;
pub mod leases;
pub mod message;
pub mod notify;
pub mod secondary;
pub mod server;
pub mod service;
pub mod sources;
pub mod store;
pub mod transfer;
pub mod tsig;
pub mod update;
pub mod wire;
pub mod zones_dir;
