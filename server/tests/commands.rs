//! What an operator does with a relay's data: back it up, restore it, look whether it is sound. And
//! asking how the relay is.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sds_server::{Grant, Relay, RelayConfig, Scope, Secret, mint};
use sds_store::EntryId;
use sds_sync::{ConnectOptions, LocalStore, StoreId, SyncEngine};
use tempfile::TempDir;

const SECRET: &str = "a secret of more than thirty-two characters";
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the program with `folder` for its data; says how it ended and what it printed.
fn run(folder: &Path, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sds-relay"));
    command.env_remove("SDS_CONFIG").env("SDS_JWT_SECRET", SECRET).env("SDS_DATA_DIR", folder);
    let output = command.args(words).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

async fn engine(relay: &Relay, folder: &TempDir) -> SyncEngine {
    let id = StoreId::new("s").unwrap();
    let grant = Grant {
        stores: id.clone().into(),
        subject: "desk".to_owned(),
        scope: Scope::Write,
        lifetime: Duration::from_secs(3_600),
        issuer: None,
    };
    let secret = Secret::new(SECRET).unwrap();
    let token = mint(&secret, &grant, std::time::SystemTime::now()).unwrap();
    let engine = SyncEngine::start(LocalStore::open_or_create(folder.path(), &id).unwrap());
    engine.connect(ConnectOptions::new(relay.url(), token)).unwrap();
    engine.wait_until_synced(PATIENCE).await.unwrap();
    engine
}

async fn relay(folder: &Path) -> Relay {
    Relay::start(RelayConfig::new(Secret::new(SECRET).unwrap(), folder)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_tell_what_the_file_takes() {
    let home = TempDir::new().unwrap();
    let running = relay(home.path()).await;
    let length = std::fs::metadata(home.path().join("relay.redb")).unwrap().len();
    let metrics = running.metrics();
    assert!(metrics.contains(&format!("\nsds_relay_disk_bytes {length}\n")), "{metrics}");
    running.stop().await;
}

/// Goal: the drill of the operator's handbook, from a backup to a relay on another machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_verified_and_restored_and_clients_have_everything() {
    let (home, desk_dir, phone_dir) =
        (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let (data, other) = (home.path().join("data"), home.path().join("other"));
    let running = relay(&data).await;
    let desk = engine(&running, &desk_dir).await;
    let item = desk.edit(|store| store.new_item_at(None, EntryId::ROOT, None)).unwrap().unwrap();
    desk.wait_until_synced(PATIENCE).await.unwrap();
    let file = home.path().join("backup");
    let to = file.to_str().unwrap();
    let (code, said) = run(&data, &["backup", to]);
    assert_eq!(code, Some(1), "a relay that runs keeps its file to itself: {said}");
    desk.stop().await.unwrap();
    running.stop().await;

    let (code, said) = run(&data, &["backup", to]);
    assert!(code == Some(0) && said.starts_with("backed up: "), "{said}");
    assert_eq!(run(&data, &["backup", to]).0, Some(1), "nothing is overwritten");
    assert_eq!(run(&other, &["verify", to]).0, Some(0));
    assert_eq!(run(&data, &["restore", to]).0, Some(1), "there are data already");
    assert_eq!(run(&other, &["restore", to]).0, Some(0));
    let (code, said) = run(&other, &["check"]);
    assert!(code == Some(0) && said.contains("1 stores"), "{said}");
    let again = relay(&other).await;
    let phone = engine(&again, &phone_dir).await;
    assert!(phone.read(|store| store.entry_with_id(item).is_some()).unwrap());
    phone.stop().await.unwrap();
    again.stop().await;

    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(run(&other, &["verify", to]).0, Some(3));
    let third = home.path().join("third");
    assert_eq!(run(&third, &["restore", to]).0, Some(3));
    assert!(!third.join("relay.redb").exists());
    assert_eq!(run(&third, &["check"]).0, Some(1), "there is nothing to look at");
}

#[test]
fn health_is_what_the_admin_listener_answers() {
    let folder = TempDir::new().unwrap();
    let health = |words: &[&str]| run(folder.path(), &[&["health"], words].concat());
    assert_eq!(health(&[]).0, Some(1), "there is nobody to ask");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let rows = [
        (None, "/healthz", "200 OK", Some(0)),
        (Some("--ready"), "/readyz", "503 Service Unavailable", Some(1)),
    ];
    for (word, path, status, expected) in rows {
        let listener = listener.try_clone().unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1_000];
            let size = stream.read(&mut request).unwrap();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
            String::from_utf8(request[..size].to_vec()).unwrap()
        });
        let words: Vec<&str> = word.into_iter().chain(["--admin-port", &port]).collect();
        let (code, said) = health(&words);
        assert_eq!(code, expected, "{said}");
        assert!(answering.join().unwrap().starts_with(&format!("GET {path} HTTP/1.1\r\n")));
    }
    drop(listener);
    assert_eq!(health(&["--admin-port", &port]).0, Some(1), "nobody answers");
}
