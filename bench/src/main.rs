//! Timings of the real server, driven over UDP and HTTP as devices and operators do. One table; `--json` one line per row.
//!
//! Times are of this machine at this moment: compare rows of one run.

#![allow(clippy::disallowed_methods)] // a bench measures time

mod ring;
mod stats;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Doorline's timings")]
struct Args {
    /// The server to measure; by default the `doorline` beside this program.
    #[arg(long)]
    server: Option<PathBuf>,
    /// One JSON object per row instead of the table.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Doors ring rooms, all at once: INVITE → 183 and first picture per phone (D-20).
    Ring {
        /// Rings at the same time.
        #[arg(long, default_value_t = 50)]
        rings: usize,
        /// Phones per room.
        #[arg(long, default_value_t = 2)]
        phones: usize,
        /// How often.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let server = match args.server {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("doorline"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let rows = runtime.block_on(async {
        match args.what {
            What::Ring { rings, phones, rounds } => ring::run(&server, rings, phones, rounds).await,
        }
    })?;
    stats::print(&rows, args.json);
    Ok(())
}
