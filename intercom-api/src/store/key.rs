//! Which key seals the secrets: [`SECRETS_FILE`] beside the database, or one that is given (`store.key`). A new one is made only
//! for a database in which nothing is sealed yet, and nothing that is there is ever overwritten by a key that does not fit.
//!
//! `doorline rotate-key` puts another in its place: the new key into a file of its own, one transaction that seals everything
//! again, then the new file under the old name. Whatever is cut off, one of the two files fits, and the next start finishes.

use super::seal::{self, Seal};
use super::{OpenError, StoreError, durably};
use crate::keyfile::{self, Key};
use rusqlite::Connection;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Beside the database: seals its secrets.
pub const SECRETS_FILE: &str = "secrets.key";
/// The next one, while it is made the one.
const NEXT_FILE: &str = "secrets.key.new";

/// Why there is no key. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error("{0} is missing, and the database's passwords are sealed with it: put it back from the backup")]
    Missing(PathBuf),
    #[error("{0} does not fit the database: its passwords are sealed with another key")]
    Wrong(String),
}

/// The key of this database, after what a change of keys has left is cleared away; `given`: not from a file.
pub(super) fn find(c: &Connection, database: &Path, given: Option<&Key>) -> Result<Seal, KeyError> {
    let (path, next) = (database.with_file_name(SECRETS_FILE), database.with_file_name(NEXT_FILE));
    match look(c, database, given)? {
        Found::Given(seal) => Ok(seal),
        Found::Present(seal) => {
            // A change that did not come to its commit.
            remove(&next)?;
            Ok(seal)
        }
        Found::Next(seal) => {
            // One that did.
            keyfile::rename(&next, &path).map_err(|error| KeyError::File(path, error))?;
            Ok(seal)
        }
        Found::NoneYet => keyfile::make(&path).map(|key| Seal::new(&key)).map_err(|error| KeyError::File(path, error)),
    }
}

/// The same for who only reads beside a server.
pub(super) fn read_only(c: &Connection, database: &Path, given: Option<&Key>) -> Result<Seal, KeyError> {
    match look(c, database, given)? {
        Found::Given(seal) | Found::Present(seal) | Found::Next(seal) => Ok(seal),
        Found::NoneYet => Err(KeyError::Missing(database.with_file_name(SECRETS_FILE))),
    }
}

enum Found {
    Given(Seal),
    Present(Seal),
    Next(Seal),
    /// Nothing is sealed, and there is no key.
    NoneYet,
}

fn look(c: &Connection, database: &Path, given: Option<&Key>) -> Result<Found, KeyError> {
    let fits = |seal: &Seal| seal::fits(c, seal);
    if let Some(seal) = given.map(Seal::new) {
        return if fits(&seal)? == Some(false) { Err(KeyError::Wrong("store.key".into())) } else { Ok(Found::Given(seal)) };
    }
    let (path, next) = (database.with_file_name(SECRETS_FILE), database.with_file_name(NEXT_FILE));
    let wrong = match read(&path)? {
        Some(seal) if fits(&seal)? != Some(false) => return Ok(Found::Present(seal)),
        None if fits(&Seal::new(&Key::default()))?.is_none() => return Ok(Found::NoneYet),
        Some(_) => KeyError::Wrong(path.display().to_string()),
        None => KeyError::Missing(path),
    };
    match read(&next) {
        Ok(Some(seal)) if fits(&seal)? == Some(true) => Ok(Found::Next(seal)),
        _ => Err(wrong),
    }
}

fn read(path: &Path) -> Result<Option<Seal>, KeyError> {
    match keyfile::read_private(path) {
        Ok(key) => Ok(Some(Seal::new(&key))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KeyError::File(path.to_owned(), error)),
    }
}

fn remove(path: &Path) -> Result<(), KeyError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(KeyError::File(path.to_owned(), error)),
        _ => Ok(()),
    }
}

/// `doorline rotate-key`: seals everything with a new key; `given`: the present and the next one, if they are not in files. How
/// many secrets there are.
pub fn rotate(database: &Path, given: Option<(&Key, &Key)>) -> Result<usize, OpenError> {
    let (mut connection, old) = super::open(database, given.map(|(present, _)| present))?;
    let (path, next) = (database.with_file_name(SECRETS_FILE), database.with_file_name(NEXT_FILE));
    let new = match given {
        Some((_, key)) => *key,
        None => keyfile::make(&next).map_err(|error| KeyError::File(next.clone(), error))?,
    };
    let new = Seal::new(&new);
    let count = durably(&mut connection, &old, |t| seal::seal_again(t, &old, &new).map_err(StoreError::from))?;
    if given.is_none() {
        keyfile::rename(&next, &path).map_err(|error| KeyError::File(path, error))?;
    }
    // What the old key opens is of no use to anybody who finds it.
    seal::wipe(&connection)?;
    Ok(count)
}
