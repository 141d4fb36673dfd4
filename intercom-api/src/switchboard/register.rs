//! REGISTER: who is reachable where from now on.

use super::*;
use crate::live::Restorable;
use crate::model::Account;
use sip_core::message::{Name, Uri, split_list};
use sip_core::registrar::{Limits, Registered, flow_timer_s, register};
use std::time::Duration;

/// Extensions a REGISTER may require (RFC 3261 §10.3 step 2).
const EXTENSIONS: [&str; 2] = ["path", "outbound"];

/// REGISTERs accepted in a second above which the next ones are spread (D-14). 100,000 phones that refresh every 300 s make
/// 333 a second when they come evenly; more than that is a crowd that would come back as one.
const SURGE: u32 = 500;

/// How many REGISTERs were accepted in this second and the one before.
#[derive(Default)]
pub(super) struct Surge {
    second: Option<Instant>,
    this: u32,
    last: u32,
}

impl Surge {
    fn accept(&mut self, now: Instant) {
        let second = Duration::from_secs(1);
        match self.second {
            Some(begin) if now < begin + second => {}
            before => {
                self.last = if before.is_some_and(|begin| now < begin + second * 2) { self.this } else { 0 };
                (self.this, self.second) = (0, Some(now));
            }
        }
        self.this += 1;
    }

    fn is_on(&self) -> bool {
        self.this.max(self.last) > SURGE
    }
}

