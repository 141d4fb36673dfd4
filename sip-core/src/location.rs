//! Location: who is reachable where. One client per account (spec sip.md §1.2), so at most one binding each.
//!
//! Changed only by [`Location::apply`]: the same [`Change`]s are what a store keeps and what a cluster would carry.
//! Expiry is an ordered set of deadlines; nothing is scanned.

use crate::flow::Flow;
use crate::timers::Timers;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// One reachable contact of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub account: Arc<str>,
    /// Without angle brackets.
    pub contact_uri: String,
    /// `+sip.instance`, without quotes.
    pub instance: Option<String>,
    pub flow: Flow,
    pub registered_at: Instant,
    pub expires_at: Instant,
    /// Of the REGISTER that made it (RFC 3261 §10.3 step 7).
    pub call_id: String,
    pub cseq: u32,
    pub user_agent: String,
}

/// Why a binding went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unbound {
    /// The client said so.
    Unregistered,
    PasswordChanged,
    AccountRemoved,
    Expired,
}

/// The only way to change [`Location`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Bind(Binding),
    Unbind { account: Arc<str>, why: Unbound },
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    New,
    /// The same contact on the same flow.
    Refreshed,
    /// Another contact or flow: a new client, or the same one on another network.
    Replaced(Binding),
    Removed(Binding),
    /// Nothing to remove.
    Unchanged,
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Location {
    bindings: HashMap<Arc<str>, Binding>,
    /// Accounts in the timer set are named by a number, because deadlines want small keys.
    expiry: Timers<u64>,
    numbers: HashMap<u64, Arc<str>>,
    keys: HashMap<Arc<str>, u64>,
    next: u64,
}

impl Location {
    pub fn binding(&self, account: &str) -> Option<&Binding> {
        self.bindings.get(account)
    }

    pub fn len(&self) -> usize {
        self.bindings.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    pub fn apply(&mut self, change: Change) -> Applied {
        match change {
            Change::Bind(binding) => {
                let key = *self.keys.entry(binding.account.clone()).or_insert_with(|| {
                    self.next += 1;
                    self.numbers.insert(self.next, binding.account.clone());
                    self.next
                });
                self.expiry.set(key, Some(binding.expires_at));
                let (contact, flow) = (binding.contact_uri.clone(), binding.flow);
                match self.bindings.insert(binding.account.clone(), binding) {
                    None => Applied::New,
                    Some(old) if old.contact_uri == contact && old.flow == flow => Applied::Refreshed,
                    Some(old) => Applied::Replaced(old),
                }
            }
            Change::Unbind { account, why: _ } => {
                if let Some(key) = self.keys.remove(&account) {
                    self.numbers.remove(&key);
                    self.expiry.set(key, None);
                }
                self.bindings.remove(&account).map_or(Applied::Unchanged, Applied::Removed)
            }
        }
    }

    /// When the next binding expires.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.expiry.next()
    }

    /// The accounts whose binding has expired: to be applied as [`Unbound::Expired`].
    pub fn expired(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some(key) = self.expiry.pop(now) {
            if let Some(account) = self.numbers.get(&key) {
                changes.push(Change::Unbind { account: account.clone(), why: Unbound::Expired });
            }
        }
        changes
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test needs some instant to begin at
mod tests {
    use super::*;
    use crate::flow::Transport;
    use std::time::Duration;

    fn binding(now: Instant, account: &str, port: u16) -> Binding {
        Binding {
            account: account.into(),
            contact_uri: format!("sip:{account}@10.0.0.1:{port}"),
            instance: None,
            flow: Flow { transport: Transport::Udp, local: ([127, 0, 0, 1], 1).into(), remote: ([10, 0, 0, 1], port).into() },
            registered_at: now,
            expires_at: now + Duration::from_secs(60),
            call_id: "c".into(),
            cseq: 1,
            user_agent: String::new(),
        }
    }

    #[test]
    fn one_client_per_account_and_expiry_in_order() {
        let now = Instant::now();
        let mut location = Location::default();
        assert_eq!(location.apply(Change::Bind(binding(now, "a", 1))), Applied::New);
        assert_eq!(location.apply(Change::Bind(binding(now + Duration::from_secs(1), "a", 1))), Applied::Refreshed);
        assert!(matches!(location.apply(Change::Bind(binding(now, "a", 2))), Applied::Replaced(old) if old.flow.remote.port() == 1));
        location.apply(Change::Bind(binding(now + Duration::from_secs(5), "b", 3)));
        assert_eq!(location.len(), 2);
        assert_eq!(location.next_deadline(), Some(now + Duration::from_secs(60)));
        let gone = location.expired(now + Duration::from_secs(61));
        assert_eq!(gone, [Change::Unbind { account: "a".into(), why: Unbound::Expired }]);
        gone.into_iter().for_each(|change| {
            location.apply(change);
        });
        assert!(location.binding("a").is_none() && location.binding("b").is_some());
        assert!(matches!(location.apply(Change::Unbind { account: "b".into(), why: Unbound::Unregistered }), Applied::Removed(_)));
        assert!(location.is_empty() && location.next_deadline().is_none());
    }
}
