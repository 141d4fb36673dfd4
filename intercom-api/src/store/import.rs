//! `doorline import`: JSON lines of an export into a database, all of them or none. What is there already and the same stays; what
//! is there and another is refused, or replaced if that is wished. Nothing is deleted.

use super::exchange::{LIMITS, Limits, Line, VERSION, members, read_limits};
use super::seal::Tx;
use super::write::MAX_MEMBERS;
use super::{StoreError, durably, whose_account, whose_door};
use crate::keyfile::Key;
use crate::model::{AccountType, Number};
use crate::profile::{Profile, Star};
use crate::room;
use rusqlite::{OptionalExtension, params};
use std::io::BufRead;
use std::path::Path;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub new: usize,
    pub same: usize,
    pub replaced: usize,
}

/// Reads lines into the database, which is made if there is none.
pub fn import(database: &Path, secrets: Option<&Key>, replace: bool, lines: impl BufRead) -> anyhow::Result<Imported> {
    let (mut connection, seal) = super::open(database, secrets)?;
    let mut wrong = None;
    let result = durably(&mut connection, &seal, |t| {
        let mut imported = Imported::default();
        for (number, line) in (1..).zip(lines.lines()) {
            let done = line.map_err(|error| error.to_string()).and_then(|line| one(t, number, &line, replace));
            match done {
                Ok(Some(Fate::New)) => imported.new += 1,
                Ok(Some(Fate::Same)) => imported.same += 1,
                Ok(Some(Fate::Replaced)) => imported.replaced += 1,
                Ok(None) => {}
                Err(why) => {
                    wrong = Some(anyhow::anyhow!("line {number}: {why}"));
                    return Err(StoreError::Invalid(String::new()));
                }
            }
        }
        Ok(imported)
    });
    match wrong {
        Some(error) => Err(error),
        None => Ok(result?),
    }
}

enum Fate {
    New,
    Same,
    Replaced,
}

type Done = Result<Fate, String>;

/// One line; what is wrong with it.
fn one(t: &Tx<'_>, number: usize, text: &str, replace: bool) -> Result<Option<Fate>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    // Not what stands there: it may be a password.
    let line = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => format!("its fields are not those of its kind, at column {}", error.column()),
        _ => format!("it is not JSON, at column {}", error.column()),
    })?;
    let first = matches!(line, Line::DoorlineExport { .. });
    if first != (number == 1) {
        return Err("a file begins with one line {\"kind\":\"doorline_export\",\"version\":1}".into());
    }
    match line {
        Line::DoorlineExport { version: VERSION } => Ok(None),
        Line::DoorlineExport { version } => Err(format!("its version is {version}, this program reads {VERSION}")),
        line => put(t, line, replace).map(Some),
    }
}

fn put(t: &Tx<'_>, line: Line, replace: bool) -> Done {
    check(&line)?;
    match &line {
        Line::DoorlineExport { .. } => Err("once is enough".into()),
        Line::Account { .. } => account(t, line, replace),
        Line::Group { .. } => group(t, line, replace),
        Line::Unit { .. } => unit(t, line, replace),
        Line::Room { iot_id, room, group } => mapped(t, iot_id, room, group, replace),
        Line::Space { .. } => space(t, &line, replace),
        Line::Access(limits) => access(t, limits, replace),
    }
}

