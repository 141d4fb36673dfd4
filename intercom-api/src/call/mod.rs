//! [`Call`]: the machine of one ring (spec sip.md §6). The door has one leg and one early dialog however many phones ring
//! (D-01); every phone has its own leg, its own offer and its own copy of the door's stream.
//!
//! ```text
//! Ringing ──first 200──▶ Answered ──BYE, talk limit──▶ Ended
//!    └── all declined, ring timeout, caller gave up ──────▶ Ended (counters may still arrive)
//! ```
//!
//! The winner is decided in [`Call::answered`] and nowhere else (D-09). Nothing of a member reaches the door before that
//! (D-05): media gets `Talk` only there.

pub(crate) mod digits;
mod door;
mod end;
mod events;
mod member;
pub mod picture;
mod plan;
mod record;
mod renew;

use crate::live::{CallId, CallView};
use crate::model::{AccountType, App, Number};
use crate::profile::Profile;
use crate::turn::{CallTimer, Publication, Turn};
use crate::unlock::gate::Place;
use media::command::{self, Command, SessionId, WorkerId};
use member::Member;
use picture::Pictures;
use plan::LegPorts;
use record::Ladder;
use sip_core::endpoint::{Headers, LegId, TxId};
use sip_core::flow::Flow;
use sip_core::location::Binding;
use sip_core::message::{Message, Name};
use sip_core::sdp::{self, Door, Sdp};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// D-08: how long an account may stay unregistered before it counts as unreachable; a push may be on its way.
const ABSENT_AFTER: Duration = Duration::from_secs(20);
/// How long an ended call waits for its last counters.
const LINGER: Duration = Duration::from_secs(5);
/// D-02: when the 183 is repeated until the door is heard, and from then on.
const PROGRESS_REPEATS: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
const PROGRESS_KEEPALIVE: Duration = Duration::from_secs(60);
/// How soon a phone is tried again that was busy with an ended ring of ours.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Legs one call may ever have; a phone that registers again and again must not grow it without end.
const MAX_LEGS: usize = 64;

/// Told to phones that lose (RFC 3326, spec OPEN-05).
const ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";

/// Why a call was refused before it rang. Each has a status and a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuse {
    /// A session description we cannot read.
    BadOffer,
    /// No codec of the offer is ours.
    NothingInCommon,
    /// No free ports.
    NoPorts,
}

impl Refuse {
    pub fn code(self) -> u16 {
        match self {
            Refuse::BadOffer => 400,
            Refuse::NothingInCommon => 488,
            Refuse::NoPorts => 503,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Refuse::BadOffer => "bad_offer",
            Refuse::NothingInCommon => "nothing_in_common",
            Refuse::NoPorts => "no_ports",
        }
    }
}

/// What is known of one account of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not registered, or its phone did not answer our INVITE at all.
    Absent,
    /// Has a leg.
    Ringing,
    /// Said no, with this status; `Busy` counts as 486.
    Declined(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ringing,
    Answered { winner: LegId },
    Ended,
}

/// Who calls whom.
#[derive(Clone, Debug)]
pub struct Ring {
    pub id: CallId,
    pub session: SessionId,
    pub caller: Number,
    /// Whose account the caller's is.
    pub app: App,
    /// Shown on the phones; the account's name or its number.
    pub caller_name: String,
    /// As dialled, and the group it meant.
    pub dialled: String,
    pub group: Option<Number>,
    pub accounts: Vec<Number>,
    /// Host of our URIs towards the members.
    pub domain: String,
}

