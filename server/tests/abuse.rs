//! What an ill-behaved client can do to a relay in a process of its own, and to the others on it.
//!
//! Goal: memory stays bounded, and two well-behaved clients hear of each other nearly as fast as before.
//! Method: one of them makes a change every 10 ms, the other one notes when it hears of it; first alone,
//! then while each kind of abuse goes on. The memory is that of the relay's process, at its peak.
//!
//! The attackers share the machine with those they disturb, so the bound on time here is generous, and the
//! attacks are short. `SDS_ABUSE_SECONDS=10 cargo test --release -p sds-server --test abuse --
//! --nocapture --test-threads 1` prints figures that mean something on a machine that does nothing else.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use sds_engine::{Change, Op, Patch, ReplicaId, Version};
use sds_server::{Grant, Scope, Secret, mint};
use sds_sync::transport::{Connection, FrameReceiver, FrameSender, connect};
use sds_sync::{ClientFrame, Frame, RelayFrame, RelayUrl, StoreId, Token, Trust, encode_datagram};
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const SECRET: &str = "a secret of more than thirty-two characters";
const PATIENCE: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

/// What may be the machine's own doing, where it does much else and the program is not optimized.
const BUSY_MACHINE: Duration = Duration::from_secs(3);

/// How many changes are in a frame of many.
const MANY: u64 = 200;

/// One at a time: each measures the whole machine.
static TURN: Mutex<()> = Mutex::const_new(());

fn seconds() -> u64 {
    std::env::var("SDS_ABUSE_SECONDS").map_or(1, |text| text.parse().unwrap())
}

fn token(store: &str, subject: &str) -> Token {
    let grant = Grant {
        stores: StoreId::new(store).unwrap().into(),
        subject: subject.to_owned(),
        scope: Scope::Write,
        lifetime: Duration::from_secs(3_600),
        issuer: None,
    };
    mint(&Secret::new(SECRET).unwrap(), &grant, SystemTime::now()).unwrap()
}

struct RelayProcess {
    child: Child,
    url: RelayUrl,
    _folder: TempDir,
}

impl RelayProcess {
    fn start(words: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sds-relay"));
        command.env("SDS_JWT_SECRET", SECRET).env_remove("SDS_CONFIG");
        command.args(["--log-level", "error", "--port", "0", "--data-dir"]).arg(folder.path());
        let mut child = command.args(words).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().last().expect("a line with the url").parse().unwrap();
        Self { child, url, _folder: folder }
    }

