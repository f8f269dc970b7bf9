//! Goal: whenever the relay is killed under load, nothing that it acknowledged is lost, its file opens at
//! once, and everything in it is sound.
//! Method: rounds of the real program. Several clients append to two stores as fast as they can, some of
//! it in small pieces and some in large ones, so that there is always something to pack too; the relay is
//! killed (SIGKILL) at a random moment, mostly when it has begun to acknowledge, and started again. Each
//! client then finds at least what was acknowledged to it, and goes on behind what is there. Meanwhile
//! somebody uploads large values, and an operator fills and deletes stores, revokes tokens and makes backups.
//! In the end all that is there is what was sent, and what was done is done.
//!
//! `SDS_KILL_ROUNDS` says how many rounds, `SDS_KILL_SEED` replays the choices of a run (not its timing).
#![cfg(unix)]
#![expect(clippy::print_stdout, reason = "the seed and the figures of a run")]

mod operator;
#[path = "../support"]
mod support {
    pub(crate) mod common;
    pub(crate) mod http;
    pub(crate) mod process;
}
mod uploader;
mod writer;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use operator::Operator;
use sds_engine::{ChangeHeader, ReplicaId};
use sds_server::check::check;
use sds_server::store_log::StoreLog;
use sds_sync::StoreId;
use support::common::{PATIENCE, folder};
use support::process::RelayProcess;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uploader::Uploader;
use writer::Writer;

/// How long looking at all that there is in the end may take.
const CHECK_PATIENCE: Duration = Duration::from_secs(300);

const ROUNDS: u64 = 20;
const WRITERS: u64 = 6;
const STORES: u64 = 2;

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

fn store(number: u64) -> StoreId {
    StoreId::new(&format!("store-{number}")).unwrap()
}

/// A relay with an admin listener.
fn start(data: &Path) -> (RelayProcess, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    (RelayProcess::start(data, &["--admin", &free.to_string()]), free)
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

/// Panics unless all that was acknowledged is there, and what is there is what was sent; how many changes that
/// is, each.
fn check_log(data: &Path, writers: &[Writer]) -> (usize, usize) {
    let log = StoreLog::open(&data.join("relay.redb")).unwrap();
    let stores: Vec<_> = (0..STORES).map(|number| changes_of(&log, &store(number))).collect();
    let (mut acknowledged, mut there) = (0, 0);
    for writer in writers {
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
    (acknowledged, there)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_acknowledged_is_lost_whenever_the_relay_is_killed() {
    let rounds = number_from("SDS_KILL_ROUNDS").unwrap_or(ROUNDS);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number_from("SDS_KILL_SEED").unwrap_or(now.as_secs() | 1);
    println!("SDS_KILL_SEED={seed}");
    let mut dice = Rng::with_seed(seed);
    let home = folder();
    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, seed)).collect();
    let (mut uploader, mut operator) = (Uploader::new(seed), Operator::default());
    for round in 0..rounds {
        let (relay, admin) = start(home.path());
        let (mut running, progress) = (JoinSet::new(), Arc::new(Notify::new()));
        let mut signals = Vec::new();
        let mut hears_of_kill = || {
            let (signal, killed) = oneshot::channel();
            signals.push(signal);
            killed
        };
        for writer in writers.drain(..) {
            running.spawn(writer.write(relay.url.clone(), hears_of_kill(), Arc::clone(&progress)));
        }
        let uploading = tokio::spawn(uploader.upload(relay.url.clone(), hears_of_kill()));
        let operating = tokio::spawn(operator.work(relay.url.clone(), admin, hears_of_kill()));
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
        uploader = timeout(PATIENCE, uploading).await.unwrap().unwrap();
        operator = timeout(PATIENCE, operating).await.unwrap().unwrap();
        operator.check_backups(home.path());
        if round % 5 == 4 || round + 1 == rounds {
            let report = check(home.path()).unwrap();
            assert!(report.is_sound(), "after round {round}: {:?}", report.findings);
        }
    }
    let (relay, admin) = start(home.path());
    // However slow the machine was, there is something to look at.
    timeout(CHECK_PATIENCE, uploader.send(&relay.url, 1)).await.unwrap().unwrap();
    timeout(CHECK_PATIENCE, operator.step(&relay.url, admin)).await.unwrap().unwrap();
    operator.check_backups(home.path());
    timeout(CHECK_PATIENCE, uploader.check(&relay.url)).await.unwrap();
    timeout(CHECK_PATIENCE, operator.check(admin)).await.unwrap();
    relay.signal("KILL");
    relay.wait();
    let (acknowledged, there) = check_log(home.path(), &writers);
    let Uploader { acknowledged: uploads, resumed, .. } = uploader;
    let (deleted, revoked) = (operator.deleted.len(), operator.revoked.len());
    println!("{rounds} rounds: {acknowledged} changes acknowledged, {there} there");
    println!("{uploads} large values, {resumed} of them resumed");
    println!("{deleted} stores deleted, {revoked} tokens revoked");
    assert!(acknowledged > 0 && uploads > 0 && revoked > 0, "there was a load");
}
