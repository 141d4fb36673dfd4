//! Datagrams in: which transaction or dialog does this belong to (RFC 3261 §17.1.3, §17.2.3, §12.2.2, §9.2)?

use super::*;
use crate::transaction::Received;

/// D-15: an unparsable request shorter than this is dropped, not answered.
const SHORTEST_UNPARSABLE: usize = 200;

impl Endpoint {
    /// One datagram. Everything that is not for somebody is dropped under a name.
    pub fn receive(&mut self, now: Instant, flow: Flow, datagram: Bytes, out: &mut Out) {
        let message = match Message::parse(datagram) {
            Ok(message) => message,
            Err(fault) => return self.count(fault.name()),
        };
        match message.validate() {
            Ok(()) if message.code().is_some() => self.receive_response(now, message, out),
            Ok(()) => self.receive_request(now, flow, message, out),
            Err(fault) => {
                self.count(fault.name());
                self.answer_malformed(flow, &message, fault, out);
            }
        }
    }

    /// A malformed request that can be answered is answered (§8.2, §18.3), once and without state; ACK never is. Without a
    /// Via there is no way back, and what has not even the headers of a request is too short to be worth an answer (D-15).
    fn answer_malformed(&mut self, flow: Flow, message: &Message, fault: Fault, out: &mut Out) {
        let answerable = match fault {
            Fault::Via => false,
            Fault::From | Fault::To | Fault::CallId | Fault::CSeq => message.bytes().len() >= SHORTEST_UNPARSABLE,
            _ => true,
        };
        if answerable && message.method().is_some_and(|m| *m != Method::Ack) {
            let code = if fault == Fault::Version { 505 } else { 400 };
            let bytes = respond(message, flow.remote, code, Some(&self.stateless_tag(message))).finish();
            out.transmits.push(Transmit { flow, bytes });
        }
    }

    fn receive_request(&mut self, now: Instant, flow: Flow, request: Message, out: &mut Out) {
        let Some(key) = ServerKey::of(&request) else { return self.count(Fault::Via.name()) };
        let ack = request.method() == Some(&Method::Ack);
        if let Some(&tx) = self.server_ids.get(&key) {
            let Some((_, server, _)) = self.servers.get_mut(&tx) else { return };
            if ack {
                server.acknowledge(now);
                self.timers.set(Timer::Server(tx), server.deadline());
                // Peers of old give the ACK of a 2xx the INVITE's branch; then it is the dialog's as well.
                return self.receive_ack(now, &request, out);
            }
            return server.repeat(&mut out.transmits);
        }
        if ack {
            return self.receive_ack(now, &request, out);
        }
        if self.answered.repeat(flow, &key, &mut out.transmits) {
            return;
        }
        let tx = TxId(self.id());
        self.server_ids.insert(key.clone(), tx);
        self.servers.insert(tx, (key, ServerTransaction::new(request.clone(), flow), None));
        if request.method() == Some(&Method::Cancel) {
            return self.receive_cancel(now, tx, flow, &request, out);
        }
        match request.to().and_then(|to| to.tag()) {
            Some(tag) => self.receive_in_dialog(now, tx, flow, tag.to_owned(), request, out),
            None => out.events.push(Event::Request { tx, request, flow }),
        }
    }

    /// The leg a To-tag of ours names, if Call-ID and the peer's tag agree.
    fn leg_of(&self, request: &Message, our_tag: &str) -> Option<LegId> {
        let id = *self.leg_ids.get(our_tag)?;
        let dialog = &self.legs.get(&id)?.dialog;
        let peer = request.from()?.tag().unwrap_or_default().to_owned();
        (request.call_id()? == dialog.call_id && (dialog.remote.tag.is_empty() || dialog.remote.tag == peer)).then_some(id)
    }

