//! Messages of one worker that leave together.
//!
//! A send is the dearest thing that happens to a request: on a loopback or a virtual network the kernel carries the
//! bytes all the way to the receiver before it returns, and what it runs there pushes the code of the work on requests
//! out of the caches. So that work does not send: it posts, goes on to wait for the answer, and the worker sends what was
//! posted in a row once every task that is ready had its turn. Of requests that come one at a time each is still sent at
//! once, because nothing else is ready.

use crate::Stream;
use std::cell::{OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// Messages that are sent in one row at most: the first of them must not wait for the work on all of a crowd.
const ROW: usize = 32;
/// Longest message that is taken, in bytes: what is posted on a connection is held until its peer takes it.
const MESSAGE_BYTES: usize = 16 * 1024;

/// What a worker has to send. Takes messages only while it [runs](Self::run).
pub struct Outbox {
    row: RefCell<Vec<Rc<Stream>>>,
    /// Memory of messages that have been sent.
    spare: RefCell<Vec<Vec<u8>>>,
    sender: OnceCell<Waker>,
    /// How long a peer may take nothing of a message.
    patience: Duration,
}

impl Outbox {
    /// An outbox of which each peer has to take something within `patience`.
    pub fn new(patience: Duration) -> Rc<Self> {
        Rc::new(Self { row: RefCell::default(), spare: RefCell::default(), sender: OnceCell::new(), patience })
    }

    /// Take `message` to be sent on `stream` before this worker waits for anything, and leave other, empty memory in its
    /// place. `false`: the message is untouched, and has to be written: it is long, goes through TLS, or would
    /// come behind one that the peer does not take.
    ///
    /// That it was sent is not told, nor that it was not: a connection on which sending fails is shut down, which who reads
    /// from it notices. Writing to the stream sends first what was posted. Dropping it takes nothing back.
    pub fn post(self: &Rc<Self>, stream: &Rc<Stream>, message: &mut Vec<u8>) -> bool {
        let Some(sender) = self.sender.get() else { return false };
        if message.len() > MESSAGE_BYTES || !stream.can_post() {
            return false;
        }
        stream.post(message, self.spare.borrow_mut().pop().unwrap_or_default());
        let mut row = self.row.borrow_mut();
        row.push(stream.clone());
        match row.len() {
            1 => sender.wake_by_ref(),
            ROW => {
                drop(row);
                self.send();
            }
            _ => {}
        }
        true
    }

    /// Send whatever is posted, as often as anything is: whenever the tasks that are ready have had their turn.
    pub async fn run(self: Rc<Self>) {
        poll_fn(|context| {
            self.sender.get_or_init(|| context.waker().clone());
            self.send();
            Poll::<()>::Pending
        })
        .await;
    }

    /// Send what is posted now.
    pub fn send(self: &Rc<Self>) {
        let mut row = self.row.take();
        for stream in row.drain(..) {
            match stream.send_posted() {
                Ok(true) => self.keep(stream.take_sent()),
                Ok(false) => drop(tokio::task::spawn_local(self.clone().insist(stream))),
                Err(_) => stream.shut_down(),
            }
        }
        // Its memory is used again; nobody posts while this sends.
        self.row.replace(row);
    }

    /// Keep the memory of a message for another.
    fn keep(&self, memory: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < ROW {
            spare.push(memory);
        }
    }

    /// Send the rest of a message as the peer takes it.
    async fn insist(self: Rc<Self>, stream: Rc<Stream>) {
        let sending = async {
            while !stream.send_posted()? {
                tokio::time::timeout(self.patience, stream.tcp().writable()).await??;
            }
            io::Result::Ok(())
        };
        match sending.await {
            Ok(()) => self.keep(stream.take_sent()),
            Err(_) => stream.shut_down(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::{LocalSet, spawn_local, yield_now};

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(30);

    fn local(work: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, work);
    }

    /// An outbox that runs.
    async fn outbox(patience: Duration) -> Rc<Outbox> {
        let outbox = Outbox::new(patience);
        spawn_local(outbox.clone().run());
        yield_now().await;
        outbox
    }

    /// Both ends of a connection that holds little.
    async fn pair() -> (Rc<Stream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (here, there) = tokio::join!(Stream::connect(listener.local_addr().unwrap()), listener.accept());
        let (here, there) = (here.unwrap(), there.unwrap().0);
        socket2::SockRef::from(here.tcp()).set_send_buffer_size(4096).unwrap();
        socket2::SockRef::from(&there).set_recv_buffer_size(4096).unwrap();
        (Rc::new(here), there)
    }

    /// Post what the peer does not take, so that some of it is left.
    async fn block(outbox: &Rc<Outbox>, stream: &Rc<Stream>) -> Vec<u8> {
        let mut sent = Vec::new();
        while stream.is_sent() {
            let mut message: Vec<u8> = (0..MESSAGE_BYTES).map(|index| ((sent.len() + index) % 251) as u8).collect();
            sent.extend_from_slice(&message);
            assert!(outbox.post(stream, &mut message));
            yield_now().await;
        }
        sent
    }

    async fn received(there: &mut TcpStream, count: usize) -> Vec<u8> {
        let mut got = vec![0; count];
        tokio::time::timeout(LONG, there.read_exact(&mut got)).await.expect("it arrives").unwrap();
        got
    }

    #[test]
    fn messages_leave_together_once_the_tasks_that_are_ready_had_their_turn() {
        local(async {
            let outbox = outbox(LONG).await;
            let (first, mut to_first) = pair().await;
            let (second, mut to_second) = pair().await;
            let mut message = b"one".to_vec();
            assert!(outbox.post(&first, &mut message) && message.is_empty());
            assert!(outbox.post(&second, &mut b"two".to_vec()));
            assert!(!first.is_sent() && !second.is_sent(), "not from within the work");
            yield_now().await;
            assert!(first.is_sent() && second.is_sent());
            assert_eq!(received(&mut to_first, 3).await, b"one");
            assert_eq!(received(&mut to_second, 3).await, b"two");
        });
    }

    #[test]
    fn a_full_row_does_not_wait_for_the_crowd() {
        local(async {
            let outbox = outbox(LONG).await;
            let mut pairs = Vec::new();
            for _ in 0..ROW {
                pairs.push(pair().await);
            }
            for (index, (stream, _)) in pairs.iter().enumerate() {
                assert!(pairs[0].0.is_sent() == (index == 0), "message {index}");
                assert!(outbox.post(stream, &mut b"x".to_vec()));
            }
            assert!(pairs.iter().all(|(stream, _)| stream.is_sent()));
        });
    }

    #[test]
    fn what_is_posted_comes_before_what_is_written() {
        local(async {
            let outbox = outbox(LONG).await;
            let (here, mut there) = pair().await;
            assert!(outbox.post(&here, &mut b"posted ".to_vec()));
            here.write(b"written").await.unwrap();
            assert_eq!(received(&mut there, 14).await, b"posted written");
            assert!(outbox.post(&here, &mut b"last".to_vec()));
            here.finish().unwrap();
            let mut rest = Vec::new();
            there.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"last");
        });
    }

    #[test]
    fn a_peer_that_takes_it_slowly_gets_all_of_it_in_order() {
        local(async {
            let outbox = outbox(LONG).await;
            let (here, mut there) = pair().await;
            let mut sent = block(&outbox, &here).await;
            assert!(!outbox.post(&here, &mut b"x".to_vec()), "one message is enough to hold");
            let writing = spawn_local({
                let here = here.clone();
                async move { here.write(b"written").await.unwrap() }
            });
            sent.extend_from_slice(b"written");
            assert!(received(&mut there, sent.len()).await == sent);
            assert_eq!(writing.await.unwrap(), 7);
            assert!(outbox.post(&here, &mut b"again".to_vec()));
            assert_eq!(received(&mut there, 5).await, b"again");
        });
    }

    #[test]
    fn who_waits_until_it_is_sent_waits_for_the_peer() {
        local(async {
            let outbox = outbox(LONG).await;
            let (here, mut there) = pair().await;
            let sent = block(&outbox, &here).await;
            let waiting = spawn_local({
                let here = here.clone();
                async move { poll_fn(|context| here.poll_sent(context)).await }
            });
            tokio::time::sleep(SHORT).await;
            assert!(!waiting.is_finished(), "nobody reads");
            assert!(received(&mut there, sent.len()).await == sent);
            waiting.await.unwrap().unwrap();
            assert!(here.is_sent());
        });
    }

    #[test]
    fn a_message_outlives_its_stream() {
        local(async {
            let outbox = outbox(LONG).await;
            let (here, mut there) = pair().await;
            let sent = block(&outbox, &here).await;
            drop(here);
            let mut got = Vec::new();
            there.read_to_end(&mut got).await.unwrap();
            assert!(got == sent, "{} of {}", got.len(), sent.len());
        });
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up_and_the_reader_notices() {
        local(async {
            let outbox = outbox(SHORT).await;
            let (here, _there) = pair().await;
            block(&outbox, &here).await;
            let read = tokio::time::timeout(LONG, here.read(&mut [0; 8])).await.expect("it ends");
            assert!(!read.is_ok_and(|count| count > 0));
            assert!(poll_fn(|context| here.poll_sent(context)).await.is_err(), "who waits for it learns of it");
        });
    }

    #[test]
    fn a_peer_that_is_gone_is_noticed_by_reading() {
        local(async {
            let outbox = outbox(LONG).await;
            let (here, there) = pair().await;
            there.set_zero_linger().unwrap();
            drop(there);
            assert!(outbox.post(&here, &mut b"x".to_vec()));
            let read = tokio::time::timeout(LONG, here.read(&mut [0; 8])).await.expect("it ends");
            assert!(!read.is_ok_and(|count| count > 0));
        });
    }

    #[test]
    fn long_messages_and_those_that_nobody_would_send_are_not_taken() {
        local(async {
            let (here, _there) = pair().await;
            let mut message = b"x".to_vec();
            assert!(!Outbox::new(LONG).post(&here, &mut message), "it does not run");
            assert_eq!(message, b"x");
            let mut message = vec![0; MESSAGE_BYTES + 1];
            assert!(!outbox(LONG).await.post(&here, &mut message));
            assert_eq!(message.len(), MESSAGE_BYTES + 1);
        });
    }
}
