//! Which app of the API the installation's own things belong to (spec admin-api.md §2.1).

use super::write::invent;
use super::*;
use crate::config;

const OWN: &str = "own_app";

impl Store {
    /// The app that stands for the installation itself: the first that was ever set, however the list is ordered later.
    pub async fn own_app(&self, first: String) -> Result<String, StoreError> {
        self.transact(move |t| {
            t.execute("INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING", (OWN, &first))?;
            Ok(t.query_row("SELECT value FROM setting WHERE name = ?1", [OWN], |row| row.get(0))?)
        })
        .await
    }

    /// The app that was made where none was set.
    pub async fn made_app(&self) -> Result<Option<config::App>, StoreError> {
        self.transact(|t| {
            let mut query = t.prepare("SELECT key, secret FROM app")?;
            let found: Option<(String, Vec<u8>)> = query.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some((key, sealed)) = found else { return Ok(None) };
            let secret = t.open(&whose_app(&key), &sealed)?;
            Ok(Some(config::App { key, secret, name: String::new() }))
        })
        .await
    }

    /// Keeps one; its secret is sealed like every password.
    pub async fn keep_app(&self, app: config::App) -> Result<(), StoreError> {
        self.transact(move |t| {
            let sealed = t.seal(&whose_app(&app.key), app.secret.reveal())?;
            t.execute("INSERT INTO app (key, secret) VALUES (?1, ?2)", (&app.key, sealed))?;
            Ok(())
        })
        .await
    }
}

/// One of our own making.
pub fn new_app() -> Result<config::App, StoreError> {
    Ok(config::App { key: invent('a', 11)?, secret: Secret::new(&invent('s', 31)?), name: String::new() })
}

fn whose_app(key: &str) -> String {
    format!("app:{key}")
}
