//! `/v1/registrations`: who is reachable now, from the read model.

use super::*;
use crate::http::ask::Query;
use crate::live::{Registration, RegistrationView};
use axum::extract::State;
use serde_json::json;
use std::sync::Arc;

pub fn routes() -> Vec<Route> {
    let example = json!([{
        "account": "101", "contact": "sip:101@192.0.2.7:5060", "flow": "udp:198.51.100.1:6050>192.0.2.7:5060", "outbound": false,
        "user_agent": "Linphone", "contested": 0, "registered_ms": 1_790_000_000_000_i64, "expires_ms": 1_790_000_060_000_i64,
    }]);
    vec![
        Route::get("/v1/registrations", list, "Who is registered, by account")
            .query::<RegistrationFilter>()
            .page::<RegistrationView>("One page of them", example),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RegistrationFilter {
    /// Only this account.
    account: Option<String>,
    /// Goes on behind this account.
    #[serde(default)]
    after: String,
    /// Entries of one page; 1000 when it is left out.
    limit: Option<Limit>,
}

async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    uri: Uri,
    Query(filter): Query<RegistrationFilter>,
) -> Paged<RegistrationView> {
    let RegistrationFilter { account, after, limit } = filter;
    let limit = limit.unwrap_or(Limit::MOST);
    let live = &state.live.registrations;
    let wanted = |found: &Registration| {
        let number = &*found.binding.account;
        *number > *after && account.as_ref().is_none_or(|account| *number == **account) && caller.tenant.may(&found.app)
    };
    let mut accounts: Vec<Arc<str>> = live.iter().filter(|entry| wanted(entry)).map(|entry| entry.key().clone()).collect();
    // One more says that there is more.
    let most = limit.count() as usize + 1;
    if accounts.len() > most {
        accounts.select_nth_unstable(most);
        accounts.truncate(most);
    }
    accounts.sort_unstable();
    let found = accounts.iter().filter_map(|account| Some(RegistrationView::from(live.get(account)?.value()))).collect();
    Paged::new(&uri, limit, found, |registration| registration.account.clone())
}
