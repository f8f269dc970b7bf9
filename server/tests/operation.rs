//! The program as its operator meets it: checking a configuration, changing a certificate, stopping, and
//! what shows in the log.
#![cfg(unix)]

mod support {
    #[expect(dead_code, reason = "relays run in processes of their own")]
    pub(crate) mod admin;
    pub(crate) mod common;
    pub(crate) mod engines;
    pub(crate) mod http;
    pub(crate) mod process;
}

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use sds_engine::{Change, Op, Patch, ReplicaId};
use sds_server::limits::{
    OPENINGS_PER_MINUTE_MAX, REFUSED_FRAMES_PER_MINUTE_MAX, REFUSED_OPENINGS_PER_MINUTE_MAX,
};
use sds_sync::transport::{Connection, FrameReceiver, FrameSender, connect};
use sds_sync::{CertificateHash, ClientFrame, RefusalCode, RelayFrame, RelayUrl, Token, Trust};
use support::admin::{ask, operator};
use support::common::{PATIENCE, SECRET, folder};
use support::engines::{add_item, present, synced, writer};
use support::process::{RelayProcess, program, with_secret};
use tokio::time::{sleep, timeout};

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_check_prints_everything_but_secrets_and_changes_nothing() {
    let folder = folder();
    let config = folder.path().join("relay.toml");
    std::fs::write(&config, "port = 1\nhost = '::1'\n[limits]\nstreams = 70\n").unwrap();
    let check = |words: &[&str]| -> Output {
        let mut command = program();
        command.env("SDS_CONFIG", &config).env("SDS_PORT", "2").env("SDS_LIMITS_OPEN_STORES", "3");
        command.arg("--check").args(words).output().unwrap()
    };
    let good = check(&["--drain-seconds", "9"]);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    let printed: toml::Table = text(&good.stdout).parse().unwrap();
    assert_eq!(printed["port"].as_integer(), Some(2), "the environment wins over the file");
    assert_eq!(printed["host"].as_str(), Some("::1"));
    assert_eq!(printed["drain_seconds"].as_integer(), Some(9));
    assert_eq!(printed["limits"]["streams"].as_integer(), Some(70));
    assert_eq!(printed["limits"]["open_stores"].as_integer(), Some(3));
    assert!(!text(&good.stdout).contains(SECRET));
    assert_eq!(check(&["--port", "3"]).status.code(), Some(0), "flags win over all");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was made");

    let bad = check(&["--log-level", "a=b=c", "--cert", "/gone", "--key", "/gone"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(text(&bad.stderr).contains("log_level") && text(&bad.stderr).contains("/gone"));
    std::fs::write(&config, "port = 1\nhots = 'x'\n").unwrap();
    let bad = check(&[]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(text(&bad.stderr).contains("line 2") && text(&bad.stderr).contains("hots"));
}

/// Acceptance 165.
#[test]
fn a_relay_without_a_secret_or_with_a_short_one_does_not_start() {
    let folder = folder();
    for secret in ["", "x", &"x".repeat(31)] {
        let mut command = program();
        command.env("SDS_JWT_SECRET", secret).args(["--port", "0", "--data-dir"]);
        let output = command.arg(folder.path().join("data")).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("secret"), "{}", text(&output.stderr));
    }
    assert!(!folder.path().join("data").exists());
}

/// Goal: whoever names other keys in the file is told if the environment's secret would go on in their place.
#[test]
fn keys_beside_the_secret_of_the_environment_neither_check_nor_start() {
    let folder = folder();
    let config = folder.path().join("relay.toml");
    std::fs::write(&config, "[[keys]]\nkid = 'new'\nsecret_file = 'new'\n").unwrap();
    std::fs::write(folder.path().join("new"), "n".repeat(32)).unwrap();
    let run = |words: &[&str], unset: bool| {
        let mut command = program();
        if unset {
            command.env_remove("SDS_JWT_SECRET");
        }
        command.arg("--config").arg(&config).args(words).output().unwrap()
    };
    for words in [&["--check"][..], &["--port", "0"]] {
        let output = run(words, false);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        let said = text(&output.stderr);
        assert!(said.contains("SDS_JWT_SECRET") && said.contains("[[keys]]"), "{said}");
    }
    assert_eq!(run(&["--check"], true).status.code(), Some(0), "with the keys alone it is fine");
}

struct Certificate {
    made: CertifiedKey<rcgen::KeyPair>,
}

impl Certificate {
    fn new() -> Self {
        Self { made: generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap() }
    }

    fn write(&self, folder: &Path) {
        std::fs::write(folder.join("chain.pem"), self.made.cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), self.made.signing_key.serialize_pem()).unwrap();
    }

    fn pinned(&self, url: &RelayUrl) -> RelayUrl {
        RelayUrl::new(url.host(), url.port(), Some(CertificateHash::of(self.made.cert.der())))
            .unwrap()
    }
}

/// Goal: a certificate is changed without a restart, and a mistake in it does no harm.
#[tokio::test(flavor = "multi_thread")]
async fn another_certificate_is_shown_while_connections_last_and_a_broken_one_never() {
    let (home, files, store) = (folder(), folder(), folder());
    let (first, second) = (Certificate::new(), Certificate::new());
    first.write(files.path());
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| files.path().join(name));
    let words = ["--cert", chain.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let relay = RelayProcess::start(home.path(), &words);
    let desk = present(store.path(), first.pinned(&relay.url), writer("desk")).await;
    let shows = async |certificate: &Certificate| {
        let url = certificate.pinned(&relay.url);
        connect(&url, &Trust::of(&url)).await.is_ok()
    };

    // Half of a change, which anybody may be caught in.
    std::fs::write(&chain, second.made.cert.pem()).unwrap();
    relay.signal("HUP");
    sleep(Duration::from_millis(500)).await;
    assert!(shows(&first).await && !shows(&second).await);
    std::fs::write(&chain, "no certificate").unwrap();
    relay.signal("HUP");
    sleep(Duration::from_millis(500)).await;
    assert!(shows(&first).await);

    // Nobody tells it of this one.
    second.write(files.path());
    let changed = async {
        while !shows(&second).await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, changed).await.unwrap();
    assert!(!shows(&first).await);
    add_item(&desk, "note");
    synced(&desk).await;
    assert_eq!(desk.status().last_error, None, "the connection has lasted");
    desk.stop().await.unwrap();
    relay.signal("TERM");
    let (code, log) = relay.wait();
    assert_eq!(code, Some(0));
    let complaints = log.lines().filter(|line| line.contains("the former one stays")).count();
    assert_eq!(complaints, 2, "each mistake is told once\n{log}");
}

/// Acceptance 182.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_told_to_stop_tells_its_clients_and_ends_in_time() {
    let home = folder();
    let relay = RelayProcess::start(home.path(), &[]);
    let connection = connect(&relay.url, &Trust::of(&relay.url)).await.unwrap();
    let (mut sender, mut receiver) = connection.open_stream().await.unwrap();
    let version = sds_engine::Version::new().encode().into();
    let open =
        ClientFrame::Open { protocol: 3, store: "s".to_owned(), token: writer("desk"), version };
    sender.send(&open).await.unwrap();
    let opened = receiver.next::<RelayFrame>().await.unwrap();
    assert!(matches!(opened, Some(RelayFrame::Opened { .. })));
    let told = Instant::now();
    relay.signal("TERM");
    let last = timeout(PATIENCE, receiver.next::<RelayFrame>()).await.unwrap().unwrap();
    let Some(RelayFrame::Refused { code, .. }) = last else { panic!("{last:?}") };
    assert_eq!(RefusalCode::from_number(code), RefusalCode::ShuttingDown);
    connection.close().await;
    let (code, _) = relay.wait();
    assert_eq!(code, Some(0));
    assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
}

