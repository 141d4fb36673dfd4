//! What the body of an INFO or MESSAGE says (spec sip.md §8.2, §8.3), and the two that we write.

use crate::call::digits::{self, Key};
use crate::model::Number;
use serde_json::{Value, json};
use sip_core::message::Message;

/// See the module text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Open. Whoever the body names as `sip`, it is the sender who asks (D-23).
    Unlock {
        reqsn: u16,
    },
    Result {
        reqsn: u16,
        status: u16,
    },
    /// `picture_fast_update` (RFC 5168).
    KeyFrame,
    /// A key (spec sip.md §9).
    Key(Key),
    /// JSON or a form that asks for something else, or another body: answered, not acted on.
    Other,
    /// JSON that is none (spec sip.md §8.4: 400).
    Broken,
}

/// Reads JSON and, where the type says so, a form (OPEN-11).
pub fn read(message: &Message) -> Said {
    let body = String::from_utf8_lossy(message.body());
    let kind = message.content_type().unwrap_or_default().to_ascii_lowercase();
    let value: Value = match kind.split(';').next().unwrap_or_default().trim() {
        "application/json" => match serde_json::from_str(&body) {
            Ok(value) => value,
            Err(_) => return Said::Broken,
        },
        "application/x-www-form-urlencoded" => {
            let pairs = body.trim().split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .map(|(name, text)| (name.to_owned(), text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from)))
                .collect()
        }
        "application/media_control+xml" if body.contains("picture_fast_update") => return Said::KeyFrame,
        _ => return digits::read(&kind, &body).map_or(Said::Other, |key| key.map_or(Said::Broken, Said::Key)),
    };
    let number = |name: &str| value[name].as_u64().and_then(|n| u16::try_from(n).ok());
    match (value["req"].as_str(), value["res"].as_str(), number("reqsn")) {
        (Some("unlock"), _, Some(reqsn @ 1..=999)) => Said::Unlock { reqsn },
        (Some("unlock"), _, _) => Said::Broken,
        (_, Some("unlock"), Some(reqsn)) => number("status").map_or(Said::Broken, |status| Said::Result { reqsn, status }),
        _ if value.is_object() => Said::Other,
        _ => Said::Broken,
    }
}

/// Our order to the door: `sip` is the one who asked (spec sip.md §8.5: send it).
pub(super) fn order(reqsn: u16, account: &Number) -> String {
    json!({"req": "unlock", "reqsn": reqsn, "sip": account.as_str()}).to_string()
}

/// Our result to the one who asked, with his own number.
pub(super) fn result(reqsn: u16, status: u16) -> String {
    json!({"res": "unlock", "reqsn": reqsn, "status": status}).to_string()
}
