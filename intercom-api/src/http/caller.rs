//! [`Caller`]: who sent a request, for whom he acts and what he may see. Found out once, before any handler runs.

use super::envelope::Reply;
use super::v1::Problem;
use super::{ApiState, metrics};
use crate::model::Tenant;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Whoever has proved who he is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// For logs and records.
    pub name: Arc<str>,
    pub tenant: Tenant,
    pub may: May,
}

/// What not everybody sees. An operator runs the house without either, unless it was granted to him.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct May {
    /// Owner of the installation or of an appKey; not an operator.
    pub own: bool,
    pub passwords: bool,
    pub pictures: bool,
}

impl May {
    pub const ALL: May = May { own: true, passwords: true, pictures: true };
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, Problem> {
        parts.extensions.get::<Caller>().cloned().ok_or_else(unknown)
    }
}

/// Lets nobody through whom it does not know.
pub async fn authorise(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    if let Some(caller) = by_token(&state, &request) {
        request.extensions_mut().insert(caller);
        return next.run(request).await;
    }
    if metrics::is_open_to(&request) {
        return next.run(request).await;
    }
    if super::is_gateway(request.uri().path()) {
        return Reply::error(401, "unauthorized.", "").into_response();
    }
    unknown().into_response()
}

fn unknown() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "a valid bearer token or signature is needed")
}

/// Compares in constant time; no token set means nobody is let in by one.
fn by_token(state: &ApiState, request: &Request) -> Option<Caller> {
    let given = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = given.split_once(' ')?;
    let is = |known: &str| !known.is_empty() && bool::from(token.trim().as_bytes().ct_eq(known.as_bytes()));
    let owner = Caller { name: "owner".into(), tenant: Tenant { app: "".into(), all: true }, may: May::ALL };
    (scheme.eq_ignore_ascii_case("bearer") && is(&state.bearer)).then_some(owner)
}