    /// A line of `/proc/PID/status`, in bytes.
    fn memory(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        // After the end there is nothing to kill.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

async fn dial(url: &RelayUrl) -> Option<Connection> {
    connect(url, &Trust::of(url)).await.ok()
}

fn open_frame(store: &str, subject: &str) -> ClientFrame {
    let (token, version) = (token(store, subject), Version::new().encode().into());
    ClientFrame::Open { protocol: 3, store: store.to_owned(), token, version }
}

async fn open(
    connection: &Connection,
    store: &str,
    subject: &str,
) -> Option<(FrameSender, FrameReceiver)> {
    let (mut sender, mut receiver) = connection.open_stream().await.ok()?;
    sender.send(&open_frame(store, subject)).await.ok()?;
    let answer = receiver.next().await.ok()??;
    matches!(answer, RelayFrame::Opened { .. }).then_some((sender, receiver))
}

fn change(author: u64, start: u64, count: u64) -> ClientFrame {
    let author = ReplicaId::new(author).unwrap();
    let change = Change::new(author, start, Vec::new(), &[Op::Skip { count }]).unwrap();
    ClientFrame::Changes { patch: Patch::new(vec![change]).encode().into() }
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
            self.writer.0.send(&change(1, self.next, 1)).await.unwrap();
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

#[expect(clippy::print_stdout, reason = "figures for whoever runs this by hand")]
fn tell(figures: &str) {
    println!("{figures}");
}

/// Lets attackers at a relay, and checks what is left for the others.
async fn endure<F: Future<Output = ()> + Send + 'static>(
    name: &str,
    words: &[&str],
    attackers: usize,
    memory_max: u64,
    attack: impl Fn(RelayUrl, Arc<AtomicBool>, usize) -> F,
) {
    let _turn = TURN.lock().await;
    let relay = RelayProcess::start(words);
    let mut honest = Honest::begin(&relay.url).await;
    let span = Duration::from_secs(seconds());
    honest.measure(span / 4).await;
    let quiet = honest.measure(span).await;
    let before = relay.memory("VmRSS");
    let goes_on = Arc::new(AtomicBool::new(true));
    let mut tasks = JoinSet::new();
    for number in 0..attackers {
        tasks.spawn(attack(relay.url.clone(), Arc::clone(&goes_on), number));
    }
    sleep(Duration::from_millis(300)).await;
    let busy = honest.measure(span).await;
    goes_on.store(false, Ordering::Relaxed);
    let peak = relay.memory("VmHWM");
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    tell(&format!(
        "{name}: p50 {:?} -> {:?}, p99 {:?} -> {:?}, memory {} -> {} MiB at the peak",
        quiet.0,
        busy.0,
        quiet.1,
        busy.1,
        before / MIB,
        peak / MIB
    ));
    assert!(peak < before + memory_max, "{name}: {peak} bytes");
    let bound = (2 * quiet.1).max(BUSY_MACHINE);
    assert!(busy.1 < bound, "{name}: p99 {:?}, was {:?}", busy.1, quiet.1);
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
    late.await.unwrap_or_else(|_| panic!("{name}: nobody else gets in"));
}

/// Each has ever more to read, and reads nothing.
#[tokio::test(flavor = "multi_thread")]
async fn slow_readers() {
    let attack = async |url: RelayUrl, goes_on: Arc<AtomicBool>, number: usize| {
        let connection = dial(&url).await.unwrap();
        let Some((mut sender, receiver)) = open(&connection, "busy", "mallory").await else {
            return;
        };
        let mut start = 0;
        while goes_on.load(Ordering::Relaxed) {
            // One writes, and none of them reads.
            if number == 0 && sender.send(&many_changes(2, start)).await.is_ok() {
                start += MANY;
            }
            sleep(Duration::from_millis(20)).await;
        }
        drop(receiver);
    };
    endure("slow readers", &[], 50, 200 * MIB, attack).await;
}

/// Many changes in one frame.
fn many_changes(author: u64, from: u64) -> ClientFrame {
    let author = ReplicaId::new(author).unwrap();
    let one = |start| Change::new(author, start, Vec::new(), &[Op::Skip { count: 1 }]).unwrap();
    let changes = (from..from + MANY).map(one).collect();
    ClientFrame::Changes { patch: Patch::new(changes).encode().into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames() {
    let attack = async |url: RelayUrl, goes_on: Arc<AtomicBool>, number: usize| {
        let connection = dial(&url).await.unwrap();
        let subject = format!("mallory {number}");
        let Some((mut sender, _receiver)) = open(&connection, "calm", &subject).await else {
            return;
        };
        let frame = ClientFrame::Presence { clock: 1, state: Bytes::from_static(b"{}") }.encode();
        let many = Bytes::from(frame.repeat(1_000));
        while goes_on.load(Ordering::Relaxed) && sender.send_encoded(many.clone()).await.is_ok() {}
    };
    endure("floods of frames", &[], 4, 200 * MIB, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_streams() {
    let attack = async |url: RelayUrl, goes_on: Arc<AtomicBool>, number: usize| {
        while goes_on.load(Ordering::Relaxed) {
            let Some(connection) = dial(&url).await else { continue };
            let member = number.is_multiple_of(2);
            let _store = if member { open(&connection, "calm", "mallory").await } else { None };
            while goes_on.load(Ordering::Relaxed) {
                let Ok((mut sender, receiver)) = connection.open_stream().await else { break };
                let bye = ClientFrame::Bye.encode();
                let _gone = sender.send_encoded(bye).await;
                receiver.stop();
            }
        }
    };
    endure("floods of streams", &[], 4, 200 * MIB, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_handshakes() {
    let attack = async |url: RelayUrl, goes_on: Arc<AtomicBool>, _: usize| {
        while goes_on.load(Ordering::Relaxed) {
            drop(timeout(Duration::from_millis(500), dial(&url)).await);
        }
    };
    endure("floods of handshakes", &[], 16, 200 * MIB, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_datagrams() {
    let attack = async |url: RelayUrl, goes_on: Arc<AtomicBool>, _: usize| {
        let connection = dial(&url).await.unwrap();
        let Some((sender, _receiver)) = open(&connection, "calm", "mallory").await else { return };
        let state = Bytes::from(vec![b'x'; 1_000]);
        let frame = ClientFrame::Presence { clock: 1, state };
        let datagram = encode_datagram(sender.id(), &frame);
        while goes_on.load(Ordering::Relaxed) {
            for _ in 0..100 {
                // Whatever does not fit is dropped on the way.
                let _sent = connection.send_datagram(datagram.clone());
            }
            tokio::task::yield_now().await;
        }
    };
    endure("floods of datagrams", &[], 2, 200 * MIB, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_and_truncated_frames() {
    let attack = async |url: RelayUrl, goes_on: Arc<AtomicBool>, number: usize| {
        let length = |length: u32| length.to_le_bytes().to_vec();
        let rows = [
            length(u32::MAX),
            length(64 << 10),
            [length(40 << 10), vec![6; 10_000]].concat(),
            [length(3), vec![200, 1, 2]].concat(),
            vec![1, 0],
        ];
        while goes_on.load(Ordering::Relaxed) {
            let Some(connection) = dial(&url).await else { continue };
            for row in rows.iter().cycle().skip(number).take(40) {
                if number.is_multiple_of(2) {
                    let Some((mut sender, _)) = open(&connection, "calm", "mallory").await else {
                        break;
                    };
                    let _refused = sender.send_encoded(row.clone().into()).await;
                } else {
                    let Ok((mut sender, _)) = connection.open_stream().await else { break };
                    let _refused = sender.send_encoded(row.clone().into()).await;
                }
            }
        }
    };
    endure("oversized and truncated frames", &[], 8, 200 * MIB, attack).await;
}

/// Goal: when all come back at once, after a restart, all get in.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_joins_at_once() {
    static JOINED: AtomicUsize = AtomicUsize::new(0);
    let clients = if seconds() > 1 { 1_000 } else { 200 };
    let attack = async |url: RelayUrl, goes_on: Arc<AtomicBool>, _: usize| {
        let joined = loop {
            if let Some(connection) = dial(&url).await
                && let Some(store) = open(&connection, "calm", "mallory").await
            {
                break (connection, store);
            }
            sleep(Duration::from_millis(200)).await;
        };
        JOINED.fetch_add(1, Ordering::Relaxed);
        while goes_on.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(100)).await;
        }
        drop(joined);
    };
    let words = ["--limit", "connections_per_subject=4000"];
    endure("a thousand joins at once", &words, clients, 400 * MIB, attack).await;
    tell(&format!("{} of {clients} had joined", JOINED.load(Ordering::Relaxed)));
}
