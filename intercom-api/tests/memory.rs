//! What an idle phone costs: its binding in Location with its deadline, its entry in the read model, its row in the store.

use intercom_api::directory::Directory;
use intercom_api::keeper::Rows;
use intercom_api::live::{Live, Restorable};
use intercom_api::model::{Account, AccountType, DirectoryChange, Number, Secret};
use intercom_api::switchboard::{Parts, Switchboard};
use intercom_api::turn::Settings;
use media::ports::PortStock;
use sip_core::digest::{Algorithm, Challenger};
use sip_core::flow::{Flow, Transport};
use sip_core::location::Binding;
use std::time::{Duration, Instant};

const PHONES: usize = 50_000;

/// Memory of this process that is in use, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn number(index: usize) -> String {
    format!("U1residentA{index:011}")
}

/// As Linphone registers, which says more than others.
fn binding(now: Instant, index: usize) -> Binding {
    let remote = ([192, 0, 2, (index % 200) as u8], 1024 + (index / 200) as u16).into();
    Binding {
        account: number(index).into(),
        contact_uri: format!("sip:{}@192.168.100.133:62039;transport=udp", number(index)).into(),
        instance: Some(format!("<urn:uuid:00000000-0000-4000-8000-{index:012}>").into()),
        reg_id: None,
        path: None,
        flow: Flow { transport: Transport::Udp, local: ([203, 0, 113, 5], 6050).into(), remote },
        registered_at: now,
        expires_at: now + Duration::from_millis(600_000 + index as u64),
        call_id: format!("7ay7mqUOymEj-{index:011}").into(),
        cseq: 21,
        user_agent: Some("LinphoneAndroid/5.2.5 (Galaxy A54 von Maria) LinphoneSDK/5.3.47".into()),
        written_as_of: now,
        contested: 0,
        rival: None,
    }
}

#[test]
#[allow(clippy::disallowed_methods)] // some instant to begin at
fn an_idle_binding_costs_less_than_a_kibibyte() {
    let now = Instant::now();
    let mut directory = Directory::default();
    let account = |index: usize| {
        let (number, password) = (Number::new(&number(index)), Secret::new("p4kq2"));
        DirectoryChange::PutAccount(Account {
            number,
            password,
            kind: AccountType::App,
            name: None,
            created_ms: 0,
            app: Default::default(),
        })
    };
    directory.apply((0..PHONES).map(account).collect());
    let mut board = Switchboard::new(Parts {
        settings: Settings::default(),
        realm: "doorline".into(),
        public_host: None,
        directory,
        ports: PortStock::new([]),
        seed: [1; 32],
        nonce_key: [2; 32],
        epoch: (now, 0),
    });
    let (live, mut rows) = (Live::default(), Rows::default());
    let keys = Challenger::new([2; 32], "doorline", Algorithm::MD5);
    let before = resident();
    for first in (0..PHONES).step_by(500) {
        let stored = |index: usize| {
            let binding = binding(now, index);
            Restorable { made_with: keys.proof(&binding.account, "p4kq2"), binding }
        };
        let some = (first..first + 500).map(stored).collect();
        for registration in board.restore(now, some) {
            rows.put(registration.binding.account.clone(), first as i64);
            live.registrations.insert(registration.binding.account.clone(), registration);
        }
    }
    let each = (resident() - before) / PHONES;
    println!("{each} bytes per idle binding, {} of them the struct", size_of::<Binding>());
    assert_eq!(live.registrations.len(), PHONES);
    assert!((200..=1024).contains(&each), "{each} bytes per idle binding");
}
