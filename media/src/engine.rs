//! [`Engine`]: all sessions of one worker, as a pure machine. Commands, datagrams and time go in; datagrams and events come
//! out in an [`Out`] that the caller owns and empties after each call.
//!
//! A forwarded packet is twelve new bytes and a reference to the rest of the datagram that was just given: nothing is
//! copied, locked or allocated on the way.

use crate::command::{Command, Event, Kind, LegId, PairId, SessionId};
use crate::leg::Leg;
use crate::quality::WallClock;
use crate::session::Session;
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
    /// The datagram that was just given, from its thirteenth byte on.
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
                let leg = anchor.leg;
                let wall = *self.wall.get_or_insert_with(|| WallClock::new(now, Duration::ZERO));
                let opened = Session::new(now, wall, session, anchor, key_frame_by);
                self.own(session, leg, opened.legs[0].pairs().collect());
                self.sessions.insert(session, opened);
                self.touch(now, session);
            }
            Command::Put { session, leg } => {
                let id = leg.leg;
                let Some(found) = self.sessions.get_mut(&session) else { return };
                let old: Vec<PairId> =
                    found.legs.iter().filter(|l| l.id == id).flat_map(Leg::pairs).map(|(pair, _)| pair).collect();
                found.put(now, leg, out);
                old.into_iter().for_each(|pair| self.disown(pair));
                let found = self.sessions.get(&session).and_then(|s| s.legs.iter().find(|l| l.id == id));
                let pairs = found.map(|leg| leg.pairs().collect()).unwrap_or_default();
                self.own(session, id, pairs);
                self.touch(now, session);
            }
            Command::Talk { session, leg } => {
                self.forget_ringing(session);
                if let Some(found) = self.sessions.get_mut(&session) {
                    found.talk(now, leg, out);
                    self.ringing.extend(found.sound_deadline().map(|at| (at, session)));
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
                    gone.pairs().for_each(|(pair, _)| self.disown(pair));
                    out.events.push(Event::Report { session, legs: vec![gone.report()], last: false });
                    self.touch(now, session);
                }
            }
            Command::Close { session } => {
                self.forget_ringing(session);
                if let Some(mut closed) = self.sessions.remove(&session) {
                    for index in 0..closed.legs.len() {
                        closed.say_goodbye(now, index, out);
                    }
                    closed.legs.iter().flat_map(Leg::pairs).for_each(|(pair, _)| self.disown(pair));
                    out.events.push(closed.report(true));
                    self.forget_due(session);
                }
            }
        }
    }

    /// One datagram that arrived at a pair.
    pub fn receive(&mut self, now: Instant, pair: PairId, channel: Channel, from: SocketAddr, datagram: &[u8], out: &mut Out) {
        let Some(owner) = self.owners.get(pair.0 as usize).copied().flatten() else {
            self.unowned += 1;
            if self.noise.get(&pair).is_none_or(|at| now >= *at + NOISE) {
                self.noise.insert(pair, now);
                out.events.push(Event::Noise { pair });
            }
            return;
        };
        let Some(session) = self.sessions.get_mut(&owner.session) else { return };
        match channel {
            Channel::Rtp => session.rtp(now, owner.leg, owner.kind, from, datagram, out),
            Channel::Rtcp => session.rtcp(now, owner.leg, owner.kind, from, datagram, out),
        }
        self.touch(now, owner.session);
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
        [self.due.first().map(|(at, _)| *at), self.ringing.first().map(|(at, _)| *at), self.next_report]
            .into_iter()
            .flatten()
            .min()
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

    fn forget_due(&mut self, id: SessionId) {
        if let Some(at) = self.due_at.remove(&id) {
            self.due.remove(&(at, id));
        }
    }

    fn own(&mut self, session: SessionId, leg: LegId, pairs: Vec<(PairId, Kind)>) {
        for (pair, kind) in pairs {
            let index = pair.0 as usize;
            if self.owners.len() <= index {
                self.owners.resize(index + 1, None);
            }
            self.owners[index] = Some(Owner { session, leg, kind });
        }
    }

    fn disown(&mut self, pair: PairId) {
        if let Some(owner) = self.owners.get_mut(pair.0 as usize) {
            *owner = None;
        }
        self.noise.remove(&pair);
    }
}
