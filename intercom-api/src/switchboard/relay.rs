//! MESSAGE from one account of this server to another (RFC 3428, spec sip.md §7): a request of our own towards the binding,
//! and its final status back.

use super::*;
use sip_core::endpoint::Lone;
use sip_core::message::{Name, Uri};
use std::time::Duration;

/// RFC 3428 §8: a MESSAGE fits one datagram of 1300 bytes; larger bodies have no place here.
const MAX_BODY: usize = 1300;
/// Answered before the sender gives up himself after 32 s (timer F).
const PATIENCE: Duration = Duration::from_secs(20);
/// MESSAGEs under way at once.
const MAX_RELAYS: usize = 1024;

impl Switchboard {
    pub(super) fn message(&mut self, now: Instant, tx: TxId, request: &Message, out: &mut Vec<Effect>) {
        let Some(sender) = self.authenticate(now, tx, request, None) else { return };
        if self.refuses_extension(now, tx, request) {
            return;
        }
        let Some(uri) = request.request_uri().and_then(Uri::parse) else { return };
        let Some(dialled) = uri.user_decoded() else { return self.refuse(now, tx, 484, "nothing_dialled") };
        if request.body().len() > MAX_BODY {
            return self.refuse(now, tx, 413, "message_too_large");
        }
        if self.is_foreign(&sender, &dialled) {
            return self.refuse(now, tx, 404, ring::FOREIGN);
        }
        if self.is_about_a_door(&sender, &dialled, request) {
            return self.lone_order(now, tx, request, &sender, &dialled, out);
        }
        if self.directory.group(&dialled).is_some() {
            // One status could not say what became of many copies.
            return self.refuse(now, tx, 404, "message_to_group");
        }
        if self.directory.account(&dialled).is_none() {
            return self.refuse(now, tx, 404, "unknown_number");
        }
        let Some(binding) = self.location.get(&dialled) else { return self.refuse(now, tx, 480, "not_registered") };
        if self.relays.len() >= MAX_RELAYS {
            self.count("message_relays_full");
            let headers = vec![("Retry-After", "5".to_owned())];
            return self.endpoint.respond(now, tx, 503, &headers, None, &mut self.sip);
        }
        let name: String = sender.name.iter().flat_map(|name| name.chars()).filter(|c| !matches!(c, '"' | '\\')).collect();
        let (flow, contact, routes) = (binding.flow, binding.contact_uri.clone(), binding.routes());
        let lone = Lone {
            flow,
            method: Method::Message,
            uri: &contact,
            routes: &routes,
            from: &format!("\"{name}\" <sip:{}@{}>", sender.number, uri.host),
            to: &format!("<sip:{dialled}@{}>", uri.host),
            call_id: &self.endpoint.tokens().token(),
            cseq: 1,
            headers: Headers::new(),
            body: request.header(Name::ContentType).map(|kind| (kind, request.body())),
        };
        let relay = self.endpoint.send(now, lone, &mut self.sip);
        self.endpoint.give_up_at(relay, now + PATIENCE);
        self.relays.insert(relay, tx);
    }

    /// What became of it. What concerns only us and the phone (redirection, challenges) is an unreachable phone to the sender.
    pub(super) fn relayed(&mut self, now: Instant, relay: TxId, response: Option<&Message>) {
        let Some(tx) = self.relays.remove(&relay) else { return };
        let code = match response.map_or(Some(408), Message::code) {
            Some(300..=399 | 401 | 407) | None => 480,
            Some(code) => code,
        };
        if code >= 300 {
            self.count("message_not_delivered");
        }
        self.endpoint.respond(now, tx, code, &Headers::new(), None, &mut self.sip);
    }
}
