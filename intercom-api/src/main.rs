//! `doorline`: the command line.

use clap::{Parser, Subcommand, ValueEnum};
use intercom_api::config::{self, Config};
use intercom_api::{demo, pictures, serve};
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
        Command::Serve => run(&config, options.log),
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
