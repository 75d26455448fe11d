//! Health checks: connecting, or an HTTP request, with a LOCAL header where the PROXY protocol is on.

use super::group::TargetId;
use super::{Shared, header};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Check a target until it leaves the group.
pub(crate) async fn watch(shared: Arc<Shared>, id: TargetId) {
    let settings = &shared.settings;
    let mut ticks = tokio::time::interval(settings.scaled(settings.check.interval));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // A busy machine must not make targets unhealthy: the time for one check is not scaled.
    let timeout = settings.check.timeout;
    loop {
        ticks.tick().await;
        let Some(target) = shared.group().checked(id) else { return };
        let success = tokio::time::timeout(timeout, check(&shared, target.check_addr)).await;
        let success = matches!(success, Ok(Ok(true)));
        shared.group().report(id, success, Instant::now());
    }
}

async fn check(shared: &Shared, addr: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(addr).await?;
    if shared.settings.proxy_protocol.is_some() {
        stream.write_all(&header::local()).await?;
    }
    let Some(path) = &shared.settings.check.path else { return Ok(true) };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(matches!(&status[..], [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', b'2' | b'3', _, _]))
}
