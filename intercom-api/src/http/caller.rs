//! [`Caller`]: who sent a request, for whom he acts and what he may see. Found out once, before any handler runs, by the
//! [`Doorkeeper`]: a token, or the signature of an app (`signature.rs`).

use super::envelope::Reply;
use super::signature::{Nonces, Refused, Signed};
use super::v1::Problem;
use super::{ApiState, BODY, is_gateway, metrics, now_ms};
use crate::config::{Api, Grant, Role};
use crate::model::{Secret, Tenant};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(30);

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
        parts.extensions.get::<Caller>().cloned().ok_or_else(|| Denied::Unknown.problem())
    }
}

/// Knows everybody who may call.
pub struct Doorkeeper {
    owner: Secret,
    users: Vec<(Secret, Caller)>,
    apps: HashMap<String, (Secret, Caller)>,
    /// Requests a second of one caller; 0: no limit.
    rate: u32,
    started_ms: i64,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// By app.
    nonces: HashMap<String, Nonces>,
    /// Requests of each caller in the second that he called in last.
    used: HashMap<Arc<str>, (i64, u32)>,
    refused: BTreeMap<&'static str, u64>,
}

impl Doorkeeper {
    /// What is `own_app`'s is the installation's own.
    pub fn new(api: &Api, own_app: &str) -> Doorkeeper {
        let tenant = |app: &str, all| Tenant { app: app.into(), all };
        let user = |user: &crate::config::User| {
            let granted = |grant| user.role == Role::Owner || user.may.contains(&grant);
            let (passwords, pictures) = (granted(Grant::Passwords), granted(Grant::Pictures));
            let may = May { own: user.role == Role::Owner, passwords, pictures };
            (user.token.clone(), Caller { name: user.name.as_str().into(), tenant: tenant("", true), may })
        };
        let app = |app: &crate::config::App| {
            let tenant = tenant(if app.key == own_app { "" } else { &app.key }, false);
            (app.key.clone(), (app.secret.clone(), Caller { name: app.called().into(), tenant, may: May::ALL }))
        };
        Doorkeeper {
            owner: api.bearer.clone(),
            users: api.users.iter().map(user).collect(),
            apps: api.apps.iter().map(app).collect(),
            rate: api.rate,
            started_ms: now_ms(),
            seen: Mutex::default(),
        }
    }

    /// Everything refused since the start, by name.
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).refused.clone()
    }

    fn by_token(&self, parts: &Parts) -> Option<Caller> {
        let given = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = given.split_once(' ')?;
        // In constant time; no token set means that nobody is let in by one.
        let is = |known: &Secret| !known.is_empty() && bool::from(token.trim().as_bytes().ct_eq(known.reveal().as_bytes()));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let owner = || Caller { name: "owner".into(), tenant: Tenant { app: "".into(), all: true }, may: May::ALL };
        if is(&self.owner) {
            return Some(owner());
        }
        self.users.iter().find(|(token, _)| is(token)).map(|(_, caller)| caller.clone())
    }

    fn by_signature(&self, parts: &Parts, body: &[u8]) -> Result<Caller, Denied> {
        let request = Signed { method: parts.method.as_str(), uri: &parts.uri, headers: &parts.headers, body };
        let refuse = |refused| Denied::Signature(refused, None);
        let (key, (secret, caller)) = self.known_key(parts)?;
        let now_ms = now_ms();
        let time_ms = request.check(secret.reveal(), now_ms, self.started_ms).map_err(|refused| {
            // What the gateway itself would say, so that whoever writes a client can compare.
            Denied::Signature(refused, (refused == Refused::Signature).then(|| request.string_to_sign().replace('\n', "#")))
        })?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.nonces.entry(key.clone()).or_default().remember(now_ms, time_ms, request.nonce()).map_err(refuse)?;
        Ok(caller.clone())
    }

    /// Is he within his limit (spec admin-api.md §2.3: counted per second)? The owner's own token has none.
    fn within_rate(&self, caller: &Caller) -> bool {
        if self.rate == 0 || *caller.name == *"owner" {
            return true;
        }
        let second = now_ms().div_euclid(1000);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let used = seen.used.entry(caller.name.clone()).or_default();
        *used = if used.0 == second { (second, used.1.saturating_add(1)) } else { (second, 1) };
        used.1 <= self.rate
    }

    /// A signature covers the body, so that is read before it is known whose it is; but not for who has neither a token nor a key
    /// that there is: strangers get no memory.
    async fn identify(&self, parts: &Parts, body: Body) -> Result<(Caller, Bytes), Denied> {
        let by_token = self.by_token(parts);
        if by_token.is_none() {
            self.known_key(parts)?;
        }
        let body = whole(body).await?;
        let caller = match by_token {
            Some(caller) => caller,
            None => self.by_signature(parts, &body)?,
        };
        if self.within_rate(&caller) { Ok((caller, body)) } else { Err(Denied::TooMany) }
    }

    /// The app that a request says it is of.
    fn known_key(&self, parts: &Parts) -> Result<(&String, &(Secret, Caller)), Denied> {
        let key = parts.headers.get("x-ca-key").ok_or(Denied::Unknown)?;
        let app = key.to_str().ok().and_then(|key| self.apps.get_key_value(key));
        app.ok_or(Denied::Signature(Refused::UnknownKey, None))
    }

    fn count(&self, denied: &Denied) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner).refused.entry(denied.name()).or_default() += 1;
    }
}

