//! One session: an anchor, its receivers, and whose audio goes back (ARCHITECTURE §4, RTP packet).

use crate::asking::{Asking, Way};
use crate::audio::FRAME;
use crate::command::{self, Codec, Event, Kind, LegId, LegPlan, LegReport, SessionId};
use crate::drop::Drop;
use crate::dtmf::{self, Keypad};
use crate::engine::{Channel, Out};
use crate::keyframe::{KeyFrames, Took};
use crate::leg::Leg;
use crate::quality::{Heard, WallClock};
use crate::relay::{self, Sound};
use crate::rtcp::Then;
use crate::rtp::{self, Arrived, Rtp};
use crate::sink::Picture;
use crate::stream::Stream;
use crate::tone::Ringback;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Between two RTCP reports on average (RFC 3550 §6.2), and to the first one.
const REPORTS: Duration = Duration::from_secs(5);
const FIRST_REPORT: Duration = Duration::from_millis(2500);

/// See the module text. The anchor is the first of the legs.
#[derive(Debug)]
pub(crate) struct Session {
    pub id: SessionId,
    pub legs: Vec<Leg>,
    talker: Option<LegId>,
    heard: bool,
    key_frames: KeyFrames,
    asking: Asking,
    /// Requests by FIR are numbered.
    fir: u8,
    /// Receivers that do not see the live picture yet.
    waiting: usize,
    wall: WallClock,
    rtcp_at: Instant,
    /// Ringback: when its next packet is due, and which one it is.
    ringback: Option<(Instant, usize)>,
    /// How long who should send may be silent, and when that is looked at next.
    watch: Option<(Duration, Instant)>,
    /// What signalling has the talker press.
    keypad: Keypad,
    /// Do the talker's telephone-events reach the anchor?
    pub keys_pass: bool,
    /// Counters have changed since the last report.
    pub dirty: bool,
}

impl Session {
    pub fn new(now: Instant, wall: WallClock, id: SessionId, anchor: LegPlan, key_frame_by: Option<Way>) -> Session {
        let key_frames = KeyFrames::new(anchor.video.as_ref().map_or(&[][..], |video| &video.parameter_sets));
        Session {
            id,
            legs: vec![Leg::new(now, anchor)],
            talker: None,
            heard: false,
            key_frames,
            asking: Asking::new(now, key_frame_by),
            fir: 0,
            waiting: 0,
            wall,
            rtcp_at: now + FIRST_REPORT,
            ringback: None,
            watch: None,
            keypad: Keypad::default(),
            keys_pass: true,
            dirty: true,
        }
    }

    /// A leg joins, or its plan changes. Returns the streams it had on pairs that it has no longer.
    pub fn put(&mut self, now: Instant, plan: LegPlan, out: &mut Out) -> Vec<Stream> {
        self.dirty = true;
        if let (true, Some(video)) = (self.legs[0].id == plan.leg, &plan.video) {
            self.key_frames.learn_sets(&video.parameter_sets);
        }
        let left = match self.legs.iter_mut().find(|leg| leg.id == plan.leg) {
            Some(leg) => leg.replan(now, plan),
            None => {
                self.legs.push(Leg::new(now, plan));
                Vec::new()
            }
        };
        self.recount();
        self.begin(now, false, out);
        self.ask_if_due(now, out);
        left
    }

    /// Receivers that wait for the picture get what there is of it.
    fn begin(&mut self, now: Instant, partial: bool, out: &mut Out) {
        if self.waiting == 0 || (self.key_frames.kept_at().is_none() && !partial) {
            return;
        }
        let generation = self.key_frames.generation();
        for leg in &mut self.legs[1..] {
            if !leg.waits_for_key_frame() {
                continue;
            }
            let Some(video) = leg.video.as_mut() else { continue };
            if video.sink.picture == (Picture::Still { generation }) {
                continue;
            }
            match video.begin(now, &self.key_frames, partial, out) {
                Ok(()) if !std::mem::replace(&mut video.sink.told, true) => {
                    out.events.push(Event::FirstVideo { session: self.id, leg: leg.id, at: now });
                }
                Ok(()) => {}
                Err(drop) => video.drops.count(drop),
            }
        }
        self.recount();
    }