/// Goal: a client that has fallen silent delays the end no longer than configured, and a second signal
/// ends at once.
/// Method: a client whose runtime nobody runs any more.
#[test]
fn a_silent_client_delays_the_end_only_so_long_and_a_second_signal_not_at_all() {
    for signals in [1, 2] {
        let home = folder();
        let seconds = if signals == 1 { "2" } else { "30" };
        let relay = RelayProcess::start(home.path(), &["--drain-seconds", seconds]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let silent = runtime.block_on(async {
            let connection = connect(&relay.url, &Trust::of(&relay.url)).await.unwrap();
            let (mut sender, mut receiver) = connection.open_stream().await.unwrap();
            let version = sds_engine::Version::new().encode().into();
            let store = "s".to_owned();
            let open = ClientFrame::Open { protocol: 3, store, token: writer("desk"), version };
            sender.send(&open).await.unwrap();
            receiver.next::<RelayFrame>().await.unwrap().unwrap();
            (connection, sender, receiver)
        });
        let told = Instant::now();
        relay.signal("TERM");
        if signals == 2 {
            std::thread::sleep(Duration::from_millis(500));
            relay.signal("TERM");
        }
        let (code, _) = relay.wait();
        if signals == 2 {
            assert_eq!(code, Some(1));
            assert!(told.elapsed() < Duration::from_secs(15), "{:?}", told.elapsed());
        } else {
            assert_eq!(code, Some(0));
            assert!(told.elapsed() > Duration::from_millis(1_900), "{:?}", told.elapsed());
            assert!(told.elapsed() < Duration::from_secs(9), "{:?}", told.elapsed());
        }
        drop((silent, runtime));
    }
}

/// Goal: a disk that hangs does not keep the program from its end, and whoever started it hears of that.
/// Method: an audit log that is a pipe, which nobody reads and which is full.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_hangs_delays_the_end_only_so_long_and_shows_in_the_code() {
    const PIPE_BYTES: usize = 64 << 10;
    let home = folder();
    let relay = RelayProcess::start(home.path(), &["--log-format", "json"]);
    let audit = home.path().join("audit.jsonl");
    std::fs::remove_file(&audit).unwrap();
    assert!(Command::new("mkfifo").arg(&audit).status().unwrap().success());
    let mut pipe = std::fs::OpenOptions::new().read(true).write(true).open(&audit).unwrap();
    pipe.write_all(&[0; PIPE_BYTES]).unwrap();
    let told = Instant::now();
    relay.signal("TERM");
    let (code, log) = relay.wait();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("the disk hangs and is not waited for"), "{log}");
    assert!(told.elapsed() < Duration::from_secs(25), "{:?}", told.elapsed());
}

