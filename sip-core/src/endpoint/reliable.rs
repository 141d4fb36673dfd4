//! Reliable provisional responses (RFC 3262). Ours are repeated until their PRACK when the peer knows 100rel (D-02); theirs
//! get a PRACK each, in the order of their RSeq, and repeats are absorbed.

use super::*;
use crate::message::{Name, params};
use crate::transaction::{T1, T64};
use std::time::Duration;

/// A provisional response of ours that waits for its PRACK (§3). There is one at most.
#[derive(Debug)]
pub(super) struct Unacknowledged {
    rseq: u32,
    bytes: Bytes,
    flow: Flow,
    /// It carries a session description: a 2xx has to wait for the PRACK (§3).
    described: bool,
    next: Instant,
    interval: Duration,
    end: Instant,
}

/// A 2xx that waits for the PRACK.
#[derive(Debug)]
pub(super) struct Held {
    tx: TxId,
    code: u16,
    headers: Headers,
    body: Option<(String, Bytes)>,
}

/// What becomes of a response that is about to be sent.
pub(super) enum Reliability {
    Plain,
    /// With this RSeq.
    Reliable(u32),
    /// Not now: the PRACK of the last one is missing.
    Waits,
}

impl Endpoint {
    fn supports(&self, tag: &str) -> bool {
        self.identity.supported.split(", ").any(|ours| ours == tag)
    }

    /// Does the peer of a leg of theirs get our provisional responses reliably?
    pub fn is_reliable(&self, leg: LegId) -> bool {
        let invite = self.legs.get(&leg).and_then(|leg| leg.invite).and_then(|tx| self.servers.get(&tx));
        invite.is_some_and(|(_, server, _)| {
            let asks = |list| server.request.has_option(list, "100rel");
            (asks(Name::Supported) || asks(Name::Require)) && self.supports("100rel")
        })
    }

    /// How this response to an INVITE of a leg leaves. A held 2xx is kept here; a provisional one that comes too early is
    /// dropped, because the one before it is being repeated anyway (§3: one at a time).
    pub(super) fn reliability(&mut self, tx: TxId, code: u16, headers: &Headers, body: Body<'_>) -> Reliability {
        let Some((_, server, Some(leg))) = self.servers.get(&tx).filter(|(_, server, _)| server.is_invite()) else {
            return Reliability::Plain;
        };
        // A plain 180 says nothing that must not be lost, and need not wait for the PRACK of what does (§3: MAY).
        let plain = code == 180 && body.is_none() && !server.request.has_option(Name::Require, "100rel");
        let (leg, knows) = (*leg, self.is_reliable(*leg) && !plain);
        let first = (self.tokens.random_u32() >> 1).max(1);
        let Some(leg) = self.legs.get_mut(&leg).filter(|leg| !leg.established && leg.invite == Some(tx)) else {
            return Reliability::Plain;
        };
        match (code, &leg.unacknowledged) {
            (101..200, None) if knows => {
                // §3: the first one is random, in the lower half.
                let rseq = leg.rseq.map_or(first, |last| last + 1);
                leg.rseq = Some(rseq);
                Reliability::Reliable(rseq)
            }
            (101..200, Some(_)) if !plain => Reliability::Waits,
            (200..300, Some(waiting)) if waiting.described => {
                let body = body.map(|(kind, body)| (kind.to_owned(), Bytes::copy_from_slice(body)));
                leg.held = Some(Held { tx, code, headers: headers.clone(), body });
                Reliability::Waits
            }
            _ => Reliability::Plain,
        }
    }