    fn recount(&mut self) {
        self.waiting = self.legs[1..].iter().filter(|leg| leg.waits_for_key_frame()).count();
    }

    /// Hands the floor on. A key that the former talker still holds is let go.
    pub fn talk(&mut self, now: Instant, leg: Option<LegId>, out: &mut Out) {
        self.ringback.take_if(|_| leg.is_some());
        if self.talker == leg {
            return;
        }
        self.talker = leg;
        let mut audio = self.legs.first_mut().and_then(|anchor| anchor.audio.as_mut());
        self.keypad.stop(now, audio.as_deref_mut(), out);
        if let Some(audio) = audio {
            audio.let_go(now, out);
        }
    }

    pub fn ring_back(&mut self, now: Instant, on: bool) {
        self.ringback = on.then_some((now, 0));
    }

    /// The talker presses a key by other means than its media.
    pub fn press(&mut self, now: Instant, leg: LegId, digit: char, length: Duration) {
        let Some(stream) = self.legs.iter_mut().find(|l| l.id == leg).and_then(|leg| leg.audio.as_mut()) else { return };
        let event = dtmf::event(digit).ok_or(Drop::NotADigit);
        let talks = if self.talker == Some(leg) { event } else { Err(Drop::NotTalking) };
        if let Err(drop) = talks.and_then(|event| self.keypad.press(now, event, length)) {
            stream.drops.count(drop);
        }
    }

    /// When the next packet of our own making is due: of the ringback, or of a key that the talker presses. Never of both.
    pub fn sound_deadline(&self) -> Option<Instant> {
        self.ringback.map(|(at, _)| at).or(self.keypad.deadline())
    }

    /// Sends what is due of it. A late wake-up skips what has passed of a ringback instead of sending it in a burst.
    pub fn play(&mut self, now: Instant, tone: &mut Ringback, out: &mut Out) {
        let Some(audio) = self.legs.first_mut().and_then(|anchor| anchor.audio.as_mut()) else {
            (self.ringback, self.keypad) = Default::default();
            return;
        };
        if self.keypad.deadline().is_some_and(|at| at <= now) {
            self.dirty = true;
            if let Err(drop) = self.keypad.play(now, audio, out) {
                audio.drops.count(drop);
            }
        }
        let Some((at, index)) = self.ringback.filter(|(at, _)| *at <= now) else { return };
        let late = now.saturating_duration_since(at).as_millis() / FRAME.as_millis();
        let skipped = usize::try_from(late).unwrap_or(0);
        self.ringback = Some((at + FRAME * (skipped as u32 + 1), index + skipped + 1));
        if audio.tone(now, tone, index + skipped, index == 0, out) {
            self.dirty = true;
        }
    }

    /// From now on silence counts.
    pub fn watch(&mut self, now: Instant, silence: Duration) {
        self.watch = Some((silence, now + silence));
        self.legs.iter_mut().for_each(|leg| leg.begin_life(now));
    }

    /// When to look for silence next.
    pub fn silence_deadline(&self) -> Option<Instant> {
        self.watch.map(|(_, at)| at)
    }

    /// Tells who should have sent and did not. Packets only note their time; the deadline is found here.
    pub fn look_for_silence(&mut self, now: Instant, out: &mut Out) {
        let Some((silence, _)) = self.watch else { return };
        let mut next = now + silence;
        for (index, leg) in self.legs.iter().enumerate() {
            let expected = (index == 0 || self.talker == Some(leg.id)).then(|| leg.silent_since()).flatten();
            match expected.map(|since| since + silence) {
                Some(due) if due <= now => out.events.push(Event::Silent { session: self.id, leg: leg.id }),
                Some(due) => next = next.min(due),
                None => {}
            }
        }
        self.watch = Some((silence, next));
    }

