//! Telling the service manager (systemd, `Type=notify`) what this process does; see sd_notify(3).
//!
//! One datagram to the socket that `NOTIFY_SOCKET` names. Without that variable, and whatever goes wrong, nothing
//! happens: no request depends on it.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Serving, as the process that the manager is to look after: after an upgrade it is not the one it started.
pub(crate) fn ready() {
    send(&format!("READY=1\nMAINPID={}", std::process::id()));
}

/// Stopping because somebody asked.
pub(crate) fn stopping() {
    send("STOPPING=1");
}

/// Another process has taken over. Only the word of the main process is heard where `NotifyAccess=main`; 0: not known.
pub(crate) fn main_process(pid: u32) {
    if pid != 0 {
        send(&format!("MAINPID={pid}"));
    }
}

fn send(message: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = deliver(&name, message) {
        tracing::warn!(socket = %name.display(), %error, "the service manager could not be told");
    }
}

/// `@name` is a socket of the abstract name space.
fn deliver(name: &OsStr, message: &str) -> std::io::Result<()> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold up serving.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 100];
        let count = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[test]
    fn both_kinds_of_names_are_reached() {
        let name = format!("gateward-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        deliver(OsStr::new(&format!("@{name}")), "READY=1").unwrap();
        assert_eq!(received(&manager), "READY=1");
        let path = std::env::temp_dir().join(name);
        let manager = UnixDatagram::bind(&path).unwrap();
        deliver(path.as_os_str(), "STOPPING=1").unwrap();
        assert_eq!(received(&manager), "STOPPING=1");
        std::fs::remove_file(&path).unwrap();
        assert!(deliver(path.as_os_str(), "READY=1").is_err());
    }
}
