//! Peers of streams: servers that do anything with a connection, and clients that say lines.

use gateward_testkit::free_port;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// How long a peer may take for anything: generous, for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a server that does `script` with every connection, on a thread of its own; its port.
///
/// # Panics
/// When it cannot listen.
pub fn server(script: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let script = Arc::new(script);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let script = script.clone();
            std::thread::spawn(move || script(stream));
        }
    });
    port
}

/// One that says its name and then gives back what it gets, until the client's end.
pub fn named_echo(name: &'static str) -> u16 {
    server(move |mut stream| {
        let _ = stream.set_nodelay(true);
        if stream.write_all(format!("{name}\n").as_bytes()).is_err() {
            return;
        }
        let mut buffer = [0; 64 * 1024];
        while let Ok(count) = stream.read(&mut buffer) {
            if count == 0 || stream.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
    })
}

/// A port where nobody listens.
///
/// # Panics
/// When there is no free port.
pub fn dead_port() -> u16 {
    free_port().port()
}

/// A client of a stream.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Those of `connect(2)`.
    pub fn try_connect(addr: SocketAddr) -> std::io::Result<Self> {
        Self::of(TcpStream::connect_timeout(&addr, PATIENCE)?)
    }

    /// Connects.
    ///
    /// # Panics
    /// When it cannot.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).expect("the gateway accepts")
    }

    /// Connects from this loopback address.
    ///
    /// # Panics
    /// When it cannot.
    #[track_caller]
    pub fn connect_from(ip: Ipv4Addr, addr: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((ip, 0)).into()).expect("loopback addresses are all there");
        socket.connect(&addr.into()).expect("the gateway accepts");
        Self::of(socket.into()).expect("options can be set")
    }

    fn of(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// Those of `send(2)`.
    pub fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream().write_all(bytes)
    }

    /// Says that no more will be sent.
    ///
    /// # Panics
    /// When the connection is gone.
    #[track_caller]
    pub fn finish(&self) {
        self.stream().shutdown(Shutdown::Write).expect("the connection is there");
    }

    /// The next line without its end; empty at the end of the stream.
    ///
    /// # Errors
    /// Nothing comes in time, or the connection breaks.
    pub fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Says a line and hears one.
    ///
    /// # Errors
    /// Likewise.
    pub fn ask(&mut self, line: &str) -> std::io::Result<String> {
        self.send(format!("{line}\n").as_bytes())?;
        self.line()
    }

    /// Everything until the end of the stream.
    ///
    /// # Errors
    /// Likewise.
    pub fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Asserts that the gateway closes without a word.
    ///
    /// # Panics
    /// When it says one or does not close.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "the gateway said {rest:?}"),
            // Bytes it did not read make its end a reset.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
}
