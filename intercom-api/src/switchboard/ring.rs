//! INVITE outside a dialog: what was dialled, and the call it makes.

use super::*;
use crate::call::Ring;
use crate::model::{Account, AccountType};
use sip_core::endpoint;
use sip_core::message::{Name, Uri, split_list};

/// What was dialled belongs to another application (spec admin-api.md §2.1).
pub(super) const FOREIGN: &str = "foreign_target";

impl Switchboard {
    pub(super) fn invite(&mut self, now: Instant, tx: TxId, request: &Message, flow: Flow, out: &mut Vec<Effect>) {
        let Some(account) = self.authenticate(now, tx, request, None) else { return };
        if self.draining {
            return self.refuse(now, tx, 503, "draining");
        }
        if self.refuses_extension(now, tx, request) {
            return;
        }
        if endpoint::is_too_brief(request) {
            self.count("session_interval_too_small");
            let headers = vec![("Min-SE", endpoint::MIN_SE.to_string())];
            return self.endpoint.respond(now, tx, 422, &headers, None, &mut self.sip);
        }
        if !self.speaks_sdp(now, tx, request) {
            return;
        }
        if let Some(bad) = self.bad_contact(request, &flow) {
            return self.refuse(now, tx, 403, bad);
        }
        let Some(uri) = request.request_uri().and_then(Uri::parse) else { return };
        let Some(dialled) = uri.user_decoded().map(|user| user.into_owned()) else {
            return self.refuse(now, tx, 484, "nothing_dialled");
        };
        let (group, accounts) = match self.resolve(&account, &dialled) {
            Ok(found) => found,
            Err(name) => return self.refuse(now, tx, 404, name),
        };
        if account.kind == AccountType::Door
            && let Err(tell) = self.guard.ring(now, &account.number)
        {
            return self.rings_too_often(now, tx, &account.number, tell, out);
        }
        if self.calls.len() >= MAX_CALLS {
            return self.table_full(tx, "table_full_calls");
        }
        // D-07: a door that calls again has rebooted or given up; its old call is over. An app has one call at a time.
        if let Some(&old) = self.callers.get(&account.number) {
            let reason = if account.kind == AccountType::Door { "door called again" } else { "caller called again" };
            self.with_call(now, old, out, |call, turn| call.end(turn, reason, Some(487)));
        }
        self.next_session += 1;
        let ring = Ring {
            id: CallId(self.endpoint.tokens().token()),
            session: SessionId(self.next_session),
            caller_name: account.name.clone().unwrap_or_else(|| account.number.to_string()),
            caller: account.number,
            app: account.app,
            dialled,
            group,
            accounts,
            domain: uri.host.to_owned(),
        };
        let refused = match Call::ring(&mut self.turn(now, out), ring, tx, request, flow) {
            Ok(call) => return self.ring_members(now, call, out),
            Err(refuse) => refuse,
        };
        self.refuse(now, tx, refused.code(), refused.name());
    }

    /// Offers and answers are SDP, both ways (RFC 3261 §8.2.3, §21.4.7): a body of another kind, or a caller that takes none
    /// of ours, is refused.
    fn speaks_sdp(&mut self, now: Instant, tx: TxId, request: &Message) -> bool {
        if !request.body().is_empty() && request.content_type().is_some_and(|kind| !kind.eq_ignore_ascii_case("application/sdp"))
        {
            self.count("unsupported_body");
            let headers = vec![("Accept", "application/sdp".to_owned())];
            self.endpoint.respond(now, tx, 415, &headers, None, &mut self.sip);
            return false;
        }
        let mut accepts = request.headers(Name::Accept).flat_map(split_list).peekable();
        let ours = |range: &str| {
            let range = range.split(';').next().unwrap_or(range).trim();
            ["application/sdp", "application/*", "*/*"].iter().any(|known| range.eq_ignore_ascii_case(known))
        };
        if accepts.peek().is_some() && !accepts.any(ours) {
            self.refuse(now, tx, 406, "accepts_no_sdp");
            return false;
        }
        true
    }

    fn rings_too_often(&mut self, now: Instant, tx: TxId, door: &Number, tell: bool, out: &mut Vec<Effect>) {
        self.count("door_rings_too_often");
        let headers = vec![("Retry-After", Guard::ring_again_s().to_string())];
        self.endpoint.respond(now, tx, 480, &headers, None, &mut self.sip);
        if tell {
            out.push(Effect::Publish(Publication::RingsTooOften { door: door.to_string() }));
        }
    }

    fn ring_members(&mut self, now: Instant, call: Call, out: &mut Vec<Effect>) {
        let session = call.session();
        self.index(&call);
        self.flush(out);
        let accounts = call.accounts().to_vec();
        self.calls.insert(session, call);
        for account in accounts {
            if self.talking.contains_key(&account) {
                self.with_call(now, session, out, |call, turn| call.member_busy(turn, &account));
            } else if let Some(binding) = self.location.get(account.as_str()).cloned() {
                self.with_call(now, session, out, |call, turn| call.member_appeared(turn, &binding));
            }
        }
        self.with_call(now, session, out, |call, turn| call.publish(turn));
    }

    /// What a number means to this caller: a group, a room of the door's map, or an app account; else the name of the refusal.
    /// Apps reach apps (desk); an app that calls a door is a view, which has its own machine.
    fn resolve(&self, caller: &Account, dialled: &str) -> Result<(Option<Number>, Vec<Number>), &'static str> {
        if caller.kind == AccountType::Door {
            let group = self
                .directory
                .group(dialled)
                .or_else(|| self.directory.group(self.directory.room(&caller.number, dialled)?.as_str()));
            if let Some(group) = group {
                return if group.app == caller.app { Ok((Some(group.id.clone()), group.members.clone())) } else { Err(FOREIGN) };
            }
        }
        match self.directory.account(dialled).filter(|a| a.kind == AccountType::App && a.number != caller.number) {
            Some(account) if account.app == caller.app => Ok((None, vec![account.number.clone()])),
            Some(_) => Err(FOREIGN),
            None => Err("unknown_number"),
        }
    }

    /// Is this number an account of another application? Nobody reaches those, and nobody learns that they are there.
    pub(super) fn is_foreign(&self, sender: &Account, dialled: &str) -> bool {
        self.directory.account(dialled).is_some_and(|account| account.app != sender.app)
    }
}
