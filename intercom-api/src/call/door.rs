//! Opening the door from inside a call: INFO bodies in and out (spec sip.md §8, D-23 … D-28) around the door's [`Lock`].

use super::digits::{self, Key, Road};
use super::{Call, State};
use crate::held::Told;
use crate::model::Number;
use crate::record::{ASKED, LATE, Record};
use crate::turn::{CallTimer, Publication, Turn};
use crate::unlock::{Act, Asker, Channel, Lock, Outcome};
use media::command::Command;
use serde_json::{Value, json};
use sip_core::endpoint::{Headers, LegId, TxId};
use sip_core::message::{Message, Method};
use std::time::Instant;

/// RFC 5168 §7: the door encodes a key frame.
const PICTURE_FAST_UPDATE: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<media_control><vc_primitive><to_encoder>\
<picture_fast_update/></to_encoder></vc_primitive></media_control>\r\n";

/// What an INFO says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Unlock {
        reqsn: u16,
    },
    Result {
        reqsn: u16,
        status: u16,
    },
    /// `picture_fast_update` (RFC 5168).
    KeyFrame,
    /// A key (spec sip.md §9).
    Key(Key),
    /// JSON or a form that asks for something else, or another body: answered, not acted on.
    Other,
    /// JSON that is none (spec sip.md §8.4: 400).
    Broken,
}

/// Reads JSON and, where the type says so, a form (OPEN-11).
fn read(request: &Message) -> Said {
    let body = String::from_utf8_lossy(request.body());
    let kind = request.content_type().unwrap_or_default().to_ascii_lowercase();
    let value: Value = match kind.as_str() {
        "application/json" => match serde_json::from_str(&body) {
            Ok(value) => value,
            Err(_) => return Said::Broken,
        },
        "application/x-www-form-urlencoded" => {
            let pairs = body.trim().split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .map(|(name, text)| (name.to_owned(), text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from)))
                .collect()
        }
        "application/media_control+xml" if body.contains("picture_fast_update") => return Said::KeyFrame,
        other => return digits::read(other, &body).map_or(Said::Other, |key| key.map_or(Said::Broken, Said::Key)),
    };
    let number = |name: &str| value[name].as_u64().and_then(|n| u16::try_from(n).ok());
    match (value["req"].as_str(), value["res"].as_str(), number("reqsn")) {
        (Some("unlock"), _, Some(reqsn @ 1..=999)) => Said::Unlock { reqsn },
        (Some("unlock"), _, _) => Said::Broken,
        (_, Some("unlock"), Some(reqsn)) => number("status").map_or(Said::Broken, |status| Said::Result { reqsn, status }),
        _ if value.is_object() => Said::Other,
        _ => Said::Broken,
    }
}

impl Call {
    /// An INFO inside one of our legs: 200 or 400 at once, whatever comes of it.
    pub(super) fn info(&mut self, turn: &mut Turn<'_>, leg: LegId, tx: TxId, request: &Message) {
        let said = read(request);
        let code = if said == Said::Broken { 400 } else { 200 };
        turn.endpoint.respond(turn.now, tx, code, &Headers::new(), None, turn.sip);
        match said {
            Said::Unlock { reqsn } if leg != self.door_leg => {
                self.press(turn, leg, reqsn, request.cseq().map_or(0, |cseq| cseq.number))
            }
            Said::Result { reqsn, status } if leg == self.door_leg => {
                self.with_lock(turn, |lock, acts| lock.result(reqsn, status, acts))
            }
            // The right to open is never inferred from a body: a door cannot ask itself (D-23), a phone cannot answer for it.
            Said::Unlock { .. } | Said::Result { .. } => turn.count("info_from_the_wrong_side"),
            Said::Key(key) => {
                self.digit(turn, leg, key, Road::Info);
                self.publish(turn);
            }
            Said::Broken => turn.count("info_unreadable"),
            // Its own request is for nobody: a phone's picture is not shown (D-05).
            Said::KeyFrame if leg == self.door_leg => turn.count("key_frame_asked_by_the_door"),
            Said::KeyFrame => turn.media(self.worker, Command::AskKeyFrame { session: self.ring.session }),
            Said::Other => {}
        }
    }

