//! What a relay answers, frame by frame: real QUIC on loopback.

mod support {
    pub(crate) mod common;
    pub(crate) mod relay;
    pub(crate) mod stream;
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sds_engine::{Change, Op, OpId, Patch, ReplicaId, Version};
use sds_server::limits::Limits;
use sds_server::{Relay, Scope};
use sds_sync::limits::{
    BLOB_BYTES_MAX, BLOB_CHUNK_BYTES_MAX, FRAME_BYTES_MAX, IDLE_CONNECTION_TIMEOUT, OPEN_SEATS_MAX,
    PROTOCOL_VERSION,
};
use sds_sync::transport::{Connection, connect};
use sds_sync::{Chain, ClientFrame, RefusalCode, RelayFrame, RelayUrl, SeatTip, Token, Trust};
use sha2::{Digest, Sha256};
use support::common::{PATIENCE, folder, id, token};
use support::relay::relay;
use support::stream::{Stream, change, client};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

impl Stream {
    async fn open(connection: &Connection, store: &str, scope: Scope, has: &[(u64, u64)]) -> Self {
        let (token, store) = (token(store, "desk", scope), store.to_owned());
        let version = version(has).encode().into();
        let open = ClientFrame::Open { protocol: 1, store, token, version };
        Self::opened(connection, open).await
    }

    async fn stored(&mut self) -> Version {
        match self.next().await {
            RelayFrame::Stored { version } => Version::decode(&version).unwrap(),
            frame => panic!("not stored: {frame:?}"),
        }
    }

    async fn changes(&mut self) -> Vec<Change> {
        match self.next().await {
            RelayFrame::Changes { patch } => Patch::decode(&patch).unwrap().into_changes(),
            frame => panic!("no changes: {frame:?}"),
        }
    }

    /// The stream ends with this refusal.
    async fn refused(&mut self, expected: RefusalCode) {
        assert_eq!(self.refusal().await, Some(expected));
    }

