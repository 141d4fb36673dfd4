//! [`Record`]: one entry per person who wished a door open, with how it ended; [`Watched`]: one per phone that saw a visitor.
//! Signalling says them as plain [`Entry`]s; the store chains them (D-29).

use crate::model::App;
use schemars::JsonSchema;
use serde::Serialize;

/// Outcome of a wish that has none yet.
pub const ASKED: &str = "asked";
/// Outcome, status and reason of a wish that the server's own end cut off: nobody knows.
pub const CUT_OFF: (&str, u16, &str) = ("unknown", 408, "server stopped");
/// Begins the outcome of what a door said after its askers had been told "unknown" (D-25).
pub const LATE: &str = "late ";

/// Who, by which road, which door, when, and the outcome. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Record {
    /// Given by the store; 0 before.
    pub id: i64,
    /// Account that asked.
    pub account: String,
    /// `info`, `lone info`, `message`, `key`, `http`.
    pub road: String,
    /// Account of the door unit.
    pub door: String,
    /// What the door dialled: a group or a room.
    pub room: String,
    /// Call it was asked in.
    pub call: String,
    /// The asker's own number, and the one the door was asked with.
    pub reqsn: u16,
    pub asked_ms: i64,
    /// When the pulse this person shares left; none when nothing was sent.
    pub sent_ms: Option<i64>,
    pub ended_ms: i64,
    /// `opened`, `refused`, `unknown`, `relayed`, `offline`, `forbidden`, `no such door`.
    pub outcome: String,
    /// What the asker was told.
    pub status: u16,
    /// Where the status does not say it all: `server stopped`.
    pub reason: Option<String>,
    /// What the door said after the asker had been told "unknown"; given by the store.
    pub late: Option<Late>,
    /// Id of the picture of the moment it was asked, once there is one; the picture itself is outside the record (D-29).
    pub snapshot: Option<String>,
    /// SHA-256 of that picture in hex; it stays when the picture is deleted.
    pub snapshot_sha256: Option<String>,
    /// Who waits until this is written: a number of [`Held`](crate::held::Held).
    #[serde(skip)]
    pub awaited: Option<u64>,
    /// Who saw the visitor in this call; a phone that still does comes when it is done. Given by the store.
    pub watched: Vec<Watched>,
}

/// A door's own report behind an unknown outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Late {
    pub outcome: String,
    pub status: u16,
    pub at_ms: i64,
}

/// A phone that showed the door's picture. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Watched {
    /// Given by the store; 0 before.
    pub id: i64,
    pub account: String,
    pub door: String,
    pub room: String,
    pub call: String,
    /// First picture shown, and the end of its leg.
    pub from_ms: i64,
    pub to_ms: i64,
    /// It answered: it was heard, too.
    pub talked: bool,
}

/// What signalling wants written.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A wish, before anything of it leaves for the door.
    Asked(Box<Record>),
    /// How it ended. One that nobody announced (a refusal: nothing leaves) is written whole.
    Ended(Box<Record>),
    Watched(Box<Watched>),
}

impl Entry {
    /// Who waits until it is written.
    pub fn awaited(&self) -> Option<u64> {
        match self {
            Entry::Ended(record) => record.awaited,
            Entry::Asked(_) | Entry::Watched(_) => None,
        }
    }
}

/// Which entries a reader wants: those that match everything given, newest first.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only of doors of this app.
    pub app: Option<App>,
    pub door: Option<String>,
    pub account: Option<String>,
    pub room: Option<String>,
    pub outcome: Option<String>,
    pub call: Option<String>,
    /// From the first moment to before the second.
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
    /// Goes on behind this id, with older ones.
    pub after: Option<i64>,
    pub limit: u32,
}
