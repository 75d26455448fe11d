//! Waiting for the head of an upstream's answer, while the request may still be on its way.
//!
//! An upstream's silence counts from the end of the request: a client that takes minutes to send a large body must
//! not be told that the upstream timed out.

use crate::channel::Channel;
use crate::error::ProxyError;
use crate::http2::{Answer, Http2Stream, message_fields};
use crate::pump::Pump;
use crate::session::Session;
use crate::upgrade;
use gateward_http::{
    HeadError, HeadLimits, Method, Parsed, ResponseHead, Version, hop, parse_response_head, read_response_head,
    worth_parsing,
};
use gateward_net::Deadline;
use std::cell::Cell;
use std::future::poll_fn;

/// Milliseconds for passing an interim response to the client.
const INTERIM_MS: u64 = 60_000;
/// Interim responses taken before the final one.
const INTERIM_MAX: usize = 100;

/// What an answer is received into, and what of the request it depends on.
pub(crate) struct Receiver<'a> {
    pub(crate) method: &'a Method,
    pub(crate) version: Version,
    pub(crate) head: &'a mut ResponseHead,
    pub(crate) download: &'a mut Pump,
    pub(crate) deadline: &'a Deadline,
    pub(crate) upgrade: &'a mut Option<Box<str>>,
}

impl<'a> Receiver<'a> {
    /// Of the request of `session`.
    pub(crate) fn of(session: &'a mut Session) -> Self {
        let Session { exchange, response_head: head, download, deadline, upgrade, .. } = session;
        let method = exchange.upstream.method.as_ref().unwrap_or(&exchange.request.method);
        Self { method, version: exchange.request.version, head, download, deadline, upgrade }
    }
}

/// Read until a final response head is complete; interim responses are passed on. The upstream may be silent until
/// the request is `sent_at` (on the deadlines' clock) and for `read_ms` from then on.
pub(crate) async fn receive(
    upstream: Channel<'_>,
    receiver: Receiver<'_>,
    limits: &HeadLimits,
    read_ms: u64,
    sent_at: &Cell<Option<u64>>,
    client: Channel<'_>,
) -> Result<(), ProxyError> {
    let upstream = match upstream {
        Channel::Http1(stream) => stream,
        Channel::Http2(stream) => {
            return Box::pin(receive_fields(stream, receiver, limits, read_ms, sent_at, client)).await;
        }
    };
    let (mut interim, mut seen) = (0, 0);
    let Receiver { method, version, head, download, deadline, upgrade } = receiver;
    loop {
        if !download.input.is_empty() && worth_parsing(download.input.filled(), seen, limits) {
            match parse_response_head(download.input.filled(), limits, method, head)
                .map_err(ProxyError::UpstreamHead)?
            {
                Parsed::Complete(length) => {
                    download.input.consume(length);
                    if head.status >= 200 || head.status == 101 {
                        break;
                    }
                    interim += 1;
                    if interim > INTERIM_MAX {
                        return Err(ProxyError::UpstreamHead(HeadError::StatusLine));
                    }
                    Box::pin(pass_interim(version, head, client, deadline)).await?;
                    seen = 0;
                    continue;
                }
                Parsed::Partial => {}
            }
        }
        if download.input.len() >= limits.head_bytes {
            return Err(ProxyError::UpstreamClosed);
        }
        let began_ms = deadline.now_ms();
        let mut left_ms = read_ms;
        let count = loop {
            deadline.arm(left_ms);
            let received = deadline.guard(async {
                upstream.readable().await?;
                upstream.read(download.input.space(limits.head_bytes)).await
            });
            match received.await {
                Ok(Ok(count)) if count > 0 => break count,
                Ok(_) => return Err(ProxyError::UpstreamClosed),
                Err(_) => left_ms = silence_left(read_ms, sent_at.get(), began_ms, deadline.now_ms()),
            }
            if left_ms == 0 {
                return Err(ProxyError::UpstreamTimeout);
            }
        };
        seen = download.input.len();
        download.input.fill(count);
    }
    if head.status == 101 {
        // Only to a protocol that was asked for, and that may be.
        *upgrade = upgrade::agreed(upgrade.as_deref(), &head.headers);
        if upgrade.is_none() {
            return Err(ProxyError::UpstreamHead(HeadError::StatusLine));
        }
    }
    Ok(())
}

