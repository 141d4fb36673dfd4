//! [`Switchboard`]: all signalling state of the server in one pure machine: endpoint, directory, location, calls, ports.
//!
//! Bytes, orders, media events and time go in; [`Effect`]s come out in a buffer that the caller owns. One owner, no
//! locks, nothing polled: the driver is the only user outside of tests.

mod access;
mod apply;
pub mod bans;
pub mod limits;
mod ping;
mod presence;
mod register;
mod relay;
mod ring;
mod route;
mod unlock;

use crate::call::Call;
use crate::control::{Answer, BanView, Numbers, Order};
use crate::directory::{Applied, Directory};
use crate::held::Held;
use crate::live::{CallId, Kept, Registration};
use crate::model::{DirectoryChange, Number};
use crate::turn::{CallTimer, Effect, Publication, Settings, Turn, unix_ms};
use crate::unlock::gate::{Gate, Note};
use bytes::Bytes;
use limits::{Guard, Sender};
use media::asking::Way;
use media::command::{self, SessionId};
use media::ports::PortStock;
use media::snapshot::Preset;
use ping::Pings;
use presence::Absence;
use register::Surge;
use sip_core::digest::{Algorithm, Challenger};
use sip_core::endpoint::{Endpoint, Event, Headers, Identity, LegId, Out, TxId};
use sip_core::flow::{Flow, Transport};
use sip_core::location::{self, Binding, Change, Location, Unbound};
use sip_core::message::{Message, Method};
use sip_core::registrar::Limits;
use sip_core::timers::Timers;
use sip_core::token::Tokens;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// Methods we serve: what `Allow` says.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK, MESSAGE, REGISTER";
/// Extensions of dialogs that we know: what `Supported` says and `Require` may ask for.
pub const SUPPORTED: &str = "100rel, timer";
/// The session timer we ask for, in seconds. Only if a talk may last longer: else its limit ends a dead one sooner, and
/// refreshes would be noise.
const SESSION_EXPIRES: u32 = 1800;

/// Bindings at once: one per account, so a town's worth of accounts, at no more than 1 KiB each. An account that is not bound
/// yet gets 503 beyond.
pub const MAX_BINDINGS: usize = 250_000;
/// Calls at once, ended ones that wait for their last counters included: more than ports could carry. Beyond: 503.
pub const MAX_CALLS: usize = 20_000;
/// Seconds after which one who met a full table may try again.
pub const RETRY_AFTER_S: u32 = 5;

/// What a Switchboard is made of; everything random or read from a clock is handed in.
pub struct Parts {
    pub settings: Settings,
    pub realm: String,
    /// Host for Via and Contact; `None`: the local address of the flow.
    pub public_host: Option<String>,
    pub directory: Directory,
    pub ports: PortStock,
    /// Seeds all minted ids (D-13).
    pub seed: [u8; 32],
    /// Signs nonces (D-11).
    pub nonce_key: [u8; 32],
    /// A moment on both clocks.
    pub epoch: (Instant, i64),
}

/// See the module text.
pub struct Switchboard {
    settings: Settings,
    realm: String,
    limits: Limits,
    epoch: (Instant, i64),
    endpoint: Endpoint,
    challenger: Challenger,
    directory: Directory,
    location: Location,
    surge: Surge,
    pings: Pings,
    absence: Absence,
    ports: PortStock,
    guard: Guard,
    calls: BTreeMap<SessionId, Call>,
    sessions: HashMap<LegId, SessionId>,
    /// The running call of a caller (D-07).
    callers: HashMap<Number, SessionId>,
    /// The answered call of an app account (D-36).
    talking: HashMap<Number, SessionId>,
    ending: HashMap<Number, (LegId, Instant)>,
    /// MESSAGEs on their way: our request, and whose answer waits for it.
    relays: HashMap<TxId, TxId>,
    key_frames_by: BTreeMap<Number, Way>,
    gates: BTreeMap<Number, Gate>,
    gate_timers: Timers<Number>,
    /// Requests outside of dialogs that tell a door to open.
    orders: HashMap<TxId, Number>,
    notes: Vec<Note>,
    next_ticket: u64,
    held: Held,
    timers: Timers<(SessionId, CallTimer)>,
    next_session: u64,
    draining: bool,
    counters: BTreeMap<&'static str, u64>,
    /// Scratch of one turn, kept for its capacity.
    sip: Out,
    /// The same: events while they are handled.
    heard: Vec<Event>,
}

