//! The listening sockets of a node: bound by it, or taken over from the process before.
//!
//! A socket that was taken over is served whatever the number of workers is now, because connections wait in its
//! queue: more sockets than workers are spread over the workers, and fewer are joined by new ones in the same group.

use crate::control::Addresses;
use crate::settings::{Listen, Options};
use crate::upgrade::{Inherited, Offer, Role};
use anyhow::{Context, Result};
use gateward_net::Listener;
use std::net::SocketAddr;

/// Every socket of a node.
pub(crate) struct Sockets {
    /// One list per worker.
    pub(crate) workers: Vec<Vec<Listener>>,
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
struct Group {
    role: Role,
    asked: Listen,
    bound: SocketAddr,
    sockets: Vec<Listener>,
}

impl Sockets {
    /// Open what the settings name.
    ///
    /// # Errors
    /// An address is in use or not ours.
    pub(crate) fn open(options: &Options, inherited: &mut Inherited) -> Result<Self> {
        // A worker without a socket would end at once.
        let workers = if options.proxy.is_empty() && options.stream.is_empty() { 0 } else { options.workers };
        let mut groups = |role, listens: &[Listen], least| -> Result<Vec<Group>> {
            listens.iter().map(|listen| Group::open(role, *listen, least, inherited)).collect()
        };
        let proxy = groups(Role::Proxy, &options.proxy, workers)?;
        let stream = groups(Role::Stream, &options.stream, workers)?;
        let admin = groups(Role::Admin, &options.admin, 1)?;
        let status = groups(Role::Status, &options.status, 1)?;
        let mut offers = Vec::new();
        // Only now, as nothing can fail any more: a socket that listens gets connections.
        for group in proxy.iter().chain(&stream).chain(&admin).chain(&status) {
            group.listen()?;
            if options.upgrade_socket.is_some() {
                offers.extend(group.offers()?);
            }
        }
        let texts = |groups: &[Group]| groups.iter().map(|group| group.bound.to_string()).collect();
        let addresses =
            Addresses { proxy: texts(&proxy), stream: texts(&stream), admin: texts(&admin), status: texts(&status) };
        let all = |groups: Vec<Group>| groups.into_iter().flat_map(|group| group.sockets).collect();
        let (admin, status) = (all(admin), all(status));
        Ok(Self { workers: spread(proxy.into_iter().chain(stream), workers), admin, status, addresses, offers })
    }
}

/// Deal the sockets of each address to the workers.
fn spread(groups: impl Iterator<Item = Group>, workers: usize) -> Vec<Vec<Listener>> {
    let mut lists: Vec<Vec<Listener>> = (0..workers).map(|_| Vec::new()).collect();
    for group in groups {
        for (index, socket) in group.sockets.into_iter().enumerate() {
            lists[index % workers].push(socket);
        }
    }
    lists
}

impl Group {
    /// Those taken over, and as many more as it takes for `least`, bound and not yet listening.
    fn open(role: Role, asked: Listen, least: usize, inherited: &mut Inherited) -> Result<Self> {
        let mut sockets = inherited.take(role, asked.address);
        let mut bound = match sockets.first() {
            Some(socket) => socket.local_addr().context("a listener has no address")?,
            None => asked.address,
        };
        while sockets.len() < least {
            let flag = role.flag();
            let socket = Listener::reserve(bound)
                .with_context(|| format!("cannot listen on {bound}; choose another address with --{flag}"))?;
            // The first socket may get a free port; the others share it.
            bound = socket.local_addr().context("a listener has no address")?;
            sockets.push(socket);
        }
        let sockets = sockets
            .into_iter()
            .map(|socket| socket.with_proxy_protocol(asked.proxy_protocol).with_flags(asked.flags))
            .collect();
        Ok(Self { role, asked, bound, sockets })
    }

    /// Listen on all of them. For those taken over this only sets the length of the queue.
    fn listen(&self) -> Result<()> {
        let Self { role, asked, bound, sockets } = self;
        let listened = sockets.iter().try_for_each(|socket| socket.listen(asked.backlog));
        listened.with_context(|| format!("cannot listen on {bound}; choose another address with --{}", role.flag()))
    }

    fn offers(&self) -> Result<Vec<Offer>> {
        let offer = |socket: &Listener| {
            let descriptor = socket.duplicate().context("cannot keep sockets for --upgrade-socket")?;
            Ok(Offer { role: self.role, asked: self.asked.address, bound: self.bound, descriptor })
        };
        self.sockets.iter().map(offer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Given, resolve};

    fn options(workers: &str) -> Options {
        let any = "127.0.0.1:0";
        let flags = [("workers", workers), ("proxy-listen", any), ("admin-listen", "off"), ("status-listen", any)];
        resolve(&Given::of(&[&flags[..], &[("upgrade-socket", "/x")]].concat(), &[])).unwrap()
    }

    /// Sockets per worker when a process with `before` workers is followed by one with `after`.
    fn check(before: &str, after: &str, expected: &[usize]) {
        let first = Sockets::open(&options(before), &mut Inherited::default()).unwrap();
        let mut inherited = Inherited::of(first.offers);
        let second = Sockets::open(&options(after), &mut inherited).unwrap();
        let counts: Vec<usize> = second.workers.iter().map(Vec::len).collect();
        assert_eq!(counts, expected);
        assert_eq!(second.addresses.proxy, first.addresses.proxy);
        assert_eq!(second.addresses.status, first.addresses.status);
        assert_eq!(inherited.taken().len(), 2);
        assert_eq!(second.offers.len(), expected.iter().sum::<usize>() + 1);
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