    /// Takes a receiver out; the anchor stays as long as its session.
    pub fn remove(&mut self, now: Instant, leg: LegId, out: &mut Out) -> Option<Leg> {
        let index = self.legs.iter().position(|l| l.id == leg).filter(|index| *index > 0)?;
        if self.talker == Some(leg) {
            self.talk(now, None, out);
        }
        self.dirty = true;
        self.say_goodbye(now, index, out);
        let gone = self.legs.remove(index);
        self.recount();
        Some(gone)
    }

    pub fn rtp(&mut self, now: Instant, leg: LegId, kind: Kind, from: SocketAddr, bytes: &[u8], out: &mut Out) {
        self.dirty = true;
        let Some((anchor, receivers)) = self.legs.split_first_mut() else { return };
        let from_anchor = anchor.id == leg;
        let source = if from_anchor { Some(&mut *anchor) } else { receivers.iter_mut().find(|l| l.id == leg) };
        let Some(stream) = source.and_then(|leg| leg.stream(kind)) else { return };
        let packet = match rtp::sort(bytes) {
            Ok(Arrived::Rtp(packet)) => packet,
            Ok(Arrived::Rtcp) if stream.plan.rtcp_mux => return self.rtcp(now, leg, kind, Channel::Rtp, from, bytes, out),
            Ok(Arrived::Rtcp) => return stream.drops.count(Drop::NotRtp),
            Ok(Arrived::Stun) => {
                stream.stun(now, Channel::Rtp, from, bytes, out).unwrap_or_else(|drop| stream.drops.count(drop));
                // It may be the first sign of where this phone is.
                return self.begin(now, false, out);
            }
            Err(drop) => return stream.drops.count(drop),
        };
        let codec = match stream.take(now, from, &packet, bytes.len()) {
            Ok(codec) => codec,
            Err(drop) => return stream.drops.count(drop),
        };
        if from_anchor && !std::mem::replace(&mut self.heard, true) {
            out.events.push(Event::AnchorHeard { session: self.id });
        }
        match kind {
            Kind::Audio => self.audio(now, leg, &Sound { packet: &packet, codec, length: bytes.len() }, out),
            Kind::Video if from_anchor => self.video(now, &packet, bytes.len(), codec, out),
            Kind::Video => {
                stream.drops.count(Drop::MemberVideo);
                // It may be the first sign of where this phone is.
                self.begin(now, false, out);
            }
        }
    }

    /// An audio packet: the anchor's to everybody, the talker's to the anchor, nobody else's anywhere (D-05).
    fn audio(&mut self, now: Instant, leg: LegId, sound: &Sound<'_>, out: &mut Out) {
        let Some((anchor, receivers)) = self.legs.split_first_mut() else { return };
        let from_anchor = anchor.id == leg;
        let source = if from_anchor { Some(&mut *anchor) } else { receivers.iter_mut().find(|l| l.id == leg) };
        let Some(source) = source.and_then(|leg| leg.audio.as_mut()) else { return };
        let report = match sound.codec {
            Codec::TelephoneEvent(_) => match relay::read(now, (self.id, leg), source, sound, out) {
                Ok(report) => Some(report),
                Err(drop) => return source.drops.count(drop),
            },
            _ => None,
        };
        if !from_anchor && self.talker != Some(leg) {
            return source.drops.count(Drop::NotTalking);
        }
        if !from_anchor && self.keypad.is_held() {
            return source.drops.count(Drop::DuringDigit);
        }
        if from_anchor {
            let Some(source) = anchor.audio.as_mut() else { return };
            let sinks = receivers.iter_mut().filter_map(|leg| leg.audio.as_mut());
            match report {
                Some(report) => relay::event(now, source, sinks, sound, report, out),
                None => relay::audio(now, source, sinks, sound, out),
            }
        } else {
            let Some(source) = receivers.iter_mut().find(|l| l.id == leg).and_then(|leg| leg.audio.as_mut()) else { return };
            match report {
                Some(report) if !self.keys_pass || dtmf::signal(report.event) == Some('*') => relay::hold_back(source, sound),
                Some(report) => relay::event(now, source, anchor.audio.iter_mut(), sound, report, out),
                None => relay::audio(now, source, anchor.audio.iter_mut(), sound, out),
            }
        }
    }

