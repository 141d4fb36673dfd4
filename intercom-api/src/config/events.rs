//! What is told to others: `[events]`, `[mqtt]`, `[[webhooks]]`.

use super::Config;
use crate::events::passage::Version;
use crate::events::post::Address;
use crate::events::selection::Selection;
use crate::model::Secret;
use serde::{Deserialize, Serialize};
use std::fmt;
use toml::Value;

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    pub uid: String,
    pub project: String,
    pub record_version: String,
    pub keep_days: u32,
    /// 0: off.
    pub door_alarm_min: u32,
}

impl Default for Events {
    fn default() -> Events {
        let (uid, record_version) = ("doorline".to_owned(), "1.0".to_owned());
        Events { uid, project: String::new(), record_version, keep_days: 7, door_alarm_min: 10 }
    }
}

#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    pub url: String,
    pub prefix: String,
    pub events: Vec<String>,
}

/// Without the password in the URL.
impl fmt::Debug for Mqtt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mqtt").field("prefix", &self.prefix).field("events", &self.events).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub url: String,
    pub secret: Secret,
    #[serde(default)]
    pub events: Vec<String>,
}

pub(super) const KEYS: &[(&str, &str, &str)] = &[
    ("events", "uid", "who we are to those who are told: the user id in topics and tenantId of what belongs to no appKey"),
    ("events", "project", "projectId of passage records; empty: none"),
    ("events", "record_version", "version of passage records that are sent: 1.0 or 1.1"),
    ("events", "keep_days", "events are kept so many days for receivers that are behind (1-365); passages as long as records"),
    ("events", "door_alarm_min", "a door unit that is not registered for so many minutes is an alarm (0-1440); 0: it is not"),
    ("mqtt", "url", "broker, mqtt://user:password@host:1883 or mqtts://…; empty: none"),
    ("mqtt", "prefix", "written before the topics, e.g. site-7"),
    ("mqtt", "events", "names or codes of the events it gets, * is all; empty: call, online, offline, alarm, passage"),
];

pub(super) const WEBHOOKS: (&str, &str, &str) =
    ("", "webhooks", "receivers: a list of { url, secret, events }, events as in mqtt.events; in the file only");

/// Meaning, beyond types.
pub(super) fn check(config: &Config, mut wrong: impl FnMut(&str, &str, String)) {
    let Events { uid, record_version, keep_days, door_alarm_min, .. } = &config.events;
    if uid.is_empty() || uid.contains(['+', '#', '/']) || uid.chars().any(char::is_control) {
        wrong("events", "uid", "must not be empty and holds none of + # /".into());
    }
    if Version::named(record_version).is_none() {
        wrong("events", "record_version", format!("`{record_version}` is not 1.0 or 1.1"));
    }
    if !(1..=365).contains(keep_days) {
        wrong("events", "keep_days", format!("{keep_days} is not within 1-365"));
    }
    if *door_alarm_min > 1440 {
        wrong("events", "door_alarm_min", format!("{door_alarm_min} is more than a day"));
    }
    if let Err(what) = broker(&config.mqtt.url) {
        wrong("mqtt", "url", what.to_owned());
    }
    if config.mqtt.prefix.contains(['+', '#']) || config.mqtt.prefix.chars().any(char::is_control) {
        wrong("mqtt", "prefix", "holds none of + and #".into());
    }
    if let Err(word) = selection(&config.mqtt.events) {
        wrong("mqtt", "events", format!("no event is named `{word}`"));
    }
    for Webhook { url, secret, events } in &config.webhooks {
        if let Err(what) = Address::parse(url) {
            wrong("", "webhooks", what.to_owned());
        }
        if secret.reveal().is_empty() {
            wrong("", "webhooks", format!("{url} needs a secret"));
        }
        if let Err(word) = selection(events) {
            wrong("", "webhooks", format!("no event is named `{word}`"));
        }
    }
}

/// Names as a channel of the configuration has them.
pub fn selection(words: &[String]) -> Result<Selection, String> {
    Selection::named(words.iter().map(String::as_str))
}

#[cfg(feature = "mqtt")]
fn broker(url: &str) -> Result<(), &'static str> {
    if url.is_empty() { Ok(()) } else { crate::events::mqtt::Broker::parse(url).map(drop) }
}

#[cfg(not(feature = "mqtt"))]
fn broker(url: &str) -> Result<(), &'static str> {
    if url.is_empty() { Ok(()) } else { Err("this program was built without MQTT") }
}

/// The same value for people to see.
pub(super) fn masked(section: &str, key: &str, value: &Value) -> Option<Value> {
    match (section, key, value) {
        ("mqtt", "url", Value::String(url)) => {
            let (user, place) = url.rsplit_once('@')?;
            let scheme = user.split("://").next().unwrap_or_default();
            Some(Value::String(format!("{scheme}://***@{place}")))
        }
        _ => None,
    }
}
