//! Who is asking? Digest (D-11, D-12), the account behind it, what guessing costs, and what a stranger is told (D-15).

use super::limits::source;
use super::*;
use crate::model::Account;
use sip_core::digest::{Credentials, Verdict};
use sip_core::message::{Name, Uri};

impl Switchboard {
    /// The account that signed this request. `None`: it has been challenged or refused. `account`: only this one will do.
    pub(super) fn authenticate(&mut self, now: Instant, tx: TxId, request: &Message, account: Option<&str>) -> Option<Account> {
        let register = request.method() == Some(&Method::Register);
        // RFC 3261 §22.2, §22.3: the registrar asks as a server, everything else as a proxy would (spec sip.md §2.3).
        let (code, challenge, answer) = match register {
            true => (401, "WWW-Authenticate", Name::Authorization),
            false => (407, "Proxy-Authenticate", Name::ProxyAuthorization),
        };
        let unix_ms = self.unix_ms(now).unsigned_abs();
        let credentials = request.headers(answer).filter_map(Credentials::parse).find(|c| c.realm == self.realm);
        let flow = self.endpoint.source(tx)?;
        let source = source(flow.remote.ip());
        self.challenger.ask(source);
        let Some(credentials) = credentials else {
            self.count("challenged");
            self.challenge(tx, code, challenge, unix_ms, false);
            return None;
        };
        // The phone that holds the binding is not kept out by somebody who guesses behind the same NAT.
        let at_home = self.location.get(&credentials.username).is_some_and(|binding| binding.flow == flow);
        if !at_home && self.guard.bans.is_banned(now, source, &credentials.username) {
            self.count("banned");
            self.endpoint.respond_stateless(tx, 403, &Headers::new(), &mut self.sip);
            return None;
        }
        if self.challenger.was_for_another(&credentials.nonce, source) {
            self.count("nonce_from_elsewhere");
            self.challenge(tx, code, challenge, unix_ms, true);
            return None;
        }
        let found = self.directory.account(credentials.username.as_str()).cloned();
        let from_user = request.from().and_then(|from| Uri::parse(from.uri)?.user_decoded().map(|user| user.into_owned()));
        let own_name = from_user.as_deref() == Some(credentials.username.as_str());
        let right_account = account.is_none_or(|only| only == credentials.username.as_str());
        let password = found.as_ref().map(|account| account.password.reveal());
        let (call_id, cseq) = (request.call_id().unwrap_or_default(), request.cseq().map_or(0, |cseq| cseq.number));
        let method = request.method().map_or("", Method::as_str);
        match self.challenger.check(unix_ms, method, &credentials, password, call_id, cseq) {
            Verdict::Ok if own_name && right_account => {
                self.guard.bans.forget(source, &credentials.username);
                self.guard.meet(now, flow.remote);
                found
            }
            Verdict::Ok => {
                self.count("from_is_not_the_account");
                self.endpoint.respond_stateless(tx, 403, &Headers::new(), &mut self.sip);
                None
            }
            Verdict::Unusable(why) => {
                self.count(why.name());
                self.challenge(tx, code, challenge, unix_ms, false);
                None
            }
            Verdict::Stale(why) => {
                self.count(why.name());
                self.challenge(tx, code, challenge, unix_ms, true);
                None
            }
            Verdict::Wrong => {
                self.count("wrong_credentials");
                if self.guard.bans.wrong(now, source, &credentials.username) {
                    self.count("ban_imposed");
                }
                self.endpoint.respond_stateless(tx, 403, &Headers::new(), &mut self.sip);
                None
            }
        }
    }

    fn challenge(&mut self, tx: TxId, code: u16, name: &'static str, unix_ms: u64, stale: bool) {
        let values = self.challenger.challenge(unix_ms, stale);
        let headers = values.into_iter().map(|value| (name, value)).collect();
        self.endpoint.respond_stateless(tx, code, &headers, &mut self.sip);
    }

    /// Is the host of a Request-URI ours (D-15)?
    pub(super) fn is_ours(&self, host: &str, flow: &Flow) -> bool {
        // Three colons before an embedded IPv4 address: the grammar of RFC 3261 is wrong there (RFC 5118 §4.10).
        let host = host.trim_matches(['[', ']']).replace(":::", "::");
        self.settings.domains.iter().any(|domain| domain.eq_ignore_ascii_case(&host))
            || host.parse().is_ok_and(|ip: std::net::IpAddr| ip == flow.local.ip())
    }
}
