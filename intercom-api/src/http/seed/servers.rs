//! SIP servers (spec admin-api.md §4). There is one, and everything is bound to it from the start (D-34).

use super::table::{Answer, Ask, Endpoint, Example, NAME, Plain, Shape, Word, required, word};
use crate::http::envelope::Reply;
use serde_json::{Value, json};

/// The id of this server.
const SERVER_ID: &str = "srv-1";

const SERVER: &[Word] =
    &[word("serverId", Plain::Text, "id of the server"), word("hostIp", Plain::Text, "where devices reach it")];

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/entrance/paas/sipserver/query",
        versions: &["1.0.0"],
        summary: "SIP servers that can be bound",
        needs_token: false,
        params: &[],
        data: Shape::List(SERVER),
        example: Example { params: "{}", data: r#"[ { "serverId": "srv-1", "hostIp": "192.0.2.10" } ]"# },
        run: |ask| Box::pin(query(ask)),
    },
    Endpoint {
        path: "/entrance/paas/sipserver/bind",
        versions: &["1.0.0"],
        summary: "Bind a SIP server; this one is bound already",
        needs_token: false,
        params: &[required("serverId", NAME, "id of a server")],
        data: Shape::Nothing,
        example: Example { params: r#"{ "serverId": "srv-1" }"#, data: "" },
        run: |ask| Box::pin(bind(ask)),
    },
    Endpoint {
        path: "/entrance/paas/sipserver/getbind",
        versions: &["1.0.0"],
        summary: "The bound SIP server",
        needs_token: false,
        params: &[],
        data: Shape::Object(SERVER),
        example: Example { params: "{}", data: r#"{ "serverId": "srv-1", "hostIp": "192.0.2.10" }"# },
        run: |ask| Box::pin(bound(ask)),
    },
];

fn server(ask: &Ask) -> Value {
    json!({ "serverId": SERVER_ID, "hostIp": ask.state.host_ip.to_string() })
}

async fn query(ask: Ask) -> Answer {
    Ok(Some(json!([server(&ask)])))
}

async fn bind(ask: Ask) -> Answer {
    if ask.params.text("serverId")? == SERVER_ID { Ok(None) } else { Err(Reply::error(404, "not found.", "no such server")) }
}

async fn bound(ask: Ask) -> Answer {
    Ok(Some(server(&ask)))
}
