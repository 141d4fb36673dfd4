//! The record as a chain (D-29): what is written verifies, whatever becomes of pictures and of old entries, and nothing can be
//! changed, taken out, added or swapped unseen.

#![allow(clippy::disallowed_methods)] // real files

use intercom_api::pictures::Snapshot;
use intercom_api::pictures::album::{Album, Retention};
use intercom_api::record::{Entry, Record, Wanted, Watched};
use intercom_api::store::verify::{Broken, Whole, verify};
use intercom_api::store::{ON_REQUEST, Store};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use rusqlite::Connection;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A store in a folder of its own.
struct House {
    root: PathBuf,
    album: Album,
    store: Option<Store>,
    /// Wishes that have not ended.
    open: Vec<Record>,
    ended: Vec<Record>,
    pictures: Vec<String>,
    next: i64,
    /// The wish that has its picture.
    made: i64,
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl House {
    fn new() -> House {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("doorline-chain-{}-{number}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let album = Album::new(root.join("snapshots"), Retention { days: 30, bytes: 1 << 30 });
        let store = Some(Store::open(&root.join("db")).unwrap());
        House { root, album, store, open: vec![], ended: vec![], pictures: vec![], next: 0, made: 0 }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    async fn append(&self, entry: Entry) {
        self.store().append(vec![entry]).await.unwrap();
    }

    async fn ask(&mut self) {
        self.next += 1;
        let picture = format!("c-{}", self.next);
        let record = Record {
            account: format!("p{}", self.next % 3),
            road: "info".into(),
            door: "d".into(),
            room: "101".into(),
            call: format!("c{}", self.next / 3),
            reqsn: 7,
            asked_ms: self.next * 1000,
            snapshot: Some(picture),
            ..Record::default()
        };
        self.append(Entry::Asked(Box::new(Record { outcome: "asked".into(), ..record.clone() }))).await;
        self.open.push(record);
    }

    async fn end(&mut self, outcome: &str, status: u16) {
        let Some(record) = self.open.pop() else { return };
        let (sent_ms, ended_ms) = (Some(record.asked_ms + 1), record.asked_ms + 90);
        let record = Record { sent_ms, ended_ms, outcome: outcome.into(), status, ..record };
        self.append(Entry::Ended(Box::new(record.clone()))).await;
        self.ended.push(record);
    }

    /// The door's answer to the last one that ended, later than everybody would wait.
    async fn late(&mut self) {
        let Some(last) = self.ended.last() else { return };
        let (account, outcome) = (String::new(), "late opened".into());
        let report = Record { account, outcome, status: 200, snapshot: None, ..last.clone() };
        self.append(Entry::Ended(Box::new(report))).await;
    }

    async fn watch(&self) {
        let from_ms = self.next * 1000;
        let (account, door, room, call) = ("p1".into(), "d".into(), "101".into(), format!("c{}", self.next / 3));
        let watched = Watched { id: 0, account, door, room, call, from_ms, to_ms: from_ms + 500, talked: true };
        self.append(Entry::Watched(Box::new(watched))).await;
    }

    /// The picture of a wish.
    async fn picture(&mut self) {
        let id = format!("c-{}", self.next);
        if self.next == 0 || self.made == self.next {
            return;
        }
        self.made = self.next;
        let bytes = id.as_bytes().repeat(3);
        let file = self.album.write(&id, 0, &bytes).unwrap();
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let text = |text: &str| text.to_owned();
        let snapshot = Snapshot {
            id: id.clone(),
            call: text("c"),
            door: text("d"),
            why: text("unlock"),
            preset: text("large"),
            taken_at_ms: 0,
            width: 1,
            height: 1,
            bytes: bytes.len() as u32,
            sha256,
            file: Some(file),
        };
        self.store().add_snapshot(snapshot).await.unwrap();
        self.pictures.push(id);
    }

    async fn delete_picture(&mut self) {
        let Some(id) = self.pictures.pop() else { return };
        // Its entry may be pruned meanwhile.
        if let Some(file) = self.store().snapshot(id.clone()).await.unwrap().and_then(|snapshot| snapshot.file) {
            self.album.remove(&file).unwrap();
            self.store().forget_snapshots(vec![id], ON_REQUEST).await.unwrap();
        }
    }

    fn verify(&self) -> Result<Whole, Broken> {
        verify(&self.root.join("db"), &self.album, None)
    }

    /// Does something to a copy of the database, and says what the check finds.
    fn after(&self, sql: &str) -> Result<Whole, Broken> {
        let copy = self.copy();
        Connection::open(copy.join("db")).unwrap().execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        verify(&copy.join("db"), &self.album, None)
    }

    fn copy(&self) -> PathBuf {
        let copy = self.root.join("copy");
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir_all(&copy).unwrap();
        let connection = Connection::open(self.root.join("db")).unwrap();
        connection.execute("VACUUM INTO ?1", [copy.join("db").to_str().unwrap()]).unwrap();
        fs::copy(self.root.join("records.key"), copy.join("records.key")).unwrap();
        copy
    }

    /// Three wishes, a refusal, a late answer, watchers and pictures: entries 2 to 15.
    async fn lived_in() -> House {
        let mut house = House::new();
        for (outcome, status) in [("opened", 200), ("unknown", 408)] {
            house.ask().await;
            house.picture().await;
            house.end(outcome, status).await;
        }
        house.late().await;
        house.watch().await;
        let refused = Record { account: "p9".into(), outcome: "forbidden".into(), status: 403, ..Record::default() };
        house.append(Entry::Ended(Box::new(refused))).await;
        house.ask().await;
        house.picture().await;
        house.end("opened", 200).await;
        house.watch().await;
        house
    }
}

fn first_wrong(found: Result<Whole, Broken>) -> (Option<i64>, String) {
    let broken = found.unwrap_err();
    (broken.entry, broken.why)
}

#[tokio::test]
async fn what_was_written_verifies_and_readers_see_it() {
    let house = House::lived_in().await;
    let whole = house.verify().unwrap();
    assert_eq!((whole.records, whole.entries, whole.warnings.len()), (4, 15, 0));

    let find = async |wanted: Wanted| {
        let found = house.store().records(Wanted { limit: 10, ..wanted }).await.unwrap();
        found.into_iter().map(|record| (record.id, record.outcome)).collect::<Vec<_>>()
    };
    let text = |text: &str| Some(text.to_owned());
    let of = |list: &[(i64, &str)]| list.iter().map(|(id, outcome)| (*id, (*outcome).to_owned())).collect::<Vec<_>>();
    let all = of(&[(12, "opened"), (10, "forbidden"), (5, "unknown"), (2, "opened")]);
    assert_eq!(find(Wanted::default()).await, all);
    assert_eq!(find(Wanted { after: Some(10), ..Wanted::default() }).await, all[2..]);
    assert_eq!(find(Wanted { outcome: text("opened"), ..Wanted::default() }).await, of(&[(12, "opened"), (2, "opened")]));
    assert_eq!(find(Wanted { account: text("p9"), ..Wanted::default() }).await, all[1..2]);
    let some = Wanted { room: text("101"), door: text("d"), from_ms: Some(2000), to_ms: Some(3000), ..Wanted::default() };
    assert_eq!(find(some).await, all[2..3]);

    let records = house.store().records(Wanted { limit: 10, ..Wanted::default() }).await.unwrap();
    let late = records[2].late.as_ref().unwrap();
    assert_eq!((late.outcome.as_str(), late.status), ("opened", 200), "the door's own report names the wish");
    assert_eq!(records[2].watched.iter().map(|watched| watched.account.as_str()).collect::<Vec<_>>(), ["p1"]);
    assert_eq!(house.store().watched(Wanted { limit: 10, account: text("p1"), ..Wanted::default() }).await.unwrap().len(), 2);
}

#[tokio::test]
async fn every_way_to_touch_it_is_found_and_says_where() {
    let house = House::lived_in().await;
    for (sql, wrong) in [
        // A field.
        ("UPDATE entry SET content = replace(content, 'unknown', 'opened') WHERE id = 7", 7),
        ("UPDATE entry SET at_ms = at_ms - 60000 WHERE id = 4", 4),
        ("UPDATE entry SET hash = zeroblob(32) WHERE id = 3", 3),
        // One in the middle, the first, the last, all.
        ("DELETE FROM entry WHERE id = 5", 5),
        ("DELETE FROM entry WHERE id = 1", 1),
        ("DELETE FROM entry WHERE id = 15", 15),
        ("DELETE FROM entry", 1),
        // Two swapped.
        ("UPDATE entry SET id = 99 WHERE id = 7; UPDATE entry SET id = 7 WHERE id = 8; UPDATE entry SET id = 8 WHERE id = 99", 7),
        // One more.
        ("INSERT INTO entry SELECT id + 1, at_ms, content, hash FROM entry WHERE id = 15", 16),
        // A beginning that never was signed: the chain would go on after it.
        ("DELETE FROM entry WHERE id <= 4; DELETE FROM record WHERE id = 2", 1),
        // What was deleted or made is told otherwise.
        ("UPDATE snapshot SET sha256 = '00' WHERE id = 'c-1'", 3),
        ("UPDATE snapshot SET file = NULL WHERE id = 'c-1'", 3),
    ] {
        assert_eq!(first_wrong(house.after(sql)).0, Some(wrong), "{sql}");
    }
    for sql in [
        // The tables that readers see.
        "UPDATE record SET outcome = 'opened' WHERE id = 5",
        "UPDATE record SET account = 'p8' WHERE id = 2",
        "DELETE FROM record WHERE id = 2",
        "INSERT INTO record SELECT 99, account, road, door, call, reqsn, asked_ms, sent_ms, ended_ms, outcome, status, snapshot,
            room, reason, late_outcome, late_status, late_ms FROM record WHERE id = 2",
        "UPDATE watched SET talked = 0",
        // Marks, forged and gone.
        "UPDATE mark SET id = 14 WHERE name = 'head'",
        "UPDATE mark SET at_ms = 0 WHERE name = 'head'",
        "DELETE FROM mark",
        "INSERT INTO mark SELECT 'pruned', 4, hash, at_ms, mac FROM mark",
        "DELETE FROM entry WHERE id <= 4; INSERT INTO mark SELECT 'pruned', id, hash, at_ms, mac FROM mark",
    ] {
        assert!(house.after(sql).is_err(), "{sql}");
    }
    // Rewritten from the middle on, hashes and all, by somebody without the key.
    let copy = house.copy();
    let connection = Connection::open(copy.join("db")).unwrap();
    let mut rows = connection.prepare("SELECT id, at_ms, content, hash FROM entry ORDER BY id").unwrap();
    let rows: Vec<(i64, i64, String, [u8; 32])> =
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap().map(Result::unwrap).collect();
    let mut before = [0; 32];
    for (id, at_ms, content, _) in rows {
        let content = content.replace("p0", "p7");
        let mut hash = Sha256::new();
        [&before[..], &id.to_be_bytes(), &at_ms.to_be_bytes(), content.as_bytes()].into_iter().for_each(|part| hash.update(part));
        before = hash.finalize().into();
        connection.execute("UPDATE entry SET content = ?2, hash = ?3 WHERE id = ?1", (id, content, &before[..])).unwrap();
    }
    connection.execute("UPDATE record SET account = 'p7' WHERE account = 'p0'", []).unwrap();
    connection.execute("UPDATE mark SET hash = ?1", [&before[..]]).unwrap();
    assert!(first_wrong(verify(&copy.join("db"), &house.album, None)).1.contains("not signed"));
    // Another key, or none.
    let copy = house.copy();
    fs::write(copy.join("records.key"), [7; 32]).unwrap();
    assert!(first_wrong(verify(&copy.join("db"), &house.album, None)).1.contains("not signed"));
    fs::remove_file(copy.join("records.key")).unwrap();
    assert!(first_wrong(verify(&copy.join("db"), &house.album, None)).1.contains("records.key"));
    assert!(house.verify().is_ok());
}

#[tokio::test]
async fn a_tail_that_was_cut_off_stays_visible_after_the_next_start() {
    let mut house = House::lived_in().await;
    let cut = "DELETE FROM entry WHERE id > 12; DELETE FROM record WHERE id > 10; DELETE FROM watched WHERE id > 12;
        DELETE FROM snapshot WHERE id = 'c-3'";
    assert_eq!(first_wrong(house.after(cut)).0, Some(13));
    let before = house.verify().unwrap().head;
    drop(house.store.take());
    Connection::open(house.root.join("db")).unwrap().execute_batch(cut).unwrap();
    house.store = Some(Store::open(&house.root.join("db")).unwrap());
    house.ask().await;
    house.end("opened", 200).await;
    assert_eq!(first_wrong(house.verify()).0, Some(13));
    // All of it, marks too: the key is still there, so a record was.
    drop(house.store.take());
    Connection::open(house.root.join("db")).unwrap().execute_batch("DELETE FROM entry; DELETE FROM mark").unwrap();
    house.store = Some(Store::open(&house.root.join("db")).unwrap());
    house.ask().await;
    house.end("opened", 200).await;
    assert!(house.verify().is_err());
    // What the file alone cannot show: it was put back whole. A note of what was printed does.
    let other = House::lived_in().await;
    assert!(verify(&other.root.join("db"), &other.album, Some((before.0, "00".into()))).is_err());
    assert!(verify(&other.root.join("db"), &other.album, Some((before.0 + 1, before.1))).is_err());
    assert!(verify(&other.root.join("db"), &other.album, Some(other.verify().unwrap().head)).is_ok());
}

#[tokio::test]
async fn pictures_may_be_deleted_but_not_exchanged_and_a_lost_one_is_a_warning() {
    let mut house = House::lived_in().await;
    house.delete_picture().await;
    assert!(house.verify().unwrap().warnings.is_empty());
    let wanted = Wanted { limit: 1, ..Wanted::default() };
    let record = house.store().records(wanted).await.unwrap().remove(0);
    assert!(record.snapshot_sha256.is_some(), "its hash stays");
    let file = |id: &str| house.root.join("snapshots/1970-01-01").join(format!("{id}.jpg"));
    fs::write(file("c-2"), b"another visitor").unwrap();
    assert_eq!(first_wrong(house.verify()).0, Some(6));
    fs::remove_file(file("c-2")).unwrap();
    let whole = house.verify().unwrap();
    assert!(whole.warnings.len() == 1 && whole.warnings[0].contains("c-2"), "{:?}", whole.warnings);
}

#[tokio::test]
async fn what_is_too_old_goes_and_leaves_a_signed_beginning() {
    let house = House::lived_in().await;
    assert_eq!(house.store().prune(0, 1000).await.unwrap(), 0, "nothing is so old");
    // In the middle of a wish.
    assert_eq!(house.store().prune(i64::MAX, 6).await.unwrap(), 6);
    let whole = house.verify().unwrap();
    assert_eq!((whole.records, whole.entries), (2, 10));
    assert!(house.after("DELETE FROM mark WHERE name = 'pruned'").is_err());
    assert_eq!(first_wrong(house.after("DELETE FROM entry WHERE id = 7")).0, Some(7));
    assert_eq!(house.store().prune(i64::MAX, 1000).await.unwrap(), 10);
    let whole = house.verify().unwrap();
    assert_eq!((whole.records, whole.entries), (0, 1));
    assert!(house.store().records(Wanted { limit: 10, ..Wanted::default() }).await.unwrap().is_empty());
}

#[tokio::test]
async fn wishes_that_a_stop_cut_off_end_as_unknown() {
    let mut house = House::new();
    house.ask().await;
    house.ask().await;
    house.end("opened", 200).await;
    drop(house.store.take());
    house.store = Some(Store::open(&house.root.join("db")).unwrap());
    assert_eq!(house.store().close_open_wishes().await, Ok(1));
    assert_eq!(house.store().close_open_wishes().await, Ok(0));
    let records = house.store().records(Wanted { limit: 10, ..Wanted::default() }).await.unwrap();
    let ends: Vec<_> = records.iter().map(|r| (r.outcome.as_str(), r.status, r.reason.as_deref())).collect();
    assert_eq!(ends, [("opened", 200, None), ("unknown", 408, Some("server stopped"))]);
    house.verify().unwrap();
}

/// The tables as version 4 had them, with one of each.
#[tokio::test]
async fn what_an_older_version_left_becomes_the_beginning() {
    let mut house = House::new();
    drop(house.store.take());
    let (old, key) = (house.root.join("old.sqlite"), house.root.join("records.key"));
    fs::remove_file(key).unwrap();
    let connection = Connection::open(&old).unwrap();
    connection.execute_batch(include_str!("data/store_v4.sql")).unwrap();
    let store = Store::open(&old).unwrap();
    let record = Record { account: "new".into(), outcome: "opened".into(), status: 200, ..Record::default() };
    store.append(vec![Entry::Ended(Box::new(record))]).await.unwrap();
    let whole = verify(&old, &house.album, None).unwrap();
    assert_eq!((whole.records, whole.warnings.len()), (3, 1), "{whole:?}");
    let records = store.records(Wanted { limit: 10, ..Wanted::default() }).await.unwrap();
    let told: Vec<_> = records.iter().map(|r| (r.account.as_str(), r.outcome.as_str(), r.snapshot.as_deref())).collect();
    assert_eq!(told, [("new", "opened", None), ("p2", "unknown", Some("c-2")), ("p1", "opened", Some("c-1"))]);
    assert_eq!(records[2].id, 1, "numbers stay");
    drop(store);
    let store = Store::open(&old).unwrap();
    assert_eq!(verify(&old, &house.album, None).unwrap(), whole, "once");
    drop(store);
}

#[derive(Clone, Debug)]
enum Act {
    Ask,
    End,
    Unknown,
    Late,
    Watch,
    Picture,
    Delete,
    Prune(u32),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Ask),
        3 => Just(Act::End),
        2 => Just(Act::Unknown),
        2 => Just(Act::Late),
        2 => Just(Act::Watch),
        3 => Just(Act::Picture),
        2 => Just(Act::Delete),
        1 => (1u32..8).prop_map(Act::Prune),
        1 => Just(Act::Restart),
    ]
}

async fn play(house: &mut House, act: &Act) {
    match act {
        Act::Ask => house.ask().await,
        Act::End => house.end("opened", 200).await,
        Act::Unknown => house.end("unknown", 408).await,
        Act::Late => house.late().await,
        Act::Watch => house.watch().await,
        Act::Picture => house.picture().await,
        Act::Delete => house.delete_picture().await,
        Act::Prune(limit) => drop(house.store().prune(i64::MAX, *limit).await.unwrap()),
        Act::Restart => {
            drop(house.store.take());
            house.store = Some(Store::open(&house.root.join("db")).unwrap());
            house.store().close_open_wishes().await.unwrap();
            house.open.clear();
        }
    }
}

/// Changes one column of one row, or takes the row out. `None`: there is nothing to change, or it would be the same.
fn mutate(copy: &Path, table: usize, row: u32, column: usize) -> Option<String> {
    let (table, columns) = [
        ("entry", &["id", "at_ms", "content", "hash"][..]),
        ("mark", &["name", "id", "hash", "at_ms", "mac"]),
        (
            "record",
            &[
                "id",
                "account",
                "road",
                "door",
                "room",
                "call",
                "reqsn",
                "asked_ms",
                "sent_ms",
                "ended_ms",
                "outcome",
                "status",
                "reason",
                "late_outcome",
                "snapshot",
            ],
        ),
        ("watched", &["id", "account", "door", "room", "call", "from_ms", "to_ms", "talked"]),
        ("snapshot", &["id", "call", "door", "why", "preset", "taken_ms", "width", "height", "bytes", "sha256"]),
    ][table % 5];
    let connection = Connection::open(copy.join("db")).unwrap();
    let count: u32 = connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
    let key = if table == "mark" { "name" } else { "rowid" };
    let of_row = format!("{key} = (SELECT {key} FROM {table} ORDER BY {key} LIMIT 1 OFFSET {})", row.checked_rem(count)?);
    let sql = match columns.get(column % (columns.len() + 1)) {
        None => format!("DELETE FROM {table} WHERE {of_row}"),
        Some(column) => {
            let change = match *column {
                "hash" | "mac" => "zeroblob(32)".to_owned(),
                "talked" => "1 - talked".to_owned(),
                "at_ms" | "asked_ms" | "from_ms" | "to_ms" | "taken_ms" | "ended_ms" | "reqsn" | "status" | "width"
                | "height" | "bytes" | "id"
                    if !(table == "snapshot" && *column == "id") =>
                {
                    format!("{column} + 10000")
                }
                "sent_ms" => "coalesce(sent_ms, 0) + 1".to_owned(),
                column => format!("coalesce({column}, '') || ' '"),
            };
            format!("UPDATE {table} SET {column} = {change} WHERE {of_row}")
        }
    };
    // Readers see nothing of a late status without a late outcome.
    connection.execute_batch(&sql).ok().map(|()| sql)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn anything_that_happens_verifies_and_any_single_change_is_found(
        acts in prop::collection::vec(act(), 1..30),
        changes in prop::collection::vec((0usize..5, any::<u32>(), 0usize..20), 4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut house = House::new();
        runtime.block_on(async {
            for act in &acts {
                play(&mut house, act).await;
            }
        });
        house.verify().map_err(|broken| TestCaseError::fail(broken.to_string()))?;
        for (table, row, column) in changes {
            let copy = house.copy();
            if let Some(sql) = mutate(&copy, table, row, column) {
                prop_assert!(verify(&copy.join("db"), &house.album, None).is_err(), "{sql}");
            }
        }
    }
}
