//! [`Gate`]: one door as the server sees it: its [`Lock`], the call it has, what is on its way to it. `Turn::press` is where all
//! roads meet; here a wish is judged, the door is told by its profile, and everybody who asked gets his result.
//!
//! Towards the door (D-26): in its call the INFO pair, or keys if its profile says so; without a call a MESSAGE pair to its
//! binding (spec sip.md §7: MESSAGE is what both sides allow outside a dialog). The next road only when nothing was sent, or
//! after an explicit refusal.

use super::hours::LocalMinute;
use super::lock::{Act, Lock};
use super::right::{self, Claim, Refusal};
use super::twins::Twins;
use super::{Asker, Channel, Outcome, body};
use crate::events::event::{Event, Kind, Target};
use crate::events::passage::Passage;
use crate::held::Told;
use crate::model::{AccountType, DoorWays, Number};
use crate::profile::{Dialect, Profile};
use crate::record::{ASKED, LATE, Record};
use crate::turn::{Publication, Turn, media_leg};
use media::command::{Command, SessionId, WorkerId};
use sip_core::endpoint::{Headers, LegId, Lone, TxId};
use sip_core::message::{Message, Method};
use std::time::{Duration, Instant};

/// One line for the ladder of a call.
#[derive(Clone, Debug)]
pub struct Note {
    pub session: SessionId,
    pub from: String,
    pub to: String,
    pub what: String,
}

/// The call that a door has.
#[derive(Clone, Debug)]
pub struct Place {
    pub session: SessionId,
    pub worker: WorkerId,
    /// The door's own leg.
    pub leg: LegId,
    pub call: String,
    /// What it dialled.
    pub room: String,
    /// The group that meant.
    pub group: Option<Number>,
    pub profile: &'static Profile,
    /// Does it know telephone-events?
    pub events: bool,
    /// The leg that talks with it.
    pub talker: Option<LegId>,
}

/// See the module text.
#[derive(Debug)]
pub struct Gate {
    lock: Lock,
    place: Option<Place>,
    /// What is or was on its way to the door: its number, transactions, and the leg they are in.
    pulse: Option<(u16, Vec<TxId>, Option<LegId>)>,
    /// Orders outside of dialogs.
    pub twins: Twins<Number>,
}

impl Gate {
    /// Is the order on its way in this leg?
    fn is_in(&self, leg: LegId) -> bool {
        self.pulse.as_ref().is_some_and(|(.., of)| *of == Some(leg))
    }

    /// Can it be told by keys now?
    fn takes_keys(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.talker.is_some())
    }

    /// The number of the order that this request belongs to.
    fn reqsn_of(&self, tx: TxId) -> Option<u16> {
        self.pulse.as_ref().filter(|(_, pair, _)| pair.contains(&tx)).map(|(reqsn, ..)| *reqsn)
    }
}

/// What became of a pulse.
enum Sent {
    /// The pair is on its way.
    Pair,
    /// Keys are.
    Keys,
    Nothing,
}

