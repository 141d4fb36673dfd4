//! Location: who is reachable where (RFC 3261 §10.3; spec sip.md §1.2; D-06, D-10).
//!
//! One binding per account: a REGISTER from a new instance replaces the former. Changed only by [`Location::apply`], so
//! that a restored store, an API call and a REGISTER are one mechanism; what may register is decided before (registrar).
//!
//! Bindings are handed out as `Arc`s: who reads along (HTTP, the store) shares them, because a server of 100,000 phones
//! pays for every copy.
//!
//! Invariants: each binding has exactly one deadline in the ordered set; nothing is ever scanned.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::flow::Flow;
use crate::message::split_list;

/// How long a client that lost its account to another counts as one that may want it back.
const RIVAL_FOR: Duration = Duration::from_secs(600);

/// One reachable contact of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The SIP number, compared case-sensitively (spec sip.md §2.2).
    pub account: Arc<str>,
    /// The Contact URI as registered, without header parameters.
    pub contact_uri: Box<str>,
    /// `+sip.instance`, if the phone has one (RFC 5626 §4.1).
    pub instance: Option<Box<str>>,
    /// `reg-id` of a binding made by outbound (RFC 5626 §6): its phone keeps the flow alive and knows when it is dead.
    pub reg_id: Option<NonZeroU32>,
    /// The Path of the REGISTER as one list (RFC 3327): requests to the phone go this way.
    pub path: Option<Box<str>>,
    /// The way back to the phone, or to the proxy in front of it; the Contact's host is often private.
    pub flow: Flow,
    pub registered_at: Instant,
    pub expires_at: Instant,
    pub call_id: Box<str>,
    pub cseq: u32,
    /// `User-Agent`, for people who look for a phone.
    pub user_agent: Option<Box<str>>,
    /// `registered_at` of the version that is written down, its own if it is to be written (D-10).
    pub written_as_of: Instant,
    /// How often the account was taken by a client that had it before: two phones fight over it.
    pub contested: u32,
    /// The client that lost the account last.
    pub rival: Option<Box<Rival>>,
}

/// A client that was replaced, to know it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    contact_uri: Box<str>,
    instance: Option<Box<str>>,
    replaced_at: Instant,
}

/// The only ways a location changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // lives for one turn, on the stack
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
    Replaced(Arc<Binding>),
    Removed(Arc<Binding>),
    /// Nothing: the account was not bound, or the REGISTER is older than what is known (RFC 3261 §10.3 step 7: same
    /// Call-ID, CSeq not higher).
    Unchanged,
}

/// Account → binding.
#[derive(Debug, Default)]
pub struct Location {
    bindings: BTreeMap<Arc<str>, Arc<Binding>>,
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

    pub fn get(&self, account: &str) -> Option<&Arc<Binding>> {
        self.bindings.get(account)
    }

    /// All bindings, ordered by account.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Binding>> {
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

