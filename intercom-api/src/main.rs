//! `doorline`: the command line.

use clap::{Parser, Subcommand, ValueEnum};
use intercom_api::config::{self, Config};
use intercom_api::pictures::album::utc;
use intercom_api::store::verify;
use intercom_api::{demo, maintain, pictures, serve};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(
    name = "doorline",
    version,
    about = "SIP intercom media server: every phone of a room sees the visitor before anyone answers"
)]
struct Args {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Args)]
struct Options {
    /// TOML file; none is needed.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Where the database lives; wins over file and environment.
    #[arg(long, global = true)]
    data_dir: Option<PathBuf>,
    /// Logs go to stderr.
    #[arg(long, global = true, value_enum, default_value_t = Log::Human)]
    log: Log,
}

#[derive(Clone, Copy, ValueEnum)]
enum Log {
    Human,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server (also what `doorline` alone does).
    Serve,
    /// Let a simulated door ring three simulated phones through a real server on this machine, and check it.
    Demo,
    /// Say what is wrong with the configuration; exit 2 if anything is.
    Check,
    /// Print the effective configuration as commented TOML.
    Config,
    /// Check that the record is what was written; exit 1 if anything is changed, missing or added. Reads only, also while the
    /// server runs.
    VerifyRecords {
        /// An entry and its hash that an earlier run printed, `ID:HASH`: finds a store that was put back to an older state.
        #[arg(long)]
        expect: Option<String>,
    },
    /// Copy the database as it is now, also while the server runs.
    Backup {
        /// Must not be there yet.
        file: PathBuf,
    },
    /// Write what is provisioned as JSON lines, passwords in clear text; also while the server runs.
    Export {
        /// Must not be there yet; none or `-`: stdout.
        file: Option<PathBuf>,
        /// Leave out passwords and codes that open doors.
        #[arg(long)]
        without_passwords: bool,
    },
    /// Read what `export` wrote, all of it or nothing. The server must not run.
    Import {
        /// `-`: stdin.
        file: PathBuf,
        /// What is there already and differs is replaced; otherwise it is refused.
        #[arg(long)]
        replace: bool,
    },
    /// Seal all passwords of the database with a new key, and put that in the place of the present one. The server must not run.
    RotateKey,
    /// Started by the server itself: decodes pictures of doors, apart from everything else.
    #[command(hide = true)]
    PictureHelper,
}

fn main() -> ExitCode {
    let Args { options, command } = Args::parse();
    match command {
        // The demo's server has settings of its own.
        Some(Command::Demo) => return demo::run(),
        Some(Command::PictureHelper) => return pictures::helper::run(),
        _ => {}
    }
    let mut config = match config::load(options.config.as_deref(), std::env::vars()) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                eprintln!("doorline: {problem}");
            }
            return ExitCode::from(2);
        }
    };
    if let Some(data_dir) = options.data_dir {
        config.top.data_dir = data_dir;
    }
    match command.unwrap_or(Command::Serve) {
        Command::Check => {
            println!("configuration is fine");
            ExitCode::SUCCESS
        }
        Command::Config => {
            print!("{}", config.to_toml());
            ExitCode::SUCCESS
        }
        Command::Demo => demo::run(),
        Command::PictureHelper => pictures::helper::run(),
        Command::VerifyRecords { expect } => verify_records(&config, expect.as_deref()),
        Command::Backup { file } => finish(maintain::backup(&config, &file)),
        Command::Export { file, without_passwords } => finish(maintain::export(&config, file.as_deref(), !without_passwords)),
        Command::Import { file, replace } => finish(maintain::import(&config, &file, replace)),
        Command::RotateKey => finish(maintain::rotate_key(&config)),
        Command::Serve => run(&config, options.log),
    }
}

fn verify_records(config: &Config, expect: Option<&str>) -> ExitCode {
    let expect = match expect.map(|text| text.split_once(':').and_then(|(id, hash)| Some((id.parse().ok()?, hash.to_owned())))) {
        Some(None) => {
            eprintln!("doorline: --expect takes ID:HASH");
            return ExitCode::from(2);
        }
        expect => expect.flatten(),
    };
    match verify::verify(&serve::database(config), &serve::album(config), expect) {
        Ok(found) => {
            for warning in &found.warnings {
                eprintln!("doorline: warning: {warning}");
            }
            let (from, to) = (utc(found.from_ms), utc(found.to_ms));
            println!("{} records, {} entries, chain whole from {from} to {to}", found.records, found.entries);
            println!("last entry {}:{}", found.head.0, found.head.1);
            ExitCode::SUCCESS
        }
        Err(broken) => {
            eprintln!("doorline: the record is not whole: {broken}");
            ExitCode::FAILURE
        }
    }
}

/// What a command says when it is done, or what went wrong.
fn finish(said: anyhow::Result<String>) -> ExitCode {
    match said {
        Ok(said) => {
            eprintln!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("doorline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config, log: Log) -> ExitCode {
    let filter = EnvFilter::try_from_env("RUST_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log {
        Log::Human => builder.init(),
        Log::Json => builder.json().init(),
    }
    match serve::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("doorline: {error:#}");
            ExitCode::FAILURE
        }
    }
}
