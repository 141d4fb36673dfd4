//! Kamailio as a registrar, beside which Doorline is measured: the package of Debian with the shortest configuration that
//! does the same: digest with `qop=auth`, one contact per account, bindings on disk.

use anyhow::{Context, ensure};
use fixtures::process::{Folder, Process, wait_until};
use rusqlite::Connection;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Where its package puts the tables.
const SCHEMAS: &str = "/usr/share/kamailio/db_sqlite";

pub struct Kamailio {
    process: Process,
    _folder: Folder,
    pub sip: SocketAddr,
}

impl Kamailio {
    /// Starts it on a free port of `ip`. `flush` is how often, in seconds, changed bindings are written (usrloc's write-back,
    /// `db_mode` 2).
    pub fn start(ip: &str, realm: &str, workers: u32, flush: u32) -> anyhow::Result<Kamailio> {
        let folder = Folder::new("kamailio");
        let database = folder.path().join("kamailio.sqlite");
        let tables = Connection::open(&database)?;
        for name in ["standard-create.sql", "usrloc-create.sql"] {
            let path = Path::new(SCHEMAS).join(name);
            let text = fs::read_to_string(&path).with_context(|| format!("{}: `./dev bench` installs it", path.display()))?;
            tables.execute_batch(&text)?;
        }
        drop(tables);
        let sip = UdpSocket::bind((ip, 0))?.local_addr()?;
        let config = folder.path().join("kamailio.cfg");
        fs::write(&config, configuration(sip, realm, workers, flush, &database))?;
        let mut command = Command::new("kamailio");
        command.args(["-DD", "-E", "-m", "512", "-M", "32", "-f"]).arg(&config).arg("-Y").arg(folder.path());
        command.arg("-w").arg(folder.path());
        let mut process = Process::start("kamailio", folder.path(), &mut command);
        let probe = UdpSocket::bind((ip, 0))?;
        probe.set_read_timeout(Some(Duration::from_millis(50)))?;
        let options = format!(
            "OPTIONS sip:{sip} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKprobe;rport\r\nFrom: <sip:probe@{ip}>;tag=1\r\n\
             To: <sip:probe@{ip}>\r\nCall-ID: probe\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            probe.local_addr()?
        );
        let answered = wait_until(Duration::from_secs(10), || {
            let _ = probe.send_to(options.as_bytes(), sip);
            probe.recv(&mut [0; 2048]).is_ok() || !process.is_running()
        });
        ensure!(answered && process.is_running(), "Kamailio does not answer:\n{}", process.output());
        Ok(Kamailio { process, _folder: folder, sip })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

fn configuration(sip: SocketAddr, realm: &str, workers: u32, flush: u32, database: &Path) -> String {
    let (ip, database) = (sip.ip(), database.display());
    format!(
        r#"#!KAMAILIO
debug=-1
log_stderror=yes
fork=yes
children={workers}
listen=udp:{sip}
alias="{ip}"
auto_aliases=no
disable_tcp=yes
dns=no
rev_dns=no
loadmodule "db_sqlite.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
modparam("auth", "qop", "auth")
modparam("usrloc", "db_url", "sqlite:///{database}")
modparam("usrloc", "db_mode", 2)
modparam("usrloc", "timer_interval", {flush})
modparam("usrloc", "hash_size", 14)
modparam("registrar", "max_contacts", 1)
request_route {{
    if (method != "REGISTER") {{
        sl_send_reply("405", "Method Not Allowed");
        exit;
    }}
    if (!pv_www_authenticate("{realm}", "pw-$au", "0")) {{
        www_challenge("{realm}", "1");
        exit;
    }}
    if ($au != $tU) {{
        sl_send_reply("403", "Forbidden");
        exit;
    }}
    if (!save("location")) sl_reply_error();
    exit;
}}
"#
    )
}
