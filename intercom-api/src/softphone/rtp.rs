//! RTP + RTCP sockets of one stream of a device, and what it sends on them.

use sip_core::sdp::{Codec, Stream};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

/// Key frames are asked for at most so often.
const PLI_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Rtp {
    pub socket: UdpSocket,
    pub rtcp: UdpSocket,
    pub port: u16,
    pub stream: Option<Stream>,
    pub ssrc: u32,
    seq: u16,
    timestamp: u32,
    asked: Option<Instant>,
}

impl Rtp {
    /// An even port and the one above it.
    pub async fn bind(ip: IpAddr, random: u32) -> io::Result<Rtp> {
        loop {
            let socket = UdpSocket::bind((ip, 0)).await?;
            let port = socket.local_addr()?.port();
            if port % 2 == 1 {
                continue;
            }
            let Ok(rtcp) = UdpSocket::bind((ip, port + 1)).await else { continue };
            let (seq, timestamp) = (random as u16, random);
            return Ok(Rtp { socket, rtcp, port, stream: None, ssrc: random, seq, timestamp, asked: None });
        }
    }

    /// Another socket for RTP, which its SDP does not know.
    pub fn rebind(&mut self, ip: IpAddr) -> io::Result<()> {
        let socket = std::net::UdpSocket::bind((ip, 0))?;
        socket.set_nonblocking(true)?;
        self.socket = UdpSocket::from_std(socket)?;
        Ok(())
    }

    /// What we agreed to send.
    pub fn codec(&self) -> Option<Codec> {
        Some(self.stream.as_ref()?.main()?.codec)
    }

    /// One packet of the frame at hand.
    pub fn send(&mut self, payload: &[u8], marker: bool) {
        let Some(stream) = self.stream.as_ref().filter(|stream| stream.send) else { return };
        let (Some(remote), Some(format)) = (stream.remote, stream.main()) else { return };
        let mut packet = Vec::with_capacity(12 + payload.len());
        packet.extend_from_slice(&[0x80, format.pt | u8::from(marker) << 7]);
        packet.extend_from_slice(&self.seq.to_be_bytes());
        packet.extend_from_slice(&self.timestamp.to_be_bytes());
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        packet.extend_from_slice(payload);
        // A full socket loses a packet, as a network would.
        let _ = self.socket.try_send_to(&packet, remote);
        self.seq = self.seq.wrapping_add(1);
    }

    /// The next frame begins so many clock ticks later.
    pub fn advance(&mut self, ticks: u32) {
        self.timestamp = self.timestamp.wrapping_add(ticks);
    }

    /// Asks the sender for a key frame (PLI, RFC 4585 §6.3.1), after an empty receiver report (RFC 3550 §6.1).
    pub fn ask_key_frame(&mut self, now: Instant, media_ssrc: u32) {
        if self.asked.is_some_and(|at| now < at + PLI_EVERY) {
            return;
        }
        let Some(remote) = self.stream.as_ref().and_then(|stream| stream.remote_rtcp) else { return };
        self.asked = Some(now);
        let mut packet = vec![0x80, 201, 0, 1];
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        packet.extend_from_slice(&[0x81, 206, 0, 2]);
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        packet.extend_from_slice(&media_ssrc.to_be_bytes());
        let _ = self.rtcp.try_send_to(&packet, remote);
    }
}
