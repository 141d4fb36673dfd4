//! Descriptions that change inside a call, and answers that come late: re-INVITE and UPDATE (RFC 3261 §14, RFC 3311), the PRACK
//! of a reliable 183 (RFC 3262 §5), the ACK of a 200 with our offer (D-09). All of it is settled with the leg that asks; the
//! other side hears nothing of it, unless the leg is lost.

use super::{Call, Refuse, State, sdp_body};
use crate::switchboard::{ALLOW, SUPPORTED};
use crate::turn::{Turn, media_leg};
use media::command::Command;
use sip_core::endpoint::{Headers, LegId, TxId};
use sip_core::message::{Message, Method};
use sip_core::sdp::{self, Sdp};

impl Call {
    /// A request inside a leg that is not BYE: answered locally (D-01, D-09), never passed on.
    pub fn request(&mut self, turn: &mut Turn<'_>, leg: LegId, tx: TxId, request: &Message) {
        let Some(method) = request.method().cloned() else { return };
        let Some(name) = self.name_of(leg) else { return };
        self.step(turn, &name, "server", method.as_str());
        let mut say = |code: u16, headers: Headers| turn.endpoint.respond(turn.now, tx, code, &headers, None, turn.sip);
        match method {
            Method::Info => self.info(turn, leg, tx, request),
            // RFC 3261 §11.2.
            Method::Options => {
                let accept = "application/sdp, application/json".to_owned();
                say(200, vec![("Allow", ALLOW.to_owned()), ("Supported", SUPPORTED.to_owned()), ("Accept", accept)]);
            }
            Method::Prack if self.offered.contains(&leg) => self.answer_in_prack(turn, leg, tx, request),
            Method::Prack | Method::Update if request.body().is_empty() => {
                self.follow(turn, leg);
                turn.endpoint.respond(turn.now, tx, 200, &Headers::new(), None, turn.sip);
            }
            // RFC 3261 §14.2, RFC 3311 §5.2: one offer at a time.
            Method::Invite | Method::Update | Method::Prack if self.offered.contains(&leg) => {
                say(491, Headers::new());
                turn.count("glare");
            }
            Method::Invite if request.body().is_empty() => {
                // Our description as it stands is the offer; the answer comes in the ACK.
                self.follow(turn, leg);
                let body = self.description(leg);
                self.offered.push(leg);
                turn.endpoint.respond(turn.now, tx, 200, &Headers::new(), body.as_deref().map(sdp_body), turn.sip);
            }
            Method::Invite | Method::Update | Method::Prack => {
                self.follow(turn, leg);
                match self.renegotiate(turn, leg, request) {
                    Ok(answer) => {
                        turn.endpoint.respond(turn.now, tx, 200, &Headers::new(), Some(sdp_body(&answer)), turn.sip);
                    }
                    Err(refuse) => {
                        turn.count(refuse.name());
                        turn.endpoint.respond(turn.now, tx, refuse.code(), &Headers::new(), None, turn.sip);
                    }
                }
            }
            // RFC 6665 §4.1.3: nobody here has subscribed to anything.
            Method::Notify => {
                say(481, Headers::new());
                turn.count("no_subscription");
            }
            Method::Other(_) => {
                say(501, Headers::new());
                turn.count("unknown_method");
            }
            _ => {
                say(405, vec![("Allow", ALLOW.to_owned())]);
                turn.count("method_not_allowed");
            }
        }
    }

    pub(super) fn name_of(&self, leg: LegId) -> Option<String> {
        if leg == self.door_leg { Some("door".to_owned()) } else { self.members.get(&leg).map(|m| m.account.to_string()) }
    }

    /// A leg may have moved (D-13): where its media may come from follows it.
    fn follow(&mut self, turn: &Turn<'_>, leg: LegId) {
        let Some(flow) = turn.endpoint.leg_flow(leg) else { return };
        match self.members.get_mut(&leg) {
            Some(member) => member.follow(flow),
            None => self.door_ports.reached_from(flow.remote.ip()),
        }
    }

    fn description(&self, leg: LegId) -> Option<String> {
        if leg == self.door_leg {
            Some(self.answer.to_string())
        } else {
            self.members.get(&leg).map(|member| member.description())
        }
    }

