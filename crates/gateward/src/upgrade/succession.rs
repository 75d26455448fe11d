//! The start of a process in the order that a hand-over needs: what may fail, the sockets, serving, the word, and
//! only then being the one whom the next process asks.

use crate::upgrade::give::{Giver, Offer};
use crate::upgrade::invocation::Invocation;
use crate::upgrade::path::{self, BoundPath};
use crate::upgrade::take::{self, Inherited, Takeover};
use anyhow::Result;
use gateward_proxy::Node;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixListener;

/// A process on its way from starting to being in charge.
#[derive(Debug, Default)]
pub(crate) struct Succession {
    /// Sockets of the process before.
    pub(crate) inherited: Inherited,
    before: Option<Takeover>,
    own: Option<(PathBuf, UnixListener, BoundPath)>,
}

impl Succession {
    /// Ask the running process, if there is one. Without a `path` there is none. To be called within a runtime.
    ///
    /// # Errors
    /// The running process refuses, or the file cannot be made.
    pub(crate) fn begin(path: Option<&Path>, configured: bool) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let (listener, file) = path::bind(path)?;
        listener.set_nonblocking(true)?;
        let own = Some((path.to_owned(), UnixListener::from_std(listener)?, file));
        Ok(match take::take(path, configured)? {
            Some((before, inherited)) => Self { inherited, before: Some(before), own },
            None => Self { inherited: Inherited::default(), before: None, own },
        })
    }

    /// The node serves: tell the process before, and be there for the next one. From here on nothing may fail.
    pub(crate) fn complete(self, node: &Arc<Node>, offers: Vec<Offer>, invocation: Invocation) -> Option<Arc<Giver>> {
        let (path, listener, mut file) = self.own?;
        let taken = self.inherited.taken();
        if let Some(before) = self.before {
            before.confirm(taken);
        }
        if let Err(error) = file.publish(&path) {
            // Serving is worth more than being replaced.
            tracing::error!(path = %path.display(), %error, "the upgrade socket is not in its place: no upgrade can follow");
        }
        Some(Giver::start(node.clone(), listener, file, offers, invocation))
    }
}
