//! Keys of the server's own: 32 random bytes in a file that only its owner reads, made at the first start.

#![allow(clippy::disallowed_methods)] // a shell: owns files

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The key in a file, made if there is none. The same key after a restart keeps valid what it has signed.
pub fn read_or_make(path: &Path) -> io::Result<[u8; 32]> {
    match read(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
        result => return result,
    }
    let key = random()?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&key)?;
    file.sync_data()?;
    Ok(key)
}

/// The key in a file.
pub fn read(path: &Path) -> io::Result<[u8; 32]> {
    fs::read(path)?.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a key has 32 bytes"))
}

/// 32 bytes of the operating system.
pub fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(format!("no randomness: {error}")))?;
    Ok(bytes)
}
