//! How HTTP reaches the SIP thread: orders in a bounded queue, each answered once. Full queue = `Unavailable` (503).

use crate::live::CallId;
use crate::model::DirectoryChange;
use crate::unlock::Outcome;
use media::snapshot::Preset;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What the HTTP side may ask of the Switchboard.
#[derive(Debug)]
pub enum Order {
    /// One API write; answered after it is applied, so that a REGISTER right after the reply succeeds (D-30).
    Apply(Vec<DirectoryChange>),
    HangUp(CallId),
    /// A picture of the visitor, now; the outcome goes to whoever holds this ticket.
    Picture {
        call: CallId,
        preset: Preset,
        ticket: u64,
    },
    /// Whoever may use the API wishes a door open; answered when it is known how that ended.
    Unlock {
        door: String,
        /// Who, as the record shows him.
        asker: String,
    },
    /// Everything counted; read only when somebody looks.
    Numbers,
    /// Bans in force.
    Bans,
    /// Lifts one.
    Unban {
        source: IpAddr,
        account: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    NotFound,
    /// The call has none to give.
    NoPicture(&'static str),
    /// The answer comes with this ticket ([`crate::turn::Publication::Unlocked`]).
    Later {
        ticket: u64,
    },
    Unlocked {
        outcome: Outcome,
        took: Duration,
    },
    Numbers(Box<Numbers>),
    Bans(Vec<BanView>),
}

/// What `/metrics` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Everything refused, dropped or given up since the start, by name.
    pub events: BTreeMap<&'static str, u64>,
    /// What is held now.
    pub gauges: Vec<(&'static str, usize)>,
}

/// One ban, for `GET /v1/bans`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BanView {
    pub source: IpAddr,
    pub account: String,
    /// Milliseconds since 1970.
    pub until_ms: i64,
    /// Wrong passwords so far.
    pub failures: u32,
}

/// The SIP thread is gone or does not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signalling does not accept orders now")]
pub struct Unavailable;

pub type OrderReceiver = mpsc::Receiver<(Order, oneshot::Sender<Answer>)>;

/// A cheap handle; one receiver lives in the driver.
#[derive(Clone, Debug)]
pub struct Control {
    orders: mpsc::Sender<(Order, oneshot::Sender<Answer>)>,
}

impl Control {
    /// Orders that may wait before the next is refused.
    pub const QUEUE: usize = 256;

    pub fn new() -> (Control, OrderReceiver) {
        let (orders, receiver) = mpsc::channel(Self::QUEUE);
        (Control { orders }, receiver)
    }

    pub async fn order(&self, order: Order) -> Result<Answer, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.orders.try_send((order, reply)).map_err(|_| Unavailable)?;
        answer.await.map_err(|_| Unavailable)
    }
}
