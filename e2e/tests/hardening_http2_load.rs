//! HTTP/2 connections that cost the gateway more than their clients: streams that are made to fail, and thousands of
//! clients that are slow in every way, with the memory they hold.

use gateward_e2e::{Metrics, one_route};
use gateward_testkit::frames::{END_HEADERS, END_STREAM, PREFACE, block, get, kind};
use gateward_testkit::{Backend, Frame, FrameClient, Gateway, eventually, http, pause};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(15);
const ENHANCE_YOUR_CALM: u32 = 11;

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    Metrics::scrape(gateway).sum("gateward_refusals_total", &[&format!("reason=\"{reason}\"")])
}

/// A back end that holds every request until its connection ends.
fn holding() -> Backend {
    Backend::raw(|_, stream| {
        let mut stream = stream;
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    })
}

/// MadeYouReset (CVE-2025-8671): after a request that begins well the client sends what the gateway must reset the stream
/// for, again and again. Each way ends like resets of the client's own, and leaves no work behind.
#[test]
fn every_way_to_provoke_resets_runs_out() {
    let open = |stream, ends| {
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        Frame::new(kind::HEADERS, flags, stream, block(&get("/"))).bytes()
    };
    type Provoke<'a> = &'a dyn Fn(u32) -> Vec<u8>;
    let by_window = |stream| [open(stream, false), update(stream, 0)].concat();
    let by_overflow = |stream| [open(stream, false), update(stream, 0x7fff_ffff), update(stream, 0x7fff_ffff)].concat();
    let by_data = |stream| [open(stream, true), Frame::new(kind::DATA, 0, stream, *b"x").bytes()].concat();
    let by_head = |stream| [open(stream, false), open(stream, false)].concat();
    let by_length = |stream| {
        let fields: Vec<_> = get("/").into_iter().chain([("content-length", "1")]).collect();
        let head = Frame::new(kind::HEADERS, END_HEADERS, stream, block(&fields)).bytes();
        [head, Frame::new(kind::DATA, END_STREAM, stream, *b"xy").bytes()].concat()
    };
    let by_field = |stream| {
        let fields: Vec<_> = get("/").into_iter().chain([("connection", "x")]).collect();
        Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, stream, block(&fields)).bytes()
    };
    let ways: [(&str, Provoke<'_>); 6] = [
        ("a window of no width", &by_window),
        ("a window too wide", &by_overflow),
        ("data after the end", &by_data),
        ("a second head", &by_head),
        ("more data than announced", &by_length),
        ("a field of the connection", &by_field),
    ];
    for (name, provoke) in ways {
        let backend = holding();
        let gateway = Gateway::start(&one_route(&backend.url()));
        let mut client = FrameClient::connect(gateway.proxy());
        let mut sent = 0;
        for index in 0..20_000_u32 {
            if !client.try_send(&provoke(2 * index + 1)) {
                break;
            }
            sent = index;
        }
        // Some are errors of the whole connection at once, which is as good.
        let code = client.goaway();
        let reasons = ["http2_reset_flood", "http2_protocol", "http2_calm_down", "http2_flow_control"];
        println!("{name}: {sent} streams, code {code}");
        eventually(PATIENCE, || reasons.iter().map(|reason| refused(&gateway, reason)).sum::<f64>() == 1.0);
        assert!(code == ENHANCE_YOUR_CALM || sent < 20_000, "{name}: {code}");
        eventually(PATIENCE, || backend.open_connections() == 0);
        eventually(PATIENCE, || Metrics::scrape(&gateway).sum("gateward_requests_in_flight", &[]) == 0.0);
        assert_eq!(http(gateway.status(), "GET /status", &[], b"").status, 200);
        gateway.stop();
    }
}

fn update(stream: u32, by: u32) -> Vec<u8> {
    Frame::new(kind::WINDOW_UPDATE, 0, stream, by.to_be_bytes()).bytes()
}

