//! Commands about what is stored: `rotate-key`.

#![allow(clippy::disallowed_methods)] // a shell: owns files

use crate::config::Config;
use crate::lock::Held;
use crate::{serve, store};
use anyhow::{Context, ensure};

/// `doorline rotate-key`.
pub fn rotate_key(config: &Config) -> anyhow::Result<String> {
    let database = serve::database(config);
    ensure!(database.exists(), "there is no database at {}", database.display());
    let _held = Held::new(&config.top.data_dir)?;
    let given = match (config.store.key(), config.store.new_key()) {
        (Some(key), Some(new)) => Some((key, new)),
        (Some(_), None) => anyhow::bail!("store.key is set: say the next one in DOORLINE_STORE__NEW_KEY"),
        (None, Some(_)) => anyhow::bail!("store.new_key is set and store.key is not: which key does the database have?"),
        (None, None) => None,
    };
    let given_keys = given.as_ref().map(|(key, new)| (key, new));
    let count = store::rotate(&database, given_keys).context("the database")?;
    let next = if given.is_some() { "from now on store.key is what store.new_key was" } else { "secrets.key is the new one" };
    Ok(format!("{count} passwords are sealed with a new key; {next}. Backups of before need the former key."))
}
