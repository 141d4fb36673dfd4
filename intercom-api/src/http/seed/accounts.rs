//! Accounts (spec admin-api.md §5.1 to §5.4).

use super::invalid;
use super::table::{Answer, Ask, COUNT, Endpoint, Example, Kind, Plain, SIP_NUMBER, SIP_NUMBERS, Shape, Word, required, word};
use crate::http::now_ms;
use crate::model::{Account, AccountType, Secret};
use serde_json::{Value, json};

/// Account object of §5.1.
pub const ACCOUNT: &[Word] = &[
    word("sipNumber", Plain::Text, "SIP number"),
    word("sipPassword", Plain::Text, "its password; empty for whoever may not see passwords"),
    word("sipHost", Plain::Text, "where it registers"),
    word("sipPort", Plain::Integer, "port for UDP"),
    word("type", Plain::Integer, "0 app, 1 door unit"),
    word("createTime", Plain::Long, "when it was made, in ms since 1970"),
];

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/entrance/paas/sipservice/sip/add",
        versions: &["1.0.0"],
        summary: "Create accounts",
        needs_token: false,
        params: &[COUNT, required("type", Kind::Integer { min: 0, max: 1 }, "0 app, 1 door unit")],
        data: Shape::List(ACCOUNT),
        example: Example {
            params: r#"{ "count": 2, "type": 1 }"#,
            data: r#"[
  { "sipNumber": "d10000000a", "sipPassword": "p1aaaa", "sipHost": "sip.example.com", "sipPort": 6050, "type": 1, "createTime": 1577085030000 },
  { "sipNumber": "d10000000b", "sipPassword": "p1bbbb", "sipHost": "sip.example.com", "sipPort": 6050, "type": 1, "createTime": 1577085030000 } ]"#,
        },
        run: |ask| Box::pin(add(ask)),
    },
    Endpoint {
        path: "/entrance/paas/sipservice/sip/delete",
        versions: &["1.0.0"],
        summary: "Delete accounts: their registrations, calls and memberships end at once",
        needs_token: false,
        params: &[SIP_NUMBERS],
        data: Shape::Nothing,
        example: Example { params: r#"{ "sipNumberList": [ "d10000000a", "d10000000b" ] }"#, data: "" },
        run: |ask| Box::pin(delete(ask)),
    },
    Endpoint {
        path: "/entrance/paas/sipservice/sip/detail/get",
        versions: &["1.0.0"],
        summary: "One account",
        needs_token: false,
        params: &[SIP_NUMBER],
        data: Shape::Object(ACCOUNT),
        example: Example {
            params: r#"{ "sipNumber": "d10000000a" }"#,
            data: r#"{ "sipNumber": "d10000000a", "sipPassword": "p1aaaa", "sipHost": "sip.example.com", "sipPort": 6050, "type": 1, "createTime": 1577085030000 }"#,
        },
        run: |ask| Box::pin(detail(ask)),
    },
    Endpoint {
        path: "/entrance/paas/sipservice/sip/password/update",
        versions: &["1.0.0"],
        summary: "A new password; the old one is void at once",
        needs_token: false,
        params: &[SIP_NUMBER],
        data: Shape::Object(&[word("sipPassword", Plain::Text, "the new password")]),
        example: Example { params: r#"{ "sipNumber": "u10000000a" }"#, data: r#"{ "sipPassword": "p2bbbbbb" }"# },
        run: |ask| Box::pin(renew_password(ask)),
    },
];

/// A password, for those who may see it.
fn shown(ask: &Ask, password: &Secret) -> Value {
    let password = if ask.caller.may.passwords { password.reveal() } else { "" };
    json!(password)
}

pub fn account_json(ask: &Ask, account: &Account) -> Value {
    json!({
        "sipNumber": account.number.as_str(),
        "sipPassword": shown(ask, &account.password),
        "sipHost": &*ask.state.sip_host,
        "sipPort": ask.state.sip_port,
        "type": account.kind.code(),
        "createTime": account.created_ms,
    })
}

async fn add(ask: Ask) -> Answer {
    let count = usize::try_from(ask.params.integer("count")?).unwrap_or_default();
    let kind = AccountType::from_code(ask.params.integer("type")?).ok_or_else(|| invalid("type is 0 or 1"))?;
    let (accounts, changes) = ask.state.store.invent_accounts(ask.caller.tenant.clone(), count, kind, now_ms()).await?;
    ask.commit(changes).await?;
    Ok(Some(accounts.iter().map(|account| account_json(&ask, account)).collect()))
}

async fn delete(ask: Ask) -> Answer {
    let numbers = ask.params.texts("sipNumberList")?;
    let changes = ask.state.store.remove_accounts(ask.caller.tenant.clone(), numbers).await?;
    ask.commit(changes).await?;
    Ok(None)
}

async fn detail(ask: Ask) -> Answer {
    let account = ask.state.store.account(ask.caller.tenant.clone(), ask.params.text("sipNumber")?).await?;
    Ok(Some(account_json(&ask, &account)))
}

async fn renew_password(ask: Ask) -> Answer {
    let number = ask.params.text("sipNumber")?;
    let (account, changes) = ask.state.store.renew_password(ask.caller.tenant.clone(), number).await?;
    ask.commit(changes).await?;
    Ok(Some(json!({ "sipPassword": shown(&ask, &account.password) })))
}
