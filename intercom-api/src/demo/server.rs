//! The demo's server: this same binary as a child process in a folder of its own, used over HTTP as anybody would.

#![allow(clippy::disallowed_methods)] // a shell: has tasks

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Longest wait for the ready line, and for the end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    child: Child,
    folder: PathBuf,
    bearer: String,
    pub sip: SocketAddr,
    pub api: SocketAddr,
}

impl Server {
    /// Starts it on loopback with ports of the system's choice, and waits for its ready line.
    pub async fn start(bearer: String) -> anyhow::Result<Server> {
        let folder = std::env::temp_dir().join(format!("doorline-demo.{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let log = fs::File::create(folder.join("server.log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--data-dir"]).arg(folder.join("data"));
        // The demo shows the defaults: settings of the surroundings are for the server of the surroundings.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DOORLINE_")) {
            command.env_remove(name);
        }
        command
            .env("DOORLINE_SIP__UDP", "127.0.0.1:0")
            .env("DOORLINE_API__LISTEN", "127.0.0.1:0")
            .env("DOORLINE_API__BEARER", &bearer)
            .env("DOORLINE_MEDIA__BIND_IP", "127.0.0.1")
            .env("DOORLINE_MEDIA__PORTS", "40000-40063")
            .env("DOORLINE_DRAIN_S", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().context("the server did not start")?;
        let output = child.stdout.take().context("no output")?;
        let mut line = String::new();
        timeout(PATIENCE, BufReader::new(output).read_line(&mut line)).await.context("the server is not ready in time")??;
        let word = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse().ok());
        let (Some(sip), Some(api)) = (word("sip=udp:"), word("api=http://")) else {
            let log = fs::read_to_string(folder.join("server.log")).unwrap_or_default();
            let _ = fs::remove_dir_all(&folder);
            anyhow::bail!("the server did not start:\n{log}");
        };
        Ok(Server { child, folder, bearer, sip, api })
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, &Value::Null).await
    }

    /// A call that must succeed.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, body).await
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let bytes = self.bytes(method, path, body).await?;
        serde_json::from_slice(&bytes).with_context(|| format!("{path}: {}", String::from_utf8_lossy(&bytes)))
    }

    /// A picture.
    pub async fn image(&self, path: &str) -> anyhow::Result<Bytes> {
        self.bytes(Method::GET, path, &Value::Null).await
    }

    async fn bytes(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Bytes> {
        let stream = TcpStream::connect(self.api).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the one exchange; its errors are the exchange's.
        tokio::spawn(connection);
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.api.to_string())
            .header("authorization", format!("Bearer {}", self.bearer))
            .header("content-type", "application/json")
            .header("connection", "close")
            .body(Full::new(Bytes::from(text)))?;
        let response = timeout(PATIENCE, sender.send_request(request)).await.with_context(|| format!("{path}: no answer"))??;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        let fine = status == StatusCode::OK || status == StatusCode::CREATED;
        ensure!(fine, "{path}: {status} {}", String::from_utf8_lossy(&bytes));
        Ok(bytes)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }

    /// SIGTERM, and the end: `true` when it ended with 0. The folder goes with it.
    pub async fn stop(mut self) -> io::Result<bool> {
        if let Some(pid) = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let status = timeout(PATIENCE, self.child.wait()).await.map_err(io::Error::other)??;
        Ok(status.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
