//! Datagrams by the batch: one system call receives up to [`BATCH`] queries, one sends their answers.
//!
//! One of the crate's two places with `unsafe` code (`slice` is the other). A system call per datagram would cost more than making the answer; neither the
//! standard library nor the safe wrappers the workspace uses can receive in batches into memory that is kept, with the
//! local address that each datagram was sent to.
#![allow(unsafe_code, reason = "recvmmsg and sendmmsg take arrays of pointers")]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

/// Most datagrams per system call.
pub(crate) const BATCH: usize = 64;
/// Longest datagram taken; updates over UDP are the longest that come.
pub(crate) const LONGEST_QUERY: usize = 4096;
/// Room for an answer over UDP.
pub(crate) const LONGEST_ANSWER: usize = 4096;
/// Room for one address of either family in a control message.
const CONTROL: usize = 64;

/// Memory for one batch in each direction.
///
/// The headers hold pointers into the boxed arrays beside them. The boxes are never replaced, resized or handed out whole, so
/// the pointers stay good for as long as the batch lives.
pub(crate) struct Batch {
    incoming: Box<[libc::mmsghdr]>,
    outgoing: Box<[libc::mmsghdr]>,
    addresses: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    queries: Box<[[u8; LONGEST_QUERY]]>,
    answers: Box<[[u8; LONGEST_ANSWER]]>,
    into: Box<[libc::iovec]>,
    from: Box<[libc::iovec]>,
    /// Whether the addresses that datagrams were sent to are told.
    with_local: bool,
    /// How many headers of `incoming` the kernel wrote to the last time.
    used: usize,
    /// How many of `outgoing` hold an answer to send.
    replies: usize,
}

/// Control messages must be aligned as their header is.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

// SAFETY: the pointers lead into boxes that the batch owns; nothing else keeps them.
unsafe impl Send for Batch {}

impl Batch {
    /// `with_local` asks for the addresses that datagrams are sent to.
    pub(crate) fn new(with_local: bool) -> Self {
        // SAFETY: all of these are plain C structures for which zeros are a valid value.
        let (header, address, part) =
            unsafe { (zeroed::<libc::mmsghdr>(), zeroed::<libc::sockaddr_storage>(), zeroed::<libc::iovec>()) };
        let mut batch = Batch {
            incoming: vec![header; BATCH].into(),
            outgoing: vec![header; BATCH].into(),
            addresses: vec![address; BATCH].into(),
            controls: vec![Control([0; CONTROL]); BATCH].into(),
            queries: vec![[0; LONGEST_QUERY]; BATCH].into(),
            answers: vec![[0; LONGEST_ANSWER]; BATCH].into(),
            into: vec![part; BATCH].into(),
            from: vec![part; BATCH].into(),
            with_local,
            used: BATCH,
            replies: 0,
        };
        for index in 0..BATCH {
            batch.into[index] =
                libc::iovec { iov_base: batch.queries[index].as_mut_ptr().cast(), iov_len: LONGEST_QUERY };
            let message = &mut batch.incoming[index].msg_hdr;
            message.msg_name = (&raw mut batch.addresses[index]).cast();
            message.msg_iov = &raw mut batch.into[index];
            message.msg_iovlen = 1;
            message.msg_control = batch.controls[index].0.as_mut_ptr().cast();
        }
        batch
    }

