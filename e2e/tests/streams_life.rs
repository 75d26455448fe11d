//! Streams while the gateway changes: configurations, the end of the process, another process in its place.

use gateward_e2e::Metrics;
use gateward_e2e::streams::{Client, PATIENCE, named_echo};
use gateward_testkit::{Gateway, GatewayBuilder, TempDir, eventually, pause};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Everything goes to `port`; `note` makes one configuration differ from another.
fn config(port: u16, note: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- {{name: s, protocol: tcp, host: 127.0.0.1, port: {port}, tags: [{note}], routes: [{{name: r, protocols: [tcp], sources: [{{ip: 127.0.0.0/8}}]}}]}}\n"
    )
}

/// Clients that talk on one stream each, and clients that begin a new one for every word.
struct Talk {
    stop: Arc<AtomicBool>,
    words: Arc<AtomicUsize>,
    streams: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Talk {
    fn start(addr: SocketAddr) -> Self {
        let mut talk =
            Self { stop: Arc::default(), words: Arc::default(), streams: Arc::default(), threads: Vec::new() };
        for number in 0..4 {
            let (stop, words) = (talk.stop.clone(), talk.words.clone());
            talk.threads.push(std::thread::spawn(move || {
                let failed = |error: std::io::Error| format!("stream {number}: {error}");
                let mut client = Client::try_connect(addr).map_err(failed)?;
                client.line().map_err(failed)?;
                while !stop.load(Relaxed) {
                    let word = format!("word {}", words.fetch_add(1, Relaxed));
                    let heard = client.ask(&word).map_err(failed)?;
                    if heard != word {
                        return Err(format!("stream {number}: heard {heard:?} instead of {word:?}"));
                    }
                    pause(Duration::from_millis(2));
                }
                Ok(())
            }));
        }
        for _ in 0..2 {
            let (stop, streams) = (talk.stop.clone(), talk.streams.clone());
            talk.threads.push(std::thread::spawn(move || {
                while !stop.load(Relaxed) {
                    let number = streams.fetch_add(1, Relaxed);
                    let failed = |error: std::io::Error| format!("new stream {number}: {error}");
                    let mut client = Client::try_connect(addr).map_err(failed)?;
                    let name = client.line().map_err(failed)?;
                    if name.is_empty() || client.ask("x").map_err(failed)? != "x" {
                        return Err(format!("new stream {number} was not served"));
                    }
                }
                Ok(())
            }));
        }
        talk
    }

    /// Until so much more was said.
    #[track_caller]
    fn go_on(&self) {
        let before = (self.words.load(Relaxed), self.streams.load(Relaxed));
        eventually(PATIENCE, || {
            let broken = self.threads.iter().any(JoinHandle::is_finished);
            broken || (self.words.load(Relaxed) > before.0 + 20 && self.streams.load(Relaxed) > before.1 + 20)
        });
    }

    #[track_caller]
    fn assert_nothing_broke(self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads {
            assert_eq!(thread.join().expect("it does not panic"), Ok(()));
        }
        println!("{} words, {} new streams", self.words.load(Relaxed), self.streams.load(Relaxed));
    }
}

#[test]
fn load_reloads_break_no_stream() {
    let ports = [named_echo("first"), named_echo("second")];
    let gateway = Gateway::builder(&config(ports[0], "a")).stream_listen("127.0.0.1:0").start();
    let talk = Talk::start(gateway.stream_at(0));
    let generation = || Metrics::scrape(&gateway).sum("gateward_config_generation", &[]);
    for round in 0..6 {
        let before = generation();
        gateway.write_config(&config(ports[round % 2], &format!("round-{round}")));
        eventually(PATIENCE, || generation() > before);
        talk.go_on();
    }
    // A stream goes on with what it began with, a new one follows the configuration.
    let mut client = Client::connect(gateway.stream_at(0));
    assert_eq!(client.line().expect("a name"), "second");
    drop(client);
    talk.assert_nothing_broke();
    gateway.stop();
}

fn upgradable(config: &str, folder: &TempDir) -> GatewayBuilder {
    Gateway::builder(config)
        .stream_listen("127.0.0.1:0, 127.0.0.2:0 ssl")
        .env("GATEWARD_SHUTDOWN_GRACE", "100ms")
        .env("GATEWARD_UPGRADE_SOCKET", folder.path().join("upgrade.sock").display().to_string())
}

#[test]
fn load_another_process_takes_the_listeners_over() {
    let folder = TempDir::new().expect("a folder can be made");
    let text = config(named_echo("s"), "a");
    let mut old = upgradable(&text, &folder).start();
    let addr = old.stream_at(0);
    let talk = Talk::start(addr);
    let mut draining = Vec::new();
    for workers in [2, 3, 1] {
        talk.go_on();
        let new = upgradable(&text, &folder).workers(workers).start();
        assert_eq!((new.stream_at(0), new.stream_at(1)), (old.stream_at(0), old.stream_at(1)));
        draining.push(std::mem::replace(&mut old, new));
        talk.go_on();
    }
    // Those that began in the first process are still there.
    assert!(draining[0].is_running());
    talk.assert_nothing_broke();
    for mut gateway in draining {
        assert!(gateway.wait_exit(PATIENCE).success());
        gateway.assert_no_errors();
    }
    old.stop();
}

#[test]
fn the_end_of_the_process_gives_streams_their_time_and_counts_what_is_cut() {
    let folder = TempDir::new().expect("a folder can be made");
    let log = folder.path().join("access.log");
    let mut gateway = Gateway::builder(&config(named_echo("s"), "a"))
        .stream_listen("127.0.0.1:0")
        .env("GATEWARD_SHUTDOWN_TIMEOUT", "1s")
        .env("GATEWARD_ACCESS_LOG", log.display().to_string())
        .start();
    let addr = gateway.stream_at(0);
    let (mut ends, mut stays) = (Client::connect(addr), Client::connect(addr));
    for client in [&mut ends, &mut stays] {
        assert_eq!(client.line().expect("a name"), "s");
    }
    let began = Instant::now();
    gateway.sigterm();
    eventually(PATIENCE, || Client::try_connect(addr).is_err());
    for client in [&mut ends, &mut stays] {
        assert_eq!(client.ask("still here").expect("streams go on"), "still here");
    }
    ends.finish();
    assert_eq!(ends.rest().expect("an orderly end"), b"");
    assert_eq!(stays.line().expect_err("it is cut").kind(), std::io::ErrorKind::ConnectionReset);
    assert!(gateway.wait_exit(PATIENCE).success() && began.elapsed() >= Duration::from_millis(900));
    let text = std::fs::read_to_string(&log).expect("it is there");
    // Further streams came while it was still accepting.
    let of = |end: &str| text.matches(&format!("\"end\":\"{end}\"")).count();
    assert!(of("cut") == 1 && of("client") >= 1 && text.lines().count() >= 2, "{text}");
}
