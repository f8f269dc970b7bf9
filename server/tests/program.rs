//! The program as an operator meets it: what it prints, how it ends, what survives its death.
#![cfg(unix)]

mod support {
    pub(crate) mod common;
    pub(crate) mod engines;
    pub(crate) mod process;
    #[expect(dead_code, reason = "relays run in processes of their own, and nobody writes by hand")]
    pub(crate) mod stream;
}

use std::process::{Command, Output};

use sds_sync::limits::BLOB_CHUNK_BYTES_MAX;
use sds_sync::transport::connect;
use sds_sync::{ClientFrame, RelayFrame, Token, Trust};
use sha2::{Digest, Sha256};
use support::common::{PATIENCE, folder};
use support::engines::{add_item, present, synced, writer};
use support::process::{RelayProcess, program, with_secret};
use support::stream::Stream;

fn output(words: &[&str]) -> Output {
    program().args(words).output().unwrap()
}

/// Lets a process write files of so many bytes, or of any length.
#[cfg(target_os = "linux")]
fn limit_files(relay: &RelayProcess, bytes: Option<u64>) {
    let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let process = format!("--pid={}", relay.id());
    let mut prlimit = Command::new("prlimit");
    prlimit.args([process, format!("--fsize={limit}:unlimited")]);
    assert!(prlimit.status().unwrap().success());
}

/// A token as the program prints it.
fn printed_token() -> Token {
    let printed = output(&["token", "--store", "s", "--sub", "desk", "--scope", "write"]).stdout;
    Token::from(String::from_utf8(printed).unwrap().trim().to_owned())
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
    let nobody = ["token", "--store", "s", "--sub", ""];
    assert_eq!(output(&nobody).status.code(), Some(2));
    let weak = program().env("SDS_JWT_SECRET", "short").args(token).output().unwrap();
    assert_eq!(weak.status.code(), Some(2));
    assert!(weak.stdout.is_empty());
}

/// Goal: whoever watches over the program hears that it is ready, and again and again that it is alive.
#[test]
fn the_service_manager_is_told_that_the_relay_is_ready_and_alive() {
    let home = folder();
    let socket = home.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = program();
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "20000");
    let relay = RelayProcess::spawn(command, home.path());
    let mut told = Vec::new();
    while told.iter().filter(|line| *line == "WATCHDOG=1").count() < 3 {
        let mut bytes = [0; 100];
        let len = manager.recv(&mut bytes).unwrap();
        told.extend(std::str::from_utf8(&bytes[..len]).unwrap().lines().map(str::to_owned));
    }
    assert_eq!(told[0], "READY=1");
    relay.signal("TERM");
    assert_eq!(relay.wait().0, Some(0));
}

/// Goal: nothing that was acknowledged is lost with the process.
/// Method: SIGKILL after the acknowledgement, SIGTERM the second time.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_death_of_the_relay() {
    let (home, ann_dir, bob_dir) = (folder(), folder(), folder());
    let first = RelayProcess::start(home.path(), &[]);
    let pin = first.url.pin();
    let desk = present(ann_dir.path(), first.url.clone(), printed_token()).await;
    let item = add_item(&desk, "note");
    synced(&desk).await;
    drop((first, desk));

    let second = RelayProcess::start(home.path(), &[]);
    assert_eq!(second.url.pin(), pin, "the certificate stays");
    let phone = present(bob_dir.path(), second.url.clone(), printed_token()).await;
    assert!(phone.read(|store| store.entry_with_id(item).is_some()).unwrap());
    second.signal("TERM");
    assert_eq!(second.wait().0, Some(0));
}

/// Goal: a relay whose disk was full goes on by itself when there is space again.
/// Method: a bound on the length of its file, taken away while it runs.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_disk_was_full_goes_on_when_there_is_space_again() {
    let (home, folder) = (folder(), folder());
    let mut command = Command::new("sh");
    // Past the bound a write is to fail, not to kill.
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_sds-relay")]);
    let relay = RelayProcess::spawn(with_secret(command), home.path());
    let engine = present(folder.path(), relay.url.clone(), writer("desk")).await;

    let length = std::fs::metadata(home.path().join("relay.redb")).unwrap().len();
    limit_files(&relay, Some(length));
    for _ in 0..200 {
        let item = add_item(&engine, "");
        let text = "x".repeat(8_000);
        engine.edit(|store| store.write_value(item, text.as_str())).unwrap().unwrap();
    }
    let mut status = engine.watch_status();
    let refused = status.wait_for(|status| status.last_error == Some("relay-storage-failed"));
    assert!(tokio::time::timeout(PATIENCE, refused).await.is_ok(), "{:?}", engine.status());

    limit_files(&relay, None);
    synced(&engine).await;
    engine.stop().await.unwrap();
}

/// Goal: an upload during which the relay is killed shows nothing before it is whole, and goes on afterwards.
/// Method: kills after more and more of its pieces, and what came back in the end.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_the_relay_was_killed() {
    let home = folder();
    let bytes: Vec<u8> = (0..=250).cycle().take(10 * BLOB_CHUNK_BYTES_MAX + 7).collect();
    let (hash, size) = (Sha256::digest(&bytes).into(), bytes.len() as u64);
    let store = || "s".to_owned();
    let mut furthest = 0;
    for pieces in [3, 7, usize::MAX] {
        let relay = RelayProcess::start(home.path(), &[]);
        let connection = connect(&relay.url, &Trust::of(&relay.url)).await.unwrap();
        let version = sds_engine::Version::new().encode().into();
        let open =
            ClientFrame::Open { protocol: 3, store: store(), token: writer("desk"), version };
        let _open = Stream::opened(&connection, open).await;
        let get = ClientFrame::GetBlob { store: store(), hash };
        assert_eq!(Stream::begin(&connection, get).await.next().await, RelayFrame::BlobMissing);
        let offer = ClientFrame::OfferBlob { store: store(), hash, size };
        let mut upload = Stream::begin(&connection, offer).await;
        let RelayFrame::BlobWantedFrom { offset } = upload.next().await else { panic!("wanted") };
        assert!(offset >= furthest, "{offset}: what was there stays");
        furthest = offset;
        let rest = &bytes[usize::try_from(offset).unwrap()..];
        for piece in rest.chunks(BLOB_CHUNK_BYTES_MAX).take(pieces) {
            let chunk = ClientFrame::BlobChunk { bytes: piece.to_vec().into() };
            upload.sender.send(&chunk).await.unwrap();
        }
        if pieces < usize::MAX {
            relay.signal("KILL");
            relay.wait();
            continue;
        }
        assert_eq!(upload.next().await, RelayFrame::BlobStored);
        let get = ClientFrame::GetBlob { store: store(), hash };
        let mut download = Stream::begin(&connection, get).await;
        assert_eq!(download.next().await, RelayFrame::BlobFound { size });
        let mut back = Vec::new();
        while back.len() < bytes.len() {
            let RelayFrame::BlobChunk { bytes } = download.next().await else { panic!("a piece") };
            back.extend_from_slice(&bytes);
        }
        assert!(back == bytes);
    }
}
