//! Datagrams in: which transaction or dialog does this belong to (RFC 3261 §17.1.3, §17.2.3, §12.2.2, §9.2)?

use super::*;
use crate::message::{Name, Via, split_list};
use crate::stun::binding_response;
use crate::transaction::Received;

/// D-15: an unparsable request shorter than this is dropped, not answered.
const SHORTEST_UNPARSABLE: usize = 200;

impl Endpoint {
    /// One datagram. Everything that is not for somebody is dropped under a name.
    pub fn receive(&mut self, now: Instant, flow: Flow, datagram: Bytes, out: &mut Out) {
        if let Some(bytes) = binding_response(&datagram, flow.remote).filter(|_| !flow.transport.is_reliable()) {
            return out.transmits.push(Transmit { flow, bytes });
        }
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
            self.answer_once(message, flow, code, &Headers::new(), out);
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
        if let Some(full) = self.full_for(&request) {
            self.count(full);
            let headers = vec![("Retry-After", capacity::RETRY_AFTER_S.to_string())];
            return self.answer_once(&request, flow, 503, &headers, out);
        }
        if let Some(copy) = self.refuse_copy(flow, &request, out) {
            return self.count(copy);
        }
        let tx = TxId(self.id());
        if let Some(merge) = merge_key(&request) {
            self.merge_ids.insert(merge, tx);
        }
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

    /// 482 for a request that came twice by different ways (§8.2.2.2), or that we sent ourselves (§16.3 step 4): then a branch
    /// of ours is among its Vias. Our address alone would say nothing: behind a NAT others have the same.
    fn refuse_copy(&mut self, flow: Flow, request: &Message, out: &mut Out) -> Option<&'static str> {
        let merge = merge_key(request)?;
        let ours = |hop: &str| {
            let branch = Via::parse(hop).and_then(|via| via.branch().map(str::to_owned));
            branch.is_some_and(|branch| self.client_ids.contains_key(&(branch, false)))
        };
        let name = match request.headers(Name::Via).flat_map(split_list).any(ours) {
            true => "loop",
            false if self.merge_ids.contains_key(&merge) && request.method() != Some(&Method::Cancel) => "merged_request",
            false => return None,
        };
        self.answer_once(request, flow, 482, &Headers::new(), out);
        Some(name)
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
            // Anybody can invent a dialog: this costs no memory and is not repeated (D-15).
            return self.respond_stateless(tx, 481, &Headers::new(), out);
        };
        let Some(leg) = self.legs.get(&id) else { return };
        // The same addresses are no proof once the connection was another one.
        let (same_flow, forgotten) = (leg.dialog.flow == flow && !leg.cut_off, leg.forgotten);
        if let Some((.., owner)) = self.servers.get_mut(&tx) {
            *owner = Some(id);
        }
        if forgotten {
            // The user has let go; the only thing left to do is to end it.
            let bye = request.method() == Some(&Method::Bye);
            self.respond(now, tx, if bye { 200 } else { 481 }, &Headers::new(), None, out);
            if bye {
                self.drop_leg(id);
            }
            return;
        }
        if !same_flow {
            // Nothing of it counts before its sender is known.
            return out.events.push(Event::LegRequest { leg: id, tx, request, flow, same_flow });
        }
        self.serve(now, id, tx, flow, request, out);
    }

    /// A request from another flow has proved to be the peer's: INVITE and UPDATE move the leg there (§12.2), and any does if the
    /// leg has lost its connection. It comes again as if it had come the leg's own way (D-13).
    pub fn adopt(&mut self, now: Instant, tx: TxId, out: &mut Out) {
        let Some((_, server, Some(id))) = self.servers.get(&tx) else { return };
        let (id, flow, request, refreshes) = (*id, server.flow, server.request.clone(), server.refreshes_target());
        if refreshes || self.is_cut_off(id) {
            self.move_leg(id, flow);
        }
        self.serve(now, id, tx, flow, request, out);
    }

    /// A request of the peer inside its dialog: order, glare (§14.2, RFC 3311 §5.2), the PRACK of a response of ours.
    fn serve(&mut self, now: Instant, id: LegId, tx: TxId, flow: Flow, request: Message, out: &mut Out) {
        let number = request.cseq().map_or(0, |cseq| cseq.number);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let in_order = leg.dialog.accept_cseq(number);
        let ours_open = leg.reinvite.is_some();
        let (ours, established) = (leg.ours, leg.established);
        let refused = match request.method() {
            Some(Method::Prack) => (!self.take_prack(id, &request)).then_some((481, "prack_without_response", Headers::new())),
            _ if !in_order => Some((500, "cseq_out_of_order", Headers::new())),
            Some(Method::Invite) if ours_open => Some((491, "glare", Headers::new())),
            Some(Method::Update) if ours_open && !request.body().is_empty() => Some((491, "glare", Headers::new())),
            // §14.2: the first INVITE has no final answer yet, ours (491) or theirs (500).
            Some(Method::Invite) if !established && ours => Some((491, "invite_inside_invite", Headers::new())),
            Some(Method::Invite) if !established => {
                let wait = (self.tokens.random_u32() % 10).to_string();
                Some((500, "invite_inside_invite", vec![("Retry-After", wait)]))
            }
            Some(Method::Invite | Method::Update) if is_too_brief(&request) => {
                Some((422, "session_interval_too_small", vec![("Min-SE", MIN_SE.to_string())]))
            }
            _ => None,
        };
        if let Some((code, name, headers)) = refused {
            self.count(name);
            return self.respond(now, tx, code, &headers, None, out);
        }
        if let (Some(Method::Invite | Method::Update), Some(leg)) = (request.method(), self.legs.get_mut(&id)) {
            leg.dialog.refresh_target(&request);
            leg.learn_allow(&request);
        }
        out.events.push(Event::LegRequest { leg: id, tx, request, flow, same_flow: true });
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
            return self.respond_stateless(tx, 481, &Headers::new(), out);
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
            Purpose::Asked { .. } | Purpose::Refresh { .. } | Purpose::Farewell => Bytes::new(),
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
            Purpose::Refresh { leg } if code >= 200 => {
                let leg = *leg;
                self.refreshed(now, leg, Some(&response), out);
            }
            Purpose::Refresh { .. } | Purpose::Farewell => {}
        }
    }
}
