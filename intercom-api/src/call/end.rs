//! How a call ends, and how its legs do: BYE, CANCEL, the visitor who leaves, everybody who declines (D-08).

use super::member::MemberState;
use super::{Call, LINGER, Standing, State};
use crate::model::Number;
use crate::record::Watched;
use crate::turn::{CallTimer, Publication, Turn};
use media::command::Command;
use sip_core::endpoint::{Headers, LegId, TxId};

impl Call {
    /// A BYE, of the door, the winner, or a phone that was never meant to have a call.
    pub fn bye(&mut self, turn: &mut Turn<'_>, leg: LegId, tx: TxId) {
        turn.endpoint.accept_bye(turn.now, leg, tx, turn.sip);
        if leg == self.door_leg {
            self.step(turn, "door", "server", "BYE");
            return self.end(turn, "caller hung up", None);
        }
        let Some(member) = self.members.get(&leg) else { return };
        let account = member.account.clone();
        self.step(turn, account.as_str(), "server", "BYE");
        self.member_gone(turn, leg, "hung up");
        if self.state == (State::Answered { winner: leg }) {
            self.end(turn, "callee hung up", None);
        }
    }

    /// The door gave up before anyone answered; its INVITE already has its 487.
    pub fn cancelled(&mut self, turn: &mut Turn<'_>) {
        self.step(turn, "door", "server", "CANCEL");
        self.end(turn, "caller gave up", None);
    }

    /// The door's connection broke before anyone answered: nobody can be put through any more, and the door knows it too.
    pub fn lost(&mut self, turn: &mut Turn<'_>) {
        self.step(turn, "door", "server", "connection lost");
        self.end(turn, "caller lost", None);
    }

    /// Nothing came for too long from a leg of the talk that should send: its device or its network is gone.
    pub fn silent(&mut self, turn: &mut Turn<'_>, leg: LegId) {
        let State::Answered { winner } = self.state else { return };
        let (who, reason) = match leg {
            _ if leg == self.door_leg => ("door".to_owned(), "caller silent"),
            _ if leg == winner => {
                (self.answered.as_ref().map(|(account, _)| account.to_string()).unwrap_or_default(), "callee silent")
            }
            _ => return,
        };
        turn.count("media_silence");
        self.step(turn, &who, "server", "(no media)");
        self.end(turn, reason, None);
    }

    /// What the account has registered is void: its phone stops ringing. A talk goes on.
    pub fn member_void(&mut self, turn: &mut Turn<'_>, account: &str, why: &'static str) {
        let Some(leg) = self.pending_leg(account) else { return };
        if let Some(standing) = self.standings.get_mut(account) {
            *standing = Standing::Absent;
        }
        self.cancel_member(turn, leg, account, why);
        self.end_if_all_declined(turn);
        self.publish(turn);
    }

    /// The account has no part in this call any more: it is no more, or has left the house. Its phone stops ringing, and if it
    /// is the one that talks, it is hung up: nobody stays connected to a door that is not his (spec admin-api.md §5.2, §11).
    pub fn expel(&mut self, turn: &mut Turn<'_>, account: &Number, why: &'static str) {
        if self.winner() == Some(account) {
            return self.end(turn, why, None);
        }
        self.standings.remove(account);
        if let Some(leg) = self.pending_leg(account.as_str()) {
            turn.tell_held(leg);
            // Another house may ring it before its CANCEL has come.
            turn.ending.insert(account.clone(), (leg, turn.now));
            self.cancel_member(turn, leg, account.as_str(), why);
        }
        self.end_if_all_declined(turn);
        self.publish(turn);
    }

    fn pending_leg(&self, account: &str) -> Option<LegId> {
        self.members.iter().find(|(_, m)| m.account.as_str() == account && m.is_pending()).map(|(leg, _)| *leg)
    }

    fn cancel_member(&mut self, turn: &mut Turn<'_>, leg: LegId, account: &str, why: &'static str) {
        turn.endpoint.end(turn.now, leg, Headers::new(), turn.sip);
        self.step(turn, "server", account, "CANCEL");
        self.member_gone(turn, leg, why);
    }

