//! Goal: whenever the relay is killed under load, nothing that it acknowledged is lost, its file opens at
//! once, and everything in it is sound.
//! Method: rounds of the real program. Several clients append to two stores as fast as they can, some of
//! it in small pieces and some in large ones, so that there is always something to pack too; the relay is
//! killed (SIGKILL) at a random moment and started again. Each client then finds at least what was
//! acknowledged to it, and goes on behind what is there. In the end all that is there is what was sent.
//!
//! `SDS_KILL_ROUNDS` says how many rounds, `SDS_KILL_SEED` replays the choices of a run (not its timing).
#![cfg(unix)]
#![expect(clippy::print_stdout, reason = "the seed and the figures of a run")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use sds_engine::{
    Change, ChangeHeader, EntryId, Field, Life, Op, Patch, ReplicaId, Value, Version,
};
use sds_server::check::check;
use sds_server::store_log::StoreLog;
use sds_server::{Grant, Scope, Secret, mint};
use sds_sync::limits::{FRAME_BYTES_MAX, PROTOCOL_VERSION};
use sds_sync::transport::{StreamError, connect};
use sds_sync::{ClientFrame, RelayFrame, RelayUrl, StoreId, Trust};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const ROUNDS: u64 = 20;
const WRITERS: u64 = 6;
const STORES: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "a secret of more than thirty-two characters";

/// Xorshift: the choices of a run from one seed.
#[derive(Clone, Copy)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

fn start(folder: &Path) -> (Child, RelayUrl) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sds-relay"))
        .env("SDS_JWT_SECRET", SECRET)
        .args(["--port", "0", "--data-dir"])
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.split_whitespace().last().expect("the relay starts").parse().unwrap();
    (child, url)
}

fn store(number: u64) -> StoreId {
    StoreId::new(&format!("store-{number}")).unwrap()
}

/// Somebody who has made changes, and knows which of them were acknowledged.
struct Writer {
    number: u64,
    dice: Dice,
    changes: Vec<Change>,
    acknowledged: u64,
}

impl Writer {
    fn replica(&self) -> ReplicaId {
        ReplicaId::new(1 + self.number).unwrap()
    }

    fn end(&self) -> u64 {
        self.changes.last().map_or(0, |change| change.header().end())
    }

    fn edit(&mut self) -> Change {
        // Mostly like keystrokes, now and then larger than a page.
        let size = match self.dice.below(1_000) {
            0..=1 => 300_000,
            2..=40 => 5_000,
            _ => 1 + self.dice.below(30),
        };
        let text = (0..size).map(|_| char::from(b'a' + self.dice.below(26).to_le_bytes()[0]));
        let set = Op::Set {
            entry: EntryId::ROOT,
            life: Life::FIRST,
            field: Field::Label,
            value: Value::Text(text.collect()),
        };
        let change = Change::new(self.replica(), self.end(), vec![], &[set]).unwrap();
        self.changes.push(change.clone());
        change
    }

    /// Writes until the relay is killed: by itself a client notices that only after a while.
    async fn write(mut self, url: RelayUrl, killed: oneshot::Receiver<()>) -> Self {
        tokio::select! {
            gone = self.session(&url) => assert!(gone.is_some(), "the relay answers as it should"),
            _ = killed => {}
        }
        self
    }