/// What needs no look into the database.
fn check(line: &Line) -> Result<(), String> {
    let text = |what: &str, text: &str, longest: usize| {
        let fits = (1..=longest).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if fits { Ok(()) } else { Err(format!("{what} has 1 to {longest} printable characters")) }
    };
    let number = |what: &str, number: &str| {
        if Number::fits(number) {
            Ok(())
        } else {
            Err(format!("{what} has 1 to 50 ASCII characters that can stand in a SIP address"))
        }
    };
    let room = |id: &str| match room::canonical(id) {
        Some(canonical) if canonical == id => Ok(()),
        _ => Err("room is not a room id in its full form".to_owned()),
    };
    let maybe = |what: &str, value: &Option<String>, longest| value.as_ref().map_or(Ok(()), |value| text(what, value, longest));
    match line {
        Line::DoorlineExport { .. } => Ok(()),
        Line::Account { number: of, password, r#type, name, .. } => {
            AccountType::from_code(*r#type).ok_or("type is 0 (app) or 1 (door unit)")?;
            number("number", of)?;
            maybe("password", password, Number::MAX)?;
            maybe("name", name, 64)
        }
        Line::Group { id, members, name, .. } => {
            number("id", id)?;
            maybe("name", name, 64)?;
            if members.len() <= MAX_MEMBERS { Ok(()) } else { Err(format!("a group has at most {MAX_MEMBERS} members")) }
        }
        Line::Unit { iot_id, password, host, port, .. } => {
            text("iot_id", iot_id, 128)?;
            maybe("password", password, Number::MAX)?;
            text("host", host, 128)?;
            port.parse::<u16>().map(drop).map_err(|_| "port is a port number as a string".to_owned())
        }
        Line::Room { iot_id, room: id, .. } => text("iot_id", iot_id, 128).and_then(|()| room(id)),
        Line::Space { space_id, room: id, .. } => text("space_id", space_id, 128).and_then(|()| room(id)),
        Line::Access(limits) => {
            let known = limits.profile.as_ref().is_none_or(|name| Profile::named(name).is_some())
                && limits.star.as_ref().is_none_or(|name| Star::named(name).is_some())
                && limits.key_frame.as_ref().is_none_or(|name| super::way_named(name).is_some());
            if known { Ok(()) } else { Err("profile, star or key_frame is not one this program knows".into()) }
        }
    }
}

/// The fate of a line beside what is there.
fn decide<T: PartialEq>(there: Option<&T>, new: &T, replace: bool, what: impl Fn() -> String) -> Done {
    match there {
        None => Ok(Fate::New),
        Some(there) if there == new => Ok(Fate::Same),
        Some(_) if replace => Ok(Fate::Replaced),
        Some(_) => Err(format!("{} is there already and is another one; --replace puts this in its place", what())),
    }
}

fn sql(error: rusqlite::Error) -> String {
    format!("the database: {error}")
}

/// (type, app) of an account.
fn known(t: &Tx<'_>, number: &str) -> Result<Option<(i64, String)>, String> {
    let mut query = t.prepare_cached("SELECT type, app FROM account WHERE number = ?1").map_err(sql)?;
    query.query_row([number], |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(sql)
}

fn exists(t: &Tx<'_>, query: &str, id: &str) -> Result<bool, String> {
    t.prepare_cached(query).and_then(|mut query| query.exists([id])).map_err(sql)
}

fn group_app(t: &Tx<'_>, id: &str) -> Result<String, String> {
    let mut query = t.prepare_cached("SELECT app FROM sip_group WHERE id = ?1").map_err(sql)?;
    query.query_row([id], |row| row.get(0)).optional().map_err(sql)?.ok_or_else(|| format!("there is no group {id}"))
}

fn account(t: &Tx<'_>, mut line: Line, replace: bool) -> Done {
    let Line::Account { number, password, r#type, name, created_ms, app } = &mut line else { return Ok(Fate::Same) };
    let mut query =
        t.prepare_cached("SELECT password, type, name, created_ms, app FROM account WHERE number = ?1").map_err(sql)?;
    let there = query.query_row([&*number], |row| {
        let password = Some(t.open(&whose_account(number), row.get_ref(0)?.as_blob()?)?.reveal().to_owned());
        let number = number.clone();
        Ok(Line::Account { number, password, r#type: row.get(1)?, name: row.get(2)?, created_ms: row.get(3)?, app: row.get(4)? })
    });
    let there = there.optional().map_err(sql)?;
    if let Some(Line::Account { password: present, r#type: kind, app: owner, .. }) = &there {
        *password = password.take().or_else(|| present.clone());
        if kind != r#type || owner != app {
            return Err(format!("account {number} is there already, of another type or application"));
        }
    }
    let Some(new) = password.clone() else { return Err(format!("account {number} is new and has no password")) };
    if exists(t, "SELECT 1 FROM sip_group WHERE id = ?1", number)? {
        return Err(format!("{number} is the id of a group"));
    }
    let values = (t.seal(&whose_account(number), &new).map_err(sql)?, *r#type, name.clone(), *created_ms, app.clone());
    let number = number.clone();
    let fate = decide(there.as_ref(), &line, replace, || format!("account {number}"))?;
    let write = "INSERT INTO account (number, password, type, name, created_ms, app) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (number) DO UPDATE SET password = ?2, name = ?4, created_ms = ?5";
    if !matches!(fate, Fate::Same) {
        let (password, kind, name, created_ms, app) = values;
        let mut write = t.prepare_cached(write).map_err(sql)?;
        write.execute(params![number, password, kind, name, created_ms, app]).map_err(sql)?;
    }
    Ok(fate)
}

fn group(t: &Tx<'_>, line: Line, replace: bool) -> Done {
    let Line::Group { id, members: numbers, name, created_ms, app } = &line else { return Ok(Fate::Same) };
    if known(t, id)?.is_some() {
        return Err(format!("{id} is the number of an account"));
    }
    for number in numbers {
        match known(t, number)? {
            None => return Err(format!("there is no account {number}")),
            Some((1, _)) => return Err(format!("{number} is a door unit; only app accounts go into a group")),
            Some((_, of)) if of != *app => return Err(format!("account {number} belongs to another application")),
            Some(_) => {}
        }
    }
    let mut query = t.prepare_cached("SELECT name, created_ms, app FROM sip_group WHERE id = ?1").map_err(sql)?;
    let there = query.query_row([id], |row| {
        let (id, members) = (id.clone(), members(t, id)?);
        Ok(Line::Group { id, members, name: row.get(0)?, created_ms: row.get(1)?, app: row.get(2)? })
    });
    let there = there.optional().map_err(sql)?;
    if let Some(Line::Group { app: owner, .. }) = &there
        && owner != app
    {
        return Err(format!("group {id} is there already, of another application"));
    }
    let fate = decide(there.as_ref(), &line, replace, || format!("group {id}"))?;
    if !matches!(fate, Fate::Same) {
        write_group(t, id, numbers, (name, *created_ms, app)).map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::ConstraintViolation) => "a member is named twice".to_owned(),
            _ => sql(error),
        })?;
    }
    Ok(fate)
}

fn write_group(t: &Tx<'_>, id: &str, numbers: &[String], rest: (&Option<String>, i64, &str)) -> rusqlite::Result<()> {
    let (name, created_ms, app) = rest;
    let mut write = t.prepare_cached(
        "INSERT INTO sip_group (id, name, created_ms, app) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET name = ?2, created_ms = ?3",
    )?;
    write.execute(params![id, name, created_ms, app])?;
    t.prepare_cached("DELETE FROM member WHERE group_id = ?1")?.execute([id])?;
    let mut write = t.prepare_cached("INSERT INTO member (group_id, number, position) VALUES (?1, ?2, ?3)")?;
    for (position, number) in (1i64..).zip(numbers) {
        write.execute(params![id, number, position])?;
    }
    Ok(())
}

fn unit(t: &Tx<'_>, mut line: Line, replace: bool) -> Done {
    let Line::Unit { iot_id, number, password, app, .. } = &mut line else { return Ok(Fate::Same) };
    match known(t, number)? {
        Some((1, of)) if of == *app => {}
        Some((1, _)) => return Err(format!("account {number} belongs to another application")),
        _ => return Err(format!("there is no door unit's account {number}")),
    }
    let id = iot_id.clone();
    let mut query = t
        .prepare_cached(
            "SELECT number, password, host, port, app, product_key, device_name, nick_name FROM door WHERE iot_id = ?1",
        )
        .map_err(sql)?;
    let there = query.query_row([&id], |row| {
        Ok(Line::Unit {
            iot_id: id.clone(),
            number: row.get(0)?,
            password: Some(t.open(&whose_door(&id), row.get_ref(1)?.as_blob()?)?.reveal().to_owned()),
            host: row.get(2)?,
            port: row.get(3)?,
            app: row.get(4)?,
            product_key: row.get(5)?,
            device_name: row.get(6)?,
            nick_name: row.get(7)?,
        })
    });
    let there = there.optional().map_err(sql)?;
    if let Some(Line::Unit { password: present, .. }) = &there {
        *password = password.take().or_else(|| present.clone());
    }
    let fate = decide(there.as_ref(), &line, replace, || format!("unit {id}"))?;
    let Line::Unit { number, password, host, port, app, product_key, device_name, nick_name, .. } = line else { return Ok(fate) };
    let Some(password) = password else { return Err(format!("unit {id} is new and has no password")) };
    if !matches!(fate, Fate::Same) {
        let password = t.seal(&whose_door(&id), &password).map_err(sql)?;
        let write = "INSERT OR REPLACE INTO door (iot_id, number, password, host, port, app, product_key, device_name, nick_name)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let values = params![id, number, password, host, port, app, product_key, device_name, nick_name];
        t.prepare_cached(write).and_then(|mut write| write.execute(values)).map_err(sql)?;
    }
    Ok(fate)
}

/// A unit that was issued no account may have a map: older versions took one, and an export has it.
fn mapped(t: &Tx<'_>, iot_id: &str, room: &str, group: &str, replace: bool) -> Done {
    group_app(t, group)?;
    let mut query = t.prepare_cached("SELECT group_id FROM room WHERE iot_id = ?1 AND room = ?2").map_err(sql)?;
    let there: Option<String> = query.query_row([iot_id, room], |row| row.get(0)).optional().map_err(sql)?;
    let fate = decide(there.as_ref(), &group.to_owned(), replace, || format!("room {room} of {iot_id}"))?;
    if !matches!(fate, Fate::Same) {
        let write = "INSERT OR REPLACE INTO room (iot_id, room, group_id) VALUES (?1, ?2, ?3)";
        t.prepare_cached(write).and_then(|mut write| write.execute([iot_id, room, group])).map_err(sql)?;
    }
    Ok(fate)
}

fn space(t: &Tx<'_>, line: &Line, replace: bool) -> Done {
    let Line::Space { space_id, group, room, app } = line else { return Ok(Fate::Same) };
    if group_app(t, group)? != *app {
        return Err(format!("group {group} belongs to another application"));
    }
    let mut query = t.prepare_cached("SELECT group_id, room, app FROM space WHERE space_id = ?1").map_err(sql)?;
    let there = query.query_row([space_id], |row| {
        Ok(Line::Space { space_id: space_id.clone(), group: row.get(0)?, room: row.get(1)?, app: row.get(2)? })
    });
    let fate = decide(there.optional().map_err(sql)?.as_ref(), line, replace, || format!("space {space_id}"))?;
    if !matches!(fate, Fate::Same) {
        let write = "INSERT OR REPLACE INTO space (space_id, group_id, room, app) VALUES (?1, ?2, ?3, ?4)";
        t.prepare_cached(write).and_then(|mut write| write.execute([space_id, group, room, app])).map_err(sql)?;
    }
    Ok(fate)
}

fn access(t: &Tx<'_>, limits: &Limits, replace: bool) -> Done {
    if known(t, &limits.number)?.is_none() {
        return Err(format!("there is no account {}", limits.number));
    }
    let mut query = t.prepare_cached(&format!("SELECT {LIMITS} FROM access WHERE number = ?1")).map_err(sql)?;
    let there = query.query_row([&limits.number], read_limits).optional().map_err(sql)?;
    let keys = limits.keys.clone().or_else(|| there.as_ref()?.keys.clone());
    let limits = Limits { keys, ..limits.clone() };
    let fate = decide(there.as_ref(), &limits, replace, || format!("what limits {}", limits.number))?;
    if !matches!(fate, Fate::Same) {
        let Limits { number, disabled, hours, profile, keys, ringback, key_frame, star } = limits;
        let hours = serde_json::to_string(&hours).map_err(|error| error.to_string())?;
        let write = format!("INSERT OR REPLACE INTO access ({LIMITS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
        let values = params![number, disabled, hours, profile, keys, ringback, key_frame, star];
        t.prepare_cached(&write).and_then(|mut write| write.execute(values)).map_err(sql)?;
    }
    Ok(fate)
}
