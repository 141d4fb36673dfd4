//! Trace files: a cast, a script, the ladder in fair weather (with media commands), and how it ends in any weather.
//!
//! ```text
//! # what this is about
//! cast
//!   d1 door
//!   p1 early            early | ring | busy | eager, and behind it `tcp`, `asleep` (not registered at the start), `100rel`,
//!                       `timer` (asks for a session timer of 90 s), `offerless` (calls without an offer)
//! script                milliseconds, who, what. A storm may hold up a door's call by a minute: what needs it comes later
//!   0 d1 calls room
//!   2000 p1 answers
//! end                   facts that hold in any weather
//!   call answered by p1, caller hung up
//!   d1 answered         somebody's story holds this
//!   p2 not answered     or does not
//!   d1 one dialog
//!   p1 saw early video / p3 saw no early video
//!   p1 unlock 7 200 or p1 unlock 7 408
//! ladder                exact, in fair weather; `UPDATE_TRACES=1` writes it anew
//!   d1 > server INVITE + SDP
//! ```

use super::World;
use super::device::{Device, Habit, Traits};
use fixtures::net::Weather;
use intercom_api::model::AccountType;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub struct Trace {
    pub path: PathBuf,
    text: String,
    cast: Vec<Part>,
    script: Vec<(u64, String, String)>,
    end: Vec<String>,
    ladder: Vec<String>,
}

struct Part {
    name: String,
    habit: Habit,
    asleep: bool,
    tcp: bool,
    traits: Traits,
}

