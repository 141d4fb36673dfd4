//! The server under test: the real binary in a folder of its own, on loopback, ended with its [`Server`].

use anyhow::{Context, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub const BEARER: &str = "bench-bearer";

pub struct Server {
    child: Child,
    data: PathBuf,
    pub sip: SocketAddr,
    pub api: SocketAddr,
}

impl Server {
    /// Starts it and waits for its ready line.
    pub fn start(binary: &Path, media_ports: &str) -> anyhow::Result<Server> {
        ensure!(binary.exists(), "no server at {}: cargo build --release", binary.display());
        let data = std::env::temp_dir().join(format!("doorline-bench-{}", std::process::id()));
        let mut child = Command::new(binary)
            .arg("serve")
            .arg("--data-dir")
            .arg(&data)
            .env("DOORLINE_SIP__UDP", "127.0.0.60:0")
            .env("DOORLINE_MEDIA__BIND_IP", "127.0.0.60")
            .env("DOORLINE_MEDIA__PORTS", media_ports)
            .env("DOORLINE_API__LISTEN", "127.0.0.60:0")
            .env("DOORLINE_API__BEARER", BEARER)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let ready = BufReader::new(stdout).lines().map_while(Result::ok).find(|line| line.starts_with("doorline ready"));
        let ready = ready.context("the server ended before it was ready")?;
        let word = |key: &str| ready.split(' ').find_map(|word| word.strip_prefix(key)).and_then(|addr| addr.parse().ok());
        let (sip, api) =
            (word("sip=udp:").context("no sip= in the ready line")?, word("api=http://").context("no api= in the ready line")?);
        Ok(Server { child, data, sip, api })
    }

    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        crate::http::call(self.api, BEARER, method, path, body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}
