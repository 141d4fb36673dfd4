//! [`Log`]: the latest events in memory, each with its id, and [`Cursor`]: how every channel reads on from where it was.
//!
//! The writer to the store is a reader like all others; the ring keeps what it has not written, as long as there is room. Who
//! is behind the ring reads the store until he has caught up.

#![allow(clippy::disallowed_methods)] // a shell: waits for news

use super::event::{Event, Kind};
use super::passage::{Passage, Sender};
use super::selection::Selection;
use crate::model::{App, Tenant};
use crate::store::Store;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Written events that stay in memory for readers.
const KEPT: usize = 2048;
/// Events in memory at all, some 300 bytes each; a store that writes nothing loses the oldest from here on.
const MOST: usize = 16_384;
/// Events a reader is handed at once.
const BATCH: usize = 64;
/// A store that cannot be read is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    Event(Event),
    Passage(Box<Passage>),
}

impl What {
    /// The store keeps it in a column of its own.
    pub fn belong_to(&mut self, owner: App) {
        match self {
            What::Event(event) => event.app = owner,
            What::Passage(passage) => passage.app = owner,
        }
    }
}

/// An event with its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Greater than all before, also over restarts; fits 2^53.
    pub id: i64,
    pub what: What,
}

impl Logged {
    pub fn kind(&self) -> Kind {
        match &self.what {
            What::Event(event) => event.kind,
            What::Passage(_) => Kind::Passage,
        }
    }

    pub fn at_ms(&self) -> i64 {
        match &self.what {
            What::Event(event) => event.at_ms,
            What::Passage(passage) => passage.at_ms,
        }
    }

    pub fn app(&self) -> &App {
        match &self.what {
            What::Event(event) => &event.app,
            What::Passage(passage) => &passage.app,
        }
    }

    /// The call of an event that only matters while it rings (D-31).
    pub fn wakes(&self) -> Option<&str> {
        match &self.what {
            What::Event(event) if event.kind == Kind::Call => event.call.as_deref(),
            What::Event(_) | What::Passage(_) => None,
        }
    }

    /// What every channel sends of it; `None`: the version of the record has no word for it.
    pub fn body(&self, sender: &Sender) -> Option<String> {
        match &self.what {
            What::Event(event) => serde_json::to_string(&event.body(self.id)).ok(),
            What::Passage(passage) => serde_json::to_string(&passage.body(self.id, sender)?).ok(),
        }
    }
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<Logged>>,
    /// Nothing up to here is in the ring.
    floor: i64,
    last: i64,
    written: i64,
    /// Calls that ring now; those of a former run do not.
    ringing: HashSet<String>,
    counts: BTreeMap<&'static str, u64>,
}

/// See the module text.
#[derive(Debug)]
pub struct Log {
    ring: Mutex<Ring>,
    /// The newest id; `None`: the server stops.
    news: watch::Sender<Option<i64>>,
}

impl Log {
    /// `last`: the newest id of a former run.
    pub fn new(last: i64) -> Log {
        let ring = Ring { floor: last, last, written: last, ..Ring::default() };
        Log { ring: Mutex::new(ring), news: watch::Sender::new(Some(last)) }
    }

    /// Gives the next id: the moment in microseconds, or more if that one is taken or the clock went back.
    pub fn push(&self, now_us: i64, what: What) {
        let mut ring = self.ring();
        let id = now_us.max(ring.last + 1);
        ring.last = id;
        if let What::Event(Event { kind, call: Some(call), .. }) = &what {
            match kind {
                Kind::Call => drop(ring.ringing.insert(call.clone())),
                Kind::Answered | Kind::Ended | Kind::Unanswered => drop(ring.ringing.remove(call)),
                _ => {}
            }
        }
        ring.events.push_back(Arc::new(Logged { id, what }));
        trim(&mut ring);
        drop(ring);
        self.news.send_if_modified(|news| news.as_mut().map(|news| *news = id).is_some());
    }

    pub fn last(&self) -> i64 {
        self.ring().last
    }

    /// Does the call of this event still ring?
    pub fn still_rings(&self, call: &str) -> bool {
        self.ring().ringing.contains(call)
    }

