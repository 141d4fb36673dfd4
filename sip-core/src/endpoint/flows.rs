//! Connections: what hangs on a stream flow, and what becomes of it when the connection is gone (RFC 3261 §8.1.3.1, §18.4).
//!
//! UDP flows are not indexed: nobody ever says that one has ended.

use super::*;
use std::collections::BTreeSet;

/// What hangs on each stream flow.
#[derive(Debug, Default)]
pub(super) struct OnFlows(HashMap<Flow, OnFlow>);

#[derive(Debug, Default)]
struct OnFlow {
    clients: BTreeSet<TxId>,
    legs: BTreeSet<LegId>,
}

impl OnFlows {
    pub fn add_client(&mut self, flow: Flow, tx: TxId) {
        if flow.transport.is_reliable() {
            self.0.entry(flow).or_default().clients.insert(tx);
        }
    }

    pub fn add_leg(&mut self, flow: Flow, leg: LegId) {
        if flow.transport.is_reliable() {
            self.0.entry(flow).or_default().legs.insert(leg);
        }
    }

    pub fn remove_client(&mut self, flow: &Flow, tx: TxId) {
        self.remove(flow, |on| on.clients.remove(&tx));
    }

    pub fn remove_leg(&mut self, flow: &Flow, leg: LegId) {
        self.remove(flow, |on| on.legs.remove(&leg));
    }

    fn remove(&mut self, flow: &Flow, remove: impl FnOnce(&mut OnFlow) -> bool) {
        let Some(on) = self.0.get_mut(flow) else { return };
        remove(on);
        if on.clients.is_empty() && on.legs.is_empty() {
            self.0.remove(flow);
        }
    }
}

impl Endpoint {
    /// The connection of a flow is gone, or something was to be sent on one that is. Requests of ours that wait for an answer
    /// on it end like a 503 (§8.1.3.1); their user hears it as if nobody had answered. An INVITE of theirs that is still open
    /// is over as well: its sender had the same from his side ([`Event::Lost`]). Dialogs stay, and may be moved to
    /// another flow ([`Endpoint::move_leg`]); until then nothing can be sent inside them.
    pub fn flow_closed(&mut self, now: Instant, flow: &Flow, out: &mut Out) {
        let Some(on) = self.on_flows.0.get(flow) else { return };
        let (clients, legs) = (on.clients.clone(), on.legs.clone());
        for leg in &legs {
            if let Some(leg) = self.legs.get_mut(leg) {
                leg.cut_off = true;
            }
        }
        for tx in clients {
            if self.clients.get(&tx).is_some_and(|client| client.transaction.is_open()) {
                self.count("request_lost_its_connection");
                self.client_failed(now, tx, 503, out);
            }
        }
        for id in legs {
            self.drop_open_invite(id, out);
        }
    }

    /// A leg goes on over another flow: that of a request which the user has found to be the peer's own (D-13), or of a
    /// connection we made ourselves.
    pub fn move_leg(&mut self, id: LegId, flow: Flow) {
        let sent_by = self.sent_by(&flow);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        self.on_flows.remove_leg(&leg.dialog.flow, id);
        (leg.dialog.flow, leg.dialog.sent_by, leg.cut_off) = (flow, sent_by, false);
        leg.move_repeat(flow);
        self.on_flows.add_leg(flow, id);
    }

    /// Has this leg lost its connection?
    pub fn is_cut_off(&self, leg: LegId) -> bool {
        self.legs.get(&leg).is_some_and(|leg| leg.cut_off)
    }

    /// Their INVITE that has no final answer: none can be given any more.
    fn drop_open_invite(&mut self, id: LegId, out: &mut Out) {
        let Some(leg) = self.legs.get(&id).filter(|leg| leg.awaits_our_answer()) else { return };
        if let Some(tx) = leg.invite {
            self.drop_server(tx);
        }
        self.drop_leg(id);
        self.count("invite_lost_its_connection");
        out.events.push(Event::Lost { leg: id });
    }
}
