//! A load balancer of connections reduced to what matters for PROXY headers: every connection is passed on, with given
//! bytes in front.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// How the bytes go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pieces {
    /// As they come.
    Whole,
    /// The header, and the client's first bytes, one by one.
    Bytes,
}

/// A running balancer; ends when dropped, its connections when their ends do.
#[derive(Debug)]
pub struct Fronted {
    addr: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fronted {
    /// Starts passing connections on to `target`, each with `header` in front.
    ///
    /// # Panics
    /// When the system has no ports left.
    #[track_caller]
    pub fn start(target: SocketAddr, header: impl Into<Vec<u8>>, pieces: Pieces) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let stopping = Arc::new(AtomicBool::new(false));
        let (seen, header) = (stopping.clone(), Arc::<[u8]>::from(header.into()));
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if seen.load(Ordering::Relaxed) {
                    return;
                }
                let header = header.clone();
                if let Ok(client) = client {
                    // An end that breaks off ends the other; there is nobody to tell.
                    std::thread::spawn(move || drop(pass(&client, target, &header, pieces)));
                }
            }
        });
        Self { addr, stopping, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Fronted {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.addr));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pass(client: &TcpStream, target: SocketAddr, header: &[u8], pieces: Pieces) -> std::io::Result<()> {
    let gateway = TcpStream::connect(target)?;
    gateway.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let (from, to) = (gateway.try_clone()?, client.try_clone()?);
    let back = std::thread::spawn(move || copy(&from, &to));
    if pieces == Pieces::Bytes {
        let mut first = [0; 1024];
        let count = (&mut &*client).read(&mut first)?;
        for byte in header.iter().chain(&first[..count]) {
            (&mut &gateway).write_all(&[*byte])?;
        }
    } else {
        (&mut &gateway).write_all(header)?;
    }
    copy(client, &gateway);
    let _ = back.join();
    Ok(())
}

/// Copies until either end is done, and tells the receiver.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
