//! One connection: both directions with bounded buffers, ends and resets as they come, and the balancer's own.

use super::group::{Choice, Reset};
use super::{Event, Shared, header};
use socket2::SockRef;
use std::cell::Cell;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Bytes of one direction on their way.
const BUFFER_BYTES: usize = 16 * 1024;

/// Carry a client's connection to the end.
pub(crate) async fn serve(shared: Arc<Shared>, client: TcpStream, peer: SocketAddr, zone: usize, local: SocketAddr) {
    let choice = shared.group().choose(peer, local, zone, Instant::now());
    let (addr, flow, reset) = match choice {
        Choice::To { addr, flow, reset } => (addr, flow, reset),
        Choice::Duplicate => return reset_now(client),
        Choice::Nobody => return swallow(client).await,
    };
    match TcpStream::connect(addr).await {
        Ok(target) => {
            let ended = carry(&shared, &client, &target, peer, local, reset).await;
            shared.group().ended(flow);
            finish(&shared, client, target, ended).await;
        }
        Err(_) => {
            let mut group = shared.group();
            group.ended(flow);
            group.note(Event::Refused);
            drop(group);
            reset_now(client);
        }
    }
}

/// How carrying a connection ended.
enum Ended {
    /// Both sides have sent their last byte.
    InOrder,
    /// One side reset it.
    Broken,
    /// Quiet for too long.
    Idle,
    /// Likewise, after one side had sent its last byte: nobody waits for anything.
    IdleHalfClosed,
    /// By decision of the balancer.
    Reset(Reset),
}

async fn carry(
    shared: &Shared,
    client: &TcpStream,
    target: &TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    reset: oneshot::Receiver<Reset>,
) -> Ended {
    let _ = client.set_nodelay(true);
    let _ = target.set_nodelay(true);
    let quiet = Quiet::new();
    let mut first = Vec::new();
    if let Some(proxy_protocol) = &shared.settings.proxy_protocol {
        first = header::proxy(peer, local, proxy_protocol.vpce_id.as_deref());
        if proxy_protocol.at_once {
            if write_all(target, &first).await.is_err() {
                return Ended::Broken;
            }
            first.clear();
        }
    }
    let both = async { tokio::try_join!(copy(client, target, &first, &quiet), copy(target, client, &[], &quiet)) };
    let decided = async {
        match reset.await {
            Ok(reset) => reset,
            // The group forgets connections only when they have ended.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        copied = both => if copied.is_ok() { Ended::InOrder } else { Ended::Broken },
        reset = decided => Ended::Reset(reset),
        () = quiet.reached(shared.settings.scaled(shared.settings.idle_timeout)) => {
            if quiet.half_closed.load(Ordering::Relaxed) { Ended::IdleHalfClosed } else { Ended::Idle }
        }
    }
}

/// End both sides in the way that `ended` asks for.
async fn finish(shared: &Shared, client: TcpStream, target: TcpStream, ended: Ended) {
    let event = match ended {
        Ended::InOrder => return,
        Ended::Idle | Ended::IdleHalfClosed => {
            // Nobody is told. Whoever sends next learns it.
            if matches!(ended, Ended::Idle) {
                shared.group().note(Event::Forgotten);
            }
            tokio::join!(reset_at_next_packet(client), reset_at_next_packet(target));
            return;
        }
        Ended::Broken => Event::PassedReset,
        Ended::Reset(Reset::Unhealthy) => Event::ResetUnhealthy,
        Ended::Reset(Reset::Terminated) => Event::ResetTerminated,
    };
    shared.group().note(event);
    reset_now(client);
    reset_now(target);
}

/// Pass on what `from` sends, `first` before it, and its end.
async fn copy(from: &TcpStream, to: &TcpStream, first: &[u8], quiet: &Quiet) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let first = Cell::new(first);
    loop {
        from.readable().await?;
        let count = match from.try_read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        quiet.interrupted();
        if count == 0 {
            quiet.half_closed.store(true, Ordering::Relaxed);
            return SockRef::from(to).shutdown(Shutdown::Write);
        }
        let before = first.take();
        if before.is_empty() {
            write_all(to, &buffer[..count]).await?;
        } else {
            write_all(to, &[before, &buffer[..count]].concat()).await?;
        }
        quiet.interrupted();
    }
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Close with a reset.
fn reset_now(stream: TcpStream) {
    let _ = stream.set_zero_linger();
    drop(stream);
}

/// Be gone, as far as this side can see: anything it sends is answered with a reset.
async fn reset_at_next_packet(stream: TcpStream) {
    loop {
        let readable = stream.readable().await;
        let seen = readable.and_then(|()| stream.try_read(&mut [0]));
        match seen {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return reset_now(stream),
        }
    }
}

/// Take what the client sends and never answer.
async fn swallow(client: TcpStream) {
    let mut scrap = vec![0; BUFFER_BYTES];
    while client.readable().await.is_ok() {
        match client.try_read(&mut scrap) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// How long a connection has been quiet.
struct Quiet {
    began: Instant,
    /// Microseconds from `began` to the last packet.
    last_us: AtomicU64,
    half_closed: AtomicBool,
}

impl Quiet {
    fn new() -> Self {
        Self { began: Instant::now(), last_us: AtomicU64::new(0), half_closed: AtomicBool::new(false) }
    }

    fn interrupted(&self) {
        self.last_us.store(self.began.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    /// Wait until it has been quiet for `limit`.
    async fn reached(&self, limit: Duration) {
        loop {
            let end = self.began + Duration::from_micros(self.last_us.load(Ordering::Relaxed)) + limit;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end.into()).await;
        }
    }
}
