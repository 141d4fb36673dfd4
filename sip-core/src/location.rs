//! Location: who is reachable where (RFC 3261 §10.3; spec sip.md §1.2; D-06, D-10).
//!
//! One binding per account: a REGISTER from a new instance replaces the former. Changed only by [`Location::apply`], so
//! that a restored store, an API call and a REGISTER are one mechanism; what may register is decided before (registrar).
//!
//! Invariants: each binding has exactly one deadline in the ordered set; nothing is ever scanned.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::flow::Flow;

/// One reachable contact of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The SIP number, compared case-sensitively (spec sip.md §2.2).
    pub account: Arc<str>,
    /// The Contact URI as registered, without header parameters.
    pub contact_uri: String,
    /// `+sip.instance`, if the phone has one (RFC 5626 §4.1).
    pub instance: Option<String>,
    /// The way back to the phone; the Contact's host is often private.
    pub flow: Flow,
    pub registered_at: Instant,
    pub expires_at: Instant,
    pub call_id: String,
    pub cseq: u32,
    /// `User-Agent`, for people who look for a phone.
    pub user_agent: Option<String>,
}

/// The only ways a location changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Bind(Binding),
    Unbind { account: Arc<str>, why: Unbound },
}

/// Why an account is no longer bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unbound {
    /// REGISTER with Expires 0 or Contact `*`.
    Unregistered,
    Expired,
    /// The password was changed: what was registered with the old one is void at once (spec sip.md §1.2).
    PasswordChanged,
    /// The account was deleted.
    AccountRemoved,
    /// The transport reported that nobody is there any more.
    FlowDead,
}

/// What a change did. Old bindings are handed out: their legs and records may have to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The account was not reachable before.
    New,
    /// Same contact and flow: only expiry and identity of the REGISTER moved on (D-06: no second leg).
    Refreshed,
    /// Another contact or flow: a new leg instead of the old one (D-06).
    Replaced(Binding),
    Removed(Binding),
    /// Nothing: the account was not bound, or the REGISTER is older than what is known (RFC 3261 §10.3 step 7: same
    /// Call-ID, CSeq not higher).
    Unchanged,
}

/// Account → binding.
#[derive(Debug, Default)]
pub struct Location {
    bindings: BTreeMap<Arc<str>, Binding>,
    deadlines: BTreeSet<(Instant, Arc<str>)>,
    /// By connection; UDP bindings are not in it.
    on_flows: BTreeSet<(Flow, Arc<str>)>,
}

impl Location {
    /// The only door. Says what the change did.
    pub fn apply(&mut self, change: Change) -> Applied {
        match change {
            Change::Bind(binding) => self.bind(binding),
            Change::Unbind { account, why: _ } => match self.bindings.remove(&account) {
                Some(old) => {
                    self.deadlines.remove(&(old.expires_at, account));
                    self.on_flows.remove(&(old.flow, old.account.clone()));
                    Applied::Removed(old)
                }
                None => Applied::Unchanged,
            },
        }
    }

    pub fn get(&self, account: &str) -> Option<&Binding> {
        self.bindings.get(account)
    }

    /// All bindings, ordered by account.
    pub fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.values()
    }

    pub fn len(&self) -> usize {
        self.bindings.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    /// When [`Location::expired`] has something next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The change that takes out the binding whose time has come first, for [`Location::apply`]; `None` if none has.
    pub fn expired(&self, now: Instant) -> Option<Change> {
        let (at, account) = self.deadlines.first()?;
        (*at <= now).then(|| Change::Unbind { account: account.clone(), why: Unbound::Expired })
    }

    /// The change that takes out a binding of this connection, for [`Location::apply`]; `None` when none is left on it.
    pub fn lost(&self, flow: &Flow) -> Option<Change> {
        let (on, account) = self.on_flows.range((*flow, Arc::from(""))..).next()?;
        (on == flow).then(|| Change::Unbind { account: account.clone(), why: Unbound::FlowDead })
    }

    fn bind(&mut self, binding: Binding) -> Applied {
        let deadline = (binding.expires_at, binding.account.clone());
        let place = binding.flow.transport.is_reliable().then(|| (binding.flow, binding.account.clone()));
        let applied = match self.bindings.entry(binding.account.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(binding);
                Applied::New
            }
            Entry::Occupied(entry) if entry.get().outdates(&binding) => return Applied::Unchanged,
            Entry::Occupied(mut entry) => {
                let old = entry.insert(binding);
                self.deadlines.remove(&(old.expires_at, old.account.clone()));
                self.on_flows.remove(&(old.flow, old.account.clone()));
                if entry.get().same_place(&old) { Applied::Refreshed } else { Applied::Replaced(old) }
            }
        };
        self.deadlines.insert(deadline);
        self.on_flows.extend(place);
        applied
    }
}

impl Binding {
    /// Same contact and flow (D-06). The instance does not count: linphone registers one contact under two.
    pub fn same_place(&self, other: &Binding) -> bool {
        self.contact_uri == other.contact_uri && self.flow == other.flow
    }

    /// `other` comes from a REGISTER that was overtaken by, or is, the one of this binding.
    fn outdates(&self, other: &Binding) -> bool {
        self.call_id == other.call_id && other.cseq <= self.cseq
    }
}

