//! Door units and the rooms they ring (spec admin-api.md §6.1 to §6.5).

use super::table::{
    Answer, Ask, Endpoint, Example, Field, GROUP_ID, IOT_ID, Kind, MANY, NAME, PAGE_NO, PAGE_SIZE, Plain, SHORT, SIP_NUMBER,
    Shape, optional, required, word,
};
use crate::store::{DoorUnit, RoomFilter};
use serde_json::json;

const MAPS: Field = required(
    "maps",
    Kind::List {
        of: &Kind::Object(&[
            required("roomId", Kind::RoomId, "room, building-unit-room or phase-building-unit-room"),
            Field { name: "groupId", ..GROUP_ID },
        ]),
        most: MANY,
    },
    "rooms and the groups they ring",
);

const MAP: &str = r#"{ "iotId": "iot-1", "maps": [ { "roomId": "1-9-3-1202", "groupId": "g10000000a" } ] }"#;

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/entrance/paas/videointercom/sipnumber/sync",
        versions: &["1.0.0"],
        summary: "Issue an account to a door unit",
        needs_token: false,
        // OPEN-19: the password too.
        params: &[
            IOT_ID,
            SIP_NUMBER,
            required("password", SHORT, "password of the account"),
            required("host", NAME, "SIP server"),
            required("port", Kind::Port, "its port"),
        ],
        data: Shape::Nothing,
        example: Example {
            params: r#"{ "iotId": "iot-1", "sipNumber": "d10000000a", "password": "p1aaaa", "host": "192.0.2.10", "port": "6050" }"#,
            data: "",
        },
        run: |ask| Box::pin(sync(ask)),
    },
    Endpoint {
        path: "/entrance/paas/videointercom/sipnumber/get",
        versions: &["1.0.0"],
        summary: "The account that was issued to a door unit",
        needs_token: false,
        params: &[IOT_ID],
        data: Shape::Object(&[
            word("sipNumber", Plain::Text, "its account"),
            word("host", Plain::Text, "SIP server"),
            word("port", Plain::Text, "its port"),
        ]),
        example: Example {
            params: r#"{ "iotId": "iot-1" }"#,
            data: r#"{ "sipNumber": "d10000000a", "host": "192.0.2.10", "port": "6050" }"#,
        },
        run: |ask| Box::pin(get(ask)),
    },
    Endpoint {
        path: "/entrance/paas/videointercom/map/add",
        versions: &["1.0.0"],
        summary: "Say which group a room rings at a door unit; a room that is there is replaced",
        needs_token: false,
        params: &[IOT_ID, MAPS],
        data: Shape::Nothing,
        example: Example { params: MAP, data: "" },
        run: |ask| Box::pin(map(ask)),
    },
    Endpoint {
        path: "/entrance/paas/videointercom/map/delete",
        versions: &["1.0.0"],
        summary: "Take rooms out of the map of a door unit",
        needs_token: false,
        params: &[IOT_ID, MAPS],
        data: Shape::Nothing,
        example: Example { params: MAP, data: "" },
        run: |ask| Box::pin(unmap(ask)),
    },
    Endpoint {
        path: "/entrance/paas/videointercom/map/query",
        versions: &["1.0.1"],
        summary: "The rooms of a door unit, by page",
        needs_token: false,
        params: &[
            IOT_ID,
            optional("roomId", Kind::RoomId, "only this room"),
            optional("groupId", Kind::GroupId, "only rooms of this group"),
            PAGE_NO,
            PAGE_SIZE,
        ],
        data: Shape::Page(&[
            word("roomId", Plain::Text, "room in canonical form"),
            word("groupId", Plain::Text, "the group it rings"),
        ]),
        example: Example {
            params: r#"{ "iotId": "iot-1", "pageNo": 1, "pageSize": 20 }"#,
            data: r#"{ "total": 2, "pageNo": 1, "pageSize": 20, "data": [
  { "roomId": "1-9-3-1202", "groupId": "g10000000a" }, { "roomId": "1-9-3-1203", "groupId": "g10000000b" } ] }"#,
        },
        run: |ask| Box::pin(query(ask)),
    },
];

async fn sync(ask: Ask) -> Answer {
    let text = |name| ask.params.text(name);
    let unit = DoorUnit { iot_id: text("iotId")?, number: text("sipNumber")?, host: text("host")?, port: text("port")? };
    let changes = ask.state.store.sync_door(ask.caller.tenant.clone(), unit, text("password")?).await?;
    ask.commit(changes).await?;
    Ok(None)
}

async fn get(ask: Ask) -> Answer {
    let unit = ask.state.store.door_unit(ask.caller.tenant.clone(), ask.params.text("iotId")?).await?;
    Ok(Some(json!({ "sipNumber": unit.number, "host": unit.host, "port": unit.port })))
}

/// `maps` as (room in canonical form, group).
fn maps(ask: &Ask) -> Result<Vec<(String, String)>, crate::http::envelope::Reply> {
    ask.params.objects("maps")?.into_iter().map(|map| Ok((map.text("roomId")?, map.text("groupId")?))).collect()
}

async fn map(ask: Ask) -> Answer {
    let changes = ask.state.store.map_rooms(ask.caller.tenant.clone(), ask.params.text("iotId")?, maps(&ask)?).await?;
    ask.commit(changes).await?;
    Ok(None)
}

async fn unmap(ask: Ask) -> Answer {
    let changes = ask.state.store.unmap_rooms(ask.caller.tenant.clone(), ask.params.text("iotId")?, maps(&ask)?).await?;
    ask.commit(changes).await?;
    Ok(None)
}

async fn query(ask: Ask) -> Answer {
    let page = ask.params.page();
    let filter = RoomFilter { room: ask.params.text_if("roomId"), group: ask.params.text_if("groupId") };
    let (iot_id, tenant) = (ask.params.text("iotId")?, ask.caller.tenant.clone());
    let (rooms, total) = ask.state.store.rooms(tenant, iot_id, filter, page.skip(), page.size).await?;
    let rooms = rooms.iter().map(|(room, group)| json!({ "roomId": room, "groupId": group })).collect();
    Ok(Some(page.of(total, rooms)))
}