    /// The door hears no RTCP: it is asked for a key frame by INFO (RFC 5168).
    pub(super) fn ask_for_key_frame(&mut self, turn: &mut Turn<'_>) {
        if self.state == State::Ended {
            return;
        }
        let body = Some(("application/media_control+xml", PICTURE_FAST_UPDATE.as_bytes()));
        self.key_frame_info = turn.endpoint.request(turn.now, self.door_leg, &Method::Info, &Headers::new(), body, turn.sip);
        self.step(turn, "server", "door", "INFO picture_fast_update");
    }

    /// A phone wishes the door open. Its twin and repeats are the same wish.
    fn press(&mut self, turn: &mut Turn<'_>, leg: LegId, reqsn: u16, cseq: u32) {
        let Some(member) = self.members.get_mut(&leg) else { return };
        if !member.twins.is_new(turn.now, reqsn, cseq) {
            return turn.count("unlock_twin");
        }
        let account = member.account.clone();
        // The pulse does not wait for it.
        let picture = self.picture_of_unlock(turn);
        let asker = Asker { account, channel: Channel::Info { leg, reqsn }, at: turn.now, picture };
        let may = match self.state {
            State::Ringing => turn.settings.unlock_while_ringing,
            State::Answered { winner } => winner == leg,
            State::Ended => false,
        };
        if !may {
            return self.tell(turn, asker, Outcome::Forbidden, None);
        }
        self.asked(turn, &asker);
        self.with_lock(turn, |lock, acts| {
            let now = asker.at;
            lock.press(now, asker, acts);
        });
    }

    /// An answer to an INFO of ours. A body in it is the result as well (OPEN-09).
    pub fn response(&mut self, turn: &mut Turn<'_>, tx: TxId, response: Option<&Message>) {
        if self.key_frame_info.take_if(|asked| *asked == tx).is_some() {
            if response.and_then(Message::code).is_none_or(|code| code >= 300) {
                turn.count("key_frame_info_refused");
            }
            return;
        }
        let Some((reqsn, _)) = self.pulse.as_ref().filter(|(_, pair)| pair.contains(&tx)).cloned() else {
            if response.and_then(Message::code).is_none_or(|code| code >= 300) {
                turn.count("result_info_refused");
            }
            return;
        };
        self.with_lock(turn, |lock, acts| lock.delivered(reqsn, response.and_then(Message::code), acts));
        if let Some(Said::Result { reqsn, status }) = response.filter(|r| !r.body().is_empty()).map(read) {
            self.with_lock(turn, |lock, acts| lock.result(reqsn, status, acts));
        }
    }

    pub(super) fn unlock_timeout(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        self.with_lock(turn, |lock, acts| lock.timeout(now, acts));
    }

    /// The door's dialog is about to go: whoever waits is told now.
    pub(super) fn door_gone(&mut self, turn: &mut Turn<'_>) {
        if turn.locks.contains_key(&self.ring.caller) {
            self.with_lock(turn, |lock, acts| lock.door_gone(acts));
        }
    }

    /// Lets the door's lock react and does what it wants.
    fn with_lock(&mut self, turn: &mut Turn<'_>, react: impl FnOnce(&mut Lock, &mut Vec<Act>)) {
        let door = self.ring.caller.clone();
        let start = turn.endpoint.tokens().random_u32();
        let mut lock = turn.locks.remove(&door).unwrap_or_else(|| Lock::new(start));
        let mut acts = Vec::new();
        react(&mut lock, &mut acts);
        let mut unreachable = Vec::new();
        for act in &acts {
            if let Act::Pulse { reqsn, account } = act
                && !self.send_pulse(turn, *reqsn, account)
            {
                lock.unreachable(&mut unreachable);
            }
        }
        let deadline = lock.deadline();
        turn.timers.set((self.ring.session, CallTimer::Unlock), deadline);
        turn.locks.insert(door, lock);
        for act in acts.into_iter().chain(unreachable) {
            match act {
                Act::Pulse { .. } => {}
                Act::Silence => {
                    for tx in self.pulse.iter().flat_map(|(_, pair)| pair) {
                        turn.endpoint.stop_repeating(*tx);
                    }
                }
                Act::Tell { asker, outcome, pulsed } => self.tell(turn, asker, outcome, pulsed),
                Act::Late { reqsn, outcome, pulsed } => {
                    self.step(turn, "door", "server", "unlock result (late)");
                    let outcome_name = format!("{LATE}{}", outcome.name());
                    let record = self.record(turn, "", reqsn, pulsed, Some(pulsed), None, outcome_name, outcome.status());
                    turn.publish(Publication::Record(Box::new(record)));
                }
            }
        }
    }

