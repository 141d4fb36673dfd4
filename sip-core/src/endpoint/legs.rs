//! Legs: an INVITE from either side, the dialog it makes, and its proper end.

use super::reliable::{Held, Unacknowledged};
use super::session_timer::Session;
use super::*;
use crate::dialog::Party;
use crate::message::Name;
use crate::transaction::{T1, T2, T64};
use std::time::Duration;

/// What an INVITE of ours is made of.
#[derive(Clone, Debug)]
pub struct Invite {
    pub flow: Flow,
    /// Request-URI: the binding's contact.
    pub target: String,
    /// The way to it (RFC 3327): the Route set until the peer's answer brings that of the dialog.
    pub routes: Vec<String>,
    /// From and To values without tags, e.g. `"Front door" <sip:d1@example.com>`.
    pub from: String,
    pub to: String,
    pub headers: Headers,
    pub content_type: &'static str,
    /// Empty: an INVITE without offer; the peer's is answered with [`Endpoint::accept_offer`].
    pub body: Bytes,
}

/// A 2xx of ours on its way (§13.3.1.4).
#[derive(Debug)]
struct Repeat2xx {
    tx: TxId,
    bytes: Bytes,
    flow: Flow,
    next: Instant,
    interval: Duration,
    end: Instant,
}

#[derive(Debug)]
pub(super) struct Leg {
    pub dialog: Dialog,
    /// The INVITE that is open or was answered last: a server transaction, or our own.
    pub invite: Option<TxId>,
    pub ours: bool,
    /// A 2xx has been sent or received.
    pub established: bool,
    repeat: Option<Repeat2xx>,
    /// The user has let go of it: no events any more.
    pub forgotten: bool,
    /// A CANCEL that waits for the first provisional response.
    cancel: Option<Headers>,
    cancelled: bool,
    /// A BYE that waits for the ACK of our 2xx.
    bye: Option<Headers>,
    /// RFC 3262, their INVITE: the last RSeq, the response that waits for its PRACK, the 2xx behind it.
    pub rseq: Option<u32>,
    pub unacknowledged: Option<Unacknowledged>,
    pub held: Option<Held>,
    /// RFC 3262, our INVITE: the last RSeq heard of an early dialog.
    pub heard: Option<(String, u32)>,
    /// Our INVITE had no offer: theirs comes in the first reliable response.
    pub offerless: bool,
    pub owes: Option<Owes>,
    pub session: Option<Session>,
    /// A re-INVITE of ours that is open.
    pub reinvite: Option<TxId>,
    /// The peer takes UPDATE.
    pub updates: bool,
    /// The body we sent last: our side of the session.
    pub description: Option<Bytes>,
    /// The connection of its flow is gone: nothing can be sent inside it, and nothing that comes is trusted to be its own.
    pub cut_off: bool,
}

/// What an answer of ours goes into.
#[derive(Debug)]
pub(super) enum Owes {
    /// With this RAck.
    Prack(String),
    Ack(TxId),
}

impl Leg {
    fn new(dialog: Dialog, invite: Option<TxId>, ours: bool) -> Leg {
        Leg {
            dialog,
            invite,
            ours,
            established: false,
            repeat: None,
            forgotten: false,
            cancel: None,
            cancelled: false,
            bye: None,
            rseq: None,
            unacknowledged: None,
            held: None,
            heard: None,
            offerless: false,
            owes: None,
            session: None,
            reinvite: None,
            updates: false,
            description: None,
            cut_off: false,
        }
    }

    /// Their INVITE, without a final answer yet.
    pub(super) fn awaits_our_answer(&self) -> bool {
        !self.ours && !self.established
    }

    /// A 2xx that still waits for its ACK goes where the leg goes.
    pub(super) fn move_repeat(&mut self, flow: Flow) {
        if let Some(repeat) = &mut self.repeat {
            repeat.flow = flow;
        }
    }

    pub(super) fn learn_allow(&mut self, message: &Message) {
        self.updates |= message.has_option(Name::Allow, "UPDATE");
    }

