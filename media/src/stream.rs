//! One stream of one leg, both directions: whose packets are taken, and how what goes out is addressed and counted.

use crate::command::{Codec, StreamPlan, StreamReport};
use crate::drop::{Drop, Drops};
use crate::engine::{Channel, Out, Send, Tail};
use crate::latch::Latch;
use crate::rtp::{HEADER, Rtp};
use crate::sink::Sink;
use crate::tone::{PACKET, Ringback};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Between two packets of the ringback.
pub(crate) const TONE_PACKET: Duration = Duration::from_millis(20);

/// See the module text.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub plan: StreamPlan,
    pub latch: Latch,
    pub rtcp_from: Option<SocketAddr>,
    /// Last SSRC heard.
    pub heard: Option<u32>,
    pub sink: Sink,
    pub packets: (u64, u64),
    pub bytes: (u64, u64),
    pub drops: Drops,
}

impl Stream {
    pub fn new(now: Instant, plan: StreamPlan) -> Stream {
        let latch = Latch::new(now, plan.remote, plan.sip_source);
        Stream {
            plan,
            latch,
            rtcp_from: None,
            heard: None,
            sink: Sink::new(),
            packets: (0, 0),
            bytes: (0, 0),
            drops: Drops::default(),
        }
    }

    pub fn codec(&self, pt: u8) -> Option<Codec> {
        self.plan.payloads.iter().find(|payload| payload.pt == pt).map(|payload| payload.codec)
    }

    /// One packet of this stream's peer, checked (D-17).
    pub fn take(&mut self, now: Instant, from: SocketAddr, packet: &Rtp<'_>, length: usize) -> Result<Codec, Drop> {
        self.latch.accept(now, from, packet.ssrc())?;
        self.heard = Some(packet.ssrc());
        self.packets.0 += 1;
        self.bytes.0 += length as u64;
        if !self.plan.receive {
            return Err(Drop::NotReceiving);
        }
        self.codec(packet.payload_type()).ok_or(Drop::PayloadType)
    }

    /// Sends a packet of another leg to this stream's peer.
    pub fn put(&mut self, now: Instant, packet: &Rtp<'_>, length: usize, codec: Codec, out: &mut Out) -> Result<(), Drop> {
        if !self.plan.send {
            return Err(Drop::NotSending);
        }
        let pt = self.plan.payloads.iter().find(|payload| payload.codec == codec).ok_or(Drop::NoCodec)?.pt;
        let to = self.latch.remote().ok_or(Drop::NoAddress)?;
        let (seq, ts) = self.sink.number(now, &self.plan, packet, codec.clock_rate());
        let head = packet.rewritten(pt, seq, ts, self.plan.ssrc);
        out.sends.push(Send { pair: self.plan.pair, channel: Channel::Rtp, to, head, tail: Tail::Input });
        self.packets.1 += 1;
        self.bytes.1 += length as u64;
        Ok(())
    }

    /// One packet of our own making, numbered like everything else this sink sends. `false`: nothing was sent.
    pub fn tone(&mut self, now: Instant, tone: &Ringback, index: usize, first: bool, out: &mut Out) -> bool {
        let packet = self.plan.payloads.iter().find_map(|payload| Some((payload.pt, tone.packet(payload.codec, index)?)));
        let (Some((pt, samples)), Some(to), true) = (packet, self.latch.remote(), self.plan.send) else { return false };
        let (seq, ts) = match self.sink.last {
            Some((seq, ts, at)) => {
                let passed = now.saturating_duration_since(at).as_millis() / TONE_PACKET.as_millis();
                (seq.wrapping_add(1), ts.wrapping_add(PACKET as u32 * (passed as u32).max(1)))
            }
            None => (self.plan.first_seq, self.plan.first_timestamp),
        };
        self.sink.last = Some((seq, ts, now));
        self.sink.feed = None;
        let mut head = [0x80, pt | u8::from(first) << 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        head[2..4].copy_from_slice(&seq.to_be_bytes());
        head[4..8].copy_from_slice(&ts.to_be_bytes());
        head[8..12].copy_from_slice(&self.plan.ssrc.to_be_bytes());
        out.sends.push(Send { pair: self.plan.pair, channel: Channel::Rtp, to, head, tail: Tail::Owned(samples) });
        self.packets.1 += 1;
        self.bytes.1 += (HEADER + PACKET) as u64;
        true
    }

    /// RTCP may come from where the media comes from, and from the port its SDP names (a device on loopback may have
    /// several addresses, see [`Latch`]).
    pub fn knows(&self, from: SocketAddr) -> bool {
        let named = self.plan.remote_rtcp.is_some_and(|rtcp| rtcp.port() == from.port());
        self.latch.knows(from) || (named && from.ip().is_loopback() && self.plan.sip_source.is_loopback())
    }

    /// Where this peer takes RTCP: where it sent some from, else what its SDP says, moved to the host it really is at.
    pub fn rtcp_remote(&self) -> Option<SocketAddr> {
        self.rtcp_from.or_else(|| {
            let sdp = self.plan.remote_rtcp?;
            match self.latch.remote() {
                Some(real) if real.ip() != sdp.ip() && Some(real) != self.plan.remote => Some(SocketAddr::new(
                    real.ip(),
                    if self.plan.remote.is_some_and(|r| r.port() == real.port()) {
                        sdp.port()
                    } else {
                        real.port().saturating_add(1)
                    },
                )),
                _ => Some(sdp),
            }
        })
    }

    pub fn report(&self) -> StreamReport {
        StreamReport {
            packets_in: self.packets.0,
            bytes_in: self.bytes.0,
            packets_out: self.packets.1,
            bytes_out: self.bytes.1,
            sends_to: self.latch.remote(),
            drops: self.drops.list(),
        }
    }
}
