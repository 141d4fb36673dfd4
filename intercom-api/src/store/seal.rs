//! Secrets at rest: passwords are readable by the API's owners, so they are kept encrypted, not hashed.
//!
//! A sealed text is a BLOB: version (1), id of the key (4 bytes), nonce (12), then AES-256-GCM's ciphertext and tag. What comes
//! before the ciphertext and whose it is (`account:<number>`) are authenticated with it, so a value that was moved to another row
//! does not open. Nonces are random: 2³² seals with one key are safe (NIST SP 800-38D §8.3), and an estate makes far fewer.

use crate::keyfile::Key;
use crate::model::Secret;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rusqlite::types::{Type, Value};
use rusqlite::{Connection, OptionalExtension, Transaction};
use sha2::{Digest, Sha256};
use std::ops::Deref;

const VERSION: u8 = 1;
const ID_LEN: usize = 4;
const HEAD_LEN: usize = 1 + ID_LEN + NONCE_LEN;

/// Every column that is sealed: table, column, the key of its rows, whose it is (a prefix of that key).
const SEALED: &[(&str, &str, &str, &str)] = &[
    ("account", "password", "number", "account"),
    ("door", "password", "iot_id", "door"),
    ("app", "secret", "key", "app"),
    ("hook", "secret", "id", "hook"),
];

/// In the table `setting`: a text sealed with the store's key, by which a key that does not fit is known.
const CHECK: &str = "store.key";
/// In the table `setting`: what was rewritten is still in free pages of the file.
const WIPE: &str = "store.wipe";

/// Why a sealed text does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsealed {
    #[error("the operating system has no randomness")]
    NoRandomness,
    #[error("it is not a sealed text of a version this program knows")]
    Form,
    #[error("it is sealed with another key")]
    Key,
    #[error("it was changed, or moved from another row")]
    Changed,
}

/// Seals and opens.
pub struct Seal {
    id: [u8; ID_LEN],
    key: LessSafeKey,
}

impl Seal {
    pub fn new(key: &Key) -> Seal {
        let mut id = [0; ID_LEN];
        let hash = Sha256::new().chain_update(b"doorline key id\0").chain_update(key).finalize();
        id.copy_from_slice(&hash[..ID_LEN]);
        // A key of the algorithm's length is one.
        let key = UnboundKey::new(&AES_256_GCM, key).unwrap_or_else(|_| unreachable!());
        Seal { id, key: LessSafeKey::new(key) }
    }

    /// What is stored for a text; `whose` is said again to open it.
    pub fn seal(&self, whose: &str, text: &str) -> rusqlite::Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| rusqlite::Error::ToSqlConversionFailure(Unsealed::NoRandomness.into()))?;
        let mut sealed = Vec::with_capacity(HEAD_LEN + text.len() + AES_256_GCM.tag_len());
        for part in [&[VERSION], &self.id[..], &nonce, text.as_bytes()] {
            sealed.extend_from_slice(part);
        }
        let (head, body) = sealed.split_at_mut(HEAD_LEN);
        let aad = Aad::from([&head[..], whose.as_bytes()].concat());
        // It fails only for texts of gigabytes.
        let tag = self.key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, body);
        let tag = tag.map_err(|_| rusqlite::Error::ToSqlConversionFailure(Unsealed::Form.into()))?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// The text that was sealed.
    pub fn open(&self, whose: &str, sealed: &[u8]) -> rusqlite::Result<Secret> {
        self.try_open(whose, sealed).map_err(|why| {
            tracing::error!(whose, %why, "a secret does not open");
            rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, why.into())
        })
    }

    fn try_open(&self, whose: &str, sealed: &[u8]) -> Result<Secret, Unsealed> {
        let (head, body) = sealed.split_at_checked(HEAD_LEN).filter(|(head, _)| head[0] == VERSION).ok_or(Unsealed::Form)?;
        if head[1..=ID_LEN] != self.id {
            return Err(Unsealed::Key);
        }
        let nonce = Nonce::try_assume_unique_for_key(&head[1 + ID_LEN..]).map_err(|_| Unsealed::Form)?;
        let (aad, mut body) = (Aad::from([head, whose.as_bytes()].concat()), body.to_vec());
        let text = self.key.open_in_place(nonce, aad, &mut body).map_err(|_| Unsealed::Changed)?;
        std::str::from_utf8(text).map(Secret::new).map_err(|_| Unsealed::Form)
    }
}

/// A transaction that can seal and open.
pub struct Tx<'c> {
    pub(super) transaction: Transaction<'c>,
    pub(super) seal: &'c Seal,
}

impl<'c> Deref for Tx<'c> {
    type Target = Transaction<'c>;

    fn deref(&self) -> &Transaction<'c> {
        &self.transaction
    }
}

impl Tx<'_> {
    /// A BLOB for a column that [`SEALED`] lists; `whose`: its prefix there, a colon, the key of the row.
    pub fn seal(&self, whose: &str, text: &str) -> rusqlite::Result<Vec<u8>> {
        self.seal.seal(whose, text)
    }

    pub fn open(&self, whose: &str, sealed: &[u8]) -> rusqlite::Result<Secret> {
        self.seal.open(whose, sealed)
    }
}

