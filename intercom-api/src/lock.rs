//! One program at a time writes in a `data_dir`: a lock on a file of it that the system lets go when the program ends, however it
//! ends. Readers (`verify-records`, `backup`, `export`) do not ask for it.

#![allow(clippy::disallowed_methods)] // a shell: owns a file

use anyhow::{Context, bail};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

/// Held as long as this lives.
#[derive(Debug)]
pub struct Held {
    _file: File,
}

impl Held {
    pub fn new(data_dir: &Path) -> anyhow::Result<Held> {
        let path = data_dir.join("lock");
        let file = OpenOptions::new().create(true).append(true).open(&path).with_context(|| path.display().to_string())?;
        match file.try_lock() {
            Ok(()) => Ok(Held { _file: file }),
            Err(TryLockError::WouldBlock) => bail!("{} is in use by another doorline", data_dir.display()),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
        }
    }
}
