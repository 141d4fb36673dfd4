//! The record as an append-only chain (D-29). Whatever happened is one row of `entry`: a number without gaps, a time, what
//! happened as JSON, and `SHA-256(hash of the entry before ‖ number ‖ time ‖ JSON)`, numbers as 8 bytes, highest first. The JSON
//! is hashed as it is stored, so there is no second way to write it.
//!
//! Nothing is ever changed: what becomes known later is an entry of its own that names the first one. A wish to open a door is
//! `asked`, then `ended`, perhaps `late`; its picture is made later still and is a `picture`, which holds the hash; the picture
//! itself is a file, and its deletion is `deleted`. The tables `record`, `watched` and `snapshot` are the same told for readers:
//! they follow from the entries and nothing else, and [`super::verify`] compares them.
//!
//! Two places are signed (HMAC-SHA256 with `records.key`): `head`, the last entry, with every commit; and `pruned`, the last one
//! that retention has taken out, from where the chain goes on. So whoever can write the file but has not the key cannot change,
//! add, swap or take out an entry unseen, not even the last. Two things cannot be seen from the file alone: that it was
//! put back whole to an older state, and what is done by somebody who has read the key. Against both helps a note elsewhere of what
//! `verify-records` printed: `--expect` compares.

use super::{StoreError, Transaction};
use crate::keyfile;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) type Hash = [u8; 32];

/// What happened. The order of fields and variants is free: the text that was stored counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Content {
    /// The first one: so much was there before there was a chain.
    Begun { records: i64, pictures: i64 },
    /// Somebody wishes a door open.
    Asked {
        record: i64,
        account: String,
        road: String,
        door: String,
        room: String,
        call: String,
        reqsn: u16,
        asked_ms: i64,
        picture: Option<String>,
    },
    /// How that ended.
    Ended { record: i64, sent_ms: Option<i64>, ended_ms: i64, outcome: String, status: u16, reason: Option<String> },
    /// What the door said when those who asked had been told "unknown" already.
    Late { records: Vec<i64>, at_ms: i64, outcome: String, status: u16 },
    /// A picture is there.
    Picture {
        picture: String,
        call: String,
        door: String,
        why: String,
        preset: String,
        taken_ms: i64,
        width: u16,
        height: u16,
        bytes: u32,
        sha256: String,
    },
    /// They are no more: `request` or `retention`.
    Deleted { pictures: Vec<String>, why: String },
    /// A phone showed the visitor.
    Watched { account: String, door: String, room: String, call: String, from_ms: i64, to_ms: i64, talked: bool },
    /// Entries up to one, with its hash, are too old and were taken out.
    Pruned { through: i64, hash: String, entries: i64 },
    /// The server found at its start that the chain does not end where it was signed. This stays.
    Doubted { why: String },
}

/// What signs.
#[derive(Clone, Copy)]
pub struct RecordKey([u8; 32]);

impl RecordKey {
    /// Beside the database. Was it there before?
    pub(super) fn read_or_make(path: &Path) -> io::Result<(RecordKey, bool)> {
        let there = path.exists();
        Ok((RecordKey(keyfile::read_or_make(path)?), there))
    }

    pub(super) fn read(path: &Path) -> io::Result<RecordKey> {
        keyfile::read(path).map(RecordKey)
    }

    fn signer(&self, name: &str, link: &Link, at_ms: i64) -> Hmac<Sha256> {
        // A key of any length is one.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).unwrap_or_else(|_| unreachable!());
        for part in [b"doorline records\0", name.as_bytes(), b"\0", &link.id.to_be_bytes(), &at_ms.to_be_bytes(), &link.hash] {
            mac.update(part);
        }
        mac
    }
}

/// An entry as the next one sees it; before the first: 0 and zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub id: i64,
    pub hash: Hash,
}

impl Link {
    pub const FIRST: Link = Link { id: 0, hash: [0; 32] };

    /// What follows from this.
    pub fn next(&self, id: i64, at_ms: i64, content: &str) -> Link {
        let mut hash = Sha256::new();
        for part in [&self.hash[..], &id.to_be_bytes(), &at_ms.to_be_bytes(), content.as_bytes()] {
            hash.update(part);
        }
        Link { id, hash: hash.finalize().into() }
    }
}

/// A signed place: `head` or `pruned`. `Err`: not signed with this key.
pub(super) fn read_mark(c: &Connection, key: &RecordKey, name: &str) -> rusqlite::Result<Option<Result<Link, ()>>> {
    let mut query = c.prepare_cached("SELECT id, hash, at_ms, mac FROM mark WHERE name = ?1")?;
    let read = |row: &rusqlite::Row<'_>| {
        let (id, at_ms): (i64, i64) = (row.get(0)?, row.get(2)?);
        let (hash, mac): (Vec<u8>, Vec<u8>) = (row.get(1)?, row.get(3)?);
        let link = Hash::try_from(hash).map(|hash| Link { id, hash }).map_err(|_| ());
        Ok(link.and_then(|link| key.signer(name, &link, at_ms).verify_slice(&mac).map(|()| link).map_err(|_| ())))
    };
    query.query_row([name], read).optional()
}