impl Switchboard {
    pub fn new(parts: Parts) -> Switchboard {
        let identity = Identity {
            product: concat!("Doorline/", env!("CARGO_PKG_VERSION")).to_owned(),
            public_host: parts.public_host,
            allow: ALLOW,
            supported: SUPPORTED,
            session_expires: (parts.settings.talk_limit.as_secs() > SESSION_EXPIRES.into()).then_some(SESSION_EXPIRES),
        };
        let algorithms = if parts.settings.sha256 { Algorithm::SHA256_AND_MD5 } else { Algorithm::MD5 };
        Switchboard {
            guard: Guard::new(parts.settings.source_rate),
            challenger: Challenger::new(parts.nonce_key, &parts.realm, algorithms),
            pings: Pings::new(parts.settings.ping),
            absence: Absence::new(parts.settings.door_alarm, parts.epoch.0, &parts.directory),
            settings: parts.settings,
            realm: parts.realm,
            limits: Limits::default(),
            epoch: parts.epoch,
            endpoint: Endpoint::new(identity, Tokens::new(0, parts.seed)),
            directory: parts.directory,
            location: Location::default(),
            surge: Surge::default(),
            ports: parts.ports,
            calls: BTreeMap::new(),
            sessions: HashMap::new(),
            callers: HashMap::new(),
            talking: HashMap::new(),
            ending: HashMap::new(),
            relays: HashMap::new(),
            key_frames_by: BTreeMap::new(),
            gates: BTreeMap::new(),
            gate_timers: Timers::default(),
            orders: HashMap::new(),
            notes: Vec::new(),
            next_ticket: 0,
            held: Held::default(),
            timers: Timers::default(),
            next_session: 0,
            draining: false,
            counters: BTreeMap::new(),
            sip: Out::default(),
            heard: Vec::new(),
        }
    }

    /// One message, a datagram or one of a connection, from its arrival to its consequences.
    pub fn receive(&mut self, now: Instant, flow: Flow, datagram: Bytes, out: &mut Vec<Effect>) {
        if self.admit(now, &flow).is_some() {
            self.serve(now, flow, datagram, out);
        }
    }

    /// The first half: a datagram has come, whose is it? `None`: it is not looked at. Cheap, so that the driver can sort what a
    /// flood brings faster than it comes.
    pub fn admit(&mut self, now: Instant, flow: &Flow) -> Option<Sender> {
        match self.guard.admit(now, flow.remote) {
            Ok(sender) => Some(sender),
            Err(limited) => {
                self.count(limited.name());
                None
            }
        }
    }

    /// Has a right password come from there lately?
    pub fn knows(&self, now: Instant, flow: &Flow) -> bool {
        self.guard.knows(now, flow.remote)
    }

    /// The second half, for what was admitted.
    pub fn serve(&mut self, now: Instant, flow: Flow, datagram: Bytes, out: &mut Vec<Effect>) {
        self.pings.heard(now, &flow);
        self.endpoint.receive(now, flow, datagram, &mut self.sip);
        self.pump(now, out);
    }

    /// A connection is gone, or something was to be sent on one that is: its bindings are void, its pending legs end, answered
    /// ones stay until their peer is heard from elsewhere.
    pub fn flow_closed(&mut self, now: Instant, flow: Flow, out: &mut Vec<Effect>) {
        while let Some(change) = self.location.lost(&flow) {
            self.count("binding_lost_its_connection");
            self.change_location(now, change, out);
        }
        self.endpoint.flow_closed(now, &flow, &mut self.sip);
        self.pump(now, out);
    }

    /// Runs everything that is due.
    pub fn timeout(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.endpoint.timeout(now, &mut self.sip);
        self.pump(now, out);
        while let Some((session, timer)) = self.timers.pop(now) {
            self.with_call(now, session, out, |call, turn| call.timeout(turn, timer));
            match timer {
                CallTimer::Linger => {
                    self.calls.remove(&session);
                }
                CallTimer::Retry => self.retry(now, session, out),
                CallTimer::Ring | CallTimer::Absent | CallTimer::Progress | CallTimer::Talk => {}
            }
        }
        while let Some(door) = self.gate_timers.pop(now) {
            self.at_gate(now, out, |turn| turn.gate_timeout(&door));
        }
        while let Some(told) = self.held.due(now) {
            self.count("unlock_told_before_written");
            self.at_gate(now, out, |turn| turn.deliver(&told));
        }
        while let Some(change) = self.location.expired(now) {
            self.change_location(now, change, out);
        }
        self.look_for_absent_doors(now, out);
        while let Some(flow) = self.pings.due(now) {
            self.ping(now, flow);
        }
        self.pump(now, out);
    }

