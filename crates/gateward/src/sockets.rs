//! The listening sockets of a node: bound by it, or taken over from the process before.
//!
//! A socket that was taken over is served whatever the number of workers is now, because connections wait in its
//! queue: more sockets than workers are spread over the workers, and fewer are joined by new ones in the same group.

use crate::control::Addresses;
use crate::settings::{Listen, Options};
use crate::upgrade::{Inherited, Offer, Role};
use anyhow::{Context, Result};
use gateward_net::{DatagramListener, Listener};
use gateward_proxy::WorkerSockets;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Every socket of a node.
pub(crate) struct Sockets {
    /// Those of each worker.
    pub(crate) workers: Vec<WorkerSockets>,
    /// Of the Admin API.
    pub(crate) admin: Vec<Listener>,
    /// Of the status port.
    pub(crate) status: Vec<Listener>,
    /// Where they listen.
    pub(crate) addresses: Addresses,
    /// All of them once more, for the process after this one; none where nobody will ask.
    pub(crate) offers: Vec<Offer>,
}

/// The sockets of one address.
struct Group<S> {
    role: Role,
    asked: Listen,
    bound: SocketAddr,
    sockets: Vec<S>,
}

/// What groups are made of.
trait Socket: Sized {
    /// A new one, for connections not yet listening.
    fn reserve(address: SocketAddr) -> io::Result<Self>;
    /// One of another process.
    fn adopt(descriptor: OwnedFd) -> io::Result<Self>;
    fn duplicate(&self) -> io::Result<OwnedFd>;
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// Be what the setting asks for.
    fn suit(self, asked: Listen) -> Self;
    /// Begin to receive; again on one that does already.
    fn listen(&self, asked: Listen) -> io::Result<()>;
}

impl Socket for Listener {
    fn reserve(address: SocketAddr) -> io::Result<Self> {
        Self::reserve(address)
    }

    fn adopt(descriptor: OwnedFd) -> io::Result<Self> {
        Self::adopt(descriptor)
    }

    fn duplicate(&self) -> io::Result<OwnedFd> {
        self.duplicate()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn suit(self, asked: Listen) -> Self {
        self.with_proxy_protocol(asked.proxy_protocol).with_flags(asked.flags)
    }

    fn listen(&self, asked: Listen) -> io::Result<()> {
        self.listen(asked.backlog)
    }
}

impl Socket for DatagramListener {
    fn reserve(address: SocketAddr) -> io::Result<Self> {
        Self::bind(address)
    }

    fn adopt(descriptor: OwnedFd) -> io::Result<Self> {
        Self::adopt(descriptor)
    }

    fn duplicate(&self) -> io::Result<OwnedFd> {
        self.duplicate()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn suit(self, _asked: Listen) -> Self {
        self
    }

    /// Nothing is to be done: what comes waits in the socket's buffer.
    fn listen(&self, _asked: Listen) -> io::Result<()> {
        Ok(())
    }
}

impl Sockets {
    /// Open what the settings name.
    ///
    /// # Errors
    /// An address is in use or not ours.
    pub(crate) fn open(options: &Options, inherited: &mut Inherited) -> Result<Self> {
        // A worker without a socket would end at once.
        let workers = if options.proxy.is_empty() && options.stream.is_empty() { 0 } else { options.workers };
        let (datagrams, stream): (Vec<Listen>, Vec<Listen>) = options.stream.iter().partition(|listen| listen.udp);
        let proxy = open_all::<Listener>(Role::Proxy, &options.proxy, workers, inherited)?;
        let stream = open_all::<Listener>(Role::Stream, &stream, workers, inherited)?;
        let datagrams = open_all::<DatagramListener>(Role::Datagram, &datagrams, workers, inherited)?;
        let admin = open_all::<Listener>(Role::Admin, &options.admin, 1, inherited)?;
        let status = open_all::<Listener>(Role::Status, &options.status, 1, inherited)?;
        let mut offers = Vec::new();
        // Only now, as nothing can fail any more: a socket that listens gets connections.
        for group in proxy.iter().chain(&stream).chain(&admin).chain(&status) {
            offers.extend(group.listen(options)?);
        }
        for group in &datagrams {
            offers.extend(group.listen(options)?);
        }
        let addresses = Addresses {
            proxy: texts(&proxy),
            stream: texts(&stream),
            datagrams: texts(&datagrams),
            admin: texts(&admin),
            status: texts(&status),
        };
        let all = |groups: Vec<Group<Listener>>| groups.into_iter().flat_map(|group| group.sockets).collect();
        let (admin, status) = (all(admin), all(status));
        let mut dealt: Vec<WorkerSockets> = (0..workers).map(|_| WorkerSockets::default()).collect();
        deal(proxy.into_iter().chain(stream), workers, |worker, socket| dealt[worker].listeners.push(socket));
        deal(datagrams, workers, |worker, socket| dealt[worker].datagrams.push(socket));
        Ok(Self { workers: dealt, admin, status, addresses, offers })
    }
}

fn texts<S>(groups: &[Group<S>]) -> Vec<String> {
    groups.iter().map(|group| group.bound.to_string()).collect()
}

/// Deal the sockets of each address to the workers.
fn deal<S>(groups: impl IntoIterator<Item = Group<S>>, workers: usize, mut give: impl FnMut(usize, S)) {
    for group in groups {
        for (index, socket) in group.sockets.into_iter().enumerate() {
            give(index % workers, socket);
        }
    }
}

fn open_all<S: Socket>(
    role: Role,
    listens: &[Listen],
    least: usize,
    inherited: &mut Inherited,
) -> Result<Vec<Group<S>>> {
    listens.iter().map(|listen| Group::open(role, *listen, least, inherited)).collect()
}

impl<S: Socket> Group<S> {
    /// Those taken over, and as many more as it takes for `least`, bound and not yet listening.
    fn open(role: Role, asked: Listen, least: usize, inherited: &mut Inherited) -> Result<Self> {
        let adopted = inherited.take(role, asked.address).into_iter().map(S::adopt).collect::<io::Result<Vec<S>>>();
        let mut sockets =
            adopted.with_context(|| format!("a socket handed over for {} is of no use", asked.address))?;
        let mut bound = match sockets.first() {
            Some(socket) => socket.local_addr().context("a listener has no address")?,
            None => asked.address,
        };
        while sockets.len() < least {
            let flag = role.flag();
            let socket = S::reserve(bound)
                .with_context(|| format!("cannot listen on {bound}; choose another address with --{flag}"))?;
            // The first socket may get a free port; the others share it.
            bound = socket.local_addr().context("a listener has no address")?;
            sockets.push(socket);
        }
        let sockets = sockets.into_iter().map(|socket| socket.suit(asked)).collect();
        Ok(Self { role, asked, bound, sockets })
    }

