//! Is anybody there? UDP phones that were silent for `sip.ping_s` are asked with OPTIONS on their flow. Any final answer, and
//! anything else that comes that way, shows life; two questions without an answer and the flow is dead, with all its
//! bindings.

use super::*;
use sip_core::endpoint::Lone;
use std::collections::BTreeSet;
use std::time::Duration;

/// Unanswered questions that make a flow dead: one may meet a router that restarts.
const MISSED: u8 = 2;

/// The watched flows: those of UDP bindings, while the switch is on.
#[derive(Default)]
pub(super) struct Pings {
    every: Option<Duration>,
    watched: HashMap<Flow, Watched>,
    /// When a flow has been silent too long. None while a question is open.
    timers: Timers<Flow>,
    /// Questions under way; one per flow at most.
    asked: HashMap<TxId, Flow>,
}

struct Watched {
    accounts: BTreeSet<Arc<str>>,
    heard: Instant,
    missed: u8,
    asking: bool,
}

impl Pings {
    pub fn new(every: Option<Duration>) -> Pings {
        Pings { every, ..Pings::default() }
    }

    pub fn watch(&mut self, now: Instant, binding: &Binding) {
        self.watch_after(now, binding, self.every.unwrap_or_default());
    }

    /// The same for one of many that begin together: they are asked one after the other.
    pub fn watch_part(&mut self, now: Instant, binding: &Binding, (index, count): (usize, usize)) {
        let part = |every: Duration| every.mul_f64(index as f64 / count as f64);
        self.watch_after(now, binding, self.every.map_or(Duration::ZERO, part));
    }

    fn watch_after(&mut self, now: Instant, binding: &Binding, after: Duration) {
        let Some(every) = self.every.filter(|_| binding.flow.transport == Transport::Udp) else { return };
        let watched = self.watched.entry(binding.flow).or_insert_with(|| {
            self.timers.set(binding.flow, Some(now + after));
            // Silent until the question is due.
            let heard = now.checked_sub(every.saturating_sub(after)).unwrap_or(now);
            Watched { accounts: BTreeSet::new(), heard, missed: 0, asking: false }
        });
        watched.accounts.insert(binding.account.clone());
    }

    pub fn forget(&mut self, binding: &Binding) {
        let Some(watched) = self.watched.get_mut(&binding.flow) else { return };
        watched.accounts.remove(&binding.account);
        if watched.accounts.is_empty() {
            self.watched.remove(&binding.flow);
            self.timers.set(binding.flow, None);
        }
    }

    pub fn heard(&mut self, now: Instant, flow: &Flow) {
        if let Some(watched) = self.watched.get_mut(flow) {
            (watched.heard, watched.missed) = (now, 0);
        }
    }

    /// The next flow that is to be asked. One that was heard meanwhile gets its time.
    pub fn due(&mut self, now: Instant) -> Option<Flow> {
        let every = self.every?;
        while let Some(flow) = self.timers.pop(now) {
            let Some(watched) = self.watched.get_mut(&flow) else { continue };
            if now < watched.heard + every {
                self.timers.set(flow, Some(watched.heard + every));
            } else if !watched.asking {
                watched.asking = true;
                return Some(flow);
            }
        }
        None
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// A question ended. The accounts of a flow that is dead now.
    fn ended(&mut self, now: Instant, tx: TxId, answered: bool) -> Vec<Arc<str>> {
        let Some(flow) = self.asked.remove(&tx) else { return Vec::new() };
        let (Some(watched), Some(every)) = (self.watched.get_mut(&flow), self.every) else { return Vec::new() };
        watched.asking = false;
        let silent = !answered && now >= watched.heard + every;
        watched.missed = if silent { watched.missed + 1 } else { 0 };
        if watched.missed >= MISSED {
            return watched.accounts.iter().cloned().collect();
        }
        self.timers.set(flow, Some(if silent { now } else { watched.heard.max(now) + every }));
        Vec::new()
    }
}

impl Switchboard {
    pub(super) fn ping(&mut self, now: Instant, flow: Flow) {
        let account = self.pings.watched.get(&flow).and_then(|watched| watched.accounts.first());
        let Some(binding) = account.and_then(|account| self.location.get(account)).cloned() else { return };
        let call_id = self.endpoint.tokens().token();
        let lone = Lone {
            flow,
            method: Method::Options,
            uri: &binding.contact_uri,
            routes: &binding.routes(),
            from: &format!("<sip:{}>", flow.local),
            to: &format!("<{}>", binding.contact_uri),
            call_id: &call_id,
            cseq: 1,
            headers: Headers::new(),
            body: None,
        };
        let tx = self.endpoint.send(now, lone, &mut self.sip);
        self.pings.asked.insert(tx, flow);
    }

    pub(super) fn pinged(&mut self, now: Instant, tx: TxId, answered: bool, out: &mut Vec<Effect>) {
        for account in self.pings.ended(now, tx, answered) {
            self.count("binding_silent");
            self.change_location(now, Change::Unbind { account, why: Unbound::FlowDead }, out);
        }
    }
}