    /// When [`Switchboard::timeout`] wants to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        [
            self.endpoint.next_deadline(),
            self.timers.next(),
            self.gate_timers.next(),
            self.location.next_deadline(),
            self.pings.next_deadline(),
            self.absence.next_deadline(),
            self.held.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Entries of the record that somebody awaits are on the disk ([`Held`]).
    pub fn committed(&mut self, now: Instant, numbers: &[u64], out: &mut Vec<Effect>) {
        for number in numbers {
            if let Some(told) = self.held.committed(*number) {
                self.at_gate(now, out, |turn| turn.deliver(&told));
            }
        }
        self.pump(now, out);
    }

    /// An order of the HTTP side.
    pub fn command(&mut self, now: Instant, order: Order, out: &mut Vec<Effect>) -> Answer {
        match order {
            Order::Apply(changes) => {
                self.apply(now, changes, out);
                Answer::Done
            }
            Order::HangUp(id) => self.hang_up(now, &id, out),
            Order::Picture { call, preset, ticket } => self.picture(now, &call, preset, ticket, out),
            Order::Unlock { door, asker } => self.unlock_for_owner(now, &door, &asker, out),
            Order::Numbers => Answer::Numbers(Box::new(self.numbers(now))),
            Order::Bans => Answer::Bans(self.guard.bans.list(now).map(|ban| self.ban_view(&ban)).collect()),
            Order::Unban { source, account } => {
                if self.guard.bans.forget(limits::source(source), &account) {
                    Answer::Done
                } else {
                    Answer::NotFound
                }
            }
        }
    }

    /// What a media worker tells.
    pub fn media(&mut self, now: Instant, event: command::Event, out: &mut Vec<Effect>) {
        let session = match &event {
            command::Event::AnchorHeard { session }
            | command::Event::FirstKeyFrame { session, .. }
            | command::Event::KeyFrameWanted { session }
            | command::Event::KeyFrameBy { session, .. }
            | command::Event::Picture { session, .. }
            | command::Event::FirstVideo { session, .. }
            | command::Event::Silent { session, .. }
            | command::Event::Digit { session, .. }
            | command::Event::Report { session, .. } => *session,
            command::Event::Noise { pair } => return self.ports.noise(now, *pair),
        };
        let mut over = false;
        self.with_call(now, session, out, |call, turn| over = call.media(turn, event));
        if over {
            self.timers.set((session, CallTimer::Linger), None);
            self.calls.remove(&session);
        }
        self.pump(now, out);
    }

    /// A media worker could not take a command: its call cannot go on.
    pub fn media_refused(&mut self, now: Instant, session: SessionId, out: &mut Vec<Effect>) {
        *self.counters.entry("media_queue_full").or_default() += 1;
        self.with_call(now, session, out, |call, turn| call.end(turn, "media overloaded", Some(503)));
        self.pump(now, out);
    }

    /// From now on new calls get 503 (SIGTERM).
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Calls that have not ended.
    pub fn running_calls(&self) -> usize {
        self.calls.values().filter(|call| !call.is_ended()).count()
    }

    /// Ends everything that runs.
    pub fn hang_up_all(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let sessions: Vec<SessionId> = self.calls.keys().copied().collect();
        for session in sessions {
            self.with_call(now, session, out, |call, turn| call.end(turn, "server stopped", Some(503)));
        }
        self.pump(now, out);
    }

