//! How HTTP reaches the SIP thread: orders in a bounded queue, each answered once. Full queue = `Unavailable` (503).

use crate::live::CallId;
use crate::model::DirectoryChange;
use tokio::sync::{mpsc, oneshot};

/// What the HTTP side may ask of the Switchboard.
#[derive(Debug)]
pub enum Order {
    /// One API write; answered after it is applied, so that a REGISTER right after the reply succeeds (D-30).
    Apply(Vec<DirectoryChange>),
    HangUp(CallId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    NotFound,
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
