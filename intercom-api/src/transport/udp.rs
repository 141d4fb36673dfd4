//! SIP over UDP (RFC 3261 §18): batches in and out, the local address of every datagram known, so that a server bound to
//! `0.0.0.0` answers from the address it was asked at and writes that one into Via and Contact.

#![allow(clippy::disallowed_methods)] // a shell: owns sockets and their tasks

use super::Incoming;
use bytes::Bytes;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use sip_core::flow::{Flow, Transport};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// Datagrams read per system call.
const BATCH: usize = 16;
/// Largest datagram (spec OPEN-02: fragments up to 64 KiB).
const DATAGRAM: usize = 65_535;
/// Kernel buffer: a power cut makes thousands of phones register within a second.
const RECEIVE_BUFFER: usize = 4 << 20;

/// One listening socket; cheap to clone.
#[derive(Clone)]
pub struct Udp {
    socket: Arc<UdpSocket>,
    state: Arc<UdpSocketState>,
    local: SocketAddr,
    /// Datagrams that could not be sent or taken in.
    pub lost: Arc<AtomicU64>,
}

impl Udp {
    /// Binds; needs a tokio runtime. The error names the address.
    pub fn bind(address: SocketAddr) -> io::Result<Udp> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("sip.udp {address}: {error}"));
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None).map_err(named)?;
        socket.set_nonblocking(true).map_err(named)?;
        // Best effort: the kernel caps it at rmem_max.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        socket.bind(&address.into()).map_err(named)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).map_err(named)?;
        let socket = UdpSocket::from_std(socket.into()).map_err(named)?;
        let local = socket.local_addr().map_err(named)?;
        Ok(Udp { socket: Arc::new(socket), state: Arc::new(state), local, lost: Arc::default() })
    }

    /// As bound.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Is this the socket of a flow with that local address?
    pub fn owns(&self, local: SocketAddr) -> bool {
        self.local == local || (self.local.ip().is_unspecified() && self.local.port() == local.port())
    }

    /// Sends at once or loses the datagram: UDP may, and SIP repeats.
    pub fn send(&self, flow: &Flow, bytes: &[u8]) {
        let src_ip = self.local.ip().is_unspecified().then(|| flow.local.ip());
        let transmit = Transmit { destination: flow.remote, ecn: None, contents: bytes, segment_size: None, src_ip };
        let sent = self.socket.try_io(Interest::WRITABLE, || self.state.try_send(UdpSockRef::from(&*self.socket), &transmit));
        if sent.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads until the receiver is gone. A full queue loses datagrams, as a full socket would.
    pub async fn read(self, queue: mpsc::Sender<Incoming>) {
        let mut buffer = vec![0u8; BATCH * DATAGRAM];
        let mut metas = [RecvMeta::default(); BATCH];
        while !queue.is_closed() {
            if self.socket.readable().await.is_err() {
                return;
            }
            let mut slices: [IoSliceMut<'_>; BATCH] = {
                let mut chunks = buffer.chunks_mut(DATAGRAM);
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()))
            };
            let received = self
                .socket
                .try_io(Interest::READABLE, || self.state.recv(UdpSockRef::from(&*self.socket), &mut slices, &mut metas));
            // An ICMP error of an earlier send comes up here; it is nobody's datagram.
            let Ok(count) = received else { continue };
            for (meta, slice) in metas[..count].iter().zip(&slices) {
                let local = match meta.dst_ip {
                    Some(ip) if self.local.ip().is_unspecified() => SocketAddr::new(ip, self.local.port()),
                    _ => self.local,
                };
                let flow = Flow { transport: Transport::Udp, local, remote: meta.addr };
                for datagram in slice[..meta.len].chunks(meta.stride.max(1)) {
                    if queue.try_send(Incoming::Message(flow, Bytes::copy_from_slice(datagram))).is_err() {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }
}
