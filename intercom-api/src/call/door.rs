//! INFO inside a call: who said what (spec sip.md §8, D-13, D-23). Orders and results go to the door's gate (`unlock/`).

use super::digits::Road as KeyRoad;
use super::{Call, State};
use crate::turn::Turn;
use crate::unlock::body::{self, Said};
use crate::unlock::gate::Note;
use crate::unlock::right::Claim;
use crate::unlock::{Asker, Channel, Road};
use media::command::Command;
use sip_core::endpoint::{Headers, LegId, TxId};
use sip_core::message::{Message, Method};
use std::time::Instant;

/// RFC 5168 §7: the door encodes a key frame.
const PICTURE_FAST_UPDATE: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<media_control><vc_primitive><to_encoder>\
<picture_fast_update/></to_encoder></vc_primitive></media_control>\r\n";

impl Call {
    /// An INFO inside one of our legs: 200 or 400 at once, whatever comes of it.
    pub(super) fn info(&mut self, turn: &mut Turn<'_>, leg: LegId, tx: TxId, request: &Message) {
        let said = body::read(request);
        let code = if said == Said::Broken { 400 } else { 200 };
        turn.endpoint.respond(turn.now, tx, code, &Headers::new(), None, turn.sip);
        match said {
            Said::Unlock { reqsn } if leg != self.door_leg => {
                self.press(turn, leg, reqsn, request.cseq().map_or(0, |cseq| cseq.number))
            }
            Said::Result { reqsn, status } if leg == self.door_leg => {
                turn.door_says(&self.ring.caller, reqsn, status);
            }
            // The right to open is never inferred from a body: a door cannot ask itself (D-23), a phone cannot answer for it.
            Said::Unlock { .. } | Said::Result { .. } => turn.count("info_from_the_wrong_side"),
            Said::Key(key) => {
                self.digit(turn, leg, key, KeyRoad::Info);
                self.publish(turn);
            }
            Said::Broken => turn.count("info_unreadable"),
            // Its own request is for nobody: a phone's picture is not shown (D-05).
            Said::KeyFrame if leg == self.door_leg => turn.count("key_frame_asked_by_the_door"),
            Said::KeyFrame => turn.media(self.worker, Command::AskKeyFrame { session: self.ring.session }),
            Said::Other => {}
        }
        self.hear_notes(turn);
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
        if !member.twins.is_new(turn.now, (), reqsn, None, cseq) {
            return turn.count("unlock_twin");
        }
        if let Some(asker) = self.asker(turn, leg, Road::Info, Channel::Info { leg, reqsn }) {
            let claim = self.claim_of(turn, leg);
            turn.press(&self.ring.caller, claim, asker);
        }
    }

    /// The account behind a leg, as one who wishes the door open now. The pulse does not wait for the picture.
    pub(super) fn asker(&mut self, turn: &mut Turn<'_>, leg: LegId, road: Road, channel: Channel) -> Option<Asker> {
        let account = self.members.get(&leg)?.account.clone();
        let picture = self.picture_of_unlock(turn);
        Some(Asker { account, road, channel, at: turn.now, call: Some(self.ring.id.to_string()), picture })
    }

    /// What a leg of ours is to the door (D-23).
    pub(super) fn claim_of(&self, turn: &Turn<'_>, leg: LegId) -> Claim {
        match self.state {
            State::Ringing => Claim::Rung,
            State::Answered { winner } if winner == leg => Claim::Talks,
            State::Answered { .. } | State::Ended => match self.party(leg) {
                Some(account) => Claim::Account { in_map: turn.directory.is_in_map(&self.ring.caller, account) },
                None => Claim::Account { in_map: false },
            },
        }
    }

    /// The same for an account that asks from outside of this call; `None`: it is no party of it.
    pub fn claim(&self, account: &str) -> Option<Claim> {
        match self.state {
            State::Ringing => self.standings.contains_key(account).then_some(Claim::Rung),
            State::Answered { .. } => self.winner().filter(|winner| winner.as_str() == account).map(|_| Claim::Talks),
            State::Ended => None,
        }
    }

    /// Keys of a leg that may not open do not reach the door (D-27). Asked again with every report, because hours end.
    pub(super) fn guard_keys(&mut self, turn: &mut Turn<'_>) {
        let State::Answered { winner } = self.state else { return };
        let Some(account) = self.members.get(&winner).map(|member| member.account.clone()) else { return };
        let pass = turn.may_open(&self.ring.caller, Claim::Talks, &account).is_ok();
        if self.keys_pass != pass {
            self.keys_pass = pass;
            turn.media(self.worker, Command::Keys { session: self.ring.session, pass });
        }
    }

    /// An answer to an INFO of ours.
    pub fn response(&mut self, turn: &mut Turn<'_>, tx: TxId, response: Option<&Message>) {
        let refused = response.and_then(Message::code).is_none_or(|code| code >= 300);
        if self.key_frame_info.take_if(|asked| *asked == tx).is_some() {
            if refused {
                turn.count("key_frame_info_refused");
            }
            return;
        }
        if !turn.order_answered(&self.ring.caller, tx, response) && refused {
            turn.count("result_info_refused");
        }
        self.hear_notes(turn);
    }

    /// What the door's gate has to say in this call's ladder.
    pub(super) fn hear_notes(&mut self, turn: &mut Turn<'_>) {
        let ours = turn.notes.extract_if(.., |note| note.session == self.ring.session).collect::<Vec<_>>();
        for note in ours {
            self.note(turn.now, &note);
        }
    }

    pub fn note(&mut self, now: Instant, note: &Note) {
        self.ladder.step(now, &note.from, &note.to, &note.what);
    }
}
