//! What a server costs, read from `/proc`: the CPU of its processes and their memory, nothing of ours.

use anyhow::Context;
use std::fs;

/// Clock ticks of `/proc/PID/stat` in a second (USER_HZ, the same on every Linux we run on).
const TICKS: f64 = 100.0;

/// A server and the processes it has made.
pub struct Meter {
    pid: u32,
}

impl Meter {
    pub fn new(pid: u32) -> Meter {
        Meter { pid }
    }

    /// CPU seconds so far: `utime` + `stime` of the process and its children that live.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        let ticks = self.family()?.iter().filter_map(|pid| Stat::read(*pid)).map(|stat| stat.ticks).sum::<u64>();
        Ok(ticks as f64 / TICKS)
    }

    /// Resident memory now, in KiB (of the first process only: what its children share would count twice).
    pub fn resident(&self) -> anyhow::Result<f64> {
        self.status("VmRSS:")
    }

    /// The most it ever was, in KiB.
    pub fn peak(&self) -> anyhow::Result<f64> {
        self.status("VmHWM:")
    }

    fn family(&self) -> anyhow::Result<Vec<u32>> {
        let all = fs::read_dir("/proc").context("/proc")?;
        let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        Ok(pids.filter(|pid| *pid == self.pid || Stat::read(*pid).is_some_and(|stat| stat.parent == self.pid)).collect())
    }

    fn status(&self, key: &str) -> anyhow::Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).context("the server is gone")?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)).context("no such line in status")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

struct Stat {
    parent: u32,
    ticks: u64,
}

impl Stat {
    /// proc(5): after the command, which may hold anything, in its last bracket, come state, parent and, as the 12th and
    /// 13th word, utime and stime.
    fn read(pid: u32) -> Option<Stat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let words: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        Some(Stat { parent: u32::try_from(number(1)?).ok()?, ticks: number(11)? + number(12)? })
    }
}
