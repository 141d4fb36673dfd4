//! Many datagrams a system call: recvmmsg(2) with UDP GRO, sendmmsg(2) with UDP GSO (udp(7)). The only unsafe code here.
//!
//! All memory is taken when a box is made. What a call points the kernel at lives as long as that call.

#![allow(unsafe_code)] // see the module text

use crate::rtp::HEADER;
use rustix::fd::{AsRawFd, BorrowedFd};
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr::null_mut;

/// Messages one call reads.
pub const MESSAGES: usize = 16;
/// The longest message: what GRO has put together is no longer than the longest UDP datagram.
const MESSAGE: usize = 65_535;
/// From the beginning of one message's room to the next one's: not a power of two, which would give all of them the same
/// lines of the cache.
const STRIDE: usize = MESSAGE + 1 + 192;
/// Messages one call sends.
const SENDS: usize = 64;
/// Packets of one message (UDP_MAX_SEGMENTS of kernels before 6.9), and their bytes.
const SEGMENTS: usize = 64;
const SEGMENTED: usize = 65_000;

/// Room for one control message with an integer, aligned as the kernel wants it (cmsg(3)).
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 32]);

/// What one socket had for us.
pub struct Inbox {
    room: Vec<u8>,
    /// One per message, as `names`, `controls` and `headers`.
    _slices: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
    received: usize,
}

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox::new()
    }
}

impl Inbox {
    pub fn new() -> Inbox {
        let mut room = vec![0u8; STRIDE * MESSAGES];
        let base = |chunk: &mut [u8]| libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: MESSAGE };
        let mut slices: Vec<libc::iovec> = room.chunks_exact_mut(STRIDE).map(base).collect();
        // SAFETY: plain data of C, for which zero is a value.
        let mut names: Vec<libc::sockaddr_storage> = vec![unsafe { zeroed() }; MESSAGES];
        let mut controls = vec![Control([0; 32]); MESSAGES];
        let mut headers = Vec::with_capacity(MESSAGES);
        for at in 0..MESSAGES {
            // SAFETY: as above.
            let mut header: libc::mmsghdr = unsafe { zeroed() };
            header.msg_hdr.msg_name = (&raw mut names[at]).cast();
            header.msg_hdr.msg_iov = &raw mut slices[at];
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = (&raw mut controls[at]).cast();
            headers.push(header);
        }
        Inbox { room, _slices: slices, names, controls, headers, received: MESSAGES }
    }

    /// Reads what is there, at most [`MESSAGES`]; fewer mean that the socket is empty now.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        for header in &mut self.headers[..self.received] {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_controllen = size_of::<Control>() as _;
        }
        self.received = 0;
        // SAFETY: the headers point into vectors of this box, which are never resized, and it is borrowed mutably.
        let count = unsafe {
            let headers = self.headers.as_mut_ptr();
            libc::recvmmsg(socket.as_raw_fd(), headers, MESSAGES as u32, libc::MSG_DONTWAIT, null_mut())
        };
        self.received = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        Ok(self.received)
    }

    /// The sender of a received message, its bytes, and the length of each datagram in it (the last may be shorter).
    pub fn message(&self, at: usize) -> Option<(SocketAddr, &[u8], usize)> {
        let header = self.headers[..self.received].get(at)?;
        let bytes = &self.room[at * STRIDE..][..(header.msg_len as usize).min(MESSAGE)];
        let from = read_address(&self.names[at])?;
        let each = segment(&header.msg_hdr, &self.controls[at]).filter(|each| *each > 0).unwrap_or(bytes.len().max(1));
        Some((from, bytes, each))
    }
}

/// Asks for datagrams of one sender to come in one piece. Kernels before 5.0 give them one by one.
pub fn enable_gro(socket: BorrowedFd<'_>) {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that lives during the call.
    unsafe {
        let (value, length) = ((&raw const on).cast(), size_of::<libc::c_int>() as libc::socklen_t);
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, value, length);
    }
}

