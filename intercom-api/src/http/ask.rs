//! What a request asks: path, query and body, read here so that whatever is wrong with them is refused in this face's own
//! words ([`Problem`]) and never in the library's.

use super::v1::Problem;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;

/// Most things one call makes.
pub const MAX_ITEMS: usize = 100;

/// What the path names.
pub struct Path<T>(pub T);

/// Filters and pages.
pub struct Query<T>(pub T);

/// One JSON object, whatever `Content-Type` says: scripts leave it out.
pub struct Object<T>(pub T);

/// The same, where no body says nothing.
pub struct OptionalObject<T>(pub T);

/// One JSON object or an array of them, 1 to [`MAX_ITEMS`].
pub struct Items<T>(pub Vec<T>);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Problem> {
        let axum::extract::Path(value) = axum::extract::Path::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
        Ok(Path(value))
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query<T>, Problem> {
        let read = axum::extract::Query::try_from_uri(&parts.uri);
        let axum::extract::Query(value) = read.map_err(|rejection| Problem::bad(rejection.body_text()))?;
        Ok(Query(value))
    }
}

async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad(error.to_string()))
}

/// An object and nothing else: serde also takes an array for a struct, field by field.
struct Strict<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Strict<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Strict<T>, D::Error> {
        struct Object<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = Strict<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Strict<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Strict)
            }
        }
        from.deserialize_map(Object(PhantomData))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Object<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Object<T>, Problem> {
        let Strict(object) = parsed(&body(request, state).await?)?;
        Ok(Object(object))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalObject<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<OptionalObject<T>, Problem> {
        let body = body(request, state).await?;
        if body.trim_ascii().is_empty() {
            return Ok(OptionalObject(T::default()));
        }
        let Strict(object) = parsed(&body)?;
        Ok(OptionalObject(object))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Items<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Items<T>, Problem> {
        let body = body(request, state).await?;
        let items: Vec<Strict<T>> = match body.trim_ascii_start().first() {
            Some(b'[') => parsed(&body)?,
            _ => vec![parsed(&body)?],
        };
        if !(1..=MAX_ITEMS).contains(&items.len()) {
            return Err(Problem::bad("1 to 100 items a call"));
        }
        Ok(Items(items.into_iter().map(|Strict(item)| item).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Point {
        x: i32,
    }

    fn read(body: &str) -> Result<Point, Problem> {
        parsed(body.as_bytes()).map(|Strict(point)| point)
    }

    #[test]
    fn an_object_is_an_object_with_each_of_its_fields_once() {
        assert_eq!(read(r#"{"x": 1}"#).unwrap(), Point { x: 1 });
        let deep = "[".repeat(100_000);
        for wrong in ["[1]", r#"{"x": 1, "x": 2}"#, r#"{"x": 1, "y": 2}"#, r#"{"x": 1e99}"#, r#"{"x": "1"}"#, "null", "", &deep] {
            assert!(read(wrong).is_err(), "{}", &wrong[..wrong.len().min(20)]);
        }
    }
}
