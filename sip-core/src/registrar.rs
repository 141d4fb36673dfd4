//! REGISTER → [`Change`] (RFC 3261 §10.3), for a product with one client per account (spec sip.md §1.2).
//!
//! Pure: it is asked after authentication, looks at the present binding, and says what to answer and what to change. Only
//! [`crate::location::Location::apply`] changes anything.
//!
//! Path (RFC 3327) is kept for whoever sends one: §5.3 would refuse a phone that does not say `Supported: path`, but a phone
//! cannot know what proxies add, and without the Path it could not be reached. Outbound (RFC 5626 §6) is agreed when the
//! first hop does it too; otherwise the phone is registered as if it had not asked, instead of 439: it still rings.

use crate::flow::{Flow, Transport};
use crate::location::{Binding, Change, Unbound};
use crate::message::{Message, Name, NameAddr, Uri, split_list};
use std::fmt::Write;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest Contact URI, instance, Call-ID and Path in bytes: a binding stays small whoever makes it. Phones send 200 at most.
const LONGEST: usize = 512;
const LONGEST_PATH: usize = 1024;
const LONGEST_USER_AGENT: usize = 100;

/// Granted expiries in seconds (RFC 3261 §10.2.8; D-14: what was asked, within limits).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub min_s: u32,
    pub max_s: u32,
    /// When the phone names none.
    pub default_s: u32,
    /// So many phones register at once that their next REGISTERs are to be spread: each account gets its own share of up to
    /// a tenth less. Never more than was asked (RFC 3261 §10.3).
    pub spread: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { min_s: 30, max_s: 7200, default_s: 600, spread: false }
    }
}

impl Limits {
    fn grant(&self, account: &str, asked: u32) -> u32 {
        let seconds = asked.min(self.max_s);
        if !self.spread {
            return seconds;
        }
        // FNV-1a: the same account gets the same share, neighbours get others.
        let hash =
            account.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let share = u32::try_from(hash % u64::from(seconds / 10 + 1)).unwrap_or(0);
        // Not below our own minimum: phones ask again for what they got.
        (seconds - share).max(self.min_s)
    }
}

/// How often an outbound phone shows that it is there (Flow-Timer, RFC 5626 §4.4): it may take 80–100 % of it. Home routers
/// forget a UDP mapping after 30 s; a connection only has to outlive the idle limits of firewalls.
pub fn flow_timer_s(transport: Transport) -> u32 {
    match transport {
        Transport::Udp => 30,
        Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => 120,
    }
}

/// What to answer and what to change.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // lives for one turn, on the stack
pub enum Registered {
    /// 200 with `contact`: the value of its Contact header and the seconds granted, what the account is reachable at
    /// afterwards.
    Ok { change: Option<Change>, contact: Option<(String, u32)>, outbound: bool },
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
    account: &Arc<str>,
    current: Option<&Binding>,
    limits: Limits,
) -> Registered {
    let (Some(call_id), Some(cseq)) = (request.call_id(), request.cseq()) else { return Registered::Bad("Call-ID or CSeq") };
    let header_expires = request.header(Name::Expires).map(|text| expires(text, limits));
    if current.is_some_and(|binding| *binding.call_id == *call_id && binding.cseq >= cseq.number) {
        return Registered::OutOfOrder;
    }
    let contacts: Vec<&str> = request.headers(Name::Contact).flat_map(split_list).collect();
    if contacts.is_empty() {
        return Registered::Ok { change: None, contact: current.map(|b| reachable(b, now)), outbound: false };
    }
    if contacts.contains(&"*") {
        if contacts.len() > 1 || header_expires != Some(0) {
            return Registered::Bad("Contact: * goes alone and with Expires: 0");
        }
        let change = current.map(|_| Change::Unbind { account: account.clone(), why: Unbound::Unregistered });
        return Registered::Ok { change, contact: None, outbound: false };
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
        chosen = Some((contact, limits.grant(account, seconds)));
    }
    let Some((contact, seconds)) = chosen else {
        let change = leaves.then(|| Change::Unbind { account: account.clone(), why: Unbound::Unregistered });
        let contact = if leaves { None } else { current.map(|b| reachable(b, now)) };
        return Registered::Ok { change, contact, outbound: false };
    };
    let readable = |text| NameAddr::parse(text).and_then(|hop| Uri::parse(hop.uri)).is_some_and(|uri| is_sip(&uri));
    if !request.headers(Name::Path).flat_map(split_list).all(readable) {
        return Registered::Bad("Path");
    }
    let path = path(request);
    let instance = instance(&contact);
    let lengths = [contact.uri.len(), call_id.len(), instance.map_or(0, str::len)];
    if lengths.into_iter().any(|length| length > LONGEST) || path.as_ref().is_some_and(|path| path.len() > LONGEST_PATH) {
        return Registered::Bad("too long");
    }
    let reg_id = instance.and_then(|_| reg_id(request, &contact));
    let binding = Binding {
        account: account.clone(),
        contact_uri: contact.uri.into(),
        instance: instance.map(Into::into),
        reg_id,
        path,
        flow,
        registered_at: now,
        expires_at: now + Duration::from_secs(u64::from(seconds)),
        call_id: call_id.into(),
        cseq: cseq.number,
        user_agent: request.header(Name::UserAgent).map(|text| beginning(text, LONGEST_USER_AGENT).into()),
        written_as_of: now,
        contested: 0,
        rival: None,
    };
    Registered::Ok { contact: Some(reachable(&binding, now)), outbound: reg_id.is_some(), change: Some(Change::Bind(binding)) }
}

