//! A gRPC service and clients for it, on tonic: a stack of its own on both ends of the gateway.
//!
//! Messages are bytes as they are, so that no compiler for `.proto` files is needed; on the wire nothing differs.

use crate::Issued;
use crate::dial::Dial;
use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_stream::{Stream, StreamExt};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::NamedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::Service;

/// Messages as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put_slice(&item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; src.remaining()];
        src.copy_to_slice(&mut item);
        Ok(Some(item))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// The service `test.Echo` on a free port of 127.0.0.1, until it is dropped.
#[derive(Debug)]
pub struct GrpcServer {
    addr: SocketAddr,
    tls: bool,
    connections: Arc<AtomicUsize>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl GrpcServer {
    /// Starts it.
    ///
    /// # Panics
    /// When there is no port.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    /// Likewise at this address.
    ///
    /// # Panics
    /// When it cannot be listened on.
    #[track_caller]
    pub fn start_at(address: &str) -> Self {
        Self::serve(address, None)
    }

    /// Starts it, without the health service; a connection gets GOAWAY when this time has passed since its first call came.
    /// Not since it was accepted: then it might get it before any call, however fast the client is.
    ///
    /// # Panics
    /// When there is no port.
    #[track_caller]
    pub fn start_leaving(after: Duration) -> Self {
        Self::run("127.0.0.1:0", false, move |mut incoming, stopped| async move {
            let leaving = async {
                while let Some(Ok(stream)) = incoming.next().await {
                    tokio::spawn(leave(stream, after));
                }
            };
            tokio::select! {
                () = leaving => {}
                () = stopped => {}
            }
        })
    }

    /// Starts it at this address, over TLS. With an authority for clients, these must show a certificate of it.
    ///
    /// # Panics
    /// When it cannot be listened on, or the certificate cannot be used.
    #[track_caller]
    pub fn start_tls(address: &str, shown: &Issued, clients: Option<&str>) -> Self {
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(&shown.cert, &shown.key));
        let tls = match clients {
            Some(authority) => tls.client_ca_root(Certificate::from_pem(authority)),
            None => tls,
        };
        Self::serve(address, Some(tls))
    }

    #[track_caller]
    fn serve(address: &str, tls: Option<ServerTlsConfig>) -> Self {
        Self::run(address, tls.is_some(), |incoming, stopped| async move {
            let mut server = Server::builder();
            if let Some(tls) = tls {
                server = server.tls_config(tls).expect("a certificate that can be used");
            }
            let _ = server.add_service(Echo).add_service(Health).serve_with_incoming_shutdown(incoming, stopped).await;
        })
    }

    /// Counts connections to `address`, which `serve` serves until it is told to stop.
    #[track_caller]
    fn run<F: Future<Output = ()> + Send + 'static>(
        address: &str,
        tls: bool,
        serve: impl FnOnce(Incoming, Stopped) -> F + Send + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind(address).expect("an address to listen on");
        listener.set_nonblocking(true).expect("a socket option");
        let addr = listener.local_addr().expect("an address");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener).map(move |accepted| {
                count.fetch_add(1, Ordering::Relaxed);
                accepted
            });
            let stopped = async {
                let _ = stopped.await;
            };
            serve(Box::pin(incoming), Box::pin(stopped)).await;
        };
        let thread = std::thread::spawn(move || runtime().block_on(serve));
        Self { addr, tls, connections, stop: Some(stop), thread: Some(thread) }
    }

    /// Serves until the process ends.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// `grpc://address`, or `grpcs://address`.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "grpcs" } else { "grpc" }, self.addr)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends when its connections have; those of a gateway may outlive it.
            drop(thread);
        }
    }
}

/// Connections as they come.
type Incoming = Pin<Box<dyn Stream<Item = std::io::Result<TcpStream>> + Send>>;

/// Done when the server is to stop.
type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serve one connection, and say goodbye to it when this time has passed since its first call came.
async fn leave(stream: TcpStream, after: Duration) {
    let called = Arc::new(Notify::new());
    let call = called.clone();
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        call.notify_one();
        Echo.call(request.map(tonic::body::Body::new))
    });
    let mut connection =
        pin!(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
    let goodbye = async {
        called.notified().await;
        tokio::time::sleep(after).await;
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = goodbye => {}
    }
    connection.as_mut().graceful_shutdown();
    // How it ends is for the client to say.
    let _ = connection.await;
}

/// A runtime for a test's clients or servers.
///
/// # Panics
/// When the system has no resources for one.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A client of the gateway at `addr`.
///
/// # Panics
/// When it cannot connect.
pub async fn client(addr: SocketAddr) -> GrpcClient {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("a URI");
    let channel = endpoint.connect_timeout(Duration::from_secs(5)).connect().await.expect("the gateway listens");
    GrpcClient { grpc: tonic::client::Grpc::new(channel) }
}

/// Likewise over TLS, where the gateway is `name` and its certificate one of `authority`.
///
/// # Panics
/// When it cannot connect.
pub async fn client_tls(addr: SocketAddr, authority: &str, name: &str) -> GrpcClient {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)).domain_name(name);
    let endpoint = Endpoint::from_shared(format!("https://{addr}")).and_then(|endpoint| endpoint.tls_config(tls));
    let endpoint = endpoint.expect("a URI and a certificate").connect_timeout(Duration::from_secs(5));
    GrpcClient { grpc: tonic::client::Grpc::new(endpoint.connect().await.expect("the gateway listens")) }
}

