//! [`Passage`]: the record of an opening, more than any version of the model has (OPEN-35), and what is sent of it: version 1.0
//! or 1.1 (spec events.md §4, §6).

use crate::model::App;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Everything that is known of one opening. The core says who, where and when; the store adds what the door and the house are
/// called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Given by the store.
    #[serde(skip)]
    pub id: i64,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// Account of the door unit.
    pub door: String,
    /// Who opened it; empty in a late report of the door until the store has said who had asked.
    pub account: String,
    /// When the order left: what a late report is about.
    pub sent_ms: Option<i64>,
    /// By which road: `info`, `message`, `key`, `http`, ….
    pub method: String,
    pub call: Option<String>,
    /// As dialled.
    pub dialled: String,
    pub group: String,
    pub capture_img: Option<String>,
    /// The door's report came when the asker had been told that nobody knows.
    pub late: bool,
    // Of the store.
    pub room: String,
    pub space_id: String,
    pub iot_id: Option<String>,
    pub product_key: Option<String>,
    pub device_name: Option<String>,
    /// Telephone intercom (`sourceType` 1): nothing here makes one yet, other servers' records have it.
    pub phone: Option<String>,
    #[serde(skip)]
    pub app: App,
}

/// Version of the record model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V10,
    V11,
}

impl Version {
    pub fn named(text: &str) -> Option<Version> {
        match text {
            "1.0" => Some(Version::V10),
            "1.1" => Some(Version::V11),
            _ => None,
        }
    }
}

/// What of the configuration is in every record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The tenant and user id of what is the installation's own; other apps go by their key.
    pub uid: String,
    /// `projectId`; empty: none.
    pub project: String,
    pub version: Version,
}

impl Sender {
    pub fn uid_of<'a>(&'a self, app: &'a str) -> &'a str {
        if app.is_empty() { &self.uid } else { app }
    }
}

/// The record as the model has it. Version 1.1 has neither `projectId` nor `time`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PassageRecord {
    pub tenant_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iot_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    pub source_type: String,
    /// JSON text.
    pub event_info: String,
}

/// The business broadcast around it (spec §3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PassageBody {
    pub id: String,
    pub message_type: &'static str,
    pub gmt_create: i64,
    pub data: PassageRecord,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CloudInfo<'a> {
    sip_number: &'a str,
    group_id: &'a str,
    room_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    space_id: Option<&'a str>,
}

#[derive(Serialize)]
struct PhoneInfo<'a> {
    phone: &'a str,
}

impl Passage {
    /// `None`: this version has no word for it (a telephone in 1.1).
    pub fn record(&self, sender: &Sender, version: Version) -> Option<PassageRecord> {
        let new = version == Version::V11;
        let (source_type, event_info) = match &self.phone {
            Some(_) if new => return None,
            Some(phone) => ("1", serde_json::to_string(&PhoneInfo { phone })),
            None => {
                let info = CloudInfo {
                    sip_number: &self.account,
                    group_id: &self.group,
                    room_id: &self.room,
                    space_id: new.then_some(&self.space_id),
                };
                ("0", serde_json::to_string(&info))
            }
        };
        Some(PassageRecord {
            tenant_id: sender.uid_of(&self.app).to_owned(),
            project_id: Some(sender.project.clone()).filter(|project| !new && !project.is_empty()),
            time: (!new).then_some(self.at_ms),
            iot_id: self.iot_id.clone(),
            product_key: self.product_key.clone(),
            device_name: self.device_name.clone(),
            source_type: source_type.to_owned(),
            event_info: event_info.ok()?,
        })
    }

    pub fn body(&self, id: i64, sender: &Sender) -> Option<PassageBody> {
        let data = self.record(sender, sender.version)?;
        Some(PassageBody { id: id.to_string(), message_type: "videointercom", gmt_create: self.at_ms, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(version: Version) -> Sender {
        Sender { uid: "t-1".into(), project: "pr-1".into(), version }
    }

    /// The three examples of spec events.md §6, to the letter.
    #[test]
    fn the_examples_of_the_spec() {
        let passage = Passage {
            at_ms: 1_577_085_060_000,
            account: "u10000000a".into(),
            group: "g10000000a".into(),
            room: "1-9-3-1202".into(),
            space_id: "space-1202".into(),
            iot_id: Some("iot-1".into()),
            product_key: Some("pk1".into()),
            device_name: Some("HJSB-000205".into()),
            ..Passage::default()
        };
        let text = |record: Option<PassageRecord>| serde_json::to_string(&record.unwrap()).unwrap();
        assert_eq!(
            text(passage.record(&sender(Version::V10), Version::V10)),
            r#"{"tenantId":"t-1","projectId":"pr-1","time":1577085060000,"iotId":"iot-1","productKey":"pk1","deviceName":"HJSB-000205","sourceType":"0","eventInfo":"{\"sipNumber\":\"u10000000a\",\"groupId\":\"g10000000a\",\"roomId\":\"1-9-3-1202\"}"}"#
        );
        let bare = Passage { product_key: None, device_name: None, ..passage.clone() };
        assert_eq!(
            text(bare.record(&sender(Version::V11), Version::V11)),
            r#"{"tenantId":"t-1","iotId":"iot-1","sourceType":"0","eventInfo":"{\"sipNumber\":\"u10000000a\",\"groupId\":\"g10000000a\",\"roomId\":\"1-9-3-1202\",\"spaceId\":\"space-1202\"}"}"#
        );
        let by_phone = Passage { at_ms: 1_577_085_060_000, phone: Some("555".into()), ..Passage::default() };
        let no_project = Sender { project: String::new(), ..sender(Version::V10) };
        assert_eq!(
            text(by_phone.record(&no_project, Version::V10)),
            r#"{"tenantId":"t-1","time":1577085060000,"sourceType":"1","eventInfo":"{\"phone\":\"555\"}"}"#
        );
        assert_eq!(by_phone.record(&no_project, Version::V11), None);
        let others = Passage { app: "key".into(), ..passage };
        assert_eq!(others.record(&no_project, Version::V10).unwrap().tenant_id, "key");
    }
}
