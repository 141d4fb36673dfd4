//! One stream of one leg, both directions: whose packets are taken, and how what goes out is addressed and counted.

use crate::audio::{self, CONVERTED, Converter, Frame};
use crate::command::{Codec, Payload, StreamPlan, StreamReport};
use crate::drop::{Drop, Drops};
use crate::dtmf::{self, ENDS, Presses, Told};
use crate::engine::{Channel, Out, Send, Tail};
use crate::keyframe::{Kept, KeyFrames};
use crate::latch::{Former, Latch};
use crate::order::Order;
use crate::quality::{Heard, Reception, WallClock, middle, ticks};
use crate::relay::Sound;
use crate::rtcp::{self, Report, Said, Then};
use crate::rtp::{HEADER, Rtp};
use crate::sink::{Picture, Sink};
use crate::stun::Request;
use crate::tone::Ringback;
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Volume of events of our own, in -dBm0.
const VOLUME: u8 = 10;

/// A key frame of at most so many packets is sent twice over when a picture begins, with the same numbers. A phone has no way to
/// ask for a lost piece before it shows anything, and says that one is missing seconds later if at all; copies are dropped by
/// whoever has a buffer (RFC 3550 §A.1), and to others the same key frame twice in a row does no harm.
const TWICE: usize = 32;
/// Frames of a picture that is caught up with are so many clock units apart, 1 ms: with their true distance the receiver would
/// keep it as delay for good (D-19).
const CATCH_UP: u32 = 90;

/// The time line of a source: what its sender report said, its NTP time moved to our clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceTime {
    pub ssrc: u32,
    pub ntp: u64,
    pub rtp: u32,
}

/// See the module text.
#[derive(Debug)]
pub(crate) struct Stream {
    pub plan: StreamPlan,
    pub latch: Latch,
    pub rtcp_from: Option<SocketAddr>,
    /// Who sent RTCP last.
    rtcp_candidate: Option<(SocketAddr, Option<u32>)>,
    /// What comes from its present source.
    pub reception: Option<Reception>,
    order: Order,
    /// Its last sender report: NTP time, RTP time, when it came.
    pub sender: Option<(u64, u32, Instant)>,
    /// What it says of what we send.
    pub heard: Option<Heard>,
    /// When its peer showed last that it is there; from the plan on if it never did.
    pub life: Instant,
    /// It did.
    alive: bool,
    pub sink: Sink,
    pub packets: (u64, u64),
    pub bytes: (u64, u64),
    pub drops: Drops,
    /// Audio: what its peer presses.
    pub presses: Presses,
    /// Audio: its sound in other codecs, once somebody needs it.
    pub converter: Option<Box<Converter>>,
}

impl Stream {
    pub fn new(now: Instant, plan: StreamPlan) -> Stream {
        let latch = Latch::new(now, plan.remote, plan.sip_source);
        Stream {
            plan,
            latch,
            rtcp_from: None,
            rtcp_candidate: None,
            reception: None,
            sender: None,
            heard: None,
            order: Order::default(),
            life: now,
            alive: false,
            sink: Sink::new(),
            packets: (0, 0),
            bytes: (0, 0),
            drops: Drops::default(),
            presses: Presses::default(),
            converter: None,
        }
    }

    pub fn codec(&self, pt: u8) -> Option<Codec> {
        self.plan.payloads.iter().find(|payload| payload.pt == pt).map(|payload| payload.codec)
    }

