//! SIP over UDP (RFC 3261 §18): batches in and out, the local address of every datagram known, so that a server bound to
//! `0.0.0.0` answers from the address it was asked at and writes that one into Via and Contact.

#![allow(clippy::disallowed_methods)] // a shell: owns sockets and their tasks

use bytes::Bytes;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use sip_core::flow::{Flow, Transport};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Datagrams read per system call, and in one turn of the SIP thread.
const BATCH: usize = 32;
/// Largest datagram (spec OPEN-02: fragments up to 64 KiB).
const DATAGRAM: usize = 65_535;
/// Kernel buffer: a power cut makes thousands of phones register within a second.
const RECEIVE_BUFFER: usize = 4 << 20;

/// One listening socket.
pub struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// Datagrams that could not be sent.
    pub lost: u64,
}

/// Room for one batch of datagrams, used again and again.
pub struct Batch {
    bytes: Vec<u8>,
    metas: [RecvMeta; BATCH],
}

impl Default for Batch {
    fn default() -> Batch {
        Batch { bytes: vec![0; BATCH * DATAGRAM], metas: [RecvMeta::default(); BATCH] }
    }
}

/// A bound socket that belongs to no runtime yet.
pub struct Bound {
    socket: std::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl Bound {
    /// The error names the address.
    pub fn bind(address: SocketAddr) -> io::Result<Bound> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("sip.udp {address}: {error}"));
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None).map_err(named)?;
        socket.set_nonblocking(true).map_err(named)?;
        // Best effort: the kernel caps it at rmem_max.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        socket.bind(&address.into()).map_err(named)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).map_err(named)?;
        let socket = std::net::UdpSocket::from(socket);
        let local = socket.local_addr().map_err(named)?;
        Ok(Bound { socket, state, local })
    }

    /// As bound.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Joins the runtime of this thread.
    pub fn open(self) -> io::Result<Udp> {
        Ok(Udp { socket: UdpSocket::from_std(self.socket)?, state: self.state, local: self.local, lost: 0 })
    }
}

impl Udp {
    /// Is this the socket of a flow with that local address?
    pub fn owns(&self, local: SocketAddr) -> bool {
        self.local == local || (self.local.ip().is_unspecified() && self.local.port() == local.port())
    }

    /// Sends at once or loses the datagram: UDP may, and SIP repeats.
    pub fn send(&mut self, flow: &Flow, bytes: &[u8]) {
        let src_ip = self.local.ip().is_unspecified().then(|| flow.local.ip());
        let transmit = Transmit { destination: flow.remote, ecn: None, contents: bytes, segment_size: None, src_ip };
        let sent = self.socket.try_io(Interest::WRITABLE, || self.state.try_send(UdpSockRef::from(&self.socket), &transmit));
        if sent.is_err() {
            self.lost += 1;
        }
    }

    /// Is there something to read? Wakes the task when there is.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> bool {
        matches!(self.socket.poll_recv_ready(context), Poll::Ready(Ok(())))
    }

    /// Takes one batch of datagrams, if any wait.
    pub fn read(&self, batch: &mut Batch, mut take: impl FnMut(Flow, Bytes)) {
        let Batch { bytes, metas } = batch;
        let mut chunks = bytes.chunks_mut(DATAGRAM);
        let mut slices: [IoSliceMut<'_>; BATCH] = std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let received =
            self.socket.try_io(Interest::READABLE, || self.state.recv(UdpSockRef::from(&self.socket), &mut slices, metas));
        // An ICMP error of an earlier send comes up here; it is nobody's datagram.
        let Ok(count) = received else { return };
        for (meta, slice) in metas[..count].iter().zip(&slices) {
            let local = match meta.dst_ip {
                Some(ip) if self.local.ip().is_unspecified() => SocketAddr::new(ip, self.local.port()),
                _ => self.local,
            };
            let flow = Flow { transport: Transport::Udp, local, remote: meta.addr };
            for datagram in slice[..meta.len].chunks(meta.stride.max(1)) {
                take(flow, Bytes::copy_from_slice(datagram));
            }
        }
    }
}
