//! `/v1/accounts`: accounts with chosen numbers and passwords (D-35), and what limits one in opening doors.

use super::*;
use crate::http::ask::{Items, Object, Path, Query};
use crate::http::now_ms;
use crate::model::{Access, Account, AccountType, Secret};
use crate::store::{AccessPatch, AccountPatch, AccountsWanted, NewAccount};
use crate::unlock::hours::Hours;
use axum::extract::State;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    const PATH: &str = "/v1/accounts";
    const ONE: &str = "/v1/accounts/{number}";
    let new = json!({"number": "101", "password": "a long one", "type": 0, "name": "Flat 1202, kitchen"});
    vec![
        Route::post(PATH, add, "Make accounts with chosen numbers and passwords; one, or up to 100, all or nothing")
            .items::<AccountIn>(json!([new]))
            .json::<Vec<AccountView>>(201, "They are made, and may register at once", json!([example()]))
            .refuses(&[409]),
        Route::get(PATH, list, "Accounts by number")
            .query::<AccountFilter>()
            .page::<AccountView>("One page of them", json!([example()])),
        Route::get(ONE, get, "One account").at("101").json::<AccountView>(200, "It", example()).refuses(&[403, 404]),
        Route::patch(ONE, change, "Change what is given; a new password ends the account's registration")
            .at("101")
            .body::<AccountChange>(json!({"name": "Flat 1202", "disabled": false, "hours": example_hours()}))
            .json::<AccountView>(200, "As it is now", example())
            .refuses(&[403, 404]),
        Route::delete(ONE, delete, "Take it out: its registration, its calls and its places in groups end")
            .at("101")
            .nothing(204, "It is gone")
            .refuses(&[403, 404]),
    ]
}

pub(super) fn example_hours() -> Value {
    json!([{"days": [1, 2, 3, 4, 5], "from": "07:00", "to": "19:30"}])
}

fn example() -> Value {
    json!({
        "number": "101", "type": 0, "name": "Flat 1202, kitchen", "created_ms": 1_790_000_000_000_i64, "disabled": false,
        "hours": example_hours(),
    })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AccountIn {
    #[schemars(regex(pattern = NUMBER))]
    number: String,
    #[schemars(length(min = 1, max = 50), regex(pattern = PRINTABLE))]
    password: String,
    /// 0: app (phone, indoor unit, desk), 1: door unit.
    #[serde(rename = "type")]
    #[schemars(range(min = 0, max = 1))]
    kind: i64,
    #[schemars(length(max = 64), regex(pattern = PRINTABLE))]
    name: Option<String>,
}

/// What is left out stays.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AccountChange {
    /// `null` takes it away.
    #[serde(default, deserialize_with = "given")]
    #[schemars(length(max = 64), regex(pattern = PRINTABLE))]
    name: Option<Option<String>>,
    #[schemars(length(min = 1, max = 50), regex(pattern = PRINTABLE))]
    password: Option<String>,
    /// It opens nothing; a door: nobody opens it.
    disabled: Option<bool>,
    hours: Option<Hours>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AccountFilter {
    /// 0: apps, 1: door units.
    #[serde(rename = "type")]
    #[schemars(range(min = 0, max = 1))]
    kind: Option<i64>,
    /// A part of the name, in any case of ASCII letters.
    name: Option<String>,
    /// Only members of this group.
    group: Option<String>,
    /// Goes on behind this number.
    #[serde(default)]
    after: String,
    /// Entries of one page; 100 when it is left out.
    #[serde(default)]
    limit: Limit,
}

/// The password stays out: whoever chose it knows it.
#[derive(Serialize, JsonSchema)]
struct AccountView {
    number: String,
    /// 0: app, 1: door unit.
    #[serde(rename = "type")]
    #[schemars(range(max = 1))]
    kind: u8,
    name: Option<String>,
    /// Milliseconds since 1970.
    created_ms: i64,
    disabled: bool,
    hours: Hours,
}

impl From<(Account, Access)> for AccountView {
    fn from((account, access): (Account, Access)) -> AccountView {
        AccountView {
            number: account.number.to_string(),
            kind: account.kind.code(),
            name: account.name,
            created_ms: account.created_ms,
            disabled: access.disabled,
            hours: access.hours,
        }
    }
}

fn kind_of(code: i64) -> Result<AccountType, Problem> {
    AccountType::from_code(code).ok_or_else(|| Problem::bad("type is 0 (app) or 1 (door unit)"))
}

async fn add(
    State(state): State<ApiState>,
    caller: Caller,
    Items(items): Items<AccountIn>,
) -> Result<(StatusCode, Json<Vec<AccountView>>), Problem> {
    let mut accounts = Vec::new();
    for AccountIn { number, password, kind, name } in items {
        checked_number(&number, "number")?;
        checked_name(name.as_ref())?;
        checked_password(&password)?;
        accounts.push(NewAccount { number, password, kind: kind_of(kind)?, name });
    }
    let (accounts, changes) = state.store.add_accounts(caller.tenant, accounts, now_ms()).await?;
    commit(&state, changes).await?;
    let made = accounts.into_iter().map(|account| (account, Access::default()).into()).collect();
    Ok((StatusCode::CREATED, Json(made)))
}

async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    uri: Uri,
    Query(filter): Query<AccountFilter>,
) -> Result<Paged<AccountView>, Problem> {
    let AccountFilter { kind, name, group, after, limit } = filter;
    let kind = kind.map(kind_of).transpose()?;
    let wanted = AccountsWanted { kind, name, group, after, limit: limit.count() + 1 };
    let accounts = state.store.accounts(caller.tenant, wanted).await?;
    let accounts = accounts.into_iter().map(AccountView::from).collect();
    Ok(Paged::new(&uri, limit, accounts, |account| account.number.clone()))
}

async fn get(State(state): State<ApiState>, caller: Caller, Path(number): Path<String>) -> Result<Json<AccountView>, Problem> {
    Ok(Json(state.store.account_and_access(caller.tenant, number).await?.into()))
}

async fn change(
    State(state): State<ApiState>,
    caller: Caller,
    Path(number): Path<String>,
    Object(change): Object<AccountChange>,
) -> Result<Json<AccountView>, Problem> {
    let AccountChange { name, password, disabled, hours } = change;
    checked_name(name.as_ref().and_then(Option::as_ref))?;
    password.as_deref().map_or(Ok(()), checked_password)?;
    let patch = AccountPatch {
        name,
        password: password.as_deref().map(Secret::new),
        access: AccessPatch { disabled, hours, ..AccessPatch::default() },
    };
    let (account, access, changes) = state.store.change_account(caller.tenant, number, patch).await?;
    commit(&state, changes).await?;
    Ok(Json((account, access).into()))
}

async fn delete(State(state): State<ApiState>, caller: Caller, Path(number): Path<String>) -> Result<StatusCode, Problem> {
    let changes = state.store.remove_accounts(caller.tenant, vec![number]).await?;
    commit(&state, changes).await?;
    Ok(StatusCode::NO_CONTENT)
}