    /// A video packet of the anchor: to every receiver that sees the picture live. Those that wait begin with a whole key frame.
    fn video(&mut self, now: Instant, packet: &Rtp<'_>, length: usize, codec: Codec, out: &mut Out) {
        let took = self.key_frames.take(now, packet);
        for leg in &mut self.legs[1..] {
            let Some(video) = leg.video.as_mut() else { continue };
            let seen = match video.sink.picture {
                Picture::Live { after } => rtp::later(packet.sequence(), after) || !video.plan.send,
                Picture::Nothing | Picture::Still { .. } => !video.plan.send,
            };
            let put = if seen { video.put(now, packet, length, codec, out) } else { Err(Drop::BeforeKeyFrame) };
            if let Err(drop) = put {
                video.drops.count(drop);
            }
        }
        match took {
            Took::KeyFrame => {
                if self.key_frames.counts().0 == 1 {
                    out.events.push(Event::FirstKeyFrame { session: self.id, at: now });
                }
                if let Some(way) = self.asking.came(now) {
                    out.events.push(Event::KeyFrameBy { session: self.id, way });
                }
                self.begin(now, false, out);
            }
            Took::TooLarge => {
                self.asking.came(now);
                self.begin(now, true, out);
            }
            Took::Gap if self.legs.len() > 1 => self.asking.want(),
            Took::Gap | Took::Nothing => {}
        }
        self.ask_if_due(now, out);
    }

    /// RTCP of a leg's peer: it is for us alone. A receiver that asks for a key frame is heard.
    #[allow(clippy::too_many_arguments)] // one datagram
    pub fn rtcp(
        &mut self,
        now: Instant,
        leg: LegId,
        kind: Kind,
        channel: Channel,
        from: SocketAddr,
        bytes: &[u8],
        out: &mut Out,
    ) {
        let is_anchor = self.legs.first().is_some_and(|anchor| anchor.id == leg);
        let Some(leg) = self.legs.iter_mut().find(|l| l.id == leg) else { return };
        let shift = leg.shift;
        let Some(stream) = leg.stream(kind) else { return };
        let said = match rtp::sort(bytes) {
            Ok(Arrived::Rtcp) => stream.take_rtcp(now, channel, from, bytes),
            Ok(Arrived::Stun) => {
                return stream.stun(now, channel, from, bytes, out).unwrap_or_else(|drop| stream.drops.count(drop));
            }
            Ok(Arrived::Rtp(_)) | Err(Drop::NotRtp | Drop::Truncated) => Err(Drop::NotRtcp),
            Err(drop) => Err(drop),
        };
        let said = match said {
            Ok(said) => said,
            Err(drop) => return stream.drops.count(drop),
        };
        if let Some((_, ntp, rtp)) = said.sender.filter(|(ssrc, ..)| stream.reception.is_some_and(|r| r.ssrc == *ssrc)) {
            stream.sender = Some((ntp, rtp, now));
            leg.shift = shift.or(Some(self.wall.ntp(now).wrapping_sub(ntp)));
        }
        let Some(stream) = leg.stream(kind) else { return };
        if let Some(block) = said.blocks.iter().find(|block| block.ssrc == stream.plan.ssrc) {
            stream.heard = Some(Heard::read(self.wall.ntp(now), block));
        }
        self.dirty = true;
        if said.wants_key_frame && !is_anchor && kind == Kind::Video {
            self.want_key_frame(now, out);
        }
    }