    /// Something was given up.
    pub fn count(&self, name: &'static str) {
        *self.ring().counts.entry(name).or_default() += 1;
    }

    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.ring().counts.iter().map(|(name, count)| (*name, *count)).collect()
    }

    /// All readers end.
    pub fn close(&self) {
        self.news.send_replace(None);
    }

    /// What the store has not got yet, at most `limit`.
    pub fn unwritten(&self, limit: usize) -> Vec<Arc<Logged>> {
        let ring = self.ring();
        let from = ring.events.partition_point(|logged| logged.id <= ring.written);
        ring.events.range(from..).take(limit).cloned().collect()
    }

    /// The store has everything up to here.
    pub fn written(&self, id: i64) {
        let mut ring = self.ring();
        ring.written = ring.written.max(id);
        trim(&mut ring);
    }

    /// Waits for something newer than an id. `false`: the server stops.
    pub async fn newer(&self, id: i64) -> bool {
        let mut news = self.news.subscribe();
        news.wait_for(|news| news.is_none_or(|last| last > id)).await.is_ok_and(|news| news.is_some())
    }

    /// What follows an id in the ring, or (`Err`) the oldest id that is there, when the ring begins later.
    fn after(&self, at: i64) -> Result<Vec<Arc<Logged>>, i64> {
        let ring = self.ring();
        if at < ring.floor {
            return Err(ring.floor + 1);
        }
        let from = ring.events.partition_point(|logged| logged.id <= at);
        Ok(ring.events.range(from..).take(BATCH).cloned().collect())
    }

    /// A panic elsewhere leaves a ring that is whole.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn trim(ring: &mut Ring) {
    let written = ring.written;
    while ring.events.len() > MOST {
        if let Some(oldest) = ring.events.pop_front() {
            ring.floor = oldest.id;
            if oldest.id > written {
                *ring.counts.entry("event_not_stored").or_default() += 1;
            }
        }
    }
    while ring.events.len() > KEPT
        && let Some(oldest) = ring.events.pop_front_if(|oldest| oldest.id <= written)
    {
        ring.floor = oldest.id;
    }
}

/// One reader of the log.
pub struct Cursor {
    log: Arc<Log>,
    store: Store,
    tenant: Tenant,
    selection: Selection,
    at: i64,
}

impl Cursor {
    /// Reads on behind an id.
    pub fn new(log: Arc<Log>, store: Store, tenant: Tenant, selection: Selection, at: i64) -> Cursor {
        Cursor { log, store, tenant, selection, at }
    }

    /// What comes next, oldest first, never empty; waits for it. `None`: the server stops.
    pub async fn next(&mut self) -> Option<Vec<Arc<Logged>>> {
        loop {
            if !self.log.newer(self.at).await {
                return None;
            }
            let some = match self.log.after(self.at) {
                Ok(some) => {
                    self.at = some.last().map_or(self.at, |logged| logged.id);
                    some
                }
                Err(ring_begins) => self.stored(ring_begins).await,
            };
            let mine: Vec<_> = some.into_iter().filter(|logged| self.is_mine(logged)).collect();
            if !mine.is_empty() {
                return Some(mine);
            }
        }
    }

    async fn stored(&mut self, below: i64) -> Vec<Arc<Logged>> {
        let limit = BATCH as u32;
        match self.store.events_between(self.tenant.clone(), self.selection, self.at, below, limit).await {
            Ok(some) => {
                // Less than asked for: the store has no more of it, the ring goes on.
                self.at = if some.len() < BATCH { below - 1 } else { some.last().map_or(self.at, |logged| logged.id) };
                some.into_iter().map(Arc::new).collect()
            }
            Err(error) => {
                tracing::debug!(%error, "events are behind and the store cannot be read");
                tokio::time::sleep(ASK_AGAIN).await;
                Vec::new()
            }
        }
    }