    /// Listen on all of them, and offer them where somebody may ask. For those taken over listening only sets the length of
    /// the queue.
    fn listen(&self, options: &Options) -> Result<Vec<Offer>> {
        let Self { role, asked, bound, sockets } = self;
        let listened = sockets.iter().try_for_each(|socket| socket.listen(*asked));
        listened.with_context(|| format!("cannot listen on {bound}; choose another address with --{}", role.flag()))?;
        if options.upgrade_socket.is_none() {
            return Ok(Vec::new());
        }
        let offer = |socket: &S| {
            let descriptor = socket.duplicate().context("cannot keep sockets for --upgrade-socket")?;
            Ok(Offer { role: *role, asked: asked.address, bound: *bound, descriptor })
        };
        sockets.iter().map(offer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Given, resolve};

    fn options(workers: &str) -> Options {
        let any = "127.0.0.1:0";
        let flags = [
            ("workers", workers),
            ("proxy-listen", any),
            ("stream-listen", "127.0.0.1:0 udp"),
            ("admin-listen", "off"),
            ("status-listen", any),
        ];
        resolve(&Given::of(&[&flags[..], &[("upgrade-socket", "/x")]].concat(), &[])).unwrap()
    }

    /// Sockets per worker when a process with `before` workers is followed by one with `after`.
    fn check(before: &str, after: &str, expected: &[usize]) {
        let first = Sockets::open(&options(before), &mut Inherited::default()).unwrap();
        let mut inherited = Inherited::of(first.offers);
        let second = Sockets::open(&options(after), &mut inherited).unwrap();
        for of in [|worker: &WorkerSockets| worker.listeners.len(), |worker: &WorkerSockets| worker.datagrams.len()] {
            assert_eq!(second.workers.iter().map(of).collect::<Vec<usize>>(), expected);
        }
        assert_eq!(second.addresses.datagrams, first.addresses.datagrams);
        assert_eq!(second.addresses.proxy, first.addresses.proxy);
        assert_eq!(second.addresses.status, first.addresses.status);
        assert_eq!(inherited.taken().len(), 3);
        assert_eq!(second.offers.len(), 2 * expected.iter().sum::<usize>() + 1);
    }

    #[test]
    fn every_socket_taken_over_is_served() {
        check("2", "2", &[1, 1]);
        check("3", "2", &[2, 1]);
        check("1", "3", &[1, 1, 1]);
        check("4", "1", &[4]);
    }

    #[test]
    fn an_address_in_use_fails() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let options = resolve(&Given::of(&[("proxy-listen", &address)], &[])).unwrap();
        let error = format!("{:#}", Sockets::open(&options, &mut Inherited::default()).err().unwrap());
        assert!(error.contains(&address) && error.contains("--proxy-listen"), "{error}");
    }
}
