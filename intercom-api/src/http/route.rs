//! [`Route`]: a path, who may use it, and what is said of it. One list of them is the router and the OpenAPI document, so that
//! neither can have what the other has not.

use super::ApiState;
use super::caller::Caller;
use super::v1::Problem;
use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

/// What a caller needs beside being known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Not even that.
    Nothing,
    Token,
    /// Pictures of visitors are not everybody's.
    Pictures,
    /// What is said of the whole installation is not for one appKey.
    Installation,
    /// The same, but nobody need be known on the machine itself (D-32).
    InstallationOrLoopback,
    /// The owner of the installation or of an appKey, not an operator.
    Owner,
}

impl Needs {
    /// Why this caller may not.
    fn refuses(self, caller: Option<&Caller>) -> Option<&'static str> {
        let of_all = |caller: &Caller| caller.tenant.all;
        let (allowed, why) = match self {
            Needs::Nothing | Needs::Token => (true, ""),
            Needs::Pictures => (caller.is_some_and(|caller| caller.may.pictures), "pictures are not granted to this user"),
            Needs::Owner => (caller.is_some_and(|caller| caller.may.own), "this is for owners"),
            Needs::Installation => (caller.is_some_and(of_all), NOT_YOURS),
            // Whom nobody knows comes this far from loopback only.
            Needs::InstallationOrLoopback => (caller.is_none_or(of_all), NOT_YOURS),
        };
        (!allowed).then_some(why)
    }
}

const NOT_YOURS: &str = "this is for the owner of the installation and its operators";

/// How a shape gets into the document: by reference, once.
pub type Shape = fn(&mut SchemaGenerator) -> Schema;

/// See the module text.
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    handler: MethodRouter<ApiState>,
    pub needs: Needs,
    pub summary: &'static str,
    /// What stands for each `{…}` of the path in examples; its type is theirs.
    pub at: Vec<Value>,
    pub query: Option<Shape>,
    pub body: Option<Body>,
    pub replies: Vec<Reply>,
    /// Statuses with `{"error": …}` beside those that follow from the rest.
    pub refuses: &'static [u16],
}

pub struct Body {
    pub shape: Shape,
    pub example: Value,
    pub array: bool,
    pub required: bool,
}

/// The status of a reply that stands for all not named.
pub const OTHER: u16 = 0;

/// A good outcome.
pub struct Reply {
    pub status: u16,
    pub what: &'static str,
    pub content: Content,
}

pub enum Content {
    Nothing,
    Json {
        shape: Shape,
        example: Value,
        paged: bool,
    },
    /// Of this media type.
    Other(&'static str),
}

fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Route {
    fn new(method: &'static str, path: &'static str, handler: MethodRouter<ApiState>, summary: &'static str) -> Route {
        Route {
            method,
            path,
            handler,
            needs: Needs::Token,
            summary,
            at: Vec::new(),
            query: None,
            body: None,
            replies: Vec::new(),
            refuses: &[],
        }
    }

    pub fn get<T: 'static>(path: &'static str, handler: impl Handler<T, ApiState>, summary: &'static str) -> Route {
        Route::new("get", path, routing::get(handler), summary)
    }

    pub fn post<T: 'static>(path: &'static str, handler: impl Handler<T, ApiState>, summary: &'static str) -> Route {
        Route::new("post", path, routing::post(handler), summary)
    }

    pub fn patch<T: 'static>(path: &'static str, handler: impl Handler<T, ApiState>, summary: &'static str) -> Route {
        Route::new("patch", path, routing::patch(handler), summary)
    }

    pub fn delete<T: 'static>(path: &'static str, handler: impl Handler<T, ApiState>, summary: &'static str) -> Route {
        Route::new("delete", path, routing::delete(handler), summary)
    }

    pub fn needs(self, needs: Needs) -> Route {
        Route { needs, ..self }
    }

    pub fn at(mut self, example: impl Into<Value>) -> Route {
        self.at.push(example.into());
        self
    }

    pub fn query<T: JsonSchema>(self) -> Route {
        Route { query: Some(shape::<T>), ..self }
    }

    pub fn body<T: JsonSchema>(self, example: Value) -> Route {
        Route { body: Some(Body { shape: shape::<T>, example, array: false, required: true }), ..self }
    }

    /// One or an array of up to 100, all or nothing.
    pub fn items<T: JsonSchema>(self, example: Value) -> Route {
        Route { body: Some(Body { shape: shape::<T>, example, array: true, required: true }), ..self }
    }

    pub fn optional_body<T: JsonSchema>(self, example: Value) -> Route {
        Route { body: Some(Body { shape: shape::<T>, example, array: false, required: false }), ..self }
    }

    fn reply(mut self, status: u16, what: &'static str, content: Content) -> Route {
        self.replies.push(Reply { status, what, content });
        self
    }

    pub fn json<T: JsonSchema>(self, status: u16, what: &'static str, example: Value) -> Route {
        self.reply(status, what, Content::Json { shape: shape::<T>, example, paged: false })
    }

    pub fn page<T: JsonSchema>(self, what: &'static str, example: Value) -> Route {
        self.reply(200, what, Content::Json { shape: shape::<Vec<T>>, example, paged: true })
    }

    pub fn other(self, what: &'static str, media_type: &'static str) -> Route {
        self.reply(200, what, Content::Other(media_type))
    }

    /// Any other status, said in these words or in a refusal's.
    pub fn outcomes<T: JsonSchema>(self, example: Value) -> Route {
        self.reply(OTHER, "Any other outcome", Content::Json { shape: shape::<T>, example, paged: false })
    }

    pub fn nothing(self, status: u16, what: &'static str) -> Route {
        self.reply(status, what, Content::Nothing)
    }

    pub fn refuses(self, refuses: &'static [u16]) -> Route {
        Route { refuses, ..self }
    }
}

/// The router of them, roles enforced; who a caller is has been found out before.
pub fn router(routes: Vec<Route>) -> Router<ApiState> {
    routes.into_iter().fold(Router::new(), |router, Route { path, needs, handler, .. }| {
        router.route(path, handler.route_layer(from_fn(move |request, next| admit(needs, request, next))))
    })
}

async fn admit(needs: Needs, request: Request, next: Next) -> Response {
    match needs.refuses(request.extensions().get::<Caller>()) {
        Some(why) => Problem::forbidden(why).into_response(),
        None => next.run(request).await,
    }
}
