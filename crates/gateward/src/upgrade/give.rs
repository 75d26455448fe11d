//! The running process: hands its sockets to a new one, and starts that new one itself on SIGUSR2.
//!
//! One hand-over at a time. Nothing here is final before the new process has said that it serves: a peer that goes
//! away earlier, for whatever reason, changes nothing.

use crate::control::VERSION;
use crate::upgrade::path::BoundPath;
use crate::upgrade::wire::{self, Answer, Draining, Hello, PROTOCOL, Ready, SocketLine};
use crate::upgrade::{Invocation, Role, take};
use anyhow::{Context, Result, bail};
use gateward_net::{Drain, Stage, descriptors};
use gateward_proxy::Node;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::watch;

/// How long a new process may take for a word, except for the one that it is ready.
const WORD_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the log is reminded of a new process that is not ready.
const READY_REMINDER: Duration = Duration::from_secs(30);
/// Pause after accepting failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that can be handed over.
#[derive(Debug)]
pub(crate) struct Offer {
    /// What it is for.
    pub(crate) role: Role,
    /// The address of the setting.
    pub(crate) asked: SocketAddr,
    /// The address it is bound to.
    pub(crate) bound: SocketAddr,
    /// The socket once more.
    pub(crate) descriptor: OwnedFd,
}

/// Who serves instead of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    /// Its process id, 0 when it cannot be seen from here.
    pub(crate) pid: u32,
    /// Its version.
    pub(crate) version: String,
}

/// What this process does for its successor.
#[derive(Debug)]
pub(crate) struct Giver {
    drain: Drain,
    /// Empty once they are another's, or about to be closed.
    offers: Mutex<Vec<Offer>>,
    /// The file, until this process stops.
    file: Mutex<Option<BoundPath>>,
    /// Held while a hand-over is under way.
    conversation: tokio::sync::Mutex<()>,
    /// Held while a process started by SIGUSR2 is on its way.
    relaunch: tokio::sync::Mutex<()>,
    invocation: Invocation,
    given: watch::Sender<Option<Given>>,
}

impl Giver {
    /// Hand out `offers` to whoever asks on `listener`, as long as the process lives. To be called within a runtime.
    pub(crate) fn start(
        node: Arc<Node>,
        listener: UnixListener,
        file: BoundPath,
        offers: Vec<Offer>,
        invocation: Invocation,
    ) -> Arc<Self> {
        let giver = Arc::new(Self {
            drain: node.drain.clone(),
            offers: Mutex::new(offers),
            file: Mutex::new(Some(file)),
            conversation: tokio::sync::Mutex::default(),
            relaunch: tokio::sync::Mutex::default(),
            invocation,
            given: watch::Sender::new(None),
        });
        tokio::spawn(giver.clone().listen(node, listener));
        giver
    }

    /// Wait until another process serves.
    pub(crate) async fn given(&self) -> Given {
        let mut receiver = self.given.subscribe();
        loop {
            if let Some(given) = receiver.borrow_and_update().clone() {
                return given;
            }
            // The sender lives in `self`, so waiting cannot fail.
            let _ = receiver.changed().await;
        }
    }

