//! Goal: who does not read a stream keeps nobody waiting, not even on its own connection. Method: a log of
//! much more than may be on its way to somebody, and one stream after another of which nothing is read.

mod support {
    pub(crate) mod common;
    pub(crate) mod large;
    pub(crate) mod relay;
    #[expect(dead_code, reason = "nobody is refused")]
    pub(crate) mod stream;
}

use sds_engine::{Patch, Version};
use sds_server::Scope;
use sds_sync::limits::{FRAME_BYTES_MAX, PROTOCOL_VERSION};
use sds_sync::transport::Connection;
use sds_sync::{ClientFrame, RelayFrame};
use support::common::{folder, token};
use support::large::large_change;
use support::relay::relay;
use support::stream::{Stream, change, client};

const CHANGES: usize = 24;

async fn open(connection: &Connection, subject: &str) -> Stream {
    let (token, version) = (token("s", subject, Scope::Write), Version::new().encode().into());
    let (protocol, store) = (PROTOCOL_VERSION, "s".to_owned());
    let open = ClientFrame::Open { protocol, store, token, version };
    let mut stream = Stream::opened(connection, open).await;
    stream.receiver.set_max(FRAME_BYTES_MAX);
    stream
}

/// Reads until `count` changes have come.
async fn read(stream: &mut Stream, count: usize) {
    let mut read = 0;
    while read < count {
        if let RelayFrame::Changes { patch } = stream.next().await {
            read += Patch::count(&patch).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_nobody_reads_keep_no_others_waiting() {
    let data = folder();
    let relay = relay(data.path()).await;
    let desk = client(&relay).await;
    let mut writer = open(&desk, "desk").await;
    for author in 1..=CHANGES as u64 {
        // One of them is larger than all that a stream may have on its way.
        let bytes = if author == 3 { 3_000_000 } else { 1_000_000 };
        writer.send(&[large_change(author, 0, bytes)]).await;
        while !matches!(writer.next().await, RelayFrame::Stored { .. }) {}
    }
    let phone = client(&relay).await;
    let mut unread = Vec::new();
    for _ in 0..4 {
        unread.push(open(&phone, "phone").await);
        read(&mut open(&phone, "phone").await, CHANGES).await;
    }
    // What is new comes too, and then also to who has read nothing so far.
    let mut reader = open(&phone, "phone").await;
    read(&mut reader, CHANGES).await;
    writer.send(&[change(100, 0)]).await;
    read(&mut reader, 1).await;
    for stream in &mut unread {
        read(stream, CHANGES + 1).await;
    }
    relay.stop().await;
}
