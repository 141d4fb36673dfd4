//! One session: an anchor, its receivers, and whose audio goes back (ARCHITECTURE §4, RTP packet).

use crate::command::{Codec, Event, Kind, LegId, LegPlan, LegReport, SessionId, StreamPlan, StreamReport};
use crate::drop::{Drop, Drops};
use crate::engine::{Channel, Out, Send, Tail};
use crate::h264;
use crate::latch::Latch;
use crate::rtcp;
use crate::rtp::{self, HEADER, Rtp};
use crate::tone::{PACKET, Ringback};
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Longest between two requests for a key frame while somebody waits for one.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Between two packets of the ringback.
const TONE_PACKET: Duration = Duration::from_millis(20);

/// What one stream of one leg sends: its own source, numbered without gaps whoever feeds it.
#[derive(Clone, Debug)]
struct Sink {
    /// The source it is fed from, and what turns its numbers into ours.
    feed: Option<(u32, u16, u32)>,
    /// Last packet sent: sequence number, timestamp, when.
    last: Option<(u16, u32, Instant)>,
    /// Video: a key frame has begun.
    started: bool,
    told: bool,
}

impl Sink {
    fn new() -> Sink {
        Sink { feed: None, last: None, started: false, told: false }
    }

    /// Our numbers for a packet of the feed. A new feed goes on where the last one ended, its timestamps by the time that
    /// has passed, so the receiver's buffer sees one stream.
    fn number(&mut self, now: Instant, plan: &StreamPlan, packet: &Rtp<'_>, clock: u32) -> (u16, u32) {
        let (ssrc, seq, ts) = (packet.ssrc(), packet.sequence(), packet.timestamp());
        let (seq_offset, ts_offset) = match self.feed {
            Some((fed, seq_offset, ts_offset)) if fed == ssrc => (seq_offset, ts_offset),
            _ => {
                let (next_seq, next_ts) = match self.last {
                    Some((last_seq, last_ts, at)) => {
                        let passed = now.saturating_duration_since(at).as_micros() * u128::from(clock) / 1_000_000;
                        (last_seq.wrapping_add(1), last_ts.wrapping_add((passed as u32).max(1)))
                    }
                    None => (plan.first_seq, plan.first_timestamp),
                };
                let offsets = (next_seq.wrapping_sub(seq), next_ts.wrapping_sub(ts));
                self.feed = Some((ssrc, offsets.0, offsets.1));
                offsets
            }
        };
        let (out_seq, out_ts) = (seq.wrapping_add(seq_offset), ts.wrapping_add(ts_offset));
        if self.last.is_none_or(|(last, ..)| rtp::later(out_seq, last)) {
            self.last = Some((out_seq, out_ts, now));
        }
        (out_seq, out_ts)
    }
}

/// One stream of one leg, both directions.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    plan: StreamPlan,
    latch: Latch,
    rtcp_from: Option<SocketAddr>,
    /// Last SSRC heard.
    heard: Option<u32>,
    sink: Sink,
    packets: (u64, u64),
    bytes: (u64, u64),
    drops: Drops,
}

