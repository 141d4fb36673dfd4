//! Just enough HTTP/1.1 to talk to the server's API from the same machine.

use anyhow::{Context, bail};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One request, one connection. The answer's status must be 2xx.
pub fn call(api: SocketAddr, bearer: &str, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let mut stream = TcpStream::connect(api)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {api}\r\nAuthorization: Bearer {bearer}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    if head.split(' ').nth(1).is_none_or(|status| !status.starts_with('2')) {
        bail!("{method} {path}: {} {body}", head.lines().next().unwrap_or_default());
    }
    if body.is_empty() { Ok(Value::Null) } else { serde_json::from_str(body).with_context(|| format!("{path}: {body}")) }
}