    /// A new offer inside a leg: hold, resume, another port or address. The other side is not asked (D-09).
    fn renegotiate(&mut self, turn: &mut Turn<'_>, leg: LegId, request: &Message) -> Result<String, Refuse> {
        let offer = Sdp::parse(request.body()).map_err(|_| Refuse::BadOffer)?;
        let (answer, plan) = if leg == self.door_leg {
            let (session_id, version) = self.door_sdp;
            self.door_ports.meet_ice(turn, &offer);
            let local = self.door_ports.local(self.door_ip, session_id, version + 1);
            let (answer, door) = sdp::answer_door_again(&offer, &self.door, &local).map_err(|_| Refuse::NothingInCommon)?;
            // RFC 3264 §8: the version rises with a change and only then.
            if !answer.says_the_same(&self.answer) {
                self.door_sdp.1 += 1;
                self.answer = answer;
            }
            (self.answer.to_string(), self.door_ports.plan(door.audio.as_ref(), door.video.as_ref()))
        } else {
            let member = self.members.get_mut(&leg).ok_or(Refuse::BadOffer)?;
            member.renegotiate(&offer, &self.door).ok_or(Refuse::NothingInCommon)?
        };
        turn.media(self.worker, Command::Put { session: self.ring.session, leg: plan });
        Ok(answer)
    }

    /// The PRACK of the 183 that had our offer.
    fn answer_in_prack(&mut self, turn: &mut Turn<'_>, leg: LegId, tx: TxId, prack: &Message) {
        self.offered.retain(|owes| *owes != leg);
        let taken = self.take_answer(turn, leg, prack.body());
        turn.endpoint.respond(turn.now, tx, if taken { 200 } else { 488 }, &Headers::new(), None, turn.sip);
        if !taken {
            self.leg_lost(turn, leg, "no usable answer");
        }
    }

    /// The ACK of a 200. If that one had our offer, this has the answer or the leg cannot go on (RFC 3261 §13.3.1.4 ends it).
    pub fn confirmed(&mut self, turn: &mut Turn<'_>, leg: LegId, ack: &Message) {
        if !self.offered.contains(&leg) {
            return;
        }
        self.offered.retain(|owes| *owes != leg);
        if !self.take_answer(turn, leg, ack.body()) {
            self.leg_lost(turn, leg, "no usable answer");
        }
    }

    /// The answer to a re-INVITE of ours (the session timer sends them). It may say that the other side has moved; one that
    /// says nothing usable changes nothing.
    pub fn reinvited(&mut self, turn: &mut Turn<'_>, leg: LegId, response: Option<&Message>) {
        let accepted = response.filter(|r| matches!(r.code(), Some(200..300)) && !r.body().is_empty());
        if let Some(response) = accepted
            && !self.take_answer(turn, leg, response.body())
        {
            turn.count("reinvite_answer_unusable");
        }
    }

    /// An answer to our last description. `false`: there is none to work with.
    fn take_answer(&mut self, turn: &mut Turn<'_>, leg: LegId, body: &[u8]) -> bool {
        let Ok(answer) = Sdp::parse(body) else {
            turn.count("bad_answer");
            return false;
        };
        let plan = if leg == self.door_leg {
            sdp::read_answer(&self.answer, &answer).ok().map(|door| {
                let plan = self.door_ports.plan(door.audio.as_ref(), door.video.as_ref());
                // What a door has without using it now is still what its phones are offered.
                self.door.audio = door.audio.or(self.door.audio.take());
                self.door.video = door.video.or(self.door.video.take());
                plan
            })
        } else {
            self.members.get_mut(&leg).and_then(|member| member.take_answer(&answer))
        };
        let Some(plan) = plan else {
            turn.count("nothing_in_common");
            return false;
        };
        debug_assert_eq!(plan.leg, media_leg(leg));
        turn.media(self.worker, Command::Put { session: self.ring.session, leg: plan });
        self.publish(turn);
        true
    }

    /// A leg is of no use any more (the endpoint may have ended it already): so is the call, if it was the door's or the
    /// winner's.
    pub fn leg_lost(&mut self, turn: &mut Turn<'_>, leg: LegId, why: &str) {
        if leg == self.door_leg {
            return self.end(turn, why, Some(488));
        }
        let Some(member) = self.members.get(&leg).filter(|m| m.is_live()) else { return };
        let account = member.account.clone();
        turn.endpoint.end(turn.now, leg, Headers::new(), turn.sip);
        self.step(turn, "server", account.as_str(), &format!("BYE ({why})"));
        self.member_gone(turn, leg, why);
        if self.state == (State::Answered { winner: leg }) {
            self.end(turn, why, None);
        }
    }

    /// The other side of a leg never acknowledged our 2xx, or our reliable 183.
    pub fn not_acknowledged(&mut self, turn: &mut Turn<'_>, leg: LegId) {
        self.leg_lost(turn, leg, if leg == self.door_leg { "caller lost" } else { "callee lost" });
    }
}
