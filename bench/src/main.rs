//! Timings of the real server, driven over UDP and HTTP as devices and operators do. One table; `--json` one line per row.
//!
//! Times are of this machine at this moment: compare rows of one run.

#![allow(clippy::disallowed_methods)] // a bench measures time

mod api;
mod convert;
mod house;
mod kamailio;
mod load;
mod meter;
mod register;
mod relay;
mod ring;
mod rtpengine;
mod stats;
mod storm;
mod unlock;
mod wire;

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
    /// Phones register at a fixed rate, a challenge each time: what it costs, beside Kamailio.
    Register {
        /// Registrations begun per second.
        #[arg(long, value_delimiter = ',', default_values_t = [5_000, 20_000])]
        rates: Vec<u32>,
        /// How long each.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
        #[arg(long, default_value_t = 10_000)]
        accounts: usize,
        /// Sockets, each on a loopback address of its own, that the phones share.
        #[arg(long, default_value_t = 250)]
        sockets: usize,
        /// Without Kamailio.
        #[arg(long)]
        alone: bool,
        /// Seconds between Kamailio's writes of changed bindings (its own default).
        #[arg(long, default_value_t = 60)]
        flush: u32,
    },
    /// The provisioning API of an estate of 100,000 accounts: start, memory, calls, and what phones notice of them.
    Api {
        /// Seconds for CI: a small estate. Says that it works, not how fast it is.
        #[arg(long)]
        smoke: bool,
        /// How long each part takes.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// What a packet of 20 ms costs the engine, converted between each pair of codecs.
    Convert,
    /// Packets: what forwarding costs and how long it takes, beside rtpengine; each server on one core of its own.
    Relay {
        /// A minute for CI: small, short, once. Says that it works, not how fast it is.
        #[arg(long)]
        smoke: bool,
        /// Without rtpengine.
        #[arg(long)]
        alone: bool,
        /// Only these parts.
        #[arg(long, value_delimiter = ',', default_values_t = relay::PARTS.map(str::to_owned))]
        only: Vec<String>,
        /// How often each cost is measured.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// How long each time.
        #[arg(long, default_value_t = 8)]
        seconds: u64,
    },
    /// Phones open doors while many calls are up: what the server adds.
    Unlock {
        #[arg(long, default_value_t = 500)]
        calls: usize,
        /// Wishes per call.
        #[arg(long, default_value_t = 4)]
        rounds: usize,
    },
    /// The power comes back: all phones register within ten seconds.
    Storm {
        #[arg(long, default_value_t = 10_000)]
        accounts: usize,
        /// Seconds in which all begin.
        #[arg(long, default_value_t = 10)]
        within: u32,
        /// Sockets, each on a loopback address of its own, that the phones share.
        #[arg(long, default_value_t = 1000)]
        sockets: usize,
        /// Seconds after which the memory of idle bindings is read; 0: not at all.
        #[arg(long, default_value_t = 40)]
        settle: u64,
    },
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let server = match args.server {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("doorline"),
    };
    let rows = match args.what {
        What::Ring { rings, phones, rounds } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            runtime.block_on(ring::run(&server, rings, phones, rounds))?
        }
        What::Register { rates, seconds, accounts, sockets, alone, flush } => {
            let settings = register::Settings { rates, seconds, accounts, sockets, kamailio: !alone, flush };
            register::run(&server, &settings)?
        }
        What::Api { smoke, seconds } => {
            let (accounts, groups) = if smoke { (3000, 900) } else { (100_000, 30_000) };
            api::run(&server, &api::Settings { accounts, groups, seconds: if smoke { 1 } else { seconds } })?
        }
        What::Convert => convert::run()?,
        What::Relay { smoke, alone, only, rounds, seconds } => {
            let settings = if smoke {
                relay::Settings { calls: 40, doors: 20, seconds: 1, rounds: 1, rings: 20, steps: 1, rtpengine: !alone, only }
            } else {
                relay::Settings { calls: 250, doors: 200, seconds, rounds, rings: 500, steps: 16, rtpengine: !alone, only }
            };
            relay::run(&server, &settings)?
        }
        What::Unlock { calls, rounds } => unlock::run(&server, calls, rounds)?,
        What::Storm { accounts, within, sockets, settle } => {
            storm::run(&server, &storm::Settings { accounts, within, sockets, settle })?
        }
    };
    stats::print(&rows, args.json);
    Ok(())
}
