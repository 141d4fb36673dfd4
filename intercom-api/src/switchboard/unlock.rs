//! Roads to a door from outside of its call: MESSAGE, INFO out of dialog (by switch, D-28), the owner's HTTP order; and the door's
//! answers on the same ways. All of them end in `Turn::press`.

use super::*;
use crate::model::{Account, AccountType};
use crate::unlock::body::{self, Said};
use crate::unlock::right::Claim;
use crate::unlock::{Asker, Channel, Road};
use sip_core::message::Uri;

/// Before the name of whoever asks over HTTP, in the record; no SIP number looks like it.
const BY_API: &str = "api:";

impl Switchboard {
    /// Is a MESSAGE to or from a door an order or a result, and not a letter?
    pub(super) fn is_about_a_door(&self, sender: &Account, dialled: &str, request: &Message) -> bool {
        let to_door = self.directory.account(dialled).is_some_and(|account| account.kind == AccountType::Door);
        to_door || (sender.kind == AccountType::Door && matches!(body::read(request), Said::Result { .. }))
    }

    /// INFO outside of any dialog.
    pub(super) fn lone_info(&mut self, now: Instant, tx: TxId, request: &Message, out: &mut Vec<Effect>) {
        let Some(sender) = self.authenticate(now, tx, request, None) else { return };
        if self.refuses_extension(now, tx, request) {
            return;
        }
        let Some(uri) = request.request_uri().and_then(Uri::parse) else { return };
        let Some(dialled) = uri.user_decoded() else { return self.refuse(now, tx, 484, "nothing_dialled") };
        if self.is_foreign(&sender, &dialled) {
            return self.refuse(now, tx, 404, ring::FOREIGN);
        }
        self.lone_order(now, tx, request, &sender, &dialled, out);
    }

    /// An order to a door or its result: 200 at once, whatever comes of it, as inside a dialog.
    pub(super) fn lone_order(
        &mut self,
        now: Instant,
        tx: TxId,
        request: &Message,
        sender: &Account,
        dialled: &str,
        out: &mut Vec<Effect>,
    ) {
        let Some(method) = request.method().cloned() else { return };
        let door = Number::new(dialled);
        match body::read(request) {
            Said::Broken => self.refuse(now, tx, 400, "info_unreadable"),
            // It is the one that signed whose result this is, whatever number it was sent to.
            Said::Result { reqsn, status } if sender.kind == AccountType::Door => {
                self.endpoint.respond(now, tx, 200, &Headers::new(), None, &mut self.sip);
                self.at_gate(now, out, |turn| turn.door_says(&sender.number, reqsn, status));
            }
            Said::Unlock { .. } if self.directory.account(dialled).is_none() => self.refuse(now, tx, 404, "unknown_number"),
            Said::Unlock { reqsn } if sender.kind == AccountType::App => {
                self.endpoint.respond(now, tx, 200, &Headers::new(), None, &mut self.sip);
                let (call_id, cseq) = (request.call_id().unwrap_or_default(), request.cseq().map_or(0, |cseq| cseq.number));
                let mut new = true;
                self.at_gate(now, out, |turn| new = turn.is_new_order(&door, &sender.number, reqsn, call_id, cseq));
                if !new {
                    return self.count("unlock_twin");
                }
                let road = if method == Method::Info { Road::LoneInfo } else { Road::Message };
                let claim = self.claim(&door, &sender.number);
                self.press(now, &door, claim, (sender.number.clone(), road, Channel::Lone { method, reqsn }), out);
            }
            // What a door acts upon are orders to open, and nobody but we tells it anything else.
            Said::Unlock { .. } | Said::Result { .. } | Said::KeyFrame | Said::Key(_) | Said::Other => {
                self.refuse(now, tx, 403, "message_to_door");
            }
        }
    }

    /// `POST /v1/doors/{sipNumber}/unlock`, and remote open.
    pub(super) fn unlock_for_owner(&mut self, now: Instant, door: &str, asker: &str, out: &mut Vec<Effect>) -> Answer {
        if self.directory.account(door).is_none_or(|account| account.kind != AccountType::Door) {
            return Answer::NotFound;
        }
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let who = (Number::new(&format!("{BY_API}{asker}")), Road::Http, Channel::Ticket(ticket));
        self.press(now, &Number::new(door), Claim::Owner, who, out);
        self.pump(now, out);
        Answer::Later { ticket }
    }

    /// What an account that asks from outside is to the door (D-23).
    fn claim(&self, door: &Number, account: &Number) -> Claim {
        let call = self.callers.get(door).and_then(|session| self.calls.get(session));
        let party = call.and_then(|call| call.claim(account.as_str()));
        party.unwrap_or_else(|| Claim::Account { in_map: self.directory.is_in_map(door, account) })
    }

    fn press(
        &mut self,
        now: Instant,
        door: &Number,
        claim: Claim,
        (account, road, channel): (Number, Road, Channel),
        out: &mut Vec<Effect>,
    ) {
        // The visitor of the moment, if there is one.
        let (mut call, mut picture) = (None, None);
        if let Some(&session) = self.callers.get(door) {
            self.with_call(now, session, out, |ring, turn| {
                (call, picture) = (Some(ring.id().to_string()), ring.picture_of_unlock(turn));
            });
        }
        let asker = Asker { account, road, channel, at: now, call, picture };
        self.at_gate(now, out, |turn| turn.press(door, claim, asker));
    }

    /// The door answers an order that was sent outside of any dialog.
    pub(super) fn order_answered(&mut self, now: Instant, tx: TxId, response: Option<&Message>, out: &mut Vec<Effect>) {
        if let Some(door) = self.orders.remove(&tx) {
            self.at_gate(now, out, |turn| {
                turn.order_answered(&door, tx, response);
            });
        }
    }

    /// The door is no more: whoever waits for it is told.
    pub(super) fn remove_gate(&mut self, now: Instant, door: &Number, out: &mut Vec<Effect>) {
        self.at_gate(now, out, |turn| turn.forget_door(door));
    }

    /// Lets gates react outside of any call, and brings what they say into the ladders.
    pub(super) fn at_gate(&mut self, now: Instant, out: &mut Vec<Effect>, act: impl FnOnce(&mut Turn<'_>)) {
        act(&mut self.turn(now, out));
        for note in std::mem::take(&mut self.notes) {
            self.with_call(now, note.session, out, |call, turn| {
                call.note(now, &note);
                call.publish(turn);
            });
        }
        self.flush(out);
    }
}
