//! Requests outside a dialog: whose they are, and the names of what is refused.

use super::*;
use sip_core::message::{Name, Uri};

impl Switchboard {
    pub(super) fn request(&mut self, now: Instant, tx: TxId, request: Message, flow: Flow, out: &mut Vec<Effect>) {
        let Some(uri) = request.request_uri().and_then(Uri::parse) else { return self.stranger(tx, 400, "request_uri") };
        if !uri.scheme.eq_ignore_ascii_case("sip") && !uri.scheme.eq_ignore_ascii_case("sips") {
            return self.stranger(tx, 416, "uri_scheme");
        }
        if !self.is_ours(uri.host, &flow) {
            return self.stranger(tx, 404, "not_our_domain");
        }
        if request.header(Name::MaxForwards) == Some("0") {
            return self.stranger(tx, 483, "too_many_hops");
        }
        match request.method() {
            Some(Method::Register) => self.register(now, tx, &request, flow, out),
            Some(Method::Invite) => self.invite(now, tx, &request, flow, out),
            Some(Method::Options) => self.endpoint.respond_stateless(tx, 200, &Headers::new(), &mut self.sip),
            Some(Method::Bye | Method::Info | Method::Update | Method::Prack) => self.stranger(tx, 481, "no_dialog"),
            _ => self.stranger(tx, 405, "method_not_allowed"),
        }
    }

    /// A small answer that costs no memory (D-15).
    pub(super) fn stranger(&mut self, tx: TxId, code: u16, name: &'static str) {
        self.count(name);
        self.endpoint.respond_stateless(tx, code, &Headers::new(), &mut self.sip);
    }
}
