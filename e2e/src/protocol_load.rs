//! Load over HTTP/2, gRPC and WebSocket for "nothing may fail while this happens" tests: `gateward_testkit::load` for the
//! protocols that need a library on the client's side. Over whatever a [`Dial`] connects with, such as TLS.
//!
//! As strict as the protocols allow. HTTP/2: a request fails unless it is answered 200 to its end; only where the gateway
//! says with GOAWAY that it has not looked at one is it sent again (RFC 9113, 6.8). gRPC, on tonic: likewise, and a call
//! fails unless all its messages come and its status is OK. WebSocket: a message fails unless it comes back or the gateway
//! closes with a Close frame, which tells the client that it did not (RFC 6455, 7.1).

use crate::dial::{Dial, plain};
use crate::grpc::GrpcClient;
use crate::websocket;
use gateward_testkit::pause;
use h2::Reason;
use h2::client::{self, SendRequest};
use http::{Request, StatusCode};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_stream::StreamExt;
use tonic::{Request as Call, Status};
use tungstenite::{Message, WebSocket};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two rounds, so that a debug build on a busy machine has room for the rest.
const INTERVAL: Duration = Duration::from_millis(1);
/// Requests at once on an HTTP/2 connection.
const STREAMS: usize = 4;

/// Messages of a call that goes both ways.
const MESSAGES: usize = 10;

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
        Self::http2_over(plain(addr))
    }

    /// Likewise over connections made by `dial`.
    pub fn http2_over(dial: Dial) -> Self {
        Self::start(move |stopping| crate::grpc::runtime().block_on(http2(&dial, stopping)))
    }

    /// Calls of every kind to `test.Echo` with one tonic client: one message for one, many for one, and each for each.
    pub fn grpc_over(dial: Dial) -> Self {
        Self::start(move |stopping| crate::grpc::runtime().block_on(calls(dial, stopping)))
    }

    /// A message there and back over one WebSocket, over and over.
    pub fn websocket(addr: SocketAddr, path: &'static str) -> Self {
        Self::websocket_over(move || websocket::try_connect(addr, path))
    }

    /// Likewise over a WebSocket that `connect` opens.
    pub fn websocket_over<S: io::Read + io::Write>(
        connect: impl Fn() -> Result<WebSocket<S>, String> + Send + 'static,
    ) -> Self {
        Self::start(move |stopping| messages(&connect, stopping))
    }

    /// Whatever `round` does, again and again; it tells how many requests succeeded, or what failed.
    pub fn rounds(round: impl Fn() -> Result<u64, String> + Send + 'static) -> Self {
        Self::start(move |stopping| {
            let mut outcome = Outcome::default();
            while !stopping.load(Ordering::Relaxed) {
                outcome.connects += 1;
                match round() {
                    Ok(count) => outcome.ok += count,
                    Err(failure) => outcome.failures.push(failure),
                }
                pause(INTERVAL);
            }
            outcome
        })
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

async fn http2(dial: &Dial, stopping: &AtomicBool) -> Outcome {
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
                match connect(dial).await {
                    Ok(new) => new,
                    Err(error) => {
                        outcome.failures.push(format!("connecting: {error}"));
                        tokio::time::sleep(INTERVAL).await;
                        continue;
                    }
                }
            }
        };
        let calls: Vec<_> = (0..STREAMS).map(|_| tokio::spawn(call(current.clone()))).collect();
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

async fn connect(dial: &Dial) -> Result<SendRequest<bytes::Bytes>, String> {
    let stream = dial().await.map_err(|error| error.to_string())?;
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

async fn call(sender: SendRequest<bytes::Bytes>) -> Answered {
    // Not ready: the connection said goodbye before the request was sent.
    let Ok(mut sender) = sender.ready().await else { return Answered::Unseen };
    let exchange = async {
        let request = Request::get("http://a.test/").body(()).expect("a request can be made");
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

async fn calls(dial: Dial, stopping: &AtomicBool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut client = match GrpcClient::over(dial).await {
        Ok(client) => client,
        Err(error) => return Outcome { failures: vec![format!("connecting: {error}")], ..outcome },
    };
    while !stopping.load(Ordering::Relaxed) {
        let results = [
            within(one_for_one(&mut client)).await,
            within(many_for_one(&mut client)).await,
            within(each_for_each(&mut client)).await,
        ];
        for result in results {
            match result {
                Ok(()) => outcome.ok += 1,
                Err(status) if is_unseen_call(&status) => outcome.again += 1,
                Err(status) => outcome.failures.push(format!("{status:?}")),
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
    outcome
}

async fn within(call: impl Future<Output = Result<(), Status>>) -> Result<(), Status> {
    let late = |_| Err(Status::deadline_exceeded(format!("no end within {PATIENCE:?}")));
    tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(late)
}

async fn one_for_one(client: &mut GrpcClient) -> Result<(), Status> {
    let answer = client.unary("/test.Echo/One", Call::new(b"hello".to_vec())).await?.into_inner();
    expect(&answer, b"hello")
}

async fn many_for_one(client: &mut GrpcClient) -> Result<(), Status> {
    let mut messages = client.server_streaming(b"10").await?.into_inner();
    for index in 0..10 {
        expect(&messages.message().await?.unwrap_or_default(), format!("message {index}").as_bytes())?;
    }
    the_end(messages).await
}

/// Takes a while, so that there is always one under way.
async fn each_for_each(client: &mut GrpcClient) -> Result<(), Status> {
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let mut heard = client.streaming(tokio_stream::wrappers::ReceiverStream::new(receive)).await?.into_inner();
    for index in 0..MESSAGES {
        let message = format!("message {index}").into_bytes();
        // Who does not take it has ended the call, which is found next.
        let _ = send.send(message.clone()).await;
        expect(&heard.next().await.transpose()?.unwrap_or_default(), &message)?;
        tokio::time::sleep(INTERVAL * 5).await;
    }
    drop(send);
    the_end(heard).await
}

fn expect(message: &[u8], expected: &[u8]) -> Result<(), Status> {
    if message == expected { Ok(()) } else { Err(Status::data_loss(format!("{expected:?} came back as {message:?}"))) }
}

/// Nothing more, and the status OK.
async fn the_end(mut messages: tonic::Streaming<Vec<u8>>) -> Result<(), Status> {
    match messages.message().await? {
        None => Ok(()),
        Some(message) => Err(Status::data_loss(format!("{message:?} came after the end"))),
    }
}

/// Whether the gateway has said that it has not looked at the call, or it was never sent.
fn is_unseen_call(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        let unsent = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        if unsent || error.downcast_ref::<h2::Error>().is_some_and(is_unseen) {
            return true;
        }
        source = error.source();
    }
    false
}

fn messages<S: io::Read + io::Write>(
    connect: &impl Fn() -> Result<WebSocket<S>, String>,
    stopping: &AtomicBool,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut open: Option<WebSocket<S>> = None;
    while !stopping.load(Ordering::Relaxed) {
        let mut socket = match open.take() {
            Some(socket) => socket,
            None => {
                outcome.connects += 1;
                match connect() {
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
