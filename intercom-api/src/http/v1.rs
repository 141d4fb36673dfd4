//! `/v1`: accounts and groups with chosen numbers (D-35). HTTP status = outcome; errors are `{"error": "…"}`; unknown fields
//! are refused. A write takes one object or an array of up to 100, all or nothing; what exists already is 409.

use super::caller::Caller;
use super::seed::is_plain;
use super::{ApiState, now_ms};
use crate::model::{Account, AccountType, DirectoryChange, Group, Number};
use crate::store::{NO_ACCOUNT, NewAccount, StoreError};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const MAX_ITEMS: usize = 100;

/// A refusal of this face.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    error: String,
}

impl Problem {
    pub fn new(status: StatusCode, error: impl Into<String>) -> Problem {
        Problem { status, error: error.into() }
    }

    pub(super) fn bad(error: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error }))).into_response()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        let status = match &error {
            StoreError::NotFound(_) => StatusCode::NOT_FOUND,
            StoreError::Conflict(_) => StatusCode::CONFLICT,
            StoreError::Invalid(_) => StatusCode::BAD_REQUEST,
            StoreError::Forbidden(_) => StatusCode::FORBIDDEN,
            StoreError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        match error {
            StoreError::NotFound(what) if what == NO_ACCOUNT => Problem::new(status, "no such account"),
            error => Problem::new(status, error.to_string()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountIn {
    number: String,
    password: String,
    #[serde(rename = "type")]
    kind: i64,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupIn {
    id: String,
    members: Vec<String>,
    name: Option<String>,
}

/// Pages: everything after this key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    #[serde(default)]
    after: String,
    limit: Option<u32>,
}

impl Page {
    pub(super) fn after(&self) -> String {
        self.after.clone()
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit.unwrap_or(100).clamp(1, 1000)
    }
}

/// One object or an array of them.
fn items<T: DeserializeOwned>(body: &[u8]) -> Result<Vec<T>, Problem> {
    let bad = |error: serde_json::Error| Problem::bad(error.to_string());
    let array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let items: Vec<T> =
        if array { serde_json::from_slice(body).map_err(bad)? } else { vec![serde_json::from_slice(body).map_err(bad)?] };
    if (1..=MAX_ITEMS).contains(&items.len()) { Ok(items) } else { Err(Problem::bad("1 to 100 items a call")) }
}

fn checked_number(text: &str, what: &str) -> Result<(), Problem> {
    let fits = !text.is_empty() && text.chars().count() <= Number::MAX && is_plain(text);
    if fits { Ok(()) } else { Err(Problem::bad(format!("{what} has 1 to 50 ASCII characters that can stand in a SIP address"))) }
}

fn checked_name(name: &Option<String>) -> Result<(), Problem> {
    let fits = name.as_ref().is_none_or(|name| name.chars().count() <= 64 && !name.chars().any(char::is_control));
    if fits { Ok(()) } else { Err(Problem::bad("name has at most 64 printable characters")) }
}

pub(super) async fn commit(state: &ApiState, changes: Vec<DirectoryChange>) -> Result<(), Problem> {
    state.apply(changes).await.map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

pub async fn add_accounts(State(state): State<ApiState>, caller: Caller, body: Bytes) -> Result<Response, Problem> {
    let mut accounts = Vec::new();
    for item in items::<AccountIn>(&body)? {
        checked_number(&item.number, "number")?;
        checked_name(&item.name)?;
        if item.password.is_empty() || item.password.chars().count() > Number::MAX || item.password.chars().any(char::is_control)
        {
            return Err(Problem::bad("password has 1 to 50 printable characters"));
        }
        let kind = AccountType::from_code(item.kind).ok_or_else(|| Problem::bad("type is 0 (app) or 1 (door unit)"))?;
        accounts.push(NewAccount { number: item.number, password: item.password, kind, name: item.name });
    }
    let (accounts, changes) = state.store.add_accounts(caller.tenant, accounts, now_ms()).await?;
    commit(&state, changes).await?;
    Ok((StatusCode::CREATED, Json(accounts.iter().map(account_json).collect::<Value>())).into_response())
}

pub async fn accounts(State(state): State<ApiState>, caller: Caller, Query(page): Query<Page>) -> Result<Json<Value>, Problem> {
    let accounts = state.store.accounts(caller.tenant, page.after.clone(), page.limit()).await?;
    Ok(Json(accounts.iter().map(account_json).collect()))
}

pub async fn account(State(state): State<ApiState>, caller: Caller, Path(number): Path<String>) -> Result<Json<Value>, Problem> {
    let account = state.store.account(caller.tenant, number).await?;
    Ok(Json(account_json(&account)))
}

pub async fn add_groups(State(state): State<ApiState>, caller: Caller, body: Bytes) -> Result<Response, Problem> {
    let mut groups = Vec::new();
    for item in items::<GroupIn>(&body)? {
        checked_number(&item.id, "id")?;
        checked_name(&item.name)?;
        groups.push((item.id, item.members, item.name));
    }
    let (groups, changes) = state.store.add_groups(caller.tenant, groups, now_ms()).await?;
    commit(&state, changes).await?;
    Ok((StatusCode::CREATED, Json(groups.iter().map(group_json).collect::<Value>())).into_response())
}

pub async fn groups(State(state): State<ApiState>, caller: Caller, Query(page): Query<Page>) -> Result<Json<Value>, Problem> {
    let groups = state.store.groups(caller.tenant, page.after.clone(), page.limit()).await?;
    Ok(Json(groups.iter().map(group_json).collect()))
}

pub async fn group(State(state): State<ApiState>, caller: Caller, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let group = state.store.group(caller.tenant, id).await?;
    Ok(Json(group_json(&group)))
}

pub async fn nothing_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no such path")
}

pub async fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
}

/// INTERFACES' account object; the password stays out of lists and reads: whoever chose it knows it.
fn account_json(account: &Account) -> Value {
    json!({ "number": account.number.as_str(), "type": account.kind.code(), "name": account.name, "created_ms": account.created_ms })
}

fn group_json(group: &Group) -> Value {
    let members: Vec<&str> = group.members.iter().map(Number::as_str).collect();
    json!({ "id": group.id.as_str(), "members": members, "name": group.name, "created_ms": group.created_ms })
}