    /// None if the relay has said something that it must not.
    async fn session(&mut self, url: &RelayUrl) -> Option<StreamError> {
        let id = store(self.number % STORES);
        let grant = Grant {
            stores: id.clone().into(),
            subject: format!("writer {}", self.number),
            scope: Scope::Write,
            lifetime: Duration::from_secs(3_600),
            issuer: None,
        };
        let token = mint(&Secret::new(SECRET).unwrap(), &grant, SystemTime::now()).unwrap();
        let Ok(connection) = connect(url, &Trust::of(url)).await else {
            return Some(StreamError::CutOff);
        };
        let (mut sender, mut receiver) = match connection.open_stream().await {
            Ok(stream) => stream,
            Err(error) => return Some(error),
        };
        receiver.set_max(FRAME_BYTES_MAX);
        // What the others write is not wanted: only headers of one's own matter here.
        let (version, seats) = (Version::new().encode().into(), vec![self.replica().as_u64()]);
        let (store, protocol) = (id.to_string(), PROTOCOL_VERSION);
        let open = ClientFrame::OpenSeated { protocol, store, token, version, seats };
        if let Err(error) = sender.send(&open).await {
            return Some(error);
        }
        let mut sent = u64::MAX;
        loop {
            match receiver.next::<RelayFrame>().await {
                Ok(Some(RelayFrame::OpenedSeated { version, .. })) => {
                    let there = Version::decode(&version).unwrap().next(self.replica());
                    assert!(there >= self.acknowledged, "{there} of {}", self.acknowledged);
                    sent = there;
                }
                Ok(Some(RelayFrame::Stored { version })) => {
                    let stored = Version::decode(&version).unwrap().next(self.replica());
                    self.acknowledged = self.acknowledged.max(stored);
                }
                Ok(Some(RelayFrame::Changes { .. } | RelayFrame::Access { .. })) => continue,
                Ok(None) => return Some(StreamError::CutOff),
                Err(error) => return Some(error),
                Ok(Some(frame)) => {
                    println!("the relay says {frame:?}");
                    return None;
                }
            }
            // Everything that is not there yet, and something new.
            for _ in 0..1 + self.dice.below(4) {
                self.edit();
            }
            let known = self.changes.partition_point(|change| change.header().start < sent);
            for change in &self.changes[known..] {
                let patch = Patch::new(vec![change.clone()]).encode().into();
                if let Err(error) = sender.send(&ClientFrame::Changes { patch }).await {
                    return Some(error);
                }
            }
            sent = self.end();
        }
    }
}

/// All changes of a store, by author, in order.
fn changes_of(log: &StoreLog, store: &StoreId) -> HashMap<ReplicaId, Vec<Vec<u8>>> {
    let mut changes: HashMap<_, Vec<_>> = HashMap::new();
    let mut next = Some(0);
    while let Some(from) = next {
        let page = log.read(store, from).unwrap();
        for change in &page.changes {
            let author = ChangeHeader::decode(change).unwrap().replica;
            changes.entry(author).or_default().push(change.to_vec());
        }
        next = page.next;
    }
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_acknowledged_is_lost_whenever_the_relay_is_killed() {
    let rounds = number_from("SDS_KILL_ROUNDS").unwrap_or(ROUNDS);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number_from("SDS_KILL_SEED").unwrap_or(now.as_secs() | 1);
    println!("SDS_KILL_SEED={seed}");
    let mut dice = Dice(seed);
    let home = TempDir::new().unwrap();
    let writer = |number| Writer {
        number,
        dice: Dice(seed ^ (number + 1) << 32),
        changes: Vec::new(),
        acknowledged: 0,
    };
    let mut writers: Vec<Writer> = (0..WRITERS).map(writer).collect();
    for round in 0..rounds {
        let (mut relay, url) = start(home.path());
        let mut running = JoinSet::new();
        let mut signals = Vec::new();
        for writer in writers.drain(..) {
            let (signal, killed) = oneshot::channel();
            signals.push(signal);
            running.spawn(writer.write(url.clone(), killed));
        }
        sleep(Duration::from_micros(dice.below(400_000))).await;
        relay.kill().unwrap();
        relay.wait().unwrap();
        drop(signals);
        while let Some(writer) = timeout(PATIENCE, running.join_next()).await.unwrap() {
            writers.push(writer.unwrap());
        }
        if round % 5 == 4 || round + 1 == rounds {
            let report = check(home.path()).unwrap();
            assert!(report.is_sound(), "after round {round}: {:?}", report.findings);
        }
    }
    let log = StoreLog::open(&home.path().join("relay.redb")).unwrap();
    let stores: Vec<_> = (0..STORES).map(|number| changes_of(&log, &store(number))).collect();
    let (mut acknowledged, mut there) = (0, 0);
    for writer in &writers {
        let of_store = &stores[usize::try_from(writer.number % STORES).unwrap()];
        let stored = of_store.get(&writer.replica()).cloned().unwrap_or_default();
        let made = writer.changes.iter().map(|change| change.bytes().to_vec());
        assert!(
            made.take(stored.len()).eq(stored.iter().cloned()),
            "what is there is what was sent"
        );
        let end = writer.changes[..stored.len()].last().map_or(0, |change| change.header().end());
        assert!(end >= writer.acknowledged, "writer {}", writer.number);
        there += stored.len();
        acknowledged += writer
            .changes
            .iter()
            .filter(|change| change.header().end() <= writer.acknowledged)
            .count();
    }
    println!("{rounds} rounds: {acknowledged} changes acknowledged, {there} there");
    assert!(acknowledged > 0, "there was a load");
}
