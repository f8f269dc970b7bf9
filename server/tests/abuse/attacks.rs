//! What attackers do, each in a loop until its process is killed.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use sds_engine::limits::{CHANGE_BYTES_MAX, CHANGE_OPS_MAX};
use sds_engine::{Change, Op, OpId, Patch, ReplicaId, Version};
use sds_sync::limits::{BLOB_CHUNK_BYTES_MAX, PATCH_CHANGES_MAX};
use sds_sync::transport::Connection;
use sds_sync::{ClientFrame, Frame, RelayFrame, RelayUrl, encode_datagram};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{changes, dial, open, open_with, opening};
use crate::large::large_change;

/// One kind of abuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Each has ever more to read, and reads nothing.
    SlowReaders,
    /// The same on as many streams as there may be, where there is much to read from the beginning.
    SlowCatchUps,
    Frames,
    Streams,
    Handshakes,
    Datagrams,
    /// Frames that are too large, or that end early, or that are none.
    MalformedFrames,
    /// Large frames on many streams that never end.
    LargeFrames,
    /// Changes that take dozens of times their bytes once they are decoded, all for one store.
    DenseChanges,
    /// Changes that name as many others as fit, of which the relay has none, or all but the last.
    ManyDeps,
    /// Large changes as they should be, of one subject in many stores at a time.
    LargeChanges,
    /// A store with many replicas, opened as often as may be, and none of it read.
    Openings,
    /// Large values, as many at a time as may be.
    Uploads,
    /// As after a restart of the relay: nobody means harm.
    Joins,
}

impl Attack {
    pub(crate) const ALL: [Self; 14] = [
        Self::SlowReaders,
        Self::SlowCatchUps,
        Self::Frames,
        Self::Streams,
        Self::Handshakes,
        Self::Datagrams,
        Self::MalformedFrames,
        Self::LargeFrames,
        Self::DenseChanges,
        Self::ManyDeps,
        Self::LargeChanges,
        Self::Openings,
        Self::Uploads,
        Self::Joins,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SlowReaders => "slow_readers",
            Self::SlowCatchUps => "slow_readers_of_a_long_log",
            Self::Frames => "floods_of_frames",
            Self::Streams => "floods_of_streams",
            Self::Handshakes => "floods_of_handshakes",
            Self::Datagrams => "floods_of_datagrams",
            Self::MalformedFrames => "oversized_and_truncated_frames",
            Self::LargeFrames => "large_frames_without_an_end",
            Self::DenseChanges => "changes_full_of_ops",
            Self::ManyDeps => "changes_full_of_deps",
            Self::LargeChanges => "floods_of_large_changes",
            Self::Openings => "openings_that_nobody_reads",
            Self::Uploads => "floods_of_large_values",
            Self::Joins => "a_thousand_joins_at_once",
        }
    }

    /// Attacks the relay at `url`, `attackers` at a time. Says a line when one of [`Attack::Joins`] is in,
    /// or one of [`Attack::Openings`] has asked for all that it will.
    pub(crate) async fn go_on(self, url: RelayUrl, attackers: usize) {
        let mut tasks = JoinSet::new();
        if self == Self::Openings {
            let connection = dial(&url).await.expect("nobody keeps it out");
            assert!(crowd(&connection, OPENED, OPENED_REPLICAS).await, "it has so many replicas");
        }
        for number in 0..attackers {
            let url = url.clone();
            match self {
                Self::SlowReaders => tasks.spawn(read_nothing(url, number)),
                Self::SlowCatchUps => tasks.spawn(begin_to_catch_up(url, number)),
                Self::Frames => tasks.spawn(flood_with_frames(url, number)),
                Self::Streams => tasks.spawn(flood_with_streams(url, number)),
                Self::Handshakes => tasks.spawn(flood_with_handshakes(url)),
                Self::Datagrams => tasks.spawn(flood_with_datagrams(url)),
                Self::MalformedFrames => tasks.spawn(send_malformed_frames(url, number)),
                Self::LargeFrames => tasks.spawn(begin_large_frames(url)),
                Self::DenseChanges => tasks.spawn(send_dense_changes(url, number)),
                Self::ManyDeps => tasks.spawn(send_many_deps(url, number)),
                Self::LargeChanges => tasks.spawn(send_large_changes(url, number)),
                Self::Openings => tasks.spawn(open_and_read_nothing(url, number)),
                Self::Uploads => tasks.spawn(upload(url, number)),
                Self::Joins => tasks.spawn(join(url)),
            };
        }
        while tasks.join_next().await.is_some() {}
    }
}

