//! [`Engine`]: all sessions of one worker, as a pure machine. Commands, datagrams and time go in; datagrams and events come
//! out in an [`Out`] that the caller owns and empties after each call.
//!
//! A forwarded packet is twelve new bytes and a reference to the rest of the datagram that was just given: nothing is
//! copied, locked or allocated on the way.

use crate::command::{Command, Event, Kind, LegId, PairId, SessionId};
use crate::drop::Drop;
use crate::latch::Former;
use crate::leg::Leg;
use crate::quality::WallClock;
use crate::rtp::Rtp;
use crate::session::Session;
use crate::stream::Stream;
use crate::tone::Ringback;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Between two reports of a session that changes.
const REPORT: Duration = Duration::from_secs(1);
/// Between two [`Event::Noise`] of one pair.
const NOISE: Duration = Duration::from_secs(1);

/// Which socket of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    Rtp,
    Rtcp,
}

/// What follows the first twelve bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// The datagram that [`Engine::receive`] was just given, from its thirteenth byte on.
    Input,
    Owned(Bytes),
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    pub pair: PairId,
    pub channel: Channel,
    pub to: SocketAddr,
    pub head: [u8; 12],
    pub tail: Tail,
}

/// Consequences of one call, in order.
#[derive(Debug, Default)]
pub struct Out {
    pub sends: Vec<Send>,
    pub events: Vec<Event>,
}

/// Who uses a pair.
#[derive(Clone, Copy, Debug)]
struct Owner {
    session: SessionId,
    leg: LegId,
    kind: Kind,
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Engine {
    sessions: BTreeMap<SessionId, Session>,
    /// By pair id.
    owners: Vec<Option<Owner>>,
    /// Sessions by when something of them is due.
    due: BTreeSet<(Instant, SessionId)>,
    /// When each of them stands in `due`.
    due_at: BTreeMap<SessionId, Instant>,
    /// Sessions whose anchor hears something of our making, by when its next packet is due.
    ringing: BTreeSet<(Instant, SessionId)>,
    ringback: Ringback,
    /// Sessions in which silence counts, by when it is looked for.
    watching: BTreeSet<(Instant, SessionId)>,
    /// What pairs that are free now were used by last (D-18).
    former: BTreeMap<PairId, Former>,
    next_report: Option<Instant>,
    noise: BTreeMap<PairId, Instant>,
    /// Without one, NTP times count from the first command.
    wall: Option<WallClock>,
    /// Datagrams for pairs that nobody uses.
    pub unowned: u64,
}

impl Engine {
    /// An engine whose sender reports say the true time (RFC 3550 §4). `unix`: time since 1970 at `now`.
    pub fn new(now: Instant, unix: Duration) -> Engine {
        Engine { wall: Some(WallClock::new(now, unix)), ..Engine::default() }
    }