fn write_mark(t: &Transaction<'_>, key: &RecordKey, name: &str, link: &Link, at_ms: i64) -> rusqlite::Result<()> {
    let mac = key.signer(name, link, at_ms).finalize().into_bytes();
    let mut write = t.prepare_cached("INSERT OR REPLACE INTO mark (name, id, hash, at_ms, mac) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    write.execute((name, link.id, &link.hash[..], at_ms, &mac[..]))?;
    Ok(())
}

fn last_entry(t: &Connection) -> rusqlite::Result<Option<Link>> {
    let mut query = t.prepare_cached("SELECT id, hash FROM entry ORDER BY id DESC LIMIT 1")?;
    let read = |row: &rusqlite::Row<'_>| Ok(Link { id: row.get(0)?, hash: row.get(1)? });
    query.query_row([], read).optional()
}

/// Appends to the chain within one transaction.
pub(super) struct Writer<'t> {
    pub t: &'t Transaction<'t>,
    key: RecordKey,
    head: Link,
    signed: Link,
    pub now_ms: i64,
}

impl<'t> Writer<'t> {
    pub fn new(t: &'t Transaction<'t>, key: RecordKey) -> rusqlite::Result<Writer<'t>> {
        // What is signed was looked at when the store was opened, and only this thread has written since.
        let mut query = t.prepare_cached("SELECT id, hash FROM mark WHERE name = 'head'")?;
        let head = query.query_row([], |row| Ok(Link { id: row.get(0)?, hash: row.get(1)? }))?;
        Ok(Writer { t, key, head, signed: head, now_ms: now_ms() })
    }

    /// The number of the next entry.
    pub fn next_id(&self) -> i64 {
        self.head.id + 1
    }

    pub fn add(&mut self, content: &Content) -> Result<(), StoreError> {
        let text = serde_json::to_string(content).map_err(|_| StoreError::Unavailable)?;
        self.head = self.head.next(self.next_id(), self.now_ms, &text);
        let mut write = self.t.prepare_cached("INSERT INTO entry (id, at_ms, content, hash) VALUES (?1, ?2, ?3, ?4)")?;
        write.execute((self.head.id, self.now_ms, text, &self.head.hash[..]))?;
        Ok(())
    }

    /// Takes out entries older than `horizon_ms`, at most so many, with what was told of them, and leaves a signed mark. How many
    /// there were.
    pub fn prune(&mut self, horizon_ms: i64, limit: i64) -> Result<i64, StoreError> {
        let t = self.t;
        let old = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let mut query = t.prepare_cached("SELECT id, at_ms, content, hash FROM entry ORDER BY id LIMIT ?1")?;
        let oldest: Vec<(i64, i64, String, Hash)> = query.query_map([limit], old)?.collect::<Result<_, _>>()?;
        let mut last = None;
        for (id, _, content, hash) in oldest.iter().take_while(|(_, at_ms, ..)| *at_ms < horizon_ms) {
            match serde_json::from_str(content) {
                Ok(Content::Asked { record, picture, .. }) => {
                    t.execute("DELETE FROM record WHERE id = ?1", [record])?;
                    // A deleted picture was kept in mind only for whoever names it.
                    t.execute(
                        "DELETE FROM snapshot WHERE id = ?1 AND file IS NULL AND NOT EXISTS (SELECT 1 FROM record WHERE snapshot = ?1)",
                        [picture],
                    )?
                }
                Ok(Content::Watched { .. }) => t.execute("DELETE FROM watched WHERE id = ?1", [id])?,
                Ok(Content::Picture { picture, .. }) => t.execute("DELETE FROM snapshot WHERE id = ?1", [picture])?,
                _ => 0,
            };
            last = Some(Link { id: *id, hash: *hash });
        }
        let Some(last) = last else { return Ok(0) };
        let gone = t.execute("DELETE FROM entry WHERE id <= ?1", [last.id])? as i64;
        write_mark(t, &self.key, "pruned", &last, self.now_ms)?;
        self.add(&Content::Pruned { through: last.id, hash: hex(&last.hash), entries: gone })?;
        Ok(gone)
    }

    /// Signs where the chain ends now.
    pub fn finish(self) -> Result<(), StoreError> {
        if self.head != self.signed {
            write_mark(self.t, &self.key, "head", &self.head, self.now_ms)?;
        }
        Ok(())
    }
}

/// Brings the chain in order when the store is opened: begins one with what an older version has left, or notes that somebody has
/// touched its end. `key_was_there`: so a chain was there.
pub(super) fn begin(t: &Transaction<'_>, key: RecordKey, key_was_there: bool) -> Result<(), StoreError> {
    let last = last_entry(t)?;
    let why = match (read_mark(t, &key, "head")?, last) {
        (Some(Ok(head)), last) if last.unwrap_or(Link::FIRST) == head => return Ok(()),
        (None, None) if !key_was_there => None,
        (Some(Ok(_)), _) => Some("it does not end with the entry that was signed last"),
        (Some(Err(())), _) => Some("its end is not signed with the key of this store"),
        (None, _) => Some("its signed end is gone"),
    };
    // What is missing stays visible as a gap, and no number is given twice.
    let signed: Option<i64> = t.query_row("SELECT id FROM mark WHERE name = 'head'", [], |row| row.get(0)).optional()?;
    let last = last.unwrap_or(Link::FIRST);
    let told = |table: &str| t.query_row(&format!("SELECT coalesce(max(id), 0) FROM {table}"), [], |row| row.get::<_, i64>(0));
    let free = last.id.max(signed.unwrap_or(0)).max(if why.is_some() { told("record")?.max(told("watched")?) } else { 0 });
    let head = Link { id: free, ..last };
    let mut writer = Writer { t, key, head, signed: Link::FIRST, now_ms: now_ms() };
    if let Some(why) = why {
        tracing::error!(why, "the record was touched; `verify-records` says where");
        writer.add(&Content::Doubted { why: why.to_owned() })?;
    }
    if last == Link::FIRST {
        super::records::import(&mut writer)?;
    }
    writer.finish()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