    pub(super) fn await_prack(&mut self, now: Instant, id: LegId, rseq: u32, bytes: Bytes, described: bool) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let (flow, next, end) = (leg.dialog.flow, now + T1, now + T64);
        leg.unacknowledged = Some(Unacknowledged { rseq, bytes, flow, described, next, interval: T1 * 2, end });
        self.timers.set(Timer::Reliable(id), Some(next));
    }

    /// A final response has left: nothing provisional is repeated any more.
    pub(super) fn stop_provisional(&mut self, id: LegId) {
        if let Some(leg) = self.legs.get_mut(&id) {
            (leg.unacknowledged, leg.held) = (None, None);
            self.timers.set(Timer::Reliable(id), None);
        }
    }

    /// Is this the PRACK we wait for? Then repeats end. RAck names the response exactly (§7.2), so a PRACK that was
    /// overtaken by a later request still counts.
    pub(super) fn take_prack(&mut self, id: LegId, prack: &Message) -> bool {
        let Some(leg) = self.legs.get_mut(&id) else { return false };
        let invite = leg.invite.and_then(|tx| self.servers.get(&tx)).and_then(|(_, server, _)| server.request.cseq());
        let (Some(waiting), Some(invite)) = (&leg.unacknowledged, invite) else { return false };
        let rack = prack.other_header("RAck").unwrap_or_default();
        let words: Vec<&str> = rack.split_ascii_whitespace().collect();
        let [rseq, cseq, "INVITE"] = words.as_slice() else { return false };
        if rseq.parse() != Ok(waiting.rseq) || cseq.parse() != Ok(invite.number) {
            return false;
        }
        leg.unacknowledged = None;
        self.timers.set(Timer::Reliable(id), None);
        true
    }

    /// The PRACK is answered: a 2xx that waited for it leaves.
    pub(super) fn release_2xx(&mut self, now: Instant, id: LegId, out: &mut Out) {
        let held = self.legs.get_mut(&id).filter(|leg| leg.unacknowledged.is_none()).and_then(|leg| leg.held.take());
        if let Some(Held { tx, code, headers, body }) = held {
            let body = body.as_ref().map(|(kind, body)| (kind.as_str(), &body[..]));
            self.respond(now, tx, code, &headers, body, out);
        }
    }

    /// Repeats it, in doubling intervals; after 64·T1 without PRACK the INVITE is refused (§3).
    pub(super) fn reliable_timeout(&mut self, now: Instant, id: LegId, out: &mut Out) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(waiting) = &mut leg.unacknowledged else { return };
        if waiting.end <= now {
            let (tx, forgotten) = (leg.invite, leg.forgotten);
            self.count("provisional_not_acknowledged");
            self.stop_provisional(id);
            if let Some(tx) = tx {
                self.respond(now, tx, 504, &Headers::new(), None, out);
            }
            self.drop_leg(id);
            if !forgotten {
                out.events.push(Event::NotAcknowledged { leg: id });
            }
            return;
        }
        out.transmits.push(Transmit { flow: waiting.flow, bytes: waiting.bytes.clone() });
        waiting.next = now + waiting.interval;
        waiting.interval *= 2;
        let next = waiting.next.min(waiting.end);
        self.timers.set(Timer::Reliable(id), Some(next));
    }

    /// A provisional response to our INVITE: PRACKed if it is reliable. `false`: a repeat, or one whose forerunner is still
    /// missing and will be repeated (§4).
    pub(super) fn take_provisional(&mut self, now: Instant, id: LegId, response: &Message, out: &mut Out) -> bool {
        let reliable = response.has_option(Name::Require, "100rel") && self.supports("100rel");
        let rseq = response.other_header("RSeq").and_then(|text| text.trim().parse::<u32>().ok()).filter(|_| reliable);
        let Some(leg) = self.legs.get_mut(&id) else { return false };
        let tag = response.to().and_then(|to| to.tag()).unwrap_or_default();
        if let Some(rseq) = rseq {
            // Each early dialog counts for itself.
            if let Some((_, last)) = leg.heard.as_ref().filter(|(known, _)| known == tag)
                && last.checked_add(1) != Some(rseq)
            {
                if *last != rseq {
                    self.count("rseq_out_of_order");
                }
                return false;
            }
            leg.heard = Some((tag.to_owned(), rseq));
        }
        leg.dialog.learn(response);
        leg.learn_allow(response);
        let Some((rseq, cseq)) = rseq.zip(response.cseq()) else { return true };
        let rack = format!("{rseq} {cseq}", cseq = format_args!("{} INVITE", cseq.number));
        if leg.offerless && !response.body().is_empty() {
            leg.owes = Some(legs::Owes::Prack(rack));
        } else {
            self.send_prack(now, id, rack, None, out);
        }
        true
    }

    pub(super) fn send_prack(&mut self, now: Instant, id: LegId, rack: String, body: Body<'_>, out: &mut Out) {
        let branch = self.tokens.branch();
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let bytes = leg.dialog.request(&Method::Prack, &branch).header("RAck", rack).maybe_body(body);
        let flow = leg.dialog.flow;
        self.start_client(now, flow, (branch, false), bytes, Purpose::Farewell, out);
    }
}

/// One number and its parameters, as in `Session-Expires: 1800;refresher=uas`.
pub(super) fn number_with_param<'a>(text: &'a str, name: &str) -> Option<(u32, Option<&'a str>)> {
    let (number, rest) = text.split_once(';').unwrap_or((text, ""));
    let value = params(rest).find(|param| param.name.eq_ignore_ascii_case(name)).and_then(|param| param.value);
    Some((number.trim().parse().ok()?, value))
}