    pub fn command(&mut self, now: Instant, command: Command, out: &mut Out) {
        match command {
            Command::Open { session, anchor, key_frame_by } => {
                if self.sessions.contains_key(&session) {
                    return;
                }
                let wall = *self.wall.get_or_insert_with(|| WallClock::new(now, Duration::ZERO));
                let mut opened = Session::new(now, wall, session, anchor, key_frame_by);
                Engine::own(&mut self.owners, &mut self.former, session, &mut opened.legs[0]);
                self.sessions.insert(session, opened);
                self.touch(now, session);
            }
            Command::Put { session, leg } => {
                let id = leg.leg;
                let Some(found) = self.sessions.get_mut(&session) else { return };
                let left = found.put(now, leg, out);
                left.into_iter().for_each(|stream| self.disown(now, stream));
                let found = self.sessions.get_mut(&session).and_then(|found| found.legs.iter_mut().find(|leg| leg.id == id));
                if let Some(leg) = found {
                    Engine::own(&mut self.owners, &mut self.former, session, leg);
                }
                self.touch(now, session);
            }
            Command::Talk { session, leg } => {
                self.forget_ringing(session);
                if let Some(found) = self.sessions.get_mut(&session) {
                    found.talk(now, leg, out);
                    self.ringing.extend(found.sound_deadline().map(|at| (at, session)));
                }
            }
            Command::Keys { session, pass } => {
                if let Some(found) = self.sessions.get_mut(&session) {
                    found.keys_pass = pass;
                }
            }
            Command::Press { session, leg, digit, length } => {
                self.forget_ringing(session);
                if let Some(found) = self.sessions.get_mut(&session) {
                    found.press(now, leg, digit, length);
                    self.ringing.extend(found.sound_deadline().map(|at| (at, session)));
                }
            }
            Command::Ringback { session, on } => {
                self.forget_ringing(session);
                if let Some(found) = self.sessions.get_mut(&session) {
                    found.ring_back(now, on);
                    self.ringing.extend(found.sound_deadline().map(|at| (at, session)));
                }
            }
            Command::Watch { session, silence } => {
                self.forget_watching(session);
                if let Some(found) = self.sessions.get_mut(&session) {
                    found.watch(now, silence);
                    self.watching.extend(found.silence_deadline().map(|at| (at, session)));
                }
            }
            Command::AskKeyFrame { session } => {
                if let Some(found) = self.sessions.get_mut(&session) {
                    found.want_key_frame(now, out);
                    self.touch(now, session);
                }
            }
            Command::TakePicture { session } => {
                let picture = self.sessions.get(&session).and_then(Session::picture);
                out.events.push(Event::Picture { session, picture });
            }
            Command::Remove { session, leg } => {
                self.forget_ringing(session);
                let gone = self.sessions.get_mut(&session).and_then(|found| found.remove(now, leg, out));
                self.ringing.extend(self.sessions.get(&session).and_then(Session::sound_deadline).map(|at| (at, session)));
                if let Some(gone) = gone {
                    out.events.push(Event::Report { session, legs: vec![gone.report()], last: false });
                    gone.into_streams().for_each(|stream| self.disown(now, stream));
                    self.touch(now, session);
                }
            }
            Command::Close { session } => {
                self.forget_ringing(session);
                self.forget_watching(session);
                if let Some(mut closed) = self.sessions.remove(&session) {
                    for index in 0..closed.legs.len() {
                        closed.say_goodbye(now, index, out);
                    }
                    out.events.push(closed.report(true));
                    closed.legs.into_iter().flat_map(Leg::into_streams).for_each(|stream| self.disown(now, stream));
                    self.forget_due(session);
                }
            }
        }
    }

    /// One datagram that arrived at a pair.
    pub fn receive(&mut self, now: Instant, pair: PairId, channel: Channel, from: SocketAddr, datagram: &[u8], out: &mut Out) {
        let Some(owner) = self.owners.get(pair.0 as usize).copied().flatten() else {
            self.unowned += 1;
            if let Some(former) = self.former.get_mut(&pair) {
                former.sent(now, from, Rtp::parse(datagram).map(|packet| packet.ssrc()));
            }
            if self.noise.get(&pair).is_none_or(|at| now >= *at + NOISE) {
                self.noise.insert(pair, now);
                out.events.push(Event::Noise { pair });
            }
            return;
        };
        let Some(session) = self.sessions.get_mut(&owner.session) else { return };
        match channel {
            Channel::Rtp => session.rtp(now, owner.leg, owner.kind, from, datagram, out),
            Channel::Rtcp => session.rtcp(now, owner.leg, owner.kind, channel, from, datagram, out),
        }
        self.touch(now, owner.session);
    }

    /// So many packets for the sink of a pair did not leave.
    pub fn not_sent(&mut self, pair: PairId, packets: u64) {
        let Some(owner) = self.owners.get(pair.0 as usize).copied().flatten() else { return };
        let Some(session) = self.sessions.get_mut(&owner.session) else { return };
        let leg = session.legs.iter_mut().find(|leg| leg.id == owner.leg);
        if let Some(stream) = leg.and_then(|leg| leg.stream(owner.kind)) {
            stream.drops.add(Drop::NotSent, packets);
        }
    }