impl Switchboard {
    pub(super) fn register(&mut self, now: Instant, tx: TxId, request: &Message, flow: Flow, out: &mut Vec<Effect>) {
        // §10.3 step 5: the account registered is the To's; nobody registers for another.
        let Some(account) = request.to().and_then(|to| Some(Uri::parse(to.uri)?.user_decoded()?.into_owned())) else {
            return self.stranger(tx, 400, "to_without_user");
        };
        let Some(account) = self.authenticate(now, tx, request, Some(&account)) else { return };
        let known = |option: &&str| EXTENSIONS.iter().any(|known| option.eq_ignore_ascii_case(known));
        let unknown: Vec<&str> = request.headers(Name::Require).flat_map(split_list).filter(|option| !known(option)).collect();
        if !unknown.is_empty() {
            self.count("bad_extension");
            let headers = vec![("Unsupported", unknown.join(", "))];
            return self.endpoint.respond(now, tx, 420, &headers, None, &mut self.sip);
        }
        if let Some(bad) = self.bad_contact(request, &flow) {
            return self.refuse(now, tx, 403, bad);
        }
        let number = account.number.shared();
        if self.location.len() >= MAX_BINDINGS && self.location.get(&number).is_none() {
            return self.table_full(tx, "table_full_bindings");
        }
        let current = self.location.get(&number).map(Arc::as_ref);
        let limits = Limits { spread: self.surge.is_on(), ..self.limits };
        let mut headers: Headers = vec![("Date", http_date(self.unix_ms(now)))];
        match register(now, request, flow, &number, current, limits) {
            Registered::Ok { change, contact, outbound } => {
                if let Some((contact, seconds)) = contact {
                    headers.push(("Contact", contact));
                    headers.push(("Expires", seconds.to_string()));
                }
                headers.push(("Allow", ALLOW.to_owned()));
                self.say_extensions(request, flow, outbound, &mut headers);
                self.endpoint.respond(now, tx, 200, &headers, None, &mut self.sip);
                self.flush(out);
                self.surge.accept(now);
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

    /// RFC 3327 §5.3: the Path as it came, for a phone that says it wants to know. RFC 5626 §6: outbound is agreed; its
    /// timer is ours to set where no proxy stands between.
    fn say_extensions(&self, request: &Message, flow: Flow, outbound: bool, headers: &mut Headers) {
        if request.has_option(Name::Supported, "path") {
            headers.extend(request.headers(Name::Path).map(|path| ("Path", path.to_owned())));
        }
        if outbound {
            headers.push(("Require", "outbound".to_owned()));
            if request.header(Name::Path).is_none() {
                headers.push(("Flow-Timer", flow_timer_s(flow.transport).to_string()));
            }
        }
    }

    /// What a former run of this server knew (D-10), before anything is received. Whose account is gone or has another
    /// password now stays away.
    pub fn restore(&mut self, now: Instant, bindings: Vec<Restorable>) -> Vec<Registration> {
        let (count, mut restored) = (bindings.len(), Vec::new());
        for (index, Restorable { binding, made_with }) in bindings.into_iter().enumerate() {
            let number = binding.account.clone();
            let Some(account) = self.directory.account(&number).filter(|account| self.made_with(account) == made_with) else {
                continue;
            };
            // One text for all who name the account.
            self.location.apply(Change::Bind(Binding { account: account.number.shared(), ..binding }));
            self.absence.comes(&account.number);
            if let Some(binding) = self.location.get(&number).cloned() {
                self.pings.watch_part(now, &binding, (index, count));
                // It has signed nothing since we started.
                self.guard.meet(now, binding.flow.remote);
                restored.push(self.registration(binding));
            }
        }
        restored
    }

    /// The only door into Location: applied, published, kept, and told to every ring that waits for this account.
    pub(super) fn change_location(&mut self, now: Instant, change: Change, out: &mut Vec<Effect>) {
        match change {
            Change::Bind(binding) => self.bind(now, binding, out),
            Change::Unbind { account, why } => {
                let location::Applied::Removed(old) = self.location.apply(Change::Unbind { account: account.clone(), why })
                else {
                    return;
                };
                self.pings.forget(&old);
                self.guard.forget(old.flow.remote);
                out.push(Effect::Publish(Publication::Unregistered { account: account.clone(), why }));
                self.erase(&old, out);
                self.tell_of_leaving(now, &account, why, out);
                let reason = match why {
                    Unbound::PasswordChanged => "password changed",
                    Unbound::AccountRemoved => "account removed",
                    // A phone that says good-bye or falls silent may still answer what rings there.
                    Unbound::Unregistered | Unbound::Expired | Unbound::FlowDead => return,
                };
                let ringing: Vec<SessionId> =
                    self.calls.values().filter(|call| call.rings(&account)).map(Call::session).collect();
                for session in ringing {
                    self.with_call(now, session, out, |call, turn| call.member_void(turn, &account, reason));
                }
            }
        }
    }

    fn bind(&mut self, now: Instant, binding: Binding, out: &mut Vec<Effect>) {
        let account = binding.account.clone();
        let contested = self.location.get(&account).map_or(0, |old| old.contested);
        let applied = self.location.apply(Change::Bind(binding));
        let Some(binding) = self.location.get(&account).cloned() else { return };
        let refresh = match &applied {
            location::Applied::Refreshed => true,
            location::Applied::New => false,
            location::Applied::Replaced(old) => {
                self.pings.forget(old);
                if binding.flow.transport != Transport::Udp {
                    self.erase(old, out);
                }
                false
            }
            location::Applied::Unchanged | location::Applied::Removed(_) => return,
        };
        if binding.contested > contested {
            self.count("registration_contested");
        }
        self.pings.watch(now, &binding);
        let registration = self.registration(binding.clone());
        if binding.flow.transport == Transport::Udp
            && binding.is_to_be_written()
            && let Some(made_with) = self.directory.account(&account).map(|account| self.made_with(account))
        {
            let kept = Some(Kept { registration: registration.clone(), made_with });
            out.push(Effect::Publish(Publication::Keep { account: account.clone(), kept }));
        }
        out.push(Effect::Publish(Publication::Registered { registration, refresh }));
        if !refresh {
            self.tell_of_arrival(now, &account, matches!(applied, location::Applied::Replaced(_)), out);
        }
        self.revive(&binding);
        self.member_appeared(now, &binding, out);
    }

    /// Only UDP bindings are kept: the flow of any other is dead after a restart (D-10).
    fn erase(&self, old: &Binding, out: &mut Vec<Effect>) {
        if old.flow.transport == Transport::Udp {
            out.push(Effect::Publish(Publication::Keep { account: old.account.clone(), kept: None }));
        }
    }

    fn made_with(&self, account: &Account) -> i64 {
        self.challenger.proof(account.number.as_str(), account.password.reveal())
    }

    fn registration(&self, binding: Arc<Binding>) -> Registration {
        let (registered_ms, expires_ms) = (self.unix_ms(binding.registered_at), self.unix_ms(binding.expires_at));
        let app = self.directory.account(&binding.account).map(|account| account.app.clone()).unwrap_or_default();
        Registration { binding, app, registered_ms, expires_ms }
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
