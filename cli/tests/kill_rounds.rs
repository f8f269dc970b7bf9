//! Goal: whatever is killed when, nothing that was acknowledged is lost, nothing is there twice, and
//! every file opens.
//! Method: rounds of real processes on one store: commands, a process that keeps the store open, and a
//! relay, each killed (SIGKILL) at a random moment or not at all. After each round the store must have
//! the entry of each command that exited with 0, once; at the end the relay must have all that it had
//! acknowledged, and a second device must get the same store.
//!
//! `SDS_KILL_ROUNDS` says how many rounds, `SDS_KILL_SEED` replays the choices of a run (not its timing).

#![expect(clippy::print_stdout, reason = "the seed and the figures of a run")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use sds_server::{Grant, Relay, RelayConfig, Scope, Secret, mint};
use sds_sync::StoreId;

const ROUNDS: usize = 8;
const COMMANDS_MAX: u64 = 6;
/// The longest head start of the keeper, and the longest pause before somebody is killed.
const MOMENT_MAX_MS: u64 = 90;
const PAUSE_MAX_MICROS: u64 = 15_000;
const SECRET: &str = "a secret that is long enough for HS256";

/// The variables that make a test process a relay.
const RELAY_DIR: &str = "SDS_TEST_RELAY_DIR";
const RELAY_PORT: &str = "SDS_TEST_RELAY_PORT";