    /// The pair towards the door, each packet a request of its own (OPEN-10). `false`: its dialog takes none.
    fn send_pulse(&mut self, turn: &mut Turn<'_>, reqsn: u16, account: &Number) -> bool {
        let body = json!({"req": "unlock", "reqsn": reqsn, "sip": account.as_str()}).to_string();
        let pair = self.send_pair(turn, self.door_leg, &body);
        self.step(turn, "server", "door", &format!("INFO unlock {reqsn} (pair)"));
        let sent = !pair.is_empty();
        self.pulse = Some((reqsn, pair));
        sent
    }

    fn send_pair(&self, turn: &mut Turn<'_>, leg: LegId, body: &str) -> Vec<TxId> {
        let mut send = || {
            let body = Some(("application/json", body.as_bytes()));
            turn.endpoint.request(turn.now, leg, &Method::Info, &Headers::new(), body, turn.sip)
        };
        [send(), send()].into_iter().flatten().collect()
    }

    /// Exactly one result per asker, and its entry in the record. The good news waits for that, a moment (D-29).
    fn tell(&mut self, turn: &mut Turn<'_>, asker: Asker, outcome: Outcome, pulsed: Option<Instant>) {
        let Channel::Info { reqsn, .. } = asker.channel;
        let (status, name) = (outcome.status(), outcome.name().to_owned());
        let record = self.record(turn, asker.account.as_str(), reqsn, asker.at, pulsed, asker.picture.clone(), name, status);
        let told = Told { door: self.ring.caller.clone(), asker, outcome };
        let awaited = if status == 200 {
            Some(turn.held.hold(turn.now, told))
        } else {
            self.deliver(turn, &told);
            None
        };
        turn.publish(Publication::Record(Box::new(Record { awaited, ..record })));
    }

    pub fn deliver(&mut self, turn: &mut Turn<'_>, told: &Told) {
        let Channel::Info { leg, reqsn } = told.asker.channel;
        let status = told.outcome.status();
        let body = json!({"res": "unlock", "reqsn": reqsn, "status": status}).to_string();
        self.send_pair(turn, leg, &body);
        self.step(turn, "server", told.asker.account.as_str(), &format!("INFO unlock result {status} (pair)"));
    }

    /// Whoever still waits for the disk is told before his leg goes.
    pub(super) fn deliver_all(&mut self, turn: &mut Turn<'_>) {
        let ours = |told: &Told| matches!(&told.asker.channel, Channel::Info { leg, .. } if self.members.contains_key(leg));
        for told in turn.held.take(ours) {
            self.deliver(turn, &told);
        }
    }

    /// The wish goes to be written before its pulse leaves; nothing waits for the disk (D-29).
    fn asked(&self, turn: &mut Turn<'_>, asker: &Asker) {
        let Channel::Info { reqsn, .. } = asker.channel;
        let account = asker.account.as_str();
        let record = self.record(turn, account, reqsn, asker.at, None, asker.picture.clone(), ASKED.to_owned(), 0);
        turn.publish(Publication::Asked(Box::new(record)));
    }

    #[allow(clippy::too_many_arguments)] // the columns of the record
    fn record(
        &self,
        turn: &Turn<'_>,
        account: &str,
        reqsn: u16,
        asked: Instant,
        pulsed: Option<Instant>,
        snapshot: Option<String>,
        outcome: String,
        status: u16,
    ) -> Record {
        Record {
            account: account.to_owned(),
            road: "info".to_owned(),
            door: self.ring.caller.to_string(),
            room: self.ring.dialled.clone(),
            call: self.ring.id.to_string(),
            reqsn,
            // The same moment is the same number in every entry: entries find each other by it.
            asked_ms: turn.unix_ms_at(asked),
            sent_ms: pulsed.map(|at| turn.unix_ms_at(at)),
            ended_ms: turn.unix_ms,
            outcome,
            status,
            snapshot,
            ..Record::default()
        }
    }
}
