//! Remote open (spec admin-api.md §10): one thing service of three paths, and the only one there is here. It ends in the same
//! `Turn::press` as every other road to a door.

use super::invalid;
use super::table::{Answer, Ask, Endpoint, Example, Field, IOT_ID, Kind, NAME, Plain, Shape, required, word};
use crate::control::{Answer as Told, Order};
use crate::http::envelope::Reply;
use crate::store::{Device, DeviceKey};
use crate::unlock::Outcome;
use serde_json::json;

const IDENTIFIER: Field = required("identifier", NAME, "the service: remoteOpen");
const ARGS: Field = required("args", Kind::Object(&[]), "arguments of the service: none");

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/cloud/thing/service/invoke",
        versions: &["1.0.1"],
        summary: "Open a door; OK only if it says that it opened",
        needs_token: false,
        params: &[IOT_ID, IDENTIFIER, ARGS],
        data: Shape::Nothing,
        example: Example { params: r#"{ "iotId": "iot-1", "identifier": "remoteOpen", "args": {} }"#, data: "" },
        run: |ask| Box::pin(invoke(ask)),
    },
    Endpoint {
        path: "/cloud/thing/service/invoke",
        versions: &["1.0.2"],
        summary: "Open a door; OK only if it says that it opened",
        needs_token: false,
        params: &[
            IOT_ID,
            IDENTIFIER,
            ARGS,
            required("productKey", NAME, "product of the unit"),
            required("deviceName", NAME, "its name in its product"),
        ],
        data: Shape::Nothing,
        example: Example {
            params: r#"{ "iotId": "iot-1", "identifier": "remoteOpen", "args": {}, "productKey": "pk1", "deviceName": "HJSB-000205" }"#,
            data: "",
        },
        run: |ask| Box::pin(invoke(ask)),
    },
    Endpoint {
        path: "/app/thing/service/invoke",
        versions: &["1.0.3"],
        summary: "Open a door; OK only if it says that it opened",
        needs_token: false,
        params: &[IOT_ID, IDENTIFIER, ARGS],
        data: Shape::Object(&[
            word("data", Plain::Object, "what the service says: nothing"),
            word("messageId", Plain::Text, "of this call"),
        ]),
        example: Example {
            params: r#"{ "iotId": "iot-1", "identifier": "remoteOpen", "args": {} }"#,
            data: r#"{ "data": {}, "messageId": "4d1f0c3e5b7a49c8a7e2f0d1c2b3a495" }"#,
        },
        run: |ask| Box::pin(invoke_as_app(ask)),
    },
];

async fn invoke(ask: Ask) -> Answer {
    open(&ask).await?;
    Ok(None)
}

async fn invoke_as_app(ask: Ask) -> Answer {
    open(&ask).await?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| Reply::error(500, "System Error", ""))?;
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(json!({ "data": {}, "messageId": id })))
}

/// Waits for what comes of it. Whatever is not known to have opened is a refusal (D-28).
async fn open(ask: &Ask) -> Result<(), Reply> {
    let key = DeviceKey::IotId(ask.params.text("iotId")?);
    let device = ask.state.store.device(ask.caller.tenant.clone(), key).await?;
    is_called(ask, &device)?;
    if ask.params.text("identifier")? != "remoteOpen" {
        return Err(Reply::error(501, "function not supported.", "the only service here is remoteOpen"));
    }
    let order = Order::Unlock { door: device.number, asker: ask.caller.name.to_string() };
    let told = ask.state.control.order(order).await;
    match told.map_err(|error| Reply::error(503, "service unavailable.", &error.to_string()))? {
        Told::Unlocked { outcome: Outcome::Opened, .. } => Ok(()),
        Told::Unlocked { outcome, .. } => Err(Reply::error(outcome.status().into(), "the door was not opened.", outcome.name())),
        _ => Err(Reply::error(404, "not found.", "there is no such door")),
    }
}

/// The other names of the unit, where they are given and known, are its own.
fn is_called(ask: &Ask, device: &Device) -> Result<(), Reply> {
    for (name, known) in [("productKey", &device.product_key), ("deviceName", &device.device_name)] {
        let given = ask.params.text_if(name);
        if given.is_some() && known.is_some() && given != *known {
            return Err(invalid(&format!("{name} is another unit's")));
        }
    }
    Ok(())
}