    /// One packet of this stream's peer, checked (D-17).
    pub fn take(&mut self, now: Instant, from: SocketAddr, packet: &Rtp<'_>, length: usize) -> Result<Codec, Drop> {
        let codec = self.codec(packet.payload_type());
        if codec.is_none() && !self.latch.believes(from) {
            // Nobody is believed for a packet that nobody agreed on.
            return Err(if self.latch.knows(from) { Drop::PayloadType } else { Drop::ForeignSource });
        }
        self.latch.accept(now, from, packet.ssrc(), packet.sequence())?;
        if self.reception.is_none_or(|known| known.ssrc != packet.ssrc()) {
            self.order = Order::default();
        }
        let begins = self.order.admit(packet.sequence())?;
        let reception = match &mut self.reception {
            Some(known) if !begins => known,
            other => other.insert(Reception::new(now, packet)),
        };
        reception.packet(now, packet, codec.map_or(8000, Codec::clock_rate));
        if self.rtcp_from.is_some_and(|rtcp| rtcp.ip() != from.ip()) {
            // It moved, and its RTCP with it.
            self.rtcp_from = None;
        }
        self.lives(now);
        self.packets.0 += 1;
        self.bytes.0 += length as u64;
        if !self.plan.receive {
            return Err(Drop::NotReceiving);
        }
        codec.ok_or(Drop::PayloadType)
    }

    /// RTCP of this stream's peer. It is reached where that came from if its SDP says so too, if the sender has the SSRC of the
    /// media, or when the same sender comes twice: neighbours behind one NAT share its address.
    pub fn take_rtcp(&mut self, now: Instant, channel: Channel, from: SocketAddr, bytes: &[u8]) -> Result<Said, Drop> {
        if !self.knows(from) {
            return Err(Drop::ForeignSource);
        }
        let sender = bytes.get(4..8).and_then(|ssrc| ssrc.try_into().ok()).map(u32::from_be_bytes);
        if self.latch.is_former(now, from, sender) {
            return Err(Drop::FormerCall);
        }
        let said = rtcp::read(bytes).ok_or(Drop::BadRtcp)?;
        let expected = self.rtcp_to().is_some_and(|(_, to)| to == from);
        let same = sender.is_some() && self.reception.map(|known| known.ssrc) == sender;
        let again = self.rtcp_candidate.replace((from, sender)) == Some((from, sender));
        match channel {
            Channel::Rtp => self.latch.hint(now, from, false),
            Channel::Rtcp if expected || same || (again && self.rtcp_from.is_none()) => self.rtcp_from = Some(from),
            Channel::Rtcp => {}
        }
        self.lives(now);
        Ok(said)
    }

    /// A STUN request of this stream's peer: the answer, and what it tells of where the peer is (D-16). With ICE it has to
    /// know the leg's password, and may then come from anywhere.
    pub fn stun(&mut self, now: Instant, channel: Channel, from: SocketAddr, bytes: &[u8], out: &mut Out) -> Result<(), Drop> {
        let request = Request::parse(bytes).ok_or(Drop::Stun)?;
        let ice = self.plan.ice.as_ref();
        match ice {
            Some(ice) if !request.proves(ice) => return Err(Drop::StunIntegrity),
            None if !self.knows(from) => return Err(Drop::ForeignSource),
            None if self.latch.is_former(now, from, None) => return Err(Drop::FormerCall),
            Some(_) | None => {}
        }
        match channel {
            Channel::Rtp if ice.is_some() && request.use_candidate => self.latch.choose(now, from),
            Channel::Rtp => self.latch.hint(now, from, ice.is_some()),
            Channel::Rtcp if ice.is_some() => self.rtcp_from = Some(from),
            // A neighbour behind the same NAT sends such too; the phone's own RTCP will tell.
            Channel::Rtcp => {}
        }
        let answer = Bytes::from(request.answer(from, ice));
        let mut head = [0; HEADER];
        head.copy_from_slice(&answer[..HEADER]);
        out.sends.push(Send { pair: self.plan.pair, channel, to: from, head, tail: Tail::Owned(answer.slice(HEADER..)) });
        self.lives(now);
        Ok(())
    }

    fn lives(&mut self, now: Instant) {
        self.life = now;
        self.alive = true;
    }

    /// The end of its call: what the next one on its pair must not believe.
    pub fn into_former(self, now: Instant) -> Former {
        let rtcp = self.rtcp_from.into_iter().chain(self.plan.remote_rtcp);
        self.latch.into_former(now, rtcp)
    }