impl Trace {
    /// Every trace of `fixtures/traces`.
    pub fn all() -> Vec<Trace> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/traces");
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(folder).expect("traces").map(|entry| entry.expect("trace").path()).collect();
        paths.sort();
        paths.iter().map(|path| Trace::read(path)).collect()
    }

    /// The same where everybody knows 100rel; `None` where the end is about somebody who does not.
    pub fn with_100rel(mut self) -> Option<Trace> {
        if self.cast.iter().any(|part| part.traits.offerless && !part.traits.reliable) {
            return None;
        }
        self.cast.iter_mut().for_each(|part| part.traits.reliable = true);
        Some(self)
    }

    fn read(path: &Path) -> Trace {
        let text = std::fs::read_to_string(path).expect("a trace");
        let mut trace =
            Trace { path: path.to_owned(), text: text.clone(), cast: vec![], script: vec![], end: vec![], ladder: vec![] };
        let mut section = "";
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            if !line.starts_with(' ') {
                section = line.trim();
                continue;
            }
            let line = line.trim();
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or_default();
            match section {
                "cast" => {
                    let name = word().to_owned();
                    let habit = match word() {
                        "door" => Habit::Door,
                        "early" => Habit::Early,
                        "ring" => Habit::Ring,
                        "busy" => Habit::Busy,
                        "eager" => Habit::Eager,
                        other => panic!("{}: no habit {other}", path.display()),
                    };
                    let words: Vec<&str> = words.collect();
                    let is = |what: &str| words.contains(&what);
                    let traits = Traits { reliable: is("100rel"), timer: is("timer"), offerless: is("offerless") };
                    trace.cast.push(Part { name, habit, asleep: is("asleep"), tcp: is("tcp"), traits });
                }
                "script" => {
                    let (at, who) = (word().parse().expect("milliseconds"), word().to_owned());
                    trace.script.push((at, who, words.collect::<Vec<_>>().join(" ")));
                }
                "end" => trace.end.push(line.to_owned()),
                "ladder" => trace.ladder.push(line.to_owned()),
                other => panic!("{}: no section {other}", path.display()),
            }
        }
        trace
    }

    /// Plays it; the ladder is that of the script, without the registrations before it.
    pub fn play(&self, weather: Weather, seed: u64) -> World {
        let kind = |habit: Habit| if habit == Habit::Door { AccountType::Door } else { AccountType::App };
        let accounts: Vec<(&str, AccountType)> = self.cast.iter().map(|part| (part.name.as_str(), kind(part.habit))).collect();
        let mut world = World::new(weather, seed, &accounts);
        for (index, Part { name, habit, asleep, tcp, traits }) in self.cast.iter().enumerate() {
            let device = Device::that(name, 11 + index as u8, *habit, seed.wrapping_mul(31) + index as u64, *traits);
            world.add(if *tcp { device.over_tcp() } else { device });
            if *habit != Habit::Door && !asleep {
                world.act(name, |device, now| device.register(now));
            }
        }
        world.run(Duration::from_secs(40));
        world.record();
        let begin = world.now;
        for (at, who, what) in &self.script {
            world.run_until(begin + Duration::from_millis(*at));
            self.act(&mut world, who, what);
        }
        world
    }

    fn act(&self, world: &mut World, who: &str, what: &str) {
        let words: Vec<&str> = what.split(' ').collect();
        match words.as_slice() {
            ["calls", number] => world.act(who, |d, now| d.call(now, number)),
            ["answers"] => world.act(who, |d, now| d.decide(now, 200)),
            ["declines"] => world.act(who, |d, now| d.decide(now, 603)),
            ["hangs", "up"] => world.act(who, |d, now| d.hang_up(now)),
            ["registers"] => world.act(who, |d, now| d.register(now)),
            ["loses", "its", "media"] => world.act(who, |d, _| d.dark = true),
            ["loses", "its", "connection"] => world.reset(who),
            ["reconnects"] => world.act(who, |d, now| d.reconnect(now)),
            ["falls", "asleep"] => world.act(who, |d, _| d.asleep = true),
            ["wakes"] => world.act(who, |d, now| {
                d.asleep = false;
                d.register(now);
            }),
            ["moves"] => world.act(who, |d, now| {
                d.reboot(Some(99));
                d.register(now);
            }),
            ["holds"] => world.act(who, |d, now| d.hold(now, true)),
            ["resumes"] => world.act(who, |d, now| d.hold(now, false)),
            ["roams"] => world.act(who, |d, now| d.roam(now, 98)),
            ["tells", whom, text] => world.act(who, |d, now| d.tell(now, whom, text)),
            ["reboots"] => world.act(who, |d, _| d.reboot(None)),
            ["asks", "for", "a", "key", "frame"] => {
                world.act(who, |d, now| d.info(now, "application/media_control+xml", "<media_control/>"));
            }
            ["loses", what, count] => world.losses.push((who.to_owned(), (*what).to_owned(), count.parse().expect("a count"))),
            ["unlocks", reqsn] => world.act(who, |d, now| d.unlock(now, reqsn.parse().expect("a number"))),
            ["unlocks", door, "by", "message", reqsn] => {
                world.act(who, |d, now| d.unlock_by_message(now, door, reqsn.parse().expect("a number")));
            }
            ["dials", key] => world.act(who, |d, now| d.info(now, "application/dtmf", key)),
            ["refuses", "INFO"] => world.act(who, |d, _| d.agent.info_code = 488),
            ["opens", "silently"] => world.act(who, |d, _| d.silent = true),
            ["waits"] => {}
            other => panic!("{}: nobody can {other:?}", self.path.display()),
        }
    }

    /// Checks the end facts; an error tells the first that does not hold.
    pub fn check_end(&self, world: &mut World) -> Result<(), String> {
        world.settle()?;
        for fact in &self.end {
            // `A is so or so`: what bad weather may make of it; the ladder says what fair weather does.
            let mut failed = None;
            for way in fact.split(" or ") {
                match self.check_fact(world, way) {
                    Ok(()) => {
                        failed = None;
                        break;
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    fn check_fact(&self, world: &World, fact: &str) -> Result<(), String> {
        let holds = match fact.split_once(' ') {
            Some(("call", rest)) => {
                let said: Vec<String> = world.calls.values().map(summary).collect();
                if !said.iter().any(|summary| summary == rest) {
                    return Err(format!("no call was `{rest}`, but {said:?}"));
                }
                true
            }
            Some(("record", rest)) => {
                let said: Vec<String> =
                    world.records.iter().map(|r| format!("{} {} {}", r.account, r.outcome, r.status)).collect();
                if !said.iter().any(|entry| entry == rest) {
                    return Err(format!("no record says `{rest}`, but {said:?}"));
                }
                true
            }
            Some((who, rest)) => {
                let device = world.devices.get(who).ok_or_else(|| format!("nobody is {who}"))?;
                let told = |what: &str| device.story.iter().any(|event| event == what);
                match rest {
                    "one dialog" => device.tags.windows(2).all(|pair| pair[0] == pair[1]),
                    "saw early video" => device.early_video > 0,
                    "saw no early video" => device.early_video == 0,
                    "heard nothing early" => device.audio_in == 0,
                    "talked" => device.audio_in > 0,
                    "opened never" => device.openings == 0,
                    "opened once" => device.openings == 1,
                    rest => rest.strip_prefix("not ").map_or_else(|| told(rest), |what| !told(what)),
                }
            }
            None => false,
        };
        if !holds {
            let stories: Vec<_> = world.devices.values().map(|d| (&d.name, &d.story, d.early_video)).collect();
            return Err(format!("`{fact}` does not hold: {stories:?}"));
        }
        Ok(())
    }

    /// May it end in more than one way when the weather is bad?
    pub fn has_choices(&self) -> bool {
        self.end.iter().any(|fact| fact.contains(" or "))
    }

    /// Compares the ladder, or writes it anew when asked to.
    pub fn check_ladder(&self, world: &World) -> Result<(), String> {
        if std::env::var_os("UPDATE_TRACES").is_some() {
            let head = self.text.split("\nladder\n").next().unwrap_or_default().trim_end();
            let lines: String = world.ladder.iter().map(|line| format!("  {line}\n")).collect();
            std::fs::write(&self.path, format!("{head}\nladder\n{lines}")).expect("the trace is written");
            return Ok(());
        }
        match self.ladder.iter().zip(&world.ladder).position(|(a, b)| a != b) {
            Some(at) => Err(format!("line {}: `{}` instead of `{}`", at + 1, world.ladder[at], self.ladder[at])),
            None if self.ladder.len() != world.ladder.len() => {
                Err(format!("{} lines instead of {}: {:#?}", world.ladder.len(), self.ladder.len(), world.ladder))
            }
            None => Ok(()),
        }
    }
}

/// `answered by p1, caller hung up` or `all declined`.
fn summary(call: &intercom_api::live::CallView) -> String {
    let reason = call.end_reason.clone().unwrap_or_else(|| call.state.to_owned());
    call.answered_by.as_ref().map_or(reason.clone(), |who| format!("answered by {who}, {reason}"))
}
