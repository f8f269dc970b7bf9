//! Goal: whenever the relay is killed under load, nothing that it acknowledged is lost, its file opens at
//! once, and everything in it is sound.
//! Method: rounds of the real program. Several clients append to two stores as fast as they can, some of
//! it in small pieces and some in large ones, so that there is always something to pack too; the relay is
//! killed (SIGKILL) at a random moment, mostly when it has begun to acknowledge, and started again. Each client then finds at least what was
//! acknowledged to it, and goes on behind what is there. In the end all that is there is what was sent.
//!
//! `SDS_KILL_ROUNDS` says how many rounds, `SDS_KILL_SEED` replays the choices of a run (not its timing).
#![cfg(unix)]
#![expect(clippy::print_stdout, reason = "the seed and the figures of a run")]

mod support {
    pub(crate) mod common;
    pub(crate) mod process;
}

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use sds_engine::{
    Change, ChangeHeader, EntryId, Field, Life, Op, Patch, ReplicaId, Value, Version,
};
use sds_server::Scope;
use sds_server::check::check;
use sds_server::store_log::StoreLog;
use sds_sync::limits::{FRAME_BYTES_MAX, PROTOCOL_VERSION};
use sds_sync::transport::{StreamError, connect};
use sds_sync::{ClientFrame, RelayFrame, RelayUrl, StoreId, Trust};
use support::common::{PATIENCE, folder, token};
use support::process::RelayProcess;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const ROUNDS: u64 = 20;
const WRITERS: u64 = 6;
const STORES: u64 = 2;

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

fn store(number: u64) -> StoreId {
    StoreId::new(&format!("store-{number}")).unwrap()
}

/// Somebody who has made changes, and knows which of them were acknowledged.
struct Writer {
    number: u64,
    dice: Rng,
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
        let size = match self.dice.u64(..1_000) {
            0..=1 => 300_000,
            2..=40 => 5_000,
            _ => 1 + self.dice.u64(..30),
        };
        let text = (0..size).map(|_| char::from(b'a' + self.dice.u8(..26)));
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
    async fn write(
        mut self,
        url: RelayUrl,
        killed: oneshot::Receiver<()>,
        progress: Arc<Notify>,
    ) -> Self {
        tokio::select! {
            gone = self.session(&url, &progress) => assert!(gone.is_some(), "the relay answers as it should"),
            _ = killed => {}
        }
        self
    }

    /// None if the relay has said something that it must not.
    async fn session(&mut self, url: &RelayUrl, progress: &Notify) -> Option<StreamError> {
        let id = store(self.number % STORES);
        let subject = format!("writer {}", self.number);
        let token = token(id.as_str(), &subject, Scope::Write);
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
                    progress.notify_one();
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
            for _ in 0..1 + self.dice.u64(..40) {
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
    let mut dice = Rng::with_seed(seed);
    let home = folder();
    let writer = |number| Writer {
        number,
        dice: Rng::with_seed(seed ^ (number + 1) << 32),
        changes: Vec::new(),
        acknowledged: 0,
    };
    let mut writers: Vec<Writer> = (0..WRITERS).map(writer).collect();
    for round in 0..rounds {
        let relay = RelayProcess::start(home.path(), &[]);
        let (mut running, progress) = (JoinSet::new(), Arc::new(Notify::new()));
        let mut signals = Vec::new();
        for writer in writers.drain(..) {
            let (signal, killed) = oneshot::channel();
            signals.push(signal);
            running.spawn(writer.write(relay.url.clone(), killed, Arc::clone(&progress)));
        }
        if dice.u64(..4) > 0 {
            timeout(PATIENCE, progress.notified()).await.unwrap();
        }
        sleep(Duration::from_micros(dice.u64(..400_000))).await;
        relay.signal("KILL");
        relay.wait();
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
