//! A real `redis-server` on a free port, and a client for it.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::ports::free_port;
use crate::temp_dir::TempDir;
use crate::wait::pause;

/// How long the server may take to answer its first PING.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A port that was free may be taken by the time the server wants it.
const ATTEMPTS: usize = 5;

/// A running server without persistence; killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    port: u16,
    tls_port: Option<u16>,
    args: Vec<String>,
    dir: TempDir,
}

/// What the server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisReply {
    /// A status, or a string.
    Text(String),
    /// A number.
    Int(i64),
    /// Nothing.
    Nil,
    /// Several.
    List(Vec<RedisReply>),
    /// A refusal.
    Error(String),
}

impl RedisServer {
    /// Starts one with these further arguments, and waits until it answers.
    ///
    /// # Panics
    /// When there is no `redis-server`, or it does not answer.
    #[track_caller]
    pub fn start(args: &[&str]) -> Self {
        Self::launch(args, false)
    }

    /// Likewise with a second port that speaks TLS, see [`RedisServer::tls_port`].
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    #[track_caller]
    pub fn start_tls(args: &[&str]) -> Self {
        Self::launch(args, true)
    }

    #[track_caller]
    fn launch(args: &[&str], tls: bool) -> Self {
        for _ in 0..ATTEMPTS {
            let (port, tls_port) = (free_port().port(), tls.then(|| free_port().port()));
            let dir = TempDir::new().expect("a directory can be made");
            let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            args.extend(tls_port.iter().flat_map(|port| ["--tls-port".to_owned(), port.to_string()]));
            let child = spawn(port, &args, &dir);
            let mut server = Self { child, port, tls_port, args, dir };
            if server.answers() {
                return server;
            }
        }
        panic!("redis-server did not start, {ATTEMPTS} times");
    }

    /// Where it listens in the clear.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it speaks TLS.
    ///
    /// # Panics
    /// When it does not.
    pub fn tls_port(&self) -> u16 {
        self.tls_port.expect("it was started with TLS")
    }

    /// Ends it without a word to its clients.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Makes it stand still: connections stay and can be made, nothing is answered.
    ///
    /// # Panics
    /// When it cannot be told.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Makes it go on.
    ///
    /// # Panics
    /// When it cannot be told.
    #[track_caller]
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Through the shell's own `kill`: the system call needs `unsafe`. The process is our child and not waited for.
    #[track_caller]
    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let told = Command::new("sh").args(["-c", &kill]).status().is_ok_and(|status| status.success());
        assert!(told, "redis-server could not be sent SIG{name}");
    }

    /// Starts it anew on the same ports, empty.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, &self.args, &self.dir);
        assert!(self.answers(), "redis-server did not start again");
    }

    /// Sends a command on a connection of its own.
    ///
    /// # Panics
    /// When the server does not answer.
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> RedisReply {
        match self.commands(&[words]) {
            Ok(mut replies) => replies.remove(0),
            Err(error) => panic!("redis-server did not answer to {words:?}: {error}"),
        }
    }

    /// Sends commands one after the other on one connection.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn commands(&self, commands: &[&[&str]]) -> io::Result<Vec<RedisReply>> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        for words in commands {
            let mut bytes = format!("*{}\r\n", words.len());
            words.iter().for_each(|word| bytes.push_str(&format!("${}\r\n{word}\r\n", word.len())));
            stream.write_all(bytes.as_bytes())?;
        }
        let mut reader = BufReader::new(stream);
        commands.iter().map(|_| reply(&mut reader)).collect()
    }

    /// A field of INFO: `calls` of `cmdstat_eval` for the section `commandstats`; 0 when it is not there.
    ///
    /// # Panics
    /// When the server does not answer.
    #[track_caller]
    pub fn calls(&self, command: &str) -> u64 {
        let RedisReply::Text(info) = self.command(&["INFO", "commandstats"]) else { return 0 };
        let prefix = format!("cmdstat_{command}:calls=");
        let line = info.lines().find_map(|line| line.strip_prefix(&prefix));
        line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
    }

    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + READY_TIMEOUT;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            if self.commands(&[&["PING"]]).is_ok() {
                return true;
            }
            pause(Duration::from_millis(5));
        }
        false
    }
}

impl RedisReply {
    /// As text: lists with spaces between.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Error(text) => text.clone(),
            Self::Int(number) => number.to_string(),
            Self::Nil => String::new(),
            Self::List(replies) => replies.iter().map(Self::text).collect::<Vec<_>>().join(" "),
        }
    }

    /// The texts of a list, in order.
    pub fn texts(&self) -> Vec<String> {
        let Self::List(replies) = self else { return Vec::new() };
        let mut texts: Vec<String> = replies.iter().map(Self::text).collect();
        texts.sort();
        texts
    }

    /// The number that it is, or spells.
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

#[track_caller]
fn spawn(port: u16, args: &[String], dir: &TempDir) -> Child {
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(args)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match child {
        Ok(child) => child,
        Err(error) => panic!("redis-server cannot be run: {error}"),
    }
}

fn reply(reader: &mut impl BufRead) -> io::Result<RedisReply> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).unwrap_or((line, ""));
    let number = || rest.parse::<i64>().map_err(|_| io::Error::other(format!("not a number: {line}")));
    match kind {
        "+" => Ok(RedisReply::Text(rest.to_owned())),
        "-" => Ok(RedisReply::Error(rest.to_owned())),
        ":" => Ok(RedisReply::Int(number()?)),
        "$" => {
            let Ok(length) = usize::try_from(number()?) else { return Ok(RedisReply::Nil) };
            let mut bytes = vec![0; length + 2];
            reader.read_exact(&mut bytes)?;
            bytes.truncate(length);
            Ok(RedisReply::Text(String::from_utf8_lossy(&bytes).into_owned()))
        }
        "*" => {
            let length = number()?.max(0);
            (0..length).map(|_| reply(reader)).collect::<io::Result<_>>().map(RedisReply::List)
        }
        _ => Err(io::Error::other(format!("not a reply: {line}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read() {
        let bytes = b"*5\r\n+OK\r\n:7\r\n$-1\r\n$2\r\nab\r\n-ERR no\r\n";
        let read = reply(&mut &bytes[..]).unwrap();
        assert_eq!(read.text(), "OK 7  ab ERR no");
        assert_eq!(RedisReply::Text("12".to_owned()).number(), Some(12));
        assert!(reply(&mut &b"?\r\n"[..]).is_err());
        assert!(reply(&mut &b""[..]).is_err());
    }
}