    /// Sends a packet of another leg to this stream's peer.
    pub fn put(&mut self, now: Instant, packet: &Rtp<'_>, length: usize, codec: Codec, out: &mut Out) -> Result<(), Drop> {
        if !self.plan.send {
            return Err(Drop::NotSending);
        }
        let pt = self.pt(codec).ok_or(Drop::NoCodec)?;
        let to = self.latch.remote().ok_or(Drop::NoAddress)?;
        let theirs = (packet.sequence(), packet.timestamp());
        let (seq, ts) = self.sink.number(now, &self.plan, (packet.ssrc(), None), theirs, codec.clock_rate());
        let head = packet.rewritten(pt, seq, ts, self.plan.ssrc);
        self.sent(to, head, Tail::Input, length, out);
        Ok(())
    }

    pub fn pt(&self, codec: Codec) -> Option<u8> {
        self.plan.payloads.iter().find(|payload| payload.codec == codec).map(|payload| payload.pt)
    }

    /// What others are converted to for this peer: the first of its codecs that can be.
    pub fn spoken(&self) -> Option<Payload> {
        self.plan.payloads.iter().find(|payload| CONVERTED.contains(&payload.codec)).copied()
    }

    /// Clock of the timestamps we send.
    fn clock(&self) -> u32 {
        self.plan.payloads.iter().find(|payload| payload.codec.is_sound()).map_or(8_000, |payload| payload.codec.clock_rate())
    }

    /// The payload type of events for this peer: of the clock of its audio (RFC 4733 §2.1), else whatever it has. Many phones
    /// know events at 8000 Hz only; their timestamps are the audio's all the same.
    fn events(&self) -> Option<(u8, u32)> {
        let all = self.plan.payloads.iter().filter_map(|payload| match payload.codec {
            Codec::TelephoneEvent(hz) => Some((payload.pt, hz)),
            _ => None,
        });
        let clock = self.clock();
        all.min_by_key(|(_, hz)| *hz != clock)
    }

    /// Sends a converted frame of the source with this SSRC.
    pub fn speak(&mut self, now: Instant, ssrc: u32, frame: &Frame, as_: Payload, out: &mut Out) -> Result<(), Drop> {
        let to = self.latch.remote().ok_or(Drop::NoAddress)?;
        let numbering = (ssrc, Some(as_.codec));
        let begins = self.sink.feed.is_none_or(|feed| (feed.ssrc, feed.converted) != numbering);
        let theirs = (frame.sequence, frame.timestamp);
        let numbers = self.sink.number(now, &self.plan, numbering, theirs, as_.codec.clock_rate());
        self.own(to, as_.pt, frame.marker || begins, numbers, frame.payload.clone(), out);
        Ok(())
    }

    /// Sends a telephone-event of another leg. `forwarded`: so is that leg's audio, and its timestamps are this sink's moved by
    /// an offset; else a press begins here and now, and keeps that timestamp.
    pub fn event(
        &mut self,
        now: Instant,
        sound: &Sound<'_>,
        report: dtmf::Report,
        forwarded: bool,
        out: &mut Out,
    ) -> Result<(), Drop> {
        if !self.plan.send {
            return Err(Drop::NotSending);
        }
        let (pt, hz) = self.events().ok_or(Drop::NoCodec)?;
        let to = self.latch.remote().ok_or(Drop::NoAddress)?;
        let (packet, clock) = (sound.packet, self.clock());
        let of = (packet.ssrc(), packet.timestamp());
        let known = self.sink.press.filter(|told| told.of == of);
        let (seq, ts) = if forwarded && self.sink.feed.is_none_or(|feed| feed.converted.is_none()) {
            self.sink.number(now, &self.plan, (packet.ssrc(), None), (packet.sequence(), packet.timestamp()), clock)
        } else {
            let (seq, next) = self.sink.insert(now, &self.plan, clock);
            (seq, known.map_or(next, |told| told.timestamp))
        };
        let here = report.at(sound.codec.clock_rate(), hz);
        self.sink.press = Some(Told { of, timestamp: ts, report: here });
        self.sink.lasted(seq, ts, here.at(hz, clock).duration);
        if hz == sound.codec.clock_rate() && packet.payload().len() == 4 {
            let mut head = packet.rewritten(pt, seq, ts, self.plan.ssrc);
            head[1] |= u8::from(known.is_none()) << 7;
            self.sent(to, head, Tail::Input, sound.length, out);
        } else {
            self.own(to, pt, known.is_none(), (seq, ts), Bytes::copy_from_slice(&here.bytes()), out);
        }
        Ok(())
    }

