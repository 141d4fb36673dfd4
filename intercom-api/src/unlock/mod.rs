//! Unlock as a transaction (spec sip.md §8 and §9, D-23 … D-29): any road in, one wish, one outcome, on record.
//!
//! ```text
//! INFO in a call ─┐                                       ┌─▶ INFO pair in the door's call
//! MESSAGE, INFO  ─┤  Turn::press ─▶ right ─▶ Lock (pure) ─┼─▶ MESSAGE pair to its binding
//! key `*`        ─┤    (gate.rs)                          └─▶ keys (RFC 4733)
//! HTTP           ─┘        └─▶ one result per asker, one entry of the record
//! ```
//!
//! Every road builds an [`Asker`] and calls `Turn::press`; there is no other way to a door.

pub mod body;
pub mod gate;
pub mod hours;
pub mod lock;
pub mod right;
pub mod twins;

use crate::model::Number;
use sip_core::endpoint::LegId;
use sip_core::message::Method;
use std::time::Instant;

/// How a wish came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// INFO in a ringing or answered call.
    Info,
    /// INFO outside of any dialog (`unlock.out_of_dialog`).
    LoneInfo,
    /// MESSAGE to the door's number.
    Message,
    /// Key `*` in a call.
    Key,
    /// `POST /v1/doors/{sipNumber}/unlock`.
    Http,
}

impl Road {
    /// As the record shows it.
    pub fn name(self) -> &'static str {
        match self {
            Road::Info => "info",
            Road::LoneInfo => "lone info",
            Road::Message => "message",
            Road::Key => "key",
            Road::Http => "http",
        }
    }
}

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// INFO in the dialog of this leg, with the asker's own number.
    Info { leg: LegId, reqsn: u16 },
    /// The same kind of request as his, to where he is registered.
    Lone { method: Method, reqsn: u16 },
    /// Somebody waits for it with this ticket.
    Ticket(u64),
    /// Whoever presses a key sees the door.
    Nothing,
}

/// Someone who wishes the door open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    pub account: Number,
    pub road: Road,
    pub channel: Channel,
    pub at: Instant,
    /// The call it was asked in, or that the door had.
    pub call: Option<String>,
    /// Id of the picture of that moment.
    pub picture: Option<String>,
}

/// How a wish ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The door says it opened; shared by everybody inside the window.
    Opened,
    /// The door, or its SIP stack, refused with this status.
    Refused(u16),
    /// No answer in time: nobody knows.
    Unknown,
    /// Keys went to the door, which never answers to keys (D-27): nobody knows either.
    Relayed,
    /// There was no way to reach the door: nothing was sent.
    Offline,
    /// The asker may not.
    Forbidden,
    /// There is no such door.
    NoDoor,
}

impl Outcome {
    /// The status of the result INFO (spec sip.md §8.3), and of the HTTP answer: 200, or 400 and above. What is not known to
    /// have opened is never 200.
    pub fn status(self) -> u16 {
        match self {
            Outcome::Opened => 200,
            Outcome::Refused(status) => status.clamp(400, 699),
            Outcome::Unknown | Outcome::Relayed => 408,
            Outcome::Offline => 480,
            Outcome::Forbidden => 403,
            Outcome::NoDoor => 404,
        }
    }

    /// As records and HTTP show it.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Opened => "opened",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown => "unknown",
            Outcome::Relayed => "relayed",
            Outcome::Offline => "offline",
            Outcome::Forbidden => "forbidden",
            Outcome::NoDoor => "no such door",
        }
    }
}
