//! Which app of the API the installation's own things belong to (spec admin-api.md §2.1).

use super::write::invent;
use super::*;
use crate::config;

const OWN: &str = "own_app";

impl Store {
    /// The app that stands for the installation itself: the first there ever was, however the list is ordered later.
    pub async fn own_app(&self, first: String) -> Result<String, StoreError> {
        self.transact(move |t| {
            t.execute("INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING", (OWN, &first))?;
            Ok(t.query_row("SELECT value FROM setting WHERE name = ?1", [OWN], |row| row.get(0))?)
        })
        .await
    }

    /// The app that is there where none was set, and whether it was made only now. Its secret is sealed like every password.
    pub async fn made_app(&self) -> Result<(config::App, bool), StoreError> {
        self.transact(|t| {
            let mut query = t.prepare("SELECT key, secret FROM app")?;
            let found: Option<(String, Vec<u8>)> = query.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let app = |key: String, secret| config::App { key, secret, name: String::new() };
            if let Some((key, sealed)) = found {
                let secret = t.open(&whose_app(&key), &sealed)?;
                return Ok((app(key, secret), false));
            }
            let (key, secret) = (invent('a', 11)?, invent('s', 31)?);
            let sealed = t.seal(&whose_app(&key), &secret)?;
            t.execute("INSERT INTO app (key, secret) VALUES (?1, ?2)", (&key, sealed))?;
            Ok((app(key, Secret::new(&secret)), true))
        })
        .await
    }
}

fn whose_app(key: &str) -> String {
    format!("app:{key}")
}
