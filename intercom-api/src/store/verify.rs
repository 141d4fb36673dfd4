//! `doorline verify-records`: is the record what was written? Reads only, and works while the server runs: what it sees is one
//! moment (a read transaction).
//!
//! Entries first, in their order: numbers without a gap from the signed beginning, each hash from the one before, the signed end.
//! Then what the entries tell must be what the tables show, and the pictures must have the hashes they had.

use super::chain::{Content, Hash, Link, RecordKey, hex, read_mark};
use super::{KEY_FILE, records, schema, snapshots};
use crate::pictures::album::Album;
use crate::record::{ASKED, Late, Record, Watched};
use rusqlite::{Connection, OpenFlags};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

/// What is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    pub records: usize,
    pub entries: usize,
    /// Times of the first and the last entry, in milliseconds since 1970.
    pub from_ms: i64,
    pub to_ms: i64,
    /// The last entry and its hash: what a later run may be told to expect.
    pub head: (i64, String),
    /// Pictures that are gone although nobody deleted them.
    pub warnings: Vec<String>,
}

/// What is not: the first entry that is wrong, where one can be named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Broken {
    pub entry: Option<i64>,
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry {
            Some(id) => write!(f, "entry {id}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

impl From<rusqlite::Error> for Broken {
    fn from(error: rusqlite::Error) -> Broken {
        whole(format!("the database cannot be read: {error}"))
    }
}

fn at(entry: i64, why: impl Into<String>) -> Broken {
    Broken { entry: Some(entry), why: why.into() }
}

fn whole(why: impl Into<String>) -> Broken {
    Broken { entry: None, why: why.into() }
}

/// Checks the store `database`; `album`: where its pictures are. `expect`: an entry and its hash from an earlier run.
pub fn verify(database: &Path, album: &Album, expect: Option<(i64, String)>) -> Result<Whole, Broken> {
    let key = RecordKey::read(&database.with_file_name(KEY_FILE)).map_err(|error| whole(format!("{KEY_FILE}: {error}")))?;
    let mut connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let connection = connection.transaction()?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version != schema::VERSION {
        return Err(whole(format!("the database is of version {version}, this program's is {}", schema::VERSION)));
    }
    let mut told = Told::default();
    let (links, times) = entries(&connection, &key, &mut told, &expect)?;
    told.compare(&connection)?;
    let warnings = told.pictures(&connection, album)?;
    let (records, entries) = (told.records.len(), links.1);
    Ok(Whole { records, entries, from_ms: times.0, to_ms: times.1, head: (links.0.id, hex(&links.0.hash)), warnings })
}

type Seen = ((Link, usize), (i64, i64));

/// The chain itself, from its signed beginning to its signed end.
fn entries(c: &Connection, key: &RecordKey, told: &mut Told, expect: &Option<(i64, String)>) -> Result<Seen, Broken> {
    let mark = |name: &str| match read_mark(c, key, name)? {
        Some(Ok(link)) => Ok(Some(link)),
        Some(Err(())) => Err(whole(format!("the mark `{name}` is not signed with {KEY_FILE}"))),
        None => Ok(None),
    };
    let head = mark("head")?.ok_or_else(|| whole("the signed end is gone"))?;
    let begin = mark("pruned")?.unwrap_or(Link::FIRST);
    told.begin = begin.id;
    let (mut link, mut count, mut times) = (begin, 0, None);
    let mut query = c.prepare("SELECT id, at_ms, content, hash FROM entry ORDER BY id")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (id, at_ms, content): (i64, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let hash: Option<Hash> = row.get::<_, Vec<u8>>(3)?.try_into().ok();
        if id <= link.id {
            return Err(at(id, format!("it should have been pruned: the chain goes on after {}", link.id)));
        }
        if id != link.id + 1 {
            return Err(at(link.id + 1, "it is gone"));
        }
        link = link.next(id, at_ms, &content);
        if hash != Some(link.hash) {
            return Err(at(id, "it is not what was written, or the one before it is not"));
        }
        if let Some((expected, hash)) = expect
            && *expected == id
            && *hash != hex(&link.hash)
        {
            return Err(at(id, "it is another one than was expected"));
        }
        let content = serde_json::from_str(&content).map_err(|error| at(id, format!("it cannot be read: {error}")))?;
        told.fold(id, content)?;
        count += 1;
        times = Some((times.map_or(at_ms, |(from, _)| from), at_ms));
    }
    if link.id < head.id {
        return Err(at(link.id + 1, format!("it is gone, and all up to {}, where the end was signed", head.id)));
    }
    if link != head {
        return Err(at(head.id + 1, "it is behind the signed end"));
    }
    if let Some((expected, _)) = expect
        && *expected > link.id
    {
        return Err(at(*expected, "it was expected and is not there: this is an older state of the store"));
    }
    Ok(((link, count), times.unwrap_or_default()))
}

/// What the entries say the tables should show.
#[derive(Default)]
struct Told {
    /// The last entry that was pruned.
    begin: i64,
    records: BTreeMap<i64, Record>,
    watched: BTreeMap<i64, Watched>,
    /// By their ids: the entry, its content, and the entry of their deletion.
    pictures: BTreeMap<String, (i64, Content, Option<i64>)>,
}

impl Told {
    fn fold(&mut self, id: i64, content: Content) -> Result<(), Broken> {
        match content {
            Content::Begun { .. } | Content::Pruned { .. } => {}
            Content::Asked { record, account, road, door, room, call, reqsn, asked_ms, picture } => {
                let (outcome, snapshot) = (ASKED.to_owned(), picture);
                let new = Record {
                    id: record,
                    account,
                    road,
                    door,
                    room,
                    call,
                    reqsn,
                    asked_ms,
                    outcome,
                    snapshot,
                    ..Record::default()
                };
                self.records.insert(record, new);
            }
            Content::Ended { record, sent_ms, ended_ms, outcome, status, reason } => {
                if let Some(known) = self.record(id, record)? {
                    *known = Record { sent_ms, ended_ms, outcome, status, reason, ..known.clone() };
                }
            }
            Content::Late { records, at_ms, outcome, status } => {
                for record in records {
                    if let Some(known) = self.record(id, record)? {
                        known.late = Some(Late { outcome: outcome.clone(), status, at_ms });
                    }
                }
            }
            Content::Picture { ref picture, .. } => {
                self.pictures.insert(picture.clone(), (id, content, None));
            }
            Content::Deleted { pictures, .. } => {
                for picture in pictures {
                    if let Some((_, _, deleted)) = self.pictures.get_mut(&picture) {
                        *deleted = Some(id);
                    }
                }
            }
            Content::Watched { account, door, room, call, from_ms, to_ms, talked } => {
                self.watched.insert(id, Watched { id, account, door, room, call, from_ms, to_ms, talked });
            }
            Content::Doubted { why } => return Err(at(id, format!("at its start the server found the record touched: {why}"))),
        }
        Ok(())
    }

    /// One that is named; none if its beginning was pruned.
    fn record(&mut self, entry: i64, record: i64) -> Result<Option<&mut Record>, Broken> {
        let begin = self.begin;
        match self.records.get_mut(&record) {
            None if record > begin => Err(at(entry, format!("it names the record {record}, which nobody began"))),
            known => Ok(known),
        }
    }

    /// The tables of readers show this and nothing else.
    fn compare(&self, c: &Connection) -> Result<(), Broken> {
        let mut shown = BTreeMap::new();
        for record in records::table(c)? {
            shown.insert(record.id, record);
        }
        differ("record", &self.records, &shown)?;
        let watched = records::watched_table(c)?;
        differ("watched", &self.watched, &watched.into_iter().map(|watched| (watched.id, watched)).collect())
    }

    /// Pictures have the hashes they had. Warnings: those that are gone.
    fn pictures(&self, c: &Connection, album: &Album) -> Result<Vec<String>, Broken> {
        let mut warnings = Vec::new();
        let shown: BTreeMap<_, _> = snapshots::all(c)?.into_iter().map(|snapshot| (snapshot.id.clone(), snapshot)).collect();
        if let Some(unknown) = shown.keys().find(|id| !self.pictures.contains_key(*id)) {
            return Err(whole(format!("the table `snapshot` shows {unknown}, and no entry does")));
        }
        // The first record of each.
        let named: BTreeMap<&String, i64> =
            self.records.values().rev().filter_map(|record| Some((record.snapshot.as_ref()?, record.id))).collect();
        for (picture, (entry, content, deleted)) in &self.pictures {
            let snapshot = shown.get(picture);
            if let Some(snapshot) = snapshot
                && snapshots::content(snapshot) != *content
            {
                return Err(at(*entry, "the table `snapshot` shows something else"));
            }
            let file = snapshot.and_then(|snapshot| snapshot.file.as_ref().map(|file| (file, &snapshot.sha256)));
            match (file, deleted) {
                // The facts of one that a record names outlive it.
                (None, Some(_)) if snapshot.is_some() && named.contains_key(picture) => {}
                (None, Some(deleted)) if snapshot.is_none() && named.get(picture).is_none_or(|record| record > deleted) => {}
                (None, Some(_)) if snapshot.is_some() => {
                    return Err(at(*entry, format!("its picture {picture} was deleted, nothing names it, and it is shown")));
                }
                (None, _) => return Err(at(*entry, format!("its picture {picture} is not in the table `snapshot`"))),
                (Some(_), Some(_)) => return Err(at(*entry, format!("its picture {picture} was deleted and is shown"))),
                (Some((file, sha256)), None) => match album.read(file) {
                    Ok(bytes) if hex(&Sha256::digest(&bytes)) == *sha256 => {}
                    Ok(_) => return Err(at(*entry, format!("its picture {picture} is not the one that was taken"))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        warnings.push(format!("entry {entry}: its picture {picture} is gone, and nobody asked for that"));
                    }
                    Err(error) => warnings.push(format!("entry {entry}: its picture {picture} cannot be read: {error}")),
                },
            }
        }
        Ok(warnings)
    }
}

fn differ<T: PartialEq>(table: &str, told: &BTreeMap<i64, T>, shown: &BTreeMap<i64, T>) -> Result<(), Broken> {
    for id in told.keys().chain(shown.keys()) {
        match (told.get(id), shown.get(id)) {
            (Some(told), Some(shown)) if told == shown => {}
            (Some(_), Some(_)) => return Err(whole(format!("the table `{table}` shows {id} otherwise than its entries"))),
            (Some(_), None) => return Err(whole(format!("the table `{table}` lacks {id}"))),
            (None, _) => return Err(whole(format!("the table `{table}` shows {id}, and no entry does"))),
        }
    }
    Ok(())
}