    /// Waits for a datagram and takes what else has come; how many there are.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        for header in &mut self.incoming[..self.used] {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_controllen = if self.with_local { CONTROL } else { 0 };
            header.msg_hdr.msg_flags = 0;
        }
        self.replies = 0;
        // SAFETY: the headers point at memory of the lengths they say, which the batch owns and nothing borrows now.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.incoming.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(count).map_err(|_| io::Error::last_os_error());
        // One that failed may have got as far as its header.
        self.used = *received.as_ref().unwrap_or(&1);
        received
    }

    /// A query, where its answer may be written, and who asks; `None` for a datagram that was longer than what is taken, or from no address.
    pub(crate) fn exchange(&mut self, index: usize) -> Option<(&[u8], &mut [u8], SocketAddr)> {
        let header = &self.incoming[index];
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let from = address(&self.addresses[index])?;
        let len = (header.msg_len as usize).min(LONGEST_QUERY);
        Some((&self.queries[index][..len], &mut self.answers[index], from))
    }

    /// The answer to a query has so many octets and is to be sent.
    pub(crate) fn reply(&mut self, index: usize, len: usize) {
        let reply = self.replies;
        self.replies += 1;
        self.from[reply] =
            libc::iovec { iov_base: self.answers[index].as_mut_ptr().cast(), iov_len: len.min(LONGEST_ANSWER) };
        let question = &self.incoming[index].msg_hdr;
        let control = question.msg_controllen;
        let mut message = *question;
        message.msg_iov = &raw mut self.from[reply];
        message.msg_flags = 0;
        if control > 0 {
            forget_interface(&message);
        } else {
            message.msg_control = std::ptr::null_mut();
        }
        self.outgoing[reply].msg_hdr = message;
    }

    /// Where an answer goes that is not ready with its batch.
    pub(crate) fn way_back(&mut self, index: usize) -> WayBack {
        let question = &self.incoming[index].msg_hdr;
        if question.msg_controllen > 0 {
            forget_interface(question);
        }
        WayBack {
            client: self.addresses[index],
            client_len: question.msg_namelen,
            control: self.controls[index],
            control_len: question.msg_controllen,
        }
    }

    /// Sends the answers; how many the kernel did not take.
    pub(crate) fn send(&mut self, socket: &UdpSocket) -> usize {
        let (mut sent, mut lost) = (0, 0);
        while sent < self.replies {
            let rest = &mut self.outgoing[sent..self.replies];
            // SAFETY: the headers point at answers, addresses and control messages that the batch owns.
            let count = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, 0) };
            match usize::try_from(count) {
                Ok(count) if count > 0 => sent += count,
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                // The first of the rest cannot be sent (an unreachable address, a full queue): the others may.
                _ => {
                    sent += 1;
                    lost += 1;
                }
            }
        }
        lost
    }
}

/// The way of a late answer: to who asked, from the address that was asked.
pub(crate) struct WayBack {
    client: libc::sockaddr_storage,
    client_len: libc::socklen_t,
    control: Control,
    control_len: usize,
}

impl WayBack {
    /// Sends an answer if the kernel takes it at once.
    pub(crate) fn send(&self, socket: &UdpSocket, answer: &[u8]) -> io::Result<()> {
        let mut part = libc::iovec { iov_base: answer.as_ptr().cast_mut().cast(), iov_len: answer.len() };
        // SAFETY: zeros are a valid value of this plain C structure.
        let mut message = unsafe { zeroed::<libc::msghdr>() };
        message.msg_name = (&raw const self.client).cast_mut().cast();
        message.msg_namelen = self.client_len;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if self.control_len > 0 {
            message.msg_control = self.control.0.as_ptr().cast_mut().cast();
            message.msg_controllen = self.control_len;
        }
        // SAFETY: all that the header points at lives through the call, which reads it and writes nothing.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// The address an answer is sent from is the one its query was sent to, but the way back is the kernel's choice.
fn forget_interface(message: &libc::msghdr) {
    // SAFETY: the kernel wrote the control message; CMSG_FIRSTHDR gives null or a header within the length it set.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        if header.is_null() {
            return;
        }
        match ((*header).cmsg_level, (*header).cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                (*libc::CMSG_DATA(header).cast::<libc::in_pktinfo>()).ipi_ifindex = 0;
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let info = libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>();
                // Link-local addresses mean nothing without their interface.
                let address = (*info).ipi6_addr.s6_addr;
                if address[..2] != [0xfe, 0x80] {
                    (*info).ipi6_ifindex = 0;
                }
            }
            _ => {}
        }
    }
}

fn address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure the kernel wrote; the storage is large and aligned enough for each.
            let address = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            Some(SocketAddrV4::new(u32::from_be(address.sin_addr.s_addr).into(), u16::from_be(address.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            Some(
                SocketAddrV6::new(
                    address.sin6_addr.s6_addr.into(),
                    u16::from_be(address.sin6_port),
                    0,
                    address.sin6_scope_id,
                )
                .into(),
            )
        }
        _ => None,
    }
}

/// Prepares a socket: the local address of datagrams is told (where it is bound to all of them), and no datagram is refused or
/// split for a path MTU that somebody claimed (spoofed "fragmentation needed" is a way to poison caches).
pub(crate) fn prepare(socket: &UdpSocket, address: SocketAddr) -> io::Result<()> {
    let (with_local, v6) = (address.ip().is_unspecified(), address.is_ipv6());
    let set = |level, name, value: libc::c_int| {
        // SAFETY: the value is an int, as these options take, and lives through the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    if v6 {
        set(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_OMIT)?;
    } else {
        set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)?;
    }
    match (with_local, v6) {
        (false, _) => Ok(()),
        (true, false) => set(libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        (true, true) => set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
    }
}