    pub fn timeout(&mut self, now: Instant, out: &mut Out) {
        while let Some(&(at, id)) = self.due.first() {
            if at > now {
                break;
            }
            self.forget_due(id);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.timeout(now, out);
            }
            self.touch(now, id);
        }
        while let Some(&(at, id)) = self.ringing.first() {
            if at > now {
                break;
            }
            self.ringing.remove(&(at, id));
            if let Some(session) = self.sessions.get_mut(&id) {
                session.play(now, &mut self.ringback, out);
                self.ringing.extend(session.sound_deadline().map(|at| (at, id)));
            }
            self.touch(now, id);
        }
        while let Some(&(at, id)) = self.watching.first() {
            if at > now {
                break;
            }
            self.watching.remove(&(at, id));
            if let Some(session) = self.sessions.get_mut(&id) {
                session.look_for_silence(now, out);
                self.watching.extend(session.silence_deadline().map(|at| (at, id)));
            }
        }
        if self.next_report.is_some_and(|at| at <= now) {
            self.next_report = None;
            for session in self.sessions.values_mut() {
                if std::mem::take(&mut session.dirty) {
                    out.events.push(session.report(false));
                }
            }
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let first = |deadlines: &BTreeSet<(Instant, SessionId)>| deadlines.first().map(|(at, _)| *at);
        [first(&self.due), first(&self.ringing), first(&self.watching), self.next_report].into_iter().flatten().min()
    }

    /// Live sessions, and pairs in use: what a test checks to be zero at the end.
    pub fn sizes(&self) -> (usize, usize) {
        (self.sessions.len(), self.owners.iter().flatten().count())
    }

    fn touch(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        if session.dirty && self.next_report.is_none() {
            self.next_report = Some(now + REPORT);
        }
        let wanted = session.deadline();
        if self.due_at.get(&id).copied() != wanted {
            self.forget_due(id);
            if let Some(at) = wanted {
                self.due.insert((at, id));
                self.due_at.insert(id, at);
            }
        }
    }

    fn forget_ringing(&mut self, id: SessionId) {
        if let Some(at) = self.sessions.get(&id).and_then(Session::sound_deadline) {
            self.ringing.remove(&(at, id));
        }
    }

    fn forget_watching(&mut self, id: SessionId) {
        if let Some(at) = self.sessions.get(&id).and_then(Session::silence_deadline) {
            self.watching.remove(&(at, id));
        }
    }

    fn forget_due(&mut self, id: SessionId) {
        if let Some(at) = self.due_at.remove(&id) {
            self.due.remove(&(at, id));
        }
    }

    /// Enters the pairs of a leg. Who had them before is not believed on them (D-18); what the kernel still holds of him
    /// needs no other care.
    fn own(owners: &mut Vec<Option<Owner>>, former: &mut BTreeMap<PairId, Former>, session: SessionId, leg: &mut Leg) {
        let id = leg.id;
        for stream_kind in [Kind::Audio, Kind::Video] {
            let Some(stream) = leg.stream(stream_kind) else { continue };
            let index = stream.plan.pair.0 as usize;
            if owners.len() <= index {
                owners.resize(index + 1, None);
            }
            owners[index] = Some(Owner { session, leg: id, kind: stream_kind });
            if let Some(former) = former.remove(&stream.plan.pair) {
                stream.latch.succeed(former);
            }
        }
    }

    /// A stream is over; what it was fed from is not believed on its pair for a while (D-18).
    fn disown(&mut self, now: Instant, stream: Stream) {
        let pair = stream.plan.pair;
        if let Some(owner) = self.owners.get_mut(pair.0 as usize) {
            *owner = None;
        }
        self.noise.remove(&pair);
        self.former.insert(pair, stream.into_former(now));
    }
}