/// One ring, from the door's INVITE to its last counter.
pub struct Call {
    ring: Ring,
    worker: WorkerId,
    state: State,
    end_reason: Option<String>,
    door_leg: LegId,
    sip_call_id: String,
    door: Door,
    door_ports: LegPorts,
    /// The one SDP the door sees until it offers anew (D-01, D-09), and what its `o=` and `c=` lines are made of.
    answer: Sdp,
    /// The door's INVITE had no offer: `answer` is ours.
    offerless: bool,
    /// Legs that owe an answer to an offer of ours, in ACK or PRACK.
    offered: Vec<LegId>,
    door_ip: IpAddr,
    door_sdp: (u64, u64),
    /// Next of [`PROGRESS_REPEATS`]; `None` once the door was heard.
    progress: Option<usize>,
    /// The door knows that somewhere it rings.
    told_ringing: bool,
    /// A door that acknowledges its 183 has our description with the first one.
    described: bool,
    standings: BTreeMap<Number, Standing>,
    /// In boxes: a node of the map has room for eleven, and a room rarely has.
    members: BTreeMap<LegId, Box<Member>>,
    /// Where the caller is, for what opens it.
    place: Place,
    /// Do the winner's keys reach the door (D-27)?
    keys_pass: bool,
    /// Our last INFO that asks the door for a key frame.
    key_frame_info: Option<TxId>,
    /// The last key, by whom, which way and when: a device that tells it both ways pressed it once.
    key: Option<(LegId, char, digits::Road, Instant)>,
    /// Accounts to ring once more at [`CallTimer::Retry`].
    retries: Vec<Number>,
    started: Instant,
    /// From when on accounts without a leg count as unreachable (D-08); later for a phone that loses its connection meanwhile.
    absent_at: Instant,
    started_ms: i64,
    answered: Option<(Number, i64)>,
    ended_ms: Option<i64>,
    /// First complete key frame of the door (D-20).
    first_key_frame: Option<Instant>,
    door_report: (command::StreamReport, command::StreamReport),
    pictures: Pictures,
    ladder: Ladder,
}

