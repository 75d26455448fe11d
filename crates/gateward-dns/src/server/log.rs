//! The query log: one line of JSON per query, or per so many of them. A worker offers, a thread writes; a full queue drops and counts.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use gateward_zone::{Name, Rtype};

use crate::answer::{Reply, Transport};

/// Lines that may wait to be written.
const QUEUE: usize = 16_384;

/// What is written of a query.
struct Line {
    time: u64,
    client: SocketAddr,
    transport: Transport,
    name: Option<Name>,
    qtype: u16,
    rcode: u16,
    octets: usize,
}

/// A worker's end of the log.
pub struct QueryLog {
    queue: SyncSender<Line>,
    every: u32,
    passed: u32,
    dropped: Arc<AtomicU64>,
}

impl QueryLog {
    /// A log into `out`, of one query in `every` (at least 1): the first worker's end; others are [`Self::another`].
    #[must_use]
    pub fn start(out: Box<dyn Write + Send>, every: u32) -> Self {
        let (queue, lines) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        std::thread::spawn(move || write(out, &lines));
        QueryLog { queue, every: every.max(1), passed: 0, dropped }
    }

    /// Another worker's end.
    #[must_use]
    pub fn another(&self) -> Self {
        QueryLog { queue: self.queue.clone(), every: self.every, passed: 0, dropped: Arc::clone(&self.dropped) }
    }

    /// How many lines were dropped because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Offers a query that got `reply`.
    pub(crate) fn offer(&mut self, query: &[u8], reply: &Reply, client: SocketAddr, transport: Transport, time: u64) {
        self.passed += 1;
        if self.passed < self.every {
            return;
        }
        self.passed = 0;
        let name = query.get(12..).and_then(|rest| Name::from_wire(rest).ok()).map(|(name, _)| name);
        let line = Line { time, client, transport, name, qtype: reply.qtype, rcode: reply.rcode, octets: reply.len };
        if self.queue.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(mut out: Box<dyn Write + Send>, lines: &Receiver<Line>) {
    while let Ok(line) = lines.recv() {
        let name =
            line.name.map(|name| name.to_string()).unwrap_or_default().replace('\\', "\\\\").replace('"', "\\\"");
        let transport = match line.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        };
        // A log that cannot be written must not stop answers.
        let _ = writeln!(
            out,
            r#"{{"time":{},"client":"{}","transport":"{transport}","name":"{name}","type":"{}","rcode":{},"bytes":{}}}"#,
            line.time,
            line.client,
            Rtype::from_int(line.qtype),
            line.rcode,
            line.octets
        );
    }
}