/// The length of the datagrams that GRO has put together.
fn segment(header: &libc::msghdr, control: &Control) -> Option<usize> {
    let data = size_of::<libc::cmsghdr>();
    if header.msg_controllen < data + size_of::<libc::c_int>() {
        return None;
    }
    // SAFETY: a control holds a header's bytes, and is aligned for one.
    let head = unsafe { &*(&raw const *control).cast::<libc::cmsghdr>() };
    let gro = head.cmsg_level == libc::SOL_UDP && head.cmsg_type == libc::UDP_GRO;
    let value = control.0.get(data..data + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    value.filter(|_| gro).and_then(|value| usize::try_from(value).ok())
}

/// What is to leave one socket.
pub struct Outbox {
    slices: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
    /// Some device on the way cannot segment: everything goes out singly from now on.
    single: bool,
}

/// A packet: to whom, a header of its own, and a rest that is somewhere else.
pub type Packet<'a> = (SocketAddr, &'a [u8; HEADER], &'a [u8]);

impl Default for Outbox {
    fn default() -> Outbox {
        Outbox::new()
    }
}

impl Outbox {
    pub fn new() -> Outbox {
        // SAFETY: plain data of C, for which zero is a value.
        let (name, header): (libc::sockaddr_storage, libc::mmsghdr) = unsafe { (zeroed(), zeroed()) };
        Outbox {
            slices: Vec::with_capacity(SENDS * SEGMENTS * 2),
            names: vec![name; SENDS],
            controls: vec![Control([0; 32]); SENDS],
            headers: vec![header; SENDS],
            single: false,
        }
    }

    /// One that never puts packets together.
    pub fn without_gso() -> Outbox {
        Outbox { single: true, ..Outbox::new() }
    }

    /// Sends packets in their order. Those that follow each other to one address with one length, the last may be shorter,
    /// leave as one message that the kernel, or the network card, cuts (UDP_SEGMENT). Returns how many were lost.
    pub fn send<'a>(&mut self, socket: BorrowedFd<'_>, packets: impl Iterator<Item = Packet<'a>>) -> u64 {
        let mut packets = packets.peekable();
        let mut lost = 0;
        while packets.peek().is_some() {
            self.slices.clear();
            let mut messages = 0;
            while messages < SENDS
                && let Some(first) = packets.next()
            {
                self.put(messages, first, &mut packets);
                messages += 1;
            }
            lost += self.write(socket, messages);
        }
        lost
    }

    /// One message: a packet, and those after it that may share it.
    fn put<'a>(&mut self, at: usize, first: Packet<'a>, rest: &mut std::iter::Peekable<impl Iterator<Item = Packet<'a>>>) {
        let begin = self.slices.len();
        let (to, each) = (first.0, HEADER + first.2.len());
        let (mut count, mut bytes, mut full) = (1, each, true);
        self.slices.extend([slice(first.1), slice(first.2)]);
        while full && count < SEGMENTS && !self.single {
            let fits = |next: &Packet<'_>| {
                let length = HEADER + next.2.len();
                next.0 == to && length <= each && bytes + length <= SEGMENTED
            };
            let Some(next) = rest.next_if(fits) else { break };
            full = HEADER + next.2.len() == each;
            bytes += HEADER + next.2.len();
            count += 1;
            self.slices.extend([slice(next.1), slice(next.2)]);
        }
        let header = &mut self.headers[at].msg_hdr;
        header.msg_name = (&raw mut self.names[at]).cast();
        header.msg_namelen = write_address(to, &mut self.names[at]);
        // Vectors of a fixed capacity: `slices` never moves, see `new`.
        header.msg_iov = self.slices[begin..].as_mut_ptr();
        header.msg_iovlen = (2 * count) as _;
        if count > 1 {
            header.msg_controllen = write_segment(each, &mut self.controls[at]) as _;
            header.msg_control = (&raw mut self.controls[at]).cast();
        } else {
            (header.msg_control, header.msg_controllen) = (null_mut(), 0);
        }
    }

    /// Writes the first messages; returns how many packets were lost.
    fn write(&mut self, socket: BorrowedFd<'_>, messages: usize) -> u64 {
        let packets = |headers: &[libc::mmsghdr]| headers.iter().map(|header| header.msg_hdr.msg_iovlen as u64 / 2).sum::<u64>();
        let (mut done, mut lost) = (0, 0);
        while done < messages {
            let headers = &mut self.headers[done..messages];
            // SAFETY: the headers were made by `put` in the same call of `send`, from slices that live until it ends.
            let count =
                unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), headers.len() as u32, libc::MSG_DONTWAIT) };
            if let Ok(count @ 1..) = usize::try_from(count) {
                done += count;
                continue;
            }
            match io::Error::last_os_error().raw_os_error().unwrap_or_default() {
                // An error that an earlier packet brought home (ICMP) is told once, and is not this one's.
                libc::EINTR | libc::ECONNREFUSED => continue,
                // The socket is full, and stays so for the rest.
                libc::EAGAIN => return lost + packets(headers),
                error @ (libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP) if headers[0].msg_hdr.msg_iovlen > 2 => {
                    // No checksums in that device (EIO), or longer than its packets: as if there was no segmentation.
                    self.single |= error == libc::EIO;
                    lost += singly(socket, &headers[0].msg_hdr);
                }
                _ => lost += packets(&headers[..1]),
            }
            done += 1;
        }
        lost
    }
}

