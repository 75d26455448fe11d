//! Answering over TCP and TLS (RFC 7766, RFC 7858): many queries on one connection, answered as they are ready.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustc_hash::FxHashMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::Shared;
use super::slow::{Ask, Slow};
use super::stats::{Drop, Stats};
use crate::answer::{Context, Transport, Verdict, respond};

/// Connections at once; the next waits in the kernel's queue.
const MOST_CONNECTIONS: usize = 4096;
/// Connections of one address at once.
const MOST_PER_CLIENT: usize = 128;
/// How long a connection may be idle (RFC 7766, 6.2.3). Told to those who ask (RFC 7828).
pub(crate) const IDLE: Duration = Duration::from_secs(30);
/// How long a client may take to read an answer or to finish a query it began.
const PATIENCE: Duration = Duration::from_secs(10);
/// Octets of answers gathered before they are written.
const GATHER: usize = 64 << 10;
/// Slow answers of one connection that wait to be written.
const QUEUE: usize = 16;

/// Accepts connections on one port.
pub(crate) struct Acceptor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) slow: Arc<dyn Slow>,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
}

/// Who is connected, by address.
#[derive(Default)]
struct Clients(Mutex<FxHashMap<IpAddr, usize>>);

impl Clients {
    fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Entered> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if *count >= MOST_PER_CLIENT {
            return None;
        }
        *count += 1;
        Some(Entered { clients: Arc::clone(self), client })
    }
}

struct Entered {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl std::ops::Drop for Entered {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

impl Acceptor {
    /// Accepts until the task is dropped.
    pub(crate) async fn run(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let clients = Arc::new(Clients::default());
        let this = Arc::new(self);
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (stream, client) = match listener.accept().await {
                Ok(accepted) => accepted,
                // Out of descriptors, or the client is gone already: neither is helped by trying at once.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let Some(entered) = clients.enter(client.ip()) else {
                this.stats.dropped(Drop::Busy, 1);
                continue;
            };
            let this = Arc::clone(&this);
            tokio::spawn(async move {
                // How a connection ends is its client's business.
                let _ = this.serve(stream, client).await;
                drop((place, entered));
            });
        }
    }

    async fn serve(&self, stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        match &self.tls {
            None => self.talk(stream, client, Transport::Tcp).await,
            Some(config) => {
                let stream = timeout(PATIENCE, TlsAcceptor::from(Arc::clone(config)).accept(stream)).await??;
                self.talk(stream, client, Transport::Tls).await
            }
        }
    }

    /// Reads queries and writes answers until the client is done and everything is answered.
    async fn talk<S: AsyncRead + AsyncWrite>(
        &self,
        stream: S,
        client: SocketAddr,
        transport: Transport,
    ) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (answers, mut slow_answers) = mpsc::channel::<Vec<u8>>(QUEUE);
        let mut waiting = Waiting { answers: Some(answers), under_way: 0, done: mpsc::unbounded_channel() };
        let mut inbox = Vec::with_capacity(1024);
        let mut out = vec![0; 65_535];
        let mut outbox = Vec::new();
        let mut ended = false;
        loop {
            // Everything that has come is answered before the next read, and written at once.
            let mut at = 0;
            while let Some(query) = message_at(&inbox, at) {
                let end = at + 2 + query.len();
                match self.answer(query, &mut out, client, transport) {
                    Verdict::Silent => return Ok(()),
                    Verdict::Reply(reply) => {
                        self.stats.answered(transport, &reply);
                        push(&mut outbox, &out[..reply.len]);
                    }
                    Verdict::Elsewhere => self.elsewhere(query.to_vec(), client, transport, &mut waiting).await,
                }
                at = end;
                if outbox.len() >= GATHER {
                    flush(&mut writer, &mut outbox).await?;
                }
            }
            inbox.drain(..at);
            flush(&mut writer, &mut outbox).await?;
            if ended && waiting.under_way == 0 && slow_answers.is_empty() {
                writer.shutdown().await?;
                return Ok(());
            }
            let patience = if inbox.is_empty() { IDLE } else { PATIENCE };
            tokio::select! {
                read = timeout(patience, reader.read_buf(&mut inbox)), if !ended => match read {
                    Err(_) if waiting.under_way > 0 => {}
                    Err(_) => return Ok(()),
                    Ok(count) => ended = count? == 0,
                },
                Some(answer) = slow_answers.recv() => push(&mut outbox, &answer),
                Some(()) = waiting.done.1.recv() => waiting.under_way -= 1,
            }
        }
    }

    fn answer(&self, query: &[u8], out: &mut [u8], client: SocketAddr, transport: Transport) -> Verdict {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let (zones, answers) = (self.shared.zones.map(), self.shared.answers.load());
        let context = Context {
            zones: &zones,
            settings: &answers.settings,
            cookies: &answers.cookies,
            now,
            client: client.ip(),
            transport,
        };
        respond(&context, query, out)
    }

    async fn elsewhere(&self, octets: Vec<u8>, client: SocketAddr, transport: Transport, waiting: &mut Waiting) {
        let Ok(permit) = Arc::clone(&self.shared.waiting).acquire_owned().await else { return };
        let Some(answers) = waiting.answers.clone() else { return };
        waiting.under_way += 1;
        let (slow, done) = (Arc::clone(&self.slow), waiting.done.0.clone());
        tokio::spawn(async move {
            slow.serve(Ask { octets, client, transport, answers }).await;
            drop(permit);
            // The connection may be gone.
            let _ = done.send(());
        });
    }
}

/// Slow answers under way on a connection.
struct Waiting {
    answers: Option<mpsc::Sender<Vec<u8>>>,
    under_way: usize,
    done: (mpsc::UnboundedSender<()>, mpsc::UnboundedReceiver<()>),
}

/// The message whose length stands at `at`, if it is all there.
fn message_at(inbox: &[u8], at: usize) -> Option<&[u8]> {
    let length = inbox.get(at..at + 2)?;
    inbox.get(at + 2..at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]])))
}

/// Length and message together, so that they leave in one segment (RFC 7766, 8).
fn push(outbox: &mut Vec<u8>, message: &[u8]) {
    let Ok(length) = u16::try_from(message.len()) else { return };
    outbox.extend_from_slice(&length.to_be_bytes());
    outbox.extend_from_slice(message);
}

async fn flush<W: AsyncWrite + Unpin>(writer: &mut W, outbox: &mut Vec<u8>) -> io::Result<()> {
    if !outbox.is_empty() {
        timeout(PATIENCE, writer.write_all(outbox)).await??;
        timeout(PATIENCE, writer.flush()).await??;
        outbox.clear();
    }
    Ok(())
}
