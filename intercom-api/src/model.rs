//! Accounts, groups, rooms, doors: the words of the directory, shared by store, HTTP and Switchboard (ARCHITECTURE §2).

use crate::profile::{Profile, Star};
use crate::unlock::hours::Hours;
use media::asking::Way;
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A SIP number or group id: opaque, at most 50 characters, compared case-sensitively (spec sip.md §2.2). Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number(Arc<str>);

impl Number {
    /// Longest number, password and group id in characters (spec admin-api.md §3).
    pub const MAX: usize = 50;

    pub fn new(text: &str) -> Number {
        Number(Arc::from(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Can this be one: short enough, and as it goes into SIP URIs and headers, without what would end one?
    pub fn fits(text: &str) -> bool {
        let ends = |c: char| c.is_control() || c.is_whitespace() || "<>\"@:;,?/\\%".contains(c);
        (1..=Number::MAX).contains(&text.len()) && text.is_ascii() && !text.contains(ends)
    }

    /// The same text, not a copy of it.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl Borrow<str> for Number {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A password: prints and is written as `***`, so that no log, event, error text or printed configuration can hold it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Secret(Arc<str>);

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret::new(&text)
    }
}

/// Nothing where nothing is set.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(if self.0.is_empty() { "" } else { "***" })
    }
}

impl Secret {
    pub fn new(text: &str) -> Secret {
        Secret(Arc::from(text))
    }

    /// The password itself: for digests, and for the API replies that are documented to carry it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `type` of an account (spec sip.md §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountType {
    /// 0: phone, indoor unit, desk.
    App,
    /// 1: door unit.
    Door,
}

impl AccountType {
    pub fn code(self) -> u8 {
        match self {
            AccountType::App => 0,
            AccountType::Door => 1,
        }
    }

    pub fn from_code(code: i64) -> Option<AccountType> {
        match code {
            0 => Some(AccountType::App),
            1 => Some(AccountType::Door),
            _ => None,
        }
    }
}

/// Whose an account, group, door or space is: an appKey of the API; empty: the installation's own.
pub type App = Arc<str>;

/// For whom the API acts: what he makes is his, what is another's is closed to him (spec admin-api.md §2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    pub app: App,
    /// The owner of the installation and its operators reach everything.
    pub all: bool,
}

impl Tenant {
    pub fn may(&self, app: &str) -> bool {
        self.all || *self.app == *app
    }

    /// The one app whose things he reaches; none: everything.
    pub fn only(&self) -> Option<App> {
        (!self.all).then(|| self.app.clone())
    }
}

/// Someone who may register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub number: Number,
    pub password: Secret,
    pub kind: AccountType,
    pub name: Option<String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    pub app: App,
}

/// The app accounts of one room; what a door unit dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub id: Number,
    pub members: Vec<Number>,
    pub name: Option<String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    pub app: App,
}

/// What limits an account in opening doors, or a door in being opened (D-23), and how a door is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// It opens nothing, or nobody opens it.
    pub disabled: bool,
    pub hours: Hours,
    pub door: DoorWays,
}

/// What is set for one door beside its profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DoorWays {
    /// `None`: by its `User-Agent`.
    pub profile: Option<&'static Profile>,
    /// What a `*` becomes (D-27).
    pub star: Option<Star>,
    /// The code that opens it.
    pub keys: Option<String>,
    /// Does the server play the ringback tone (D-03)?
    pub ringback: Option<bool>,
    /// How it is asked for a key frame first.
    pub key_frame: Option<Way>,
}

/// One change of the directory. A batch is one API call, applied in one turn of the Switchboard (D-30).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryChange {
    /// Creates or replaces an account. A changed password drops its bindings (spec sip.md §1.2).
    PutAccount(Account),
    RemoveAccount(Number),
    PutAccess(Number, Access),
    /// Creates or replaces a group with all its members.
    PutGroup(Group),
    RemoveGroup(Number),
    /// Which account a door unit (`iotId`) was issued (`sipnumber/sync`).
    PutDoor {
        iot_id: String,
        number: Number,
    },
    RemoveDoor {
        iot_id: String,
    },
    /// A room of a door's map; `room` is in canonical form (OPEN-24).
    PutRoom {
        iot_id: String,
        room: String,
        group: Number,
    },
    RemoveRoom {
        iot_id: String,
        room: String,
    },
}
