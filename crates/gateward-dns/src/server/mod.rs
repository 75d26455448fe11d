//! The servers around the answers: UDP on threads of their own, TCP and TLS on a runtime.

mod batch;
mod conversation;
pub mod cores;
pub mod limit;
pub mod log;
mod slice;
pub mod slow;
pub mod stats;
mod stream;
pub mod tls;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio_rustls::TlsAcceptor;

use crate::answer::Settings;
use crate::cookies::CookieKeys;
use crate::store::Zones;
use conversation::Streams;
use cores::Cores;
use limit::{Quotas, RateLimiter};
use log::QueryLog;
use slow::{Places, Slow};
use stats::Stats;
use stream::Clients;
use udp::Worker;

/// How often a port is looked for that is free for both UDP and TCP.
const PORT_TRIES: usize = 64;

/// What all workers read.
pub struct Shared {
    /// The zones that are served.
    pub zones: Arc<Zones>,
    /// How answers are made.
    pub answers: ArcSwap<Answers>,
    /// Places for messages that are served elsewhere.
    places: Places,
}

/// How answers are made; replaced as a whole.
pub struct Answers {
    /// What the operator decided.
    pub settings: Settings,
    /// Keys of server cookies.
    pub cookies: CookieKeys,
}

impl Shared {
    /// No zones yet.
    #[must_use]
    pub fn new(settings: Settings, cookies: CookieKeys) -> Self {
        Shared {
            zones: Arc::default(),
            answers: ArcSwap::from_pointee(Answers { settings, cookies }),
            places: Places::new(),
        }
    }
}

/// How a server is set up.
pub struct Options {
    /// Addresses for UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Addresses for DNS over TLS, and what it is spoken with.
    pub tls: Option<(Vec<SocketAddr>, Arc<rustls::ServerConfig>)>,
    /// Threads that answer over UDP, per address.
    pub workers: usize,
    /// Where they run; by default where the kernel likes. On every address, workers of the same number share a core.
    pub cores: Cores,
    /// Answers of a kind per second and network (see [`RateLimiter::new`]) from all workers together; each gives its share.
    pub rate_limit: u32,
    /// Every so many limited answers one passes with TC.
    pub slip: u32,
    /// Networks that are not limited.
    pub exempt: Vec<IpNet>,
    /// The query log.
    pub log: Option<QueryLog>,
}

/// One worker that limits nothing, without an address.
impl Default for Options {
    fn default() -> Self {
        Options {
            listen: Vec::new(),
            tls: None,
            workers: 1,
            cores: Cores::default(),
            rate_limit: 0,
            slip: 0,
            exempt: Vec::new(),
            log: None,
        }
    }
}

/// A running server. It ends when it is dropped.
pub struct Server {
    shared: Arc<Shared>,
    stats: Vec<Arc<Stats>>,
    addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Binds all addresses and begins to answer. Called within a tokio runtime, which serves streams and slow messages.
    ///
    /// # Errors
    /// When an address cannot be bound; nothing is left running then.
    pub fn start(shared: Arc<Shared>, options: &Options, slow: &Arc<dyn Slow>) -> io::Result<Server> {
        let mut server = Server {
            shared,
            stats: Vec::new(),
            addresses: Vec::new(),
            tls_addresses: Vec::new(),
            threads: Vec::new(),
            tasks: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let stats = Arc::new(Stats::shared());
        server.stats.push(Arc::clone(&stats));
        let log = options.log.as_ref().map(QueryLog::another);
        let streams = Arc::new(Streams::new(Arc::clone(&server.shared), stats, Arc::clone(slow), log));
        let clients = Arc::default();
        for address in &options.listen {
            let (listener, address) = listen_both(*address)?;
            server.addresses.push(address);
            server.work(address, options, slow)?;
            server.accept(&streams, &clients, listener, None)?;
        }
        if let Some((addresses, config)) = &options.tls {
            for address in addresses {
                let listener = listen_tcp(*address)?;
                server.tls_addresses.push(listener.local_addr()?);
                server.accept(&streams, &clients, listener, Some(TlsAcceptor::from(Arc::clone(config))))?;
            }
        }
        Ok(server)
    }

    /// Starts the workers of an address.
    fn work(&mut self, address: SocketAddr, options: &Options, slow: &Arc<dyn Slow>) -> io::Result<()> {
        let workers = options.workers.max(1);
        // Who keeps limits, on all addresses: each has its part of them.
        let shares = u32::try_from(workers * options.listen.len()).unwrap_or(u32::MAX);
        for index in 0..workers {
            let worker = Worker {
                socket: Arc::new(udp::bind(address)?),
                shared: Arc::clone(&self.shared),
                stats: self.count(),
                limiter: RateLimiter::new(
                    limit::share(options.rate_limit, shares),
                    options.slip,
                    options.exempt.clone(),
                ),
                quotas: Quotas::new(shares),
                slow: Arc::clone(slow),
                runtime: tokio::runtime::Handle::current(),
                log: options.log.as_ref().map(QueryLog::another),
                stop: Arc::clone(&self.stop),
            };
            let cores = options.cores.clone();
            let thread = std::thread::Builder::new().name(format!("dns-{index}")).spawn(move || {
                if let Err(error) = cores.enter(index) {
                    tracing::warn!(%error, "a DNS worker cannot have its core to itself");
                }
                if let Err(error) = slice::shorten() {
                    tracing::debug!(%error, "a DNS worker cannot ask for short slices");
                }
                if let Err(error) = worker.run() {
                    tracing::error!(%address, %error, "a DNS worker cannot serve its socket");
                }
            })?;
            self.threads.push(thread);
        }
        Ok(())
    }

    fn accept(
        &mut self,
        streams: &Arc<Streams>,
        clients: &Arc<Clients>,
        listener: std::net::TcpListener,
        tls: Option<TlsAcceptor>,
    ) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        self.tasks.push(tokio::spawn(stream::accept(Arc::clone(streams), Arc::clone(clients), listener, tls)));
        Ok(())
    }

    fn count(&mut self) -> Arc<Stats> {
        let stats = Arc::new(Stats::default());
        self.stats.push(Arc::clone(&stats));
        stats
    }

    /// Addresses that are served over UDP and TCP.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Addresses that are served over TLS.
    #[must_use]
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls_addresses
    }

    /// What the workers count.
    #[must_use]
    pub fn stats(&self) -> &[Arc<Stats>] {
        &self.stats
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in &self.tasks {
            task.abort();
        }
        for thread in self.threads.drain(..) {
            // A worker that panicked has been reported by its thread.
            let _ = thread.join();
        }
    }
}

/// Listens for connections where datagrams can be received too; port 0 takes a port that is free for both.
fn listen_both(address: SocketAddr) -> io::Result<(std::net::TcpListener, SocketAddr)> {
    let mut taken = Vec::new();
    loop {
        let listener = listen_tcp(address)?;
        let bound = SocketAddr::new(address.ip(), listener.local_addr()?.port());
        if address.port() != 0 {
            return Ok((listener, bound));
        }
        // Workers share their port, and would share it with whoever else is ready to: this socket shares with nobody.
        match std::net::UdpSocket::bind(bound) {
            Ok(_) => return Ok((listener, bound)),
            Err(error) if taken.len() == PORT_TRIES => return Err(error),
            // Held until another is found, so that it is not offered again.
            Err(_) => taken.push(listener),
        }
    }
}

fn listen_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
