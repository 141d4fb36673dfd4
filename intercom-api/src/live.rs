//! The read model: what HTTP may read while the SIP thread writes. Published by the driver, never read by the core.
//! Never hold a guard over `.await`.

use dashmap::DashMap;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Public id of a call, in URLs: unpredictable, unique over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct CallId(pub String);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One registered contact, for `GET /v1/registrations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegistrationView {
    pub account: String,
    pub contact: String,
    /// `udp:local>remote`.
    pub flow: String,
    pub user_agent: String,
    /// Milliseconds since 1970.
    pub registered_ms: i64,
    pub expires_ms: i64,
}

/// One call or view, for `GET /v1/calls` and `GET /v1/calls/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallView {
    pub id: CallId,
    /// `call` or `view`.
    pub kind: &'static str,
    /// `ringing`, `answered`, `ended`.
    pub state: &'static str,
    /// Why it ended, in one word group, e.g. `answered elsewhere`, `caller hung up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<String>,
    /// Account that called, and what was dialled.
    pub from: String,
    pub to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// Milliseconds since 1970.
    pub started_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<i64>,
    /// Our 183 to the door's first key frame (D-20).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub door_first_frame_ms: Option<u64>,
    pub legs: Vec<LegView>,
    /// Only in `GET /v1/calls/{id}`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ladder: Vec<Step>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LegView {
    pub account: String,
    /// `door` or `member`.
    pub role: &'static str,
    /// `inviting`, `ringing`, `early`, `answered`, `ended`.
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<String>,
    /// The Call-ID of its dialog, to find it in a capture.
    pub sip_call_id: String,
    pub codecs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_video_ms: Option<u64>,
    pub audio: StreamView,
    pub video: StreamView,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StreamView {
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sends_to: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub drops: BTreeMap<&'static str, u64>,
}

/// One line of a call's ladder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Milliseconds since the call began.
    pub ms: u64,
    /// `door`, `server` or an account number.
    pub from: String,
    pub to: String,
    /// `INVITE`, `183 Session Progress`, `CANCEL`, …
    pub what: String,
}

/// The whole read model.
#[derive(Debug, Default)]
pub struct Live {
    /// Running calls and the latest ended ones (the driver bounds them).
    pub calls: DashMap<CallId, CallView>,
    /// By account number.
    pub registrations: DashMap<String, RegistrationView>,
}