    /// D-08: ends the ring when nobody is left who could answer.
    pub(super) fn end_if_all_declined(&mut self, turn: &mut Turn<'_>) {
        if self.state != State::Ringing {
            return;
        }
        let absent_counts = turn.now >= self.absent_at;
        let waiting = self.standings.values().any(|standing| match standing {
            Standing::Ringing => true,
            Standing::Absent => !absent_counts,
            Standing::Declined(_) => false,
        });
        if waiting {
            return;
        }
        let declined: Vec<u16> =
            self.standings.values().filter_map(|s| if let Standing::Declined(code) = s { Some(*code) } else { None }).collect();
        let (reason, code) = match declined.as_slice() {
            [] => ("nobody reachable", 480),
            codes if codes.iter().all(|code| matches!(code, 486 | 600)) => ("all busy", 600),
            _ => ("all declined", 603),
        };
        self.end(turn, reason, Some(code));
    }

    /// Ends the call, whatever state it is in, once. `code` answers the door's INVITE if it is still open.
    pub fn end(&mut self, turn: &mut Turn<'_>, reason: &str, code: Option<u16>) {
        if self.state == State::Ended {
            return;
        }
        turn.door_gone(&self.ring.caller, self.door_leg);
        self.hear_notes(turn);
        let was_ringing = self.state == State::Ringing;
        self.state = State::Ended;
        self.end_reason = Some(reason.to_owned());
        self.ended_ms = Some(turn.unix_ms);
        self.tell_of_end(turn, reason);
        self.drop_members(turn, None, None, reason);
        if turn.endpoint.leg_flow(self.door_leg).is_some() {
            if was_ringing {
                let code = code.unwrap_or(480);
                turn.endpoint.answer(turn.now, self.door_leg, code, &Headers::new(), None, turn.sip);
                self.step(turn, "server", "door", &format!("{code} {}", sip_core::message::reason_phrase(code)));
            } else {
                turn.endpoint.end(turn.now, self.door_leg, Headers::new(), turn.sip);
                self.step(turn, "server", "door", "BYE");
            }
        }
        turn.sessions.remove(&self.door_leg);
        self.door_ports.release(turn);
        let session = self.ring.session;
        turn.media(self.worker, Command::Close { session });
        for timer in [CallTimer::Ring, CallTimer::Absent, CallTimer::Progress, CallTimer::Talk, CallTimer::Retry] {
            turn.set_timer(session, timer, None);
        }
        turn.set_timer(session, CallTimer::Linger, Some(LINGER));
        self.publish(turn);
    }

    /// Ends every live member leg but one: CANCEL while it rings, BYE once it talks.
    pub(super) fn drop_members(&mut self, turn: &mut Turn<'_>, keep: Option<LegId>, sip_reason: Option<&str>, why: &str) {
        let live: Vec<LegId> =
            self.members.iter().filter(|(leg, m)| Some(**leg) != keep && m.is_live()).map(|(leg, _)| *leg).collect();
        for leg in live {
            let headers: Headers = sip_reason.map(|reason| ("Reason", reason.to_owned())).into_iter().collect();
            turn.tell_held(leg);
            let Some(member) = self.members.get(&leg) else { continue };
            let (account, pending) = (member.account.clone(), member.is_pending());
            turn.endpoint.end(turn.now, leg, headers, turn.sip);
            turn.ending.insert(account.clone(), (leg, turn.now));
            self.step(turn, "server", account.as_str(), if pending { "CANCEL" } else { "BYE" });
            self.member_gone(turn, leg, why);
        }
    }

    /// A member leg is over on the SIP side: media and ports follow, its counters stay.
    pub(super) fn member_gone(&mut self, turn: &mut Turn<'_>, leg: LegId, why: &str) {
        turn.sessions.remove(&leg);
        let Some(member) = self.members.get_mut(&leg).filter(|m| m.is_live()) else { return };
        member.state = MemberState::Ended(why.to_owned());
        member.ports.release(turn);
        if let Some(from) = member.first_video {
            let watched = Watched {
                account: member.account.to_string(),
                door: self.ring.caller.to_string(),
                room: self.ring.dialled.clone(),
                call: self.ring.id.to_string(),
                from_ms: turn.unix_ms_at(from),
                to_ms: turn.unix_ms,
                talked: member.answered_at.is_some(),
                id: 0,
            };
            turn.publish(Publication::Watched(Box::new(watched)));
        }
        if self.state != State::Ended && member.in_media {
            turn.media(self.worker, Command::Remove { session: self.ring.session, leg: crate::turn::media_leg(leg) });
        }
        member.in_media = false;
    }
}
