//! The helper as its server sees it: started when it is first needed, killed when it takes too long, started again with
//! growing patience when it dies.

#![allow(clippy::disallowed_methods)] // a shell: owns a process and the clock

use super::helper;
use media::snapshot::{Jpeg, Preset, SnapshotError};
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};

/// Longest wait for a picture.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Rest before the second start in a row that brought no picture, doubled up to the longest.
const FIRST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Why the helper gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelperError {
    NotStarted,
    Died,
    /// Nothing within [`PATIENCE`]; it was killed.
    Hung,
    /// It said what no helper says; it was killed.
    Nonsense,
}

impl HelperError {
    /// Its counter.
    pub fn name(self) -> &'static str {
        match self {
            HelperError::NotStarted => "picture_helper_not_started",
            HelperError::Died => "picture_helper_died",
            HelperError::Hung => "picture_helper_hung",
            HelperError::Nonsense => "picture_helper_nonsense",
        }
    }
}

struct Running {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

/// See the module text.
pub struct Helper {
    program: PathBuf,
    running: Option<Running>,
    /// Starts since the last answer.
    fruitless: u32,
    /// Starts so far.
    pub starts: u64,
}

impl Helper {
    pub fn new(program: PathBuf) -> Helper {
        Helper { program, running: None, fruitless: 0, starts: 0 }
    }

    /// One picture.
    pub async fn picture(&mut self, annex_b: &[u8], preset: Preset) -> Result<Result<Jpeg, SnapshotError>, HelperError> {
        // One that died while nothing was asked of it is nobody's fault.
        let alive = self.running.take().and_then(|mut running| {
            let alive = matches!(running.child.try_wait(), Ok(None));
            alive.then_some(running)
        });
        let mut running = match alive {
            Some(running) => running,
            None => self.start().await?,
        };
        let failed = match timeout(PATIENCE, ask(&mut running, annex_b, preset)).await {
            Ok(Ok(Some(answer))) => {
                (self.running, self.fruitless) = (Some(running), 0);
                return Ok(answer);
            }
            Ok(Ok(None)) => HelperError::Nonsense,
            Ok(Err(_)) => HelperError::Died,
            Err(_) => HelperError::Hung,
        };
        // Also ends one that is stopped.
        let _ = running.child.kill().await;
        Err(failed)
    }

    async fn start(&mut self) -> Result<Running, HelperError> {
        if let Some(again) = self.fruitless.checked_sub(1) {
            sleep(FIRST_REST.saturating_mul(1 << again.min(10)).min(LONGEST_REST)).await;
        }
        self.fruitless += 1;
        self.starts += 1;
        self.spawn().map_err(|error| {
            tracing::warn!(%error, "the picture helper does not start");
            HelperError::NotStarted
        })
    }

    fn spawn(&self) -> io::Result<Running> {
        let mut command = Command::new(&self.program);
        // Nothing of ours is for its eyes: no environment, no terminal, and Ctrl-C is not meant for it.
        command.arg0("doorline").arg(helper::COMMAND).env_clear().current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else { return Err(io::ErrorKind::BrokenPipe.into()) };
        Ok(Running { child, input, output })
    }
}

/// `None`: nonsense.
async fn ask(running: &mut Running, annex_b: &[u8], preset: Preset) -> io::Result<Option<Result<Jpeg, SnapshotError>>> {
    running.input.write_all(&helper::write_request(preset, annex_b)).await?;
    let length = running.output.read_u32().await? as usize;
    if length > preset.max_bytes() + 5 {
        return Ok(None);
    }
    let mut answer = vec![0; length];
    running.output.read_exact(&mut answer).await?;
    Ok(helper::parse_answer(&answer, preset))
}
