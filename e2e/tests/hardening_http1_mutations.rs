//! Thousands of damaged messages through a real gateway: never a 500, never a panic, never something malformed
//! on either side.
//!
//! The kit's strict parsers are the oracle: a back end that cannot parse what the gateway forwards closes, which
//! shows as 502; a client that cannot parse what it gets fails the test. The seed is fixed, so a failure can be
//! repeated; the fuzz targets search further.

use gateward_e2e::{Metrics, with_service_fields};
use gateward_testkit::{Backend, Gateway, Next, RawClient, WireError};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const REQUESTS: usize = 3_000;
const RESPONSES: usize = 1_500;

const REQUEST_SEEDS: [&[u8]; 5] = [
    b"GET /a/b?c=d HTTP/1.1\r\nHost: a.example:80\r\nAccept: */*\r\nCookie: a=b\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nContent-Type: text/plain\r\n\r\nhello world",
    b"POST /y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-T: 1\r\n\r\n",
    b"PUT /%41/../%2e%2e/z HTTP/1.0\r\nConnection: keep-alive, X-A\r\nX-A: 1\r\nContent-Length: 3\r\n\r\nabc",
    b"OPTIONS http://b.example/p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
];

const RESPONSE_SEEDS: [&[u8]; 4] = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-A: b\r\n\r\nhello world",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: X-B\r\nX-B: 1\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.0 204 No Content\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\n\r\n",
];

/// xorshift64*, seeded.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(value).unwrap_or(usize::MAX) % bound.max(1)
    }

    /// One of the seeds with one to four kinds of damage.
    fn damaged(&mut self, seeds: &[&[u8]]) -> Vec<u8> {
        const TROUBLE: &[u8] = b"\r\n\0 \t:;,/\\%?#\"+-_0x\x7f\x80\xffCT";
        const SNIPPETS: [&[u8]; 8] = [
            b"\r\nContent-Length: 5",
            b"\r\nTransfer-Encoding: chunked",
            b"\r\n\r\n",
            b"\r\n ",
            b"%00",
            b"\r\nHost: b",
            b"0\r\n\r\n",
            b"\r\nConnection: close",
        ];
        let mut bytes = seeds[self.below(seeds.len())].to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len().max(1)).min(bytes.len());
            let end = (at + 1 + self.below(8)).min(bytes.len());
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] = TROUBLE[self.below(TROUBLE.len())],
                1 => bytes.insert(at, TROUBLE[self.below(TROUBLE.len())]),
                2 => drop(bytes.drain(at..end)),
                3 => drop(bytes.splice(at..at, SNIPPETS[self.below(SNIPPETS.len())].iter().copied())),
                4 => {
                    let copy = bytes[at..end].to_vec();
                    drop(bytes.splice(at..at, copy));
                }
                _ => bytes.truncate(bytes.len() - self.below(4).min(bytes.len())),
            }
        }
        bytes
    }
}

#[test]
fn damaged_requests() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&with_service_fields(&backend.url(), "retries: 0"));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for index in 0..REQUESTS {
        let request = random.damaged(&REQUEST_SEEDS);
        let shown = request.escape_ascii();
        let mut client = RawClient::connect(gateway.proxy());
        // The gateway may refuse before everything is sent.
        let _ = client.try_send(&request);
        client.finish_sending();
        loop {
            let head = request.starts_with(b"HEAD");
            match client.try_read_response(if head { "HEAD" } else { "GET" }) {
                Ok(response) => assert!(
                    response.status < 500 || matches!(response.status, 501 | 505),
                    "number {index}, {shown}: status {}: {}",
                    response.status,
                    response.text()
                ),
                // The end of what it had to say; a reset when it had unread bytes.
                Err(WireError::Closed | WireError::Io(_)) => break,
                Err(error) => panic!("number {index}, {shown}: {error}"),
            }
        }
    }
    let metrics = Metrics::scrape(&gateway);
    assert_eq!(metrics.sum("gateward_plugin_panics_total", &[]), 0.0);
    assert_eq!(metrics.sum("gateward_requests_total", &["outcome=\"gateway"]), 0.0);
    for request in backend.requests() {
        assert_eq!(request.header_all("host").len(), 1, "{}", request.bytes.escape_ascii());
        let lengths = request.header_all("content-length").len() + request.header_all("transfer-encoding").len();
        assert!(lengths <= 1, "{}", request.bytes.escape_ascii());
        assert!(request.target.starts_with('/') || request.target == "*", "{}", request.target);
    }
    gateway.stop();
}

#[test]
fn damaged_responses() {
    let damaged: Vec<Vec<u8>> = {
        let mut random = Random(0xd1b5_4a32_d192_ed03);
        (0..RESPONSES).map(|_| random.damaged(&RESPONSE_SEEDS)).collect()
    };
    let damaged = Arc::new(damaged);
    let next = AtomicUsize::new(0);
    let backend = Backend::scripted({
        let damaged = Arc::clone(&damaged);
        move |request, stream| {
            if request.target == "/good" {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
                return Next::KeepAlive;
            }
            let index = next.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(damaged.get(index).map_or(&b""[..], Vec::as_slice));
            // Some stay open, as a peer does that thinks it has said everything.
            if index.is_multiple_of(7) { Next::KeepAlive } else { Next::Close }
        }
    });
    let gateway =
        Gateway::builder(&with_service_fields(&backend.url(), "retries: 0, read_timeout: 30")).workers(1).start();
    for index in 0..RESPONSES {
        let shown = damaged[index].escape_ascii();
        let mut client = RawClient::connect(gateway.proxy());
        client.set_timeout(Duration::from_secs(3));
        // A POST, so that nothing is tried again and the script stays in step.
        client.send(b"POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        loop {
            match client.try_read_response("POST") {
                Ok(response) if response.status < 200 => {}
                Ok(response) => {
                    assert!(response.header_all("content-length").len() <= 1, "number {index}, {shown}");
                    break;
                }
                Err(WireError::Closed | WireError::CutShort { .. } | WireError::Io(_)) => break,
                Err(error) => panic!("number {index}, {shown}: {error}"),
            }
        }
        if index.is_multiple_of(10) {
            let good = gateward_testkit::http(gateway.proxy(), "GET /good", &[], b"");
            assert_eq!((good.status, good.body.as_slice()), (200, &b"good"[..]), "after number {index}, {shown}");
        }
    }
    assert_eq!(Metrics::scrape(&gateway).sum("gateward_plugin_panics_total", &[]), 0.0);
    gateway.stop();
}
