//! House spaces (spec admin-api.md §6.6).

use super::invalid;
use super::table::{Answer, Ask, Endpoint, Example, Field, GROUP_ID, Kind, NAME, Plain, Shape, optional, required, word};
use crate::http::envelope::Reply;
use crate::store::Space;
use serde_json::json;

const SPACE_ID: Field = required("spaceId", NAME, "id of a house space");

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/entrance/paas/videointercom/space/add",
        versions: &["1.0.0"],
        summary: "Add or replace a house space",
        needs_token: false,
        params: &[
            SPACE_ID,
            Field { name: "groupId", ..GROUP_ID },
            required("roomId", Kind::RoomId, "room, building-unit-room or phase-building-unit-room"),
        ],
        data: Shape::Nothing,
        example: Example { params: r#"{ "spaceId": "space-1202", "groupId": "g10000000a", "roomId": "1-9-3-1202" }"#, data: "" },
        run: |ask| Box::pin(add(ask)),
    },
    Endpoint {
        path: "/entrance/paas/videointercom/space/delete",
        versions: &["1.0.0"],
        summary: "Delete a house space",
        needs_token: false,
        params: &[SPACE_ID],
        data: Shape::Nothing,
        example: Example { params: r#"{ "spaceId": "space-1202" }"#, data: "" },
        run: |ask| Box::pin(delete(ask)),
    },
    Endpoint {
        path: "/entrance/paas/videointercom/space/get",
        versions: &["1.0.0"],
        summary: "A house space by its id or by its group",
        needs_token: false,
        params: &[
            optional("spaceId", NAME, "id of a house space; wins if both are given"),
            optional("groupId", Kind::GroupId, "its group"),
        ],
        // OPEN-21: not `roomid`.
        data: Shape::Object(&[
            word("spaceId", Plain::Text, "id of the house space"),
            word("groupId", Plain::Text, "its group"),
            word("roomId", Plain::Text, "its room in canonical form"),
        ]),
        example: Example {
            params: r#"{ "groupId": "g10000000a" }"#,
            data: r#"{ "spaceId": "space-1202", "groupId": "g10000000a", "roomId": "1-9-3-1202" }"#,
        },
        run: |ask| Box::pin(get(ask)),
    },
];

async fn add(ask: Ask) -> Answer {
    let text = |name| ask.params.text(name);
    let space = Space { id: text("spaceId")?, group: text("groupId")?, room: text("roomId")? };
    ask.state.store.put_space(ask.caller.tenant.clone(), space).await?;
    Ok(None)
}

async fn delete(ask: Ask) -> Answer {
    ask.state.store.remove_space(ask.caller.tenant.clone(), ask.params.text("spaceId")?).await?;
    Ok(None)
}

async fn get(ask: Ask) -> Answer {
    let (store, tenant) = (&ask.state.store, ask.caller.tenant.clone());
    let space = match (ask.params.text_if("spaceId"), ask.params.text_if("groupId")) {
        (None, None) => return Err(Reply::error(460, "request parameter error.", "spaceId or groupId is needed")),
        (None, Some(group)) => store.space_of_group(tenant, group).await?,
        (Some(id), group) => {
            let space = store.space(tenant, id).await?;
            if group.is_some_and(|group| group != space.group) {
                return Err(invalid("the space is of another group"));
            }
            space
        }
    };
    Ok(Some(json!({ "spaceId": space.id, "groupId": space.group, "roomId": space.room })))
}
