//! The new process: asks the running one for its sockets, and tells it when it serves.

use crate::control::VERSION;
use crate::upgrade::Role;
use crate::upgrade::wire::{self, Answer, Draining, Hello, PROTOCOL, Ready, SocketLine};
use anyhow::{Context, Result, bail};
use gateward_net::descriptors;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the running process may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Sockets of the process before.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    sockets: Vec<(SocketLine, OwnedFd)>,
    taken: Vec<SocketAddr>,
}

/// The conversation with the process before.
#[derive(Debug)]
pub(crate) struct Takeover {
    stream: UnixStream,
    pid: u32,
}

impl Inherited {
    /// The sockets for an address of the settings: those bound to it, or those that the same setting got before.
    pub(crate) fn take(&mut self, role: Role, address: SocketAddr) -> Vec<OwnedFd> {
        let bound_there = |line: &SocketLine| line.bound == address;
        let asked_alike = |line: &SocketLine| line.asked == address && line.role == role.flag();
        let kind = role.is_datagram();
        let lines = || self.sockets.iter().map(|(line, _)| line).filter(|line| line.datagram == kind);
        let found = lines().find(|line| bound_there(line)).or_else(|| lines().find(|line| asked_alike(line)));
        let Some(bound) = found.map(|line| line.bound) else { return Vec::new() };
        self.taken.push(bound);
        let (found, rest) = std::mem::take(&mut self.sockets)
            .into_iter()
            .partition(|(line, _)| line.bound == bound && line.datagram == kind);
        self.sockets = rest;
        let found: Vec<(SocketLine, OwnedFd)> = found;
        found.into_iter().map(|(_, socket)| socket).collect()
    }

    /// What another process offered, without the conversation.
    #[cfg(test)]
    pub(crate) fn of(offers: Vec<crate::upgrade::Offer>) -> Self {
        let socket = |offer: crate::upgrade::Offer| {
            let line = SocketLine {
                role: offer.role.flag().to_owned(),
                asked: offer.asked,
                bound: offer.bound,
                datagram: offer.role.is_datagram(),
            };
            (line, offer.descriptor)
        };
        Self { sockets: offers.into_iter().map(socket).collect(), taken: Vec::new() }
    }

    /// Addresses taken so far. What is left is closed here and stays with the process before.
    pub(crate) fn taken(self) -> Vec<SocketAddr> {
        self.taken
    }
}

/// Ask the process that listens on `path` for its sockets; `None`: there is none.
///
/// # Errors
/// There is one and it cannot be asked, is another user's, or refuses; starting beside it would be wrong.
pub(crate) fn take(path: &Path, configured: bool) -> Result<Option<(Takeover, Inherited)>> {
    let place = path.display();
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        // Nobody, or a file left over by a process that ended.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| {
                format!(
                    "cannot ask the running process on {place}; start as the same user, or use another --upgrade-socket"
                )
            });
        }
    };
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let stream_user = peer_user(&stream)?;
    let own_user = own_user()?;
    if stream_user != own_user {
        bail!("the process on {place} runs as user {stream_user}, this one as {own_user}; start it as the same user");
    }
    let hello = Hello { protocols: vec![PROTOCOL], version: VERSION.to_owned(), pid: std::process::id(), configured };
    let answer = wire::write(&mut stream, &hello).and_then(|()| wire::read(&mut stream));
    let answer = answer.with_context(|| {
        format!("the running process on {place} gave no answer; it goes on serving, so look into its log")
    })?;
    match answer {
        Answer::Refused { reason } => bail!("the running process on {place} refuses to hand over: {reason}"),
        Answer::Sockets { protocol, .. } if protocol != PROTOCOL => {
            bail!("the running process on {place} speaks version {protocol} of the hand-over, this one {PROTOCOL}")
        }
        Answer::Sockets { version, pid, sockets, .. } => {
            let received = descriptors::receive(&stream, sockets.len()).context("cannot take the sockets over")?;
            tracing::info!(pid, version, sockets = sockets.len(), "taking over from the running process");
            let sockets = sockets.into_iter().zip(received).collect();
            Ok(Some((Takeover { stream, pid }, Inherited { sockets, taken: Vec::new() })))
        }
    }
}

