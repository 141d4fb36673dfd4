//! One session: an anchor, its receivers, and whose audio goes back (ARCHITECTURE §4, RTP packet).

use crate::command::{Codec, Event, Kind, LegId, LegPlan, SessionId};
use crate::drop::Drop;
use crate::engine::{Channel, Out, Send, Tail};
use crate::h264;
use crate::leg::Leg;
use crate::rtcp;
use crate::rtp::{self, HEADER, Rtp};
use crate::stream::TONE_PACKET;
use crate::tone::Ringback;
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Longest between two requests for a key frame while somebody waits for one.
const ASK_AGAIN: Duration = Duration::from_millis(500);

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