    fn is_mine(&self, logged: &Logged) -> bool {
        self.selection.has(logged.kind()) && self.tenant.may(logged.app())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::event::Target;

    fn event(kind: Kind, call: &str, app: &str) -> What {
        let target = Target::Number("t".into());
        let call = Some(call.to_owned());
        What::Event(Event { kind, at_ms: 5, source: "s".into(), target, call, reason: None, app: app.into() })
    }

    fn ids(some: &[Arc<Logged>]) -> Vec<i64> {
        some.iter().map(|logged| logged.id).collect()
    }

    async fn write_all(log: &Log, store: &Store) {
        loop {
            let some = log.unwritten(500);
            let Some(last) = some.last().map(|logged| logged.id) else { return };
            store.add_events(some).await.unwrap();
            log.written(last);
        }
    }

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("doorline-log-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn ids_grow_also_when_the_clock_goes_back_and_after_a_restart() {
        let log = Log::new(1000);
        for now in [500, 2000, 1990, 1990] {
            log.push(now, event(Kind::Call, "c", ""));
        }
        assert_eq!(ids(&log.after(1000).unwrap()), [1001, 2000, 2001, 2002]);
        assert_eq!(log.after(999), Err(1001), "before the restart");
    }

    #[test]
    fn a_ring_is_over_when_its_events_say_so() {
        let log = Log::new(0);
        assert!(!log.still_rings("c"));
        log.push(1, event(Kind::Call, "c", ""));
        log.push(2, event(Kind::Call, "d", ""));
        assert!(log.still_rings("c"));
        log.push(3, event(Kind::Answered, "c", ""));
        log.push(4, event(Kind::Unanswered, "d", ""));
        assert!(!log.still_rings("c") && !log.still_rings("d"));
    }

    /// A reader that is far behind gets everything once and in order: from the store first, then from memory.
    #[tokio::test]
    async fn who_is_behind_the_ring_reads_the_store_and_catches_up() {
        let folder = folder("behind");
        let store = Store::open(&folder.join("db")).unwrap();
        let log = Arc::new(Log::new(0));
        let total = KEPT as i64 * 2;
        for id in 1..=total {
            log.push(id, event(Kind::Call, "c", if id % 2 == 0 { "even" } else { "" }));
        }
        write_all(&log, &store).await;
        assert!(log.after(0).is_err(), "the ring has forgotten the first");
        let all = Tenant { app: "".into(), all: true };
        let mut cursor = Cursor::new(log.clone(), store.clone(), all, Selection::default(), 0);
        let mut read = Vec::new();
        while (read.len() as i64) < total {
            read.extend(ids(&cursor.next().await.unwrap()));
        }
        assert_eq!(read, (1..=total).collect::<Vec<_>>());
        // A tenant sees his own, from both places.
        let even = Tenant { app: "even".into(), all: false };
        let mut cursor = Cursor::new(log.clone(), store.clone(), even, Selection::default(), 0);
        let mut read = Vec::new();
        while (read.len() as i64) < total / 2 {
            read.extend(ids(&cursor.next().await.unwrap()));
        }
        assert!(read.iter().all(|id| id % 2 == 0));
        log.close();
        assert!(cursor.next().await.is_none());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_loses_the_oldest_and_holds_up_nobody() {
        let folder = folder("full");
        let store = Store::open(&folder.join("db")).unwrap();
        let log = Arc::new(Log::new(0));
        let all = Tenant { app: "".into(), all: true };
        let mut live = Cursor::new(log.clone(), store.clone(), all.clone(), Selection::default(), 0);
        for id in 1..=MOST as i64 + 10 {
            log.push(id, event(Kind::Call, "c", ""));
            if id % BATCH as i64 == 0 {
                assert_eq!(live.next().await.unwrap().len(), BATCH, "live, without the store");
            }
        }
        assert_eq!(log.counts(), [("event_not_stored", 10)]);
        let mut late = Cursor::new(log, store, all, Selection::default(), 0);
        assert_eq!(late.next().await.unwrap()[0].id, 11);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn the_store_gives_back_what_was_told() {
        let folder = folder("same");
        let store = Store::open(&folder.join("db")).unwrap();
        let log = Log::new(0);
        log.push(7, event(Kind::Answered, "c", "key"));
        log.push(8, What::Passage(Box::new(Passage { at_ms: 9, account: "u".into(), app: "key".into(), ..Passage::default() })));
        let told = log.after(0).unwrap();
        write_all(&log, &store).await;
        let tenant = Tenant { app: "key".into(), all: false };
        let every = Selection::of(&Kind::ALL);
        let stored = store.events_between(tenant.clone(), every, 0, i64::MAX, 10).await.unwrap();
        assert_eq!(stored, told.iter().map(|logged| Logged::clone(logged)).collect::<Vec<_>>());
        assert_eq!(store.last_event().await.unwrap(), 8);
        assert_eq!(store.prune_events(1, 0).await.unwrap(), 1, "the passage stays");
        let usual = store.events_between(tenant, Selection::default(), 0, i64::MAX, 10).await.unwrap();
        assert_eq!(usual.len(), 1);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
