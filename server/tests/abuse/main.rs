//! What an ill-behaved client can do to a relay, and to the others on it: three processes.
//!
//! Goal: memory stays bounded, and two well-behaved clients hear of each other nearly as fast as before.
//! Method: one of them makes a change every 10 ms, the other one notes when it hears of it; first alone,
//! then while each kind of abuse goes on. The memory is that of the relay's process, at its peak.
//!
//! The attackers are a process that runs only when nobody else wants to, since elsewhere they would have processors of their
//! own; with what the others leave them they keep the relay as busy as it lets them. The bound on time here is
//! generous all the same, and the attacks are short, unless it is said how long they are to be.
//! `SDS_ABUSE_SECONDS=10 cargo test --release -p sds-server --test abuse` prints figures that mean something
//! on a machine that does nothing else.
#![cfg(target_os = "linux")]

mod attacks;
mod client;
#[path = "../support/large.rs"]
mod large;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use sds_engine::Patch;
use sds_sync::transport::{Connection, FrameReceiver, FrameSender};
use sds_sync::{RelayFrame, RelayUrl};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use attacks::Attack;
use client::{SECRET, changes, dial, open};

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Tells a process of this program which attack it is to make, on which relay, and how many at a time.
const ATTACK: &str = "SDS_ABUSE_ATTACK";
const RELAY: &str = "SDS_ABUSE_RELAY";
const ATTACKERS: &str = "SDS_ABUSE_ATTACKERS";

/// What may be the machine's own doing, where it does much else and the program is not optimized.
const BUSY_MACHINE: Duration = Duration::from_secs(3);

/// The same where the figures are to mean something: what a single commit may take.
const ONE_COMMIT: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(ATTACK) {
        let attack = Attack::ALL.into_iter().find(|attack| attack.name() == name).unwrap();
        let [url, attackers] = [RELAY, ATTACKERS].map(|key| std::env::var(key).unwrap());
        let attack = attack.go_on(url.parse().unwrap(), attackers.parse().unwrap());
        runtime().block_on(attack);
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // Each measures the whole machine.
    arguments.test_threads = Some(1);
    let trial = |attack: Attack| {
        Trial::test(attack.name(), move || {
            runtime().block_on(endure(attack));
            Ok(())
        })
    };
    libtest_mimic::run(&arguments, Attack::ALL.map(trial).into()).exit_code()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

fn seconds() -> u64 {
    std::env::var("SDS_ABUSE_SECONDS").map_or(1, |text| text.parse().unwrap())
}

/// Whether whoever runs this wants figures that mean something.
fn has_seconds() -> bool {
    std::env::var_os("SDS_ABUSE_SECONDS").is_some()
}

/// A process that is killed when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // After the end there is nothing to kill.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

struct RelayProcess {
    process: Killed,
    url: RelayUrl,
    _folder: TempDir,
}

impl RelayProcess {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sds-relay"));
        command.env("SDS_JWT_SECRET", SECRET).env_remove("SDS_CONFIG");
        // All who join at once are one subject here.
        command.args(["--limit", "connections_per_subject=4000"]);
        command.args(["--log-level", "error", "--port", "0", "--data-dir"]).arg(folder.path());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().last().expect("a line with the url").parse().unwrap();
        Self { process: Killed(child), url, _folder: folder }
    }

    /// A line of `/proc/PID/status`, in bytes.
    fn memory(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.0.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }
}