impl Takeover {
    /// Tell the process before that this one accepts on these addresses, and wait until it knows.
    pub(crate) fn confirm(mut self, taken: Vec<SocketAddr>) {
        let told = wire::write(&mut self.stream, &Ready { taken });
        match told.and_then(|()| wire::read::<Draining>(&mut self.stream)) {
            Ok(_) => tracing::info!(pid = self.pid, "took over; the process before drains"),
            // It ended meanwhile: it was stopped, or it crashed. The sockets are here in any case.
            Err(error) => {
                tracing::warn!(pid = self.pid, %error, "the process before did not confirm; going on without it");
            }
        }
    }
}

/// The user at the other end of a Unix socket (SO_PEERCRED, unix(7)).
fn peer_user(stream: &UnixStream) -> Result<u32> {
    let copy = stream.try_clone()?;
    copy.set_nonblocking(true)?;
    let user = tokio::net::UnixStream::from_std(copy)?.peer_cred().map(|peer| peer.uid());
    // The mode belongs to the socket, not to the copy.
    stream.set_nonblocking(false)?;
    Ok(user?)
}

/// The user of this process.
pub(crate) fn own_user() -> Result<u32> {
    peer_user(&UnixStream::pair()?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inherited(lines: &[(&str, &str, &str)]) -> Inherited {
        let socket = |(role, asked, bound): &(&str, &str, &str)| {
            let line = SocketLine {
                role: (*role).to_owned(),
                asked: asked.parse().unwrap(),
                bound: bound.parse().unwrap(),
                datagram: role.ends_with("udp"),
            };
            (line, std::net::TcpListener::bind("127.0.0.1:0").unwrap().into())
        };
        Inherited { sockets: lines.iter().map(socket).collect(), taken: Vec::new() }
    }

    #[test]
    fn sockets_are_found_by_their_address_and_by_their_setting() {
        let mut inherited = inherited(&[
            ("proxy-listen", "0.0.0.0:8000", "0.0.0.0:8000"),
            ("proxy-listen", "0.0.0.0:8000", "0.0.0.0:8000"),
            ("proxy-listen", "127.0.0.1:0", "127.0.0.1:4001"),
            ("status-listen", "127.0.0.1:0", "127.0.0.1:4002"),
            ("later-listen", "127.0.0.1:9", "127.0.0.1:9"),
            ("stream-listen", "127.0.0.1:53", "127.0.0.1:53"),
            ("stream-listen udp", "127.0.0.1:53", "127.0.0.1:53"),
        ]);
        let mut take = |role, address: &str| inherited.take(role, address.parse().unwrap()).len();
        assert_eq!(take(Role::Proxy, "0.0.0.0:8000"), 2, "one for each worker");
        assert_eq!(take(Role::Proxy, "0.0.0.0:8000"), 0, "they are taken once");
        assert_eq!(take(Role::Status, "127.0.0.1:0"), 1);
        assert_eq!(take(Role::Admin, "127.0.0.1:0"), 0, "the free port was another setting's");
        assert_eq!(take(Role::Admin, "127.0.0.1:4001"), 1, "a port may change its purpose");
        assert_eq!(take(Role::Datagram, "127.0.0.1:53"), 1);
        assert_eq!((take(Role::Datagram, "127.0.0.1:53"), take(Role::Stream, "127.0.0.1:53")), (0, 1));
        let taken: Vec<String> = inherited.taken().iter().map(ToString::to_string).collect();
        assert_eq!(taken, ["0.0.0.0:8000", "127.0.0.1:4002", "127.0.0.1:4001", "127.0.0.1:53", "127.0.0.1:53"]);
    }

    #[tokio::test]
    async fn nobody_and_a_stale_file_mean_a_start_of_one_s_own() {
        let path = std::env::temp_dir().join(format!("gateward-take-{}.sock", std::process::id()));
        assert!(take(&path, true).unwrap().is_none());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(take(&path, true).unwrap().is_none());
        std::fs::remove_file(&path).unwrap();
    }
}