/// Why a request goes no further.
#[derive(Debug)]
enum Denied {
    Unknown,
    /// With the text that was to be signed, where it was another.
    Signature(Refused, Option<String>),
    TooMany,
    TooLarge,
    /// The body did not come.
    Cut,
}

impl Denied {
    fn name(&self) -> &'static str {
        match self {
            Denied::Unknown => "unauthorized",
            Denied::Signature(refused, _) => refused.name(),
            Denied::TooMany => "too_many_requests",
            Denied::TooLarge => "body_too_large",
            Denied::Cut => "body_cut",
        }
    }

    /// Status and the gateway's word for it (spec admin-api.md §2.3; 401 and 413 are ours).
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Denied::Unknown => (StatusCode::UNAUTHORIZED, "unauthorized."),
            Denied::Signature(Refused::Full, _) | Denied::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too many requests."),
            Denied::Signature(..) => (StatusCode::FORBIDDEN, "request forbidden."),
            Denied::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "request error."),
            Denied::Cut => (StatusCode::BAD_REQUEST, "request error."),
        }
    }

    fn detail(&self) -> &'static str {
        match self {
            Denied::Unknown => "a valid bearer token or signature is needed",
            Denied::Signature(refused, _) => refused.detail(),
            Denied::TooMany => "more requests a second than api.rate allows",
            Denied::TooLarge => "a body has at most 1 MiB",
            Denied::Cut => "the body did not come whole",
        }
    }

    fn problem(&self) -> Problem {
        Problem::new(self.status().0, self.detail())
    }

    fn response(&self, path: &str) -> Response {
        let (status, message) = self.status();
        let mut response = if is_gateway(path) {
            Reply::error(status.as_u16().into(), message, self.detail()).into_response()
        } else {
            self.problem().into_response()
        };
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §11.6.1.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Denied::Signature(refused, text) = self {
            let text = text.as_ref().map_or(refused.detail().to_owned(), |text| {
                // A header holds what can be seen; clients print it.
                format!("Invalid Signature, Server StringToSign:`{}`", text.escape_default())
            });
            if let Ok(text) = HeaderValue::from_str(&text) {
                response.headers_mut().insert("x-ca-error-message", text);
            }
        }
        response
    }
}

/// Lets nobody through whom it does not know.
pub async fn authorise(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if !request.headers().contains_key(header::AUTHORIZATION) && metrics::is_open_to(&request) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    match state.doorkeeper.identify(&parts, body).await {
        Ok((caller, body)) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, Body::from(body))).await
        }
        Err(denied) => {
            state.doorkeeper.count(&denied);
            denied.response(parts.uri.path())
        }
    }
}

async fn whole(body: Body) -> Result<Bytes, Denied> {
    let too_large = |error: &axum::Error| error.source().is_some_and(|source| source.is::<LengthLimitError>());
    match tokio::time::timeout(BODY_TIME, to_bytes(body, BODY)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if too_large(&error) => Err(Denied::TooLarge),
        Ok(Err(_)) | Err(_) => Err(Denied::Cut),
    }
}
