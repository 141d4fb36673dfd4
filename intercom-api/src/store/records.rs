//! Entries of the record: written into the chain and into the tables that readers ask, read from the tables.

use super::chain::{Content, Writer};
use super::*;
use crate::record::{ASKED, CUT_OFF, Entry, LATE, Late, Record, Wanted, Watched};
use rusqlite::types::Value;

const RECORD: &str = "r.id, r.account, r.road, r.door, r.room, r.call, r.reqsn, r.asked_ms, r.sent_ms, r.ended_ms, r.outcome, \
     r.status, r.reason, r.late_outcome, r.late_status, r.late_ms, s.id, s.sha256";
const WATCHED: &str = "id, account, door, room, call, from_ms, to_ms, talked";

impl Store {
    /// Appends entries: all of them are on the disk when this returns.
    pub async fn append(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        self.chained(move |writer| {
            for entry in entries {
                match entry {
                    Entry::Asked(record) => drop(asked(writer, &record)?),
                    Entry::Ended(record) => ended(writer, &record)?,
                    Entry::Watched(watched) => add_watched(writer, &watched)?,
                }
            }
            Ok(())
        })
        .await
    }

    /// At the start: what a former run did not bring to an end has none that anybody knows (D-29).
    pub async fn close_open_wishes(&self) -> Result<u64, StoreError> {
        self.chained(|writer| {
            let mut query = writer.t.prepare("SELECT id FROM record WHERE outcome = ?1 ORDER BY id")?;
            let open: Vec<i64> = query.query_map([ASKED], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let (outcome, status, reason) = CUT_OFF;
            let (outcome, reason, ended_ms) = (outcome.to_owned(), Some(reason.to_owned()), writer.now_ms);
            let end = Record { outcome, status, reason, ended_ms, ..Record::default() };
            for id in &open {
                end_record(writer, *id, &end)?;
            }
            Ok(open.len() as u64)
        })
        .await
    }

    /// Takes out entries older than `horizon_ms`, at most `limit`: how many there were.
    pub async fn prune(&self, horizon_ms: i64, limit: u32) -> Result<u64, StoreError> {
        self.chained(move |writer| Ok(writer.prune(horizon_ms, limit.into())?.unsigned_abs())).await
    }

    /// Wishes that have ended, newest first, with who watched.
    pub async fn records(&self, wanted: Wanted) -> Result<Vec<Record>, StoreError> {
        self.transact(move |t| {
            let mut records = read_records(t, &wanted)?;
            for record in &mut records {
                record.watched = of_call(t, &record.call)?;
            }
            Ok(records)
        })
        .await
    }

    /// Phones that showed a visitor, newest first.
    pub async fn watched(&self, wanted: Wanted) -> Result<Vec<Watched>, StoreError> {
        self.transact(move |t| {
            let (conditions, values) = conditions(&wanted, "", "from_ms");
            let sql = format!("SELECT {WATCHED} FROM watched WHERE {conditions} ORDER BY id DESC LIMIT {}", wanted.limit);
            let mut query = t.prepare_cached(&sql)?;
            Ok(query.query_map(rusqlite::params_from_iter(values), read_watched)?.collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// A wish: its number is that of its entry.
fn asked(writer: &mut Writer<'_>, new: &Record) -> Result<i64, StoreError> {
    let id = writer.next_id();
    let mut write = writer.t.prepare_cached(
        "INSERT INTO record (id, account, road, door, room, call, reqsn, asked_ms, ended_ms, outcome, status, snapshot)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, 0, ?10)",
    )?;
    let Record { account, road, door, room, call, reqsn, asked_ms, snapshot, .. } = new;
    write.execute(rusqlite::params![id, account, road, door, room, call, reqsn, asked_ms, ASKED, snapshot])?;
    writer.add(&content_of_asked(id, new))?;
    Ok(id)
}

fn content_of_asked(record: i64, new: &Record) -> Content {
    let Record { account, road, door, room, call, reqsn, asked_ms, snapshot, .. } = new.clone();
    Content::Asked { record, account, road, door, room, call, reqsn, asked_ms, picture: snapshot }
}

/// Finds the wish by everything that was known of it; two that are alike are as good as each other.
fn ended(writer: &mut Writer<'_>, end: &Record) -> Result<(), StoreError> {
    if end.outcome.starts_with(LATE) && late(writer, end)? {
        return Ok(());
    }
    let mut query = writer.t.prepare_cached(
        "SELECT id FROM record WHERE outcome = 'asked' AND asked_ms = ?1 AND account = ?2 AND door = ?3 AND road = ?4
            AND call = ?5 AND reqsn = ?6 ORDER BY id LIMIT 1",
    )?;
    let Record { asked_ms, account, door, road, call, reqsn, .. } = end;
    let id: Option<i64> =
        query.query_row(rusqlite::params![asked_ms, account, door, road, call, reqsn], |row| row.get(0)).optional()?;
    let id = match id {
        Some(id) => id,
        None => asked(writer, end)?,
    };
    end_record(writer, id, end)
}

fn end_record(writer: &mut Writer<'_>, id: i64, end: &Record) -> Result<(), StoreError> {
    let Record { sent_ms, ended_ms, outcome, status, reason, .. } = end;
    let mut write = writer
        .t
        .prepare_cached("UPDATE record SET sent_ms = ?2, ended_ms = ?3, outcome = ?4, status = ?5, reason = ?6 WHERE id = ?1")?;
    write.execute(rusqlite::params![id, sent_ms, ended_ms, outcome, status, reason])?;
    writer.add(&content_of_end(id, end))
}

fn content_of_end(record: i64, end: &Record) -> Content {
    let Record { sent_ms, ended_ms, outcome, status, reason, .. } = end.clone();
    Content::Ended { record, sent_ms, ended_ms, outcome, status, reason }
}

/// The door's own report names everybody who shared the pulse. `false`: nobody is known.
fn late(writer: &mut Writer<'_>, report: &Record) -> Result<bool, StoreError> {
    let outcome = report.outcome.trim_start_matches(LATE).to_owned();
    let (at_ms, status) = (report.ended_ms, report.status);
    let mut write = writer.t.prepare_cached(
        "UPDATE record SET late_outcome = ?3, late_status = ?4, late_ms = ?5
         WHERE door = ?1 AND sent_ms = ?2 AND outcome = 'unknown' AND late_outcome IS NULL RETURNING id",
    )?;
    let found = write.query_map((&report.door, report.sent_ms, &outcome, status, at_ms), |row| row.get(0))?;
    let mut records: Vec<i64> = found.collect::<Result<_, _>>()?;
    records.sort_unstable();
    if records.is_empty() {
        return Ok(false);
    }
    writer.add(&Content::Late { records, at_ms, outcome, status })?;
    Ok(true)
}

fn add_watched(writer: &mut Writer<'_>, new: &Watched) -> Result<(), StoreError> {
    let Watched { account, door, room, call, from_ms, to_ms, talked, .. } = new.clone();
    let mut write =
        writer.t.prepare_cached(&format!("INSERT INTO watched ({WATCHED}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"))?;
    write.execute(rusqlite::params![writer.next_id(), account, door, room, call, from_ms, to_ms, talked])?;
    writer.add(&Content::Watched { account, door, room, call, from_ms, to_ms, talked })
}

/// All rows as they are, open ones too, without what is joined from elsewhere.
pub(super) fn table(c: &Connection) -> rusqlite::Result<Vec<Record>> {
    let mut query = c.prepare(&format!("SELECT {RECORD}, r.snapshot FROM record r LEFT JOIN snapshot s ON 0 ORDER BY r.id"))?;
    query.query_map([], |row| Ok(Record { snapshot: row.get(18)?, ..read_record(row)? }))?.collect()
}

pub(super) fn watched_table(c: &Connection) -> rusqlite::Result<Vec<Watched>> {
    c.prepare(&format!("SELECT {WATCHED} FROM watched ORDER BY id"))?.query_map([], read_watched)?.collect()
}

/// What an older version has left becomes the beginning of the chain.
pub(super) fn import(writer: &mut Writer<'_>) -> Result<(), StoreError> {
    let t = writer.t;
    let count = |table: &str| t.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
    writer.add(&Content::Begun { records: count("record")?, pictures: count("snapshot")? })?;
    for record in table(t)? {
        writer.add(&content_of_asked(record.id, &record))?;
        if record.outcome != ASKED {
            writer.add(&content_of_end(record.id, &record))?;
        }
    }
    super::snapshots::import(writer)
}

fn read_records(c: &Connection, wanted: &Wanted) -> rusqlite::Result<Vec<Record>> {
    let (conditions, mut values) = conditions(wanted, "r.", "r.asked_ms");
    let mut sql = format!("SELECT {RECORD} FROM record r LEFT JOIN snapshot s ON s.id = r.snapshot WHERE {conditions}");
    sql.push_str(" AND r.outcome <> 'asked'");
    if let Some(outcome) = &wanted.outcome {
        values.push(outcome.clone().into());
        sql.push_str(&format!(" AND r.outcome = ?{}", values.len()));
    }
    sql.push_str(&format!(" ORDER BY r.id DESC LIMIT {}", wanted.limit));
    let mut query = c.prepare_cached(&sql)?;
    query.query_map(rusqlite::params_from_iter(values), read_record)?.collect()
}

/// What both tables have, as SQL; there are few such texts.
fn conditions(wanted: &Wanted, prefix: &str, time: &str) -> (String, Vec<Value>) {
    let (mut sql, mut values) = ("1".to_owned(), Vec::new());
    let texts = [("door", &wanted.door), ("account", &wanted.account), ("room", &wanted.room), ("call", &wanted.call)];
    for (column, text) in texts {
        if let Some(text) = text {
            values.push(Value::from(text.clone()));
            sql.push_str(&format!(" AND {prefix}{column} = ?{}", values.len()));
        }
    }
    if let Some(app) = &wanted.app {
        values.push(Value::from(app.to_string()));
        let owner = format!("SELECT 1 FROM account a WHERE a.number = {prefix}door AND a.app = ?{}", values.len());
        sql.push_str(&format!(" AND EXISTS ({owner})"));
    }
    let numbers =
        [(format!("{prefix}id <"), wanted.after), (format!("{time} >="), wanted.from_ms), (format!("{time} <"), wanted.to_ms)];
    for (condition, number) in numbers {
        if let Some(number) = number {
            values.push(Value::from(number));
            sql.push_str(&format!(" AND {condition} ?{}", values.len()));
        }
    }
    (sql, values)
}

fn of_call(t: &Transaction<'_>, call: &str) -> rusqlite::Result<Vec<Watched>> {
    if call.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = t.prepare_cached(&format!("SELECT {WATCHED} FROM watched WHERE call = ?1 ORDER BY id"))?;
    query.query_map([call], read_watched)?.collect()
}

fn read_watched(row: &Row<'_>) -> rusqlite::Result<Watched> {
    Ok(Watched {
        id: row.get(0)?,
        account: row.get(1)?,
        door: row.get(2)?,
        room: row.get(3)?,
        call: row.get(4)?,
        from_ms: row.get(5)?,
        to_ms: row.get(6)?,
        talked: row.get(7)?,
    })
}

fn read_record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let late: Option<String> = row.get(13)?;
    let late = late.map(|outcome| Ok::<_, rusqlite::Error>(Late { outcome, status: row.get(14)?, at_ms: row.get(15)? }));
    Ok(Record {
        id: row.get(0)?,
        account: row.get(1)?,
        road: row.get(2)?,
        door: row.get(3)?,
        room: row.get(4)?,
        call: row.get(5)?,
        reqsn: row.get(6)?,
        asked_ms: row.get(7)?,
        sent_ms: row.get(8)?,
        ended_ms: row.get(9)?,
        outcome: row.get(10)?,
        status: row.get(11)?,
        reason: row.get(12)?,
        late: late.transpose()?,
        snapshot: row.get(16)?,
        snapshot_sha256: row.get(17)?,
        awaited: None,
        watched: Vec::new(),
    })
}