/// Sends the packets of one message one by one; returns how many were lost.
fn singly(socket: BorrowedFd<'_>, message: &libc::msghdr) -> u64 {
    let mut lost = 0;
    for at in (0..message.msg_iovlen).step_by(2) {
        let mut one = *message;
        (one.msg_iovlen, one.msg_control, one.msg_controllen) = (2, null_mut(), 0);
        // SAFETY: the message is one that `put` has made, with two slices for every packet.
        let sent = unsafe {
            one.msg_iov = message.msg_iov.add(at);
            libc::sendmsg(socket.as_raw_fd(), &one, libc::MSG_DONTWAIT)
        };
        lost += u64::from(sent < 0);
    }
    lost
}

fn slice(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// The control message that says how long each packet is; returns its length.
fn write_segment(each: usize, control: &mut Control) -> usize {
    let data = size_of::<libc::cmsghdr>();
    // SAFETY: a control is large enough and aligned for the header; zero is a value of each of its fields.
    let head = unsafe { &mut *(&raw mut *control).cast::<libc::cmsghdr>() };
    head.cmsg_len = (data + size_of::<u16>()) as _;
    (head.cmsg_level, head.cmsg_type) = (libc::SOL_UDP, libc::UDP_SEGMENT);
    control.0[data..data + 2].copy_from_slice(&(each as u16).to_ne_bytes());
    // SAFETY: only counts.
    unsafe { libc::CMSG_SPACE(size_of::<u16>() as u32) as usize }
}

fn write_address(address: SocketAddr, name: &mut libc::sockaddr_storage) -> libc::socklen_t {
    match address {
        SocketAddr::V4(v4) => {
            // SAFETY: the storage is made for every kind of address.
            let name = unsafe { &mut *(&raw mut *name).cast::<libc::sockaddr_in>() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = v4.port().to_be();
            name.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            let name = unsafe { &mut *(&raw mut *name).cast::<libc::sockaddr_in6>() };
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = v6.port().to_be();
            name.sin6_flowinfo = v6.flowinfo();
            name.sin6_addr.s6_addr = v6.ip().octets();
            name.sin6_scope_id = v6.scope_id();
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// A sender as the rest of us knows it: IPv4 in IPv6 clothes is IPv4.
fn read_address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says what it is.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let port = u16::from_be(name.sin6_port);
            match Ipv6Addr::from(name.sin6_addr.s6_addr) {
                ip if ip.to_ipv4_mapped().is_some() => Some(SocketAddr::new(ip.to_canonical(), port)),
                ip => Some(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id).into()),
            }
        }
        _ => None,
    }
}

/// Counts what this crate's tests allocate, per thread.
#[cfg(test)]
pub mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local! {
        static COUNT: Cell<u64> = const { Cell::new(0) };
    }

    struct Counting;

    // SAFETY: the system's allocator does everything; a thread that ends is not counted any more.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let _ = COUNT.try_with(|count| count.set(count.get() + 1));
            // SAFETY: what was asked of us.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
            // SAFETY: as above.
            unsafe { System.dealloc(memory, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    /// Allocations of this thread so far.
    pub fn allocations() -> u64 {
        COUNT.with(Cell::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;
    use std::net::UdpSocket;

    fn pair() -> (UdpSocket, UdpSocket, SocketAddr) {
        let (from, to) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        to.set_nonblocking(true).unwrap();
        socket2::SockRef::from(&to).set_recv_buffer_size(1 << 20).unwrap();
        let address = to.local_addr().unwrap();
        (from, to, address)
    }

    /// Everything a socket has, cut where it was put together.
    fn all(inbox: &mut Inbox, socket: &UdpSocket) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        while let Ok(count) = inbox.receive(socket.as_fd()) {
            for at in 0..count {
                let (_, bytes, each) = inbox.message(at).unwrap();
                got.extend(bytes.chunks(each).map(<[u8]>::to_vec));
            }
        }
        got
    }

    #[test]
    fn packets_arrive_one_by_one_in_their_order_however_they_travel() {
        for gro in [false, true] {
            let (from, to, address) = pair();
            if gro {
                enable_gro(to.as_fd());
            }
            let other = UdpSocket::bind("127.0.0.1:0").unwrap();
            let payload: Vec<u8> = (0..1200u32).map(|n| n as u8).collect();
            // Runs of equal ones, a shorter one, a longer one, an empty one, one to somebody else.
            let lengths = [1188, 1188, 1188, 700, 700, 1100, 0, 1188, 1188];
            let heads: Vec<[u8; HEADER]> = (0..lengths.len() + 1).map(|n| [n as u8; HEADER]).collect();
            let mut packets: Vec<Packet<'_>> =
                lengths.iter().zip(&heads).map(|(length, head)| (address, head, &payload[..*length])).collect();
            packets.insert(2, (other.local_addr().unwrap(), &heads[lengths.len()], &payload[..1188]));
            assert_eq!(Outbox::new().send(from.as_fd(), packets.into_iter()), 0);
            let got = all(&mut Inbox::new(), &to);
            let want: Vec<Vec<u8>> =
                lengths.iter().zip(&heads).map(|(length, head)| [head, &payload[..*length]].concat()).collect();
            assert_eq!(got, want, "GRO {gro}");
            assert_eq!(other.recv(&mut [0; 2000]).unwrap(), 1200);
        }
    }

    #[test]
    fn more_than_one_call_can_hold() {
        let (from, to, address) = pair();
        enable_gro(to.as_fd());
        let payload = [7; 800];
        let heads: Vec<[u8; HEADER]> = (0..200).map(|n| [n; HEADER]).collect();
        let packets = heads.iter().enumerate().map(|(n, head)| (address, head, &payload[n % 3..]));
        assert_eq!(Outbox::new().send(from.as_fd(), packets), 0);
        let got = all(&mut Inbox::new(), &to);
        assert_eq!(got.iter().map(|bytes| bytes[0]).collect::<Vec<_>>(), (0..200).collect::<Vec<u8>>());
    }

    #[test]
    fn what_cannot_be_cut_goes_out_singly_and_what_cannot_go_is_lost_alone() {
        let (from, to, address) = pair();
        let payload = vec![7; 66_000];
        let head = [1; HEADER];
        // The one in the middle is longer than a datagram may be; nobody listens at the port of the first.
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let packets = [(closed, 100), (address, 100), (address, 66_000), (address, 100)];
        let lost = Outbox::new().send(from.as_fd(), packets.iter().map(|(to, length)| (*to, &head, &payload[..*length])));
        assert_eq!(lost, 1);
        assert_eq!(all(&mut Inbox::new(), &to).len(), 2);
        // Longer than a packet of the loopback may be with its neighbours, but not alone: the kernel fragments it.
        let long = |length| (address, &head, &payload[..length]);
        assert_eq!(Outbox::new().send(from.as_fd(), [long(30_000), long(30_000)].into_iter()), 0);
        assert_eq!(all(&mut Inbox::new(), &to).len(), 2);
    }

    #[test]
    fn addresses_of_both_families() {
        let inbox = &mut Inbox::new();
        let (six, four) = (UdpSocket::bind("[::]:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        six.set_nonblocking(true).unwrap();
        let port = six.local_addr().unwrap().port();
        four.send_to(b"four", ("127.0.0.1", port)).unwrap();
        assert_eq!(inbox.receive(six.as_fd()).unwrap(), 1);
        let (from, ..) = inbox.message(0).unwrap();
        assert_eq!(from, four.local_addr().unwrap());
        assert_eq!(Outbox::new().send(six.as_fd(), [(from, &[2; HEADER], &b"back"[..])].into_iter()), 0);
        assert_eq!(four.recv(&mut [0; 100]).unwrap(), HEADER + 4);
    }
}
