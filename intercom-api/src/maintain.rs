//! Commands about what is stored: `rotate-key`, `backup`, `export`, `import`.

#![allow(clippy::disallowed_methods)] // a shell: owns files

use crate::config::Config;
use crate::lock::Held;
use crate::store::{backup, exchange};
use crate::{serve, store};
use anyhow::{Context, ensure};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// `doorline rotate-key`.
pub fn rotate_key(config: &Config) -> anyhow::Result<String> {
    let database = present(config)?;
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

/// `doorline backup FILE`.
pub fn backup(config: &Config, file: &Path) -> anyhow::Result<String> {
    let size = backup::backup(&present(config)?, file).context("the backup")?;
    let data_dir = config.top.data_dir.display();
    let key = if config.store.key().is_some() { "store.key" } else { store::SECRETS_FILE };
    Ok(format!(
        "{} is a whole copy of the database, {size} bytes. To be of use it needs, kept apart from it and as safe, of {data_dir}:\n  \
         {key}      opens its passwords\n  {}     signs its record\nand, if pictures of visitors are to be kept, the folder snapshots.",
        file.display(),
        store::KEY_FILE
    ))
}

/// `doorline export [FILE]`: none, or `-`, is stdout.
pub fn export(config: &Config, file: Option<&Path>, passwords: bool) -> anyhow::Result<String> {
    let (database, key) = (present(config)?, config.store.key());
    let mut out: Box<dyn Write> = match file.filter(|file| *file != Path::new("-")) {
        None => Box::new(io::stdout().lock()),
        Some(file) => {
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
            Box::new(made.with_context(|| file.display().to_string())?)
        }
    };
    let mut buffered = BufWriter::new(&mut out);
    let count = exchange::export(&database, key.as_ref(), passwords, &mut buffered).context("the export")?;
    buffered.flush().context("the export")?;
    let what = if passwords { "with passwords in clear text" } else { "without passwords" };
    Ok(format!("{count} lines, {what}"))
}

/// `doorline import FILE`: `-` is stdin.
pub fn import(config: &Config, file: &Path, replace: bool) -> anyhow::Result<String> {
    fs::create_dir_all(&config.top.data_dir).with_context(|| format!("data_dir {}", config.top.data_dir.display()))?;
    let _held = Held::new(&config.top.data_dir)?;
    let lines: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(file).with_context(|| file.display().to_string())?))
    };
    let imported = store::import(&serve::database(config), config.store.key().as_ref(), replace, lines)
        .with_context(|| format!("{}: nothing was imported", file.display()))?;
    let store::Imported { new, same, replaced } = imported;
    Ok(format!("{new} new, {replaced} replaced, {same} as they were"))
}

/// The file of the store, which is there.
fn present(config: &Config) -> anyhow::Result<PathBuf> {
    let database = serve::database(config);
    ensure!(database.exists(), "there is no database at {}", database.display());
    Ok(database)
}
