//! The time to an answer, as the server makes it.
//!
//! One thread sends a query at each beat, whether the last was answered or not, so that a slow answer hides no other. It runs with real-time
//! priority and never spins, so what shares its core neither holds it up nor is held up. The end of a query's time is what the kernel
//! notes when the answer reaches the socket: when the thread gets to read it does not matter.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};

use super::servers::query;
use super::{NAMES, Sequence};
use crate::shell::{must, pause};

/// Queries per second: far below what any server can do.
const PER_SECOND: u32 = 5_000;
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a round found.
pub(super) struct Latency {
    /// Half of the answers took at most this long, in microseconds.
    pub(super) p50_us: f64,
    /// 99 of 100 did.
    pub(super) p99_us: f64,
    /// Queries without an answer.
    pub(super) lost: usize,
}

/// Asks for names of the measured zone at a calm rate.
///
/// # Errors
/// Real-time priority cannot be had, or an answer is not the right one.
pub(super) fn probe(port: u16, seconds: u64) -> Result<Latency> {
    let prober = std::thread::spawn(move || ask(port, seconds));
    let times = prober.join().map_err(|_| anyhow!("the prober panicked"))??;
    let mut answered: Vec<Duration> = times.iter().copied().flatten().collect();
    answered.sort();
    let at = |percent: usize| -> Result<f64> {
        let time = answered.get(answered.len() * percent / 100).context("no query was answered")?;
        Ok(time.as_secs_f64() * 1e6)
    };
    Ok(Latency { p50_us: at(50)?, p99_us: at(99)?, lost: times.len() - answered.len() })
}

/// The time to each answer.
fn ask(port: u16, seconds: u64) -> Result<Vec<Option<Duration>>> {
    real_time()?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(("127.0.0.1", port))?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    let beat = Duration::from_secs(1) / PER_SECOND;
    let count = u32::try_from(seconds)? * PER_SECOND;
    let mut sequence = Sequence(0x9e37_79b9_7f4a_7c15);
    let mut asked = Vec::with_capacity(count as usize);
    let mut times = vec![None; count as usize];
    let began = Instant::now();
    for number in 0..count {
        pause((beat * number).saturating_sub(began.elapsed()));
        read_all(&socket, &asked, &mut times)?;
        let mut query = query(&format!("host-{}.example.com", sequence.below(NAMES)), 1);
        query[..2].copy_from_slice(&id(number as usize));
        asked.push(SystemTime::now());
        // A queue that is full loses the query, which is counted.
        _ = socket.send(&query);
    }
    pause(PATIENCE);
    read_all(&socket, &asked, &mut times)?;
    Ok(times)
}

/// The low bits of a query's number, which tell it from every other that can still be answered.
fn id(number: usize) -> [u8; 2] {
    [number >> 8, number].map(|bits| u8::try_from(bits & 255).unwrap_or_default())
}

/// Reads what was answered so far.
fn read_all(socket: &UdpSocket, asked: &[SystemTime], times: &mut [Option<Duration>]) -> Result<()> {
    let mut answer = [0; 512];
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    loop {
        let mut parts = [IoSliceMut::new(&mut answer)];
        let read = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT);
        let message = match read {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(()),
            Err(error) => return Err(error).context("cannot read an answer"),
        };
        let arrived = message
            .cmsgs()?
            .find_map(|part| match part {
                ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
                _ => None,
            })
            .context("the kernel does not say when an answer arrived")?;
        let len = message.bytes;
        ensure!(len > 12 && answer[3] & 15 == 0 && answer[7] == 1, "a wrong answer: {:02x?}", &answer[..len]);
        let number = (0..asked.len()).rev().take(1 << 16).find(|number| id(*number) == [answer[0], answer[1]]);
        let number = number.context("an answer that nobody asked for")?;
        times[number] = Some(arrived.saturating_sub(asked[number].duration_since(UNIX_EPOCH)?));
    }
}

/// Gives this thread real-time priority.
fn real_time() -> Result<()> {
    let thread = std::fs::read_link("/proc/thread-self")?;
    let thread = thread.file_name().context("/proc does not say which thread this is")?;
    must(Command::new("chrt").args(["--fifo", "--pid", "10"]).arg(thread).stdout(Stdio::null()))
}