    fn receive_in_dialog(&mut self, now: Instant, tx: TxId, flow: Flow, tag: String, request: Message, out: &mut Out) {
        let Some(id) = self.leg_of(&request, &tag) else {
            self.count("no_such_dialog");
            return self.respond(now, tx, 481, &Headers::new(), None, out);
        };
        let number = request.cseq().map_or(0, |cseq| cseq.number);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if !leg.dialog.accept_cseq(number) {
            self.count("cseq_out_of_order");
            return self.respond(now, tx, 500, &Headers::new(), None, out);
        }
        if request.method() == Some(&Method::Invite) && !leg.established {
            // §14.2: the first INVITE has no final answer yet, theirs (500) or ours (491).
            let code = if leg.ours { 491 } else { 500 };
            self.count("invite_inside_invite");
            return self.respond(now, tx, code, &vec![("Retry-After", "5".to_owned())], None, out);
        }
        let same_flow = leg.dialog.flow == flow;
        if same_flow && matches!(request.method(), Some(Method::Invite | Method::Update)) {
            leg.dialog.refresh_target(&request);
        }
        if let Some((.., owner)) = self.servers.get_mut(&tx) {
            *owner = Some(id);
        }
        if leg.forgotten {
            // The user has let go; the only thing left to do is to end it.
            let bye = request.method() == Some(&Method::Bye);
            self.respond(now, tx, if bye { 200 } else { 481 }, &Headers::new(), None, out);
            if bye {
                self.drop_leg(id);
            }
            return;
        }
        out.events.push(Event::LegRequest { leg: id, tx, request, flow, same_flow });
    }

    fn receive_ack(&mut self, now: Instant, ack: &Message, out: &mut Out) {
        let Some(id) = ack.to().and_then(|to| to.tag()).and_then(|tag| self.leg_of(ack, tag)) else { return };
        self.leg_acknowledged(now, id, ack, out);
    }

    /// §9.2: 200 to the CANCEL, 487 to the INVITE if it is still open. Only from where the INVITE came.
    fn receive_cancel(&mut self, now: Instant, tx: TxId, flow: Flow, cancel: &Message, out: &mut Out) {
        let invite = ServerKey::of_cancelled(cancel).and_then(|key| self.server_ids.get(&key).copied());
        let found = invite.and_then(|invite| Some((invite, self.servers.get(&invite)?)));
        let Some((invite, (_, server, leg))) = found.filter(|(_, (_, server, _))| server.flow == flow) else {
            self.count("cancel_without_invite");
            return self.respond(now, tx, 481, &Headers::new(), None, out);
        };
        let (open, leg) = (server.is_open(), *leg);
        self.respond(now, tx, 200, &Headers::new(), None, out);
        if !open {
            return;
        }
        self.respond(now, invite, 487, &Headers::new(), None, out);
        if let Some(leg) = leg.filter(|leg| self.legs.get(leg).is_some_and(|l| l.invite == Some(invite) && !l.established)) {
            self.drop_leg(leg);
            out.events.push(Event::Cancelled { leg });
        }
    }

    fn receive_response(&mut self, now: Instant, response: Message, out: &mut Out) {
        let (Some(code), Some(cseq)) = (response.code(), response.cseq()) else { return };
        let key = response.via().and_then(|via| via.branch()).map(|b| (b.to_owned(), cseq.method == Method::Cancel));
        let Some(tx) = key.and_then(|key| self.client_ids.get(&key).copied()) else {
            return self.count("response_to_nothing");
        };
        let Some(client) = self.clients.get_mut(&tx) else { return };
        let purpose = &client.purpose;
        let ack = || match purpose {
            // §17.1.1.3: the INVITE's branch, the response's To.
            Purpose::Invite { dialog, cseq, branch, .. } => {
                let mut dialog = dialog.clone();
                dialog.remote.tag = response.to().and_then(|to| to.tag()).unwrap_or_default().to_owned();
                dialog.request_as(&Method::Ack, *cseq, branch).finish()
            }
            Purpose::Asked { .. } | Purpose::Farewell => Bytes::new(),
        };
        let received = client.transaction.receive(now, code, ack, &mut out.transmits);
        self.timers.set(Timer::Client(tx), client.transaction.deadline());
        if received == Received::Absorb {
            return;
        }
        match &client.purpose {
            Purpose::Invite { leg, .. } => {
                let leg = *leg;
                self.invite_response(now, tx, leg, code, response, out);
            }
            Purpose::Asked { leg, method } => {
                if code >= 200 {
                    out.events.push(Event::Response { leg: *leg, tx, method: method.clone(), response: Some(response) });
                }
            }
            Purpose::Farewell => {}
        }
    }
}
