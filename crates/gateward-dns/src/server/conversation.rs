//! Answering on one connection (RFC 7766, RFC 7858): many queries, answered as they are ready.
//!
//! One task reads and writes; messages that are served elsewhere have tasks of their own, whose answers come back through a
//! channel. The connection's task waits for its client, never for a place or for other connections: whatever others do, it goes on
//! writing what is ready, and so lets its own messages come to their end.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::limit::Quotas;
use super::log::QueryLog;
use super::slow::{Ask, Slow};
use super::stats::{Drop, Stats};
use super::{Answers, Shared};
use crate::answer::{Context, Reply, STREAM_IDLE, Transport, Verdict, header_only, rcode, refuse, respond};
use crate::message;
use crate::store::ZoneMap;

/// How long a client may take to read an answer, or for the whole of a message from when its first octet came.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Octets of answers gathered before they are written.
const GATHER: usize = 64 << 10;
/// Messages of one connection that are served elsewhere at once. What comes behind them is read when one is done.
const MOST_SLOW: usize = 4;
/// Slow answers of one connection that wait to be written.
const QUEUE: usize = 16;
/// Longest answer on a stream.
const LONGEST: usize = 65_535;

/// What all connections of a server share.
pub(crate) struct Streams {
    shared: Arc<Shared>,
    stats: Arc<Stats>,
    slow: Arc<dyn Slow>,
    log: Option<QueryLog>,
    quotas: Mutex<Quotas>,
}

impl Streams {
    pub(crate) fn new(shared: Arc<Shared>, stats: Arc<Stats>, slow: Arc<dyn Slow>, log: Option<QueryLog>) -> Self {
        Streams { shared, stats, slow, log, quotas: Mutex::new(Quotas::new(1)) }
    }

    /// Counts what is not answered, or not as it could be.
    pub(crate) fn dropped(&self, why: Drop) {
        self.stats.dropped(why, 1);
    }

    /// Whether the zone that an answer is from may give it. Only limited zones are counted, so the others need no lock.
    fn allows(&self, reply: &Reply, now: u64) -> bool {
        match reply.zone {
            Some(zone) if reply.zone_limit > 0 => {
                self.quotas.lock().unwrap_or_else(PoisonError::into_inner).take(zone, reply.zone_limit, now)
            }
            _ => true,
        }
    }
}

/// Reads queries and writes answers until the client is done and everything is answered.
pub(super) async fn hold<S: AsyncRead + AsyncWrite>(
    streams: &Arc<Streams>,
    stream: S,
    client: SocketAddr,
    transport: Transport,
) -> io::Result<()> {
    let (mut reader, writer) = tokio::io::split(stream);
    let (answers, mut slow_answers) = mpsc::channel(QUEUE);
    let mut talk = Conversation {
        streams: Arc::clone(streams),
        client,
        transport,
        writer,
        inbox: Vec::with_capacity(1024),
        began: None,
        open: true,
        out: vec![0; LONGEST],
        outbox: Vec::new(),
        slow: JoinSet::new(),
        answers,
    };
    loop {
        talk.answer_inbox().await?;
        if !talk.open && talk.slow.is_empty() && slow_answers.is_empty() {
            return talk.writer.shutdown().await;
        }
        let may_read = talk.open && talk.slow.len() < MOST_SLOW;
        let deadline = talk.began.map_or_else(|| Instant::now() + STREAM_IDLE, |began| began + PATIENCE);
        tokio::select! {
            read = timeout_at(deadline, reader.read_buf(&mut talk.inbox)), if may_read => match read {
                Ok(count) => talk.open = count? > 0,
                // Whoever waits for an answer is not idle.
                Err(_) if talk.began.is_none() && !talk.slow.is_empty() => {}
                Err(_) => return Ok(()),
            },
            Some(answer) = slow_answers.recv() => push(&mut talk.outbox, &answer),
            Some(_) = talk.slow.join_next() => {}
        }
    }
}

/// A connection with what is under way on it.
struct Conversation<S> {
    streams: Arc<Streams>,
    client: SocketAddr,
    transport: Transport,
    writer: WriteHalf<S>,
    /// What came and is not answered yet.
    inbox: Vec<u8>,
    /// When the message at the inbox's start began to come.
    began: Option<Instant>,
    /// Whether more may come.
    open: bool,
    /// Where an answer is made.
    out: Vec<u8>,
    /// Answers on their way out.
    outbox: Vec<u8>,
    /// Messages that are served elsewhere.
    slow: JoinSet<()>,
    answers: mpsc::Sender<Vec<u8>>,
}

/// What is served and how, for the messages that came together.
struct Present {
    zones: Arc<ZoneMap>,
    answers: Arc<Answers>,
    /// Seconds since 1970.
    now: u64,
}

impl Present {
    fn of(shared: &Shared) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Present { zones: shared.zones.map(), answers: shared.answers.load_full(), now }
    }
}

impl<S> std::ops::Drop for Conversation<S> {
    /// A message that was taken is served, even if nobody is there to read its answer: an update must not be made by half.
    fn drop(&mut self) {
        self.slow.detach_all();
    }
}

