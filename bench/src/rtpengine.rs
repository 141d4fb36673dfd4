//! rtpengine in user space, beside which packets are measured: the package of Debian, told over its ng protocol (bencoded
//! dictionaries over UDP) what a SIP proxy would tell it.

use anyhow::{Context, ensure};
use fixtures::process::{Folder, Process, wait_until};
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

pub struct Rtpengine {
    process: Process,
    _folder: Folder,
    control: UdpSocket,
    ng: SocketAddr,
    cookie: u32,
}

impl Rtpengine {
    /// Starts it on `ip` without its kernel module. `threads`: 0 is its own choice.
    pub fn start(ip: &str, ports: &str, threads: u32) -> anyhow::Result<Rtpengine> {
        let folder = Folder::new("rtpengine");
        let ng = UdpSocket::bind((ip, 0))?.local_addr()?;
        let (from, to) = ports.split_once('-').context("a range of ports")?;
        let mut command = Command::new("rtpengine");
        command.args(["--foreground", "--log-stderr", "--log-level=3", "--table=-1", "--delete-delay=0"]);
        command.args([format!("--interface={ip}"), format!("--listen-ng={ng}")]);
        command.args([format!("--port-min={from}"), format!("--port-max={to}")]);
        command.args(["--config-file=none", "--timeout=3600", "--silent-timeout=3600"]);
        if threads > 0 {
            command.arg(format!("--num-threads={threads}"));
        }
        let mut process = Process::start("rtpengine", folder.path(), &mut command);
        let control = UdpSocket::bind((ip, 0))?;
        control.set_read_timeout(Some(Duration::from_millis(50)))?;
        let ping = || control.send_to(b"0 d7:command4:pinge", ng).is_ok() && control.recv(&mut [0; 100]).is_ok();
        let answered = wait_until(Duration::from_secs(10), || ping() || !process.is_running());
        ensure!(answered && process.is_running(), "rtpengine does not answer:\n{}", process.output());
        control.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Rtpengine { process, _folder: folder, control, ng, cookie: 0 })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A call between two addresses with one medium; where each of the two has to send.
    pub fn call(&mut self, id: &str, medium: &str, a: SocketAddr, b: SocketAddr) -> anyhow::Result<(SocketAddr, SocketAddr)> {
        let (for_b, for_a) = (self.ask("offer", id, medium, a)?, self.ask("answer", id, medium, b)?);
        Ok((for_a, for_b))
    }

    fn ask(&mut self, command: &str, id: &str, medium: &str, at: SocketAddr) -> anyhow::Result<SocketAddr> {
        self.cookie += 1;
        let (ip, port) = (at.ip(), at.port());
        let sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm={}\r\n",
            medium.replace("PORT", &port.to_string())
        );
        let mut fields = vec![("call-id", id), ("command", command), ("from-tag", "a"), ("sdp", &sdp)];
        if command == "answer" {
            fields.push(("to-tag", "b"));
        }
        let body: String = fields.iter().map(|(key, value)| format!("{}:{key}{}:{value}", key.len(), value.len())).collect();
        self.control.send_to(format!("{} d{body}e", self.cookie).as_bytes(), self.ng)?;
        let mut buffer = [0; 4096];
        let length = self.control.recv(&mut buffer).context("no answer from rtpengine")?;
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let ip = text.split("c=IN IP4 ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let port = text.split("m=").nth(1).and_then(|rest| rest.split(' ').nth(1));
        let address = ip.zip(port).and_then(|(ip, port)| Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?)));
        address.with_context(|| format!("rtpengine: {text}"))
    }
}
