//! Load over HTTP/2 and WebSocket for "nothing may fail while this happens" tests: `gateward_testkit::load` for the
//! protocols that need a library on the client's side.
//!
//! As strict as the protocols allow. HTTP/2: a request fails unless it is answered 200 to its end; only where the gateway
//! says with GOAWAY that it has not looked at one is it sent again (RFC 9113, 6.8). WebSocket: a message fails unless
//! it comes back or the gateway closes with a Close frame, which tells the client that it did not (RFC 6455, 7.1).

use crate::websocket;
use gateward_testkit::pause;
use h2::Reason;
use h2::client::{self, SendRequest};
use http::{Request, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tungstenite::Message;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two rounds, so that a debug build on a busy machine has room for the rest.
const INTERVAL: Duration = Duration::from_millis(1);
/// Requests at once on an HTTP/2 connection.
const STREAMS: usize = 4;

/// What came of a load.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Requests answered, messages that came back.
    pub ok: u64,
    /// Whatever else happened to the others.
    pub failures: Vec<String>,
    /// Sent again because the gateway said that it had not looked at them.
    pub again: u64,
    /// Connections made.
    pub connects: u64,
}

/// A load under way; stops when dropped.
#[derive(Debug)]
pub struct ProtocolLoad {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<Outcome>>,
}

impl ProtocolLoad {
    /// GET `/` over one HTTP/2 connection with prior knowledge, several at once.
    pub fn http2(addr: SocketAddr) -> Self {
        Self::start(move |stopping| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(http2(addr, stopping))
        })
    }

    /// A message there and back over one WebSocket, over and over.
    pub fn websocket(addr: SocketAddr, path: &'static str) -> Self {
        Self::start(move |stopping| messages(addr, path, stopping))
    }

    fn start(work: impl FnOnce(&AtomicBool) -> Outcome + Send + 'static) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let seen = stopping.clone();
        Self { stopping, thread: Some(std::thread::spawn(move || work(&seen))) }
    }

    /// Ends it.
    ///
    /// # Panics
    /// When its thread panicked.
    pub fn stop(mut self) -> Outcome {
        self.stopping.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is stopped once");
        thread.join().expect("a load thread does not panic")
    }

    /// Ends it and asserts that there was work and none failed.
    ///
    /// # Panics
    /// When something failed.
    #[track_caller]
    pub fn assert_all_ok(self, name: &str) {
        let Outcome { ok, failures, again, connects } = self.stop();
        println!("{name}: {ok} over {connects} connections, {again} sent again");
        assert!(ok > 0 && failures.is_empty(), "{name}: {ok} succeeded and {} failed: {failures:?}", failures.len());
    }
}

impl Drop for ProtocolLoad {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

async fn http2(addr: SocketAddr, stopping: &AtomicBool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut sender: Option<SendRequest<bytes::Bytes>> = None;
    while !stopping.load(Ordering::Relaxed) {
        // A connection that said goodbye takes no more requests; nothing was sent on it then.
        let ready = match sender.take() {
            Some(sender) => sender.ready().await.ok(),
            None => None,
        };
        let current = match ready {
            Some(ready) => ready,
            None => {
                outcome.connects += 1;
                match connect(addr).await {
                    Ok(new) => new,
                    Err(error) => {
                        outcome.failures.push(format!("connecting: {error}"));
                        tokio::time::sleep(INTERVAL).await;
                        continue;
                    }
                }
            }
        };
        let calls: Vec<_> = (0..STREAMS).map(|_| tokio::spawn(call(current.clone(), addr))).collect();
        for call in calls {
            match call.await.expect("a request does not panic") {
                Answered::Ok => outcome.ok += 1,
                Answered::Unseen => outcome.again += 1,
                Answered::Failed(error) => outcome.failures.push(error),
            }
        }
        sender = Some(current);
        tokio::time::sleep(INTERVAL).await;
    }
    outcome
}

async fn connect(addr: SocketAddr) -> Result<SendRequest<bytes::Bytes>, String> {
    let stream = tokio::net::TcpStream::connect(addr).await.map_err(|error| error.to_string())?;
    let (sender, connection) = client::handshake(stream).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move { drop(connection.await) });
    sender.ready().await.map_err(|error| error.to_string())
}

/// What became of a request.
enum Answered {
    Ok,
    /// The gateway has not looked at it.
    Unseen,
    Failed(String),
}

async fn call(sender: SendRequest<bytes::Bytes>, addr: SocketAddr) -> Answered {
    // Not ready: the connection said goodbye before the request was sent.
    let Ok(mut sender) = sender.ready().await else { return Answered::Unseen };
    let exchange = async {
        let request = Request::get(format!("http://{addr}/")).body(()).expect("a request can be made");
        let (response, _) = sender.send_request(request, true)?;
        let response = response.await?;
        let status = response.status();
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let count = data?.len();
            body.flow_control().release_capacity(count)?;
        }
        Ok::<_, h2::Error>(status)
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(StatusCode::OK)) => Answered::Ok,
        Ok(Ok(status)) => Answered::Failed(status.to_string()),
        Ok(Err(error)) if is_unseen(&error) => Answered::Unseen,
        Ok(Err(error)) => Answered::Failed(error.to_string()),
        Err(_) => Answered::Failed(format!("no answer within {PATIENCE:?}")),
    }
}

/// Whether the gateway has said that it has not looked at the request.
fn is_unseen(error: &h2::Error) -> bool {
    let goodbye = error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
    goodbye || error.reason() == Some(Reason::REFUSED_STREAM)
}

fn messages(addr: SocketAddr, path: &str, stopping: &AtomicBool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut open: Option<websocket::Client> = None;
    while !stopping.load(Ordering::Relaxed) {
        let mut socket = match open.take() {
            Some(socket) => socket,
            None => {
                outcome.connects += 1;
                match websocket::try_connect(addr, path) {
                    Ok(socket) => socket,
                    Err(error) => {
                        outcome.failures.push(format!("connecting: {error}"));
                        pause(INTERVAL);
                        continue;
                    }
                }
            }
        };
        let text = format!("message {}", outcome.ok);
        // What cannot be sent has a reason that reading tells: a Close frame, or the lack of one.
        let _ = socket.send(Message::text(text.clone()));
        match socket.read() {
            Ok(Message::Text(echo)) if echo.as_str() == text => {
                outcome.ok += 1;
                open = Some(socket);
            }
            Ok(Message::Close(_)) => outcome.again += 1,
            Ok(other) => outcome.failures.push(format!("{text}: {other:?}")),
            Err(error) => outcome.failures.push(format!("{text}: {error}")),
        }
        pause(INTERVAL);
    }
    outcome
}