/// Who gives up and asks again is no flood while it waits for each request to be under way; and never has more than one
/// going on.
#[test]
fn work_given_up_is_over_before_the_next_begins() {
    let backend = holding();
    let gateway = Gateway::builder(&one_route(&backend.url())).workers(1).start();
    let mut client = FrameClient::connect(gateway.proxy());
    for index in 0..180_u32 {
        let stream = 2 * index + 1;
        client.request(stream, &get("/"), true);
        eventually(PATIENCE, || backend.connections() == index as usize + 1);
        client.send(&Frame::new(kind::RST_STREAM, 0, stream, 8_u32.to_be_bytes()));
        eventually(PATIENCE, || backend.open_connections() == 0);
    }
    client.request(1001, &get("/"), true);
    eventually(PATIENCE, || backend.open_connections() == 1);
    assert_eq!(Metrics::scrape(&gateway).sum("gateward_refusals_total", &[]), 0.0);
    drop(client);
    eventually(PATIENCE, || backend.open_connections() == 0);
    gateway.stop();
}

/// A client that opens its window byte by byte gets its answer, and is not taken for a flood.
#[test]
fn an_answer_in_many_small_frames_is_no_abuse() {
    const BYTES: usize = 5_000;
    let backend = Backend::fixed(&format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n{}", "x".repeat(BYTES)));
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = FrameClient::silent(gateway.proxy());
    client.send_bytes(PREFACE);
    // No table for compression, and windows of one byte.
    client.send(&Frame::new(kind::SETTINGS, 0, 0, [0, 1, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1]));
    client.request(1, &get("/"), true);
    let (mut got, mut frames) = (0, 0);
    while got < BYTES {
        let frame = client.read().expect("the connection goes on");
        client.acknowledge(&frame);
        if frame.kind == kind::DATA && !frame.payload.is_empty() {
            (got, frames) = (got + frame.payload.len(), frames + 1);
            let count = frame.payload.len() as u32;
            client.send_bytes(&[update(1, count), update(0, count)].concat());
        }
    }
    assert!(frames > BYTES / 2, "{frames}");
    assert_eq!(Metrics::scrape(&gateway).sum("gateward_refusals_total", &[]), 0.0);
    gateway.stop();
}

/// Connections of one kind of slow client, and the KiB that each may cost.
struct Slow {
    name: &'static str,
    count: usize,
    kib_each: u64,
    begin: fn(&mut FrameClient),
}

/// What a connection may hold is bounded whatever its client does; thousands of them are, together.
#[test]
fn load_slow_clients_hold_little_memory() {
    const ANSWER: usize = 1 << 20;
    let backend = Backend::fixed(&format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER}\r\n\r\n{}", "x".repeat(ANSWER)));
    let kinds = [
        Slow { name: "after the preface", count: 4_000, kib_each: 40, begin: |_| {} },
        Slow {
            name: "within a head",
            count: 2_000,
            kib_each: 96,
            begin: |client| {
                let head = block(&[("x", &"y".repeat(15_000))]);
                client.send(&Frame::new(kind::HEADERS, END_STREAM, 1, head));
            },
        },
        Slow {
            name: "within a body",
            count: 400,
            kib_each: 256,
            begin: |client| {
                client.request(1, &get("/"), false);
                client.data(1, &[b'u'; 8_000], false);
            },
        },
        Slow {
            name: "not reading an answer",
            count: 400,
            kib_each: 512,
            begin: |client| client.request(1, &get("/"), true),
        },
        Slow {
            name: "not reading many answers",
            count: 8,
            kib_each: 64 * 256,
            begin: |client| (0..64).for_each(|index| client.request(2 * index + 1, &get("/"), true)),
        },
    ];
    for Slow { name, count, kib_each, begin } in kinds {
        let gateway = Gateway::start(&one_route(&backend.url()));
        let before = gateway.rss_kib();
        let clients: Vec<_> = (0..count)
            .map(|_| {
                let mut client = FrameClient::connect(gateway.proxy());
                begin(&mut client);
                client
            })
            .collect();
        let active = || Metrics::scrape(&gateway).sum("gateward_connections_active", &[]) as usize;
        eventually(PATIENCE, || active() == count);
        // Until it holds what it will hold.
        let mut held = gateway.rss_kib();
        eventually(PATIENCE, || {
            pause(Duration::from_millis(300));
            let now = gateway.rss_kib();
            let settled = now <= held + 256;
            held = now;
            settled
        });
        let grown = held.saturating_sub(before);
        println!("{name}: {count} connections, {} KiB each", grown / count as u64);
        assert!(grown <= count as u64 * kib_each, "{name}: {grown} KiB for {count} connections");
        assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 200, "{name}: others are served");
        drop(clients);
        eventually(PATIENCE, || active() == 0);
        drop(gateway);
    }
}
