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

/// The key of this database; `given`: not from a file.
pub(super) fn find(c: &Connection, database: &Path, given: Option<&Key>) -> Result<Seal, KeyError> {
    if let Some(key) = given {
        let seal = Seal::new(key);
        return if seal::fits(c, &seal)? == Some(false) { Err(KeyError::Wrong("store.key".into())) } else { Ok(seal) };
    }
    let (path, next) = (database.with_file_name(SECRETS_FILE), database.with_file_name(NEXT_FILE));
    let present = read(&path)?;
    let sealed = |seal: &Seal| seal::fits(c, seal);
    match present {
        Some(seal) if sealed(&seal)? != Some(false) => {
            // A change of keys that did not come to its commit.
            remove(&next)?;
            Ok(seal)
        }
        None if sealed(&Seal::new(&Key::default()))?.is_none() => {
            keyfile::make(&path).map(|key| Seal::new(&key)).map_err(|error| KeyError::File(path, error))
        }
        present => match read(&next) {
            // One that did.
            Ok(Some(seal)) if sealed(&seal)? == Some(true) => {
                keyfile::rename(&next, &path).map_err(|error| KeyError::File(path, error))?;
                Ok(seal)
            }
            _ if present.is_some() => Err(KeyError::Wrong(path.display().to_string())),
            _ => Err(KeyError::Missing(path)),
        },
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
