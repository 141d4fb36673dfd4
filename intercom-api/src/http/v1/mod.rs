//! `/v1`: our own face, for consoles and scripts. HTTP status = outcome; errors are `{"error": "…"}`; unknown fields and
//! filters are refused. Lists are plain arrays, in pages: `after` goes on behind a key, `limit` is 1 to 1000, and a `Link` header
//! names the next page when there is one (RFC 8288). Passwords come in and never go out.

mod accounts;
mod bans;
mod calls;
mod doors;
mod groups;
mod passages;
mod pictures;
mod records;
mod registrations;
mod webhooks;

use super::ApiState;
use super::caller::Caller;
use super::route::Route;
use crate::model::{DirectoryChange, Number};
use crate::store::{NO_ACCOUNT, StoreError};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;

/// All of `/v1`.
pub fn routes() -> Vec<Route> {
    [
        accounts::routes(),
        groups::routes(),
        doors::routes(),
        registrations::routes(),
        calls::routes(),
        pictures::routes(),
        records::routes(),
        bans::routes(),
        passages::routes(),
        webhooks::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A refusal of this face.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    error: String,
}

/// The same as its reply.
#[derive(Serialize, JsonSchema)]
pub struct Refusal {
    /// What to mend, or who cannot help it.
    error: String,
}

impl Problem {
    pub fn new(status: StatusCode, error: impl Into<String>) -> Problem {
        Problem { status, error: error.into() }
    }

    pub fn bad(error: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn forbidden(what: &str) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, what)
    }

    fn unavailable(error: impl ToString) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(Refusal { error: self.error })).into_response()
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

/// How many entries of a list: 1 to 1000.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "u32")]
pub struct Limit(u32);

impl Limit {
    /// The longest page.
    pub const MOST: Limit = Limit(1000);

    pub fn count(self) -> u32 {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Limit {
        Limit(100)
    }
}

impl TryFrom<u32> for Limit {
    type Error = &'static str;

    fn try_from(limit: u32) -> Result<Limit, &'static str> {
        if (1..=1000).contains(&limit) { Ok(Limit(limit)) } else { Err("limit is 1 to 1000") }
    }
}

impl JsonSchema for Limit {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 1, "maximum": 1000})
    }
}

/// One page of a list.
pub struct Paged<T> {
    items: Vec<T>,
    next: Option<HeaderValue>,
}

impl<T> Paged<T> {
    /// `items` go on behind the page when there is more: one more is enough. `key` is what `after` takes.
    pub fn new(uri: &Uri, limit: Limit, mut items: Vec<T>, key: impl Fn(&T) -> String) -> Paged<T> {
        let more = items.len() > limit.0 as usize;
        items.truncate(limit.0 as usize);
        let last = items.last().filter(|_| more).map(key);
        let next = last.and_then(|last| HeaderValue::from_str(&format!("<{}>; rel=\"next\"", next_page(uri, &last))).ok());
        Paged { items, next }
    }
}

/// The same question, further on.
fn next_page(uri: &Uri, after: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let asked = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    query.extend_pairs(asked.filter(|(name, _)| name != "after")).append_pair("after", after);
    format!("{}?{}", uri.path(), query.finish())
}

impl<T: Serialize> IntoResponse for Paged<T> {
    fn into_response(self) -> Response {
        (self.next.map(|next| [(header::LINK, next)]), Json(self.items)).into_response()
    }
}

async fn commit(state: &ApiState, changes: Vec<DirectoryChange>) -> Result<(), Problem> {
    state.apply(changes).await.map_err(Problem::unavailable)
}

/// Lists show a tenant what is his; what he names by its id and is another's is closed to him (spec admin-api.md §2.1).
fn his(caller: &Caller, app: &str) -> Result<(), Problem> {
    if caller.tenant.may(app) { Ok(()) } else { Err(Problem::forbidden("it belongs to another application")) }
}

/// `null` is something else than nothing.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// What a SIP number or group id may be made of: what can stand in a SIP address.
const NUMBER: &str = r"^[!#$&-+\-.0-9=A-\[\]-~]{1,50}$";
/// Printable: no control characters.
pub(super) const PRINTABLE: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

fn checked_number(text: &str, what: &str) -> Result<(), Problem> {
    let fits = !text.is_empty() && text.chars().count() <= Number::MAX && super::seed::is_plain(text);
    if fits { Ok(()) } else { Err(Problem::bad(format!("{what} has 1 to 50 ASCII characters that can stand in a SIP address"))) }
}

fn checked_password(text: &str) -> Result<(), Problem> {
    let fits = (1..=Number::MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(Problem::bad("password has 1 to 50 printable characters")) }
}

fn checked_name(name: Option<&String>) -> Result<(), Problem> {
    let fits = name.is_none_or(|name| name.chars().count() <= 64 && !name.chars().any(char::is_control));
    if fits { Ok(()) } else { Err(Problem::bad("name has at most 64 printable characters")) }
}

pub async fn nothing_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no such path")
}

pub async fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_same_question_behind_the_last_key() {
        let next = |limit: u32, items: Vec<&'static str>| {
            let uri = Uri::from_static("/v1/accounts?name=a%26b&after=0&limit=2");
            let paged = Paged::new(&uri, Limit(limit), items, |item| (*item).to_owned());
            (paged.items, paged.next.map(|next| next.to_str().unwrap().to_owned()))
        };
        let link = "</v1/accounts?name=a%26b&limit=2&after=%233>; rel=\"next\"";
        assert_eq!(next(2, vec!["1", "#3", "4"]), (vec!["1", "#3"], Some(link.to_owned())));
        assert_eq!(next(2, vec!["1", "#3"]), (vec!["1", "#3"], None), "that was all");
        assert_eq!(next(2, vec![]), (vec![], None));
    }
}