/// Does this key fit the database? `None`: nothing in it is sealed yet.
pub(super) fn fits(c: &Connection, seal: &Seal) -> rusqlite::Result<Option<bool>> {
    let version: i64 = c.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version < super::schema::SEALED_SINCE {
        return Ok(None);
    }
    let check: Option<String> = c.query_row("SELECT value FROM setting WHERE name = ?1", [CHECK], |row| row.get(0)).optional()?;
    let check = check.and_then(|text| from_hex(&text));
    Ok(Some(check.is_some_and(|check| seal.try_open(CHECK, &check).is_ok())))
}

/// Within a migration: what stands in clear text in the columns `password` goes into the columns `sealed`.
pub(super) fn seal_clear_text(t: &Transaction<'_>, seal: &Seal) -> rusqlite::Result<()> {
    let clear = SEALED.iter().filter(|(table, ..)| ["account", "door"].contains(table));
    for (table, _, key, prefix) in clear {
        let write = format!("UPDATE {table} SET sealed = ?2 WHERE {key} = ?1");
        rewrite(t, &format!("SELECT {key}, password FROM {table}"), &write, |whose, clear| match clear {
            Value::Text(text) => seal.seal(&format!("{prefix}:{whose}"), text),
            _ => Err(rusqlite::Error::ToSqlConversionFailure(Unsealed::Form.into())),
        })?;
    }
    write_check(t, seal)
}

/// Seals everything with another key. How many secrets there are.
pub(super) fn seal_again(t: &Transaction<'_>, old: &Seal, new: &Seal) -> rusqlite::Result<usize> {
    let mut count = 0;
    for (table, column, key, prefix) in SEALED {
        let write = format!("UPDATE {table} SET {column} = ?2 WHERE {key} = ?1");
        count += rewrite(t, &format!("SELECT {key}, {column} FROM {table}"), &write, |whose, sealed| {
            let whose = format!("{prefix}:{whose}");
            match sealed {
                Value::Blob(sealed) => new.seal(&whose, old.open(&whose, sealed)?.reveal()),
                _ => Err(rusqlite::Error::ToSqlConversionFailure(Unsealed::Form.into())),
            }
        })?;
    }
    write_check(t, new)?;
    Ok(count)
}

fn rewrite(
    t: &Transaction<'_>,
    read: &str,
    write: &str,
    seal: impl Fn(&str, &Value) -> rusqlite::Result<Vec<u8>>,
) -> rusqlite::Result<usize> {
    let mut read = t.prepare(read)?;
    let rows = read.query_map([], |row| Ok((row.get::<_, Value>(0)?, row.get::<_, Value>(1)?)))?;
    // Not while they are read: what is changed could come by again.
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let mut write = t.prepare(write)?;
    for (key, value) in &rows {
        let whose = match key {
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            _ => return Err(rusqlite::Error::ToSqlConversionFailure(Unsealed::Form.into())),
        };
        write.execute((key, seal(&whose, value)?))?;
    }
    Ok(rows.len())
}

fn write_check(t: &Transaction<'_>, seal: &Seal) -> rusqlite::Result<()> {
    let mut write = t.prepare("INSERT OR REPLACE INTO setting (name, value) VALUES (?1, ?2)")?;
    write.execute((CHECK, super::chain::hex(&seal.seal(CHECK, "doorline")?)))?;
    write.execute((WIPE, "1"))?;
    Ok(())
}

/// After a rewrite: what was there before is in no page of the file and not in its log. Goes on at the next start if it was cut off.
pub(super) fn wipe(c: &Connection) -> rusqlite::Result<()> {
    if c.query_row("SELECT 1 FROM setting WHERE name = ?1", [WIPE], |_| Ok(())).optional()?.is_none() {
        return Ok(());
    }
    c.execute_batch("VACUUM")?;
    truncate_log(c)?;
    c.execute("DELETE FROM setting WHERE name = ?1", [WIPE])?;
    Ok(())
}

/// What is in the write-ahead log goes into the database, and the log is empty.
pub(super) fn truncate_log(c: &Connection) -> rusqlite::Result<()> {
    let busy: i64 = c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy == 0 { Ok(()) } else { Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(5), None)) }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    if text.len().is_multiple_of(2) { (0..text.len()).step_by(2).map(pair).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_with_its_key_and_in_its_row() {
        let seal = Seal::new(&[7; 32]);
        for text in ["", "p", "pässword", &"x".repeat(50)] {
            let sealed = seal.seal("account:101", text).unwrap();
            assert_eq!(sealed.len(), HEAD_LEN + text.len() + 16);
            assert_eq!(seal.try_open("account:101", &sealed), Ok(Secret::new(text)));
            assert_eq!(seal.try_open("account:102", &sealed), Err(Unsealed::Changed), "another row");
            assert_eq!(seal.try_open("door:101", &sealed), Err(Unsealed::Changed), "another table");
            assert_eq!(Seal::new(&[8; 32]).try_open("account:101", &sealed), Err(Unsealed::Key));
            assert_ne!(seal.seal("account:101", text).unwrap(), sealed, "a nonce of its own");
        }
    }

    #[test]
    fn no_byte_of_it_can_be_changed_or_missing() {
        let seal = Seal::new(&[7; 32]);
        let sealed = seal.seal("account:101", "secret").unwrap();
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert!(seal.try_open("account:101", &other).is_err(), "byte {at}");
            assert!(seal.try_open("account:101", &sealed[..at]).is_err(), "cut at {at}");
        }
    }
}
