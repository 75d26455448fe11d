//! An upstream under the test's control: echoes, follows a script, or hands over the socket.
//!
//! One thread accepts and one serves each connection, so a script may block without holding up others. What was
//! received is kept for the test to look at.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::wire::{Body, Framing, Head, MessageReader, WireError, all, connection_says};

/// How long a connection may stay idle and a request may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Requests kept for inspection; later ones are only counted.
const REQUESTS_KEPT: usize = 10_000;

/// A server on a free port of 127.0.0.1; stops when dropped.
#[derive(Debug)]
pub struct Backend {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

/// A request as the backend got it.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    /// As sent, usually upper case.
    pub method: String,
    /// The request target, undecoded.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: String,
    /// Names as sent, in order.
    pub headers: Vec<(String, String)>,
    /// The content, decoded when it was chunked.
    pub body: Vec<u8>,
    /// Fields after a chunked body.
    pub trailers: Vec<(String, String)>,
    /// The whole message as it came.
    pub bytes: Vec<u8>,
    /// Number of its connection, from 1, in order of acceptance.
    pub connection: usize,
    /// Number of this request on its connection, from 1.
    pub number: usize,
}

impl ReceivedRequest {
    /// The first value of the field with this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        all(&self.headers, name).next()
    }

    /// All values of the field with this name, in any case.
    pub fn header_all(&self, name: &str) -> Vec<&str> {
        all(&self.headers, name).collect()
    }

    fn wants_close(&self) -> bool {
        connection_says(&self.headers, "close") || self.version == "HTTP/1.0"
    }
}

/// What happens to the connection after a script has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next request is read, unless this one asked to close.
    KeepAlive,
    /// The connection is closed in order.
    Close,
    /// The connection is reset (TCP RST).
    Reset,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    connections: AtomicUsize,
    request_count: AtomicUsize,
    requests: Mutex<Vec<ReceivedRequest>>,
    /// Clones of the open connections' sockets, to cut them when the backend stops.
    open: Mutex<HashMap<usize, TcpStream>>,
}

impl Backend {
    /// A backend that answers every request with 200 and JSON that describes it: `method`, `target`, `version`,
    /// `headers` (pairs, in order), `body` (text), `trailers`, `connection` and `request` (numbers from 1).
    pub fn echo() -> Self {
        Self::echo_on(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port of 127.0.0.1 can be bound")
    }

    /// Likewise, on an address of the test's choice.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn echo_on(addr: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        Ok(Self::serving(listener, |request, stream| {
            let description = describe(request).to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                description.len()
            );
            let content = if request.method == "HEAD" { "" } else { description.as_str() };
            // When the peer is gone, reading the next request finds out.
            let _ = stream.write_all(format!("{head}{content}").as_bytes());
            Next::KeepAlive
        }))
    }

    /// A backend that answers every request with these bytes.
    pub fn fixed(response: &str) -> Self {
        let response = response.as_bytes().to_vec();
        Self::scripted(move |_, stream| {
            // When the peer is gone, reading the next request finds out.
            let _ = stream.write_all(&response);
            Next::KeepAlive
        })
    }

    /// A backend that calls `script` with each complete request and the socket to answer on. `Expect:
    /// 100-continue` is answered before the body is read.
    pub fn scripted(script: impl Fn(&ReceivedRequest, &mut TcpStream) -> Next + Send + Sync + 'static) -> Self {
        Self::serving(free_listener(), script)
    }

    fn serving(
        listener: TcpListener,
        script: impl Fn(&ReceivedRequest, &mut TcpStream) -> Next + Send + Sync + 'static,
    ) -> Self {
        Self::start(listener, move |connection, mut stream, shared| {
            serve(connection, &mut stream, shared, &script);
        })
    }

    /// A backend that gives each connection (number from 1, socket) to `script` and parses nothing; closing is
    /// dropping the socket. [`Backend::requests`] stays empty.
    pub fn raw(script: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Self {
        Self::start(free_listener(), move |connection, stream, _| script(connection, stream))
    }

    fn start(listener: TcpListener, serve: impl Fn(usize, TcpStream, &Shared) + Send + Sync + 'static) -> Self {
        let addr = listener.local_addr().expect("a listening socket has an address");
        let shared = Arc::new(Shared::default());
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared, &Arc::new(serve))
        });
        Self { addr, shared, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:port`, for a service's `url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The requests received so far, in order of completion; at most the first 10,000.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        lock(&self.shared.requests).clone()
    }

    /// How many requests were received so far.
    pub fn request_count(&self) -> usize {
        self.shared.request_count.load(Ordering::SeqCst)
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// Cuts the open connections; new ones are still accepted.
    pub fn close_connections(&self) {
        for stream in lock(&self.shared.open).values() {
            // Fails when the peer was faster; then it is closed as wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor; if it cannot be reached, it has ended already.
        let _ = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            // A panic there has been printed; panicking here as well would hide it.
            let _ = acceptor.join();
        }
        self.close_connections();
    }
}

