//! The provisioning API as OpenAPI operations, from the table that routes and checks it (spec admin-api.md §1).

use super::ours::{id, meaning};
use crate::http::seed;
use crate::http::seed::table::{Endpoint, Field, Kind, Plain, Shape, Word};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One operation a path; versions that take other parameters are alternatives of it.
pub fn operations() -> impl Iterator<Item = (&'static str, Value)> {
    let mut paths: BTreeMap<&'static str, Vec<&'static Endpoint>> = BTreeMap::new();
    for endpoint in seed::endpoints() {
        paths.entry(endpoint.path).or_default().push(endpoint);
    }
    paths.into_iter().map(|(path, endpoints)| (path, operation(path, &endpoints)))
}

/// What all replies share.
pub fn schemas() -> Map<String, Value> {
    let error = json!({
        "type": "object",
        "required": ["id", "code", "message", "localizedMsg", "data"],
        "properties": {
            "id": {"type": "string"},
            "code": {"type": "integer", "description": "As spec admin-api.md §2.3 lists them; the HTTP status where it is one"},
            "message": {"type": "string"},
            "localizedMsg": {"type": ["string", "null"], "description": "What to mend"},
            "data": {"type": "null"},
        },
    });
    Map::from_iter([("GatewayError".to_owned(), error)])
}

fn operation(path: &str, endpoints: &[&Endpoint]) -> Value {
    let bodies: Vec<Value> = endpoints.iter().flat_map(|endpoint| requests(endpoint)).collect();
    let replies: Vec<Value> = endpoints.iter().map(|endpoint| reply(&endpoint.data)).collect();
    let asked = endpoints.iter().map(|endpoint| {
        let params: Value = serde_json::from_str(endpoint.example.params).unwrap_or_default();
        (format!("apiVer {}", endpoint.versions[0]), json!({"value": envelope_example(endpoint, &params)}))
    });
    let told = endpoints.iter().map(|endpoint| {
        let mut reply = json!({"id": ID, "code": 200, "message": null, "localizedMsg": null});
        if let Ok(data) = serde_json::from_str::<Value>(endpoint.example.data) {
            reply["data"] = data;
        }
        (format!("apiVer {}", endpoint.versions[0]), json!({"value": reply}))
    });
    let told: Map<String, Value> = told.collect();
    let mut responses = Map::new();
    let ok = json!({"schema": {"anyOf": replies}, "examples": told});
    responses.insert("200".into(), json!({"description": "Done", "content": {"application/json": ok}}));
    for (status, code, message) in REFUSALS {
        let example = json!({"id": ID, "code": code, "message": message, "localizedMsg": null, "data": null});
        let content = json!({"schema": {"$ref": "#/components/schemas/GatewayError"}, "example": example});
        responses.insert(status.to_string(), json!({"description": meaning(status), "content": {"application/json": content}}));
    }
    if path.ends_with("/thing/service/invoke") {
        let example =
            json!({"id": ID, "code": 480, "message": "the door was not opened.", "localizedMsg": "offline", "data": null});
        let content = json!({"schema": {"$ref": "#/components/schemas/GatewayError"}, "example": example});
        let what = "How a wish to open a door ended otherwise; 501: another service than remoteOpen";
        responses.insert("default".into(), json!({"description": what, "content": {"application/json": content}}));
    }
    json!({
        "operationId": id("post", path),
        "tags": [path.split('/').nth(3).unwrap_or("gateway")],
        "summary": endpoints[0].summary,
        "requestBody": {
            "required": endpoints.iter().all(|endpoint| endpoint.params.iter().any(|field| field.required)),
            "content": {"application/json": {"schema": {"anyOf": bodies}, "examples": asked.collect::<Map<_, _>>()}},
        },
        "responses": responses,
    })
}

const ID: &str = "4d1f0c3e5b7a49c8a7e2f0d1c2b3a495";

/// Status, code and message of spec admin-api.md §2.3 (D-32).
const REFUSALS: [(u16, u32, &str); 7] = [
    (400, 400, "request error."),
    (401, 401, "unauthorized."),
    (403, 403, "request forbidden."),
    (404, 20003, "gateway.not found backend router"),
    (413, 413, "request error."),
    (429, 429, "too many requests."),
    (503, 503, "service unavailable."),
];

fn envelope_example(endpoint: &Endpoint, params: &Value) -> Value {
    let mut request = json!({"apiVer": endpoint.versions[0]});
    if endpoint.needs_token {
        request["cloudToken"] = "ct-1".into();
    }
    json!({"id": ID, "version": "1.0.0", "request": request, "params": params})
}

