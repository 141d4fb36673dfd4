//! One turn of the Switchboard: what a call may touch while it reacts, and the [`Effect`]s that leave.

use crate::directory::Directory;
use crate::events::event::Event;
use crate::events::passage::Passage;
use crate::held::Held;
use crate::live::{CallView, Kept, Registration};
use crate::model::{App, Number};
use crate::pictures::job::Job;
use crate::record::{Record, Watched};
use crate::switchboard::limits::SOURCE_RATE;
use crate::unlock::Outcome;
use crate::unlock::gate::{Gate, Note};
use crate::unlock::lock::Spans;
use media::asking::Way;
use media::command::{Command, LegId as MediaLeg, LegPlan, SessionId, WorkerId};
use media::ports::PortStock;
use sip_core::endpoint::{Endpoint, LegId, Out, TxId};
use sip_core::location::{Location, Unbound};
use sip_core::target::check;
use sip_core::timers::Timers;
use sip_core::transaction::Transmit;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the Switchboard wants done, in order. The driver does it; a test reads it.
#[derive(Clone, Debug)]
pub enum Effect {
    Send(Transmit),
    Media { worker: WorkerId, command: Box<Command> },
    Publish(Publication),
}

/// A change of the read model.
#[derive(Clone, Debug)]
pub enum Publication {
    Registered {
        registration: Registration,
        /// Only the expiry moved on.
        refresh: bool,
    },
    Unregistered {
        account: Arc<str>,
        why: Unbound,
    },
    /// What the store keeps of an account's binding from now on; `None`: nothing (D-10).
    Keep {
        account: Arc<str>,
        kept: Option<Kept>,
    },
    /// The call as it is now; `state: ended` comes twice when counters come late.
    Call(Box<CallView>),
    /// This door rings more often than any visitor does: a stuck button, or a stolen door account.
    RingsTooOften {
        door: String,
    },
    /// A wish to open a door. It goes to be written before anything of it leaves, and nothing waits for that (D-29).
    Asked(Box<Record>),
    /// How a wish ended; the driver has it written.
    Record(Box<Record>),
    /// A phone that showed the visitor does so no more.
    Watched(Box<Watched>),
    /// How the wish with this ticket ended.
    Unlocked {
        ticket: u64,
        outcome: Outcome,
        took: Duration,
    },
    /// A picture of the visitor; the driver has it made and stored.
    Picture(Box<Job>),
    /// Something happened that others build on, once (D-31).
    Event(Box<Event>),
    /// A door was opened; the store adds what it is called.
    Passage(Box<Passage>),
}

/// The part of the configuration that signalling needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Request-URI hosts that are ours beside the local address of the flow (lower case).
    pub domains: Vec<String>,
    /// Address written in SDP; `None`: the local address of the leg's flow.
    pub media_ip: Option<IpAddr>,
    pub ring_timeout: Duration,
    pub talk_limit: Duration,
    /// A party of a talk that sends nothing for so long is gone; `None`: it may.
    pub silence: Option<Duration>,
    /// Does the visitor hear that it rings (D-03)?
    pub ringback: bool,
    /// May a phone open the door before anybody answered (D-23)?
    pub unlock_while_ringing: bool,
    /// Is an INFO outside of any dialog a wish (D-28)?
    pub unlock_out_of_dialog: bool,
    /// How long a wish waits and a window lasts.
    pub unlock: Spans,
    /// Where hours are told: minutes east of UTC.
    pub utc_offset_minutes: i32,
    /// Datagrams per second of one source that has not signed; 0: no limit.
    pub source_rate: u32,
    /// Is SHA-256 offered before MD5 (D-11)?
    pub sha256: bool,
    /// UDP phones silent for so long are asked whether they are there; `None`: nobody is.
    pub ping: Option<Duration>,
    /// A door unit that is not registered for so long is an event; `None`: it is not.
    pub door_alarm: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            domains: Vec::new(),
            media_ip: None,
            ring_timeout: Duration::from_secs(60),
            talk_limit: Duration::from_secs(300),
            silence: Some(Duration::from_secs(30)),
            ringback: true,
            unlock_while_ringing: true,
            unlock_out_of_dialog: false,
            unlock: Spans::default(),
            utc_offset_minutes: 0,
            source_rate: SOURCE_RATE,
            sha256: false,
            ping: None,
            door_alarm: None,
        }
    }
}

/// How long a phone may still be busy with a ring that we ended, after our side is done with it.
const ENDING_GRACE: Duration = Duration::from_secs(2);

