//! What signalling wants of a picture: plain data on its way from a call to the helper.

use crate::live::CallId;
use crate::model::Number;
use bytes::Bytes;
use media::snapshot::Preset;

/// Why a picture is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A visitor rings.
    Ring,
    /// Somebody wishes the door open.
    Unlock,
    /// `POST /v1/calls/{id}/snapshot`.
    Asked,
}

impl Why {
    pub fn name(self) -> &'static str {
        match self {
            Why::Ring => "ring",
            Why::Unlock => "unlock",
            Why::Asked => "asked",
        }
    }
}

/// One picture to be made and stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Id of the picture: the call's and a number, so it is unique, unpredictable, and of letters and digits.
    pub id: String,
    pub call: CallId,
    /// Account of the door unit.
    pub door: Number,
    pub why: Why,
    pub preset: Preset,
    /// Who waits for the outcome: numbers given by `Pictures::wait`.
    pub tickets: Vec<u64>,
    /// What the door has shown; `None`: nothing yet.
    pub shown: Option<Shown>,
}

/// A key frame, as media gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// When it was complete, in milliseconds since 1970.
    pub taken_ms: i64,
    pub annex_b: Bytes,
}
