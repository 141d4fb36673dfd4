//! `/v1/groups`: groups with chosen ids and members (D-35).

use super::*;
use crate::http::ask::{Items, Object, Path, Query};
use crate::http::now_ms;
use crate::model::Group;
use crate::store::{GroupPatch, GroupsWanted};
use axum::extract::State;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    const PATH: &str = "/v1/groups";
    const ONE: &str = "/v1/groups/{id}";
    vec![
        Route::post(PATH, add, "Make groups with chosen ids; one, or up to 100, all or nothing")
            .items::<GroupIn>(json!([{"id": "1202", "members": ["101", "102"], "name": "Flat 1202"}]))
            .json::<Vec<GroupView>>(201, "They are made, and may be dialled at once", json!([example()]))
            .refuses(&[403, 404, 409]),
        Route::get(PATH, list, "Groups by id").query::<GroupFilter>().page::<GroupView>("One page of them", json!([example()])),
        Route::get(ONE, get, "One group").at("1202").json::<GroupView>(200, "It", example()).refuses(&[403, 404]),
        Route::patch(ONE, change, "Change what is given; members are all it has then, in their order")
            .at("1202")
            .body::<GroupChange>(json!({"members": ["102", "101"]}))
            .json::<GroupView>(200, "As it is now", example())
            .refuses(&[403, 404]),
        Route::delete(ONE, delete, "Take it out, and the rooms that mean it; its members stay accounts")
            .at("1202")
            .nothing(204, "It is gone")
            .refuses(&[403, 404]),
    ]
}

fn example() -> Value {
    json!({"id": "1202", "members": ["101", "102"], "name": "Flat 1202", "created_ms": 1_790_000_000_000_i64})
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GroupIn {
    #[schemars(regex(pattern = NUMBER))]
    id: String,
    /// Numbers of app accounts; a group has at most 32.
    members: Vec<String>,
    #[schemars(length(max = 64), regex(pattern = PRINTABLE))]
    name: Option<String>,
}

/// What is left out stays.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GroupChange {
    members: Option<Vec<String>>,
    /// `null` takes it away.
    #[serde(default, deserialize_with = "given")]
    #[schemars(length(max = 64), regex(pattern = PRINTABLE))]
    name: Option<Option<String>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GroupFilter {
    /// A part of the name, in any case of ASCII letters.
    name: Option<String>,
    /// Only groups of this account.
    member: Option<String>,
    /// Goes on behind this id.
    #[serde(default)]
    after: String,
    /// Entries of one page; 100 when it is left out.
    #[serde(default)]
    limit: Limit,
}

#[derive(Serialize, JsonSchema)]
struct GroupView {
    id: String,
    /// In the order given.
    members: Vec<String>,
    name: Option<String>,
    /// Milliseconds since 1970.
    created_ms: i64,
}

impl From<Group> for GroupView {
    fn from(group: Group) -> GroupView {
        let members = group.members.iter().map(ToString::to_string).collect();
        GroupView { id: group.id.to_string(), members, name: group.name, created_ms: group.created_ms }
    }
}

async fn add(
    State(state): State<ApiState>,
    caller: Caller,
    Items(items): Items<GroupIn>,
) -> Result<(StatusCode, Json<Vec<GroupView>>), Problem> {
    let mut groups = Vec::new();
    for GroupIn { id, members, name } in items {
        checked_number(&id, "id")?;
        checked_name(name.as_ref())?;
        groups.push((id, members, name));
    }
    let (groups, changes) = state.store.add_groups(caller.tenant, groups, now_ms()).await?;
    commit(&state, changes).await?;
    Ok((StatusCode::CREATED, Json(groups.into_iter().map(GroupView::from).collect())))
}

async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    uri: Uri,
    Query(filter): Query<GroupFilter>,
) -> Result<Paged<GroupView>, Problem> {
    let GroupFilter { name, member, after, limit } = filter;
    let wanted = GroupsWanted { name, member, after, limit: limit.count() + 1 };
    let groups = state.store.groups(caller.tenant, wanted).await?;
    Ok(Paged::new(&uri, limit, groups.into_iter().map(GroupView::from).collect(), |group| group.id.clone()))
}

async fn get(State(state): State<ApiState>, caller: Caller, Path(id): Path<String>) -> Result<Json<GroupView>, Problem> {
    Ok(Json(state.store.group(caller.tenant, id).await?.into()))
}

async fn change(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Object(change): Object<GroupChange>,
) -> Result<Json<GroupView>, Problem> {
    let GroupChange { members, name } = change;
    checked_name(name.as_ref().and_then(Option::as_ref))?;
    let (group, changes) = state.store.change_group(caller.tenant, id, GroupPatch { members, name }).await?;
    commit(&state, changes).await?;
    Ok(Json(group.into()))
}

async fn delete(State(state): State<ApiState>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let changes = state.store.remove_groups(caller.tenant, vec![id]).await?;
    commit(&state, changes).await?;
    Ok(StatusCode::NO_CONTENT)
}
