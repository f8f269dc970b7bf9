//! What attackers do, each in a loop until its process is killed.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use sds_sync::{ClientFrame, Frame, RelayUrl, encode_datagram};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{changes, dial, open};

/// One kind of abuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Each has ever more to read, and reads nothing.
    SlowReaders,
    Frames,
    Streams,
    Handshakes,
    Datagrams,
    /// Frames that are too large, or that end early, or that are none.
    MalformedFrames,
    /// As after a restart of the relay: nobody means harm.
    Joins,
}

/// How many changes are in a frame of many.
const MANY: u64 = 200;

impl Attack {
    pub(crate) const ALL: [Self; 7] = [
        Self::SlowReaders,
        Self::Frames,
        Self::Streams,
        Self::Handshakes,
        Self::Datagrams,
        Self::MalformedFrames,
        Self::Joins,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SlowReaders => "slow_readers",
            Self::Frames => "floods_of_frames",
            Self::Streams => "floods_of_streams",
            Self::Handshakes => "floods_of_handshakes",
            Self::Datagrams => "floods_of_datagrams",
            Self::MalformedFrames => "oversized_and_truncated_frames",
            Self::Joins => "a_thousand_joins_at_once",
        }
    }

    /// Attacks the relay at `url`, `attackers` at a time. Says a line when one of [`Attack::Joins`] is in.
    pub(crate) async fn go_on(self, url: RelayUrl, attackers: usize) {
        let mut tasks = JoinSet::new();
        for number in 0..attackers {
            let url = url.clone();
            match self {
                Self::SlowReaders => tasks.spawn(read_nothing(url, number)),
                Self::Frames => tasks.spawn(flood_with_frames(url, number)),
                Self::Streams => tasks.spawn(flood_with_streams(url, number)),
                Self::Handshakes => tasks.spawn(flood_with_handshakes(url)),
                Self::Datagrams => tasks.spawn(flood_with_datagrams(url)),
                Self::MalformedFrames => tasks.spawn(send_malformed_frames(url, number)),
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
        // One writes, and none of them reads.
        while number != 0 || sender.send(&changes(2, start, MANY)).await.is_ok() {
            start += MANY;
            sleep(Duration::from_millis(20)).await;
        }
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

async fn join(url: RelayUrl) {
    let _joined = loop {
        if let Some(connection) = dial(&url).await
            && let Some(store) = open(&connection, "calm", "mallory").await
        {
            break (connection, store);
        }
        sleep(Duration::from_millis(200)).await;
    };
    writeln!(std::io::stdout().lock(), "joined").unwrap();
    std::future::pending::<()>().await;
}
