//! `/v1/bans`: who may not try an account's password now, and an operator's way to lift it.

use super::*;
use crate::control::{Answer, BanView, Order};
use crate::http::ask::Query;
use crate::http::route::Needs;
use axum::extract::State;
use serde_json::json;
use std::net::IpAddr;

pub fn routes() -> Vec<Route> {
    const PATH: &str = "/v1/bans";
    let example = json!([{"source": "192.0.2.1", "account": "101", "until_ms": 1_790_000_000_000_i64, "failures": 7}]);
    vec![
        Route::get(PATH, list, "Bans in force, by source and account")
            .needs(Needs::Installation)
            .query::<BanFilter>()
            .page::<BanView>("One page of them", example),
        Route::delete(PATH, lift, "Lift one")
            .needs(Needs::Installation)
            .query::<Which>()
            .nothing(204, "It is lifted")
            .refuses(&[404]),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BanFilter {
    /// Only bans from this account.
    account: Option<String>,
    /// Goes on behind this ban: `SOURCE,ACCOUNT`.
    #[schemars(example = "192.0.2.1,101")]
    after: Option<Place>,
    /// Entries of one page; 100 when it is left out.
    #[serde(default)]
    limit: Limit,
}

/// Where a ban stands in the list.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(try_from = "String")]
struct Place(IpAddr, String);

impl TryFrom<String> for Place {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Place, &'static str> {
        let read = || {
            let (source, account) = text.split_once(',')?;
            Some(Place(source.parse().ok()?, account.to_owned()))
        };
        read().ok_or("after is SOURCE,ACCOUNT")
    }
}

impl JsonSchema for Place {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Place".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

/// As the list shows them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    #[schemars(example = "192.0.2.1")]
    source: IpAddr,
    #[schemars(example = "101")]
    account: String,
}

async fn list(State(state): State<ApiState>, uri: Uri, Query(filter): Query<BanFilter>) -> Result<Paged<BanView>, Problem> {
    let BanFilter { account, after, limit } = filter;
    let Answer::Bans(bans) = state.control.order(Order::Bans).await.map_err(Problem::unavailable)? else {
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no bans"));
    };
    let wanted = |ban: &BanView| {
        account.as_ref().is_none_or(|account| ban.account == *account)
            && after.as_ref().is_none_or(|after| Place(ban.source, ban.account.clone()) > *after)
    };
    let mut bans: Vec<BanView> = bans.into_iter().filter(wanted).collect();
    bans.sort_by(|a, b| (a.source, &a.account).cmp(&(b.source, &b.account)));
    Ok(Paged::new(&uri, limit, bans, |ban| format!("{},{}", ban.source, ban.account)))
}

async fn lift(State(state): State<ApiState>, Query(which): Query<Which>) -> Result<StatusCode, Problem> {
    let Which { source, account } = which;
    match state.control.order(Order::Unban { source, account }).await.map_err(Problem::unavailable)? {
        Answer::Done => Ok(StatusCode::NO_CONTENT),
        _ => Err(Problem::new(StatusCode::NOT_FOUND, "no such ban")),
    }
}
