//! Open files from one process to another, over a Unix socket (SCM_RIGHTS, unix(7)).
//!
//! What is passed is the open socket itself and not a copy of it: both processes then hold the same queue of
//! connections. Calls here block, with the time-outs of the socket: a hand-over is rare and has a thread of its own.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Descriptors in one message; Linux allows 253 (SCM_MAX_FD).
const PER_MESSAGE: usize = 128;
/// The byte that each message of descriptors carries: a message without any byte would carry nothing.
const CARRIER: u8 = b'F';

/// Send all of `descriptors`, in order.
///
/// # Errors
/// The peer is gone or does not read in time.
pub fn send(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for chunk in descriptors.chunks(PER_MESSAGE) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PER_MESSAGE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(chunk)) {
            return Err(io::Error::other("a message has no room for its descriptors"));
        }
        retry(|| sendmsg(stream, &[IoSlice::new(&[CARRIER])], &mut control, SendFlags::NOSIGNAL))?;
    }
    Ok(())
}

/// Receive `count` descriptors as [`send`] sent them. They are closed when this process executes another program.
///
/// # Errors
/// The peer is gone, does not send in time or sends something else, or this process may not open as many files.
pub fn receive(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut received = Vec::new();
    while received.len() < count {
        let expected = (count - received.len()).min(PER_MESSAGE);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PER_MESSAGE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        // One byte at a time: messages of a stream are read together otherwise, and their descriptors are mixed up.
        let mut carrier = [0];
        let message =
            retry(|| recvmsg(stream, &mut [IoSliceMut::new(&mut carrier)], &mut control, RecvFlags::CMSG_CLOEXEC))?;
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = received.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                received.extend(descriptors);
            }
        }
        let got = received.len() - before;
        if carrier != [CARRIER] || got != expected {
            let hint = if got < expected { "; raise the limit of open files (ulimit -n, LimitNOFILE=)" } else { "" };
            return Err(io::Error::other(format!("{got} descriptors arrived where {expected} were sent{hint}")));
        }
    }
    Ok(received)
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn descriptors_arrive_in_order_and_work() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // More than one message.
        let pairs: Vec<_> = (0..PER_MESSAGE + 3).map(|_| UnixStream::pair().unwrap()).collect();
        let descriptors: Vec<_> = pairs.iter().map(|(_, far)| far.as_fd()).collect();
        send(&ours, &descriptors).unwrap();
        (&ours).write_all(b"!").unwrap();
        let received = receive(&theirs, pairs.len()).unwrap();
        for (index, (descriptor, (near, _))) in received.into_iter().zip(&pairs).enumerate() {
            let mut copy = UnixStream::from(descriptor);
            copy.write_all(&[index as u8]).unwrap();
            let mut byte = [0];
            (&*near).read_exact(&mut byte).unwrap();
            assert_eq!(byte, [index as u8]);
        }
        let mut rest = [0];
        (&theirs).read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"!", "what follows is untouched");
    }

    #[test]
    fn a_peer_that_sends_something_else_is_refused() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&ours).write_all(b"F").unwrap();
        assert!(receive(&theirs, 1).unwrap_err().to_string().contains("0 descriptors arrived where 1"));
        drop(ours);
        assert_eq!(receive(&theirs, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
