//! Cosockets: connections that plugins open, read and write as if it blocked.
//!
//! A socket is used by one reader and one writer at a time, as in OpenResty. What it reads ahead stays with it. Connections
//! that are kept alive wait in the machine's [`Pools`].

mod pool;
mod read;
mod tcp;
mod udp;

pub(crate) use pool::Pools;
pub(crate) use read::What;
pub(crate) use tcp::{Received, Tcp, Wanted};
pub(crate) use udp::Udp;

use gateward_net::dns::Names;
use gateward_net::tls::Context;
use gateward_net::{Resolver, Stream};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::net::UnixStream;

/// Connections of one machine, idle ones included.
const CONNECTIONS: usize = 8192;

/// What connections of a node stand on.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) names: Arc<Names>,
    pub(crate) tls: Arc<Context>,
}

/// Why a socket could not do something, in OpenResty's words.
pub(crate) type Failure = std::borrow::Cow<'static, str>;

/// What the sockets of one machine share.
#[derive(Default)]
pub(crate) struct Sockets {
    network: std::cell::OnceCell<(Resolver, Arc<Context>)>,
    pub(crate) pools: Pools,
    open: Rc<Cell<usize>>,
    /// Sockets that were connected, by the slot of their request: they are closed with it.
    owned: RefCell<FxHashMap<u32, Vec<Weak<Tcp>>>>,
}

impl Sockets {
    /// Let `socket` end with the request in `slot`.
    pub(crate) fn own(&self, slot: u32, socket: &Rc<Tcp>) {
        let mut owned = self.owned.borrow_mut();
        let sockets = owned.entry(slot).or_default();
        let socket = Rc::downgrade(socket);
        if !sockets.iter().any(|known| known.ptr_eq(&socket)) {
            sockets.retain(|known| known.strong_count() > 0);
            sockets.push(socket);
        }
    }

    /// The request in `slot` is over.
    pub(crate) fn close_of(&self, slot: u32) {
        let mut owned = self.owned.borrow_mut();
        if owned.is_empty() {
            return;
        }
        let sockets = owned.remove(&slot).unwrap_or_default();
        drop(owned);
        for socket in sockets.iter().filter_map(Weak::upgrade) {
            let _ = socket.close();
        }
    }

    /// Sockets can be connected from now on.
    pub(crate) fn set_network(&self, network: &Network) {
        let _ = self.network.set((Resolver::new(network.names.clone()), network.tls.clone()));
    }

    pub(crate) fn tls(&self) -> Result<&Arc<Context>, Failure> {
        self.network.get().map(|(_, tls)| tls).ok_or(Failure::Borrowed("there is no network here"))
    }

    /// An address of `host`.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> Result<SocketAddr, Failure> {
        let Some((resolver, _)) = self.network.get() else { return Err("there is no network here".into()) };
        let resolved = resolver.resolve(host, port).await;
        resolved.map_err(|_| format!("{host} could not be resolved (3: Host not found)").into())
    }

    async fn connect(&self, host: &str, port: u16) -> Result<Connection, Failure> {
        if self.open.get() >= CONNECTIONS {
            return Err(format!("more than {CONNECTIONS} connections of plugins are open").into());
        }
        let wire = match host.strip_prefix("unix:") {
            Some(path) => Wire::Unix(UnixStream::connect(path).await.map_err(|error| words(&error))?),
            None => {
                let address = self.resolve(host, port).await?;
                let stream = Stream::connect(address).await.map_err(|error| words(&error))?;
                Wire::Tcp(stream, address.ip())
            }
        };
        self.open.set(self.open.get() + 1);
        Ok(Connection { wire: Rc::new(wire), secure: false, reused: 0, _open: Open(self.open.clone()) })
    }
}

/// A connection, counted while it is open.
pub(crate) struct Connection {
    wire: Rc<Wire>,
    /// The TLS handshake was done.
    secure: bool,
    reused: u32,
    _open: Open,
}

struct Open(Rc<Cell<usize>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Where bytes go.
enum Wire {
    Tcp(Stream, IpAddr),
    Unix(UnixStream),
}

impl Wire {
    fn poll_read(&self, context: &mut std::task::Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream, _) => stream.poll_read(context, buffer),
            Self::Unix(stream) => loop {
                ready!(stream.poll_read_ready(context))?;
                match stream.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return Poll::Ready(read),
                }
            },
        }
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context, buffer)).await
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream, _) => stream.write(bytes).await,
            Self::Unix(stream) => loop {
                stream.writable().await?;
                match stream.try_write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    wrote => return wrote,
                }
            },
        }
    }

    /// Whether nothing arrived, not even the end, on a connection that ought to be silent.
    fn is_silent(&self) -> bool {
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        self.poll_read(context, &mut [0]).is_pending()
    }
}

/// An error in OpenResty's words.
pub(crate) fn words(error: &io::Error) -> Failure {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".into(),
        ErrorKind::ConnectionReset => "connection reset by peer".into(),
        ErrorKind::BrokenPipe => "broken pipe".into(),
        ErrorKind::TimedOut => "timeout".into(),
        ErrorKind::UnexpectedEof => "closed".into(),
        ErrorKind::HostUnreachable => "no route to host".into(),
        ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        ErrorKind::NotFound => "no such file or directory".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string().into(),
    }
}

/// `operation`, for so long at most.
async fn within<R>(time: Duration, operation: impl Future<Output = Result<R, Failure>>) -> Result<R, Failure> {
    // A socket that is always ready must not keep the worker for itself.
    tokio::task::coop::consume_budget().await;
    tokio::time::timeout(time, operation).await.unwrap_or(Err(Failure::Borrowed("timeout")))
}