#[cfg(test)]
// A base for virtual time; no test waits.
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::flow::Transport;

    fn binding(now: Instant, account: &str, port: u16, call_id: &str, cseq: u32) -> Binding {
        let remote = ([192, 0, 2, 1], port).into();
        Binding {
            account: account.into(),
            contact_uri: format!("sip:{account}@192.0.2.1:{port}"),
            instance: None,
            flow: Flow { transport: Transport::Udp, local: ([203, 0, 113, 5], 6050).into(), remote },
            registered_at: now,
            expires_at: now + Duration::from_secs(600),
            call_id: call_id.into(),
            cseq,
            user_agent: None,
        }
    }

    fn unbind(account: &str, why: Unbound) -> Change {
        Change::Unbind { account: account.into(), why }
    }

    #[test]
    fn a_phone_comes_refreshes_moves_and_goes() {
        let t0 = Instant::now();
        let mut location = Location::default();
        let first = binding(t0, "101", 5060, "a", 1);
        assert_eq!(location.apply(Change::Bind(first)), Applied::New);

        let later = t0 + Duration::from_secs(300);
        let refresh = binding(later, "101", 5060, "a", 2);
        assert_eq!(location.apply(Change::Bind(refresh.clone())), Applied::Refreshed);
        assert_eq!(location.next_deadline(), Some(refresh.expires_at));

        let moved = binding(later, "101", 5070, "b", 1);
        assert_eq!(location.apply(Change::Bind(moved.clone())), Applied::Replaced(refresh));
        assert_eq!(location.get("101"), Some(&moved));
        assert_eq!(location.len(), 1);

        let gone = location.apply(unbind("101", Unbound::Unregistered));
        assert_eq!(gone, Applied::Removed(moved));
        assert_eq!(location.apply(unbind("101", Unbound::Unregistered)), Applied::Unchanged);
        assert_eq!(location.next_deadline(), None);
    }

    #[test]
    fn an_overtaken_register_changes_nothing() {
        let t0 = Instant::now();
        let mut location = Location::default();
        let second = binding(t0, "101", 5070, "a", 21);
        location.apply(Change::Bind(second.clone()));
        for cseq in [20, 21] {
            let overtaken = binding(t0, "101", 5060, "a", cseq);
            assert_eq!(location.apply(Change::Bind(overtaken)), Applied::Unchanged);
        }
        assert_eq!(location.get("101"), Some(&second));
    }

    #[test]
    fn one_contact_under_two_instances_is_one_binding() {
        let t0 = Instant::now();
        let mut location = Location::default();
        for (instance, call_id) in [("<urn:uuid:1>", "a"), ("<urn:uuid:2>", "b")] {
            let instance = Some(instance.to_owned());
            let binding = Binding { instance, ..binding(t0, "101", 5060, call_id, 1) };
            assert!(!matches!(location.apply(Change::Bind(binding)), Applied::Replaced(_)));
        }
    }

    #[test]
    fn bindings_expire_in_order_and_numbers_differ_by_case() {
        let t0 = Instant::now();
        let mut location = Location::default();
        for (seconds, account) in [(2, "a"), (0, "B"), (1, "b")] {
            let at = t0 + Duration::from_secs(seconds);
            location.apply(Change::Bind(binding(at, account, 5060, "x", 1)));
        }
        assert_eq!(location.expired(t0), None);
        let later = t0 + Duration::from_secs(601);
        let mut gone = Vec::new();
        while let Some(change) = location.expired(later) {
            if let Applied::Removed(old) = location.apply(change) {
                gone.push(old.account.to_string());
            }
        }
        assert_eq!(gone, ["B", "b"]);
        assert_eq!(location.iter().count(), 1);
    }

    #[test]
    fn a_lost_connection_names_its_bindings_and_no_others() {
        let t0 = Instant::now();
        let mut location = Location::default();
        let over = |transport, account: &str, port| {
            let mut binding = binding(t0, account, port, "x", 1);
            binding.flow.transport = transport;
            binding
        };
        let lost = over(Transport::Tcp, "a", 5060);
        for binding in
            [lost.clone(), over(Transport::Tcp, "b", 5060), over(Transport::Tcp, "c", 5061), over(Transport::Udp, "d", 5060)]
        {
            location.apply(Change::Bind(binding));
        }
        // b moves to another connection.
        location.apply(Change::Bind(Binding { call_id: "y".into(), ..over(Transport::Tls, "b", 5060) }));
        let mut gone = Vec::new();
        while let Some(change) = location.lost(&lost.flow) {
            assert_eq!(change, unbind("a", Unbound::FlowDead));
            gone.push(location.apply(change));
        }
        assert_eq!((gone, location.len()), (vec![Applied::Removed(lost)], 3));
        assert_eq!(location.lost(&over(Transport::Udp, "d", 5060).flow), None);
    }

    proptest! {
        /// Whatever happens, each binding has its one deadline.
        #[test]
        fn deadlines_match_bindings(steps in prop::collection::vec((0..4_u8, 0..5_u8, 0..3_u16, 0..9_u32, 0..9_u64), 0..60)) {
            let t0 = Instant::now();
            let mut location = Location::default();
            for (step, account, port, cseq, seconds) in steps {
                let now = t0 + Duration::from_secs(seconds * 100);
                let account = account.to_string();
                let change = match step {
                    0 => Some(unbind(&account, Unbound::FlowDead)),
                    1 => location.expired(now + Duration::from_secs(600)),
                    _ => Some(Change::Bind(binding(now, &account, 5060 + port, "c", cseq))),
                };
                change.map(|change| location.apply(change));
                let mut expected: Vec<_> = location.iter().map(|b| (b.expires_at, b.account.clone())).collect();
                expected.sort();
                prop_assert_eq!(location.deadlines.iter().cloned().collect::<Vec<_>>(), expected);
            }
        }
    }
}
