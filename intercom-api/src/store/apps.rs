//! Which app of the API the installation's own things belong to (spec admin-api.md §2.1).

use super::*;

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
}