impl<S: AsyncWrite> Conversation<S> {
    /// Answers whole messages until nothing but a part of one is left, or enough are served elsewhere.
    async fn answer_inbox(&mut self) -> io::Result<()> {
        let mut at = 0;
        let mut present = None;
        while self.slow.len() < MOST_SLOW
            && let Some(query) = message_at(&self.inbox, at)
        {
            at = query.end;
            let present = present.get_or_insert_with(|| Present::of(&self.streams.shared));
            if !self.answer(query, present) {
                // Not a query, so who knows where the next begins. What was asked before is still answered.
                (self.open, at) = (false, self.inbox.len());
            }
            if self.outbox.len() >= GATHER {
                self.flush().await?;
            }
        }
        self.inbox.drain(..at);
        match (self.inbox.is_empty(), at) {
            (true, _) => self.began = None,
            (false, 0) => _ = self.began.get_or_insert_with(Instant::now),
            (false, _) => self.began = Some(Instant::now()),
        }
        self.flush().await
    }

    /// Answers the message at a place of the inbox. `false` when it is none that has an answer.
    fn answer(&mut self, query: Range<usize>, present: &Present) -> bool {
        let octets = &self.inbox[query.clone()];
        let context = Context {
            zones: &present.zones,
            settings: &present.answers.settings,
            cookies: &present.answers.cookies,
            now: present.now,
            client: self.client.ip(),
            transport: self.transport,
            room: 0,
        };
        match respond(&context, octets, &mut self.out) {
            Verdict::Silent => {
                self.streams.dropped(Drop::Malformed);
                return false;
            }
            Verdict::Reply(reply) => self.reply(query, reply, present.now),
            Verdict::Elsewhere => self.elsewhere(self.inbox[query].to_vec()),
        }
        true
    }

    /// Sends an answer, or a refusal if its zone has given enough.
    fn reply(&mut self, query: Range<usize>, mut reply: Reply, now: u64) {
        let stats = &self.streams.stats;
        if self.streams.allows(&reply, now) {
            stats.answered(self.transport, &reply);
        } else {
            refuse(&mut reply, &mut self.out);
            self.streams.dropped(Drop::Quota);
        }
        push(&mut self.outbox, &self.out[..reply.len]);
        if let Some(log) = &self.streams.log {
            stats.logged(log.offer(&self.inbox[query], &reply, reply.len, self.client, self.transport, now));
        }
    }

    /// Lets a message be served elsewhere; without a place for it, it is said that this server cannot now.
    fn elsewhere(&mut self, octets: Vec<u8>) {
        let streams = &self.streams;
        let Some(place) = streams.shared.places.take(self.transport) else {
            streams.dropped(Drop::Busy);
            let reply = header_only(&octets, rcode::SERVFAIL, &mut self.out);
            return push(&mut self.outbox, &self.out[..reply.len]);
        };
        streams.stats.exchange(message::opcode(&octets).unwrap_or_default());
        let ask = Ask { octets, client: self.client, transport: self.transport, answers: self.answers.clone() };
        let served = streams.slow.serve(ask);
        self.slow.spawn(async move {
            served.await;
            drop(place);
        });
    }

    /// Writes what is ready.
    async fn flush(&mut self) -> io::Result<()> {
        if !self.outbox.is_empty() {
            timeout(PATIENCE, self.writer.write_all(&self.outbox)).await??;
            timeout(PATIENCE, self.writer.flush()).await??;
            self.outbox.clear();
        }
        Ok(())
    }
}

/// Where the message is whose length stands at `at`, if it is all there.
fn message_at(inbox: &[u8], at: usize) -> Option<Range<usize>> {
    let length = inbox.get(at..at + 2)?;
    let range = at + 2..at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
    (range.end <= inbox.len()).then_some(range)
}

/// Length and message together, so that they leave in one segment (RFC 7766, 8).
fn push(outbox: &mut Vec<u8>, message: &[u8]) {
    let Ok(length) = u16::try_from(message.len()) else { return };
    outbox.extend_from_slice(&length.to_be_bytes());
    outbox.extend_from_slice(message);
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::super::slow::Nothing;
    use super::*;
    use crate::answer::Settings;
    use crate::cookies::CookieKeys;

    /// A client's end of a connection that is answered, and how long that takes.
    fn connect() -> (DuplexStream, tokio::task::JoinHandle<Duration>) {
        let shared = Arc::new(Shared::new(Settings::default(), CookieKeys::new([0; 16], None)));
        let streams = Arc::new(Streams::new(shared, Arc::new(Stats::shared()), Arc::new(Nothing), None));
        let (client, server) = tokio::io::duplex(1 << 16);
        let held = tokio::spawn(async move {
            let began = Instant::now();
            // How it ends is not looked at, as in the server.
            let _ = hold(&streams, server, ([192, 0, 2, 1], 1).into(), Transport::Tcp).await;
            began.elapsed()
        });
        (client, held)
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_when_it_is_told_to() {
        let (_client, held) = connect();
        assert_eq!(held.await.expect("no panic").as_secs(), STREAM_IDLE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_comes_in_drops_ends_the_connection() {
        let (mut client, held) = connect();
        let drip = async {
            // Of a message of 257 octets, two in the time that is given for all of it.
            while client.write_all(&[1]).await.is_ok() {
                tokio::time::sleep(PATIENCE / 2).await;
            }
        };
        let (held, ()) = tokio::join!(held, drip);
        assert_eq!(held.expect("no panic").as_secs(), PATIENCE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn queries_now_and_then_keep_a_connection() {
        let (mut client, held) = connect();
        // A query for the root, refused.
        let query = [0, 17, 7, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        for _ in 0..10 {
            tokio::time::sleep(STREAM_IDLE * 2 / 3).await;
            client.write_all(&query).await.expect("open");
            let mut answer = [0; 19];
            client.read_exact(&mut answer).await.expect("an answer");
            assert_eq!((answer[2], answer[5] & 15), (7, 5));
        }
        drop(client);
        assert_eq!(held.await.expect("no panic").as_secs(), 200);
    }
}