impl Turn<'_> {
    /// Somebody wishes this door open: the one way to a door, whatever the road. Duplicates of one message end before this.
    pub fn press(&mut self, door: &Number, claim: Claim, asker: Asker) {
        self.press_as(door, claim, asker, false);
    }

    /// The same for a key that goes through as it is (D-27).
    pub fn relay_star(&mut self, door: &Number, claim: Claim, asker: Asker) {
        self.press_as(door, claim, asker, true);
    }

    fn press_as(&mut self, door: &Number, claim: Claim, asker: Asker, relay: bool) {
        if self.directory.account(door.as_str()).is_none_or(|account| account.kind != AccountType::Door) {
            self.count("unlock_no_such_door");
            return self.tell(door, asker, Outcome::NoDoor, None);
        }
        match self.may_open(door, claim, &asker.account) {
            Err(refusal) => {
                self.count(refusal.name());
                self.tell(door, asker, Outcome::Forbidden, None);
            }
            Ok(()) => {
                let now = self.now;
                self.asked(door, &asker);
                self.with_gate(door, |gate, acts| gate.lock.press(now, asker, relay, acts));
            }
        }
    }

    /// The right to open (D-23).
    pub fn may_open(&self, door: &Number, claim: Claim, account: &Number) -> Result<(), Refusal> {
        let at = LocalMinute::at(self.unix_ms, self.settings.utc_offset_minutes);
        let of = |number: &Number| self.directory.access(number.as_str());
        right::check(claim, self.settings.unlock_while_ringing, of(account), of(door), at)
    }

    /// The door's own result, from its dialog or signed by it.
    pub fn door_says(&mut self, door: &Number, reqsn: u16, status: u16) {
        self.with_gate(door, |gate, acts| gate.lock.result(reqsn, status, acts));
    }

    /// The final answer to a request of ours, if it told the door to open. A body in it is the result as well (OPEN-09).
    pub fn order_answered(&mut self, door: &Number, tx: TxId, response: Option<&Message>) -> bool {
        let Some(reqsn) = self.gates.get(door).and_then(|gate| gate.reqsn_of(tx)) else { return false };
        let code = response.and_then(Message::code);
        self.with_gate(door, |gate, acts| {
            let other_road = gate.takes_keys();
            gate.lock.delivered(reqsn, code, other_road, acts);
        });
        if let Some(body::Said::Result { reqsn, status }) = response.filter(|r| !r.body().is_empty()).map(body::read) {
            self.door_says(door, reqsn, status);
        }
        true
    }

    pub fn gate_timeout(&mut self, door: &Number) {
        let now = self.now;
        self.with_gate(door, |gate, acts| gate.lock.timeout(now, acts));
    }

    /// The door has a call, or another one.
    pub fn door_calls(&mut self, door: &Number, place: Place) {
        self.with_gate(door, |gate, _| gate.place = Some(place));
    }

    /// Is this leg that of a door in its call?
    pub fn is_door_of(&self, door: &Number, leg: LegId) -> bool {
        self.gates.get(door).and_then(|gate| gate.place.as_ref()).is_some_and(|place| place.leg == leg)
    }

    /// Somebody talks with it.
    pub fn door_talks(&mut self, door: &Number, talker: LegId) {
        if let Some(place) = self.gates.get_mut(door).and_then(|gate| gate.place.as_mut()) {
            place.talker = Some(talker);
        }
    }

    /// This leg of the door is about to go: whoever waits for what was sent in it is told now.
    pub fn door_gone(&mut self, door: &Number, leg: LegId) {
        if self.gates.get(door).is_some_and(|gate| gate.is_in(leg)) {
            self.with_gate(door, |gate, acts| gate.lock.door_gone(acts));
        }
        if let Some(gate) = self.gates.get_mut(door) {
            gate.place.take_if(|place| place.leg == leg);
        }
    }

    /// There is no such door any more.
    pub fn forget_door(&mut self, door: &Number) {
        if self.gates.contains_key(door) {
            self.with_gate(door, |gate, acts| gate.lock.door_gone(acts));
            self.gates.remove(door);
            self.gate_timers.set(door.clone(), None);
        }
    }

    /// The first packet of its wish, outside of any dialog?
    pub fn is_new_order(&mut self, door: &Number, account: &Number, reqsn: u16, call_id: &str, cseq: u32) -> bool {
        let (now, mut new) = (self.now, true);
        self.with_gate(door, |gate, _| new = gate.twins.is_new(now, account.clone(), reqsn, Some(call_id), cseq));
        new
    }

    /// Lets the door's lock react and does what it wants.
    fn with_gate(&mut self, door: &Number, react: impl FnOnce(&mut Gate, &mut Vec<Act>)) {
        let mut gate = self.gates.remove(door).unwrap_or_else(|| {
            let lock = Lock::new(self.endpoint.tokens().random_u32(), self.settings.unlock);
            Gate { lock, place: None, pulse: None, twins: Twins::default() }
        });
        let mut acts = Vec::new();
        react(&mut gate, &mut acts);
        let mut done = Vec::new();
        while !acts.is_empty() {
            for act in std::mem::take(&mut acts) {
                match act {
                    Act::Pulse { reqsn, account, relay } => match self.pulse(&mut gate, door, reqsn, &account, relay) {
                        Sent::Pair => {}
                        Sent::Keys => gate.lock.relayed(self.now, &mut acts),
                        Sent::Nothing => gate.lock.unreachable(&mut acts),
                    },
                    Act::OtherRoad { refused } => match self.press_keys(&gate, door) {
                        true => gate.lock.relayed(self.now, &mut acts),
                        false => gate.lock.refused(refused, &mut acts),
                    },
                    Act::Silence => {
                        for tx in gate.pulse.iter().flat_map(|(_, pair, _)| pair) {
                            self.endpoint.stop_repeating(*tx);
                        }
                    }
                    act @ (Act::Tell { .. } | Act::Late { .. }) => done.push(act),
                }
            }
        }
        self.gate_timers.set(door.clone(), gate.lock.deadline());
        let place = gate.place.as_ref().map(|place| (place.session, place.call.clone()));
        self.gates.insert(door.clone(), gate);
        for act in done {
            match act {
                Act::Tell { asker, outcome, pulsed } => self.tell(door, asker, outcome, pulsed),
                Act::Late { reqsn, outcome, pulsed } => {
                    let (session, call) = place.clone().unzip();
                    self.note(session, "door", "server", "unlock result (late)".into());
                    self.write_late(door, call, reqsn, outcome, pulsed);
                }
                Act::Pulse { .. } | Act::OtherRoad { .. } | Act::Silence => {}
            }
        }
    }

    /// Tells the door, by the first road of its profile that takes anything.
    fn pulse(&mut self, gate: &mut Gate, door: &Number, reqsn: u16, account: &Number, relay: bool) -> Sent {
        if relay {
            return if self.press_star(gate) { Sent::Keys } else { Sent::Nothing };
        }
        let profile = match &gate.place {
            Some(place) => place.profile,
            None => self.profile_of(door),
        };
        let keys_first = profile.dialect == Dialect::AkuvoxKeys;
        if keys_first && self.press_keys(gate, door) {
            return Sent::Keys;
        }
        let order = body::order(reqsn, account);
        let (pair, leg) = match gate.place.as_ref().map(|place| place.leg) {
            Some(leg) => (self.send_pair(leg, &order), Some(leg)),
            None => (self.send_lone_pair(door, account, Method::Message, &order), None),
        };
        if leg.is_none() {
            self.orders.extend(pair.iter().map(|tx| (*tx, door.clone())));
        }
        if !pair.is_empty() {
            self.note(gate.place.as_ref().map(|p| p.session), "server", "door", format!("INFO unlock {reqsn} (pair)"));
            gate.pulse = Some((reqsn, pair, leg));
            return Sent::Pair;
        }
        if !keys_first && self.press_keys(gate, door) { Sent::Keys } else { Sent::Nothing }
    }

    fn profile_of(&self, door: &Number) -> &'static Profile {
        let chosen = self.directory.access(door.as_str()).and_then(|access| access.door.profile);
        let binding = self.location.get(door.as_str());
        Profile::of(chosen, binding.and_then(|binding| binding.user_agent.as_deref()).unwrap_or_default())
    }

    /// What is set for this door by its operator.
    pub fn ways_of(&self, door: &Number) -> DoorWays {
        self.directory.access(door.as_str()).map(|access| access.door.clone()).unwrap_or_default()
    }

    /// The keys that open this door, as its talker would press them.
    fn press_keys(&mut self, gate: &Gate, door: &Number) -> bool {
        let Some(place) = gate.place.as_ref().filter(|_| gate.takes_keys()) else { return false };
        let keys = self.ways_of(door).keys.unwrap_or_else(|| place.profile.keys.to_owned());
        keys.chars().all(|key| self.press_key(place, key, place.profile.key_length))
    }

    /// A person's `*`.
    fn press_star(&mut self, gate: &Gate) -> bool {
        let Some(place) = gate.place.as_ref().filter(|_| gate.takes_keys()) else { return false };
        self.press_key(place, '*', place.profile.key_length)
    }

    /// One key towards the door: RFC 4733 events, or an INFO if the door knows no events.
    pub fn press_key(&mut self, place: &Place, digit: char, length: Duration) -> bool {
        let Some(talker) = place.talker else { return false };
        if place.events {
            self.media(place.worker, Command::Press { session: place.session, leg: media_leg(talker), digit, length });
            self.note(Some(place.session), "server", "door", format!("DTMF {digit}"));
            return true;
        }
        let body = format!("Signal={digit}\r\nDuration={}\r\n", length.as_millis());
        let body = Some(("application/dtmf-relay", body.as_bytes()));
        self.note(Some(place.session), "server", "door", format!("INFO DTMF {digit}"));
        self.endpoint.request(self.now, place.leg, &Method::Info, &Headers::new(), body, self.sip).is_some()
    }

    /// Two requests in one dialog, each a transaction of its own (OPEN-10). None: the dialog takes none.
    fn send_pair(&mut self, leg: LegId, body: &str) -> Vec<TxId> {
        let mut send = || {
            let body = Some(("application/json", body.as_bytes()));
            self.endpoint.request(self.now, leg, &Method::Info, &Headers::new(), body, self.sip)
        };
        [send(), send()].into_iter().flatten().collect()
    }

    /// The same outside of any dialog, to where an account is registered.
    fn send_lone_pair(&mut self, to: &Number, from: &Number, method: Method, body: &str) -> Vec<TxId> {
        let Some(binding) = self.location.get(to.as_str()) else { return Vec::new() };
        let (flow, contact, routes) = (binding.flow, binding.contact_uri.clone(), binding.routes());
        let (call_id, host) = (self.endpoint.tokens().token(), flow.local.ip());
        let host = if host.is_ipv6() { format!("[{host}]") } else { host.to_string() };
        let mut send = |cseq| {
            let lone = Lone {
                flow,
                method: method.clone(),
                uri: &contact,
                routes: &routes,
                from: &format!("<sip:{from}@{host}>"),
                to: &format!("<sip:{to}@{host}>"),
                call_id: &call_id,
                cseq,
                headers: Headers::new(),
                body: Some(("application/json", body.as_bytes())),
            };
            self.endpoint.send(self.now, lone, self.sip)
        };
        vec![send(1), send(2)]
    }

    /// Exactly one result per asker, and its entry in the record. The good news waits for that, a moment (D-29).
    fn tell(&mut self, door: &Number, asker: Asker, outcome: Outcome, pulsed: Option<Instant>) {
        let record = self.record_of(door, &asker, pulsed, outcome.name().to_owned(), outcome.status());
        let told = Told { door: door.clone(), asker, outcome };
        let awaited = if outcome.status() == 200 {
            Some(self.held.hold(self.now, told))
        } else {
            self.deliver(&told);
            None
        };
        if outcome == Outcome::Opened {
            self.tell_of_opening(&record);
        }
        self.publish(Publication::Record(Box::new(Record { awaited, ..record })));
    }

    /// Hands a result to the one who asked.
    pub fn deliver(&mut self, told: &Told) {
        let Told { door, asker, outcome } = told;
        let (outcome, status) = (*outcome, outcome.status());
        match &asker.channel {
            Channel::Info { leg, reqsn } => {
                let session = self.sessions.get(leg).copied();
                self.send_pair(*leg, &body::result(*reqsn, status));
                self.note(session, "server", asker.account.as_str(), format!("INFO unlock result {status} (pair)"));
            }
            Channel::Lone { method, reqsn } => {
                let told = self.send_lone_pair(&asker.account, door, method.clone(), &body::result(*reqsn, status));
                if told.is_empty() {
                    self.count("unlock_result_not_deliverable");
                }
            }
            Channel::Ticket(ticket) => {
                let (ticket, took) = (*ticket, self.now.saturating_duration_since(asker.at));
                self.publish(Publication::Unlocked { ticket, outcome, took });
            }
            Channel::Nothing => {}
        }
    }

    /// Whoever still waits for the disk in this leg is told before it goes.
    pub fn tell_held(&mut self, goes: LegId) {
        for told in self.held.take(|told| matches!(&told.asker.channel, Channel::Info { leg, .. } if *leg == goes)) {
            self.deliver(&told);
        }
    }

    fn note(&mut self, session: Option<SessionId>, from: &str, to: &str, what: String) {
        self.notes.extend(session.map(|session| Note { session, from: from.to_owned(), to: to.to_owned(), what }));
    }

    /// The wish goes to be written before its pulse leaves; nothing waits for the disk (D-29).
    fn asked(&mut self, door: &Number, asker: &Asker) {
        let record = self.record_of(door, asker, None, ASKED.to_owned(), 0);
        self.publish(Publication::Asked(Box::new(record)));
    }

    fn record_of(&self, door: &Number, asker: &Asker, pulsed: Option<Instant>, outcome: String, status: u16) -> Record {
        let reqsn = match asker.channel {
            Channel::Info { reqsn, .. } | Channel::Lone { reqsn, .. } => reqsn,
            Channel::Ticket(_) | Channel::Nothing => 0,
        };
        let place = self.gates.get(door).and_then(|gate| gate.place.as_ref());
        let room = place.filter(|place| asker.call.as_ref() == Some(&place.call)).map(|place| place.room.clone());
        Record {
            account: asker.account.to_string(),
            road: asker.road.name().to_owned(),
            room: room.unwrap_or_default(),
            call: asker.call.clone().unwrap_or_default(),
            reqsn,
            snapshot: asker.picture.clone(),
            ..self.record(door, asker.at, pulsed, outcome, status)
        }
    }

    /// The door's answer to a pulse whose askers were told "unknown" (D-25).
    fn write_late(&mut self, door: &Number, call: Option<String>, reqsn: u16, outcome: Outcome, pulsed: Instant) {
        let name = format!("{LATE}{}", outcome.name());
        let call = call.unwrap_or_default();
        let record = Record { reqsn, call, ..self.record(door, pulsed, Some(pulsed), name, outcome.status()) };
        if outcome == Outcome::Opened {
            self.tell_of_opening(&record);
        }
        self.publish(Publication::Record(Box::new(record)));
    }

    /// The event and the passage of an opening, one each for everybody who wished it (spec events.md §4).
    fn tell_of_opening(&mut self, record: &Record) {
        let app = self.app_of(&Number::new(&record.door));
        let call = Some(record.call.clone()).filter(|call| !call.is_empty());
        let place = self.gates.get(record.door.as_str()).and_then(|gate| gate.place.as_ref());
        let place = place.filter(|place| place.call == record.call);
        let group = place.and_then(|place| place.group.as_ref()).map(ToString::to_string).unwrap_or_default();
        let late = record.outcome.starts_with(LATE);
        let passage = Passage {
            at_ms: record.ended_ms,
            door: record.door.clone(),
            account: record.account.clone(),
            sent_ms: record.sent_ms,
            method: record.road.clone(),
            call: call.clone(),
            dialled: place.map(|place| place.room.clone()).unwrap_or_default(),
            group,
            capture_img: record.snapshot.clone(),
            late,
            app: app.clone(),
            ..Passage::default()
        };
        // A late report does not say for whom: it is the door's own.
        let source = if late { record.door.clone() } else { record.account.clone() };
        let reason = Some(if late { "late".to_owned() } else { record.road.clone() });
        let target = Target::Number(record.door.clone());
        let event = Event { kind: Kind::Unlocked, at_ms: record.ended_ms, source, target, call, reason, app };
        self.publish(Publication::Event(Box::new(event)));
        self.publish(Publication::Passage(Box::new(passage)));
    }

    /// The one place where entries are made.
    fn record(&self, door: &Number, asked: Instant, pulsed: Option<Instant>, outcome: String, status: u16) -> Record {
        Record {
            road: super::Road::Info.name().to_owned(),
            door: door.to_string(),
            // The same moment is the same number in every entry: entries find each other by it.
            asked_ms: self.unix_ms_at(asked),
            sent_ms: pulsed.map(|at| self.unix_ms_at(at)),
            ended_ms: self.unix_ms,
            outcome,
            status,
            ..Record::default()
        }
    }
}
