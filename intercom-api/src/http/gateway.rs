//! The provisioning API (spec admin-api.md §5, §6): which path takes which version, how parameters are checked, what comes
//! back. The validation table is §13.1.

use super::caller::Caller;
use super::envelope::{Envelope, Reply};
use super::{ApiState, now_ms};
use crate::model::{Account, AccountType, DirectoryChange, Number};
use crate::room;
use crate::store::{NO_ACCOUNT, StoreError};
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Most items of one call (OPEN-22).
const MAX_ITEMS: usize = 100;
/// Longest `iotId` and host.
const MAX_TEXT: usize = 128;

/// The endpoints of this face; each has one version.
#[derive(Clone, Copy, Debug)]
enum Endpoint {
    SipAdd,
    SipDetailGet,
    SipPasswordUpdate,
    GroupAdd,
    GroupSipAdd,
    GroupSipList,
    SipNumberSync,
    MapAdd,
}

fn find(path: &str) -> Option<(Endpoint, &'static str)> {
    Some(match path {
        "paas/sipservice/sip/add" => (Endpoint::SipAdd, "1.0.0"),
        "paas/sipservice/sip/detail/get" => (Endpoint::SipDetailGet, "1.0.0"),
        "paas/sipservice/sip/password/update" => (Endpoint::SipPasswordUpdate, "1.0.0"),
        "paas/sipservice/group/add" => (Endpoint::GroupAdd, "1.0.0"),
        "paas/sipservice/group/sip/add" => (Endpoint::GroupSipAdd, "1.0.0"),
        "paas/sipservice/group/sip/list" => (Endpoint::GroupSipList, "1.0.0"),
        "paas/videointercom/sipnumber/sync" => (Endpoint::SipNumberSync, "1.0.0"),
        "paas/videointercom/map/add" => (Endpoint::MapAdd, "1.0.0"),
        _ => return None,
    })
}

