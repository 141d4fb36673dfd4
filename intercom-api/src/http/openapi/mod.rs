//! `/openapi.json`: all of the API as OpenAPI 3.1, made from the lists that route it, and `/docs`, a page that shows it.
//!
//! The page itself says nothing of anybody, so it is as open as `/healthz` is; a browser cannot send a token with an address,
//! so the page asks for one and fetches the document with it (a refinement of D-32).

mod ours;
mod seeds;

use super::route::{Needs, Route};
use axum::http::header;
use axum::response::{Html, IntoResponse};
use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/openapi.json", json_document, "This document").json::<Document>(
            200,
            "OpenAPI 3.1",
            json!({"openapi": VERSION}),
        ),
        Route::get("/docs", page, "A page that shows it").needs(Needs::Nothing).other("It", "text/html"),
    ]
}

const VERSION: &str = "3.1.0";

/// Further fields as OpenAPI has them.
#[derive(Serialize, JsonSchema)]
#[allow(dead_code)] // a shape, for the document only
struct Document {
    openapi: String,
}

static TEXT: LazyLock<String> = LazyLock::new(|| document(super::routes()).to_string());

async fn json_document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}

async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], Html(include_str!("docs.html")))
}

/// What comes in and what goes out may differ in what must be there, so each has its generator; a name means one schema.
pub(super) struct Generators {
    asked: SchemaGenerator,
    told: SchemaGenerator,
}

impl Generators {
    fn new() -> Generators {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Generators { asked: settings.clone().for_deserialize().into(), told: settings.for_serialize().into() }
    }

    fn definitions(mut self) -> Map<String, Value> {
        let mut all = self.told.take_definitions(true);
        for (name, schema) in self.asked.take_definitions(true) {
            let told = all.insert(name.clone(), schema.clone());
            debug_assert!(told.is_none_or(|told| told == schema), "{name} goes in and out and differs");
        }
        all
    }
}

fn document(routes: Vec<Route>) -> Value {
    let mut generators = Generators::new();
    let mut paths = Map::new();
    let mut put = |path: &str, method: &str, operation: Value| {
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[method] = operation;
    };
    for route in &routes {
        put(route.path, route.method, ours::operation(route, &mut generators));
    }
    for (path, operation) in seeds::operations() {
        put(path, "post", operation);
    }
    let mut schemas = generators.definitions();
    schemas.extend(seeds::schemas());
    json!({
        "openapi": VERSION,
        "info": {
            "title": "Doorline",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The provisioning API of property platforms, and `/v1`, a face of our own.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "security": [{"bearer": []}, {"signature": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token of the configuration."},
                "signature": {"type": "apiKey", "in": "header", "name": "X-Ca-Signature", "description": SIGNATURE},
            },
        },
    })
}

const SIGNATURE: &str = "Base64(HMAC-SHA256(appSecret, text)) beside X-Ca-Key (the appKey), X-Ca-Timestamp (milliseconds, within \
    15 minutes), X-Ca-Nonce (new each time), X-Ca-Signature-Headers (names of signed headers, with commas) and Content-MD5 (of a \
    body that is no form). The text is METHOD, Accept, Content-MD5, Content-Type and Date, each followed by a line feed, then \
    each signed header as `name:value` and a line feed, in order of names, then the path with its query and form fields in order.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{self, seed};
    use boon::{Compiler, Schemas};
    use std::collections::BTreeSet;

    fn all_operations(document: &Value) -> Vec<(String, String, Value)> {
        let paths = document["paths"].as_object().unwrap();
        let of_path = |(path, methods): (&String, &Value)| {
            let of_method = |(method, operation): (&String, &Value)| (method.clone(), path.clone(), operation.clone());
            methods.as_object().unwrap().iter().map(of_method).collect::<Vec<_>>()
        };
        paths.iter().flat_map(of_path).collect()
    }

    #[test]
    fn what_is_routed_is_documented_and_nothing_else() {
        let ours = http::routes().iter().map(|route| (route.method.to_owned(), route.path.to_owned())).collect::<BTreeSet<_>>();
        let seeds = seed::endpoints().map(|endpoint| ("post".to_owned(), endpoint.path.to_owned())).collect::<BTreeSet<_>>();
        for (_, path) in &seeds {
            assert!(http::is_gateway(path), "{path} is not routed");
        }
        let documented = all_operations(&document(http::routes())).into_iter().map(|(method, path, _)| (method, path));
        assert_eq!(documented.collect::<BTreeSet<_>>(), ours.union(&seeds).cloned().collect());
        // Nobody goes round the list.
        let router = include_str!("../mod.rs");
        assert_eq!(router.matches(".route(").count(), 1, "routes of http/mod.rs belong into http::routes()");
    }

    #[test]
    fn examples_are_of_the_shape_they_are_examples_of() {
        let document = document(http::routes());
        let mut compiler = Compiler::new();
        compiler.add_resource("mem:///api", document.clone()).unwrap();
        let mut schemas = Schemas::new();
        let mut check = |pointer: String| {
            let place = document.pointer(&pointer).unwrap();
            let Some(schema) = place.get("schema") else { return };
            let index = compiler.compile(&format!("mem:///api#{pointer}/schema"), &mut schemas);
            let index = index.unwrap_or_else(|error| panic!("{pointer}: {schema} is no schema: {error}"));
            let example = place.get("example").into_iter();
            let examples = place.get("examples").and_then(Value::as_object).into_iter().flat_map(Map::values);
            let all: Vec<&Value> = example.chain(examples.filter_map(|example| example.get("value"))).collect();
            assert!(
                !all.is_empty() || pointer.contains("/parameters/") || schema == &json!({"type": "string"}),
                "{pointer}: no example"
            );
            for example in all {
                if let Err(error) = schemas.validate(example, index) {
                    panic!("{pointer}: {example}: {error}");
                }
            }
        };
        for (method, path, operation) in all_operations(&document) {
            let place = format!("/paths/{}/{method}", path.replace('/', "~1"));
            for number in 0..operation["parameters"].as_array().map_or(0, Vec::len) {
                check(format!("{place}/parameters/{number}"));
            }
            if operation.get("requestBody").is_some() {
                check(format!("{place}/requestBody/content/application~1json"));
            }
            for (status, reply) in operation["responses"].as_object().unwrap() {
                for media_type in reply.get("content").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
                    check(format!("{place}/responses/{status}/content/{}", media_type.replace('/', "~1")));
                }
            }
        }
    }
}
