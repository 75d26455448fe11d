//! WebSocket on both ends, by another implementation: an echo server and a client.

use gateward_testkit::Backend;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tungstenite::client::IntoClientRequest;
use tungstenite::{HandshakeError, Message, WebSocket};

/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client's end.
pub type Client = WebSocket<TcpStream>;

/// A back end that speaks WebSocket and sends every message back.
pub fn echo_backend() -> Backend {
    Backend::raw(|_, stream| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        loop {
            match socket.read() {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                    if socket.send(message).is_err() {
                        return;
                    }
                }
                // Pings and Close are answered by the library, with the next flush.
                Ok(_) => {
                    let _ = socket.flush();
                }
                Err(_) => return,
            }
        }
    })
}

/// Opens a WebSocket through `gateway`.
///
/// # Errors
/// The answer to the handshake is not 101, or it breaks off; the error's text has the status.
pub fn try_connect(gateway: SocketAddr, path: &str) -> Result<Client, String> {
    handshake(dial(gateway).map_err(|error| error.to_string())?, &format!("ws://{gateway}{path}"))
}

/// Connects, with a bound on the time of everything that follows.
///
/// # Errors
/// Of the system.
pub fn dial(gateway: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(gateway)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Opens a WebSocket over `stream`, which leads to the gateway.
///
/// # Errors
/// As [`try_connect`].
pub fn handshake<S: Read + Write>(stream: S, url: &str) -> Result<WebSocket<S>, String> {
    let request = url.into_client_request().map_err(|error| error.to_string())?;
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(error)) => Err(error.to_string()),
        Err(HandshakeError::Interrupted(_)) => Err("the handshake took too long".to_owned()),
    }
}

/// Likewise.
///
/// # Panics
/// Where [`try_connect`] gives an error.
#[track_caller]
pub fn connect(gateway: SocketAddr, path: &str) -> Client {
    match try_connect(gateway, path) {
        Ok(socket) => socket,
        Err(error) => panic!("no WebSocket through {gateway}: {error}"),
    }
}
