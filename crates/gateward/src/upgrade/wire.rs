//! What two processes say to each other during a hand-over: length-prefixed JSON, with a version.
//!
//! The two are different builds by nature, so unknown fields are ignored and unknown roles of sockets are left with
//! the old process. A change that this does not cover gets a new number in [`PROTOCOL`], and is then refused in words.
//!
//! ```text
//! new  -> Hello      who I am, which protocols I speak
//! old  -> Answer     my sockets, followed by the descriptors in that order; or why not
//! new  -> Ready      I accept on these of them
//! old  -> Draining   go on alone
//! ```

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::net::SocketAddr;

/// The version of what is described here.
pub(crate) const PROTOCOL: u32 = 1;
/// Longest message: 64 addresses of each kind on 1024 workers fit.
const MESSAGE_BYTES: usize = 32 << 20;

/// The first word of the new process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Versions it speaks.
    pub(crate) protocols: Vec<u32>,
    /// The program's version, for the log.
    pub(crate) version: String,
    /// Its process id, as it sees it.
    pub(crate) pid: u32,
    /// Whether it has a configuration to serve.
    pub(crate) configured: bool,
}

/// What the running process says to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The descriptors of these follow.
    Sockets {
        /// The version spoken from here on.
        protocol: u32,
        /// The program's version, for the log.
        version: String,
        /// Its process id, as it sees it.
        pid: u32,
        /// In the order of the descriptors.
        sockets: Vec<SocketLine>,
    },
    /// There will be none.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SocketLine {
    /// What it is for: the flag that asked for it.
    pub(crate) role: String,
    /// The address of the setting; its port may be 0.
    pub(crate) asked: SocketAddr,
    /// The address it is bound to.
    pub(crate) bound: SocketAddr,
    /// It is for datagrams.
    #[serde(default)]
    pub(crate) datagram: bool,
}

/// The new process serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Addresses it accepts on, of those it was given.
    pub(crate) taken: Vec<SocketAddr>,
}

/// The running process knows, and drains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Draining {
    /// Always true.
    pub(crate) draining: bool,
}

/// Write a message.
///
/// # Errors
/// The peer is gone or does not read in time.
pub(crate) fn write(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&text);
    stream.write_all(&bytes)
}

/// Read a message.
///
/// # Errors
/// The peer is gone, does not write in time, or writes something else.
pub(crate) fn read<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is not the language of a gateward process"));
    }
    let mut text = Vec::new();
    // Memory grows with what has come, not with what was announced.
    stream.take(length as u64).read_to_end(&mut text)?;
    if text.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&text).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("a message that cannot be understood: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello { protocols: vec![PROTOCOL], version: "0.1.0".to_owned(), pid: 7, configured: true }
    }

    #[test]
    fn messages_come_back() {
        let mut bytes = Vec::new();
        write(&mut bytes, &hello()).unwrap();
        write(&mut bytes, &Draining { draining: true }).unwrap();
        let mut rest = bytes.as_slice();
        assert_eq!(read::<Hello>(&mut rest).unwrap(), hello());
        assert!(read::<Draining>(&mut rest).unwrap().draining);
        assert_eq!(read::<Draining>(&mut rest).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn fields_of_later_versions_are_ignored() {
        let text = r#"{"protocols":[1,9],"version":"9","pid":1,"configured":false,"later":{"x":1}}"#;
        let bytes = [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
        assert_eq!(read::<Hello>(&mut bytes.as_slice()).unwrap().protocols, [1, 9]);
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |bytes: &[u8], expected: &str| {
            let error = read::<Hello>(&mut &*bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(b"GET / HTTP/1.1\r\n\r\n", "not the language");
        check(b"\0\0\0\x02{}", "cannot be understood");
        check(b"\0\0\0\x09{}", "end of file");
        check(b"", "fill whole buffer");
    }
}
