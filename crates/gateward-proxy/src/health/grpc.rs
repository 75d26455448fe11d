//! gRPC health checks: one call of `grpc.health.v1.Health/Check` for the server as a whole (the service named "").
//!
//! <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>. The two messages are so small that they are
//! written and read by hand: the request is empty, of the answer only field 1 matters.

use super::probe::Line;
use bytes::Bytes;
use gateward_http::protobuf;
use h2::client::{self, SendRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use std::io;
use std::pin::pin;

/// Bytes of an answer's head, and of its message, that are taken.
const MOST_BYTES: usize = 16 * 1024;
/// An uncompressed message of no bytes.
const EMPTY_MESSAGE: &[u8] = &[0; 5];
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// Whether the server at the other end of `line` says that it is serving. Any other answer is a no.
///
/// # Errors
/// The connection broke, or its other end does not speak HTTP/2.
pub(super) async fn is_serving(
    line: Box<dyn Line>,
    scheme: &str,
    authority: &str,
    headers: &[(String, String)],
) -> io::Result<bool> {
    let request = request(scheme, authority, headers)?;
    let mut builder = client::Builder::new();
    builder.enable_push(false).max_header_list_size(MOST_BYTES as u32).initial_window_size(MOST_BYTES as u32);
    let (sender, connection) = builder.handshake::<_, Bytes>(line).await.map_err(failed)?;
    let mut exchange = pin!(exchange(sender, request));
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // What has been received is still there to be read.
        _ = connection => exchange.await,
    }
    .map_err(failed)
}

fn request(scheme: &str, authority: &str, headers: &[(String, String)]) -> io::Result<Request<()>> {
    let uri = format!("{scheme}://{authority}/grpc.health.v1.Health/Check");
    let mut request = Request::post(uri).body(()).map_err(io::Error::other)?;
    let fields = request.headers_mut();
    for (name, value) in headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            fields.append(name, value);
        }
    }
    fields.insert("content-type", HeaderValue::from_static("application/grpc"));
    fields.insert("te", HeaderValue::from_static("trailers"));
    Ok(request)
}

async fn exchange(sender: SendRequest<Bytes>, request: Request<()>) -> Result<bool, h2::Error> {
    let mut sender = sender.ready().await?;
    let (response, mut upload) = sender.send_request(request, false)?;
    upload.send_data(Bytes::from_static(EMPTY_MESSAGE), true)?;
    let (head, mut body) = response.await?.into_parts();
    if head.status != StatusCode::OK || !is_ok(&head.headers).unwrap_or(true) {
        return Ok(false);
    }
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        message.extend_from_slice(&data?);
        // The window is never opened again, which bounds what can come.
        if message.len() >= MOST_BYTES {
            return Ok(false);
        }
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok(is_ok(&trailers).unwrap_or(false) && serving_status(&message) == Some(SERVING))
}

/// Whether the `grpc-status` is 0, if there is one.
fn is_ok(headers: &HeaderMap) -> Option<bool> {
    headers.get("grpc-status").map(|status| status == "0")
}

fn failed(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
    }
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// `status` of a `HealthCheckResponse` in its frame; `None`: it is not one.
pub(crate) fn serving_status(framed: &[u8]) -> Option<u64> {
    let (head, mut message) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    if head[0] != 0 || length as usize != message.len() {
        return None;
    }
    let mut status = 0;
    while let Some((number, value)) = protobuf::field(&mut message)? {
        if let (1, protobuf::Value::Number(value)) = (number, value) {
            status = value;
        }
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;
    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    /// Serve one call: its head, its message, its trailers.
    async fn serve(
        line: DuplexStream,
        head: &[(&'static str, &'static str)],
        message: &[u8],
        status: Option<&'static str>,
    ) {
        let mut connection = h2::server::handshake(line).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.uri().authority().unwrap(), "pool.test");
        assert_eq!(
            (&request.headers()["te"], &request.headers()["x-check"]),
            (&"trailers".parse().unwrap(), &"a".parse().unwrap())
        );
        let mut response = Response::new(());
        for (name, value) in head {
            match *name {
                ":status" => *response.status_mut() = value.parse().unwrap(),
                name => drop(response.headers_mut().insert(name, HeaderValue::from_static(value))),
            }
        }
        let mut body = respond.send_response(response, message.is_empty() && status.is_none()).unwrap();
        if !message.is_empty() {
            body.send_data(Bytes::copy_from_slice(message), status.is_none()).unwrap();
        }
        if let Some(status) = status {
            let trailers =
                HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))]);
            body.send_trailers(trailers).unwrap();
        }
        connection.graceful_shutdown();
        while let Some(Ok(_)) = connection.accept().await {}
    }

    async fn asked(head: &[(&'static str, &'static str)], message: &[u8], status: Option<&'static str>) -> bool {
        let (here, there) = duplex(64 * 1024);
        let headers = [("X-Check".to_owned(), "a".to_owned()), ("host".to_owned(), "x".to_owned())];
        let (answer, ()) = tokio::join!(
            is_serving(Box::new(here), "http", "pool.test", &headers),
            serve(there, head, message, status)
        );
        answer.unwrap()
    }

    #[tokio::test]
    async fn only_serving_is_serving() {
        let message = |status: u8| [0, 0, 0, 0, 2, 8, status];
        assert!(asked(&[], &message(1), Some("0")).await);
        for other in [0, 2, 3] {
            assert!(!asked(&[], &message(other), Some("0")).await);
        }
        assert!(!asked(&[], &[0; 5], Some("0")).await, "an empty message is UNKNOWN");
        assert!(!asked(&[], &message(1), Some("12")).await);
        assert!(!asked(&[], &message(1), None).await, "no status at all");
        assert!(!asked(&[("grpc-status", "12")], &[], None).await, "trailers only");
        assert!(!asked(&[(":status", "503")], &[], None).await);
        assert!(!asked(&[], &[0; 3], Some("0")).await);
    }

    #[tokio::test]
    async fn who_does_not_speak_http2_is_an_error() {
        let (here, mut there) = duplex(64 * 1024);
        let speak = async {
            there.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            there.shutdown().await.unwrap();
        };
        let (answer, ()) = tokio::join!(is_serving(Box::new(here), "http", "a", &[]), speak);
        assert!(answer.is_err());
    }

    #[test]
    fn fields_of_later_versions_are_skipped() {
        let message = [0x10, 0x96, 0x01, 0x1a, 2, b'h', b'i', 0x21, 0, 0, 0, 0, 0, 0, 0, 0, 0x2d, 0, 0, 0, 0, 8, 1];
        let framed = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
        assert_eq!(serving_status(&framed), Some(1));
        for broken in [
            &[1, 0, 0, 0, 0][..],
            &[0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 1, 8],
            &[0, 0, 0, 0, 2, 0x1a, 9],
            &[0, 0, 0, 0, 1, 3],
        ] {
            assert_eq!(serving_status(broken), None, "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn no_message_is_too_odd(message in prop::collection::vec(any::<u8>(), 0..60)) {
            let framed = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
            let _ = serving_status(&framed);
            let _ = serving_status(&message);
        }
    }
}
