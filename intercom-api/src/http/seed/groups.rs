//! Groups and their members (spec admin-api.md §5.5 to §5.9).

use super::accounts::{ACCOUNT, account_json};
use super::table::{
    Answer, Ask, COUNT, Endpoint, Example, GROUP_ID, Kind, MANY, Plain, SHORT, SIP_NUMBERS, Shape, required, word,
};
use crate::http::now_ms;
use serde_json::json;

const MEMBERS: &str = r#"{ "groupID": "g10000000a", "sipNumberList": [ "u10000000a", "u10000000b" ] }"#;

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/entrance/paas/sipservice/group/add",
        versions: &["1.0.0"],
        summary: "Create groups",
        needs_token: false,
        params: &[COUNT],
        data: Shape::List(&[
            word("groupID", Plain::Text, "id of the group"),
            word("createTime", Plain::Long, "when it was made, in ms since 1970"),
        ]),
        example: Example {
            params: r#"{ "count": 2 }"#,
            data: r#"[
  { "groupID": "g10000000a", "createTime": 1577085030000 }, { "groupID": "g10000000b", "createTime": 1577085030000 } ]"#,
        },
        run: |ask| Box::pin(add(ask)),
    },
    Endpoint {
        path: "/entrance/paas/sipservice/group/delete",
        versions: &["1.0.0"],
        summary: "Delete groups with the rooms and spaces that lead to them; their calls end",
        needs_token: false,
        params: &[required("groupList", Kind::List { of: &SHORT, most: MANY }, "ids of groups")],
        data: Shape::Nothing,
        example: Example { params: r#"{ "groupList": [ "g10000000a", "g10000000b" ] }"#, data: "" },
        run: |ask| Box::pin(delete(ask)),
    },
    Endpoint {
        path: "/entrance/paas/sipservice/group/sip/add",
        versions: &["1.0.0"],
        summary: "Put app accounts into a group",
        needs_token: false,
        params: &[GROUP_ID, SIP_NUMBERS],
        data: Shape::Nothing,
        example: Example { params: MEMBERS, data: "" },
        run: |ask| Box::pin(add_members(ask)),
    },
    Endpoint {
        path: "/entrance/paas/sipservice/group/sip/delete",
        versions: &["1.0.0"],
        summary: "Take accounts out of a group; they stop ringing, and whoever talks is hung up",
        needs_token: false,
        params: &[GROUP_ID, SIP_NUMBERS],
        data: Shape::Nothing,
        example: Example { params: MEMBERS, data: "" },
        run: |ask| Box::pin(remove_members(ask)),
    },
    Endpoint {
        path: "/entrance/paas/sipservice/group/sip/list",
        versions: &["1.0.0"],
        summary: "The accounts of a group; with `api.server_port` each has `serverPort` too",
        needs_token: false,
        params: &[GROUP_ID],
        data: Shape::List(ACCOUNT),
        example: Example {
            params: r#"{ "groupID": "g10000000a" }"#,
            data: r#"[
  { "sipNumber": "u10000000a", "sipPassword": "p1cccc", "sipHost": "sip.example.com", "sipPort": 6050, "type": 0, "createTime": 1577085030000 },
  { "sipNumber": "u10000000b", "sipPassword": "p1dddd", "sipHost": "sip.example.com", "sipPort": 6050, "type": 0, "createTime": 1577085030000 } ]"#,
        },
        run: |ask| Box::pin(members(ask)),
    },
];

async fn add(ask: Ask) -> Answer {
    let count = usize::try_from(ask.params.integer("count")?).unwrap_or_default();
    let (groups, changes) = ask.state.store.invent_groups(ask.caller.tenant.clone(), count, now_ms()).await?;
    ask.commit(changes).await?;
    Ok(Some(groups.iter().map(|group| json!({ "groupID": group.id.as_str(), "createTime": group.created_ms })).collect()))
}

async fn delete(ask: Ask) -> Answer {
    let changes = ask.state.store.remove_groups(ask.caller.tenant.clone(), ask.params.texts("groupList")?).await?;
    ask.commit(changes).await?;
    Ok(None)
}

async fn add_members(ask: Ask) -> Answer {
    let (group, numbers) = (ask.params.text("groupID")?, ask.params.texts("sipNumberList")?);
    let changes = ask.state.store.add_members(ask.caller.tenant.clone(), group, numbers).await?;
    ask.commit(changes).await?;
    Ok(None)
}

async fn remove_members(ask: Ask) -> Answer {
    let (group, numbers) = (ask.params.text("groupID")?, ask.params.texts("sipNumberList")?);
    let changes = ask.state.store.remove_members(ask.caller.tenant.clone(), group, numbers).await?;
    ask.commit(changes).await?;
    Ok(None)
}

async fn members(ask: Ask) -> Answer {
    let members = ask.state.store.members(ask.caller.tenant.clone(), ask.params.text("groupID")?).await?;
    let member = |account| {
        let mut member = account_json(&ask, account);
        if ask.state.server_port {
            // OPEN-17: what the samples call it.
            member["serverPort"] = json!(ask.state.sip_port);
        }
        member
    };
    Ok(Some(members.iter().map(member).collect()))
}
