//! Door units as devices (spec admin-api.md §11): what an intercom needs of that chapter.

use super::invalid;
use super::params::Params;
use super::table::{
    Answer, Ask, Endpoint, Example, Field, Kind, NAME, PAGE_NO, PAGE_SIZE, Plain, Shape, Word, nullable, optional, required, word,
};
use crate::http::ApiState;
use crate::store::{Device, DeviceKey};
use serde_json::{Value, json};

const PRODUCT_KEY: Field = optional("productKey", NAME, "with deviceName: instead of iotId");
const DEVICE_NAME: Field = optional("deviceName", NAME, "name of the device in its product");
const MAYBE_IOT_ID: Field = optional("iotId", NAME, "the device");

const IDENTITY: Field = required(
    "deviceIdentity",
    Kind::Object(&[
        required("type", Kind::OneOf(&["IOT_ID", "PK_AND_DN"]), "how the device is named"),
        MAYBE_IOT_ID,
        PRODUCT_KEY,
        DEVICE_NAME,
    ]),
    "the device",
);

/// DeviceDTO.
const DEVICE: &[Word] = &[
    word("iotId", Plain::Text, "the device"),
    nullable("productImage", Plain::Text, "not known here"),
    nullable("deviceName", Plain::Text, "its name in its product"),
    nullable("nickName", Plain::Text, "what people call it"),
    nullable("productKey", Plain::Text, "its product"),
    nullable("productName", Plain::Text, "not known here"),
    word("nodeType", Plain::Text, "0 device"),
    word("status", Plain::Integer, "-1 not activated, 0 offline, 1 online"),
    nullable("categoryName", Plain::Text, "not known here"),
    nullable("categoryKey", Plain::Text, "not known here"),
    word("thingType", Plain::Text, "DEVICE"),
    nullable("lastOnlineTime", Plain::Long, "when it registered last since the server runs, in ms since 1970"),
];

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/app/thing/status/get",
        versions: &["1.0.3"],
        summary: "Is a door unit there?",
        needs_token: false,
        params: &[MAYBE_IOT_ID, PRODUCT_KEY, DEVICE_NAME],
        data: Shape::Object(&[word("status", Plain::Integer, "0 not activated, 1 online, 3 offline, 8 disabled")]),
        example: Example { params: r#"{ "iotId": "iot-1" }"#, data: r#"{ "status": 1 }"# },
        run: |ask| Box::pin(status(ask)),
    },
    Endpoint {
        path: "/solution/community/paas/tenant/device/query",
        versions: &["1.0.1"],
        summary: "Door units, by page",
        needs_token: true,
        params: &[
            required("queryType", Kind::OneOf(&["OWNED", "AUTHORIZED"]), "one's own, or those of others that one may use: none"),
            PAGE_NO,
            PAGE_SIZE,
        ],
        data: Shape::Page(DEVICE),
        example: Example {
            params: r#"{ "queryType": "OWNED", "pageNo": 1, "pageSize": 20 }"#,
            data: r#"{ "total": 1, "pageNo": 1, "pageSize": 20, "data": [
  { "iotId": "iot-1", "productImage": null, "deviceName": "HJSB-000205", "nickName": "Gate", "productKey": "pk1", "productName": null,
    "nodeType": "0", "status": 1, "categoryName": null, "categoryKey": null, "thingType": "DEVICE", "lastOnlineTime": 1577085030000 } ] }"#,
        },
        run: |ask| Box::pin(query(ask)),
    },
    Endpoint {
        path: "/solution/community/device/nickname/update",
        versions: &["1.0.0"],
        summary: "What people call a door unit",
        needs_token: true,
        params: &[IDENTITY, required("nickName", Kind::Text { longest: 64 }, "its name")],
        data: Shape::Nothing,
        example: Example {
            params: r#"{ "deviceIdentity": { "type": "IOT_ID", "iotId": "iot-1" }, "nickName": "Gate" }"#,
            data: "",
        },
        run: |ask| Box::pin(nickname(ask)),
    },
];

/// Product key and device name, if both are given.
fn names(params: &Params) -> Option<DeviceKey> {
    let (product_key, device_name) = (params.text_if("productKey")?, params.text_if("deviceName")?);
    Some(DeviceKey::Names { product_key, device_name })
}

async fn status(ask: Ask) -> Answer {
    let key = ask.params.text_if("iotId").map(DeviceKey::IotId).or_else(|| names(&ask.params));
    let key = key.ok_or_else(|| invalid("iotId, or productKey and deviceName, are missing"))?;
    let device = ask.state.store.device(ask.caller.tenant.clone(), key).await?;
    let status = match presence(&ask.state, &device) {
        _ if device.disabled => 8,
        Presence::NotActivated => 0,
        Presence::Online { .. } => 1,
        Presence::Offline { .. } => 3,
    };
    Ok(Some(json!({ "status": status })))
}

async fn query(ask: Ask) -> Answer {
    let page = ask.params.page();
    if ask.params.text("queryType")? == "AUTHORIZED" {
        return Ok(Some(page.of(0, Vec::new())));
    }
    let (devices, total) = ask.state.store.devices(ask.caller.tenant.clone(), page.skip(), page.size).await?;
    Ok(Some(page.of(total, devices.iter().map(|device| device_json(&ask.state, device)).collect())))
}

async fn nickname(ask: Ask) -> Answer {
    let identity = ask.params.object("deviceIdentity")?;
    let key = if identity.text("type")? == "IOT_ID" {
        DeviceKey::IotId(identity.text("iotId")?)
    } else {
        names(identity).ok_or_else(|| invalid("deviceIdentity.productKey or deviceIdentity.deviceName is missing"))?
    };
    ask.state.store.nickname(ask.caller.tenant.clone(), key, ask.params.text("nickName")?).await?;
    Ok(None)
}

enum Presence {
    /// Never seen. What was before the server started is not known, so this is only said of accounts that are younger.
    NotActivated,
    Online {
        since_ms: i64,
    },
    Offline {
        last_ms: Option<i64>,
    },
}

fn presence(state: &ApiState, device: &Device) -> Presence {
    let number = device.number.as_str();
    if let Some(registration) = state.live.registrations.get(number) {
        return Presence::Online { since_ms: registration.registered_ms };
    }
    match state.live.last_seen.get(number) {
        None if device.created_ms >= state.started_ms => Presence::NotActivated,
        last => Presence::Offline { last_ms: last.map(|last| *last) },
    }
}

fn device_json(state: &ApiState, device: &Device) -> Value {
    let (status, last_ms) = match presence(state, device) {
        Presence::NotActivated => (-1, None),
        Presence::Online { since_ms } => (1, Some(since_ms)),
        Presence::Offline { last_ms } => (0, last_ms),
    };
    json!({
        "iotId": device.iot_id,
        "productImage": null,
        "deviceName": device.device_name,
        "nickName": device.nick_name,
        "productKey": device.product_key,
        "productName": null,
        "nodeType": "0",
        "status": status,
        "categoryName": null,
        "categoryKey": null,
        "thingType": "DEVICE",
        "lastOnlineTime": last_ms,
    })
}
