//! A [`Route`] as an OpenAPI operation.

use super::Generators;
use crate::http::route::{Body, Content, Needs, OTHER, Reply, Route};
use crate::http::v1::Refusal;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

pub fn operation(route: &Route, generators: &mut Generators) -> Value {
    let mut operation = json!({
        "operationId": id(route.method, route.path),
        "tags": [tag(route.path)],
        "summary": route.summary,
        "parameters": parameters(route, generators),
        "responses": responses(route, generators),
    });
    if let Some(body) = &route.body {
        operation["requestBody"] = request_body(body, generators);
    }
    if matches!(route.needs, Needs::Nothing | Needs::InstallationOrLoopback) {
        operation["security"] = json!([{}]);
    }
    operation
}

pub fn id(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}

/// `/v1/accounts/{number}` is about accounts; what has no family is about the server.
fn tag(path: &str) -> &str {
    path.strip_prefix("/v1/").and_then(|rest| rest.split('/').next()).unwrap_or("server")
}

fn parameters(route: &Route, generators: &mut Generators) -> Vec<Value> {
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = names.zip(&route.at).map(|(name, example)| {
        let kind = if example.is_number() { json!({"type": "integer", "format": "int64"}) } else { json!({"type": "string"}) };
        json!({"name": name, "in": "path", "required": true, "schema": kind, "example": example})
    });
    let mut parameters: Vec<Value> = in_path.collect();
    if let Some(query) = route.query {
        let shape = query(&mut generators.asked).to_value();
        let required = shape["required"].as_array().cloned().unwrap_or_default();
        for (name, schema) in shape["properties"].as_object().into_iter().flatten() {
            let required = required.iter().any(|known| known == name);
            parameters.push(query_parameter(name, schema.clone(), required));
        }
    }
    parameters
}

fn query_parameter(name: &str, mut schema: Value, required: bool) -> Value {
    // Left out is how a query says null.
    if let Some(kinds) = schema["type"].as_array().cloned() {
        schema["type"] = kinds.into_iter().find(|kind| kind != "null").unwrap_or_default();
    }
    for list in ["enum", "anyOf"] {
        if let Some(values) = schema.get_mut(list).and_then(Value::as_array_mut) {
            values.retain(|value| !value.is_null() && value != &json!({"type": "null"}));
        }
    }
    let mut parameter = json!({"name": name, "in": "query", "required": required});
    if let Some(fields) = schema.as_object_mut() {
        if let Some(text) = fields.remove("description") {
            parameter["description"] = text;
        }
        if let Some(example) = fields.remove("examples").and_then(|examples| examples.get(0).cloned()) {
            parameter["example"] = example;
        }
    }
    parameter["schema"] = schema;
    parameter
}

fn request_body(body: &Body, generators: &mut Generators) -> Value {
    let one = (body.shape)(&mut generators.asked).to_value();
    let schema = if body.array {
        json!({"oneOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": crate::http::ask::MAX_ITEMS}]})
    } else {
        one
    };
    json!({"required": body.required, "content": {"application/json": {"schema": schema, "example": body.example}}})
}

fn responses(route: &Route, generators: &mut Generators) -> Map<String, Value> {
    let mut responses = Map::new();
    let refusal = generators.told.subschema_for::<Refusal>().to_value();
    for status in refusals(route) {
        let content = json!({"schema": refusal, "example": {"error": meaning(status)}});
        let reply = json!({"description": meaning(status), "content": {"application/json": content}});
        responses.insert(status.to_string(), reply);
    }
    for Reply { status, what, content } in &route.replies {
        let mut reply = json!({"description": what});
        match content {
            Content::Nothing => {}
            Content::Other(media_type) => reply["content"] = json!({*media_type: {"schema": {"type": "string"}}}),
            Content::Json { shape, example, paged } => {
                let mut schema = shape(&mut generators.told).to_value();
                if *status == OTHER {
                    schema = json!({"anyOf": [schema, refusal]});
                }
                reply["content"] = json!({"application/json": {"schema": schema, "example": example}});
                if *paged {
                    reply["headers"] = json!({"Link": {"description": "The next page (rel=\"next\"), when there is one",
                                                        "schema": {"type": "string"}}});
                }
            }
        }
        responses.insert(if *status == OTHER { "default".into() } else { status.to_string() }, reply);
    }
    responses
}

/// What a route refuses: what follows from what it takes and who may, and what it says itself.
fn refusals(route: &Route) -> BTreeSet<u16> {
    if route.replies.iter().any(|reply| reply.status == OTHER) {
        return BTreeSet::new();
    }
    let asks = route.path.contains('{') || route.query.is_some() || route.body.is_some();
    let known = route.needs != Needs::Nothing;
    let follows = [
        (400, asks),
        (401, known),
        (403, known),
        (413, route.body.is_some()),
        (429, known),
        (503, known && route.path != "/openapi.json"),
    ];
    let follows = follows.into_iter().filter(|(_, follows)| *follows).map(|(status, _)| status);
    follows.chain(route.refuses.iter().copied()).collect()
}

pub fn meaning(status: u16) -> &'static str {
    match status {
        400 => "Something of the request is not as it should be",
        401 => "A valid bearer token or signature is needed",
        403 => "It belongs to another application, or is not granted to this user",
        404 => "There is no such thing",
        409 => "It cannot be now, or exists already",
        413 => "The body is too large",
        429 => "Too many requests; try again later",
        503 => "The store or signalling does not answer now; nothing was done, or it may be repeated",
        _ => "The server has failed",
    }
}
