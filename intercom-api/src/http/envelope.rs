//! The gateway envelope (spec admin-api.md §1.1, §1.2, §2.3): what comes in, what goes out, and which HTTP status it has.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};
use std::fmt;

/// A request, taken out of its envelope or bare. Without `Debug`: there are passwords and tokens in it.
#[derive(Default)]
pub struct Envelope {
    /// Echoed.
    pub id: String,
    /// `request.apiVer`, if given.
    pub api_ver: Option<String>,
    /// `request.cloudToken`, if given.
    pub cloud_token: Option<String>,
    pub params: Map<String, Value>,
}

/// A business code and what goes with it.
#[derive(Debug)]
pub struct Reply {
    id: String,
    code: u32,
    message: Option<String>,
    localized: Option<String>,
    data: Option<Value>,
}

impl Envelope {
    /// An envelope has `params`; a bare object is the params itself.
    pub fn read(body: &[u8]) -> Result<Envelope, Reply> {
        let text = std::str::from_utf8(body).map_err(|_| Reply::error(400, "request error.", "the body is not UTF-8"))?;
        let value = if text.trim().is_empty() { Value::Object(Map::new()) } else { parse(text)? };
        let Value::Object(mut object) = value else {
            return Err(Reply::error(400, "request error.", "the body is not a JSON object"));
        };
        let id = object.get("id").and_then(Value::as_str).unwrap_or_default().chars().take(64).collect::<String>();
        let Some(params) = object.remove("params") else {
            return Ok(Envelope { id, params: object, ..Envelope::default() });
        };
        let said = |name| object.get("request").and_then(|request| request.get(name)).filter(|value| !value.is_null());
        // One that is no text is no version that there is.
        let api_ver = said("apiVer").map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        let cloud_token = said("cloudToken").and_then(Value::as_str).map(str::to_owned);
        match params {
            Value::Object(params) => Ok(Envelope { id, api_ver, cloud_token, params }),
            Value::Null => Ok(Envelope { id, api_ver, cloud_token, params: Map::new() }),
            _ => Err(Reply::error(400, "request error.", "params is not an object").with_id(id)),
        }
    }
}

/// A name that is there twice is an error: which of the two was meant, and which one was signed?
fn parse(text: &str) -> Result<Value, Reply> {
    serde_json::from_str(text).map(|Strict(value)| value).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        // Not the error's own text: it may quote a password.
        Reply::error(400, "request error.", &format!("not JSON, or too deep, or a name twice: line {line} column {column}"))
    })
}

/// A [`Value`] without names that are there twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Strict, D::Error> {
        from.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = from.next_element()? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = from.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(de::Error::custom("a name twice"));
            }
        }
        Ok(object.into())
    }
}

impl Reply {
    pub fn ok(data: Option<Value>) -> Reply {
        Reply { id: String::new(), code: 200, message: None, localized: None, data }
    }

    /// `message` is the platform's word for the code, `detail` says what to mend.
    pub fn error(code: u32, message: &str, detail: &str) -> Reply {
        let localized = (!detail.is_empty()).then(|| detail.to_owned());
        Reply { id: String::new(), code, message: Some(message.to_owned()), localized, data: None }
    }

    pub fn with_id(mut self, id: String) -> Reply {
        self.id = id;
        self
    }

    /// D-32: the code where it is an HTTP error, and for the gateway's own codes what they mean.
    fn status(&self) -> StatusCode {
        match self.code {
            200 => StatusCode::OK,
            20003 => StatusCode::NOT_FOUND,
            20004 | 460 => StatusCode::BAD_REQUEST,
            400..=599 => {
                u16::try_from(self.code).ok().and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::BAD_GATEWAY)
            }
            // SIP knows 6xx, HTTP does not.
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut body = json!({ "id": self.id, "code": self.code, "message": self.message, "localizedMsg": self.localized });
        if self.data.is_some() || self.code != 200 {
            body["data"] = self.data.clone().unwrap_or_default();
        }
        (self.status(), Json(body)).into_response()
    }
}