    pub(super) fn repeat_2xx(&mut self, now: Instant, tx: TxId, bytes: Bytes) {
        self.established = true;
        self.repeat = Some(Repeat2xx { tx, bytes, flow: self.dialog.flow, next: now + T1, interval: T1 * 2, end: now + T64 });
    }
}

impl Endpoint {
    /// Makes an INVITE from outside a leg. Nothing is sent; `None` when the request is no INVITE or unreadable.
    pub fn take(&mut self, tx: TxId) -> Option<LegId> {
        let (_, server, _) = self.servers.get(&tx).filter(|(_, server, _)| server.is_invite() && server.is_open())?;
        let (request, flow) = (server.request.clone(), server.flow);
        let tag = self.tokens.token();
        let dialog = Dialog::from_request(&request, flow, self.sent_by(&flow), tag.clone())?;
        let id = LegId(self.id());
        self.leg_ids.insert(tag, id);
        let mut leg = Leg::new(dialog, Some(tx), false);
        leg.learn_allow(&request);
        self.legs.insert(id, Box::new(leg));
        self.on_flows.add_leg(flow, id);
        if let Some((.., owner)) = self.servers.get_mut(&tx) {
            *owner = Some(id);
        }
        Some(id)
    }

    /// Answers the open INVITE of a leg: provisional, 2xx, or a refusal, which ends the leg.
    pub fn answer(&mut self, now: Instant, leg: LegId, code: u16, headers: &Headers, body: Body<'_>, out: &mut Out) {
        let Some(tx) = self.legs.get(&leg).filter(|l| !l.ours).and_then(|l| l.invite) else { return };
        self.respond(now, tx, code, headers, body, out);
        if code >= 300 && !self.legs.get(&leg).is_some_and(|l| l.established) {
            self.drop_leg(leg);
        }
    }

    /// Sends an INVITE.
    pub fn invite(&mut self, now: Instant, invite: Invite, out: &mut Out) -> LegId {
        let (tag, call_id, branch) = (self.tokens.token(), self.tokens.token(), self.tokens.branch());
        let mut dialog = Dialog {
            flow: invite.flow,
            sent_by: self.sent_by(&invite.flow),
            call_id,
            local: Party { header: invite.from, tag: tag.clone() },
            remote: Party { header: invite.to, tag: String::new() },
            local_cseq: 0,
            remote_cseq: None,
            target: invite.target,
            routes: invite.routes,
        };
        let bytes = dialog
            .request(&Method::Invite, &branch)
            .header("Contact", dialog.contact())
            .header("Allow", self.identity.allow)
            .headers(&self.supported())
            .headers(&self.session_headers(None))
            .header("User-Agent", &self.identity.product)
            .headers(&invite.headers)
            .maybe_body(Some((invite.content_type, &invite.body[..])).filter(|(_, body)| !body.is_empty()));
        let id = LegId(self.id());
        let cseq = dialog.local_cseq;
        let purpose =
            Purpose::Invite { leg: id, dialog: Box::new(dialog.clone()), cseq, branch: branch.clone(), acks: Vec::new() };
        let tx = self.start_client(now, dialog.flow, (branch, false), bytes, purpose, out);
        self.leg_ids.insert(tag, id);
        let leg = Leg::new(dialog, Some(tx), true);
        let description = Some(invite.body).filter(|body| !body.is_empty());
        self.legs.insert(id, Box::new(Leg { offerless: description.is_none(), description, ..leg }));
        self.on_flows.add_leg(invite.flow, id);
        id
    }