/// Likewise for an answer on a stream of HTTP/2.
async fn receive_fields(
    upstream: &Http2Stream,
    receiver: Receiver<'_>,
    limits: &HeadLimits,
    read_ms: u64,
    sent_at: &Cell<Option<u64>>,
    client: Channel<'_>,
) -> Result<(), ProxyError> {
    let Receiver { method, version, head, deadline, .. } = receiver;
    for _ in 0..=INTERIM_MAX {
        let began_ms = deadline.now_ms();
        let mut left_ms = read_ms;
        let answer = loop {
            deadline.arm(left_ms);
            match deadline.guard(poll_fn(|context| upstream.poll_answer(context))).await {
                Ok(Ok(answer)) => break answer,
                Ok(Err(_)) => return Err(ProxyError::UpstreamClosed),
                Err(_) => left_ms = silence_left(read_ms, sent_at.get(), began_ms, deadline.now_ms()),
            }
            if left_ms == 0 {
                return Err(ProxyError::UpstreamTimeout);
            }
        };
        let (response, last, ended) = match answer {
            Answer::Interim(response) => (response, false, false),
            Answer::Final(response, ended) => (response, true, ended),
        };
        let fields = message_fields(response.headers());
        read_response_head(response.status().as_u16(), fields, ended, method, limits, head)
            .map_err(ProxyError::UpstreamHead)?;
        if head.status == 101 {
            // There is no other protocol to switch to (RFC 9113 section 8.6).
            return Err(ProxyError::UpstreamHead(HeadError::StatusLine));
        }
        if last {
            return Ok(());
        }
        Box::pin(pass_interim(version, head, client, deadline)).await?;
    }
    Err(ProxyError::UpstreamHead(HeadError::StatusLine))
}

/// How much longer an upstream may be silent that has been since `began_ms`. While the request is still being sent,
/// its sender's own deadlines limit the exchange.
fn silence_left(read_ms: u64, sent_at: Option<u64>, began_ms: u64, now_ms: u64) -> u64 {
    let since = sent_at.map_or(now_ms, |sent| sent.max(began_ms));
    read_ms.saturating_sub(now_ms.saturating_sub(since))
}

/// Pass an interim response on (RFC 9110 section 15.2), except 100, which the gateway answers itself.
async fn pass_interim(
    version: Version,
    head: &mut ResponseHead,
    client: Channel<'_>,
    deadline: &Deadline,
) -> Result<(), ProxyError> {
    if head.status == 100 || version == Version::Http10 {
        return Ok(());
    }
    hop::strip_response(&mut head.headers);
    let client = match client {
        Channel::Http1(stream) => stream,
        Channel::Http2(stream) => {
            return stream.send_interim(head.status, &head.headers).map_err(|_| ProxyError::ClientGone);
        }
    };
    let mut out = format!("HTTP/1.1 {} {}\r\n", head.status, head.reason).into_bytes();
    head.headers.write_to(&mut out);
    out.extend_from_slice(b"\r\n");
    deadline.write_all(&**client, &out, INTERIM_MS).await.map_err(|_| ProxyError::ClientGone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_end_of_the_request() {
        for (sent_at, now_ms, left) in [
            (Some(0), 100, 60), // sent before the waiting began at 60
            (Some(0), 160, 0),
            (None, 500, 100), // still being sent
            (Some(450), 500, 50),
            (Some(450), 600, 0),
        ] {
            assert_eq!(silence_left(100, sent_at, 60, now_ms), left, "{sent_at:?} {now_ms}");
        }
    }
}