/// Starts attackers, and counts the lines that they say.
fn attack_with(attack: Attack, attackers: usize, url: &RelayUrl) -> (Killed, Arc<AtomicUsize>) {
    // Who is nice alone may finish its turn before somebody who wakes up; who is idle may not. But the idle may
    // get no turn at all where others are busy, and those who join have to get in.
    let idle = || Command::new("chrt").args(["-i", "0", "true"]).status();
    let (program, words) = match attack {
        Attack::Joins => ("nice", ["-n", "19"]),
        _ if idle().is_ok_and(|status| status.success()) => ("chrt", ["-i", "0"]),
        _ => ("nice", ["-n", "19"]),
    };
    let mut command = Command::new(program);
    command.args(words).arg(std::env::current_exe().unwrap());
    command.env(ATTACK, attack.name()).env(RELAY, url.to_string());
    command.env(ATTACKERS, attackers.to_string()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = Arc::new(AtomicUsize::new(0));
    let (count, out) = (Arc::clone(&lines), child.stdout.take().unwrap());
    let counting = move |out: ChildStdout| {
        BufReader::new(out).lines().map_while(Result::ok).for_each(|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
    };
    std::thread::spawn(move || counting(out));
    (Killed(child), lines)
}

/// Two clients who behave, and how long it takes until one hears of the other.
struct Honest {
    _connections: [Connection; 2],
    writer: (FrameSender, FrameReceiver),
    reader: (FrameSender, FrameReceiver),
    next: u64,
}

impl Honest {
    async fn begin(url: &RelayUrl) -> Self {
        let connections = [dial(url).await.unwrap(), dial(url).await.unwrap()];
        let writer = open(&connections[0], "calm", "ann").await.unwrap();
        let reader = open(&connections[1], "calm", "bob").await.unwrap();
        Self { _connections: connections, writer, reader, next: 0 }
    }

    /// The median and the 99th of a hundred over so long.
    async fn measure(&mut self, span: Duration) -> (Duration, Duration) {
        let begun = Instant::now();
        let mut times = Vec::new();
        while begun.elapsed() < span {
            let sent = Instant::now();
            self.writer.0.send(&changes(1, self.next, 1)).await.unwrap();
            self.next += 1;
            loop {
                let frame = timeout(PATIENCE, self.reader.1.next::<RelayFrame>()).await.unwrap();
                let frame = frame.unwrap().expect("the relay still serves the reader");
                if let RelayFrame::Changes { patch } = frame {
                    let changes = Patch::decode(&patch).unwrap().into_changes();
                    if changes.iter().any(|change| change.header().end() >= self.next) {
                        break;
                    }
                }
            }
            times.push(sent.elapsed());
            // The acknowledgement.
            let stored = timeout(PATIENCE, self.writer.1.next::<RelayFrame>()).await.unwrap();
            assert!(matches!(stored, Ok(Some(_))), "{stored:?}");
            sleep(Duration::from_millis(10)).await;
        }
        times.sort();
        (times[times.len() / 2], times[times.len() * 99 / 100])
    }
}

/// Lets attackers at a relay, and checks what is left for the others.
async fn endure(attack: Attack) {
    let (attackers, memory_max) = match attack {
        Attack::SlowReaders => (50, 200 * MIB),
        // 320 streams; without a bound on all together they would take 3 GiB.
        Attack::SlowCatchUps => (8, 400 * MIB),
        Attack::Frames | Attack::Streams => (4, 200 * MIB),
        Attack::Handshakes => (16, 200 * MIB),
        Attack::Datagrams => (4, 200 * MIB),
        Attack::MalformedFrames => (8, 200 * MIB),
        Attack::LargeFrames => (4, 400 * MIB),
        Attack::DenseChanges | Attack::ManyDeps => (4, 800 * MIB),
        Attack::LargeChanges => (4, 800 * MIB),
        // What 384 openings are told would take 300 MiB, and twice that on its way.
        Attack::Openings => (8, 300 * MIB),
        Attack::Uploads => (4, 400 * MIB),
        Attack::Joins => (1_000, 400 * MIB),
    };
    let relay = RelayProcess::start();
    let mut honest = Honest::begin(&relay.url).await;
    let span = Duration::from_secs(seconds());
    honest.measure(span / 4).await;
    let quiet = honest.measure(span).await;
    let before = relay.memory("VmRSS");
    let (attacking, joined) = attack_with(attack, attackers, &relay.url);
    let all = async || {
        let all = async {
            while joined.load(Ordering::Relaxed) < attackers {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, all).await.expect("all get in");
    };
    if attack == Attack::Openings {
        all().await;
    }
    sleep(Duration::from_millis(300)).await;
    let busy = honest.measure(span).await;
    if attack == Attack::Joins {
        all().await;
    }
    let peak = relay.memory("VmHWM");
    drop(attacking);
    tell(&format!(
        "p50 {:?} -> {:?}, p99 {:?} -> {:?}, memory {} -> {} MiB at the peak",
        quiet.0,
        busy.0,
        quiet.1,
        busy.1,
        before / MIB,
        peak / MIB
    ));
    assert!(peak < before + memory_max, "{peak} bytes");
    let floor = if has_seconds() { ONE_COMMIT } else { BUSY_MACHINE };
    let bound = (2 * quiet.1).max(floor);
    assert!(busy.1 < bound, "p99 {:?}, was {:?}", busy.1, quiet.1);
    // Who is new gets in as well.
    let late = timeout(PATIENCE, async {
        loop {
            if let Some(connection) = dial(&relay.url).await
                && open(&connection, "calm", "carol").await.is_some()
            {
                break;
            }
        }
    });
    late.await.expect("somebody else gets in");
}

#[expect(clippy::print_stdout, reason = "figures for whoever runs this by hand")]
fn tell(figures: &str) {
    println!("{figures}");
}