    /// The one who presses has lost the floor: the key is let go, or the peer would hear it on.
    pub fn let_go(&mut self, now: Instant, out: &mut Out) {
        let Some(told) = self.sink.press.take().filter(|told| !told.report.end) else { return };
        let (Some((pt, hz)), Some(to), true) = (self.events(), self.latch.remote(), self.plan.send) else { return };
        let report = dtmf::Report { end: true, ..told.report };
        let clock = self.clock();
        for _ in 0..ENDS {
            let (seq, _) = self.sink.insert(now, &self.plan, clock);
            self.sink.lasted(seq, told.timestamp, report.at(hz, clock).duration);
            self.own(to, pt, false, (seq, told.timestamp), Bytes::copy_from_slice(&report.bytes()), out);
        }
    }

    /// The timestamp of what would be sent now.
    pub fn moment(&self, now: Instant) -> u32 {
        self.sink.next(now, &self.plan, self.clock()).1
    }

    /// One packet of a press of our own that began at this timestamp; the first one of it, the last one.
    pub fn dial(
        &mut self,
        now: Instant,
        event: u8,
        so_far: Duration,
        ts: u32,
        (begins, end): (bool, bool),
        out: &mut Out,
    ) -> Result<(), Drop> {
        if !self.plan.send {
            return Err(Drop::NotSending);
        }
        let (pt, hz) = self.events().ok_or(Drop::NoCodec)?;
        let to = self.latch.remote().ok_or(Drop::NoAddress)?;
        let clock = self.clock();
        let (seq, _) = self.sink.insert(now, &self.plan, clock);
        let duration = u16::try_from(so_far.as_millis() * u128::from(hz) / 1000).unwrap_or(u16::MAX);
        let report = dtmf::Report { event, end, volume: VOLUME, duration };
        self.sink.lasted(seq, ts, report.at(hz, clock).duration);
        self.own(to, pt, begins, (seq, ts), Bytes::copy_from_slice(&report.bytes()), out);
        Ok(())
    }

    /// One packet of the ringback, numbered like everything else this sink sends. `false`: nothing was sent.
    pub fn tone(&mut self, now: Instant, tone: &mut Ringback, index: usize, first: bool, out: &mut Out) -> bool {
        let Some(payload) = self.spoken() else { return false };
        let (Some(packet), Some(to), true) = (tone.packet(payload.codec, index), self.latch.remote(), self.plan.send) else {
            return false;
        };
        let (seq, ts) = match self.sink.last {
            Some((seq, ts, at)) => {
                let passed = now.saturating_duration_since(at).as_millis() / audio::FRAME.as_millis();
                let frame = payload.codec.clock_rate() / 50;
                (seq.wrapping_add(1), ts.wrapping_add(frame * (passed as u32).max(1)))
            }
            None => (self.plan.first_seq, self.plan.first_timestamp),
        };
        self.sink.last = Some((seq, ts, now));
        self.sink.feed = None;
        self.own(to, payload.pt, first, (seq, ts), packet, out);
        true
    }