/// Deadlines of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallTimer {
    /// Nobody answered.
    Ring,
    /// Members that never registered count as absent from here on (D-08).
    Absent,
    /// The 183 once more (D-02).
    Progress,
    /// Longest talk.
    Talk,
    /// A phone that was busy with a ring of ours that has just ended is tried again.
    Retry,
    /// The last counters of an ended call did not come.
    Linger,
}

/// Everything a call may touch in one turn.
pub struct Turn<'a> {
    pub now: Instant,
    /// Milliseconds since 1970 at `now`.
    pub unix_ms: i64,
    /// A moment on both clocks.
    pub epoch: (Instant, i64),
    pub endpoint: &'a mut Endpoint,
    pub sip: &'a mut Out,
    pub effects: &'a mut Vec<Effect>,
    pub ports: &'a mut PortStock,
    pub timers: &'a mut Timers<(SessionId, CallTimer)>,
    /// Which session a SIP leg belongs to.
    pub sessions: &'a mut HashMap<LegId, SessionId>,
    /// How each door gave key frames when it was last asked.
    pub key_frames_by: &'a mut BTreeMap<Number, Way>,
    pub directory: &'a Directory,
    pub location: &'a Location,
    /// One gate per door account, and when each is due (D-24, D-25).
    pub gates: &'a mut BTreeMap<Number, Gate>,
    pub gate_timers: &'a mut Timers<Number>,
    /// Requests outside of dialogs that tell a door to open.
    pub orders: &'a mut HashMap<TxId, Number>,
    /// Steps for the ladders of calls.
    pub notes: &'a mut Vec<Note>,
    /// Results that wait for the disk.
    pub held: &'a mut Held,
    /// The leg of each account that we ended last, and when: its phone may not know yet.
    pub ending: &'a mut HashMap<Number, (LegId, Instant)>,
    pub settings: &'a Settings,
    pub counters: &'a mut BTreeMap<&'static str, u64>,
}

impl Turn<'_> {
    /// May the phone of this account still be busy with a ring that we ended?
    pub fn amid_ending(&self, account: &Number) -> bool {
        let ended = self.ending.get(account);
        ended.is_some_and(|(leg, at)| self.endpoint.leg_flow(*leg).is_some() || self.now < *at + ENDING_GRACE)
    }

    /// Milliseconds since 1970 at a moment: the same ones whenever it is asked.
    pub fn unix_ms_at(&self, at: Instant) -> i64 {
        unix_ms(self.epoch, at)
    }

    pub fn count(&mut self, name: &'static str) {
        *self.counters.entry(name).or_default() += 1;
    }

    pub fn media(&mut self, worker: WorkerId, mut command: Command) {
        if let Command::Open { anchor: plan, .. } | Command::Put { leg: plan, .. } = &mut command {
            self.guard_targets(plan);
        }
        self.effects.push(Effect::Media { worker, command: Box::new(command) });
    }

    /// Media is never sent to an address that nobody may name. The leg lives on: a phone that writes a useless address into its
    /// SDP but sends from where it is gets its media there (D-17).
    fn guard_targets(&mut self, plan: &mut LegPlan) {
        let Some(flow) = self.endpoint.leg_flow(LegId(plan.leg.0)) else { return };
        let here = flow.local.ip();
        let media_ip = self.settings.media_ip.unwrap_or(here);
        let ports: &PortStock = self.ports;
        let is_ours = |a: SocketAddr| a == flow.local || ((a.ip() == media_ip || a.ip() == here) && ports.has(a.port()));
        for stream in plan.audio.iter_mut().chain(&mut plan.video) {
            for target in [&mut stream.remote, &mut stream.remote_rtcp] {
                if let Some(Err(bad)) = target.map(|target| check(target, here, is_ours)) {
                    *target = None;
                    *self.counters.entry(bad.name()).or_default() += 1;
                }
            }
        }
    }

    pub fn publish(&mut self, publication: Publication) {
        self.effects.push(Effect::Publish(publication));
    }

    /// Whose an account is.
    pub fn app_of(&self, account: &Number) -> App {
        self.directory.account(account.as_str()).map(|account| account.app.clone()).unwrap_or_default()
    }

    pub fn set_timer(&mut self, session: SessionId, timer: CallTimer, after: Option<Duration>) {
        self.timers.set((session, timer), after.map(|after| self.now + after));
    }
}

/// A leg has the same number in signalling and media.
pub fn media_leg(leg: LegId) -> MediaLeg {
    MediaLeg(leg.0)
}

/// Milliseconds since 1970 at a moment, by one that is known on both clocks.
pub fn unix_ms(epoch: (Instant, i64), at: Instant) -> i64 {
    let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 2);
    match at.checked_duration_since(epoch.0) {
        Some(since) => epoch.1 + ms(since),
        // A binding restored from before the start.
        None => epoch.1 - ms(epoch.0 - at),
    }
}