async fn read_nothing(url: RelayUrl, number: usize) {
    loop {
        let Some(connection) = dial(&url).await else { continue };
        let Some((mut sender, _unread)) = open(&connection, "busy", "mallory").await else {
            continue;
        };
        let mut start = 0;
        // One writes, more than the others' windows hold, and none of them reads.
        loop {
            if number == 0 {
                let change = large_change(2, start, 50_000);
                start = change.header().end();
                let patch = Patch::new(vec![change]).encode().into();
                if sender.send(&ClientFrame::Changes { patch }).await.is_err() {
                    break;
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn begin_to_catch_up(url: RelayUrl, number: usize) {
    let reader = Version::new();
    loop {
        let Some(connection) = dial(&url).await else { continue };
        if number == 0
            && let Some((mut sender, mut receiver)) = open(&connection, "long", "mallory").await
        {
            for part in 0..16 {
                let patch = Patch::new(vec![large_change(100 + part, 0, 1_000_000)]).encode();
                let _sent = sender.send(&ClientFrame::Changes { patch: patch.into() }).await;
                let _stored = receiver.next::<RelayFrame>().await;
            }
        }
        let mut unread = Vec::new();
        while unread.len() < 40
            && let Some(stream) = open_with(&connection, "long", "mallory", &reader).await
        {
            unread.push(stream);
        }
        sleep(Duration::from_secs(10)).await;
    }
}

async fn flood_with_frames(url: RelayUrl, number: usize) {
    let subject = format!("mallory {number}");
    let frame = ClientFrame::Presence { clock: 1, state: Bytes::from_static(b"{}") }.encode();
    let many = Bytes::from(frame.repeat(1_000));
    loop {
        let Some(connection) = dial(&url).await else { continue };
        let Some((mut sender, _receiver)) = open(&connection, "calm", &subject).await else {
            continue;
        };
        while sender.send_encoded(many.clone()).await.is_ok() {}
    }
}

async fn flood_with_streams(url: RelayUrl, number: usize) {
    loop {
        let Some(connection) = dial(&url).await else { continue };
        let member = number.is_multiple_of(2);
        let _store = if member { open(&connection, "calm", "mallory").await } else { None };
        while let Ok((mut sender, receiver)) = connection.open_stream().await {
            let _gone = sender.send_encoded(ClientFrame::Bye.encode()).await;
            receiver.stop();
        }
    }
}

async fn flood_with_handshakes(url: RelayUrl) {
    loop {
        drop(timeout(Duration::from_millis(500), dial(&url)).await);
    }
}

async fn flood_with_datagrams(url: RelayUrl) {
    loop {
        let Some(connection) = dial(&url).await else { continue };
        let Some((sender, _receiver)) = open(&connection, "calm", "mallory").await else {
            continue;
        };
        let frame = ClientFrame::Presence { clock: 1, state: Bytes::from(vec![b'x'; 1_000]) };
        let datagram = encode_datagram(sender.id(), &frame);
        let closed = async { while connection.read_datagram().await.is_ok() {} };
        let flood = async {
            loop {
                for _ in 0..100 {
                    // Whatever does not fit is dropped on the way.
                    let _sent = connection.send_datagram(datagram.clone());
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = closed => {}
            () = flood => {}
        }
    }
}

async fn send_malformed_frames(url: RelayUrl, number: usize) {
    let length = |length: u32| length.to_le_bytes().to_vec();
    let rows = [
        length(u32::MAX),
        length(64 << 10),
        [length(40 << 10), vec![6; 10_000]].concat(),
        [length(3), vec![200, 1, 2]].concat(),
        vec![1, 0],
    ];
    loop {
        let Some(connection) = dial(&url).await else { continue };
        for row in rows.iter().cycle().skip(number).take(40) {
            let stream = if number.is_multiple_of(2) {
                open(&connection, "calm", "mallory").await
            } else {
                connection.open_stream().await.ok()
            };
            let Some((mut sender, _)) = stream else { break };
            let _refused = sender.send_encoded(row.clone().into()).await;
        }
    }
}

async fn begin_large_frames(url: RelayUrl) {
    loop {
        let Some(connection) = dial(&url).await else { continue };
        let mut tasks = JoinSet::new();
        for number in 0..40 {
            let stream = open(&connection, &format!("large {number}"), "mallory").await;
            let Some((mut sender, mut receiver)) = stream else { break };
            tasks.spawn(async move {
                let length = u32::try_from(CHANGE_BYTES_MAX).unwrap().to_le_bytes();
                let most = [&length[..], &vec![6; CHANGE_BYTES_MAX - 1_000]].concat();
                if sender.send_encoded(most.into()).await.is_ok() {
                    let _refused = receiver.next::<RelayFrame>().await;
                }
            });
        }
        let ended = async { while tasks.join_next().await.is_some() {} };
        // Those that are not refused are left as they are for a while.
        let _all = timeout(Duration::from_secs(10), ended).await;
    }
}

async fn send_dense_changes(url: RelayUrl, number: usize) {
    // One large change each, or a block of two that is as large as any may be.
    let (count, parts) = if number.is_multiple_of(2) { (CHANGE_OPS_MAX, 1) } else { (250_000, 2) };
    let author = ReplicaId::new(100 + number as u64).unwrap();
    let ops = vec![Op::Skip { count: 1 }; count];
    let change = |part| Change::new(author, part * count as u64, Vec::new(), &ops).unwrap();
    let patch = match parts {
        1 => Patch::new(vec![change(0)]),
        _ => Patch::in_blocks((0..parts).map(change).collect()),
    };
    let patch = Bytes::from(patch.encode());
    // All make the same, and have it, so that nobody has anything to read.
    let mut version = Version::new();
    (0..4).for_each(|number| {
        version.advance(ReplicaId::new(100 + number).unwrap(), CHANGE_OPS_MAX as u64);
    });
    loop {
        let Some(connection) = dial(&url).await else { continue };
        let (mut senders, mut reading) = (Vec::new(), JoinSet::new());
        while senders.len() < 40
            && let Some((sender, mut receiver)) =
                open_with(&connection, "dense", "mallory", &version).await
        {
            senders.push(sender);
            reading.spawn(async move {
                while let Ok(Some(RelayFrame::Changes { .. })) = receiver.next().await {}
            });
        }
        for sender in &mut senders {
            // It is looked at again each time, although the relay has it.
            if sender.send(&ClientFrame::Changes { patch: patch.clone() }).await.is_err() {
                break;
            }
        }
        // Until what each sent is acknowledged, or refused.
        while reading.join_next().await.is_some() {}
    }
}

/// How many replicas a store has that is crowded by one writer: as many as there may be.
const CROWD: u64 = 100_000;

fn crowded(author: u64, deps: impl Iterator<Item = u64>) -> Change {
    let dep = |replica| OpId { replica: ReplicaId::new(replica).unwrap(), counter: 0 };
    let (author, ops) = (ReplicaId::new(author).unwrap(), [Op::Skip { count: 1 }]);
    Change::new(author, 0, deps.map(dep).collect(), &ops).unwrap()
}

/// Lets a store have changes of so many replicas; false if the relay does not let it.
async fn crowd(connection: &Connection, store: &str, count: u64) -> bool {
    let mut version = Version::new();
    (1..=count).for_each(|replica| version.advance(ReplicaId::new(replica).unwrap(), 1));
    let Some((mut sender, mut receiver)) = open(connection, store, "mallory").await else {
        return false;
    };
    let all: Vec<u64> = (1..=count).collect();
    for part in all.chunks(PATCH_CHANGES_MAX) {
        let changes = part.iter().map(|author| crowded(*author, std::iter::empty()));
        let patch = Patch::new(changes.collect()).encode().into();
        if sender.send(&ClientFrame::Changes { patch }).await.is_err() {
            return false;
        }
    }
    let mut stored = Version::new();
    while !stored.covers(&version) {
        match receiver.next().await {
            Ok(Some(RelayFrame::Stored { version })) => {
                stored.merge(&Version::decode(&version).unwrap());
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return false,
        }
    }
    true
}

async fn send_many_deps(url: RelayUrl, number: usize) {
    let mallory = 2 * CROWD + number as u64;
    let change = if number.is_multiple_of(2) {
        // So that the whole is just below what a change may have.
        crowded(mallory, (0..1_800_000).map(|dep| 3 * CROWD + dep))
    } else {
        crowded(mallory, (1..=CROWD).chain([3 * CROWD]))
    };
    let patch = Bytes::from(Patch::new(vec![change]).encode());
    let connection = loop {
        if let Some(connection) = dial(&url).await
            && (number > 0 || crowd(&connection, "crowded by deps", CROWD).await)
        {
            break connection;
        }
    };
    // Who has it all has nothing to read.
    let mut version = Version::new();
    (1..=7_000).for_each(|replica| version.advance(ReplicaId::new(replica).unwrap(), 1));
    loop {
        let stream = open_with(&connection, "crowded by deps", "mallory", &version).await;
        let Some((mut sender, mut receiver)) = stream else { continue };
        let _sent = sender.send(&ClientFrame::Changes { patch: patch.clone() }).await;
        while let Ok(Some(RelayFrame::Changes { .. })) = receiver.next().await {}
    }
}

async fn send_large_changes(url: RelayUrl, number: usize) {
    let sizes = [4 << 20, 15 << 20, 8 << 20];
    loop {
        let Some(connection) = dial(&url).await else { continue };
        let mut tasks = JoinSet::new();
        for store in 0..24 {
            let name = format!("large {number} {store}");
            let Some((mut sender, mut receiver)) = open(&connection, &name, "mallory").await else {
                break;
            };
            let author = std::process::id().into();
            tasks.spawn(async move {
                let mut start = 0;
                for size in sizes.into_iter().cycle().skip(store) {
                    let change = large_change(author, start, size);
                    start = change.header().end();
                    let patch = Patch::new(vec![change]).encode().into();
                    let sent = sender.send(&ClientFrame::Changes { patch }).await;
                    if sent.is_err() || !matches!(receiver.next::<RelayFrame>().await, Ok(Some(_)))
                    {
                        return;
                    }
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// The store of [`Attack::Openings`], and how many replicas it has.
const OPENED: &str = "opened";
const OPENED_REPLICAS: u64 = 80_000;

async fn open_and_read_nothing(url: RelayUrl, number: usize) {
    let connection = loop {
        if let Some(connection) = dial(&url).await {
            break connection;
        }
    };
    let mut first = open(&connection, OPENED, "mallory").await.expect("it has a right to");
    let mut unread = Vec::new();
    for _ in 1..48 {
        let Ok((mut sender, receiver)) = connection.open_stream().await else { break };
        let _sent = sender.send(&opening(OPENED, "mallory", &Version::new())).await;
        unread.push((sender, receiver));
    }
    writeln!(std::io::stdout().lock(), "asked").unwrap();
    // With each change the store is another one to those who open it from then on.
    for start in 1.. {
        if number == 0 {
            let _sent = first.0.send(&changes(1, start, 1)).await;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

async fn upload(url: RelayUrl, number: usize) {
    let subject = format!("mallory {number}");
    let bytes = Bytes::from(vec![7; BLOB_CHUNK_BYTES_MAX]);
    loop {
        let Some(connection) = dial(&url).await else { continue };
        let store = format!("large {number}");
        let Some(_store) = open(&connection, &store, &subject).await else { continue };
        let mut tasks = JoinSet::new();
        for hash in 0..40 {
            let Ok((mut sender, mut receiver)) = connection.open_stream().await else { break };
            let (store, bytes) = (store.clone(), bytes.clone());
            tasks.spawn(async move {
                // Its bytes are not those of the hash, so that no disk fills.
                let size = 16 * bytes.len() as u64;
                let put = ClientFrame::PutBlob { store, hash: [hash; 32], size };
                let _begun = sender.send(&put).await;
                let _wanted = receiver.next::<RelayFrame>().await;
                let chunk = ClientFrame::BlobChunk { bytes };
                for _ in 0..16 {
                    if sender.send(&chunk).await.is_err() {
                        return;
                    }
                }
                let _refused = receiver.next::<RelayFrame>().await;
            });
        }
        while tasks.join_next().await.is_some() {}
    }
}

async fn join(url: RelayUrl) {
    let _joined = loop {
        if let Some(connection) = dial(&url).await
            && let Some(store) = open(&connection, "crowded", "mallory").await
        {
            break (connection, store);
        }
        sleep(Duration::from_millis(200)).await;
    };
    writeln!(std::io::stdout().lock(), "joined").unwrap();
    std::future::pending::<()>().await;
}