fn free_listener() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).expect("a free port of 127.0.0.1 can be bound")
}

/// Closes with a reset, as a crashed peer does.
pub fn reset(stream: TcpStream) {
    // When the socket is broken already there is nothing left to reset.
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

fn accept<S>(listener: &TcpListener, shared: &Arc<Shared>, serve: &Arc<S>)
where
    S: Fn(usize, TcpStream, &Shared) + Send + Sync + 'static,
{
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let connection = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let (shared, serve) = (Arc::clone(shared), Arc::clone(serve));
        std::thread::spawn(move || {
            // Errors mean that the peer has gone; serving finds out.
            let _ = stream.set_nodelay(true);
            if let Ok(clone) = stream.try_clone() {
                lock(&shared.open).insert(connection, clone);
            }
            let _forget = Forget { shared: &shared, connection };
            serve(connection, stream, &shared);
        });
    }
}

/// Drops the registered clone of a connection's socket when its thread ends, by panic too: the clone would keep
/// the connection open.
struct Forget<'a> {
    shared: &'a Shared,
    connection: usize,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.shared.open).remove(&self.connection);
    }
}

fn serve(
    connection: usize,
    stream: &mut TcpStream,
    shared: &Shared,
    script: &dyn Fn(&ReceivedRequest, &mut TcpStream) -> Next,
) {
    let mut reader = MessageReader::new();
    for number in 1.. {
        let Ok(request) = read_request(&mut reader, stream, connection, number) else {
            return;
        };
        shared.request_count.fetch_add(1, Ordering::SeqCst);
        {
            let mut requests = lock(&shared.requests);
            if requests.len() < REQUESTS_KEPT {
                requests.push(request.clone());
            }
        }
        match script(&request, stream) {
            Next::KeepAlive if !request.wants_close() => {}
            Next::KeepAlive | Next::Close => return,
            Next::Reset => {
                // As in `reset`; the socket closes when this thread ends.
                let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
                return;
            }
        }
    }
}

fn read_request(
    reader: &mut MessageReader,
    stream: &mut TcpStream,
    connection: usize,
    number: usize,
) -> Result<ReceivedRequest, WireError> {
    reader.start(TIMEOUT);
    let head = reader.head(stream)?;
    let framing = reader.framing(&head)?.unwrap_or(Framing::Empty);
    let expects = all(&head.headers, "expect").any(|value| value.eq_ignore_ascii_case("100-continue"));
    if expects && framing != Framing::Empty {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let Body { content, trailers } = reader.body(stream, framing)?;
    let (method, target, version) = request_line(&head).ok_or_else(|| WireError::Malformed {
        problem: "the request line is not one".to_owned(),
        received: reader.message_bytes().to_vec(),
    })?;
    Ok(ReceivedRequest {
        method,
        target,
        version,
        headers: head.headers,
        body: content,
        trailers,
        bytes: reader.message_bytes().to_vec(),
        connection,
        number,
    })
}

fn request_line(head: &Head) -> Option<(String, String, String)> {
    let (method, rest) = head.start_line.split_once(' ')?;
    let (target, version) = rest.rsplit_once(' ')?;
    Some((method.to_owned(), target.to_owned(), version.to_owned()))
}

fn describe(request: &ReceivedRequest) -> serde_json::Value {
    serde_json::json!({
        "method": request.method,
        "target": request.target,
        "version": request.version,
        "headers": request.headers,
        "body": String::from_utf8_lossy(&request.body),
        "trailers": request.trailers,
        "connection": request.connection,
        "request": request.number,
    })
}

/// A script that panics while a lock is held must not hide its own message behind a poisoned lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
