//! REGISTER → [`Change`] (RFC 3261 §10.3), for a product with one client per account (spec sip.md §1.2).
//!
//! Pure: it is asked after authentication, looks at the present binding, and says what to answer and what to change. Only
//! [`crate::location::Location::apply`] changes anything.

use crate::flow::Flow;
use crate::location::{Binding, Change, Unbound};
use crate::message::{Message, Name, NameAddr, Uri, split_list};
use std::time::{Duration, Instant};

/// Granted expiries in seconds (RFC 3261 §10.2.8; D-14: what was asked, within limits).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub min_s: u32,
    pub max_s: u32,
    /// When the phone names none.
    pub default_s: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { min_s: 30, max_s: 7200, default_s: 600 }
    }
}

/// What to answer and what to change.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // lives for one turn, on the stack
pub enum Registered {
    /// 200. `contact` is what the account is reachable at afterwards, with the seconds granted.
    Ok { change: Option<Change>, contact: Option<(String, u32)> },
    /// 423 with `Min-Expires`.
    TooBrief { min_s: u32 },
    /// 400: `*` with another contact or without `Expires: 0`, or an unreadable contact (§10.3 step 6).
    Bad(&'static str),
    /// 500: older than what we have of this Call-ID (§10.3 step 7).
    OutOfOrder,
}

/// Reads a REGISTER of `account`, whose present binding is `current`.
pub fn register(
    now: Instant,
    request: &Message,
    flow: Flow,
    account: &str,
    current: Option<&Binding>,
    limits: Limits,
) -> Registered {
    let (Some(call_id), Some(cseq)) = (request.call_id(), request.cseq()) else { return Registered::Bad("Call-ID or CSeq") };
    let header_expires = request.header(Name::Expires).map(|text| expires(text, limits));
    if current.is_some_and(|binding| binding.call_id == call_id && binding.cseq >= cseq.number) {
        return Registered::OutOfOrder;
    }
    let contacts: Vec<&str> = request.headers(Name::Contact).flat_map(split_list).collect();
    if contacts.is_empty() {
        return Registered::Ok { change: None, contact: current.map(|b| reachable(b, now)) };
    }
    if contacts.contains(&"*") {
        if contacts.len() > 1 || header_expires != Some(0) {
            return Registered::Bad("Contact: * goes alone and with Expires: 0");
        }
        let change = current.map(|_| Change::Unbind { account: account.into(), why: Unbound::Unregistered });
        return Registered::Ok { change, contact: None };
    }
    // One client per account: of several contacts the last one that stays wins.
    let mut chosen: Option<(NameAddr<'_>, u32)> = None;
    let mut leaves = false;
    for contact in contacts {
        let Some(contact) = NameAddr::parse(contact).filter(|c| Uri::parse(c.uri).is_some_and(|uri| is_sip(&uri))) else {
            return Registered::Bad("Contact");
        };
        let asked = contact.param("expires").and_then(|p| p.value).map(|text| expires(text, limits));
        let seconds = asked.or(header_expires).unwrap_or(limits.default_s);
        if seconds == 0 {
            leaves |= current.is_some_and(|binding| same_client(binding, &contact));
            continue;
        }
        if seconds < limits.min_s {
            return Registered::TooBrief { min_s: limits.min_s };
        }
        chosen = Some((contact, seconds.min(limits.max_s)));
    }
    let Some((contact, seconds)) = chosen else {
        let change = leaves.then(|| Change::Unbind { account: account.into(), why: Unbound::Unregistered });
        let contact = if leaves { None } else { current.map(|b| reachable(b, now)) };
        return Registered::Ok { change, contact };
    };
    let binding = Binding {
        account: account.into(),
        contact_uri: contact.uri.to_owned(),
        instance: contact.param("+sip.instance").and_then(|p| p.value).map(str::to_owned),
        flow,
        registered_at: now,
        expires_at: now + Duration::from_secs(u64::from(seconds)),
        call_id: call_id.to_owned(),
        cseq: cseq.number,
        user_agent: request.header(Name::UserAgent).map(|text| text.chars().take(100).collect()),
    };
    Registered::Ok { contact: Some((binding.contact_uri.clone(), seconds)), change: Some(Change::Bind(binding)) }
}

fn is_sip(uri: &Uri<'_>) -> bool {
    uri.scheme.eq_ignore_ascii_case("sip") || uri.scheme.eq_ignore_ascii_case("sips")
}

/// Only the client that made a binding takes it away by its contact; an older client must not unregister its successor.
fn same_client(binding: &Binding, contact: &NameAddr<'_>) -> bool {
    let instance = contact.param("+sip.instance").and_then(|p| p.value);
    binding.contact_uri == contact.uri || (instance.is_some() && binding.instance.as_deref() == instance)
}

/// §10.3: a number we cannot read counts as the default; too large ones are capped later.
fn expires(text: &str, limits: Limits) -> u32 {
    text.trim().parse::<u64>().map_or(limits.default_s, |n| u32::try_from(n).unwrap_or(u32::MAX))
}

fn reachable(binding: &Binding, now: Instant) -> (String, u32) {
    let left = binding.expires_at.saturating_duration_since(now).as_secs();
    (binding.contact_uri.clone(), u32::try_from(left).unwrap_or(u32::MAX))
}
