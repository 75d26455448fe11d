//! Opening a connection to a Redis server: name, socket, TLS, AUTH, SELECT.

use gateward_net::{Stream, tls};
use gateward_plugin::RedisSettings;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

/// Questions that wait to be written; beyond, askers wait for room, within their time.
const PIPELINE: usize = 1_024;
/// A server that is gone without a word is noticed by this, even when nobody asks.
const PROBE_AFTER: Duration = Duration::from_secs(30);

/// What moves the bytes of a connection.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Open a connection; what is returned besides must be polled for it to live, and ends with it.
///
/// # Errors
/// A text saying what failed, without secrets.
pub(super) async fn open(
    settings: &RedisSettings,
    tls: Option<&tls::Client>,
) -> Result<(MultiplexedConnection, Driver), String> {
    let stream = stream(settings, tls).await.map_err(|error| error.to_string())?;
    let mut info = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP2)
        .set_db(settings.database)
        .set_lib_name("gateward", env!("CARGO_PKG_VERSION"));
    // As Kong: a user without a password is not sent.
    if let Some(password) =
        settings.password.as_ref().map(gateward_model::Secret::expose).filter(|text| !text.is_empty())
    {
        info = info.set_password(password);
        if let Some(username) = settings.username.as_deref().filter(|text| !text.is_empty()) {
            info = info.set_username(username);
        }
    }
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(PIPELINE);
    let opened = MultiplexedConnection::new_with_config(&info, stream, config).await;
    let (connection, driver) = opened.map_err(|error| error.to_string())?;
    Ok((connection, Box::pin(driver)))
}

async fn stream(settings: &RedisSettings, tls: Option<&tls::Client>) -> io::Result<Stream> {
    let mut last = None;
    for address in tokio::net::lookup_host((settings.host.as_str(), settings.port)).await? {
        match connect(address, settings, tls).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(io::Error::new(error.kind(), format!("{address}: {error}"))),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

async fn connect(address: SocketAddr, settings: &RedisSettings, tls: Option<&tls::Client>) -> io::Result<Stream> {
    let stream = Stream::connect(address).await?;
    stream.keep_alive(PROBE_AFTER);
    match tls {
        None => Ok(stream),
        Some(tls) => {
            let name = settings.server_name.as_deref().unwrap_or(&settings.host);
            stream.negotiate_tls(tls, address.ip(), name, tls::Offer::Nothing).await
        }
    }
}
