//! [`Hooks`]: all webhooks and their tasks.

#![allow(clippy::disallowed_methods)] // a shell: owns tasks

use super::log::{Cursor, Log};
use super::passage::Sender;
use super::post::{Address, Post};
use super::webhook::{Shared, State, Webhook};
use crate::model::Tenant;
use crate::store::{Hook, Store, StoreError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// See the module text.
pub struct Hooks {
    log: Arc<Log>,
    store: Store,
    sender: Arc<Sender>,
    keep_days: u32,
    running: Mutex<HashMap<String, (Arc<Shared>, AbortHandle)>>,
}

impl Hooks {
    pub fn new(log: Arc<Log>, store: Store, sender: Arc<Sender>, keep_days: u32) -> Hooks {
        Hooks { log, store, sender, keep_days, running: Mutex::default() }
    }

    /// At the start of the server: each goes on where it was.
    pub async fn start_all(&self) -> Result<(), StoreError> {
        let hooks = self.store.hooks(Tenant { app: "".into(), all: true }).await?;
        hooks.into_iter().for_each(|hook| self.start(hook));
        Ok(())
    }

    /// Starts it, or starts it anew with what has changed.
    pub fn start(&self, hook: Hook) {
        let mut running = self.running();
        let before = running.remove(&hook.id);
        let mut hook = hook;
        if let Some((shared, task)) = before {
            task.abort();
            hook.cursor = hook.cursor.max(shared.state().cursor);
        }
        let Ok(address) = Address::parse(&hook.url) else { return };
        if !hook.enabled {
            return;
        }
        let cursor = Cursor::new(self.log.clone(), self.store.clone(), hook.tenant(), hook.selection, hook.cursor);
        let shared = Arc::new(Shared::at(hook.cursor));
        let id = hook.id.clone();
        let webhook = Webhook {
            hook,
            log: self.log.clone(),
            store: self.store.clone(),
            sender: self.sender.clone(),
            keep_days: self.keep_days,
            shared: shared.clone(),
        };
        // Dead letters of a former run that were to be tried again.
        shared.again.notify_one();
        let task = tokio::spawn(webhook.run(cursor, Post::new(address)));
        running.insert(id, (shared, task.abort_handle()));
    }

    pub fn stop(&self, id: &str) {
        if let Some((_, task)) = self.running().remove(id) {
            task.abort();
        }
    }

    /// `None`: it does not run.
    pub fn state(&self, id: &str) -> Option<State> {
        self.running().get(id).map(|(shared, _)| shared.state())
    }

    /// Dead letters wait to be tried again.
    pub fn redeliver(&self, id: &str) {
        if let Some((shared, _)) = self.running().get(id) {
            shared.again.notify_one();
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, (Arc<Shared>, AbortHandle)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
