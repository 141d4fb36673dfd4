//! Write-behind of bindings (D-10): what the SIP thread publishes waits here for a moment and is then written in batches, so
//! that no REGISTER waits for a disk.
//!
//! What waits is the latest wish per account, so it is bounded by the number of accounts: nothing is ever lost for want of
//! room, and a store that fails is tried again with the next batch.

#![allow(clippy::disallowed_methods)] // a shell: owns a task and its rhythm

use crate::live::Kept;
use crate::store::Store;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

/// How long a wish waits: what was acknowledged a second before the power went is on disk.
const RHYTHM: Duration = Duration::from_millis(200);
/// Accounts per transaction: the store's other users wait some ten milliseconds at most.
const BATCH: usize = 2000;

/// Shared by the SIP thread, which only puts, and the task that writes.
#[derive(Debug, Default)]
pub struct Keeper {
    waiting: Mutex<BTreeMap<Arc<str>, Option<Kept>>>,
}

impl Keeper {
    /// The store shall have this binding of an account, or none. Supersedes what still waits.
    pub fn keep(&self, account: Arc<str>, kept: Option<Kept>) {
        self.waiting().insert(account, kept);
    }

    /// Writes until `stop`, and then what is left. `rows`: what the store has already.
    pub async fn run(self: Arc<Keeper>, store: Store, mut rows: Rows, mut stop: oneshot::Receiver<()>) {
        let mut ticks = interval(RHYTHM);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.write(&store, &mut rows).await,
                _ = &mut stop => return self.write(&store, &mut rows).await,
            }
        }
    }

    async fn write(&self, store: &Store, rows: &mut Rows) {
        let mut rest: Vec<(Arc<str>, Option<Kept>)> = std::mem::take(&mut *self.waiting()).into_iter().collect();
        while !rest.is_empty() {
            let batch: Vec<_> = rest.drain(..rest.len().min(BATCH)).collect();
            let of_store = batch.iter().map(|(account, kept)| (rows.of(account), kept.clone())).collect();
            if let Err(error) = store.keep(of_store).await {
                tracing::warn!(%error, bindings = batch.len() + rest.len(), "bindings are not written yet");
                let mut waiting = self.waiting();
                for (account, kept) in batch.into_iter().chain(rest) {
                    waiting.entry(account).or_insert(kept);
                }
                return;
            }
            for (account, _) in batch.iter().filter(|(_, kept)| kept.is_none()) {
                rows.forget(account);
            }
        }
    }

    /// A panic elsewhere leaves a map that is whole.
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Option<Kept>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which row of the store holds whose binding: numbered as they come.
#[derive(Debug, Default)]
pub struct Rows {
    of: HashMap<Arc<str>, i64>,
    last: i64,
}

impl Rows {
    /// A row that is there.
    pub fn put(&mut self, account: Arc<str>, row: i64) {
        self.of.insert(account, row);
        self.last = self.last.max(row);
    }

    /// The row of an account, a new one if it has none.
    fn of(&mut self, account: &Arc<str>) -> i64 {
        let row = self.of.get(account).copied().unwrap_or(self.last + 1);
        self.put(account.clone(), row);
        row
    }

    /// It is erased.
    fn forget(&mut self, account: &str) {
        self.of.remove(account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Registration;
    use sip_core::flow::{Flow, Transport};
    use sip_core::location::Binding;
    use std::time::Instant;

    fn kept(account: &str, cseq: u32, now: Instant) -> Kept {
        let address = ([192, 0, 2, 1], 5060).into();
        let binding = Arc::new(Binding {
            account: account.into(),
            contact_uri: "sip:p@192.0.2.1".into(),
            instance: Some("<urn:uuid:1>".into()),
            reg_id: None,
            path: Some("<sip:proxy;lr>".into()),
            flow: Flow { transport: Transport::Udp, local: address, remote: address },
            registered_at: now,
            expires_at: now + Duration::from_secs(60),
            call_id: "c".into(),
            cseq,
            user_agent: None,
            written_as_of: now,
            contested: 0,
            rival: None,
        });
        Kept {
            registration: Registration { binding, app: Default::default(), registered_ms: 1_000_000, expires_ms: 1_060_000 },
            made_with: -7,
        }
    }

    /// The latest wish of each account counts, also over a restart with the store as it is, and times are those of the wall.
    #[tokio::test]
    async fn what_was_wished_last_is_there_after_a_restart() {
        let folder = std::env::temp_dir().join(format!("doorline-keeper-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("db");
        let now = Instant::now() + Duration::from_secs(1000);
        let (store, keeper, mut rows) = (Store::open(&path).unwrap(), Keeper::default(), Rows::default());
        for (account, cseq) in [("a", 1), ("b", 1), ("a", 2), ("c", 1)] {
            keeper.keep(account.into(), Some(kept(account, cseq, now)));
        }
        keeper.write(&store, &mut rows).await;
        keeper.keep("b".into(), None);
        keeper.keep("c".into(), Some(kept("c", 3, now)));
        keeper.write(&store, &mut rows).await;
        drop(store);

        let store = Store::open(&path).unwrap();
        let later = (now, 1_010_000);
        let found = store.bindings(later).await.unwrap();
        let told: Vec<_> = found.iter().map(|(_, r)| (&*r.binding.account, r.binding.cseq, r.made_with)).collect();
        assert_eq!(told, [("a", 2, -7), ("c", 3, -7)]);
        let binding = &found[0].1.binding;
        assert_eq!(binding.expires_at, now + Duration::from_secs(50));
        assert_eq!(binding.registered_at, now - Duration::from_secs(10));
        assert_eq!(binding.path.as_deref(), Some("<sip:proxy;lr>"));

        let (account, row) = (found[1].1.binding.account.clone(), found[1].0);
        let mut rows = Rows::default();
        rows.put(account.clone(), row);
        keeper.keep(account, Some(kept("c", 4, now)));
        keeper.write(&store, &mut rows).await;
        let found = store.bindings(later).await.unwrap();
        assert_eq!(found.iter().map(|(_, r)| r.binding.cseq).collect::<Vec<_>>(), [2, 4], "in its row of before");
        assert!(store.bindings((now, 1_060_000)).await.unwrap().is_empty(), "expired");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
