//! Upstreams over HTTP/2 as these tests play them: what is agreed on in TLS, who shares a connection, what is asked
//! again, and whom a slow reader keeps waiting.

use crate::Settings;
use crate::testing::{ask, backend, gateway, local, measured_gateway, read_until};
use bytes::Bytes;
use gateward_net::Stream;
use gateward_net::tls::{Certificates, Context, HTTP_2, TlsSettings};
use gateward_telemetry::{Counter, Telemetry};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_local, yield_now};

/// A configuration with one service on `port`.
fn service(protocol: &str, port: u16, fields: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- {{name: s, protocol: {protocol}, host: 127.0.0.1, port: {port}{fields}, routes: [{{name: r, paths: [/]}}]}}\n"
    )
}

async fn get(gateway: SocketAddr, path: &str) -> String {
    ask(gateway, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await
}

async fn post(gateway: SocketAddr) -> String {
    ask(gateway, b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody").await
}

/// What an origin saw.
#[derive(Default)]
struct Seen {
    /// The protocol of each connection.
    connections: RefCell<Vec<&'static str>>,
    requests: Cell<usize>,
}

/// An https origin that speaks HTTP/2 while `http2` says so; it answers with the protocol and the target.
async fn origin(http2: Rc<Cell<bool>>) -> (u16, Rc<Seen>) {
    let context = Context::new(TlsSettings::default()).unwrap();
    let server = context.server(Certificates::default()).unwrap();
    let seen = Rc::<Seen>::default();
    let kept = seen.clone();
    let port = backend(async move |tcp: TcpStream| {
        let Ok(stream) = Stream::accept_tls(&server, tcp, http2.get()).await else { return };
        if stream.alpn() == Some(HTTP_2) {
            kept.connections.borrow_mut().push("h2");
            let seen = kept.clone();
            serve(stream, async move |request, mut respond| {
                seen.requests.set(seen.requests.get() + 1);
                let body = format!("h2 {}", request.uri());
                let mut sender = respond.send_response(Response::new(()), false).unwrap();
                sender.send_data(body.into(), true).unwrap();
            })
            .await;
        } else {
            kept.connections.borrow_mut().push("h1");
            serve_http1(stream, &kept).await;
        }
    })
    .await;
    (port, seen)
}

async fn serve_http1(mut stream: Stream, seen: &Seen) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        seen.requests.set(seen.requests.get() + 1);
        let head = String::from_utf8(head).unwrap();
        let body = format!("h1 {}", head.split(' ').nth(1).unwrap());
        let upgrade = head.to_lowercase().contains("\r\nupgrade: websocket");
        let answer = match upgrade {
            true => "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(),
            false => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// Serve HTTP/2 on `io`, every request in a task of its own.
async fn serve<S>(io: impl AsyncRead + AsyncWrite + Unpin, script: S)
where
    S: AsyncFn(Request<RecvStream>, SendResponse<Bytes>) + 'static,
{
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
    let script = Rc::new(script);
    while let Some(Ok((request, respond))) = connection.accept().await {
        let script = script.clone();
        spawn_local(async move { script(request, respond).await });
    }
}

fn retries(telemetry: &Telemetry) -> u64 {
    telemetry.snapshot().counter(Counter::UpstreamRetries)
}

#[test]
fn requests_at_the_same_time_share_what_the_first_agreed_on() {
    local(async {
        let (port, seen) = origin(Rc::new(Cell::new(true))).await;
        let gateway = gateway(&service("https", port, ", http2: true"), Settings::default());
        let mut asking = JoinSet::new();
        for index in 0..20 {
            asking.spawn_local(async move { (index, get(gateway, &format!("/{index}")).await) });
        }
        while let Some(answer) = asking.join_next().await {
            let (index, answer) = answer.unwrap();
            assert!(answer.contains(&format!("h2 https://127.0.0.1:{port}/{index}\r\n")), "{answer}");
        }
        assert_eq!((seen.connections.take(), seen.requests.get()), (vec!["h2"], 20));
    });
}

#[test]
fn an_upstream_without_http2_is_asked_as_ever() {
    local(async {
        let (port, seen) = origin(Rc::new(Cell::new(false))).await;
        let gateway = gateway(&service("https", port, ", http2: true"), Settings::default());
        for round in 0..2 {
            let mut asking = JoinSet::new();
            for index in 0..10 {
                asking.spawn_local(async move { (index, get(gateway, &format!("/{index}")).await) });
            }
            while let Some(answer) = asking.join_next().await {
                let (index, answer) = answer.unwrap();
                assert!(answer.ends_with(&format!("h1 /{index}")), "{answer}");
            }
            assert!(seen.connections.borrow().len() <= 10, "{round}: kept for the next");
        }
        assert_eq!(seen.requests.get(), 20);
    });
}

#[test]
fn only_who_asks_for_it_is_offered_http2() {
    local(async {
        let (port, seen) = origin(Rc::new(Cell::new(true))).await;
        for fields in ["", ", http2: false"] {
            let gateway = gateway(&service("https", port, fields), Settings::default());
            assert!(get(gateway, "/").await.ends_with("h1 /"));
        }
        // An upgrade needs HTTP/1.1, whatever other requests are asked in.
        let gateway = gateway(&service("https", port, ", http2: true"), Settings::default());
        assert!(get(gateway, "/").await.contains("h2 "));
        let mut client = TcpStream::connect(gateway).await.unwrap();
        let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        client.write_all(upgrade).await.unwrap();
        let answer = read_until(&mut client, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(get(gateway, "/").await.contains("h2 "));
        assert_eq!(seen.connections.take(), ["h1", "h1", "h2", "h1"]);
    });
}

#[test]
fn an_upstream_may_change_its_mind() {
    local(async {
        let http2 = Rc::new(Cell::new(false));
        let (port, seen) = origin(http2.clone()).await;
        // No connection is kept, so that every change shows at once.
        let mut settings = Settings::default();
        settings.pool.max_requests = 1;
        let gateway = gateway(&service("https", port, ", http2: true"), settings);
        for (speaks, expected) in [(false, "h1 /"), (true, "h2 "), (false, "h1 /"), (false, "h1 /")] {
            http2.set(speaks);
            let answer = get(gateway, "/").await;
            assert!(answer.contains(expected), "{expected}: {answer}");
        }
        assert_eq!(seen.connections.take(), ["h1", "h2", "h1", "h1"]);
    });
}

#[test]
fn a_grpcs_upstream_that_speaks_something_else_is_told_of() {
    local(async {
        let (port, seen) = origin(Rc::new(Cell::new(false))).await;
        let (gateway, telemetry) = measured_gateway(&service("grpcs", port, ", retries: 2"), Settings::default());
        let answer = get(gateway, "/").await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("does not speak HTTP/2 over TLS"), "{answer}");
        assert_eq!((seen.requests.get(), retries(&telemetry)), (0, 2));
        // Nor is one without TLS taken for one in HTTP/2.
        let plain =
            backend(async |mut stream: TcpStream| drop(stream.write_all(b"HTTP/1.1 400 Bad\r\n\r\n").await)).await;
        let (gateway, _) = measured_gateway(&service("grpcs", plain, ", retries: 0"), Settings::default());
        assert!(get(gateway, "/").await.starts_with("HTTP/1.1 502 "));
    });
}

#[test]
fn who_dials_in_vain_fails_those_who_wait() {
    local(async {
        let dials = Rc::new(Cell::new(0));
        let count = dials.clone();
        let port = backend(async move |mut stream: TcpStream| {
            count.set(count.get() + 1);
            // Long enough for all to wait.
            for _ in 0..100 {
                yield_now().await;
            }
            let _ = stream.write_all(b"SSH-2.0-x\r\n").await;
        })
        .await;
        let gateway = gateway(&service("https", port, ", http2: true, retries: 0"), Settings::default());
        let mut asking = JoinSet::new();
        (0..10).for_each(|_| drop(asking.spawn_local(async move { get(gateway, "/").await })));
        while let Some(answer) = asking.join_next().await {
            assert!(answer.unwrap().starts_with("HTTP/1.1 502 "));
        }
        assert!(dials.get() < 10, "{}", dials.get());
    });
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// `:status: 200` from the static table.
const OK: u8 = 0x88;

/// The stream of the next request on a connection; `None` at its end.
async fn next_request(stream: &mut TcpStream) -> Option<u32> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.ok()?;
        if head[3] == HEADERS {
            return Some(u32::from_be_bytes(head[5..9].try_into().unwrap()));
        }
    }
}

/// An upstream in the clear that gives `answer` to each request, by its number and its stream, and closes the connection
/// after one that is empty or begins with GOAWAY. How many requests it got.
async fn raw(answer: impl Fn(usize, u32) -> Vec<u8> + 'static) -> (u16, Rc<Cell<usize>>) {
    let requests = Rc::new(Cell::new(0));
    let count = requests.clone();
    let port = backend(async move |mut stream: TcpStream| {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
        while let Some(id) = next_request(&mut stream).await {
            count.set(count.get() + 1);
            let answer = answer(count.get(), id);
            if stream.write_all(&answer).await.is_err() || answer.is_empty() || answer[3] == GOAWAY {
                return;
            }
        }
    })
    .await;
    (port, requests)
}

fn goaway(last: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn ok(stream: u32) -> Vec<u8> {
    frame(HEADERS, 5, stream, &[OK])
}

/// RFC 9113 section 8.7: what was not looked at may be sent again, whatever it is.
#[test]
fn what_an_upstream_did_not_look_at_is_asked_again() {
    local(async {
        let refused = |number: usize, id| if number < 3 { reset(id, 7) } else { ok(id) };
        let left = |number, id| if number == 1 { goaway(0) } else { ok(id) };
        for (name, (port, requests), tries) in [("refused", raw(refused).await, 3), ("goaway", raw(left).await, 2)] {
            let (gateway, telemetry) = measured_gateway(&service("grpc", port, ", retries: 5"), Settings::default());
            let answer = post(gateway).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{name}: {answer}");
            assert_eq!((requests.get(), retries(&telemetry)), (tries, tries as u64 - 1), "{name}");
        }
        let (port, requests) = raw(|_, id| reset(id, 7)).await;
        let gateway = gateway(&service("grpc", port, ", retries: 4"), Settings::default());
        assert!(post(gateway).await.starts_with("HTTP/1.1 502 "));
        assert_eq!(requests.get(), 5, "as often as retries say");
    });
}

#[test]
fn what_an_upstream_may_have_looked_at_is_not_asked_again() {
    local(async {
        // Reset, said goodbye to as one of the last, cut off.
        let answers: [fn(usize, u32) -> Vec<u8>; 4] =
            [|_, id| reset(id, 2), |_, id| [goaway(id), reset(id, 2)].concat(), |_, id| goaway(id), |_, _| Vec::new()];
        for (index, answer) in answers.into_iter().enumerate() {
            let (port, requests) = raw(answer).await;
            let gateway = gateway(&service("grpc", port, ", retries: 5"), Settings::default());
            let answer = post(gateway).await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{index}: {answer}");
            assert_eq!(requests.get(), 1, "{index}");
        }
    });
}

#[test]
fn resets_of_a_connection_that_lives_cost_retries() {
    local(async {
        let (port, requests) = raw(|number, id| if number == 1 { ok(id) } else { reset(id, 2) }).await;
        let (gateway, telemetry) = measured_gateway(&service("grpc", port, ", retries: 3"), Settings::default());
        assert!(get(gateway, "/").await.starts_with("HTTP/1.1 200 "));
        assert!(get(gateway, "/").await.starts_with("HTTP/1.1 502 "));
        assert_eq!((requests.get(), retries(&telemetry)), (5, 3));
    });
}

#[test]
fn a_connection_that_died_meanwhile_costs_no_retry() {
    local(async {
        let (port, requests) = raw(|number, id| if number % 2 == 1 { ok(id) } else { Vec::new() }).await;
        let (gateway, telemetry) = measured_gateway(&service("grpc", port, ", retries: 0"), Settings::default());
        for _ in 0..3 {
            assert!(get(gateway, "/").await.starts_with("HTTP/1.1 200 "));
        }
        assert_eq!((requests.get(), retries(&telemetry)), (5, 0));
        // One that always dies is asked twice, no more.
        let (port, requests) = raw(|number, id| if number == 1 { ok(id) } else { Vec::new() }).await;
        let (gateway, telemetry) = measured_gateway(&service("grpc", port, ", retries: 0"), Settings::default());
        assert!(get(gateway, "/").await.starts_with("HTTP/1.1 200 "));
        assert!(get(gateway, "/").await.starts_with("HTTP/1.1 502 "));
        assert_eq!((requests.get(), retries(&telemetry)), (3, 0));
    });
}

#[test]
fn answers_that_break_a_rule_are_refused() {
    local(async {
        // 101 has no meaning in HTTP/2; a literal field with a name in capitals; one of 60 KB.
        let switching = b"\x48\x03101".to_vec();
        let capitals = [&[OK][..], b"\x00\x01A\x01b"].concat();
        let long = [&[OK][..], b"\x00\x01a\x7f\xe1\xd3\x03", &[b'a'; 60_000]].concat();
        for (name, ends, block) in [("101", 0, switching), ("capitals", 1, capitals), ("long", 1, long)] {
            let answer = move |_, id| {
                let last = block.len().div_ceil(16_000) - 1;
                let pieces = block.chunks(16_000).enumerate().map(|(index, piece)| {
                    let (kind, flags) = if index == 0 { (HEADERS, ends) } else { (CONTINUATION, 0) };
                    frame(kind, if index == last { flags | END_HEADERS } else { flags }, id, piece)
                });
                pieces.collect::<Vec<_>>().concat()
            };
            let (port, _) = raw(answer).await;
            let gateway = gateway(&service("grpc", port, ", retries: 0, read_timeout: 2000"), Settings::default());
            let answer = get(gateway, "/").await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{name}: {answer}");
        }
    });
}

#[test]
fn a_flood_ends_the_connection_and_not_the_gateway() {
    local(async {
        let pings = |_, _| frame(6, 0, 0, &[0; 8]).repeat(1000);
        let settings = |_, _| frame(4, 0, 0, &[]).repeat(1000);
        for (port, _) in [raw(pings).await, raw(settings).await] {
            let gateway = gateway(&service("grpc", port, ", retries: 0"), Settings::default());
            assert!(post(gateway).await.starts_with("HTTP/1.1 502 "));
        }
    });
}

/// An upstream in the clear that sends without end for `/flood`, and at once for the rest; how many bytes of floods it
/// could send.
async fn flooding() -> (u16, Rc<Cell<usize>>, Rc<Cell<usize>>) {
    let (sent, connections) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (count, accepted) = (sent.clone(), connections.clone());
    let port = backend(async move |stream: TcpStream| {
        accepted.set(accepted.get() + 1);
        let count = count.clone();
        serve(stream, async move |request, mut respond| {
            let mut sender = respond.send_response(Response::new(()), false).unwrap();
            if request.uri().path() != "/flood" {
                sender.send_data(Bytes::from_static(b"here"), true).unwrap();
                return;
            }
            loop {
                sender.reserve_capacity(16 * 1024);
                let Some(Ok(capacity)) = std::future::poll_fn(|context| sender.poll_capacity(context)).await else {
                    return;
                };
                if sender.send_data(vec![b'x'; capacity].into(), false).is_err() {
                    return;
                }
                count.set(count.get() + capacity);
            }
        })
        .await;
    })
    .await;
    (port, sent, connections)
}

/// Wait until `value` has not changed for as long as anything takes that is under way.
async fn settled(value: &Cell<usize>) -> usize {
    loop {
        let before = value.get();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        if value.get() == before {
            return before;
        }
    }
}

#[test]
fn clients_that_do_not_read_hold_up_their_own_answers_alone() {
    const SLOW: usize = 12;
    local(async {
        let (port, sent, connections) = flooding().await;
        let gateway = gateway(&service("grpc", port, ""), Settings::default());
        let mut slow = Vec::new();
        for _ in 0..SLOW {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(16 * 1024).unwrap();
            let mut client = socket.connect(gateway).await.unwrap();
            client.write_all(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            slow.push(client);
        }
        let held = settled(&sent).await;
        // What the sockets between gateway and clients take, and a window of each stream.
        assert!(held < SLOW * 6 * 1024 * 1024, "{held}");
        assert!(held > SLOW * 256 * 1024, "every stream has its window: {held}");
        for _ in 0..5 {
            assert!(get(gateway, "/other").await.contains("here"));
        }
        assert_eq!(connections.get(), 1);
        // Who reads gets on.
        let mut buf = vec![0; 1 << 20];
        let mut got = 0;
        while got < 8 << 20 {
            got += slow[0].read(&mut buf).await.unwrap();
        }
        assert!(sent.get() > held);
    });
}

#[test]
fn an_upstream_that_does_not_read_holds_up_its_client() {
    local(async {
        let reads = Rc::new(Semaphore::new(0));
        let allowed = reads.clone();
        let port = backend(async move |stream: TcpStream| {
            let allowed = allowed.clone();
            serve(stream, async move |request: Request<RecvStream>, mut respond| {
                allowed.acquire().await.unwrap().forget();
                let (mut body, mut count) = (request.into_body(), 0);
                while let Some(Ok(data)) = body.data().await {
                    count += data.len();
                    body.flow_control().release_capacity(data.len()).unwrap();
                }
                let mut sender = respond.send_response(Response::new(()), false).unwrap();
                sender.send_data(count.to_string().into(), true).unwrap();
            })
            .await;
        })
        .await;
        const BYTES: usize = 32 << 20;
        let gateway = gateway(&service("grpc", port, ""), Settings::default());
        let mut client = TcpStream::connect(gateway).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let (mut receive, mut send) = client.into_split();
        let sent = Rc::new(Cell::new(0));
        let count = sent.clone();
        spawn_local(async move {
            let piece = vec![b'x'; 64 * 1024];
            while count.get() < BYTES {
                send.write_all(&piece).await.unwrap();
                count.set(count.get() + piece.len());
            }
            std::future::pending::<()>().await;
        });
        let held = settled(&sent).await;
        assert!(held < BYTES / 2, "what the sockets take: {held}");
        reads.add_permits(1);
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n0\r\n\r\n") {
            assert!(receive.read_buf(&mut answer).await.unwrap() > 0);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains(&BYTES.to_string()), "{answer}");
    });
}

#[test]
fn connections_to_upstreams_are_limited_over_http2_too() {
    local(async {
        let ((first, seen), (second, others)) =
            (origin(Rc::new(Cell::new(true))).await, origin(Rc::new(Cell::new(true))).await);
        let config = format!(
            "_format_version: '3.0'\nupstreams:\n- {{name: u, resilience: {{circuit_breaker: {{max_connections: 1, max_pending: 0, max_requests: 0}}}}, targets: [{{target: '127.0.0.1:{first}'}}, {{target: '127.0.0.1:{second}'}}]}}\nservices:\n- {{name: s, protocol: https, host: u, http2: true, routes: [{{name: r, paths: [/]}}]}}\n"
        );
        let gateway = gateway(&config, Settings::default());
        for _ in 0..6 {
            // One makes room for the other.
            let answer = get(gateway, "/").await;
            assert!(answer.contains("h2 "), "{answer}");
        }
        assert_eq!((seen.requests.get(), others.requests.get()), (3, 3));
        assert_eq!((seen.connections.take().len(), others.connections.take().len()), (3, 3));
    });
}

#[test]
fn a_connection_that_names_its_client_is_for_one_request() {
    local(async {
        let headers = Rc::new(RefCell::new(Vec::new()));
        let kept = headers.clone();
        let port = backend(async move |mut stream: TcpStream| {
            let header = read_until(&mut stream, "\r\n").await;
            kept.borrow_mut().push(header);
            serve(stream, async |_, mut respond| {
                respond.send_response(Response::new(()), true).unwrap();
            })
            .await;
        })
        .await;
        let gateway = gateway(&service("grpc", port, ", proxy_protocol: v1"), Settings::default());
        for _ in 0..2 {
            assert!(get(gateway, "/").await.starts_with("HTTP/1.1 200 "));
        }
        let headers = headers.take();
        assert_eq!(headers.len(), 2);
        assert!(headers.iter().all(|header| header.starts_with("PROXY TCP4 127.0.0.1 ")), "{headers:?}");
    });
}

#[test]
fn odd_characters_of_a_query_arrive_escaped() {
    local(async {
        let (port, _) = origin(Rc::new(Cell::new(true))).await;
        let gateway = gateway(&service("https", port, ", http2: true"), Settings::default());
        let answer = get(gateway, "/a?b=\"{c}\"&d=|^`").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("/a?b="), "{answer}");
    });
}
