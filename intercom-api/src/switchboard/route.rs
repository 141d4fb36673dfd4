//! Requests outside a dialog: whose they are, and the names of what is refused.

use super::*;
use sip_core::message::{Name, NameAddr, Uri, split_list};
use sip_core::target::{BadTarget, check_uri};
use std::net::SocketAddr;

impl Switchboard {
    pub(super) fn request(&mut self, now: Instant, tx: TxId, request: Message, flow: Flow, out: &mut Vec<Effect>) {
        let Some(uri) = request.request_uri().and_then(Uri::parse) else { return self.stranger(tx, 400, "request_uri") };
        if !uri.scheme.eq_ignore_ascii_case("sip") && !uri.scheme.eq_ignore_ascii_case("sips") {
            return self.stranger(tx, 416, "uri_scheme");
        }
        if !self.is_ours(uri.host, &flow) {
            return self.stranger(tx, 404, "not_our_domain");
        }
        // An OPTIONS goes no further than here, so it may have used up its hops (§11, RFC 4475 §3.3.11).
        let used_up = request.header(Name::MaxForwards).is_some_and(|hops| hops.bytes().all(|digit| digit == b'0'));
        if used_up && request.method() != Some(&Method::Options) {
            return self.stranger(tx, 483, "too_many_hops");
        }
        match request.method() {
            Some(Method::Register) => self.register(now, tx, &request, flow, out),
            Some(Method::Invite) => self.invite(now, tx, &request, flow, out),
            Some(Method::Options) => self.options(now, tx, &request, &flow),
            Some(Method::Message) => self.message(now, tx, &request, out),
            // One that names a dialog names one that is not ours.
            Some(Method::Info) if self.settings.unlock_out_of_dialog && request.to().is_some_and(|to| to.tag().is_none()) => {
                self.lone_info(now, tx, &request, out);
            }
            Some(Method::Bye | Method::Info | Method::Update | Method::Prack) => self.stranger(tx, 481, "no_dialog"),
            // RFC 6665 §4.1.3: a NOTIFY without a subscription.
            Some(Method::Notify) => self.stranger(tx, 481, "no_subscription"),
            // §21.5.2: never heard of.
            Some(Method::Other(_)) => self.stranger(tx, 501, "unknown_method"),
            // §21.4.6: REFER, SUBSCRIBE, PUBLISH are known and not served. A wrong event package would be 489 (RFC 6665 §8.3.2,
            // RFC 3903 §6), but we are no notifier and no event state compositor at all.
            _ => {
                self.count("method_not_allowed");
                self.endpoint.respond_stateless(tx, 405, &self.served_methods(now, &flow), &mut self.sip);
            }
        }
    }

    /// `Allow` (§8.2.1, §11.2) for whoever has signed lately; strangers get small answers (D-15).
    fn served_methods(&self, now: Instant, flow: &Flow) -> Headers {
        self.guard.knows(now, flow.remote).then(|| ("Allow", ALLOW.to_owned())).into_iter().collect()
    }

    fn options(&mut self, now: Instant, tx: TxId, request: &Message, flow: &Flow) {
        let Some(unknown) = unknown_extensions(request) else {
            return self.endpoint.respond_stateless(tx, 200, &self.served_methods(now, flow), &mut self.sip);
        };
        self.count("bad_extension");
        self.endpoint.respond_stateless(tx, 420, &vec![("Unsupported", unknown)], &mut self.sip);
    }

    /// 420 if the request insists on something we do not know (§8.2.2.3), naming exactly that.
    pub(super) fn refuses_extension(&mut self, now: Instant, tx: TxId, request: &Message) -> bool {
        let Some(unknown) = unknown_extensions(request) else { return false };
        self.count("bad_extension");
        self.endpoint.respond(now, tx, 420, &vec![("Unsupported", unknown)], None, &mut self.sip);
        true
    }

    /// The name of a Contact or Path that nobody may be sent to, if there is one. For requests that have been signed.
    pub(super) fn bad_contact(&self, request: &Message, flow: &Flow) -> Option<&'static str> {
        let here = flow.local.ip();
        let is_ours = |a: SocketAddr| a == flow.local || (a.ip() == here && self.ports.has(a.port()));
        let lines = request.headers(Name::Contact).chain(request.headers(Name::Path));
        let mut targets = lines.flat_map(split_list).filter_map(NameAddr::parse);
        targets.find_map(|target| check_uri(target.uri, here, is_ours).err()).map(BadTarget::name)
    }

    /// A small answer that costs no memory (D-15).
    pub(super) fn stranger(&mut self, tx: TxId, code: u16, name: &'static str) {
        self.count(name);
        self.endpoint.respond_stateless(tx, code, &Headers::new(), &mut self.sip);
    }
}

fn unknown_extensions(request: &Message) -> Option<String> {
    let known = |tag: &&str| SUPPORTED.split(", ").any(|ours| ours.eq_ignore_ascii_case(tag));
    let unknown: Vec<&str> = request.headers(Name::Require).flat_map(split_list).filter(|tag| !known(tag)).collect();
    (!unknown.is_empty()).then(|| unknown.join(", "))
}