    fn bind(&mut self, mut binding: Binding) -> Applied {
        let deadline = (binding.expires_at, binding.account.clone());
        let place = binding.flow.transport.is_reliable().then(|| (binding.flow, binding.account.clone()));
        let applied = match self.bindings.entry(binding.account.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(Arc::new(binding));
                Applied::New
            }
            Entry::Occupied(entry) if entry.get().outdates(&binding) => return Applied::Unchanged,
            Entry::Occupied(mut entry) => {
                binding.succeed(entry.get());
                let old = entry.insert(Arc::new(binding));
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

    /// Is this version of it to be written down (D-10)?
    pub fn is_to_be_written(&self) -> bool {
        self.written_as_of == self.registered_at
    }

    /// The Route set of a request to this phone (RFC 3327 §5.1), in order.
    pub fn routes(&self) -> Vec<String> {
        self.path.iter().flat_map(|path| split_list(path)).map(str::to_owned).collect()
    }

    /// `other` comes from a REGISTER that was overtaken by, or is, the one of this binding.
    fn outdates(&self, other: &Binding) -> bool {
        self.call_id == other.call_id && other.cseq <= self.cseq
    }

    /// What a binding takes over from the one before it.
    fn succeed(&mut self, old: &Binding) {
        let now = self.registered_at;
        let rival = old.rival.as_ref().filter(|rival| now < rival.replaced_at + RIVAL_FOR);
        self.contested = if rival.is_some() { old.contested } else { 0 };
        self.rival = rival.cloned();
        let same_client = self.instance.is_some() && self.instance == old.instance;
        if self.same_place(old) {
            // D-10: a mere refresh is written at most once per quarter of its interval. What is on disk must not promise more
            // than what was granted last.
            let (interval, before) = (self.expires_at - now, old.expires_at - old.registered_at);
            let same = self.instance == old.instance && self.path == old.path && self.reg_id == old.reg_id;
            if same && interval >= before && now < old.written_as_of + interval / 4 {
                self.written_as_of = old.written_as_of;
            }
        } else if !same_client {
            self.contested += u32::from(rival.is_some_and(|rival| rival.is(self)));
            self.rival =
                Some(Box::new(Rival { contact_uri: old.contact_uri.clone(), instance: old.instance.clone(), replaced_at: now }));
        }
    }
}

impl Rival {
    fn is(&self, binding: &Binding) -> bool {
        self.contact_uri == binding.contact_uri || (self.instance.is_some() && self.instance == binding.instance)
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
            contact_uri: format!("sip:{account}@192.0.2.1:{port}").into(),
            instance: None,
            reg_id: None,
            path: None,
            flow: Flow { transport: Transport::Udp, local: ([203, 0, 113, 5], 6050).into(), remote },
            registered_at: now,
            expires_at: now + Duration::from_secs(600),
            call_id: call_id.into(),
            cseq,
            user_agent: None,
            written_as_of: now,
            contested: 0,
            rival: None,
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
        assert_eq!(location.apply(Change::Bind(moved.clone())), Applied::Replaced(Arc::new(refresh)));
        assert_eq!(location.get("101").map(|now| now.contact_uri.clone()), Some(moved.contact_uri));
        assert_eq!(location.len(), 1);

        let gone = location.apply(unbind("101", Unbound::Unregistered));
        assert!(matches!(gone, Applied::Removed(old) if old.call_id == moved.call_id));
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
        assert_eq!(location.get("101"), Some(&Arc::new(second)));
    }

    #[test]
    fn two_phones_that_take_an_account_from_each_other_are_counted_and_a_move_is_not() {
        let t0 = Instant::now();
        let mut location = Location::default();
        let mut taken = |seconds: u64, port: u16, instance: &str| {
            let at = t0 + Duration::from_secs(seconds);
            let call_id = format!("{instance}{seconds}");
            let binding = Binding { instance: Some(instance.into()), ..binding(at, "101", port, &call_id, 1) };
            location.apply(Change::Bind(binding));
            location.get("101").map(|now| now.contested)
        };
        assert_eq!(taken(0, 5060, "a"), Some(0));
        assert_eq!(taken(10, 5061, "a"), Some(0), "the same phone behind another port");
        assert_eq!(taken(20, 5070, "b"), Some(0), "a new phone");
        assert_eq!(taken(30, 5062, "a"), Some(1), "the old one again");
        assert_eq!(taken(40, 5070, "b"), Some(2));
        assert_eq!(taken(50, 5070, "b"), Some(2), "a refresh keeps the count");
        assert_eq!(taken(700, 5070, "b"), Some(0), "long over");
        assert_eq!(taken(701, 5062, "a"), Some(0));
    }

    #[test]
    fn a_mere_refresh_is_written_once_per_quarter_of_its_interval() {
        let t0 = Instant::now();
        let mut location = Location::default();
        let mut written = |seconds: u64, change: fn(&mut Binding)| {
            let mut binding = binding(t0 + Duration::from_secs(seconds), "101", 5060, "a", seconds as u32 + 1);
            change(&mut binding);
            location.apply(Change::Bind(binding));
            location.get("101").is_some_and(|now| now.is_to_be_written())
        };
        assert!(written(0, |_| ()));
        assert!(!written(149, |_| ()));
        assert!(written(150, |_| ()));
        assert!(!written(160, |_| ()));
        assert!(written(170, |b| b.expires_at -= Duration::from_secs(300)), "less was granted than is on disk");
        assert!(written(180, |b| b.path = Some("<sip:p;lr>".into())));
        assert!(written(190, |b| b.contact_uri = "sip:101@192.0.2.9".into()));
    }

    #[test]
    fn one_contact_under_two_instances_is_one_binding() {
        let t0 = Instant::now();
        let mut location = Location::default();
        for (instance, call_id) in [("<urn:uuid:1>", "a"), ("<urn:uuid:2>", "b")] {
            let instance = Some(instance.into());
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
        assert_eq!((gone, location.len()), (vec![Applied::Removed(Arc::new(lost))], 3));
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