    /// From now on this process closes its sockets: there is nothing to hand over.
    pub(crate) fn close(&self) {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Start this program anew, to take over; until it has, or has ended.
    pub(crate) async fn relaunch(self: Arc<Self>) {
        let Ok(_one_at_a_time) = self.relaunch.try_lock() else {
            tracing::warn!("SIGUSR2: an upgrade is under way already; wait for it, or end the new process");
            return;
        };
        if let Some(given) = self.given.borrow().clone() {
            tracing::warn!(pid = given.pid, "SIGUSR2: this process has handed over already; send it to the new one");
            return;
        }
        let program = self.invocation.program().display();
        let mut child = match self.invocation.start() {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(%program, %error, "SIGUSR2: cannot start the program; this process goes on");
                return;
            }
        };
        tracing::info!(%program, pid = child.id(), "SIGUSR2: starting the program anew");
        tokio::select! {
            _ = self.given() => {}
            status = child.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                tracing::error!(%program, status, "SIGUSR2: the new process ended before it was ready; this one goes on");
            }
        }
    }

    async fn listen(self: Arc<Self>, node: Arc<Node>, listener: UnixListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.drain.reached(Stage::Closing), if !self.drain.handover().is_given() => return,
            };
            let prepared = accepted.and_then(|(stream, _)| {
                let user = stream.peer_cred()?;
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(WORD_TIMEOUT))?;
                stream.set_write_timeout(Some(WORD_TIMEOUT))?;
                Ok((stream, user.uid(), user.pid()))
            });
            let (stream, user, pid) = match prepared {
                Ok(prepared) => prepared,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the upgrade socket failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (giver, node) = (self.clone(), node.clone());
            // Blocking calls with time-outs: a thread of its own for the rare case.
            tokio::task::spawn_blocking(move || {
                let pid = pid.and_then(|pid| u32::try_from(pid).ok());
                let outcome = allowed(user).and_then(|()| giver.hand_over(&node, stream, pid));
                if let Err(error) = outcome {
                    tracing::warn!("a hand-over did not take place, this process goes on: {error:#}");
                }
            });
        }
    }

    /// One conversation with a new process.
    fn hand_over(&self, node: &Node, mut stream: UnixStream, pid: Option<u32>) -> Result<()> {
        let hello: Hello = wire::read(&mut stream).context("the new process did not introduce itself")?;
        let one_at_a_time = self.conversation.try_lock();
        let refusal = match &one_at_a_time {
            Ok(_) => self.refusal(&hello, node.plan().snapshot.generation),
            Err(_) => Some("another upgrade is under way; wait for it, or end its process".to_owned()),
        };
        if let Some(reason) = refusal {
            // Who is refused is in nobody's way, from the moment it knows.
            drop(one_at_a_time);
            wire::write(&mut stream, &Answer::Refused { reason: reason.clone() })?;
            bail!("process {} was refused: {reason}", hello.pid);
        }
        let pid = pid.unwrap_or(hello.pid);
        let outcome = self.offer(&mut stream).and_then(|()| await_ready(&mut stream, pid));
        let taken = match outcome {
            // Told before it is done: should the new process be gone, nothing has happened yet.
            Ok(ready) => wire::write(&mut stream, &Draining { draining: true }).map(|()| ready.taken),
            Err(error) => Err(error),
        };
        match taken {
            Ok(taken) => {
                self.drain.handover().give(&taken);
                self.offers.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.given.send_replace(Some(Given { pid, version: hello.version }));
                Ok(())
            }
            Err(error) => {
                self.drain.handover().withdraw();
                Err(error).with_context(|| format!("process {pid} went away before it was ready"))
            }
        }
    }

    /// Why this new process gets nothing.
    fn refusal(&self, hello: &Hello, generation: u64) -> Option<String> {
        if !hello.protocols.contains(&PROTOCOL) {
            return Some(format!(
                "it speaks versions {:?} of the hand-over, this one {PROTOCOL}; stop this one and start the other",
                hello.protocols
            ));
        }
        if let Some(given) = self.given.borrow().as_ref() {
            return Some(format!("it has handed over to process {} already; try again", given.pid));
        }
        if !hello.configured && generation > 0 {
            return Some(
                "it serves a configuration that came through POST /config, and the new process has none; start that \
                 with --config"
                    .to_owned(),
            );
        }
        let nothing = self.offers.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        nothing.then(|| "it has no sockets, or is closing them; start again when it has ended".to_owned())
    }

    fn offer(&self, stream: &mut UnixStream) -> std::io::Result<()> {
        let offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |offer: &Offer| SocketLine {
            role: offer.role.flag().to_owned(),
            asked: offer.asked,
            bound: offer.bound,
            datagram: offer.role.is_datagram(),
        };
        let answer = Answer::Sockets {
            protocol: PROTOCOL,
            version: VERSION.to_owned(),
            pid: std::process::id(),
            sockets: offers.iter().map(line).collect(),
        };
        // From here on the other process may hold the queues, whatever becomes of it.
        self.drain.handover().offer();
        wire::write(stream, &answer)?;
        let open: Vec<_> = offers.iter().map(|offer| offer.descriptor.as_fd()).collect();
        descriptors::send(stream, &open)
    }
}

/// Wait as long as it takes: ending the new process is what ends the wait.
fn await_ready(stream: &mut UnixStream, pid: u32) -> std::io::Result<Ready> {
    stream.set_read_timeout(Some(READY_REMINDER))?;
    let mut first = [0];
    loop {
        match stream.read(&mut first) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                tracing::warn!(pid, "the new process holds the sockets and is not ready; end it to stay with this one");
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => break,
        }
    }
    stream.set_read_timeout(Some(WORD_TIMEOUT))?;
    wire::read(&mut first.as_slice().chain(stream))
}

fn allowed(user: u32) -> Result<()> {
    let own = take::own_user()?;
    if user != own {
        bail!("a process of user {user} asked for the sockets of this one, of user {own}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn other_users_get_nothing() {
        let own = take::own_user().unwrap();
        assert!(allowed(own).is_ok());
        assert!(allowed(own + 1).unwrap_err().to_string().contains(&format!("of user {}", own + 1)));
    }
}