impl Stream {
    fn new(now: Instant, plan: StreamPlan) -> Stream {
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

    fn codec(&self, pt: u8) -> Option<Codec> {
        self.plan.payloads.iter().find(|payload| payload.pt == pt).map(|payload| payload.codec)
    }

    /// One packet of this stream's peer, checked (D-17).
    fn take(&mut self, now: Instant, from: SocketAddr, packet: &Rtp<'_>, length: usize) -> Result<Codec, Drop> {
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
    fn put(&mut self, now: Instant, packet: &Rtp<'_>, length: usize, codec: Codec, out: &mut Out) -> Result<(), Drop> {
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
    fn tone(&mut self, now: Instant, tone: &Ringback, index: usize, first: bool, out: &mut Out) -> bool {
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
    fn knows(&self, from: SocketAddr) -> bool {
        let named = self.plan.remote_rtcp.is_some_and(|rtcp| rtcp.port() == from.port());
        self.latch.knows(from) || (named && from.ip().is_loopback() && self.plan.sip_source.is_loopback())
    }

    /// Where this peer takes RTCP: where it sent some from, else what its SDP says, moved to the host it really is at.
    fn rtcp_remote(&self) -> Option<SocketAddr> {
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

    fn report(&self) -> StreamReport {
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

/// One leg.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    pub id: LegId,
    audio: Option<Stream>,
    video: Option<Stream>,
}

impl Leg {
    fn new(now: Instant, plan: LegPlan) -> Leg {
        let stream = |plan: Option<StreamPlan>| plan.map(|plan| Stream::new(now, plan));
        Leg { id: plan.leg, audio: stream(plan.audio), video: stream(plan.video) }
    }

    fn replan(&mut self, now: Instant, plan: LegPlan) {
        for (stream, plan) in [(&mut self.audio, plan.audio), (&mut self.video, plan.video)] {
            match (stream.as_mut(), plan) {
                (Some(stream), Some(plan)) if stream.plan.pair == plan.pair => {
                    stream.latch.renegotiate(now, plan.remote);
                    // Sending begins (again) at a key frame.
                    stream.sink.started &= stream.plan.send && plan.send;
                    stream.plan = plan;
                }
                (_, plan) => *stream = plan.map(|plan| Stream::new(now, plan)),
            }
        }
    }

    fn stream(&mut self, kind: Kind) -> Option<&mut Stream> {
        match kind {
            Kind::Audio => self.audio.as_mut(),
            Kind::Video => self.video.as_mut(),
        }
    }

    /// The pairs this leg uses.
    pub fn pairs(&self) -> impl Iterator<Item = (crate::command::PairId, Kind)> {
        let audio = self.audio.iter().map(|stream| (stream.plan.pair, Kind::Audio));
        audio.chain(self.video.iter().map(|stream| (stream.plan.pair, Kind::Video)))
    }

    pub fn report(&self) -> LegReport {
        let report = |stream: &Option<Stream>| stream.as_ref().map(Stream::report).unwrap_or_default();
        LegReport { leg: self.id, audio: report(&self.audio), video: report(&self.video) }
    }

    fn waits_for_key_frame(&self) -> bool {
        self.video.as_ref().is_some_and(|video| video.plan.send && !video.sink.started)
    }
}

/// See the module text. The anchor is the first of the legs.
#[derive(Debug)]
pub(crate) struct Session {
    pub id: SessionId,
    pub legs: Vec<Leg>,
    talker: Option<LegId>,
    heard: bool,
    /// The anchor puts parameter sets into its stream.
    in_band_sps: bool,
    idr_begun: bool,
    key_frames: u64,
    last_ask: Option<Instant>,
    /// Ringback: when its next packet is due, and which one it is.
    ringback: Option<(Instant, usize)>,
    /// Counters have changed since the last report.
    pub dirty: bool,
}

impl Session {
    pub fn new(now: Instant, id: SessionId, anchor: LegPlan) -> Session {
        Session {
            id,
            legs: vec![Leg::new(now, anchor)],
            talker: None,
            heard: false,
            in_band_sps: false,
            idr_begun: false,
            key_frames: 0,
            last_ask: None,
            ringback: None,
            dirty: true,
        }
    }

    pub fn put(&mut self, now: Instant, plan: LegPlan, out: &mut Out) {
        self.dirty = true;
        match self.legs.iter_mut().find(|leg| leg.id == plan.leg) {
            Some(leg) => leg.replan(now, plan),
            None => self.legs.push(Leg::new(now, plan)),
        }
        self.ask_if_due(now, out);
    }

    pub fn talk(&mut self, leg: Option<LegId>) {
        self.talker = leg;
        self.ringback.take_if(|_| leg.is_some());
    }

    pub fn ring_back(&mut self, now: Instant, on: bool) {
        self.ringback = on.then_some((now, 0));
    }

    /// When the next packet of the ringback is due.
    pub fn ringback_deadline(&self) -> Option<Instant> {
        self.ringback.map(|(at, _)| at)
    }

    /// Sends what is due of the ringback. A late wake-up skips what has passed instead of sending it in a burst.
    pub fn play(&mut self, now: Instant, tone: &Ringback, out: &mut Out) {
        let Some((at, index)) = self.ringback.filter(|(at, _)| *at <= now) else { return };
        let late = now.saturating_duration_since(at).as_millis() / TONE_PACKET.as_millis();
        let skipped = usize::try_from(late).unwrap_or(0);
        self.ringback = Some((at + TONE_PACKET * (skipped as u32 + 1), index + skipped + 1));
        let Some(audio) = self.legs.first_mut().and_then(|anchor| anchor.audio.as_mut()) else { return };
        if audio.tone(now, tone, index + skipped, index == 0, out) {
            self.dirty = true;
        }
    }

    /// Takes a receiver out; the anchor stays as long as its session.
    pub fn remove(&mut self, leg: LegId) -> Option<Leg> {
        let index = self.legs.iter().position(|l| l.id == leg).filter(|index| *index > 0)?;
        self.talker.take_if(|talker| *talker == leg);
        self.dirty = true;
        Some(self.legs.remove(index))
    }

    pub fn rtp(&mut self, now: Instant, leg: LegId, kind: Kind, from: SocketAddr, bytes: &[u8], out: &mut Out) {
        self.dirty = true;
        let Some((anchor, receivers)) = self.legs.split_first_mut() else { return };
        let from_anchor = anchor.id == leg;
        let source = if from_anchor { Some(&mut *anchor) } else { receivers.iter_mut().find(|l| l.id == leg) };
        let Some(stream) = source.and_then(|leg| leg.stream(kind)) else { return };
        let Some(packet) = Rtp::parse(bytes) else {
            let drop = if rtp::is_stun(bytes) { Drop::Stun } else { Drop::NotRtp };
            return stream.drops.count(drop);
        };
        if rtp::is_rtcp(bytes) {
            // No rtcp-mux was agreed.
            return stream.drops.count(Drop::NotRtp);
        }
        let codec = match stream.take(now, from, &packet, bytes.len()) {
            Ok(codec) => codec,
            Err(drop) => return stream.drops.count(drop),
        };
        if !from_anchor {
            if kind == Kind::Video {
                return stream.drops.count(Drop::MemberVideo);
            }
            if self.talker != Some(leg) {
                return stream.drops.count(Drop::NotTalking);
            }
            if let Some(sink) = anchor.audio.as_mut()
                && let Err(drop) = sink.put(now, &packet, bytes.len(), codec, out)
            {
                sink.drops.count(drop);
            }
            return;
        }
        if !std::mem::replace(&mut self.heard, true) {
            out.events.push(Event::AnchorHeard { session: self.id });
        }
        match kind {
            Kind::Audio => {
                for sink in receivers.iter_mut().filter_map(|leg| leg.audio.as_mut()) {
                    if let Err(drop) = sink.put(now, &packet, bytes.len(), codec, out) {
                        sink.drops.count(drop);
                    }
                }
            }
            Kind::Video => self.video(now, &packet, bytes.len(), codec, out),
        }
    }

    /// A video packet of the anchor: to every receiver that has begun at a key frame, or begins now.
    fn video(&mut self, now: Instant, packet: &Rtp<'_>, length: usize, codec: Codec, out: &mut Out) {
        let seen = h264::look(packet.payload());
        self.in_band_sps |= seen.sps;
        let begins = seen.sps || (seen.idr_begins && !self.in_band_sps);
        let (session, first) = (self.id, self.key_frames == 0);
        for leg in &mut self.legs[1..] {
            let Some(sink) = leg.video.as_mut() else { continue };
            if sink.plan.send && !sink.sink.started && !begins {
                sink.drops.count(Drop::BeforeKeyFrame);
                continue;
            }
            match sink.put(now, packet, length, codec, out) {
                Ok(()) => {
                    sink.sink.started = true;
                    if !std::mem::replace(&mut sink.sink.told, true) {
                        out.events.push(Event::FirstVideo { session, leg: leg.id, at: now });
                    }
                }
                Err(drop) => sink.drops.count(drop),
            }
        }
        self.idr_begun |= seen.idr;
        if packet.marker() && std::mem::take(&mut self.idr_begun) {
            self.key_frames += 1;
            if first {
                out.events.push(Event::FirstKeyFrame { session, at: now });
            }
        }
        self.ask_if_due(now, out);
    }

    /// RTCP of a leg's peer: a receiver that asks for a key frame is heard, everything else ends here.
    pub fn rtcp(&mut self, now: Instant, leg: LegId, kind: Kind, from: SocketAddr, bytes: &[u8], out: &mut Out) {
        let is_anchor = self.legs.first().is_some_and(|anchor| anchor.id == leg);
        let Some(stream) = self.legs.iter_mut().find(|l| l.id == leg).and_then(|leg| leg.stream(kind)) else { return };
        if !rtp::is_rtcp(bytes) {
            let drop = if rtp::is_stun(bytes) { Drop::Stun } else { Drop::NotRtcp };
            return stream.drops.count(drop);
        }
        if !stream.knows(from) {
            return stream.drops.count(Drop::ForeignSource);
        }
        stream.rtcp_from = Some(from);
        if !is_anchor && kind == Kind::Video && rtcp::asks_for_key_frame(bytes) {
            self.ask(now, out);
        }
    }

    /// While a receiver waits for a key frame the anchor is asked for one, at most every [`ASK_AGAIN`].
    pub fn ask_if_due(&mut self, now: Instant, out: &mut Out) {
        if self.legs.iter().skip(1).any(Leg::waits_for_key_frame) {
            self.ask(now, out);
        }
    }

    /// When to ask again; `None` when nobody waits or the anchor has shown nothing yet.
    pub fn deadline(&self) -> Option<Instant> {
        let waiting = self.legs.iter().skip(1).any(Leg::waits_for_key_frame);
        self.last_ask.filter(|_| waiting).map(|at| at + ASK_AGAIN)
    }

    fn ask(&mut self, now: Instant, out: &mut Out) {
        if self.last_ask.is_some_and(|at| now < at + ASK_AGAIN) {
            return;
        }
        let Some(video) = self.legs.first().and_then(|anchor| anchor.video.as_ref()) else { return };
        let (Some(theirs), Some(to)) = (video.heard, video.rtcp_remote()) else { return };
        self.last_ask = Some(now);
        let packet = rtcp::pli(video.plan.ssrc, theirs);
        let mut head = [0; HEADER];
        head.copy_from_slice(&packet[..HEADER]);
        let tail = Tail::Owned(Bytes::copy_from_slice(&packet[HEADER..]));
        out.sends.push(Send { pair: video.plan.pair, channel: Channel::Rtcp, to, head, tail });
    }

    pub fn report(&self, last: bool) -> Event {
        Event::Report { session: self.id, legs: self.legs.iter().map(Leg::report).collect(), last }
    }
}
