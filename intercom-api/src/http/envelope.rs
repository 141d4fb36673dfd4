//! The gateway envelope (spec admin-api.md §1.1, §1.2, §2.3): what comes in, what goes out, and which HTTP status it has.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// A request, taken out of its envelope or bare.
#[derive(Debug)]
pub struct Envelope {
    /// Echoed.
    pub id: String,
    /// `request.apiVer`, if given.
    pub api_ver: Option<String>,
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
        let value: Value = if text.trim().is_empty() {
            Value::Object(Map::new())
        } else {
            serde_json::from_str(text).map_err(|error| Reply::error(400, "request error.", &format!("not JSON: {error}")))?
        };
        let Value::Object(mut object) = value else {
            return Err(Reply::error(400, "request error.", "the body is not a JSON object"));
        };
        let id = object.get("id").and_then(Value::as_str).unwrap_or_default().chars().take(64).collect::<String>();
        let Some(params) = object.remove("params") else { return Ok(Envelope { id, api_ver: None, params: object }) };
        let api_ver = object.get("request").and_then(|request| request.get("apiVer")).and_then(Value::as_str).map(str::to_owned);
        match params {
            Value::Object(params) => Ok(Envelope { id, api_ver, params }),
            Value::Null => Ok(Envelope { id, api_ver, params: Map::new() }),
            _ => Err(Reply::error(400, "request error.", "params is not an object").with_id(id)),
        }
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
            code => u16::try_from(code)
                .ok()
                .and_then(|c| StatusCode::from_u16(c).ok())
                .filter(|s| s.as_u16() >= 400)
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
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