    /// Nothing comes for a while.
    async fn is_silent(&mut self) {
        let frame = timeout(Duration::from_millis(200), self.receiver.next::<RelayFrame>()).await;
        assert!(frame.is_err(), "{frame:?}");
    }
}

fn replica(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}

fn sized_change(author: u64, start: u64, deps: &[(u64, u64)], count: u64) -> Change {
    let dep =
        |(author, counter): &(u64, u64)| OpId { replica: replica(*author), counter: *counter };
    let deps = deps.iter().map(dep).collect();
    Change::new(replica(author), start, deps, &[Op::Skip { count }]).unwrap()
}

fn version(pairs: &[(u64, u64)]) -> Version {
    let mut version = Version::new();
    pairs.iter().for_each(|(author, next)| version.advance(replica(*author), *next));
    version
}

/// Goal: what a client has sent before it left is taken, all of it. Method: it listens to nothing from the
/// beginning, so that the relay finds out in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_client_left_is_taken_whatever_came_in_between() {
    const MANY: u64 = 100;
    let folder = folder();
    let relay = relay(folder.path()).await;
    let connection = client(&relay).await;
    let (store, version) = ("s".to_owned(), version(&[]).encode().into());
    let token = token(&store, "desk", Scope::Write);
    let open = ClientFrame::Open { protocol: 3, store, token, version };
    let Stream { mut sender, receiver } = Stream::opened(&connection, open).await;
    receiver.stop();
    for start in 0..MANY {
        let patch = Patch::new(vec![change(1, start)]).encode().into();
        sender.send(&ClientFrame::Changes { patch }).await.unwrap();
        let state = bytes::Bytes::from_static(b"here");
        sender.send(&ClientFrame::Presence { clock: start + 1, state }).await.unwrap();
        // So that it is told of what is stored before the next one comes.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut other = Stream::open(&connection, "s", Scope::Read, &[]).await;
    let mut heard = 0;
    while heard < MANY {
        heard += other.changes().await.len() as u64;
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_reach_the_others_of_the_store_but_neither_sender_nor_other_stores() {
    let folder = folder();
    let relay = relay(folder.path()).await;
    let (one, two) = (client(&relay).await, client(&relay).await);
    let mut desk = Stream::open(&one, "s", Scope::Write, &[]).await;
    let mut phone = Stream::open(&two, "s", Scope::Read, &[]).await;
    let mut eve = Stream::open(&two, "t", Scope::Write, &[]).await;
    let change = change(1, 0);
    desk.send(std::slice::from_ref(&change)).await;
    assert_eq!(desk.stored().await, version(&[(1, 1)]));
    assert_eq!(phone.changes().await, [change]);
    desk.is_silent().await;
    eve.is_silent().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_are_acknowledged_and_forwarded_once() {
    let folder = folder();
    let relay = relay(folder.path()).await;
    let connection = client(&relay).await;
    let mut desk = Stream::open(&connection, "s", Scope::Write, &[]).await;
    let mut phone = Stream::open(&connection, "s", Scope::Write, &[]).await;
    let first = change(1, 0);
    for _ in 0..3 {
        desk.send(std::slice::from_ref(&first)).await;
        assert_eq!(desk.stored().await, version(&[(1, 1)]));
    }
    desk.send(&[first.clone(), change(1, 1)]).await;
    assert_eq!(desk.stored().await, version(&[(1, 2)]));
    assert_eq!(phone.changes().await, [first]);
    assert_eq!(phone.changes().await, [change(1, 1)]);
    phone.is_silent().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_late_gets_only_what_it_lacks_in_causal_order() {
    let folder = folder();
    let relay = relay(folder.path()).await;
    let connection = client(&relay).await;
    let mut desk = Stream::open(&connection, "s", Scope::Write, &[]).await;
    let changes =
        [change(1, 0), sized_change(2, 0, &[(1, 0)], 1), sized_change(1, 1, &[(2, 0)], 1)];
    desk.send(&changes).await;
    desk.stored().await;
    let mut late = Stream::open(&connection, "s", Scope::Read, &[(1, 1)]).await;
    assert_eq!(late.changes().await, changes[1..]);
    late.is_silent().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_is_refused_and_never_acknowledged() {
    let folder = folder();
    let relay = relay(folder.path()).await;
    let connection = client(&relay).await;
    let mut desk = Stream::open(&connection, "s", Scope::Write, &[]).await;
    desk.send(&[change(1, 0)]).await;
    desk.stored().await;
    let rows = [
        (sized_change(1, 0, &[], 2), RefusalCode::Forked),
        (change(1, 5), RefusalCode::MissingDependency),
        (sized_change(2, 0, &[(3, 0)], 1), RefusalCode::MissingDependency),
    ];
    for (change, expected) in rows {
        let mut stream = Stream::open(&connection, "s", Scope::Write, &[(1, 1)]).await;
        stream.send(&[change]).await;
        stream.refused(expected).await;
    }
    let mut reader = Stream::open(&connection, "s", Scope::Read, &[(1, 1)]).await;
    reader.send(&[change(2, 0)]).await;
    reader.refused(RefusalCode::ReadOnly).await;
    desk.is_silent().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_frame_ends_only_its_own_stream() {
    let folder = folder();
    let relay = relay(folder.path()).await;
    let connection = client(&relay).await;
    let mut good = Stream::open(&connection, "s", Scope::Write, &[]).await;
    let too_long = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_le_bytes();
    let rows: [&[u8]; 5] =
        [&[1, 0, 0, 0, 99], &[0; 4], &[3, 0, 0, 0, 1, 9, 0], &[1, 0, 0, 0, 0], &too_long];
    for bytes in rows {
        let mut stream = Stream::open(&connection, "s", Scope::Write, &[]).await;
        stream.sender.send_encoded(bytes.to_vec().into()).await.unwrap();
        stream.refused(RefusalCode::Malformed).await;
        let (mut sender, receiver) = connection.open_stream().await.unwrap();
        sender.send_encoded(bytes.to_vec().into()).await.unwrap();
        Stream { sender, receiver }.refused(RefusalCode::Malformed).await;
    }
    let mut patch = Stream::open(&connection, "s", Scope::Write, &[]).await;
    let garbage = ClientFrame::Changes { patch: vec![7; 100].into() };
    patch.sender.send(&garbage).await.unwrap();
    patch.refused(RefusalCode::Malformed).await;
    good.send(&[change(1, 0)]).await;
    assert_eq!(good.stored().await, version(&[(1, 1)]));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_tells_how_far_it_has_the_seats_that_it_is_asked_about() {
    let folder = folder();
    let relay = relay(folder.path()).await;
    let connection = client(&relay).await;
    let mut author = Stream::open(&connection, "s", Scope::Write, &[]).await;
    let made = [change(1, 0), change(1, 1), change(2, 0)];
    author.send(&made).await;
    assert_eq!(author.stored().await, version(&[(1, 2), (2, 1)]));
    let mut chain = Chain::default();
    made[..2].iter().for_each(|change| chain.extend(change.header().end(), change.bytes()));

    let open = |seats| ClientFrame::OpenSeated {
        protocol: PROTOCOL_VERSION,
        store: "s".to_owned(),
        token: token("s", "desk", Scope::Write),
        version: version(&[(1, 2), (2, 1)]).encode().into(),
        seats,
    };
    let opened = Stream::begin(&connection, open(vec![1, 9])).await.next().await;
    let version = version(&[(1, 2), (2, 1)]).encode().into();
    let seats = vec![SeatTip { replica: 1, next: 2, chain: chain.hash }];
    assert_eq!(opened, RelayFrame::OpenedSeated { version, writable: true, seats });
    let most = Stream::begin(&connection, open(vec![1; OPEN_SEATS_MAX])).await.next().await;
    assert!(matches!(most, RelayFrame::OpenedSeated { .. }));
    let mut many = Stream::begin(&connection, open(vec![1; OPEN_SEATS_MAX + 1])).await;
    many.refused(RefusalCode::Malformed).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_frames_that_open_nothing_are_refused() {
    let folder = folder();
    let relay = relay(folder.path()).await;
    let connection = client(&relay).await;
    let open = |protocol, store: &str, token, version: &'static [u8]| ClientFrame::Open {
        protocol,
        store: store.to_owned(),
        token,
        version: version.into(),
    };
    let good = token("s", "desk", Scope::Write);
    let chunk = ClientFrame::BlobChunk { bytes: vec![0; 70_000].into() };
    let rows = [
        (ClientFrame::Bye, RefusalCode::Unexpected),
        (ClientFrame::Changes { patch: vec![].into() }, RefusalCode::Unexpected),
        (chunk, RefusalCode::Malformed),
        (open(PROTOCOL_VERSION + 1, "s", good.clone(), b""), RefusalCode::TooNew),
        (open(0, "s", good.clone(), b""), RefusalCode::Malformed),
        (open(1, "s", good.clone(), b"\xff"), RefusalCode::Malformed),
        (open(1, "t", good.clone(), b""), RefusalCode::Forbidden),
        (open(1, "s", Token::from("x".to_owned()), b""), RefusalCode::Unauthorized),
    ];
    for (frame, expected) in rows {
        Stream::begin(&connection, frame).await.refused(expected).await;
    }
    relay.stop().await;
}

async fn put(connection: &Connection, hash: [u8; 32], size: u64, chunks: &[&[u8]]) -> Stream {
    let put = ClientFrame::PutBlob { store: "s".to_owned(), hash, size };
    let mut stream = Stream::begin(connection, put).await;
    if !chunks.is_empty() {
        assert_eq!(stream.next().await, RelayFrame::BlobWanted);
    }
    for chunk in chunks {
        let chunk = ClientFrame::BlobChunk { bytes: chunk.to_vec().into() };
        stream.sender.send(&chunk).await.unwrap();
    }
    stream
}

async fn get(connection: &Connection, hash: [u8; 32]) -> Stream {
    let store = "s".to_owned();
    Stream::begin(connection, ClientFrame::GetBlob { store, hash }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_taken_only_whole_and_true() {
    let folder = folder();
    let relay = relay(folder.path()).await;
    let connection = client(&relay).await;
    let content = vec![5_u8; BLOB_CHUNK_BYTES_MAX + 10];
    let size = content.len() as u64;
    let hash: [u8; 32] = Sha256::digest(&content).into();
    let (first, rest) = content.split_at(BLOB_CHUNK_BYTES_MAX);

    put(&connection, hash, size, &[]).await.refused(RefusalCode::Unauthorized).await;
    let reader = Stream::open(&connection, "s", Scope::Read, &[]).await;
    put(&connection, hash, size, &[]).await.refused(RefusalCode::ReadOnly).await;
    assert_eq!(get(&connection, hash).await.next().await, RelayFrame::BlobMissing);
    let _writer = Stream::open(&connection, "s", Scope::Write, &[]).await;
    put(&connection, hash, BLOB_BYTES_MAX + 1, &[]).await.refused(RefusalCode::TooLarge).await;
    put(&connection, [9; 32], size, &[first, rest]).await.refused(RefusalCode::WrongHash).await;
    put(&connection, hash, size, &[rest]).await.refused(RefusalCode::Malformed).await;
    let mut broken_off = put(&connection, hash, size, &[first]).await;
    let sender =
        std::mem::replace(&mut broken_off.sender, connection.open_stream().await.unwrap().0);
    sender.finish().await;
    broken_off.refused(RefusalCode::Unexpected).await;
    let too_much = [first, &content[..11]];
    put(&connection, hash, size, &too_much).await.refused(RefusalCode::Malformed).await;
    for name in [hash, [9; 32]] {
        assert_eq!(get(&connection, name).await.next().await, RelayFrame::BlobMissing);
    }

    let mut stream = put(&connection, hash, size, &[first, rest]).await;
    assert_eq!(stream.next().await, RelayFrame::BlobStored);
    assert_eq!(put(&connection, hash, size, &[]).await.next().await, RelayFrame::BlobStored);
    let mut found = get(&connection, hash).await;
    assert_eq!(found.next().await, RelayFrame::BlobFound { size });
    assert_eq!(found.next().await, RelayFrame::BlobChunk { bytes: first.to_vec().into() });
    assert_eq!(found.next().await, RelayFrame::BlobChunk { bytes: rest.to_vec().into() });
    let empty: [u8; 32] = Sha256::digest([]).into();
    let mut nothing = put(&connection, empty, 0, &[]).await;
    assert_eq!(nothing.next().await, RelayFrame::BlobWanted);
    assert_eq!(nothing.next().await, RelayFrame::BlobStored);
    drop(reader);
    relay.stop().await;
}

async fn offer(connection: &Connection, hash: [u8; 32], size: u64) -> Stream {
    let store = "s".to_owned();
    Stream::begin(connection, ClientFrame::OfferBlob { store, hash, size }).await
}

async fn send_chunk(stream: &mut Stream, bytes: &[u8]) {
    let chunk = ClientFrame::BlobChunk { bytes: bytes.to_vec().into() };
    stream.sender.send(&chunk).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_goes_on_where_it_broke_off_also_with_another_relay_on_the_same_folder() {
    let folder = folder();
    let content: Vec<u8> = (0..=250).cycle().take(2 * BLOB_CHUNK_BYTES_MAX + 9).collect();
    let (size, chunk) = (content.len() as u64, BLOB_CHUNK_BYTES_MAX);
    let hash: [u8; 32] = Sha256::digest(&content).into();
    for round in 0..2 {
        let relay = relay(folder.path()).await;
        let connection = client(&relay).await;
        let _writer = Stream::open(&connection, "s", Scope::Write, &[]).await;
        let mut stream = offer(&connection, hash, size).await;
        let offset = round * chunk;
        assert_eq!(stream.next().await, RelayFrame::BlobWantedFrom { offset: offset as u64 });
        send_chunk(&mut stream, &content[offset..offset + chunk]).await;
        // Somebody else has to wait as long as it comes.
        offer(&connection, hash, size).await.refused(RefusalCode::Busy).await;
        let other = connection.open_stream().await.unwrap().0;
        std::mem::replace(&mut stream.sender, other).finish().await;
        stream.refused(RefusalCode::Unexpected).await;
        assert_eq!(get(&connection, hash).await.next().await, RelayFrame::BlobMissing);
        relay.stop().await;
    }
    let relay = relay(folder.path()).await;
    let connection = client(&relay).await;
    let _writer = Stream::open(&connection, "s", Scope::Write, &[]).await;
    let mut stream = offer(&connection, hash, size).await;
    assert_eq!(stream.next().await, RelayFrame::BlobWantedFrom { offset: 2 * chunk as u64 });
    send_chunk(&mut stream, &content[2 * chunk..]).await;
    assert_eq!(stream.next().await, RelayFrame::BlobStored);
    assert_eq!(offer(&connection, hash, size).await.next().await, RelayFrame::BlobStored);
    for offset in [0, 5, size - 1, size, u64::MAX] {
        let from = ClientFrame::GetBlobFrom { store: "s".to_owned(), hash, offset };
        let mut found = Stream::begin(&connection, from).await;
        assert_eq!(found.next().await, RelayFrame::BlobFound { size });
        let from = usize::try_from(offset).unwrap();
        let rest = content.get(from..).unwrap_or_default();
        for part in rest.chunks(chunk) {
            let bytes = part.to_vec().into();
            assert_eq!(found.next().await, RelayFrame::BlobChunk { bytes });
        }
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_stops_says_so_and_loses_nothing_that_it_acknowledged() {
    let folder = folder();
    let first = relay(folder.path()).await;
    let connection = client(&first).await;
    let mut desk = Stream::open(&connection, "s", Scope::Write, &[]).await;
    desk.send(&[change(1, 0)]).await;
    desk.stored().await;
    let stopping = tokio::spawn(first.stop());
    desk.refused(RefusalCode::ShuttingDown).await;
    stopping.await.unwrap();
    let second = relay(folder.path()).await;
    let connection = client(&second).await;
    let mut late = Stream::open(&connection, "s", Scope::Read, &[]).await;
    assert_eq!(late.changes().await, [change(1, 0)]);
    second.stop().await;
}

/// Goal: what the relay's side of the connection has received is stored even if the client closes it
/// at once, without waiting for any answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_before_the_connection_closed_is_stored() {
    const COUNT: u64 = 400;
    let folder = folder();
    let relay = relay(folder.path()).await;
    for author in 1..=20 {
        let leaving = client(&relay).await;
        let mut stream = Stream::open(&leaving, "s", Scope::Write, &[]).await;
        // Several frames, so that the first is on its way to the disk while others wait.
        for first in (0..COUNT).step_by(20) {
            let changes = (first..first + 20).map(|start| change(author, start));
            stream.send(&changes.collect::<Vec<_>>()).await;
        }
        stream.sender.finish().await;
        leaving.close().await;
    }
    // Each closed connection may need a moment for its last commit.
    let watching = client(&relay).await;
    let mut watcher = Stream::open(&watching, "s", Scope::Read, &[]).await;
    let mut heard = 0;
    while heard < 20 * COUNT {
        heard += watcher.changes().await.len() as u64;
    }
    relay.stop().await;
}

/// Goal: one client that does not read never delays the others.
/// Method: more than all buffers between hold is sent past it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_delays_nobody() {
    let folder = folder();
    let relay = relay(folder.path()).await;
    let (one, two, three) = (client(&relay).await, client(&relay).await, client(&relay).await);
    let mut desk = Stream::open(&one, "s", Scope::Write, &[]).await;
    let mut slow = Stream::open(&two, "s", Scope::Read, &[]).await;
    let mut phone = Stream::open(&three, "s", Scope::Read, &[]).await;
    let large = Arc::new("x".repeat(900_000));
    let mut start = 0;
    for _ in 0..20 {
        let set = Op::Set {
            entry: sds_engine::EntryId::ROOT,
            life: sds_engine::Life::FIRST,
            field: sds_engine::Field::Label,
            value: sds_engine::Value::Text(large.to_string()),
        };
        let change = Change::new(replica(1), start, Vec::new(), &[set]).unwrap();
        start = change.header().end();
        desk.send(std::slice::from_ref(&change)).await;
        assert_eq!(desk.stored().await, version(&[(1, start)]));
        assert_eq!(phone.changes().await, [change]);
    }
    let mut heard = 0;
    while heard < start {
        for change in slow.changes().await {
            assert_eq!(change.header().start, heard);
            heard = change.header().end();
        }
    }
    relay.stop().await;
}

/// First packets of `count` clients that will never answer.
async fn first_packets(relay: &Relay, count: usize) -> Vec<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let url = RelayUrl::new("127.0.0.1", port, relay.url().pin()).unwrap();
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let url = url.clone();
        clients.spawn(async move { drop(connect(&url, &Trust::of(&url)).await) });
    }
    let mut packets = BTreeMap::new();
    let mut buffer = [0; 2_000];
    while packets.len() < count {
        let size = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
        // What follows the version is the id that tells clients apart; 20 bytes are its most.
        packets.entry(buffer[5..26].to_vec()).or_insert_with(|| buffer[..size].to_vec());
    }
    packets.into_values().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_shake_hands_does_not_delay_the_stop() {
    let folder = folder();
    let relay = relay(folder.path()).await;
    let packets = first_packets(&relay, 1).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&packets[0], relay.local_addr()).await.unwrap();
    timeout(PATIENCE, socket.recv(&mut [0; 2_000])).await.unwrap().unwrap();
    let stopped = timeout(Duration::from_secs(9), relay.stop()).await;
    assert!(stopped.is_ok(), "the stop takes longer than supervisors wait");
}

/// Goal: packets with forged addresses keep nobody out.
/// Method: more clients than may shake hands unproved send one packet and fall silent.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_many_shake_hands_has_to_prove_its_address() {
    let folder = folder();
    let relay = relay(folder.path()).await;
    let packets = first_packets(&relay, Limits::default().unproved_handshakes as usize + 4).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for packet in &packets {
        socket.send_to(packet, relay.local_addr()).await.unwrap();
    }
    let mut buffer = [0; 2_000];
    let mut retries = 0;
    while retries < 4 {
        timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("a retry in time").unwrap();
        retries += usize::from(buffer[0] & 0xf0 == 0xf0);
    }
    let connection = client(&relay).await;
    Stream::open(&connection, "s", Scope::Read, &[]).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_an_open_store_is_closed_however_busy_it_is() {
    let folder = folder();
    let relay = relay(folder.path()).await;
    let (stranger, known) = (client(&relay).await, client(&relay).await);
    let mut desk = Stream::open(&known, "s", Scope::Write, &[]).await;
    let get = || async {
        let (mut sender, mut receiver) = stranger.open_stream().await?;
        sender.send(&ClientFrame::GetBlob { store: "s".to_owned(), hash: [1; 32] }).await?;
        receiver.next::<RelayFrame>().await
    };
    let busy = async {
        while get().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let closed = timeout(IDLE_CONNECTION_TIMEOUT + Duration::from_secs(10), busy).await;
    assert!(closed.is_ok(), "the stranger is served for ever");
    desk.send(&[change(1, 0)]).await;
    assert_eq!(desk.stored().await, version(&[(1, 1)]));
    relay.stop().await;
}

/// Goal: whoever has a store open that is deleted is told so, whatever its session is about to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_deleted_tells_those_who_have_it_open() {
    let folder = folder();
    let relay = relay(folder.path()).await;
    let id = id("s");
    for round in 0..20_u64 {
        let connection = client(&relay).await;
        let mut streams = Vec::new();
        for _ in 0..4 {
            let open = ClientFrame::OpenSeated {
                protocol: PROTOCOL_VERSION,
                store: "s".to_owned(),
                token: token("s", "desk", Scope::Write),
                version: version(&[]).encode().into(),
                seats: Vec::new(),
            };
            streams.push(Stream::begin(&connection, open).await);
        }
        let [first, others @ ..] = &mut streams[..] else { panic!("no streams") };
        for stream in [&mut *first].into_iter().chain(others.iter_mut()) {
            assert!(matches!(stream.next().await, RelayFrame::OpenedSeated { .. }));
            assert!(matches!(stream.next().await, RelayFrame::Access { writable: true, .. }));
        }
        first.send(&[change(round + 1, 0)]).await;
        first.stored().await;
        for stream in others {
            stream.changes().await;
        }
        assert!(relay.delete_store(&id).unwrap());
        for stream in &mut streams {
            stream.refused(RefusalCode::Forbidden).await;
        }
        assert!(relay.log().undelete(&id).unwrap());
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_stops_says_when_to_come_back_to_whoever_understands() {
    let folder = folder();
    let relay = relay(folder.path()).await;
    let connection = client(&relay).await;
    let open = |protocol| {
        let (token, version) = (token("s", "desk", Scope::Write), Version::new().encode().into());
        ClientFrame::Open { protocol, store: "s".to_owned(), token, version }
    };
    let mut older = Stream::opened(&connection, open(3)).await;
    let mut newer = Stream::opened(&connection, open(4)).await;
    assert!(matches!(newer.next().await, RelayFrame::Access { .. }));
    let stopping = tokio::spawn(relay.stop());
    older.refused(RefusalCode::ShuttingDown).await;
    let RelayFrame::ComeBack { after } = newer.next().await else { panic!("not said when") };
    assert!((1..60_000).contains(&after), "{after} ms");
    newer.refused(RefusalCode::ShuttingDown).await;
    stopping.await.unwrap();
}
