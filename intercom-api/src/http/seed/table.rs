//! The words in which the provisioning API is written down: one [`Endpoint`] each, as data. The same data routes a request,
//! checks its parameters and describes the API to its readers, so the three cannot differ.

use super::params::Params;
use crate::http::ApiState;
use crate::http::caller::Caller;
use crate::http::envelope::Reply;
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;

/// What a handler says: `data` of the reply, or the refusal.
pub type Answer = Result<Option<Value>, Reply>;

/// A handler; boxed, because a table can only hold one type of them.
pub type Run = fn(Ask) -> Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A checked request, on its way to its handler.
pub struct Ask {
    pub state: ApiState,
    pub caller: Caller,
    pub params: Params,
}

/// One thing that can be asked. A path whose versions take different parameters has several.
pub struct Endpoint {
    pub path: &'static str,
    /// The `apiVer`s it answers to. A request without one gets the first of its path.
    pub versions: &'static [&'static str],
    pub summary: &'static str,
    /// `request.cloudToken` of a community is asked for (spec admin-api.md §2.2).
    pub needs_token: bool,
    pub params: &'static [Field],
    pub data: Shape,
    pub example: Example,
    pub run: Run,
}

/// As spec admin-api.md §13 has it, in JSON.
pub struct Example {
    pub params: &'static str,
    /// Empty: the plain OK.
    pub data: &'static str,
}

/// One parameter.
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    pub what: &'static str,
}

/// What a parameter may be. Anything else of the right JSON type is 400, another JSON type is 20004.
pub enum Kind {
    Integer {
        min: i64,
        max: i64,
    },
    /// Any 64 bits.
    Long,
    /// So many characters at most, none of them a control character. Empty is 460 where it must be given, and nothing where not.
    Text {
        longest: usize,
    },
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// `groupID` or `groupId` (OPEN-18).
    GroupId,
    /// A port number, as a text.
    Port,
    /// Any of the three grammars (OPEN-24); the handler gets the canonical form.
    RoomId,
    /// One at least.
    List {
        of: &'static Kind,
        most: usize,
    },
    /// Further fields are ignored.
    Object(&'static [Field]),
}

/// `data` of a reply.
pub enum Shape {
    /// The plain OK has none.
    Nothing,
    Object(&'static [Word]),
    List(&'static [Word]),
    /// `{total, pageNo, pageSize, data: [of these]}`.
    Page(&'static [Word]),
}

/// One field of a reply; always there.
pub struct Word {
    pub name: &'static str,
    pub kind: Plain,
    pub nullable: bool,
    pub what: &'static str,
}

/// The JSON type of a [`Word`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    Text,
    Integer,
    /// Milliseconds, mostly.
    Long,
    Object,
}

/// Most entries of one call (OPEN-22).
pub const MANY: usize = 100;
/// A SIP number, a password.
pub const SHORT: Kind = Kind::Text { longest: crate::model::Number::MAX };
/// `iotId`, host names, `spaceId` and other names from outside.
pub const NAME: Kind = Kind::Text { longest: 128 };
/// `count`.
pub const COUNT: Field = required("count", Kind::Integer { min: 1, max: 100 }, "how many");
pub const SIP_NUMBER: Field = required("sipNumber", SHORT, "SIP number of an account");
pub const SIP_NUMBERS: Field = required("sipNumberList", Kind::List { of: &SHORT, most: MANY }, "SIP numbers of accounts");
pub const GROUP_ID: Field = required("groupID", Kind::GroupId, "id of a group");
pub const IOT_ID: Field = required("iotId", NAME, "the door unit");
/// OPEN-20: both may be left out.
pub const PAGE_NO: Field = optional("pageNo", Kind::Integer { min: 1, max: 1_000_000 }, "page, from 1 on; 1 unless said");
pub const PAGE_SIZE: Field = optional("pageSize", Kind::Integer { min: 1, max: 100 }, "entries of a page; 20 unless said");

pub const fn required(name: &'static str, kind: Kind, what: &'static str) -> Field {
    Field { name, kind, required: true, what }
}

pub const fn optional(name: &'static str, kind: Kind, what: &'static str) -> Field {
    Field { name, kind, required: false, what }
}

pub const fn word(name: &'static str, kind: Plain, what: &'static str) -> Word {
    Word { name, kind, nullable: false, what }
}

pub const fn nullable(name: &'static str, kind: Plain, what: &'static str) -> Word {
    Word { name, kind, nullable: true, what }
}
