//! [`Event`]: one thing that happened, with the five fields of the call event (spec events.md §2, OPEN-34: strings are sent,
//! codes above 1 are ours).

use crate::model::App;
use serde::{Deserialize, Serialize};

/// What happened. Names are what `events` of a channel may list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A door rings: the application wakes the phones of the group (spec §2).
    Call,
    /// Somebody took it.
    Answered,
    /// A talk is over.
    Ended,
    /// A ring is over and nobody took it.
    Unanswered,
    /// A door says that it opened.
    Unlocked,
    /// An account is reachable, or at a new place.
    Registered,
    /// An account is not reachable any more.
    Unregistered,
    /// A door unit is reachable.
    Online,
    /// A door unit is not reachable any more.
    Offline,
    /// A door unit has been unreachable for too long.
    Alarm,
    /// The record of an opening (spec §4); it has no code.
    Passage,
}

impl Kind {
    pub const ALL: [Kind; 11] = [
        Kind::Call,
        Kind::Answered,
        Kind::Ended,
        Kind::Unanswered,
        Kind::Unlocked,
        Kind::Registered,
        Kind::Unregistered,
        Kind::Online,
        Kind::Offline,
        Kind::Alarm,
        Kind::Passage,
    ];

    /// `eventCode`; 0 for a passage, which is no event of that table.
    pub fn code(self) -> u16 {
        match self {
            Kind::Call => 1,
            Kind::Answered => 101,
            Kind::Ended => 102,
            Kind::Unanswered => 103,
            Kind::Unlocked => 104,
            Kind::Registered => 105,
            Kind::Unregistered => 106,
            Kind::Online => 107,
            Kind::Offline => 108,
            Kind::Alarm => 109,
            Kind::Passage => 0,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Call => "call",
            Kind::Answered => "answered",
            Kind::Ended => "ended",
            Kind::Unanswered => "unanswered",
            Kind::Unlocked => "unlocked",
            Kind::Registered => "registered",
            Kind::Unregistered => "unregistered",
            Kind::Online => "online",
            Kind::Offline => "offline",
            Kind::Alarm => "alarm",
            Kind::Passage => "passage",
        }
    }

    /// By name, or by code.
    pub fn named(text: &str) -> Option<Kind> {
        let mut all = Kind::ALL.into_iter();
        all.find(|kind| kind.name() == text || (*kind != Kind::Passage && kind.code().to_string() == text))
    }
}

/// Whom it is about: a SIP number (`targetType` 0) or a group (1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Number(String),
    Group(String),
}

impl Target {
    pub fn code(&self) -> &'static str {
        match self {
            Target::Number(_) => "0",
            Target::Group(_) => "1",
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Target::Number(text) | Target::Group(text) => text,
        }
    }
}

/// See the module text. As the core says it; its id comes from the [`super::feed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub kind: Kind,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// Who began it: the door that rings, the phone that answers, the account that registers.
    pub source: String,
    pub target: Target,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// Why a call ended, by which road a door was opened, why a binding is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whose the door or account is: who may hear of it.
    #[serde(skip)]
    pub app: App,
}

/// What receivers are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventBody<'a> {
    pub event_code: String,
    pub event_time: i64,
    pub source: &'a str,
    pub target_type: &'a str,
    pub target: &'a str,
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
}

impl Event {
    pub fn body(&self, id: i64) -> EventBody<'_> {
        EventBody {
            event_code: self.kind.code().to_string(),
            event_time: self.at_ms,
            source: &self.source,
            target_type: self.target.code(),
            target: self.target.text(),
            id: id.to_string(),
            call_id: self.call.as_deref(),
            reason: self.reason.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_event_is_the_one_of_the_spec_and_more() {
        let event = Event {
            kind: Kind::Call,
            at_ms: 1_577_085_030_000,
            source: "d10000000a".into(),
            target: Target::Group("g10000000a".into()),
            call: Some("c".into()),
            reason: None,
            app: "".into(),
        };
        let sent = serde_json::to_string(&event.body(7)).unwrap();
        assert_eq!(
            sent,
            r#"{"eventCode":"1","eventTime":1577085030000,"source":"d10000000a","targetType":"1","target":"g10000000a","id":"7","callId":"c"}"#
        );
    }

    #[test]
    fn kinds_are_named_by_word_and_by_code() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.name()), Some(kind));
        }
        assert_eq!(Kind::named("101"), Some(Kind::Answered));
        assert_eq!((Kind::named("0"), Kind::named("2"), Kind::named("")), (None, None, None));
    }
}