    /// The answer to the offer in a reliable provisional or 2xx response to our INVITE, in the turn it was heard.
    pub fn accept_offer(&mut self, now: Instant, id: LegId, answer: &[u8], out: &mut Out) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let body = Some(("application/sdp", answer));
        let owes = leg.owes.take();
        if owes.is_some() {
            (leg.offerless, leg.description) = (false, Some(Bytes::copy_from_slice(answer)));
        }
        match owes {
            Some(Owes::Prack(rack)) => self.send_prack(now, id, rack, body, out),
            Some(Owes::Ack(tx)) => self.acknowledge(tx, id, body, out),
            None => {}
        }
    }

    /// The ACK of the 2xx of an open or answered INVITE of ours, kept for the repeats of the 2xx.
    fn acknowledge(&mut self, tx: TxId, id: LegId, body: Body<'_>, out: &mut Out) {
        let branch = self.tokens.branch();
        let (Some(leg), Some(client)) = (self.legs.get(&id), self.clients.get_mut(&tx)) else { return };
        let Purpose::Invite { cseq, acks, .. } = &mut client.purpose else { return };
        let ack = leg.dialog.request_as(&Method::Ack, *cseq, &branch).maybe_body(body);
        out.transmits.push(Transmit { flow: leg.dialog.flow, bytes: ack.clone() });
        acks.push((leg.dialog.remote.tag.clone(), ack));
    }

    /// Sends an INVITE inside an established leg with a new (or, to refresh it, the same) description; its answer comes as
    /// [`Event::Response`], its 2xx is ACKed. `None` while another one is open (§14.1).
    pub fn reinvite(&mut self, now: Instant, id: LegId, headers: Headers, body: &[u8], out: &mut Out) -> Option<TxId> {
        let branch = self.tokens.branch();
        let leg = self.legs.get(&id).filter(|l| l.established && !l.forgotten && l.reinvite.is_none())?;
        let extra = [self.supported(), leg.session.map(|s| self.session_headers(Some(s))).unwrap_or_default(), headers].concat();
        let allow = self.identity.allow;
        let leg = self.legs.get_mut(&id)?;
        let contact = leg.dialog.contact();
        let writer = leg.dialog.request(&Method::Invite, &branch).header("Contact", contact).header("Allow", allow);
        let bytes = writer.headers(&extra).body("application/sdp", body);
        leg.description = Some(Bytes::copy_from_slice(body));
        let (dialog, cseq) = (Box::new(leg.dialog.clone()), leg.dialog.local_cseq);
        let flow = dialog.flow;
        let purpose = Purpose::Invite { leg: id, dialog, cseq, branch: branch.clone(), acks: Vec::new() };
        let tx = self.start_client(now, flow, (branch, false), bytes, purpose, out);
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.reinvite = Some(tx);
        }
        Some(tx)
    }

    pub(super) fn is_established(&self, id: LegId) -> bool {
        self.legs.get(&id).is_some_and(|leg| leg.established)
    }

    pub(super) fn is_reinvite(&self, id: LegId, tx: TxId) -> bool {
        self.legs.get(&id).is_some_and(|leg| leg.reinvite == Some(tx))
    }

    fn reinvite_response(&mut self, now: Instant, tx: TxId, id: LegId, code: u16, response: Message, out: &mut Out) {
        if code < 200 {
            // A peer that trusts in its own 100 must not keep us waiting for ever.
            if let Some(client) = self.clients.get_mut(&tx) {
                client.transaction.give_up_at(now + T64);
                self.timers.set(Timer::Client(tx), client.transaction.deadline());
            }
            return;
        }
        if code < 300 {
            self.acknowledge(tx, id, None, out);
        }
        self.reinvite_ended(now, id, tx, Some(response), out);
    }

    pub(super) fn reinvite_ended(&mut self, now: Instant, id: LegId, tx: TxId, response: Option<Message>, out: &mut Out) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.reinvite = None;
        let forgotten = leg.forgotten;
        self.refreshed(now, id, response.as_ref(), out);
        if !forgotten {
            out.events.push(Event::Response { leg: Some(id), tx, method: Method::Invite, response });
        }
    }

    /// Sends the INVITE of a leg anew if nothing was heard from the peer (D-06). Says whether it did; over a connection there
    /// is nothing to repeat.
    pub fn nudge(&mut self, now: Instant, leg: LegId, out: &mut Out) -> bool {
        let tx = self.legs.get(&leg).filter(|l| l.ours && !l.established).and_then(|l| l.invite);
        let client = tx.and_then(|tx| Some((tx, self.clients.get_mut(&tx)?)));
        let Some((tx, client)) = client.filter(|(_, client)| client.transaction.may_repeat()) else { return false };
        client.transaction.restart(now, &mut out.transmits);
        self.timers.set(Timer::Client(tx), client.transaction.deadline());
        true
    }

    /// Ends a leg in whatever state it is, and forgets it: BYE once it is established; before that CANCEL for an INVITE of
    /// ours, at once or with the first provisional response (§9.1), and 603 for one of theirs.
    pub fn end(&mut self, now: Instant, leg: LegId, headers: Headers, out: &mut Out) {
        let Some(state) = self.legs.get_mut(&leg).filter(|l| !l.forgotten) else { return };
        if state.established {
            return self.bye(now, leg, headers, out);
        }
        if !state.ours {
            return self.answer(now, leg, 603, &headers, None, out);
        }
        state.forgotten = true;
        state.cancel = Some(headers);
        self.cancel_if_possible(now, leg, out);
    }

    fn cancel_if_possible(&mut self, now: Instant, id: LegId, out: &mut Out) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(tx) = leg.invite else { return };
        let Some(client) = self.clients.get_mut(&tx) else { return };
        if client.transaction.nothing_heard() || leg.cancelled {
            return;
        }
        let Some(headers) = leg.cancel.take() else { return };
        leg.cancelled = true;
        let Purpose::Invite { dialog, cseq, branch, .. } = &client.purpose else { return };
        // §9.1: same Request-URI, Call-ID, From, To (no tag), CSeq number and branch as the INVITE.
        let bytes = dialog.request_as(&Method::Cancel, *cseq, branch).headers(&headers).finish();
        let (flow, key) = (dialog.flow, (branch.clone(), true));
        client.transaction.give_up_at(now + T64);
        self.timers.set(Timer::Client(tx), client.transaction.deadline());
        self.start_client(now, flow, key, bytes, Purpose::Farewell, out);
    }

    /// While our 2xx waits for its ACK the BYE waits too (§15).
    fn bye(&mut self, now: Instant, leg: LegId, headers: Headers, out: &mut Out) {
        let Some(state) = self.legs.get_mut(&leg) else { return };
        state.forgotten = true;
        if state.repeat.is_some() {
            state.bye = Some(headers);
            return;
        }
        self.send_bye(now, leg, &headers, out);
    }

    fn send_bye(&mut self, now: Instant, id: LegId, headers: &Headers, out: &mut Out) {
        let branch = self.tokens.branch();
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let bytes = leg.dialog.request(&Method::Bye, &branch).headers(headers).finish();
        let flow = leg.dialog.flow;
        self.start_client(now, flow, (branch, false), bytes, Purpose::Farewell, out);
        self.drop_leg(id);
    }

    /// Answers a BYE with 200 and forgets the leg. An INVITE of ours that is still open is answered by the peer.
    pub fn accept_bye(&mut self, now: Instant, leg: LegId, tx: TxId, out: &mut Out) {
        self.respond(now, tx, 200, &Headers::new(), None, out);
        // A BYE before the ACK of our INVITE's final answer, or in an early dialog (§15.1.2): the open INVITE gets 487.
        if let Some(invite) = self.legs.get(&leg).filter(|l| !l.ours).and_then(|l| l.invite) {
            self.respond(now, invite, 487, &Headers::new(), None, out);
        }
        // A BYE may overtake our INVITE's final answer; that one is waited for no longer than any other.
        if let Some(invite) = self.legs.get(&leg).filter(|l| l.ours).and_then(|l| l.invite)
            && let Some(client) = self.clients.get_mut(&invite)
        {
            client.transaction.give_up_at(now + T64);
            self.timers.set(Timer::Client(invite), client.transaction.deadline());
        }
        self.drop_leg(leg);
    }

    /// Sends a request inside the dialog of a leg (INFO and the like); its answer comes as [`Event::Response`]. `None`: there
    /// is no such leg, or no connection to it.
    pub fn request(
        &mut self,
        now: Instant,
        leg: LegId,
        method: &Method,
        headers: &Headers,
        body: Body<'_>,
        out: &mut Out,
    ) -> Option<TxId> {
        let purpose = Purpose::Asked { leg: Some(leg), method: method.clone() };
        self.send_in_dialog(now, leg, method, headers, body, purpose, out)
    }

    #[allow(clippy::too_many_arguments)] // a request is that many things
    pub(super) fn send_in_dialog(
        &mut self,
        now: Instant,
        leg: LegId,
        method: &Method,
        headers: &Headers,
        body: Body<'_>,
        purpose: Purpose,
        out: &mut Out,
    ) -> Option<TxId> {
        let (branch, supported) = (self.tokens.branch(), self.supported());
        let state = self.legs.get_mut(&leg).filter(|l| !l.forgotten && !l.cut_off)?;
        let contact = state.dialog.contact();
        let mut writer = state.dialog.request(method, &branch).header("Contact", contact);
        if *method == Method::Update {
            writer = writer.headers(&supported);
        }
        let bytes = writer.headers(headers).maybe_body(body);
        let flow = state.dialog.flow;
        Some(self.start_client(now, flow, (branch, false), bytes, purpose, out))
    }

    /// A request of ours is not repeated any more; its answer is still heard (D-24).
    pub fn stop_repeating(&mut self, tx: TxId) {
        if let Some(client) = self.clients.get_mut(&tx) {
            client.transaction.stop_repeating();
            self.timers.set(Timer::Client(tx), client.transaction.deadline());
        }
    }

    /// The flow of a live leg.
    pub fn leg_flow(&self, leg: LegId) -> Option<Flow> {
        self.legs.get(&leg).map(|l| l.dialog.flow)
    }

    /// Our side of the session of a live leg, as we described it last.
    pub fn leg_description(&self, leg: LegId) -> Option<Bytes> {
        self.legs.get(&leg).and_then(|l| l.description.clone())
    }

    /// The Call-ID of a live leg: what a log line names so that the packet is found in a capture.
    pub fn leg_call_id(&self, leg: LegId) -> Option<&str> {
        self.legs.get(&leg).map(|l| l.dialog.call_id.as_str())
    }

    pub(super) fn invite_response(&mut self, now: Instant, tx: TxId, id: LegId, code: u16, response: Message, out: &mut Out) {
        if self.is_reinvite(id, tx) {
            return self.reinvite_response(now, tx, id, code, response, out);
        }
        match code {
            ..200 => {
                let Some(leg) = self.legs.get_mut(&id) else { return };
                if leg.forgotten {
                    return self.cancel_if_possible(now, id, out);
                }
                if code > 100 && self.take_provisional(now, id, &response, out) {
                    out.events.push(Event::Progress { leg: id, response });
                }
            }
            200..300 => self.invite_accepted(now, tx, id, response, out),
            _ => self.invite_ended(id, code, Some(response), out),
        }
    }

    /// A 2xx: ACK it whoever it is from; it is an answer if the leg still waits for one, else it is ended with BYE.
    fn invite_accepted(&mut self, now: Instant, tx: TxId, id: LegId, response: Message, out: &mut Out) {
        let tag = response.to().and_then(|to| to.tag()).unwrap_or_default().to_owned();
        let branch = self.tokens.branch();
        let Some(client) = self.clients.get_mut(&tx) else { return };
        let Purpose::Invite { dialog, cseq, acks, .. } = &mut client.purpose else { return };
        if let Some((_, ack)) = acks.iter().find(|(known, _)| *known == tag) {
            out.transmits.push(Transmit { flow: dialog.flow, bytes: ack.clone() });
            return;
        }
        let mut answered = dialog.clone();
        answered.learn(&response);
        if let Some(leg) = self.legs.get_mut(&id).filter(|leg| leg.offerless && !leg.established && !leg.forgotten) {
            leg.owes = Some(Owes::Ack(tx));
            return self.leg_answered(now, id, response, out);
        }
        let ack = answered.request_as(&Method::Ack, *cseq, &branch).finish();
        out.transmits.push(Transmit { flow: answered.flow, bytes: ack.clone() });
        acks.push((tag, ack));
        match self.legs.get_mut(&id).filter(|leg| !leg.established && !leg.forgotten) {
            Some(_) => self.leg_answered(now, id, response, out),
            None => {
                self.count("unwanted_2xx");
                // PRACK and INFO of the early dialog have used numbers since the INVITE left.
                let used = self.legs.get(&id).map_or(0, |leg| leg.dialog.local_cseq);
                answered.local_cseq = answered.local_cseq.max(used);
                let branch = self.tokens.branch();
                let bytes = answered.request(&Method::Bye, &branch).finish();
                let flow = answered.flow;
                self.start_client(now, flow, (branch, false), bytes, Purpose::Farewell, out);
                if self.legs.get(&id).is_some_and(|leg| !leg.established) {
                    self.drop_leg(id);
                }
            }
        }
    }

    fn leg_answered(&mut self, now: Instant, id: LegId, response: Message, out: &mut Out) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.established = true;
        leg.dialog.learn(&response);
        leg.learn_allow(&response);
        self.learn_session(now, id, &response);
        out.events.push(Event::Answered { leg: id, response });
    }

    pub(super) fn invite_ended(&mut self, id: LegId, code: u16, response: Option<Message>, out: &mut Out) {
        let Some(leg) = self.legs.get(&id) else { return };
        if leg.established {
            return;
        }
        let forgotten = leg.forgotten;
        self.drop_leg(id);
        if !forgotten {
            out.events.push(Event::Refused { leg: id, code, response });
        }
    }

    pub(super) fn leg_acknowledged(&mut self, now: Instant, id: LegId, ack: &Message, out: &mut Out) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(repeat) = leg.repeat.take() else { return };
        let number = ack.cseq().map(|cseq| cseq.number);
        if self.servers.get(&repeat.tx).is_some_and(|(_, s, _)| s.request.cseq().map(|c| c.number) != number) {
            if let Some(leg) = self.legs.get_mut(&id) {
                leg.repeat = Some(repeat);
            }
            return;
        }
        self.timers.set(Timer::Leg(id), None);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if let Some(headers) = leg.bye.take() {
            return self.send_bye(now, id, &headers, out);
        }
        out.events.push(Event::Confirmed { leg: id, ack: ack.clone() });
    }

    pub(super) fn arm_leg(&mut self, id: LegId) {
        if let Some(leg) = self.legs.get(&id) {
            self.timers.set(Timer::Leg(id), leg.repeat.as_ref().map(|r| r.next.min(r.end)));
        }
    }

    /// Repeats a 2xx until its ACK; gives up after 64·T1 with BYE (§13.3.1.4).
    pub(super) fn leg_timeout(&mut self, now: Instant, id: LegId, out: &mut Out) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(repeat) = &mut leg.repeat else { return };
        if repeat.end <= now {
            leg.repeat = None;
            let headers = leg.bye.take().unwrap_or_default();
            let forgotten = leg.forgotten;
            self.count("2xx_not_acknowledged");
            self.send_bye(now, id, &headers, out);
            if !forgotten {
                out.events.push(Event::NotAcknowledged { leg: id });
            }
            return;
        }
        out.transmits.push(Transmit { flow: repeat.flow, bytes: repeat.bytes.clone() });
        repeat.next = now + repeat.interval;
        repeat.interval = (repeat.interval * 2).min(T2);
        self.arm_leg(id);
    }

    pub(super) fn drop_leg(&mut self, id: LegId) {
        if let Some(leg) = self.legs.remove(&id) {
            self.leg_ids.remove(&leg.dialog.local.tag);
            for timer in [Timer::Leg(id), Timer::Reliable(id), Timer::Session(id)] {
                self.timers.set(timer, None);
            }
            self.on_flows.remove_leg(&leg.dialog.flow, id);
        }
    }
}