impl Call {
    /// The door's INVITE: 183 with SDP at once and no 100 before it (D-02), then a leg per registered account.
    pub fn ring(turn: &mut Turn<'_>, ring: Ring, tx: TxId, request: &Message, flow: Flow) -> Result<Call, Refuse> {
        let offerless = request.body().is_empty();
        let offer = (!offerless).then(|| Sdp::parse(request.body())).transpose().map_err(|_| Refuse::BadOffer)?;
        let leg = turn.endpoint.take(tx).ok_or(Refuse::BadOffer)?;
        turn.sessions.insert(leg, ring.session);
        let refused = |turn: &mut Turn<'_>, refuse: Refuse| {
            turn.sessions.remove(&leg);
            turn.endpoint.answer(turn.now, leg, refuse.code(), &Headers::new(), None, turn.sip);
            refuse
        };
        let Some(worker) = turn.ports.choose_worker() else { return Err(refused(turn, Refuse::NoPorts)) };
        let has = |kind: &sdp::Kind| {
            let mut media = offer.iter().flat_map(|offer| &offer.media);
            offerless || media.any(|media| media.kind == *kind && media.port != 0)
        };
        let (audio, video) = (has(&sdp::Kind::Audio), has(&sdp::Kind::Video));
        let Some(mut ports) = LegPorts::take(turn, worker, leg, flow.remote.ip(), audio, video) else {
            return Err(refused(turn, Refuse::NoPorts));
        };
        let ip = turn.settings.media_ip.unwrap_or(flow.local.ip());
        let session_id = u64::from(turn.endpoint.tokens().random_u32());
        offer.iter().for_each(|offer| ports.meet_ice(turn, offer));
        let local = ports.local(ip, session_id, 1);
        let (answer, door) = match offer.map_or_else(|| Ok(sdp::offer_door(&local)), |offer| sdp::answer_door(&offer, &local)) {
            Ok(negotiated) => negotiated,
            Err(_) => {
                ports.release(turn);
                return Err(refused(turn, Refuse::NothingInCommon));
            }
        };
        let ways = turn.ways_of(&ring.caller);
        let mut payloads = door.audio.iter().flat_map(|audio| &audio.payloads);
        let place = Place {
            session: ring.session,
            worker,
            leg,
            call: ring.id.to_string(),
            room: ring.dialled.clone(),
            group: ring.group.clone(),
            profile: Profile::of(ways.profile, request.header(Name::UserAgent).unwrap_or_default()),
            events: payloads.any(|payload| payload.codec.is_telephone_event()),
            talker: None,
        };
        let mut call = Call {
            place,
            worker,
            state: State::Ringing,
            end_reason: None,
            door_leg: leg,
            sip_call_id: request.call_id().unwrap_or_default().to_owned(),
            answer,
            offerless,
            offered: Vec::from_iter(offerless.then_some(leg)),
            door_ip: ip,
            door_sdp: (session_id, 1),
            door,
            door_ports: ports,
            // What a reliable transport carries needs no repeating.
            progress: (!flow.transport.is_reliable()).then_some(0),
            told_ringing: false,
            described: false,
            standings: ring.accounts.iter().map(|account| (account.clone(), Standing::Absent)).collect(),
            members: BTreeMap::new(),
            keys_pass: true,
            key_frame_info: None,
            key: None,
            retries: Vec::new(),
            started: turn.now,
            absent_at: turn.now + ABSENT_AFTER,
            started_ms: turn.unix_ms,
            answered: None,
            ended_ms: None,
            first_key_frame: None,
            door_report: Default::default(),
            pictures: Pictures::default(),
            ladder: Ladder::new(turn.now),
            ring,
        };
        call.tell_of_ring(turn);
        call.step(turn, "door", "server", "INVITE");
        let key_frame_by = turn.key_frames_by.get(&call.ring.caller).copied().or(ways.key_frame);
        let anchor = call.door_ports.plan(call.door.audio.as_ref(), call.door.video.as_ref());
        turn.media(worker, Command::Open { session: call.ring.session, anchor, key_frame_by });
        if ways.ringback.unwrap_or(turn.settings.ringback) {
            turn.media(worker, Command::Ringback { session: call.ring.session, on: true });
        }
        call.open_gate(turn);
        call.send_progress(turn);
        turn.set_timer(call.ring.session, CallTimer::Ring, Some(turn.settings.ring_timeout));
        turn.set_timer(call.ring.session, CallTimer::Absent, Some(ABSENT_AFTER));
        Ok(call)
    }

    /// From here on the caller, if it is a door, is told to open in this call.
    fn open_gate(&self, turn: &mut Turn<'_>) {
        if turn.directory.account(self.ring.caller.as_str()).is_some_and(|account| account.kind == AccountType::Door) {
            turn.door_calls(&self.ring.caller, self.place.clone());
        }
    }

    pub fn session(&self) -> SessionId {
        self.ring.session
    }

    pub fn id(&self) -> &CallId {
        &self.ring.id
    }

    pub fn caller(&self) -> &Number {
        &self.ring.caller
    }

    /// Everybody this call is for.
    pub fn accounts(&self) -> &[Number] {
        &self.ring.accounts
    }

    /// Is it a call to this group?
    pub fn is_for(&self, group: &Number) -> bool {
        self.ring.group.as_ref() == Some(group)
    }

    /// Is this account one of those that are called?
    pub fn calls(&self, account: &Number) -> bool {
        self.standings.contains_key(account)
    }

    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Accounts that are wanted by this call: what a REGISTER is compared with.
    pub fn rings(&self, account: &str) -> bool {
        self.state == State::Ringing && self.standings.contains_key(account)
    }

    /// The leg of the answered call in which this account talks.
    pub fn talking_leg(&self, account: &str) -> Option<LegId> {
        let State::Answered { winner } = self.state else { return None };
        [self.door_leg, winner].into_iter().find(|leg| self.party(*leg).is_some_and(|party| party.as_str() == account))
    }

    /// The account at the other end of a leg of this call.
    pub fn party(&self, leg: LegId) -> Option<&Number> {
        if leg == self.door_leg { Some(&self.ring.caller) } else { self.members.get(&leg).map(|member| &member.account) }
    }

    /// The accounts to ring once more.
    pub fn take_retries(&mut self) -> Vec<Number> {
        std::mem::take(&mut self.retries)
    }

    pub fn winner(&self) -> Option<&Number> {
        match self.state {
            State::Answered { winner } => self.members.get(&winner).map(|m| &m.account),
            State::Ringing | State::Ended => None,
        }
    }

    /// 183 with the one SDP; armed again until the door is heard (D-02), or only once a minute if the door acknowledges it
    /// (RFC 3262). A door that made no offer gets ours here only reliably, else 180 and our offer in the 200 (D-09).
    fn send_progress(&mut self, turn: &mut Turn<'_>) {
        let acknowledged = turn.endpoint.is_reliable(self.door_leg);
        let (code, described) = match (acknowledged, self.offerless) {
            (true, _) => (183, !std::mem::replace(&mut self.described, true)),
            (false, true) => {
                self.told_ringing = true;
                (180, false)
            }
            (false, false) => (183, true),
        };
        if acknowledged || !described {
            self.progress = None;
        }
        let text = described.then(|| self.answer.to_string());
        turn.endpoint.answer(turn.now, self.door_leg, code, &Headers::new(), text.as_deref().map(sdp_body), turn.sip);
        self.step(turn, "server", "door", &format!("{code} {}", sip_core::message::reason_phrase(code)));
        let wait = match self.progress {
            Some(n) => {
                self.progress = Some(n + 1);
                PROGRESS_REPEATS.get(n).copied()
            }
            None => None,
        };
        turn.set_timer(self.ring.session, CallTimer::Progress, Some(wait.unwrap_or(PROGRESS_KEEPALIVE)));
    }

    /// An account of the group is reachable: a first leg, a nudge for a sleeping phone, or a leg to its new contact (D-06).
    pub fn member_appeared(&mut self, turn: &mut Turn<'_>, binding: &Binding) {
        if self.state != State::Ringing {
            return;
        }
        let Some((account, standing)) = self.standings.get_key_value(&*binding.account) else { return };
        let (account, standing) = (account.clone(), *standing);
        match standing {
            Standing::Declined(_) => return,
            Standing::Absent | Standing::Ringing => {}
        }
        let pending = self
            .members
            .iter()
            .find(|(_, m)| m.account == account && m.is_pending())
            .map(|(leg, m)| (*leg, m.same_contact(binding)));
        match pending {
            Some((leg, true)) => {
                if turn.endpoint.nudge(turn.now, leg, turn.sip) {
                    self.step(turn, "server", account.as_str(), "INVITE (again)");
                }
                return;
            }
            Some((leg, false)) => {
                turn.endpoint.end(turn.now, leg, Headers::new(), turn.sip);
                self.step(turn, "server", account.as_str(), "CANCEL");
                self.member_gone(turn, leg, "registered elsewhere");
            }
            None => {}
        }
        if self.members.len() >= MAX_LEGS {
            return turn.count("call_too_many_legs");
        }
        let Some((leg, member)) = Member::invite(turn, &self.ring, self.worker, &self.door, binding, account.clone()) else {
            return;
        };
        turn.sessions.insert(leg, self.ring.session);
        self.members.insert(leg, Box::new(member));
        self.standings.insert(account.clone(), Standing::Ringing);
        self.step(turn, "server", account.as_str(), "INVITE");
        self.publish(turn);
    }

    /// The account is in another call: it counts as busy (spec sip.md §5).
    pub fn member_busy(&mut self, turn: &mut Turn<'_>, account: &Number) {
        self.standings.insert(account.clone(), Standing::Declined(486));
        self.end_if_all_declined(turn);
    }

    /// 101–199 of a member. With SDP the phone sees the visitor now; without, it only rings.
    pub fn progress(&mut self, turn: &mut Turn<'_>, leg: LegId, response: &Message) {
        let Some(member) = self.members.get_mut(&leg).filter(|m| m.is_pending()) else { return };
        let code = response.code().unwrap_or_default();
        let early = member.early(turn.now, response);
        let account = member.account.clone();
        if let Some(plan) = early {
            turn.media(self.worker, Command::Put { session: self.ring.session, leg: plan });
        }
        let sdp = if response.body().is_empty() { "" } else { " + SDP" };
        self.step(turn, account.as_str(), "server", &format!("{code} {}{sdp}", sip_core::message::reason_phrase(code)));
        if !std::mem::replace(&mut self.told_ringing, true) {
            // D-03. It repeats the description of the 183: baresip takes a 180 without one for the end of early media.
            let text = (!turn.endpoint.is_reliable(self.door_leg)).then(|| self.answer.to_string());
            turn.endpoint.answer(turn.now, self.door_leg, 180, &Headers::new(), text.as_deref().map(sdp_body), turn.sip);
            self.step(turn, "server", "door", "180 Ringing");
        }
        self.publish(turn);
    }

    /// A 200 of a member. The first one while ringing wins; every other gets BYE (D-09).
    pub fn answered(&mut self, turn: &mut Turn<'_>, leg: LegId, response: &Message) {
        let Some(member) = self.members.get_mut(&leg) else {
            return turn.endpoint.end(turn.now, leg, Headers::new(), turn.sip);
        };
        let account = member.account.clone();
        if self.state != State::Ringing || !member.is_pending() {
            turn.endpoint.end(turn.now, leg, vec![("Reason", ELSEWHERE.to_owned())], turn.sip);
            self.step(turn, "server", account.as_str(), "BYE");
            return self.member_gone(turn, leg, "answered too late");
        }
        let Some(plan) = member.answer(turn.now, response) else {
            // It answered without a stream we can serve: no call with it, the others ring on.
            turn.count("member_answer_unusable");
            turn.endpoint.end(turn.now, leg, vec![("Reason", "SIP;cause=488".to_owned())], turn.sip);
            self.step(turn, "server", account.as_str(), "BYE");
            self.standings.insert(account, Standing::Declined(488));
            self.member_gone(turn, leg, "no common codec");
            return self.end_if_all_declined(turn);
        };
        self.state = State::Answered { winner: leg };
        self.answered = Some((account.clone(), turn.unix_ms));
        self.tell_of_answer(turn, &account);
        self.step(turn, account.as_str(), "server", "200 OK");
        let session = self.ring.session;
        turn.media(self.worker, Command::Put { session, leg: plan });
        self.place.talker = Some(leg);
        turn.door_talks(&self.ring.caller, leg);
        self.guard_keys(turn);
        turn.media(self.worker, Command::Talk { session, leg: Some(crate::turn::media_leg(leg)) });
        // An offer of ours that went with a reliable 183 is not made twice (RFC 3264 §4).
        let offered_before = self.offerless && turn.endpoint.is_reliable(self.door_leg);
        let text = (!offered_before).then(|| self.answer.to_string());
        turn.endpoint.answer(turn.now, self.door_leg, 200, &Headers::new(), text.as_deref().map(sdp_body), turn.sip);
        self.step(turn, "server", "door", "200 OK");
        self.drop_members(turn, Some(leg), Some(ELSEWHERE), "answered elsewhere");
        for timer in [CallTimer::Ring, CallTimer::Absent, CallTimer::Progress, CallTimer::Retry] {
            turn.set_timer(session, timer, None);
        }
        turn.set_timer(session, CallTimer::Talk, Some(turn.settings.talk_limit));
        if let Some(silence) = turn.settings.silence {
            turn.media(self.worker, Command::Watch { session, silence });
        }
        self.publish(turn);
    }

    /// A member's INVITE ended without an answer: he declined, is busy, or his phone is dead (`response` is none).
    pub fn refused(&mut self, turn: &mut Turn<'_>, leg: LegId, code: u16, response: Option<&Message>) {
        let Some(member) = self.members.get(&leg).filter(|m| m.is_pending()) else { return };
        let account = member.account.clone();
        let standing = if response.is_some() { Standing::Declined(code) } else { Standing::Absent };
        // Busy with a ring of ours that it does not know to be over (its CANCEL was lost): that is not its owner's answer.
        let ours = member.invited_amid_ending || turn.amid_ending(&account);
        if let (486, true, Some((ended, _))) = (code, ours, turn.ending.get(&account).copied()) {
            // It is awake: an INVITE whose answers were lost is repeated, so that its CANCEL can follow.
            turn.endpoint.nudge(turn.now, ended, turn.sip);
            self.step(turn, account.as_str(), "server", "486 Busy Here");
            self.member_gone(turn, leg, "busy with an ended ring");
            self.retries.push(account);
            return turn.set_timer(self.ring.session, CallTimer::Retry, Some(RETRY_AFTER));
        }
        self.standings.insert(account.clone(), standing);
        if (code, response.is_some()) == (503, false) {
            // Its connection is gone; a phone that changes its network is back within seconds.
            self.absent_at = self.absent_at.max(turn.now + ABSENT_AFTER);
            turn.timers.set((self.ring.session, CallTimer::Absent), Some(self.absent_at));
            self.step(turn, account.as_str(), "server", "connection lost");
            self.member_gone(turn, leg, "connection lost");
            return self.publish(turn);
        }
        self.step(turn, account.as_str(), "server", &format!("{code} {}", sip_core::message::reason_phrase(code)));
        self.member_gone(turn, leg, &decline_reason(standing));
        self.end_if_all_declined(turn);
        self.publish(turn);
    }

    pub fn timeout(&mut self, turn: &mut Turn<'_>, timer: CallTimer) {
        match timer {
            CallTimer::Progress if self.state == State::Ringing => self.send_progress(turn),
            CallTimer::Ring if self.state == State::Ringing => {
                let anyone = self.standings.values().any(|s| *s != Standing::Absent);
                self.end(turn, "not answered", Some(if anyone { 408 } else { 480 }));
            }
            CallTimer::Absent if self.state == State::Ringing => self.end_if_all_declined(turn),
            CallTimer::Talk if matches!(self.state, State::Answered { .. }) => self.end(turn, "talk limit", None),
            CallTimer::Progress
            | CallTimer::Ring
            | CallTimer::Absent
            | CallTimer::Talk
            | CallTimer::Linger
            | CallTimer::Retry => {}
        }
    }

    /// What media tells. `true`: the call is over and its last counters are in.
    pub fn media(&mut self, turn: &mut Turn<'_>, event: command::Event) -> bool {
        match event {
            command::Event::AnchorHeard { .. } => {
                self.progress = None;
                if self.state == State::Ringing {
                    turn.set_timer(self.ring.session, CallTimer::Progress, Some(PROGRESS_KEEPALIVE));
                }
            }
            command::Event::FirstKeyFrame { at, .. } => {
                self.first_key_frame.get_or_insert(at);
                self.picture_of_ring(turn);
                self.publish(turn);
            }
            command::Event::FirstVideo { leg, at, .. } => {
                if let Some(member) = self.members.get_mut(&LegId(leg.0)) {
                    member.first_video.get_or_insert(at);
                }
                self.publish(turn);
            }
            command::Event::KeyFrameWanted { .. } => self.ask_for_key_frame(turn),
            command::Event::KeyFrameBy { way, .. } => {
                turn.key_frames_by.insert(self.ring.caller.clone(), way);
            }
            command::Event::Digit { leg, digit, .. } => {
                self.digit(turn, LegId(leg.0), digits::Key::plain(digit), digits::Road::Media);
                self.publish(turn);
            }
            command::Event::Report { legs, last, .. } => {
                for report in legs {
                    if report.leg == crate::turn::media_leg(self.door_leg) {
                        self.door_report = (report.audio, report.video);
                    } else if let Some(member) = self.members.get_mut(&LegId(report.leg.0)) {
                        member.report = (report.audio, report.video);
                    }
                }
                self.guard_keys(turn);
                self.publish(turn);
                return last && self.state == State::Ended;
            }
            command::Event::Picture { picture, .. } => self.pictured(turn, picture),
            command::Event::Silent { leg, .. } => self.silent(turn, LegId(leg.0)),
            command::Event::Noise { .. } => {}
        }
        false
    }

    fn step(&mut self, turn: &Turn<'_>, from: &str, to: &str, what: &str) {
        self.ladder.step(turn.now, from, to, what);
    }

    /// Shows the call as it is now.
    pub fn publish(&self, turn: &mut Turn<'_>) {
        let view = Box::new(self.view());
        turn.publish(Publication::Call(view));
    }

    /// The call as HTTP shows it.
    pub fn view(&self) -> CallView {
        record::view(self)
    }
}

fn sdp_body(text: &str) -> (&str, &[u8]) {
    ("application/sdp", text.as_bytes())
}

fn decline_reason(standing: Standing) -> String {
    match standing {
        Standing::Declined(486 | 600) => "busy".to_owned(),
        Standing::Declined(603) => "declined".to_owned(),
        Standing::Declined(code) => format!("refused with {code}"),
        Standing::Absent | Standing::Ringing => "no answer from the phone".to_owned(),
    }
}
