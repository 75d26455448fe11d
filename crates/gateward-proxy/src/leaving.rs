//! A client that leaves while a filter holds its exchange: nothing is read from it and nothing written to it meanwhile, so
//! somebody has to look. A stream of HTTP/2 tells by itself.

use crate::channel::Channel;
use gateward_net::{Departure, Stream};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// How long something must be waited for before anybody looks: looking out takes a descriptor and three system calls.
const PATIENCE: Duration = Duration::from_millis(10);

/// Looks out for a client that leaves. Costs nothing until it is asked.
pub(crate) struct Leaving<'a> {
    client: Option<&'a Stream>,
    patience: Option<Pin<Box<Sleep>>>,
    watch: Option<Departure>,
}

impl<'a> Leaving<'a> {
    /// Nobody is looked out for.
    pub(crate) fn nobody() -> Self {
        Self { client: None, patience: None, watch: None }
    }

    /// Of this client.
    pub(crate) fn of(client: Channel<'a>) -> Self {
        match client {
            Channel::Http1(stream) => Self { client: Some(stream), ..Self::nobody() },
            Channel::Http2(_) => Self::nobody(),
        }
    }

    /// Ready once the client has left, which includes one that has only closed its half of the connection.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(client) = self.client else { return Poll::Pending };
        if let Some(watch) = &self.watch {
            return watch.poll(context);
        }
        ready!(self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE))).as_mut().poll(context));
        match Departure::of(client.tcp()) {
            Ok(watch) => self.watch.insert(watch).poll(context),
            Err(_) => {
                // Without a descriptor to spare it is noticed later.
                self.client = None;
                Poll::Pending
            }
        }
    }
}
