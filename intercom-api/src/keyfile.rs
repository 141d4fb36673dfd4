//! Keys of the server's own: 32 random bytes in a file that only its owner reads, made at the first start.

#![allow(clippy::disallowed_methods)] // a shell: owns files

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

pub type Key = [u8; 32];

/// The key in a file, made if there is none. The same key after a restart keeps valid what it has signed.
pub fn read_or_make(path: &Path) -> io::Result<Key> {
    match read(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => make(path),
        result => result,
    }
}

/// The key in a file.
pub fn read(path: &Path) -> io::Result<Key> {
    fs::read(path)?.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a key has 32 bytes"))
}

/// The same, and an error if anybody but its owner can read it.
pub fn read_private(path: &Path) -> io::Result<Key> {
    if fs::metadata(path)?.mode() & 0o077 != 0 {
        let what = format!("others than its owner can read it: chmod 600 {}", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    read(path)
}

/// A new key in a file that has its name only when it is whole and on the disk.
pub fn make(path: &Path) -> io::Result<Key> {
    let key = random()?;
    let draft = path.with_added_extension("draft");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(&key)?;
    file.sync_all()?;
    rename(&draft, path)?;
    Ok(key)
}

/// Renames for good: also after a power cut.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// 32 bytes of the operating system.
pub fn random() -> io::Result<Key> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(format!("no randomness: {error}")))?;
    Ok(bytes)
}

/// 64 hex digits.
pub fn parse(text: &str) -> Option<Key> {
    let mut key = Key::default();
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in key.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2).filter(|pair| !pair.starts_with('+'))?, 16).ok()?;
    }
    Some(key)
}
