//! The read model: what HTTP may read while the SIP thread writes. Published by the driver, never read by the core.
//! Never hold a guard over `.await`.

use crate::model::App;
use dashmap::DashMap;
use schemars::JsonSchema;
use serde::Serialize;
use sip_core::location::Binding;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Public id of a call, in URLs: unpredictable, unique over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct CallId(pub String);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One registered contact. The binding is Location's own, not a copy: an idle phone costs less than a KiB.
#[derive(Clone, Debug)]
pub struct Registration {
    pub binding: Arc<Binding>,
    /// Whose account it is.
    pub app: App,
    /// Milliseconds since 1970.
    pub registered_ms: i64,
    pub expires_ms: i64,
}

/// A registration that is to survive a restart (D-10).
#[derive(Clone, Debug)]
pub struct Kept {
    pub registration: Registration,
    /// Proof of the password it was made with: a binding made with a former one is void (spec sip.md §1.2).
    pub made_with: i64,
}

/// The same after the restart.
#[derive(Clone, Debug)]
pub struct Restorable {
    pub binding: Binding,
    pub made_with: i64,
}

/// The same as `GET /v1/registrations` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RegistrationView {
    pub account: String,
    pub contact: String,
    /// `udp:local>remote`.
    pub flow: String,
    /// The proxies in front of it (RFC 3327).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// It keeps its flow alive by itself (RFC 5626).
    pub outbound: bool,
    pub user_agent: String,
    /// How often a phone that had lost the account took it back within 10 minutes: two phones know its password.
    pub contested: u32,
    /// Milliseconds since 1970.
    pub registered_ms: i64,
    pub expires_ms: i64,
}

impl From<&Registration> for RegistrationView {
    fn from(registration: &Registration) -> RegistrationView {
        let binding = &registration.binding;
        let text = |text: &Option<Box<str>>| text.as_ref().map(ToString::to_string);
        RegistrationView {
            account: binding.account.to_string(),
            contact: binding.contact_uri.to_string(),
            flow: binding.flow.to_string(),
            path: text(&binding.path),
            instance: text(&binding.instance),
            outbound: binding.reg_id.is_some(),
            user_agent: text(&binding.user_agent).unwrap_or_default(),
            contested: binding.contested,
            registered_ms: registration.registered_ms,
            expires_ms: registration.expires_ms,
        }
    }
}

/// One call or view, for `GET /v1/calls` and `GET /v1/calls/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CallView {
    pub id: CallId,
    /// Whose account called.
    #[serde(skip)]
    pub app: App,
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

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
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
    /// What an installer should know, e.g. `no early path (NAT)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_video_ms: Option<u64>,
    pub audio: StreamView,
    pub video: StreamView,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct StreamView {
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sends_to: Option<String>,
    /// Packets of the peer that never came.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost_in: i64,
    /// What the peer says of what it gets from us (RTCP): lost since its report before, and the way there and back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_out_percent: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f32>,
    /// Complete key frames of the door, and those that lost a packet on the way.
    #[serde(skip_serializing_if = "is_no_count")]
    pub key_frames: u64,
    #[serde(skip_serializing_if = "is_no_count")]
    pub key_frames_broken: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub drops: BTreeMap<&'static str, u64>,
}

fn is_zero(count: &i64) -> bool {
    *count == 0
}

fn is_no_count(count: &u64) -> bool {
    *count == 0
}

/// One line of a call's ladder.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
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
    pub registrations: DashMap<Arc<str>, Registration>,
    /// When who is not registered any more did so last, in ms since 1970; since the server runs.
    pub last_seen: DashMap<Arc<str>, i64>,
}