/// A client; clones share its connection.
#[derive(Debug, Clone)]
pub struct GrpcClient {
    grpc: tonic::client::Grpc<Channel>,
}

impl GrpcClient {
    /// A client whose connections are made by `dial`, one at a time.
    ///
    /// # Errors
    /// The first cannot be made.
    pub async fn over(dial: Dial) -> Result<Self, String> {
        let connector = tower::service_fn(move |_: http::Uri| {
            let line = dial();
            async move { line.await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://a.test").connect_with_connector(connector).await;
        Ok(Self { grpc: tonic::client::Grpc::new(channel.map_err(|error| format!("{error:?}"))?) })
    }

    /// One message for one.
    ///
    /// # Errors
    /// The call's status.
    pub async fn unary(&mut self, path: &'static str, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
        self.ready().await?;
        self.grpc.unary(request, PathAndQuery::from_static(path), Plain).await
    }

    /// Many messages for one.
    ///
    /// # Errors
    /// The call's status.
    pub async fn server_streaming(&mut self, message: &[u8]) -> Result<Response<Streaming<Vec<u8>>>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/test.Echo/Many");
        self.grpc.server_streaming(Request::new(message.to_vec()), path, Plain).await
    }

    /// One message for many.
    ///
    /// # Errors
    /// The call's status.
    pub async fn client_streaming(
        &mut self,
        messages: impl Stream<Item = Vec<u8>> + Send + 'static,
    ) -> Result<Response<Vec<u8>>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/test.Echo/Count");
        self.grpc.client_streaming(Request::new(messages), path, Plain).await
    }

    /// A message for each.
    ///
    /// # Errors
    /// The call's status.
    pub async fn streaming(
        &mut self,
        messages: impl Stream<Item = Vec<u8>> + Send + 'static,
    ) -> Result<Response<Streaming<Vec<u8>>>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/test.Echo/Each");
        self.grpc.streaming(Request::new(messages), path, Plain).await
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.grpc.ready().await.map_err(|error| Status::new(Code::Unavailable, error.to_string()))
    }
}

#[derive(Debug, Clone, Copy)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

/// Says that the server is serving, whatever it is asked about.
#[derive(Debug, Clone, Copy)]
struct Health;

impl NamedService for Health {
    const NAME: &'static str = "grpc.health.v1.Health";
}

impl Service<http::Request<tonic::body::Body>> for Health {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move { Ok(tonic::server::Grpc::new(Plain).unary(tower::service_fn(serving), request).await) })
    }
}

/// `HealthCheckResponse { status: SERVING }`.
async fn serving(_: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
    Ok(Response::new(vec![8, 1]))
}

type Messages = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Plain);
            Ok(match request.uri().path() {
                "/test.Echo/One" => grpc.unary(tower::service_fn(one), request).await,
                "/test.Echo/Seen" => grpc.unary(tower::service_fn(seen), request).await,
                "/test.Echo/Fail" => grpc.unary(tower::service_fn(fail), request).await,
                "/test.Echo/Hang" => grpc.unary(tower::service_fn(hang), request).await,
                "/test.Echo/Many" => grpc.server_streaming(tower::service_fn(many), request).await,
                "/test.Echo/Count" => grpc.client_streaming(tower::service_fn(count), request).await,
                "/test.Echo/Each" => grpc.streaming(tower::service_fn(each), request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// The message, with the metadata `x-back` in the head.
async fn one(request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
    let mut response = Response::new(request.into_inner());
    response.metadata_mut().insert("x-back", "yes".parse().expect("a value"));
    Ok(response)
}

/// What came with the message: names and values of its metadata, and the time left.
async fn seen(request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
    let headers = request.metadata().clone().into_headers();
    let lines: String =
        headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap_or_default())).collect();
    Ok(Response::new(lines.into_bytes()))
}

/// The status whose code is the message.
async fn fail(request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
    let code = String::from_utf8_lossy(request.get_ref()).parse().unwrap_or(2);
    Err(Status::new(Code::from_i32(code), "as asked: 100 %"))
}

async fn hang(_: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
    std::future::pending().await
}

/// As many messages as the message says, each with its number.
async fn many(request: Request<Vec<u8>>) -> Result<Response<Messages>, Status> {
    let count: usize = String::from_utf8_lossy(request.get_ref()).parse().unwrap_or(0);
    let messages = tokio_stream::iter((0..count).map(|index| Ok(format!("message {index}").into_bytes())));
    Ok(Response::new(Box::pin(messages)))
}

/// How many messages and bytes came.
async fn count(request: Request<Streaming<Vec<u8>>>) -> Result<Response<Vec<u8>>, Status> {
    let mut messages = request.into_inner();
    let (mut number, mut bytes) = (0, 0);
    while let Some(message) = messages.message().await? {
        number += 1;
        bytes += message.len();
    }
    Ok(Response::new(format!("{number} {bytes}").into_bytes()))
}

/// Every message as it comes.
async fn each(request: Request<Streaming<Vec<u8>>>) -> Result<Response<Messages>, Status> {
    Ok(Response::new(Box::pin(request.into_inner())))
}
