//! What happens, told to whoever builds on it (spec events.md, D-31).
//!
//! ```text
//! Switchboard ─▶ Publication ─▶ Feed (ids) ─▶ Log: a ring in memory ─▶ Cursor ─▶ /events, a webhook each, MQTT
//!                                               └─▶ the store, in batches ──▲ who is behind the ring
//! ```
//!
//! [`event`] and [`passage`] are the words, said by the pure core. [`log`] keeps the latest and lets every channel read on from
//! where it was: live from memory, without waiting for the disk, and from the store when it is behind or the server was
//! restarted. A receiver that does not keep up delays itself alone.

#![allow(clippy::disallowed_methods)] // a shell: starts tasks

pub mod event;
pub mod feed;
pub mod hooks;
pub mod log;
#[cfg(feature = "mqtt")]
pub mod mqtt;
pub mod passage;
pub mod post;
pub mod selection;
pub mod webhook;

use crate::config::Config;
use crate::config::events::selection as named;
use crate::store::{Configured, Store};
use anyhow::Context;
use feed::{Keep, Said};
use hooks::Hooks;
use log::Log;
use passage::{Sender, Version};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// What HTTP works with.
pub struct Channels {
    pub log: Arc<Log>,
    pub hooks: Hooks,
    pub sender: Arc<Sender>,
    /// Places for readers of `/events`.
    pub streams: Arc<Semaphore>,
}

/// Starts all channels, each where it was. What signalling says goes into the sender; the task ends with it, and then the
/// channels do ([`Log::close`]).
pub async fn start(
    config: &Config,
    store: &Store,
) -> anyhow::Result<(Arc<Channels>, mpsc::UnboundedSender<Said>, JoinHandle<()>)> {
    let last = store.last_event().await.context("the database")?;
    let log = Arc::new(Log::new(last));
    let settings = &config.events;
    let version = Version::named(&settings.record_version).unwrap_or(Version::V10);
    let sender = Arc::new(Sender { uid: settings.uid.clone(), project: settings.project.clone(), version });
    let configured = config.webhooks.iter().map(|hook| {
        let selection = named(&hook.events).unwrap_or_default();
        Configured { url: hook.url.clone(), secret: hook.secret.clone(), selection }
    });
    store.configure_hooks(configured.collect(), feed::unix_ms(), last).await.context("the database")?;
    let hooks = Hooks::new(log.clone(), store.clone(), sender.clone(), settings.keep_days);
    hooks.start_all().await.context("the database")?;
    start_mqtt(config, store, &log, &sender);
    let (say, said) = mpsc::unbounded_channel();
    let keep = Keep { events_days: settings.keep_days, passages_days: config.records.keep_days };
    let feeding = tokio::spawn(feed::run(log.clone(), store.clone(), said, keep));
    let streams = Arc::new(Semaphore::new(crate::http::MAX_STREAMS));
    Ok((Arc::new(Channels { log, hooks, sender, streams }), say, feeding))
}

#[cfg(feature = "mqtt")]
fn start_mqtt(config: &Config, store: &Store, log: &Arc<Log>, sender: &Arc<Sender>) {
    // Checked with the configuration: an empty URL means none.
    let Ok(broker) = mqtt::Broker::parse(&config.mqtt.url) else { return };
    let selection = named(&config.mqtt.events).unwrap_or_default();
    let (prefix, log, store, sender) = (config.mqtt.prefix.clone(), log.clone(), store.clone(), sender.clone());
    tokio::spawn(mqtt::Mqtt { broker, prefix, selection, log, store, sender }.run());
}

#[cfg(not(feature = "mqtt"))]
fn start_mqtt(_: &Config, _: &Store, _: &Arc<Log>, _: &Arc<Sender>) {}