    /// Named counts of everything refused, dropped or given up, of all parts.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        let mut all = self.counters.clone();
        for (name, count) in self.endpoint.counters() {
            *all.entry(name).or_default() += count;
        }
        all.insert("ports_reused_early", self.ports.reused_early());
        all
    }

    /// What is still held: (server transactions, client transactions, SIP legs, calls). All zero when nothing runs.
    pub fn sizes(&self) -> (usize, usize, usize, usize) {
        let (servers, clients, legs) = self.endpoint.sizes();
        (servers, clients, legs, self.calls.len())
    }

    /// What `/metrics` shows.
    fn numbers(&self, now: Instant) -> Numbers {
        let (servers, clients, legs, _) = self.sizes();
        let (buckets, known) = self.guard.sizes();
        let gauges = vec![
            ("registrations", self.location.len()),
            ("calls_running", self.running_calls()),
            ("transactions_in", servers),
            ("transactions_out", clients),
            ("legs", legs),
            ("bans", self.guard.bans.list(now).count()),
            ("buckets", buckets),
            ("known_addresses", known),
            ("free_ports", self.free_ports()),
        ];
        Numbers { events: self.counters(), gauges }
    }

    fn ban_view(&self, ban: &bans::Ban) -> BanView {
        BanView {
            source: ban.source,
            account: ban.account.to_string(),
            until_ms: self.unix_ms(ban.until),
            failures: ban.failures,
        }
    }

    /// Port pairs nobody uses.
    pub fn free_ports(&self) -> usize {
        self.ports.free()
    }

    fn hang_up(&mut self, now: Instant, id: &CallId, out: &mut Vec<Effect>) -> Answer {
        let Some(session) = self.calls.values().find(|call| call.id() == id && !call.is_ended()).map(Call::session) else {
            return Answer::NotFound;
        };
        self.with_call(now, session, out, |call, turn| call.end(turn, "ended by operator", Some(480)));
        self.pump(now, out);
        Answer::Done
    }

    fn picture(&mut self, now: Instant, id: &CallId, preset: Preset, ticket: u64, out: &mut Vec<Effect>) -> Answer {
        let Some(session) = self.calls.values().find(|call| call.id() == id).map(Call::session) else {
            return Answer::NotFound;
        };
        let mut answer = Answer::Done;
        self.with_call(now, session, out, |call, turn| {
            if let Err(none) = call.show(turn, preset, ticket) {
                answer = Answer::NoPicture(none.text());
            }
        });
        answer
    }

    /// A party of an answered call whose connection broke is back, and has just proved who it is: its leg goes on there, so
    /// that it hears when the call ends. A leg that has its connection is not touched by a REGISTER (D-06).
    fn revive(&mut self, binding: &Binding) {
        let account = &*binding.account;
        let sessions = [self.talking.get(account), self.callers.get(account)].into_iter().flatten();
        let leg = sessions.filter_map(|session| self.calls.get(session)?.talking_leg(account)).next();
        if let Some(leg) = leg.filter(|leg| self.endpoint.is_cut_off(*leg)) {
            self.endpoint.move_leg(leg, binding.flow);
        }
    }

    fn member_appeared(&mut self, now: Instant, binding: &Binding, out: &mut Vec<Effect>) {
        let ringing: Vec<SessionId> =
            self.calls.values().filter(|call| call.rings(&binding.account)).map(Call::session).collect();
        for session in ringing {
            if !self.talking.contains_key(&*binding.account) {
                self.with_call(now, session, out, |call, turn| call.member_appeared(turn, binding));
            }
        }
    }

    /// Phones that were busy with an ended ring of ours get their leg now, if they are still registered.
    fn retry(&mut self, now: Instant, session: SessionId, out: &mut Vec<Effect>) {
        let accounts = self.calls.get_mut(&session).map(Call::take_retries).unwrap_or_default();
        for account in accounts {
            if let Some(binding) = self.location.get(account.as_str()).cloned() {
                self.with_call(now, session, out, |call, turn| call.member_appeared(turn, &binding));
            }
        }
    }

    fn unix_ms(&self, at: Instant) -> i64 {
        unix_ms(self.epoch, at)
    }

    /// Handles what the endpoint heard until it has nothing more to say. Datagrams leave in the order they were made.
    fn pump(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let mut events = std::mem::take(&mut self.heard);
        loop {
            std::mem::swap(&mut events, &mut self.sip.events);
            self.flush(out);
            if events.is_empty() {
                break;
            }
            for event in events.drain(..) {
                self.event(now, event, out);
                self.flush(out);
            }
        }
        self.heard = events;
    }

    fn flush(&mut self, out: &mut Vec<Effect>) {
        out.extend(self.sip.transmits.drain(..).map(Effect::Send));
    }

    fn event(&mut self, now: Instant, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Request { tx, request, flow } => self.request(now, tx, request, flow, out),
            Event::LegRequest { leg, tx, request, same_flow: false, .. } => {
                // D-13: only the leg's own account, and then it comes again as if it had come the leg's own way.
                let call = self.sessions.get(&leg).and_then(|session| self.calls.get(session));
                let Some(account) = call.and_then(|call| call.party(leg)).cloned() else {
                    return self.stranger(tx, 481, "no_dialog");
                };
                if self.authenticate(now, tx, &request, Some(account.as_str())).is_some() {
                    self.endpoint.adopt(now, tx, &mut self.sip);
                }
            }
            Event::LegRequest { leg, tx, request, .. } => match request.method() {
                Some(Method::Bye) => self.with_leg(now, leg, out, |call, turn| call.bye(turn, leg, tx)),
                _ if self.refuses_extension(now, tx, &request) => {}
                _ => self.with_leg(now, leg, out, |call, turn| call.request(turn, leg, tx, &request)),
            },
            Event::Progress { leg, response } => self.with_leg(now, leg, out, |call, turn| call.progress(turn, leg, &response)),
            Event::Answered { leg, response } => self.with_leg(now, leg, out, |call, turn| call.answered(turn, leg, &response)),
            Event::Refused { leg, code, response } => {
                self.with_leg(now, leg, out, |call, turn| call.refused(turn, leg, code, response.as_ref()));
            }
            Event::Cancelled { leg } => self.with_leg(now, leg, out, |call, turn| call.cancelled(turn)),
            Event::Lost { leg } => self.with_leg(now, leg, out, |call, turn| call.lost(turn)),
            Event::Confirmed { leg, ack } => self.with_leg(now, leg, out, |call, turn| call.confirmed(turn, leg, &ack)),
            Event::Expired { leg } => self.with_leg(now, leg, out, |call, turn| call.leg_lost(turn, leg, "session expired")),
            Event::NotAcknowledged { leg } => self.with_leg(now, leg, out, |call, turn| call.not_acknowledged(turn, leg)),
            Event::Response { leg: Some(leg), method: Method::Invite, response, .. } => {
                self.with_leg(now, leg, out, |call, turn| call.reinvited(turn, leg, response.as_ref()));
            }
            Event::Response { leg: Some(leg), tx, response, .. } => {
                self.with_leg(now, leg, out, |call, turn| call.response(turn, tx, response.as_ref()));
            }
            Event::Response { leg: None, tx, response, method: Method::Options } => self.pinged(now, tx, response.is_some(), out),
            Event::Response { leg: None, tx, response, .. } if self.orders.contains_key(&tx) => {
                self.order_answered(now, tx, response.as_ref(), out);
            }
            Event::Response { leg: None, tx, response, .. } => self.relayed(now, tx, response.as_ref()),
        }
    }

    fn with_leg(&mut self, now: Instant, leg: LegId, out: &mut Vec<Effect>, act: impl FnOnce(&mut Call, &mut Turn<'_>)) {
        if let Some(&session) = self.sessions.get(&leg) {
            self.with_call(now, session, out, act);
        }
    }

    /// Lets a call react, then brings the indexes that are derived from its state up to date.
    fn with_call(&mut self, now: Instant, session: SessionId, out: &mut Vec<Effect>, act: impl FnOnce(&mut Call, &mut Turn<'_>)) {
        let Some(mut call) = self.calls.remove(&session) else { return };
        act(&mut call, &mut self.turn(now, out));
        self.index(&call);
        self.calls.insert(session, call);
        self.flush(out);
    }

    fn index(&mut self, call: &Call) {
        let session = call.session();
        if call.is_ended() {
            if self.callers.get(call.caller()) == Some(&session) {
                self.callers.remove(call.caller());
            }
            self.talking.retain(|_, talking| *talking != session);
        } else {
            self.callers.insert(call.caller().clone(), session);
            if let Some(winner) = call.winner() {
                self.talking.insert(winner.clone(), session);
            }
        }
    }

    fn turn<'a>(&'a mut self, now: Instant, effects: &'a mut Vec<Effect>) -> Turn<'a> {
        Turn {
            now,
            unix_ms: self.unix_ms(now),
            epoch: self.epoch,
            endpoint: &mut self.endpoint,
            sip: &mut self.sip,
            effects,
            ports: &mut self.ports,
            timers: &mut self.timers,
            sessions: &mut self.sessions,
            key_frames_by: &mut self.key_frames_by,
            directory: &self.directory,
            location: &self.location,
            gates: &mut self.gates,
            gate_timers: &mut self.gate_timers,
            orders: &mut self.orders,
            notes: &mut self.notes,
            held: &mut self.held,
            ending: &mut self.ending,
            settings: &self.settings,
            counters: &mut self.counters,
        }
    }

    fn count(&mut self, name: &'static str) {
        *self.counters.entry(name).or_default() += 1;
    }

    /// 503: a table is full. Stateless, because the next one would be the transactions'.
    fn table_full(&mut self, tx: TxId, name: &'static str) {
        self.count(name);
        let headers = vec![("Retry-After", RETRY_AFTER_S.to_string())];
        self.endpoint.respond_stateless(tx, 503, &headers, &mut self.sip);
    }

    fn refuse(&mut self, now: Instant, tx: TxId, code: u16, name: &'static str) {
        self.count(name);
        self.endpoint.respond(now, tx, code, &Headers::new(), None, &mut self.sip);
    }
}