/// In its envelope, or bare (§1.1). Fields nobody knows are ignored.
fn requests(endpoint: &Endpoint) -> [Value; 2] {
    let params = fields(endpoint.params);
    // What the gateway does not look at may be anything.
    let versions: Vec<Option<&str>> = endpoint.versions.iter().copied().map(Some).chain([None]).collect();
    let mut request = json!({"properties": {"apiVer": {"enum": versions}}});
    if endpoint.needs_token {
        let text = "Of the community, from `/solution/community/paas/token/get`; an app needs it";
        request["properties"]["cloudToken"] = json!({"description": text});
    }
    let asks = endpoint.params.iter().any(|field| field.required);
    let in_it = if asks { params.clone() } else { json!({"anyOf": [params, {"type": "null"}]}) };
    let envelope = json!({
        "type": "object",
        "title": "in its envelope",
        "required": if asks { json!(["params"]) } else { json!([]) },
        "properties": {"id": {"description": "Comes back, when it is a text"}, "version": {}, "request": request, "params": in_it},
    });
    let mut bare = params;
    bare["title"] = "bare parameters".into();
    // Who has `params` is an envelope.
    bare["properties"]["params"] = json!(false);
    [envelope, bare]
}

fn fields(fields: &[Field]) -> Value {
    let mut properties = Map::new();
    let (mut required, mut either) = (Vec::new(), Vec::new());
    for field in fields {
        let mut schema = kind(&field.kind);
        schema["description"] = field.what.into();
        if !field.required {
            // What a form has left empty was left out.
            schema = json!({"anyOf": [schema, {"type": "null"}, {"const": ""}]});
        }
        properties.insert(field.name.into(), schema.clone());
        match (&field.kind, field.required) {
            (Kind::GroupId, _) => {
                // OPEN-18: both spellings.
                for name in ["groupID", "groupId"] {
                    properties.insert(name.into(), schema.clone());
                }
                if field.required {
                    either = vec![json!({"required": ["groupID"]}), json!({"required": ["groupId"]})];
                }
            }
            (_, true) => required.push(field.name),
            (_, false) => {}
        }
    }
    let mut object = json!({"type": "object", "required": required, "properties": properties});
    if !either.is_empty() {
        object["anyOf"] = either.into();
    }
    object
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::Integer { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Long => json!({"type": "integer", "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX}),
        Kind::Text { longest } => {
            json!({"type": "string", "minLength": 1, "maxLength": longest, "pattern": crate::http::v1::PRINTABLE})
        }
        Kind::OneOf(texts) => json!({"enum": texts}),
        Kind::GroupId => self::kind(&seed::table::SHORT),
        Kind::Port => json!({"type": "string", "pattern": "^[0-9]{1,5}$"}),
        Kind::RoomId => json!({"type": "string", "minLength": 1, "maxLength": 20}),
        Kind::List { of, most } => json!({"type": "array", "items": self::kind(of), "minItems": 1, "maxItems": most}),
        Kind::Object(of) => fields(of),
    }
}

fn reply(shape: &Shape) -> Value {
    let data = match shape {
        Shape::Nothing => None,
        Shape::Object(of) => Some(words(of)),
        Shape::List(of) => Some(json!({"type": "array", "items": words(of)})),
        Shape::Page(of) => Some(json!({
            "type": "object",
            "required": ["total", "pageNo", "pageSize", "data"],
            "properties": {
                "total": {"type": "integer"}, "pageNo": {"type": "integer"}, "pageSize": {"type": "integer"},
                "data": {"type": "array", "items": words(of)},
            },
        })),
    };
    let mut reply = json!({
        "type": "object",
        "required": ["id", "code", "message", "localizedMsg"],
        "properties": {
            "id": {"type": "string", "description": "As the request had it"},
            "code": {"const": 200}, "message": {"type": "null"}, "localizedMsg": {"type": "null"},
        },
    });
    if let Some(data) = data {
        reply["properties"]["data"] = data;
        reply["required"] = json!(["id", "code", "message", "localizedMsg", "data"]);
    }
    reply
}

fn words(words: &[Word]) -> Value {
    let properties = words.iter().map(|word| {
        let kind = match word.kind {
            Plain::Text => "string",
            Plain::Integer | Plain::Long => "integer",
            Plain::Object => "object",
        };
        let kind = if word.nullable { json!([kind, "null"]) } else { json!(kind) };
        (word.name.to_owned(), json!({"type": kind, "description": word.what}))
    });
    let names: Vec<&str> = words.iter().map(|word| word.name).collect();
    json!({"type": "object", "required": names, "properties": properties.collect::<Map<_, _>>()})
}