    /// A packet of our own making leaves.
    fn own(&mut self, to: SocketAddr, pt: u8, marker: bool, (seq, ts): (u16, u32), payload: Bytes, out: &mut Out) {
        let head = self.head(pt, marker, seq, ts);
        let length = HEADER + payload.len();
        self.sent(to, head, Tail::Owned(payload), length, out);
    }

    fn sent(&mut self, to: SocketAddr, head: [u8; HEADER], tail: Tail, length: usize, out: &mut Out) {
        out.sends.push(Send { pair: self.plan.pair, channel: Channel::Rtp, to, head, tail });
        self.packets.1 += 1;
        self.bytes.1 += length as u64;
    }

    /// Begins the picture at this peer with what the cache has: the key frame, and the way from it to the live picture if
    /// there is one; else the peer has a still until the next key frame. `partial`: a key frame too large for the cache is
    /// passing; what there is of it is the beginning, and the rest comes live.
    pub fn begin(&mut self, now: Instant, cache: &KeyFrames, partial: bool, out: &mut Out) -> Result<(), Drop> {
        if !self.plan.send {
            return Err(Drop::NotSending);
        }
        let pt = self.pt(Codec::H264).ok_or(Drop::NoCodec)?;
        let to = self.latch.remote().ok_or(Drop::NoAddress)?;
        let newest = cache.last().ok_or(Drop::BeforeKeyFrame)?;
        let opening: Vec<Kept<'_>> = cache.opening().collect();
        let key = opening.len();
        let followers = cache.followers();
        let live = partial || followers.is_some();
        let packets: Vec<Kept<'_>> = opening.into_iter().chain(followers.into_iter().flatten()).collect();
        let clock = Codec::H264.clock_rate();
        let (first_seq, last_ts) = self.sink.make_room(now, &self.plan, newest, clock, packets.len() as u16);
        let frames = packets.windows(2).filter(|two| two[0].timestamp != two[1].timestamp).count() as u32;
        let first_ts = last_ts.wrapping_sub(frames * CATCH_UP);
        if key <= TWICE && !partial {
            for (seq, packet) in packets[..key].iter().enumerate() {
                self.send_kept(pt, to, first_seq.wrapping_add(seq as u16), first_ts, packet, out);
            }
        }
        let (mut ts, mut before) = (first_ts, packets.first().map(|packet| packet.timestamp));
        for (seq, packet) in packets.iter().enumerate() {
            if before.replace(packet.timestamp) != Some(packet.timestamp) {
                ts = ts.wrapping_add(CATCH_UP);
            }
            self.send_kept(pt, to, first_seq.wrapping_add(seq as u16), ts, packet, out);
        }
        self.sink.picture =
            if live { Picture::Live { after: newest.1 } } else { Picture::Still { generation: cache.generation() } };
        Ok(())
    }

    fn send_kept(&mut self, pt: u8, to: SocketAddr, seq: u16, timestamp: u32, packet: &Kept<'_>, out: &mut Out) {
        let head = self.head(pt, packet.marker, seq, timestamp);
        let tail = Tail::Owned(Bytes::copy_from_slice(packet.payload));
        self.sent(to, head, tail, HEADER + packet.payload.len(), out);
    }

