//! Requests outside a dialog: REGISTER, INVITE, OPTIONS, and the names of everything else.

use super::*;
use crate::call::Ring;
use crate::live::RegistrationView;
use crate::model::{Account, AccountType};
use sip_core::message::{Name, Uri, split_list};
use sip_core::registrar::{Registered, register};

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
    fn stranger(&mut self, tx: TxId, code: u16, name: &'static str) {
        self.count(name);
        self.endpoint.respond_stateless(tx, code, &Headers::new(), &mut self.sip);
    }

    fn register(&mut self, now: Instant, tx: TxId, request: &Message, flow: Flow, out: &mut Vec<Effect>) {
        // §10.3 step 5: the account registered is the To's; nobody registers for another.
        let Some(account) = request.to().and_then(|to| Some(Uri::parse(to.uri)?.user_decoded()?.into_owned())) else {
            return self.stranger(tx, 400, "to_without_user");
        };
        let Some(account) = self.authenticate(now, tx, request, Some(&account)) else { return };
        let number = account.number.as_str();
        let mut headers: Headers = vec![("Date", http_date(self.unix_ms(now)))];
        match register(now, request, flow, number, self.location.get(number), self.limits) {
            Registered::Ok { change, contact } => {
                if let Some((uri, seconds)) = contact {
                    headers.push(("Contact", format!("<{uri}>;expires={seconds}")));
                    headers.push(("Expires", seconds.to_string()));
                }
                headers.push(("Allow", ALLOW.to_owned()));
                self.endpoint.respond(now, tx, 200, &headers, None, &mut self.sip);
                self.flush(out);
                if let Some(change) = change {
                    self.change_location(now, change, out);
                }
            }
            Registered::TooBrief { min_s } => {
                self.count("interval_too_brief");
                headers.push(("Min-Expires", min_s.to_string()));
                self.endpoint.respond(now, tx, 423, &headers, None, &mut self.sip);
            }
            Registered::Bad(_) => self.refuse(now, tx, 400, "bad_contact"),
            Registered::OutOfOrder => self.refuse(now, tx, 500, "register_out_of_order"),
        }
    }

    fn invite(&mut self, now: Instant, tx: TxId, request: &Message, flow: Flow, out: &mut Vec<Effect>) {
        let Some(account) = self.authenticate(now, tx, request, None) else { return };
        if self.draining {
            return self.refuse(now, tx, 503, "draining");
        }
        let wanted: Vec<String> = request.headers(Name::Require).flat_map(split_list).map(str::to_owned).collect();
        if !wanted.is_empty() {
            self.count("bad_extension");
            let headers = vec![("Unsupported", wanted.join(", "))];
            return self.endpoint.respond(now, tx, 420, &headers, None, &mut self.sip);
        }
        let Some(uri) = request.request_uri().and_then(Uri::parse) else { return };
        let Some(dialled) = uri.user_decoded().map(|user| user.into_owned()) else {
            return self.refuse(now, tx, 484, "nothing_dialled");
        };
        let Some((group, accounts)) = self.resolve(&account, &dialled) else {
            return self.refuse(now, tx, 404, "unknown_number");
        };
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

    /// What a number means to this caller: a group, a room of the door's map, or an app account. Apps reach apps (desk);
    /// an app that calls a door is a view, which has its own machine.
    fn resolve(&self, caller: &Account, dialled: &str) -> Option<(Option<Number>, Vec<Number>)> {
        if caller.kind == AccountType::Door {
            let group = self
                .directory
                .group(dialled)
                .or_else(|| self.directory.group(self.directory.room(&caller.number, dialled)?.as_str()));
            if let Some(group) = group {
                return Some((Some(group.id.clone()), group.members.clone()));
            }
        }
        let account = self.directory.account(dialled).filter(|a| a.kind == AccountType::App && a.number != caller.number)?;
        Some((None, vec![account.number.clone()]))
    }

    pub(super) fn registration(&self, binding: &Binding) -> RegistrationView {
        RegistrationView {
            account: binding.account.to_string(),
            contact: binding.contact_uri.clone(),
            flow: binding.flow.to_string(),
            user_agent: binding.user_agent.clone().unwrap_or_default(),
            registered_ms: self.unix_ms(binding.registered_at),
            expires_ms: self.unix_ms(binding.expires_at),
        }
    }
}

/// RFC 3261 §20.17: RFC 1123 date, always GMT.
fn http_date(unix_ms: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = unix_ms.div_euclid(1000);
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Civil date from a day number (the proleptic Gregorian calendar repeats every 400 years = 146,097 days).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    let pick = |names: &[&'static str], index: i64| usize::try_from(index).ok().and_then(|i| names.get(i).copied()).unwrap_or("");
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        pick(&DAYS, days.rem_euclid(7)),
        pick(&MONTHS, month),
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_those_of_the_spec_sample() {
        assert_eq!(super::http_date(1_579_139_834_000), "Thu, 16 Jan 2020 01:57:14 GMT");
        assert_eq!(super::http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(super::http_date(951_782_400_000), "Tue, 29 Feb 2000 00:00:00 GMT");
    }
}