    /// A receiver needs a key frame, and said so.
    pub fn want_key_frame(&mut self, now: Instant, out: &mut Out) {
        self.asking.want();
        self.ask_if_due(now, out);
    }

    /// The door is asked for a key frame if somebody needs one, none is coming, and the gate is open.
    fn ask_if_due(&mut self, now: Instant, out: &mut Out) {
        if self.waiting > 0 {
            self.asking.want();
        }
        if self.key_frames.last().is_none() || self.key_frames.is_arriving() {
            return;
        }
        let Some(mut way) = self.asking.ask(now) else { return };
        while way != Way::Info {
            let fir = self.fir.wrapping_add(1);
            let then = |source: Option<u32>| match (way, source) {
                (Way::Pli, Some(source)) => Then::Pli(source),
                (Way::Fir, Some(source)) => Then::Fir(source, fir),
                (Way::Pli | Way::Fir | Way::Info, _) => Then::Nothing,
            };
            let video = self.legs.first_mut().and_then(|anchor| anchor.video.as_mut());
            if video.is_some_and(|video| video.send_rtcp(now, &self.wall, None, then, out)) {
                self.fir = fir;
                return;
            }
            way = self.asking.skip();
        }
        out.events.push(Event::KeyFrameWanted { session: self.id });
    }

    /// The picture as it is now.
    pub fn picture(&self) -> Option<command::Picture> {
        Some(command::Picture { at: self.key_frames.kept_at()?, annex_b: self.key_frames.annex_b()? })
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Instant> {
        let ask = self.asking.due().filter(|_| self.key_frames.last().is_some() && !self.key_frames.is_arriving());
        [ask, Some(self.rtcp_at)].into_iter().flatten().min()
    }

    pub fn timeout(&mut self, now: Instant, out: &mut Out) {
        self.ask_if_due(now, out);
        if self.rtcp_at <= now {
            // Half to one and a half of the interval (RFC 3550 §6.3.1), by what is random already: there is no dice in here.
            let dice = self.legs.first().and_then(|anchor| anchor.audio.as_ref().or(anchor.video.as_ref()));
            let dice = dice.map_or(0, |stream| stream.plan.ssrc ^ stream.packets.0 as u32).wrapping_mul(0x9e37_79b9) >> 22;
            self.rtcp_at = now + REPORTS / 2 + REPORTS * dice / 1024;
            for index in 0..self.legs.len() {
                self.report_rtcp(now, index, Then::Nothing, out);
            }
        }
    }

    /// A report to each stream of a leg's peer.
    fn report_rtcp(&mut self, now: Instant, index: usize, then: Then, out: &mut Out) {
        // Who feeds it: the anchor hears the talker, everybody else the anchor.
        let source = if index == 0 { self.legs.iter().find(|leg| Some(leg.id) == self.talker) } else { self.legs.first() };
        let times = [Kind::Audio, Kind::Video].map(|kind| source.and_then(|source| source.source_time(kind)));
        let Some(leg) = self.legs.get_mut(index) else { return };
        for (kind, time) in [Kind::Audio, Kind::Video].into_iter().zip(times) {
            if let Some(stream) = leg.stream(kind) {
                stream.send_rtcp(now, &self.wall, time, |_| then, out);
            }
        }
    }

    /// The leg's peer is told that we leave (RFC 3550 §6.3.7).
    pub fn say_goodbye(&mut self, now: Instant, index: usize, out: &mut Out) {
        self.report_rtcp(now, index, Then::Bye, out);
    }

    pub fn report(&self, last: bool) -> Event {
        let mut legs: Vec<LegReport> = self.legs.iter().map(Leg::report).collect();
        if let Some(anchor) = legs.first_mut() {
            (anchor.video.key_frames, anchor.video.key_frames_broken) = self.key_frames.counts();
        }
        Event::Report { session: self.id, legs, last }
    }
}
