//! How much an endpoint may hold, and what a full table refuses: requests that would begin something new, with 503 and
//! `Retry-After`, without state. Responses, ACK, CANCEL and what comes in the dialogs of live legs are served on.

use super::Endpoint;
use crate::message::{Message, Method};

/// Seconds after which one who was refused may try again.
pub(super) const RETRY_AFTER_S: u32 = 5;

/// Most entries of each table. Only those who have signed can fill them: strangers are answered without state.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Server transactions, about 1.5 KiB each. Each is remembered for 32 s (timer J): this is 20,000 signed requests a second,
    /// and 100,000 accounts that come back within 10 s with everything sent twice are a third of it. Requests inside
    /// dialogs may use an eighth more.
    pub servers: usize,
    /// Client transactions, about 2 KiB each: INVITEs that ring, and requests that nobody answers for 32 s.
    pub clients: usize,
    /// Legs, about 2 KiB each: 10,000 rooms of ten phones that ring at once.
    pub legs: usize,
}

impl Default for Capacity {
    fn default() -> Capacity {
        Capacity { servers: 655_360, clients: 200_000, legs: 100_000 }
    }
}

impl Endpoint {
    /// The name of the table that is too full for a new request.
    pub(super) fn full_for(&self, request: &Message) -> Option<&'static str> {
        let Capacity { servers, clients, legs } = self.capacity;
        let begins = *request.method()? != Method::Cancel && request.to().is_none_or(|to| to.tag().is_none());
        if self.servers.len() >= servers + if begins { 0 } else { servers / 8 } {
            return Some("table_full_transactions_in");
        }
        if !begins || request.method() != Some(&Method::Invite) {
            return None;
        }
        if self.clients.len() >= clients {
            return Some("table_full_transactions_out");
        }
        (self.legs.len() >= legs).then_some("table_full_legs")
    }
}