    /// A header of our own making.
    fn head(&self, pt: u8, marker: bool, seq: u16, timestamp: u32) -> [u8; HEADER] {
        let mut head = [0x80, pt | u8::from(marker) << 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        head[2..4].copy_from_slice(&seq.to_be_bytes());
        head[4..8].copy_from_slice(&timestamp.to_be_bytes());
        head[8..12].copy_from_slice(&self.plan.ssrc.to_be_bytes());
        head
    }

    /// One compound packet to this peer: what we got, what we sent, and then something. `false`: nobody knows where to.
    pub fn send_rtcp(
        &mut self,
        now: Instant,
        wall: &WallClock,
        source: Option<SourceTime>,
        then: impl FnOnce(Option<u32>) -> Then,
        out: &mut Out,
    ) -> bool {
        let Some((channel, to)) = self.rtcp_to() else { return false };
        let sender = self.sender.map(|(ntp, _, at)| (middle(ntp), at));
        let report = Report {
            ours: self.plan.ssrc,
            sent: self.sink.last.map(|last| {
                let payload = self.bytes.1.saturating_sub(self.packets.1 * HEADER as u64);
                (wall.ntp(now), self.time_sent(now, wall, source, last), self.packets.1 as u32, payload as u32)
            }),
            heard: self.reception.as_mut().map(|reception| reception.block(now, sender)),
        };
        let packet = report.write(then(self.reception.map(|reception| reception.ssrc)));
        let Some((head, tail)) = packet.split_first_chunk::<HEADER>() else { return false };
        let tail = Tail::Owned(Bytes::copy_from_slice(tail));
        out.sends.push(Send { pair: self.plan.pair, channel, to, head: *head, tail });
        true
    }

    /// RTP time of what we send, at `now`: by the clock of its source, so that its audio and video stay in step; without a
    /// report of that, by the last packet.
    fn time_sent(&self, now: Instant, wall: &WallClock, source: Option<SourceTime>, (_, last, at): (u16, u32, Instant)) -> u32 {
        let main = self.plan.payloads.iter().map(|payload| payload.codec).find(|c| !matches!(c, Codec::TelephoneEvent(_)));
        let clock = main.map_or(8000, Codec::clock_rate);
        match (source, self.sink.feed) {
            (Some(source), Some(feed)) if source.ssrc == feed.ssrc && feed.converted.is_none() => {
                let passed = wall.ntp(now).wrapping_sub(source.ntp) as i64;
                let passed = (i128::from(passed) * i128::from(clock)) >> 32;
                feed.timestamp(source.rtp).wrapping_add(passed as u32)
            }
            _ => last.wrapping_add(ticks(now.saturating_duration_since(at), clock)),
        }
    }

    /// RTCP may come from where the media comes from, from where it came before, and from the port its SDP names (a device on
    /// loopback may have several addresses, see [`Latch`]).
    fn knows(&self, from: SocketAddr) -> bool {
        let named = self.plan.remote_rtcp.is_some_and(|rtcp| rtcp.port() == from.port());
        let here = named && from.ip().is_loopback() && self.plan.sip_source.is_loopback();
        here || self.rtcp_from == Some(from) || self.latch.knows(from)
    }

    /// Where this peer takes RTCP, and from which of our sockets: beside RTP if both share a port (RFC 5761), where it sent
    /// some from, else what its SDP says, moved to the host it really is at.
    pub fn rtcp_to(&self) -> Option<(Channel, SocketAddr)> {
        if self.plan.rtcp_mux {
            return Some((Channel::Rtp, self.latch.remote()?));
        }
        let moved = || {
            let sdp = self.plan.remote_rtcp?;
            Some(match self.latch.remote() {
                Some(real) if real.ip() != sdp.ip() && Some(real) != self.plan.remote => SocketAddr::new(
                    real.ip(),
                    if self.plan.remote.is_some_and(|r| r.port() == real.port()) {
                        sdp.port()
                    } else {
                        real.port().saturating_add(1)
                    },
                ),
                _ => sdp,
            })
        };
        Some((Channel::Rtcp, self.rtcp_from.or_else(moved)?))
    }

    pub fn report(&self) -> StreamReport {
        StreamReport {
            packets_in: self.packets.0,
            bytes_in: self.bytes.0,
            packets_out: self.packets.1,
            bytes_out: self.bytes.1,
            sends_to: self.latch.remote(),
            alive: self.alive,
            lost_in: self.reception.map_or(0, |reception| reception.lost()),
            jitter_in: self.reception.map_or(0, |reception| reception.jitter()),
            heard: self.heard,
            key_frames: 0,
            key_frames_broken: 0,
            drops: self.drops.list(),
        }
    }
}
