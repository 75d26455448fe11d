//! redis-server over TLS.

use crate::Authority;
use gateward_testkit::{RedisServer, TempDir};
use std::path::Path;

/// A server with a certificate of `authority` for `name`, and the folder of its files, where `ca.pem` is what to trust.
///
/// # Panics
/// When it does not start.
#[track_caller]
pub fn redis_with_tls(authority: &Authority, name: &str) -> (RedisServer, TempDir) {
    let dir = TempDir::new().expect("a directory can be made");
    let (cert, key) = authority.issue(name).write(dir.path(), "redis");
    let trusted = dir.path().join("ca.pem");
    std::fs::write(&trusted, authority.pem()).expect("files can be written");
    let text = |path: &Path| path.display().to_string();
    let redis = RedisServer::start_tls(&[
        "--tls-cert-file",
        &text(&cert),
        "--tls-key-file",
        &text(&key),
        "--tls-ca-cert-file",
        &text(&trusted),
        "--tls-auth-clients",
        "no",
    ]);
    (redis, dir)
}