pub async fn handle(
    State(state): State<ApiState>,
    caller: Caller,
    method: Method,
    Path(path): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Reply {
    let envelope = match Envelope::read(&body) {
        Ok(envelope) => envelope,
        Err(reply) => return reply,
    };
    let header = || headers.get("apiVer").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let version = envelope.api_ver.or_else(header).or_else(|| query.get("apiVer").cloned());
    let found = find(&path).filter(|(_, known)| method == Method::POST && version.is_none_or(|given| given == *known));
    let Some((endpoint, _)) = found else {
        return Reply::error(20003, "gateway.not found backend router", "no such path, method or apiVer").with_id(envelope.id);
    };
    let reply = run(&state, &caller, endpoint, &Params(envelope.params)).await.unwrap_or_else(|refusal| refusal);
    reply.with_id(envelope.id)
}

async fn run(state: &ApiState, caller: &Caller, endpoint: Endpoint, params: &Params) -> Result<Reply, Reply> {
    let store = &state.store;
    let tenant = caller.tenant.clone();
    match endpoint {
        Endpoint::SipAdd => {
            let count = params.count()?;
            let code = params.integer("type")?;
            let kind = AccountType::from_code(code).ok_or_else(|| invalid("type is 0 (app) or 1 (door unit)"))?;
            let (accounts, changes) = store.invent_accounts(tenant, count, kind, now_ms()).await.map_err(refuse)?;
            commit(state, changes).await?;
            Ok(Reply::ok(Some(accounts.iter().map(|a| account_json(state, a)).collect())))
        }
        Endpoint::SipDetailGet => {
            let account = store.account(tenant, params.number("sipNumber")?).await.map_err(refuse)?;
            Ok(Reply::ok(Some(account_json(state, &account))))
        }
        Endpoint::SipPasswordUpdate => {
            let (account, changes) = store.renew_password(tenant, params.number("sipNumber")?).await.map_err(refuse)?;
            commit(state, changes).await?;
            Ok(Reply::ok(Some(json!({ "sipPassword": account.password.reveal() }))))
        }
        Endpoint::GroupAdd => {
            let (groups, changes) = store.invent_groups(tenant, params.count()?, now_ms()).await.map_err(refuse)?;
            commit(state, changes).await?;
            let list = groups.iter().map(|g| json!({ "groupID": g.id.as_str(), "createTime": g.created_ms }));
            Ok(Reply::ok(Some(list.collect())))
        }
        Endpoint::GroupSipAdd => {
            let changes = store.add_members(tenant, params.group()?, params.numbers("sipNumberList")?).await.map_err(refuse)?;
            commit(state, changes).await?;
            Ok(Reply::ok(None))
        }
        Endpoint::GroupSipList => {
            let members = store.members(tenant, params.group()?).await.map_err(refuse)?;
            Ok(Reply::ok(Some(members.iter().map(|a| account_json(state, a)).collect())))
        }
        Endpoint::SipNumberSync => {
            let port = params.text("port", 5)?;
            if port.parse::<u16>().is_err() {
                return Err(invalid("port is a port number as a string"));
            }
            let (iot_id, host) = (params.text("iotId", MAX_TEXT)?, params.text("host", MAX_TEXT)?);
            let (number, password) = (params.number("sipNumber")?, params.text("password", Number::MAX)?);
            let changes = store.sync_door(tenant, iot_id, number, password, host, port).await.map_err(refuse)?;
            commit(state, changes).await?;
            Ok(Reply::ok(None))
        }
        Endpoint::MapAdd => {
            let (iot_id, maps) = (params.text("iotId", MAX_TEXT)?, params.maps()?);
            let changes = store.map_rooms(tenant, iot_id, maps).await.map_err(refuse)?;
            commit(state, changes).await?;
            Ok(Reply::ok(None))
        }
    }
}

async fn commit(state: &ApiState, changes: Vec<DirectoryChange>) -> Result<(), Reply> {
    state.apply(changes).await.map_err(|error| Reply::error(503, "service unavailable.", &error.to_string()))
}

/// Account object of spec admin-api.md §5.1.
fn account_json(state: &ApiState, account: &Account) -> Value {
    json!({
        "sipNumber": account.number.as_str(),
        "sipPassword": account.password.reveal(),
        "sipHost": &*state.sip_host,
        "sipPort": state.sip_port,
        "type": account.kind.code(),
        "createTime": account.created_ms,
    })
}

fn invalid(detail: &str) -> Reply {
    Reply::error(400, "request error.", detail)
}

fn refuse(error: StoreError) -> Reply {
    match error {
        // Shape and place are §13's.
        StoreError::NotFound(what) if what == NO_ACCOUNT => Reply::error(404, NO_ACCOUNT, "SIP number invalid"),
        StoreError::NotFound(what) => Reply::error(404, "not found.", &what),
        StoreError::Conflict(what) | StoreError::Invalid(what) => invalid(&what),
        StoreError::Forbidden(what) => Reply::error(403, "request forbidden.", &format!("{what} belongs to another application")),
        StoreError::Unavailable => Reply::error(503, "service unavailable.", "the store is not available"),
    }
}

/// Typed access to parameters; every refusal says which one and what it should be.
struct Params(Map<String, Value>);

impl Params {
    fn get(&self, name: &str) -> Result<&Value, Reply> {
        self.0.get(name).filter(|value| !value.is_null()).ok_or_else(|| invalid(&format!("{name} is missing")))
    }

    fn integer(&self, name: &str) -> Result<i64, Reply> {
        self.get(name)?
            .as_i64()
            .ok_or_else(|| Reply::error(20004, "gateway.backend service error", &format!("{name} is not an integer")))
    }

    /// `count`: 1 to 100.
    fn count(&self) -> Result<usize, Reply> {
        let count = usize::try_from(self.integer("count")?).unwrap_or(0);
        if (1..=MAX_ITEMS).contains(&count) { Ok(count) } else { Err(invalid("count is 1 to 100")) }
    }

    fn text(&self, name: &str, longest: usize) -> Result<String, Reply> {
        read_text(self.get(name)?, name, longest)
    }

    fn number(&self, name: &str) -> Result<String, Reply> {
        self.text(name, Number::MAX)
    }

    /// OPEN-18: both spellings.
    fn group(&self) -> Result<String, Reply> {
        if self.0.contains_key("groupID") { self.number("groupID") } else { self.number("groupId") }
    }

    fn list(&self, name: &str) -> Result<&Vec<Value>, Reply> {
        let list = self
            .get(name)?
            .as_array()
            .ok_or_else(|| Reply::error(20004, "gateway.backend service error", &format!("{name} is not an array")))?;
        if (1..=MAX_ITEMS).contains(&list.len()) { Ok(list) } else { Err(invalid(&format!("{name} has 1 to 100 entries"))) }
    }

    fn numbers(&self, name: &str) -> Result<Vec<String>, Reply> {
        self.list(name)?.iter().map(|value| read_text(value, name, Number::MAX)).collect()
    }

    /// `maps`: (room in canonical form, group).
    fn maps(&self) -> Result<Vec<(String, String)>, Reply> {
        let one = |value: &Value| {
            let Value::Object(object) = value else { return Err(invalid("maps has objects with roomId and groupId")) };
            let entry = Params(object.clone());
            let room = entry.text("roomId", 20)?;
            let room = room::canonical(&room)
                .ok_or_else(|| invalid(&format!("roomId {room}: room, building-unit-room or phase-building-unit-room")))?;
            Ok((room, entry.group()?))
        };
        self.list("maps")?.iter().map(one).collect()
    }
}

/// A number or name as it goes into SIP URIs and headers: printable, without what would end one.
pub fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || c.is_whitespace() || "<>\"@:;,?/\\%".contains(c)) && text.is_ascii()
}

fn read_text(value: &Value, name: &str, longest: usize) -> Result<String, Reply> {
    let text =
        value.as_str().ok_or_else(|| Reply::error(20004, "gateway.backend service error", &format!("{name} is not a string")))?;
    if text.is_empty() {
        // §2.3: an empty mandatory field.
        return Err(Reply::error(460, "request parameter error.", &format!("{name} is empty")));
    }
    if text.chars().count() > longest || text.chars().any(char::is_control) {
        return Err(invalid(&format!("{name} has at most {longest} printable characters")));
    }
    Ok(text.to_owned())
}
