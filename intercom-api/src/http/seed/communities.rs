//! Tokens of communities (spec admin-api.md §2.2).

use super::table::{Answer, Ask, Endpoint, Example, Kind, NAME, Plain, Shape, Word, required, word};
use crate::http::now_ms;
use crate::store::TOKEN_MS;
use serde_json::json;

const TOKEN: &[Word] = &[
    word("cloudToken", Plain::Text, "token for calls that need one"),
    word("expiresIn", Plain::Long, "how long it lasts, in ms"),
];

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/solution/community/paas/token/get",
        versions: &["1.0.0"],
        summary: "A new token for a community; its former one is void",
        needs_token: false,
        params: &[required("communityId", Kind::Long, "the community")],
        data: Shape::Object(TOKEN),
        example: Example { params: r#"{ "communityId": 1504 }"#, data: r#"{ "cloudToken": "ct-1", "expiresIn": 7200000 }"# },
        run: |ask| Box::pin(get(ask)),
    },
    Endpoint {
        path: "/solution/community/paas/token/refresh",
        versions: &["1.0.0"],
        summary: "Let a token last anew",
        needs_token: false,
        params: &[required("cloudToken", NAME, "a token in force")],
        data: Shape::Object(TOKEN),
        example: Example { params: r#"{ "cloudToken": "ct-1" }"#, data: r#"{ "cloudToken": "ct-1", "expiresIn": 7200000 }"# },
        run: |ask| Box::pin(refresh(ask)),
    },
];

async fn get(ask: Ask) -> Answer {
    let community = ask.params.integer("communityId")?;
    let token = ask.state.store.new_token(ask.caller.tenant.clone(), community, now_ms()).await?;
    Ok(Some(json!({ "cloudToken": token, "expiresIn": TOKEN_MS })))
}

async fn refresh(ask: Ask) -> Answer {
    let token = ask.params.text("cloudToken")?;
    ask.state.store.refresh_token(ask.caller.tenant.clone(), token.clone(), now_ms()).await?;
    Ok(Some(json!({ "cloudToken": token, "expiresIn": TOKEN_MS })))
}
