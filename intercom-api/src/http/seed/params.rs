//! Parameters, read by the table of their endpoint (spec admin-api.md §2.3, §13.1). Every refusal says which one it is and
//! what it should be, and never what it was: it may be a password.

use super::table::{Field, Kind};
use super::{invalid, wrong_type};
use crate::http::envelope::Reply;
use crate::room;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What was given, by the name of the table. Without `Debug`: there are passwords in it.
pub struct Params(BTreeMap<&'static str, Given>);

enum Given {
    Integer(i64),
    Text(String),
    List(Vec<Given>),
    Object(Params),
}

/// A page that was asked for (OPEN-20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub no: i64,
    pub size: i64,
}

impl Params {
    pub fn read(object: &Map<String, Value>, fields: &'static [Field]) -> Result<Params, Reply> {
        Params::read_at("", object, fields)
    }

    /// `place`: the names of the objects around, for what is refused.
    fn read_at(place: &str, object: &Map<String, Value>, fields: &'static [Field]) -> Result<Params, Reply> {
        let mut given = BTreeMap::new();
        for field in fields {
            let name = format!("{place}{}", field.name);
            let other = match (&field.kind, field.name) {
                (Kind::GroupId, "groupID") => Some("groupId"),
                (Kind::GroupId, _) => Some("groupID"),
                _ => None,
            };
            let set = |name| object.get(name).filter(|value| !value.is_null());
            let value = set(field.name).or_else(|| set(other?));
            let Some(value) = value else {
                if field.required {
                    return Err(invalid(&format!("{name} is missing")));
                }
                continue;
            };
            // What a form has left empty was left out.
            if field.required || !is_empty(value, &field.kind) {
                given.insert(field.name, read(&name, value, &field.kind)?);
            }
        }
        Ok(Params(given))
    }

    pub fn integer(&self, name: &str) -> Result<i64, Reply> {
        match self.0.get(name) {
            Some(Given::Integer(number)) => Ok(*number),
            _ => Err(missing(name)),
        }
    }

    pub fn text(&self, name: &str) -> Result<String, Reply> {
        self.text_if(name).ok_or_else(|| missing(name))
    }

    /// `None`: it was left out.
    pub fn text_if(&self, name: &str) -> Option<String> {
        match self.0.get(name) {
            Some(Given::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// Each one once: whoever names a number twice means it once.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, Reply> {
        let Some(Given::List(list)) = self.0.get(name) else { return Err(missing(name)) };
        let mut texts: Vec<String> = Vec::new();
        for given in list {
            if let Given::Text(text) = given
                && !texts.contains(text)
            {
                texts.push(text.clone());
            }
        }
        Ok(texts)
    }

    pub fn object(&self, name: &str) -> Result<&Params, Reply> {
        match self.0.get(name) {
            Some(Given::Object(object)) => Ok(object),
            _ => Err(missing(name)),
        }
    }

    pub fn objects(&self, name: &str) -> Result<Vec<&Params>, Reply> {
        let Some(Given::List(list)) = self.0.get(name) else { return Err(missing(name)) };
        Ok(list.iter().filter_map(|given| if let Given::Object(object) = given { Some(object) } else { None }).collect())
    }

    pub fn page(&self) -> Page {
        Page { no: self.integer("pageNo").unwrap_or(1), size: self.integer("pageSize").unwrap_or(20) }
    }
}

impl Page {
    /// Entries before it.
    pub fn skip(self) -> i64 {
        (self.no - 1) * self.size
    }

    /// The page as a reply has it.
    pub fn of(self, total: i64, entries: Vec<Value>) -> Value {
        json!({ "total": total, "pageNo": self.no, "pageSize": self.size, "data": entries })
    }
}

fn missing(name: &str) -> Reply {
    invalid(&format!("{name} is missing"))
}

/// An empty text where a text is wanted.
fn is_empty(value: &Value, kind: &Kind) -> bool {
    let text = !matches!(kind, Kind::Integer { .. } | Kind::Long | Kind::List { .. } | Kind::Object(_));
    text && value.as_str() == Some("")
}

fn read(name: &str, value: &Value, kind: &'static Kind) -> Result<Given, Reply> {
    if is_empty(value, kind) {
        // §2.3: an empty mandatory field.
        return Err(Reply::error(460, "request parameter error.", &format!("{name} is empty")));
    }
    match kind {
        Kind::Integer { min, max } => integer(name, value, *min, *max),
        Kind::Long => integer(name, value, i64::MIN, i64::MAX),
        Kind::Text { longest } => text(name, value, *longest),
        Kind::GroupId => text(name, value, crate::model::Number::MAX),
        Kind::OneOf(known) => match text_of(name, value)? {
            text if known.contains(&text) => Ok(Given::Text(text.to_owned())),
            _ => Err(invalid(&format!("{name} is one of {}", known.join(", ")))),
        },
        Kind::Port => {
            let text = text_of(name, value)?;
            let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>());
            match number {
                Some(Ok(1..)) => Ok(Given::Text(text.to_owned())),
                _ => Err(invalid(&format!("{name} is a port number as a string"))),
            }
        }
        Kind::RoomId => {
            let wrong = || invalid(&format!("{name} is room, building-unit-room or phase-building-unit-room"));
            room::canonical(text_of(name, value)?).map(Given::Text).ok_or_else(wrong)
        }
        Kind::List { of, most } => {
            let list = value.as_array().ok_or_else(|| wrong_type(&format!("{name} is not an array")))?;
            if !(1..=*most).contains(&list.len()) {
                return Err(invalid(&format!("{name} has 1 to {most} entries")));
            }
            let name = format!("{name}[]");
            Ok(Given::List(list.iter().map(|value| read(&name, value, of)).collect::<Result<_, _>>()?))
        }
        Kind::Object(fields) => {
            let object = value.as_object().ok_or_else(|| wrong_type(&format!("{name} is not an object")))?;
            Ok(Given::Object(Params::read_at(&format!("{name}."), object, fields)?))
        }
    }
}

/// A number too large for 64 bits has left its range; one with a fraction is another type.
fn integer(name: &str, value: &Value, min: i64, max: i64) -> Result<Given, Reply> {
    if !value.is_i64() && !value.is_u64() {
        return Err(wrong_type(&format!("{name} is not an integer")));
    }
    match value.as_i64() {
        Some(number) if (min..=max).contains(&number) => Ok(Given::Integer(number)),
        _ => Err(invalid(&format!("{name} is {min} to {max}"))),
    }
}

fn text_of<'a>(name: &str, value: &'a Value) -> Result<&'a str, Reply> {
    value.as_str().ok_or_else(|| wrong_type(&format!("{name} is not a string")))
}

fn text(name: &str, value: &Value, longest: usize) -> Result<Given, Reply> {
    let text = text_of(name, value)?;
    if text.chars().count() > longest || text.chars().any(char::is_control) {
        return Err(invalid(&format!("{name} has at most {longest} printable characters")));
    }
    Ok(Given::Text(text.to_owned()))
}
