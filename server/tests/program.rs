//! The program as an operator meets it: what it prints, how it ends, what survives its death.
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use sds_store::EntryId;
use sds_sync::{ConnectOptions, LocalStore, RelayUrl, StoreId, SyncEngine, Token};
use tempfile::TempDir;

const SECRET: &str = "a secret of more than thirty-two characters";
const PATIENCE: Duration = Duration::from_secs(20);

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sds-relay"));
    command.env("SDS_JWT_SECRET", SECRET).env_remove("SDS_ISSUER").stderr(Stdio::null());
    command
}

fn output(words: &[&str]) -> Output {
    program().args(words).output().unwrap()
}

/// Starts a relay on a free port, and reads its URL from the one line that it prints.
fn start(folder: &Path) -> (Child, RelayUrl) {
    spawn(program(), folder)
}

fn spawn(mut command: Command, folder: &Path) -> (Child, RelayUrl) {
    command.args(["--port", "0", "--data-dir"]).arg(folder).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.split_whitespace().last().unwrap().parse().unwrap();
    (child, url)
}

/// Lets a process write files of so many bytes, or of any length.
#[cfg(target_os = "linux")]
fn limit_files(child: &Child, bytes: Option<u64>) {
    let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let process = format!("--pid={}", child.id());
    let mut prlimit = Command::new("prlimit");
    prlimit.args([process, format!("--fsize={limit}:unlimited")]);
    assert!(prlimit.status().unwrap().success());
}

fn token() -> Token {
    let printed = output(&["token", "--store", "s", "--sub", "desk", "--scope", "write"]).stdout;
    Token::from(String::from_utf8(printed).unwrap().trim().to_owned())
}

async fn engine(folder: &TempDir, url: &RelayUrl) -> SyncEngine {
    let id = StoreId::new("s").unwrap();
    let engine = SyncEngine::start(LocalStore::open_or_create(folder.path(), &id).unwrap());
    engine.connect(ConnectOptions::new(url.clone(), token())).unwrap();
    engine.wait_until_synced(PATIENCE).await.unwrap();
    engine
}

#[test]
fn bad_usage_and_a_weak_secret_are_2() {
    let token = ["token", "--store", "s", "--sub", "desk"];
    assert_eq!(output(&token).status.code(), Some(0));
    for bad in
        [["--expires-in", "3x"], ["--scope", "root"], ["--store", ""], ["--expires-in", "0d"]]
    {
        assert_eq!(output(&[token.as_slice(), &bad].concat()).status.code(), Some(2), "{bad:?}");
    }
    let weak = program().env("SDS_JWT_SECRET", "short").args(token).output().unwrap();
    assert_eq!(weak.status.code(), Some(2));
    assert!(weak.stdout.is_empty());
}

/// Goal: nothing that was acknowledged is lost with the process.
/// Method: SIGKILL after the acknowledgement, SIGTERM the second time.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_death_of_the_relay() {
    let (home, ann_dir, bob_dir) =
        (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let (mut first, url) = start(home.path());
    let desk = engine(&ann_dir, &url).await;
    let item = desk.edit(|store| store.new_item_at(None, EntryId::ROOT, None)).unwrap().unwrap();
    desk.wait_until_synced(PATIENCE).await.unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    drop(desk);

    let (mut second, again) = start(home.path());
    assert_eq!(again.pin(), url.pin(), "the certificate stays");
    let phone = engine(&bob_dir, &again).await;
    assert!(phone.read(|store| store.entry_with_id(item).is_some()).unwrap());
    let terminated = Command::new("kill").arg(second.id().to_string()).status().unwrap();
    assert!(terminated.success());
    assert_eq!(second.wait().unwrap().code(), Some(0));
}

/// Goal: a relay whose disk was full goes on by itself when there is space again.
/// Method: a bound on the length of its file, taken away while it runs.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_disk_was_full_goes_on_when_there_is_space_again() {
    let (home, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut command = Command::new("sh");
    // Past the bound a write is to fail, not to kill.
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_sds-relay")]);
    command.env("SDS_JWT_SECRET", SECRET).env_remove("SDS_ISSUER").stderr(Stdio::null());
    let (mut relay, url) = spawn(command, home.path());
    let id = StoreId::new("s").unwrap();
    let engine = SyncEngine::start(LocalStore::open_or_create(folder.path(), &id).unwrap());
    engine.connect(ConnectOptions::new(url, token())).unwrap();
    engine.wait_until_synced(PATIENCE).await.unwrap();

    let length = std::fs::metadata(home.path().join("relay.redb")).unwrap().len();
    limit_files(&relay, Some(length));
    for _ in 0..200 {
        let added = engine.edit(|store| {
            let item = store.new_item_at(None, EntryId::ROOT, None)?;
            store.write_value(item, "x".repeat(8_000).as_str())
        });
        added.unwrap().unwrap();
    }
    let mut status = engine.watch_status();
    let refused = status.wait_for(|status| status.last_error == Some("relay-storage-failed"));
    assert!(tokio::time::timeout(PATIENCE, refused).await.is_ok(), "{:?}", engine.status());

    limit_files(&relay, None);
    engine.wait_until_synced(PATIENCE).await.unwrap();
    engine.stop().await.unwrap();
    relay.kill().unwrap();
    relay.wait().unwrap();
}
