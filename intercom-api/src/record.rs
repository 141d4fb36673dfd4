//! [`Record`]: one entry per person who wished a door open, with how it ended.

use serde::Serialize;

/// Who, by which road, which door, when, and the outcome. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Given by the store; 0 before.
    pub id: i64,
    /// Account that asked.
    pub account: String,
    /// `info`; further roads arrive with theirs.
    pub road: String,
    /// Account of the door unit.
    pub door: String,
    /// Call it was asked in.
    pub call: String,
    /// The asker's own number, and the one the door was asked with.
    pub reqsn: u16,
    pub asked_ms: i64,
    /// When the pulse this person shares left; none when nothing was sent.
    pub sent_ms: Option<i64>,
    pub ended_ms: i64,
    /// `opened`, `refused`, `unknown`, `offline`, `forbidden`; `late` behind the door's answer to an unknown one.
    pub outcome: String,
    /// What the asker was told.
    pub status: u16,
    /// Id of the picture of the moment it was asked, once there is one; the picture itself is outside the record (D-29).
    pub snapshot: Option<String>,
    /// SHA-256 of that picture in hex; it stays when the picture is deleted.
    pub snapshot_sha256: Option<String>,
}
