//! Opening doors while many calls are up: what the server adds between the phone's order and the door, and back.
//!
//! Calls only signal: no media flows. Phones and doors are one thread of this program, which does nothing else meanwhile. A hundred wishes a
//! second: more, and the server reads its sockets once a millisecond (`Pace` in `driver.rs`), which is then what is measured.

use crate::house::{House, Media};
use crate::ring;
use crate::stats::Row;
use anyhow::ensure;
use fixtures::server::Server;
use std::path::Path;
use std::time::Duration;

/// Between two wishes: a fifth of all doors is opened every second, which nobody does.
const EVERY: Duration = Duration::from_millis(10);
/// Longer than the hold window of a door: its next order is a pulse of its own.
const ROUND: Duration = Duration::from_millis(3500);

pub fn run(binary: &Path, calls: usize, rounds: usize) -> anyhow::Result<Vec<Row>> {
    ensure!(binary.exists(), "no server at {}: cargo build --release", binary.display());
    let settings = [("MEDIA__SILENCE_S", "0"), ("TALK__LIMIT_S", "3600"), ("SIP__SOURCE_RATE", "0")];
    let server = Server::start(binary, "127.0.0.79", "20000-29999", &settings);
    ring::provision(&server, calls, 1);
    // Nobody sends there.
    let mut house = House::new(&server, calls, 1, |_, _| Media { audio: 9, video: None })?;
    house.register()?;
    for first in (0..calls).step_by(50) {
        house.ring(first..(first + 50).min(calls))?;
    }
    house.answer()?;
    house.rest(Duration::from_secs(3))?;
    let (mut there, mut added) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let began = std::time::Instant::now();
        for call in 0..calls {
            let (order, result) = house.unlock(call, round as u16 % 999 + 1)?;
            there.push(ms(order));
            added.push(ms(order) + ms(result));
            std::thread::sleep(EVERY);
        }
        house.rest(ROUND.saturating_sub(began.elapsed()).max(Duration::from_millis(200)))?;
    }
    let wishes = calls * rounds;
    ensure!(added.len() == wishes, "{} of {wishes} wishes", added.len());
    Ok(vec![
        Row::of(format!("{calls} calls: unlock, phone → door"), "ms", there, None)?,
        Row::of(format!("{calls} calls: unlock, added there and back"), "ms", added, Some(5.0))?,
    ])
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
