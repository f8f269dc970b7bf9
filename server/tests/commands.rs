//! What an operator does with a relay's data: back it up, restore it, look whether it is sound. And
//! asking how the relay is.

mod support {
    pub(crate) mod common;
    pub(crate) mod engines;
    #[expect(dead_code, reason = "relays run in this process")]
    pub(crate) mod process;
    pub(crate) mod relay;
}

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use support::common::folder;
use support::engines::{add_item, present, synced, writer};
use support::process::program;
use support::relay::relay;

/// Runs the program with `folder` for its data; says how it ended and what it printed.
fn run(folder: &Path, words: &[&str]) -> (Option<i32>, String) {
    let output = program().env("SDS_DATA_DIR", folder).args(words).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_tell_what_the_file_takes() {
    let home = folder();
    let running = relay(home.path()).await;
    let length = std::fs::metadata(home.path().join("relay.redb")).unwrap().len();
    let metrics = running.metrics();
    assert!(metrics.contains(&format!("\nsds_relay_disk_bytes {length}\n")), "{metrics}");
    running.stop().await;
}

/// Goal: the drill of the operator's handbook, from a backup to a relay on another machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_verified_and_restored_and_clients_have_everything() {
    let (home, desk_dir, phone_dir) = (folder(), folder(), folder());
    let (data, other) = (home.path().join("data"), home.path().join("other"));
    let running = relay(&data).await;
    let desk = present(desk_dir.path(), running.url(), writer("desk")).await;
    let item = add_item(&desk, "note");
    synced(&desk).await;
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
    let phone = present(phone_dir.path(), again.url(), writer("desk")).await;
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

/// Goal: whoever starts the program again and again knows when that is of no use. Method: each file of the
/// folder is no such file, and the certificate is not there.
#[test]
fn what_is_damaged_is_3_and_a_certificate_that_is_not_there_is_2() {
    for (name, bytes) in [
        ("relay.redb", &b"no database"[..]),
        ("revocations.jsonl", b"no revocation\n"),
        ("identity.pem", b"no certificate"),
    ] {
        let folder = folder();
        std::fs::write(folder.path().join(name), bytes).unwrap();
        let (code, said) = run(folder.path(), &["--port", "0"]);
        assert_eq!(code, Some(3), "{name}: {said}");
        if name == "relay.redb" {
            let to = folder.path().join("backup");
            assert_eq!(run(folder.path(), &["backup", to.to_str().unwrap()]).0, Some(3));
            assert_eq!(run(folder.path(), &["check"]).0, Some(3));
        }
    }
    let folder = folder();
    let (code, said) = run(folder.path(), &["--port", "0", "--cert", "gone", "--key", "gone"]);
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn health_is_what_the_admin_listener_answers() {
    let folder = folder();
    let health = |words: &[&str]| run(folder.path(), &[&["health"], words].concat());
    assert_eq!(health(&[]).0, Some(1), "there is nobody to ask");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let rows: [(&[&str], _, _, _); 4] = [
        (&[], "/healthz", "200 OK", Some(0)),
        (&["--ready"], "/readyz", "503 Service Unavailable", Some(1)),
        // All addresses, of which this machine may have those of IPv4 alone.
        (&["--admin-host", "::"], "/healthz", "200 OK", Some(0)),
        (&["--admin-host", "0.0.0.0"], "/healthz", "200 OK", Some(0)),
    ];
    for (words, path, status, expected) in rows {
        let listener = listener.try_clone().unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1_000];
            let size = stream.read(&mut request).unwrap();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
            String::from_utf8(request[..size].to_vec()).unwrap()
        });
        let (code, said) = health(&[words, &["--admin-port", &port]].concat());
        assert_eq!(code, expected, "{said}");
        assert!(answering.join().unwrap().starts_with(&format!("GET {path} HTTP/1.1\r\n")));
    }
    drop(listener);
    assert_eq!(health(&["--admin-port", &port]).0, Some(1), "nobody answers");
}