/// Goal: whoever tells the relay to read its files again while it starts does not end it. Method: a file that
/// the relay reads at its start is a pipe, which the test does not close before it has sent the signal.
#[test]
fn a_relay_that_starts_is_not_ended_by_a_signal_to_read_its_files_again() {
    let home = folder();
    let pipe = home.path().join("revocations.jsonl");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = program();
    command.args(["--port", "0", "--data-dir"]).arg(home.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // Until the relay reads it.
    let held = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    let id = child.id().to_string();
    let signal = |name: &str| {
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    };
    signal("HUP");
    std::thread::sleep(Duration::from_millis(300));
    drop(held);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("sds-relay listens on"), "{line:?}: {:?}", child.try_wait());
    signal("TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Goal: the address that the unit and the container set is all addresses, of both kinds.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_listens_on_all_addresses_is_reached_by_either_kind() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        // A machine without the one kind cannot show it.
        return;
    }
    let home = folder();
    let relay = RelayProcess::start(home.path(), &["--host", "::"]);
    for host in ["127.0.0.1", "::1"] {
        let url = RelayUrl::new(host, relay.url.port(), relay.url.pin()).unwrap();
        assert!(connect(&url, &Trust::of(&url)).await.is_ok(), "{host}");
    }
    relay.signal("TERM");
    assert_eq!(relay.wait().0, Some(0));
}

/// Goal: neither tokens nor secrets nor contents are in the log, however much is logged.
/// Method: a session with an edit, a blob, presence, refused tokens and broken frames, all at trace.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_neither_tokens_nor_contents() {
    for format in ["text", "json"] {
        let (home, folder) = (folder(), folder());
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = free.local_addr().unwrap();
        drop(free);
        let port = admin.port().to_string();
        let words = ["--log-level", "trace", "--log-format", format, "--admin-port", &port];
        let relay = RelayProcess::start(home.path(), &words);
        let desk = present(folder.path(), relay.url.clone(), writer("desk")).await;
        let payload = "what-nobody-else-may-read";
        let item = add_item(&desk, payload);
        let text = payload.repeat(40_000);
        desk.edit(|store| store.write_value(item, text.as_str())).unwrap().unwrap();
        desk.signal(None, payload).unwrap();
        synced(&desk).await;
        let connection = connect(&relay.url, &Trust::of(&relay.url)).await.unwrap();
        let signed = writer("desk");
        let version: bytes::Bytes = sds_engine::Version::new().encode().into();
        let with = |token: &str, store: &str| ClientFrame::Open {
            protocol: 3,
            store: store.to_owned(),
            token: Token::from(token.to_owned()),
            version: version.clone(),
        };
        let forged = format!("{}x", signed.reveal());
        let rows = [with(signed.reveal(), "other"), with(&forged, "s"), with(signed.reveal(), "s")];
        for row in rows {
            let (mut sender, mut receiver) = connection.open_stream().await.unwrap();
            sender.send(&row).await.unwrap();
            receiver.next::<RelayFrame>().await.unwrap().unwrap();
            let broken = [&20_u32.to_le_bytes()[..], &[200], payload.as_bytes()].concat();
            // Who was refused is not listened to any more.
            let _refused = sender.send_encoded(broken.into()).await;
        }
        connection.close().await;
        let operator = operator();
        let body = r#"{"sub":"desk","scope":"read","store":"s"}"#;
        let minted = ask(admin, ("POST", "/api/token"), &operator, body).await.json();
        let minted = minted["token"].as_str().unwrap();
        let forged_admin = Token::from(format!("{}x", operator.reveal()));
        assert_eq!(ask(admin, ("GET", "/api/status"), &forged_admin, "").await.status, 401);
        let revoke = format!("{{\"token\":\"{minted}\"}}");
        assert_eq!(ask(admin, ("POST", "/api/revoke"), &operator, &revoke).await.status, 200);
        desk.stop().await.unwrap();
        relay.signal("TERM");
        let (code, log) = relay.wait();
        assert_eq!(code, Some(0));
        assert!(log.lines().any(|line| line.contains("opened") && line.contains("desk")), "{log}");
        let signature = signed.reveal().rsplit('.').next().unwrap();
        let tail = |token: &str| token.rsplit('.').next().unwrap().to_owned();
        let (of_admin, of_minted) = (tail(operator.reveal()), tail(minted));
        for secret in [SECRET, payload, signature, signed.reveal(), &of_admin, &of_minted] {
            let found = log.lines().find(|line| line.contains(secret));
            assert_eq!(found, None, "{secret}");
        }
        if format == "json" {
            let parsed = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
            assert!(log.lines().all(parsed), "each line is an object");
        }
    }
}

