//! REGISTER: who is reachable where from now on.

use super::*;
use crate::live::RegistrationView;
use sip_core::message::Uri;
use sip_core::registrar::{Registered, register};

impl Switchboard {
    pub(super) fn register(&mut self, now: Instant, tx: TxId, request: &Message, flow: Flow, out: &mut Vec<Effect>) {
        // §10.3 step 5: the account registered is the To's; nobody registers for another.
        let Some(account) = request.to().and_then(|to| Some(Uri::parse(to.uri)?.user_decoded()?.into_owned())) else {
            return self.stranger(tx, 400, "to_without_user");
        };
        let Some(account) = self.authenticate(now, tx, request, Some(&account)) else { return };
        let number = account.number.as_str();
        if let Some(bad) = self.bad_contact(request, &flow) {
            return self.refuse(now, tx, 403, bad);
        }
        if self.location.len() >= MAX_BINDINGS && self.location.get(number).is_none() {
            return self.table_full(tx, "table_full_bindings");
        }
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
