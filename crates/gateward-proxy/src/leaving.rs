//! A client that leaves while a filter holds its exchange. Who reads a request finds the client's end behind it, and a stream of
//! HTTP/2 tells by itself; of a connection that nobody reads from, somebody has to look for it.

use crate::channel::Channel;
use gateward_net::{Departure, Stream};
use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// How long something must be waited for before anybody looks: looking out takes a descriptor and three system calls.
const PATIENCE: Duration = Duration::from_millis(10);

/// Looks out for a client that leaves. Costs nothing until it is asked, nor while it rests.
pub(crate) struct Leaving<'a> {
    client: Option<&'a Stream>,
    /// Whether the request is still being read.
    reading: Option<&'a Cell<bool>>,
    patience: Option<Pin<Box<Sleep>>>,
    watch: Option<Departure>,
}

impl<'a> Leaving<'a> {
    /// Nobody is looked out for.
    pub(crate) fn nobody() -> Self {
        Self::new(None, None)
    }

    /// Of this client, from whom nothing is read meanwhile.
    pub(crate) fn of(client: Channel<'a>) -> Self {
        Self::new(on_connection(client), None)
    }

    /// Of this client, once its request is not being read any more: what was sent before the end is not lost with it.
    pub(crate) fn after(reading: &'a Cell<bool>, client: Channel<'a>) -> Self {
        Self::new(on_connection(client), Some(reading))
    }

    fn new(client: Option<&'a Stream>, reading: Option<&'a Cell<bool>>) -> Self {
        Self { client, reading, patience: None, watch: None }
    }

    /// Whether somebody else reads from the client.
    pub(crate) fn is_read(&self) -> bool {
        self.reading.is_some_and(Cell::get)
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

    /// Nothing waits any more, or the client is read again: the descriptor goes, and the next look begins with patience.
    pub(crate) fn rest(&mut self) {
        self.patience = None;
        self.watch = None;
    }
}

/// The connection to look at: none for a stream of HTTP/2, which tells by itself.
fn on_connection(client: Channel<'_>) -> Option<&Stream> {
    match client {
        Channel::Http1(stream) => Some(stream),
        Channel::Http2(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::local;
    use std::future::poll_fn;
    use std::rc::Rc;
    use tokio::net::{TcpListener, TcpStream};

    #[test]
    fn it_keeps_a_descriptor_only_while_it_looks() {
        local(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let near = Rc::new(Stream::plain(listener.accept().await.unwrap().0));
            let mut leaving = Leaving::of(Channel::Http1(&near));
            for _ in 0..2 {
                poll_fn(|context| {
                    assert!(leaving.poll(context).is_pending());
                    if leaving.watch.is_some() { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                leaving.rest();
                assert!(leaving.watch.is_none() && leaving.patience.is_none());
            }
            drop(far);
            poll_fn(|context| leaving.poll(context)).await;
        });
    }

    #[test]
    fn a_request_that_is_read_says_so() {
        let reading = Cell::new(true);
        let leaving = Leaving::new(None, Some(&reading));
        assert!(leaving.is_read());
        reading.set(false);
        assert!(!leaving.is_read() && !Leaving::nobody().is_read());
    }
}
