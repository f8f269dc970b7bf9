//! Large values on the command line: real processes, killed while they transfer.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use sds_server::{Grant, Relay, RelayConfig, Scope, Secret, mint};
use sds_sync::StoreId;

const SIZE: usize = 40 << 20;

struct Device<'a> {
    dir: &'a Path,
    server: String,
    token: String,
}

impl Device<'_> {
    fn start(&self, args: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_sds"))
            .env("SDS_STORE_ID", "films")
            .env("SDS_PERSISTENCE_DIR", self.dir)
            .env("SDS_SERVER_URL", &self.server)
            .env("SDS_TOKEN", &self.token)
            .env_remove("SDS_CA")
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn sds(&self, args: &[&str]) -> String {
        let output = self.start(args).wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Syncs, killed after longer and longer times, until one run is let through to its end.
    fn sync_with_kills(&self) {
        for time in [60, 120, 200, 300, 450] {
            let mut sync = self.start(&["store", "sync", "--timeout", "60000"]);
            let end = Instant::now() + Duration::from_millis(time);
            while Instant::now() < end && sync.try_wait().unwrap().is_none() {
                sleep(Duration::from_millis(5));
            }
            sync.kill().unwrap();
            sync.wait().unwrap();
        }
        self.sds(&["store", "sync", "--timeout", "60000"]);
    }
}

fn token(secret: &Secret) -> String {
    let grant = Grant {
        stores: StoreId::new("films").unwrap().into(),
        subject: "tester".to_owned(),
        scope: Scope::Write,
        lifetime: Duration::from_secs(600),
        issuer: None,
    };
    mint(secret, &grant, SystemTime::now()).unwrap().reveal().to_owned()
}

/// Goal: a large file gets from one device to another whole, whoever is killed when.
/// Method: `sds store sync` is killed again and again, on the way out and on the way in.
#[test]
fn a_large_file_arrives_whole_although_both_sides_are_killed_again_and_again() {
    let home = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let secret = Secret::new("a secret that is long enough for HS256").unwrap();
    let config = RelayConfig::new(secret.clone(), home.path().join("relay"));
    let relay = runtime.block_on(Relay::start(config)).unwrap();
    let dirs = [home.path().join("one"), home.path().join("two")];
    let device = |dir| Device { dir, server: relay.url().to_string(), token: token(&secret) };
    let (one, two) = (device(&dirs[0]), device(&dirs[1]));

    let file = home.path().join("film");
    let content: Vec<u8> = (0..=250).cycle().take(SIZE).collect();
    fs::write(&file, &content).unwrap();
    let film = one.sds(&["entry", "create", "--file", file.to_str().unwrap()]);
    let again = one.sds(&["entry", "create", "--file", file.to_str().unwrap()]);
    let kept = fs::metadata(dirs[0].join("films.sds")).unwrap().len();
    assert!(kept < 2 * SIZE as u64, "the same content is kept once: {kept}");
    one.sync_with_kills();
    two.sync_with_kills();
    for id in [film, again] {
        let back = home.path().join("back");
        two.sds(&["entry", "get", &id, "--output", back.to_str().unwrap()]);
        assert!(fs::read(&back).unwrap() == content);
    }
    runtime.block_on(relay.stop());
}

/// Goal: nobody waits for the store while a pipe is read slowly, or not at all. Method: a large value into a pipe
/// that nobody reads, and an edit beside it.
#[cfg(target_os = "linux")]
#[test]
fn a_pipe_that_nobody_reads_keeps_nobody_from_the_store() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("film");
    fs::write(&file, vec![7; 3 << 20]).unwrap();
    let server = "quic://127.0.0.1:1".to_owned();
    let device = Device { dir: home.path(), server, token: "none".to_owned() };
    let id = device.sds(&["entry", "create", "--file", file.to_str().unwrap()]);
    let mut reading = device.start(&["entry", "get", &id, "--output", "/dev/stdout"]);
    let mut pipe = reading.stdout.take().unwrap();
    let mut first = [0; 1];
    pipe.read_exact(&mut first).unwrap();
    // It would wait for a minute, and fail then.
    device.sds(&["entry", "create", "--label", "beside it"]);
    assert!(reading.try_wait().unwrap().is_none(), "the pipe is full");
    let mut rest = Vec::new();
    pipe.read_to_end(&mut rest).unwrap();
    assert!(reading.wait().unwrap().success());
    assert_eq!(rest, vec![7; (3 << 20) - 1]);
}