fn is_sip(uri: &Uri<'_>) -> bool {
    uri.scheme.eq_ignore_ascii_case("sip") || uri.scheme.eq_ignore_ascii_case("sips")
}

/// Only the client that made a binding takes it away by its contact; an older client must not unregister its successor.
fn same_client(binding: &Binding, contact: &NameAddr<'_>) -> bool {
    let instance = instance(contact);
    *binding.contact_uri == *contact.uri || (instance.is_some() && binding.instance.as_deref() == instance)
}

/// A quote in it would end it where it is written into our answer.
fn instance<'a>(contact: &NameAddr<'a>) -> Option<&'a str> {
    contact.param("+sip.instance")?.value.filter(|text| !text.is_empty() && !text.contains(['"', '\\']))
}

/// RFC 5626 §6: outbound needs the phone's word, its instance (seen by the caller) and a first hop that keeps the flow: us,
/// or an edge proxy whose Path, the last one, says `ob`.
fn reg_id(request: &Message, contact: &NameAddr<'_>) -> Option<NonZeroU32> {
    let reg_id = contact.param("reg-id")?.value?.parse().ok()?;
    let hops = request.headers(Name::Via).flat_map(split_list).count();
    let edge = request.headers(Name::Path).flat_map(split_list).last().and_then(NameAddr::parse);
    let edge_keeps_flow = edge.and_then(|edge| Uri::parse(edge.uri)).is_some_and(|uri| uri.param("ob").is_some());
    (request.has_option(Name::Supported, "outbound") && (hops == 1 || edge_keeps_flow)).then_some(reg_id)
}

fn path(request: &Message) -> Option<Box<str>> {
    let list = request.headers(Name::Path).collect::<Vec<_>>().join(", ");
    (!list.is_empty()).then(|| list.into_boxed_str())
}

/// At most `longest` bytes of it, cut between characters.
fn beginning(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

/// §10.3: a number we cannot read counts as the default; too large ones are capped later.
fn expires(text: &str, limits: Limits) -> u32 {
    text.trim().parse::<u64>().map_or(limits.default_s, |n| u32::try_from(n).unwrap_or(u32::MAX))
}

/// The Contact of a 200 (§10.3 step 8, RFC 5626 §6), and the seconds in it.
fn reachable(binding: &Binding, now: Instant) -> (String, u32) {
    let left = binding.expires_at.saturating_duration_since(now).as_secs();
    let seconds = u32::try_from(left).unwrap_or(u32::MAX);
    let mut contact = format!("<{}>;expires={seconds}", binding.contact_uri);
    if let Some(instance) = &binding.instance {
        let _ = write!(contact, ";+sip.instance=\"{instance}\"");
    }
    if let Some(reg_id) = binding.reg_id {
        let _ = write!(contact, ";reg-id={reg_id}");
    }
    (contact, seconds)
}
