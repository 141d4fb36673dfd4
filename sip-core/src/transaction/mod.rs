//! Transactions (RFC 3261 §17, RFC 6026): the part of SIP that repeats and absorbs. Each machine takes `now` and what
//! happened, pushes datagrams, and says when it wants to be called again. Neither knows dialogs.

mod answered;
mod client;
mod server;

pub use answered::Answered;
pub use client::{ClientTransaction, Received};
pub use server::{ServerKey, ServerTransaction};

use crate::flow::Flow;
use bytes::Bytes;
use std::time::Duration;

/// RTT estimate (§17.1.1.1).
pub const T1: Duration = Duration::from_millis(500);
/// Longest interval between repeats of a non-INVITE request and of a response to INVITE.
pub const T2: Duration = Duration::from_secs(4);
/// How long a message may stay in the network.
pub const T4: Duration = Duration::from_secs(5);
/// 64·T1: timers B, D, F, H, J, L, M.
pub const T64: Duration = Duration::from_secs(32);

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    pub flow: Flow,
    pub bytes: Bytes,
}

/// What remains of a transaction after a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Live,
    /// Over, in the way it should be.
    Done,
    /// Over because the peer never answered (timers B, F, H).
    TimedOut,
}