fn happens(dice: &mut Rng, percent: u64) -> bool {
    dice.u64(..100) < percent
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// A relay in a process of its own, to be killed: this test binary, told so by its environment.
#[test]
fn relay_process() {
    let (Some(dir), Some(port)) = (std::env::var_os(RELAY_DIR), number_from(RELAY_PORT)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut config = RelayConfig::new(Secret::new(SECRET).unwrap(), PathBuf::from(&dir));
    config.listen = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
    runtime.block_on(async {
        let relay = Relay::start(config).await.unwrap();
        let url = Path::new(&dir).join("url.new");
        fs::write(&url, relay.url().to_string()).unwrap();
        fs::rename(&url, url.with_file_name("url")).unwrap();
        std::future::pending::<()>().await;
    });
}

struct Scene {
    home: tempfile::TempDir,
    port: u16,
    relay: Option<Child>,
    /// The process that keeps the store of the first device open.
    keeper: Option<Child>,
    /// The labels of the commands that succeeded, and those of all.
    acknowledged: BTreeSet<String>,
    tried: BTreeSet<String>,
    /// What the relay has said to have.
    synced: BTreeSet<String>,
    kills: BTreeMap<&'static str, usize>,
}

enum Job {
    Create(String),
    Sync(BTreeSet<String>),
}

impl Scene {
    fn new() -> Self {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self {
            home: tempfile::tempdir().unwrap(),
            port,
            relay: None,
            keeper: None,
            acknowledged: BTreeSet::new(),
            tried: BTreeSet::new(),
            synced: BTreeSet::new(),
            kills: BTreeMap::new(),
        }
    }

    fn relay_dir(&self) -> PathBuf {
        self.home.path().join("relay")
    }

    fn start_relay(&mut self) {
        if self.relay.is_some() {
            return;
        }
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "relay_process"])
            .env(RELAY_DIR, self.relay_dir())
            .env(RELAY_PORT, self.port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.relay = Some(child.unwrap());
        let (url, begin) = (self.relay_dir().join("url"), Instant::now());
        while !url.exists() {
            assert!(begin.elapsed() < Duration::from_secs(60), "no relay");
            sleep(Duration::from_millis(5));
        }
    }

    fn command(&self, device: &str, args: &[&str]) -> Command {
        let grant = Grant {
            stores: StoreId::new("notes").unwrap().into(),
            subject: device.to_owned(),
            scope: Scope::Write,
            lifetime: Duration::from_secs(3_600),
            issuer: None,
        };
        let token = mint(&Secret::new(SECRET).unwrap(), &grant, SystemTime::now()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sds"));
        command
            .env("SDS_STORE_ID", "notes")
            .env("SDS_PERSISTENCE_DIR", self.home.path().join(device))
            .env("SDS_SERVER_URL", fs::read_to_string(self.relay_dir().join("url")).unwrap())
            .env("SDS_TOKEN", token.reveal())
            .env_remove("SDS_CA")
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn sds(&self, device: &str, args: &[&str]) -> String {
        let output: Output = self.command(device, args).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{device} {args:?}: {err}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn round(&mut self, round: usize, dice: &mut Rng) {
        self.start_relay();
        if self.keeper.is_none() && happens(dice, 70) {
            let mut serve = self.command("one", &["store", "serve"]);
            let serve = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            self.keeper = Some(serve.unwrap());
            sleep(Duration::from_millis(dice.u64(..MOMENT_MAX_MS)));
        }
        let mut jobs = Vec::new();
        for index in 0..=dice.u64(..COMMANDS_MAX) {
            let (job, mut command) = if happens(dice, 15) {
                let known = self.acknowledged.clone();
                (Job::Sync(known), self.command("one", &["store", "sync", "--timeout", "20000"]))
            } else {
                let label = format!("r{round}-{index}");
                self.tried.insert(label.clone());
                let args = ["entry", "create", "--label", &label];
                let command = self.command("one", &args);
                (Job::Create(label), command)
            };
            let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            jobs.push((job, child));
        }
        let mut victims: Vec<Option<usize>> = (0..jobs.len()).map(Some).collect();
        victims.retain(|_| happens(dice, 30));
        if happens(dice, 40) {
            let at = usize::try_from(dice.u64(..victims.len() as u64 + 1)).unwrap();
            victims.insert(at, None);
        }
        for victim in victims {
            sleep(Duration::from_micros(dice.u64(..PAUSE_MAX_MICROS)));
            match victim {
                // It may have ended by itself.
                Some(index) => jobs[index].1.kill().unwrap(),
                None => kill(&mut self.keeper, "keeper", &mut self.kills),
            }
        }
        if happens(dice, 20) {
            kill(&mut self.relay, "relay", &mut self.kills);
            let _gone = fs::remove_file(self.relay_dir().join("url"));
            self.start_relay();
        }
        for (job, child) in jobs {
            let output = child.wait_with_output().unwrap();
            *self.kills.entry("command").or_default() +=
                usize::from(output.status.code().is_none());
            match job {
                Job::Create(label) if output.status.success() => {
                    self.acknowledged.insert(label);
                }
                Job::Sync(known) if output.status.success() => self.synced.extend(known),
                // A killed one says nothing, and a sync may have lost its relay.
                Job::Create(label) => {
                    let err = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.code().is_none(), "{label} was refused: {err}");
                }
                Job::Sync(_) => {}
            }
        }
    }

    /// What a device has must be all of `expected`, each once, and nothing that nobody tried.
    fn check(&self, device: &str, expected: &BTreeSet<String>) {
        let list = self.sds(device, &["entry", "list", "--label"]);
        let labels: Vec<&str> = list.lines().filter_map(|line| line.split("  ").nth(1)).collect();
        let found: BTreeSet<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        assert_eq!(found.len(), labels.len(), "{device}: something is there twice: {list}");
        let lost: Vec<&String> = expected.difference(&found).collect();
        assert!(lost.is_empty(), "{device}: lost {lost:?}");
        assert!(found.is_subset(&self.tried), "{device}: nobody made all of these: {list}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        kill(&mut self.keeper, "end", &mut self.kills);
        kill(&mut self.relay, "end", &mut self.kills);
    }
}

fn kill(child: &mut Option<Child>, name: &'static str, kills: &mut BTreeMap<&'static str, usize>) {
    if let Some(mut child) = child.take() {
        child.kill().unwrap();
        child.wait().unwrap();
        *kills.entry(name).or_default() += 1;
    }
}

#[test]
fn whatever_is_killed_nothing_acknowledged_is_lost_or_there_twice() {
    let rounds = number_from("SDS_KILL_ROUNDS").map_or(ROUNDS, |rounds| rounds.try_into().unwrap());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let by_clock = now.as_secs() * 1_000_000_000 + u64::from(now.subsec_nanos());
    let seed = number_from("SDS_KILL_SEED").unwrap_or(by_clock | 1);
    println!("SDS_KILL_SEED={seed}");
    let (mut scene, mut dice) = (Scene::new(), Rng::with_seed(seed));
    scene.start_relay();
    scene.sds("one", &["entry", "create", "--label", "first"]);
    scene.tried.insert("first".to_owned());
    scene.acknowledged.insert("first".to_owned());
    for round in 0..rounds {
        scene.round(round, &mut dice);
        scene.check("one", &scene.acknowledged);
    }
    // What the relay acknowledged is there without the device that brought it.
    scene.sds("three", &["store", "sync"]);
    scene.check("three", &scene.synced);
    kill(&mut scene.keeper, "keeper", &mut scene.kills);
    scene.sds("one", &["store", "sync"]);
    scene.sds("two", &["store", "sync"]);
    scene.check("two", &scene.acknowledged);
    let digest = |device| {
        let info = scene.sds(device, &["store", "info"]);
        info.lines().find(|line| line.starts_with("digest:")).unwrap().to_owned()
    };
    assert_eq!(digest("one"), digest("two"));
    let (tried, kept) = (scene.tried.len(), scene.acknowledged.len());
    let (kills, synced) = (&scene.kills, scene.synced.len());
    println!(
        "{rounds} rounds, {tried} commands, {kept} acknowledged, {synced} at the relay, killed {kills:?}"
    );
}
