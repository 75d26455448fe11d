//! The query log: one line of JSON per query, or per so many of them. A worker offers, a thread writes; a full queue drops and counts.
//! Lines are written together while there are more, and at once when there are none.

use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
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

/// A worker's end of the log, or that of all streams.
pub struct QueryLog {
    queue: SyncSender<Line>,
    every: u32,
    passed: AtomicU32,
}

/// What became of a query that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offered {
    /// It is written, or is none that is to be.
    Taken,
    /// The queue is full.
    Dropped,
}

impl QueryLog {
    /// A log into `out`, of one query in `every` (at least 1): the first worker's end; others are [`Self::another`].
    #[must_use]
    pub fn start(out: Box<dyn Write + Send>, every: u32) -> Self {
        let (queue, lines) = sync_channel(QUEUE);
        std::thread::spawn(move || write_all(out, &lines));
        QueryLog { queue, every: every.max(1), passed: AtomicU32::new(0) }
    }

    /// Another worker's end.
    #[must_use]
    pub fn another(&self) -> Self {
        QueryLog { queue: self.queue.clone(), every: self.every, passed: AtomicU32::new(0) }
    }

    /// Offers a query that got `reply`, of which `sent` octets went out.
    pub(crate) fn offer(
        &self,
        query: &[u8],
        reply: &Reply,
        sent: usize,
        client: SocketAddr,
        transport: Transport,
        time: u64,
    ) -> Offered {
        if !self.passed.fetch_add(1, Ordering::Relaxed).wrapping_add(1).is_multiple_of(self.every) {
            return Offered::Taken;
        }
        let name = query.get(12..).and_then(|rest| Name::from_wire(rest).ok()).map(|(name, _)| name);
        let line = Line { time, client, transport, name, qtype: reply.qtype, rcode: reply.rcode, octets: sent };
        if self.queue.try_send(line).is_ok() { Offered::Taken } else { Offered::Dropped }
    }
}

/// Writes lines until the last worker is gone.
fn write_all(out: Box<dyn Write + Send>, lines: &Receiver<Line>) {
    let mut out = BufWriter::new(out);
    while let Ok(line) = lines.recv() {
        // A log that cannot be written must not stop answers.
        let _ = write(&mut out, line);
        while let Ok(line) = lines.try_recv() {
            let _ = write(&mut out, line);
        }
        let _ = out.flush();
    }
}

fn write(out: &mut dyn Write, line: Line) -> std::io::Result<()> {
    let name = line.name.map(|name| name.to_string()).unwrap_or_default().replace('\\', "\\\\").replace('"', "\\\"");
    let transport = match line.transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
    };
    writeln!(
        out,
        r#"{{"time":{},"client":"{}","transport":"{transport}","name":"{name}","type":"{}","rcode":{},"bytes":{}}}"#,
        line.time,
        line.client,
        Rtype::from_int(line.qtype),
        line.rcode,
        line.octets
    )
}