/// Goal: nobody fills a disk with what the log tells of them. Method: somebody without a good token, and a
/// member who opens a store again and again, and whose frames are no good.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_only_so_often_of_what_clients_do() {
    let home = folder();
    let words = ["--limit", "stranger_frames_per_second=20000"];
    let relay = RelayProcess::start(home.path(), &words);
    let connection = connect(&relay.url, &Trust::of(&relay.url)).await.unwrap();
    let none = Token::from("none".to_owned());
    for _ in 0..2 * REFUSED_OPENINGS_PER_MINUTE_MAX {
        let refused = open(&connection, &none).await.1.next().await.unwrap();
        assert!(matches!(refused, Some(RelayFrame::Refused { .. })), "{refused:?}");
    }
    let member = writer("desk");
    let lacking = Patch::new(vec![change(1, 5)]).encode().into();
    let lacking = ClientFrame::Changes { patch: lacking };
    for number in 0..2 * OPENINGS_PER_MINUTE_MAX + 100 {
        let (mut sender, mut receiver) = open(&connection, &member).await;
        match number % 2 {
            0 => sender.send(&lacking).await.unwrap(),
            _ => sender.send_encoded(vec![1, 0, 0, 0, 200].into()).await.unwrap(),
        }
        while let Some(frame) = receiver.next::<RelayFrame>().await.unwrap() {
            drop(frame);
        }
    }
    connection.close().await;
    relay.signal("TERM");
    let (code, log) = relay.wait();
    assert_eq!(code, Some(0));
    let rows = [
        ("not opened", REFUSED_OPENINGS_PER_MINUTE_MAX),
        (" opened", OPENINGS_PER_MINUTE_MAX),
        ("malformed frame", REFUSED_FRAMES_PER_MINUTE_MAX),
        ("changes refused", REFUSED_FRAMES_PER_MINUTE_MAX),
    ];
    for (what, max) in rows {
        let told = log.lines().filter(|line| line.contains(what)).count();
        // A minute may end meanwhile.
        assert!((max as usize..=2 * max as usize).contains(&told), "{told} times {what}");
    }
}

/// Goal: whoever reads the log holds nobody up. Method: a log that nobody reads, and more in it than a pipe
/// takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_nobody_up() {
    const OPENINGS: usize = 100;
    let home = folder();
    let mut command = with_secret(Command::new("sh"));
    command.args(["-c", r#"mkfifo "$0" && exec "$@" 2<>"$0""#]).arg(home.path().join("log"));
    command.arg(env!("CARGO_BIN_EXE_sds-relay")).args(["--log-level", "trace"]);
    let relay = RelayProcess::spawn(command, &home.path().join("data"));
    let connection = connect(&relay.url, &Trust::of(&relay.url)).await.unwrap();
    for _ in 0..OPENINGS {
        let (_, mut receiver) = open(&connection, &writer("desk")).await;
        let answer = timeout(PATIENCE, receiver.next::<RelayFrame>()).await.expect("an answer");
        assert!(matches!(answer, Ok(Some(RelayFrame::Opened { .. }))), "{answer:?}");
    }
    connection.close().await;
    relay.signal("TERM");
    assert_eq!(relay.wait().0, Some(0));
}

/// A stream that asks for the store.
async fn open(connection: &Connection, token: &Token) -> (FrameSender, FrameReceiver) {
    let (mut sender, receiver) = connection.open_stream().await.unwrap();
    let (store, token) = ("s".to_owned(), token.clone());
    let version = sds_engine::Version::new().encode().into();
    sender.send(&ClientFrame::Open { protocol: 3, store, token, version }).await.unwrap();
    (sender, receiver)
}

/// A change that takes one counter.
fn change(author: u64, start: u64) -> Change {
    let author = ReplicaId::new(author).unwrap();
    Change::new(author, start, Vec::new(), &[Op::Skip { count: 1 }]).unwrap()
}
