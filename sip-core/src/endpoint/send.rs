//! Requests outside any dialog that make none: REGISTER, MESSAGE, OPTIONS (RFC 3261 §8.1).

use super::*;
use crate::dialog::route;
use crate::message::Writer;

/// What a lone request is made of.
#[derive(Clone, Debug)]
pub struct Lone<'a> {
    pub flow: Flow,
    pub method: Method,
    /// Request-URI.
    pub uri: &'a str,
    /// The way to it (RFC 3327).
    pub routes: &'a [String],
    /// From and To values without tags.
    pub from: &'a str,
    pub to: &'a str,
    /// The same for all REGISTERs of a client, with a rising `cseq` (§10.2).
    pub call_id: &'a str,
    pub cseq: u32,
    pub headers: Headers,
    pub body: Body<'a>,
}

impl Endpoint {
    /// Sends it; the final answer comes as [`Event::Response`] without a leg.
    pub fn send(&mut self, now: Instant, lone: Lone<'_>, out: &mut Out) -> TxId {
        let (branch, tag) = (self.tokens.branch(), self.tokens.token());
        let via = format!("SIP/2.0/{} {};branch={branch};rport", lone.flow.transport.via_name(), self.sent_by(&lone.flow));
        let (uri, routes) = route(lone.uri, lone.routes);
        let writer = Writer::request(&lone.method, uri).header("Via", via).header("Max-Forwards", 70);
        let bytes = routes
            .iter()
            .fold(writer, |writer, route| writer.header("Route", route))
            .header("From", format_args!("{};tag={tag}", lone.from))
            .header("To", lone.to)
            .header("Call-ID", lone.call_id)
            .header("CSeq", format_args!("{} {}", lone.cseq, lone.method))
            .header("User-Agent", &self.identity.product)
            .headers(&lone.headers)
            .maybe_body(lone.body);
        let purpose = Purpose::Asked { leg: None, method: lone.method };
        self.start_client(now, lone.flow, (branch, false), bytes, purpose, out)
    }

    /// A request that has no answer by then has none (its answer comes as [`Event::Response`] without a response).
    pub fn give_up_at(&mut self, tx: TxId, at: Instant) {
        if let Some(client) = self.clients.get_mut(&tx) {
            client.transaction.give_up_at(at);
            self.timers.set(Timer::Client(tx), client.transaction.deadline());
        }
    }
}
