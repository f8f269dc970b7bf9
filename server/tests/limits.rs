//! What clients meet at each limit of a relay, and past it: real QUIC on loopback.
//!
//! Goal: no limit is only written down. Method: each is set low, reached, which is fine, and passed,
//! which has the effect that `Limits` describes and is counted under its name.

mod support {
    pub(crate) mod common;
    pub(crate) mod stream;
}

use std::time::Duration;

use sds_engine::{ReplicaId, Version};
use sds_server::limits::{
    BEGUN_BYTES_PER_CONNECTION_MAX, BEGUN_BYTES_PER_SUBJECT_MAX, Limit, Limits,
};
use sds_server::{Relay, RelayConfig, Scope};
use sds_sync::limits::{BLOB_PARTS_MAX, FIRST_FRAME_BYTES_MAX, FRAME_BYTES_MAX};
use sds_sync::transport::{Connection, connect};
use sds_sync::{ClientFrame, RefusalCode, RelayFrame, Token, Trust, encode_datagram};
use support::common::{PATIENCE, folder, id, secret, token};
use support::stream::{Stream, change, client};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

struct Home {
    relay: Relay,
    _folder: TempDir,
}

impl Home {
    async fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let folder = folder();
        let mut config = RelayConfig::new(secret(), folder.path());
        change(&mut config.limits);
        config.limits.check().unwrap();
        Self { relay: Relay::start(config).await.unwrap(), _folder: folder }
    }

    async fn connect(&self) -> Connection {
        client(&self.relay).await
    }

    async fn try_connect(&self) -> Option<Connection> {
        let url = self.relay.url();
        connect(&url, &Trust::of(&url)).await.ok()
    }

    fn hits(&self, limit: Limit) -> u64 {
        self.relay.limit_hits(limit)
    }

    /// Waits until a limit has been met.
    async fn met(&self, limit: Limit) {
        let met = async {
            while self.hits(limit) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, met).await.unwrap_or_else(|_| panic!("{limit:?} is never met"));
    }
}

fn open(store: &str, subject: &str) -> ClientFrame {
    open_with(token(store, subject, Scope::Write), store)
}

fn open_with(token: Token, store: &str) -> ClientFrame {
    let (store, version) = (store.to_owned(), Version::new().encode().into());
    ClientFrame::Open { protocol: 3, store, token, version }
}

impl Stream {
    async fn ask(connection: &Connection, store: &str, subject: &str) -> Self {
        Self::begin(connection, open(store, subject)).await
    }

    async fn open(connection: &Connection, store: &str, subject: &str) -> Self {
        Self::opened(connection, open(store, subject)).await
    }

    async fn refused(&mut self) -> RefusalCode {
        self.refusal().await.expect("a refusal")
    }

    /// Waits until everything up to counter `next` of `author` is acknowledged.
    async fn stored(&mut self, author: u64, next: u64) {
        loop {
            let RelayFrame::Stored { version } = self.next().await else { continue };
            let version = Version::decode(&version).unwrap();
            if version.next(ReplicaId::new(author).unwrap()) >= next {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_past_the_bound_are_refused_until_one_ends() {
    let home = Home::with(|limits| limits.connections = 2).await;
    let (first, _second) = (home.connect().await, home.connect().await);
    assert!(home.try_connect().await.is_none());
    assert_eq!(home.hits(Limit::Connections), 1);
    first.close().await;
    timeout(PATIENCE, async { while home.try_connect().await.is_none() {} }).await.unwrap();
    home.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_address_past_the_bound_are_refused() {
    let home = Home::with(|limits| limits.connections_per_address = 2).await;
    let (first, second) = (home.connect().await, home.connect().await);
    Stream::open(&first, "s", "ann").await;
    Stream::open(&second, "s", "ann").await;
    assert!(home.try_connect().await.is_none());
    assert_eq!(home.hits(Limit::ConnectionsPerAddress), 1);
    home.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_of_one_address_past_the_rate_are_refused_and_it_grows_back() {
    let home = Home::with(|limits| limits.handshakes_per_second_per_address = 3).await;
    let begun = Instant::now();
    let mut refused = 0;
    while home.hits(Limit::HandshakeRate) == 0 {
        refused += usize::from(home.try_connect().await.is_none());
        assert!(begun.elapsed() < PATIENCE);
    }
    assert_eq!(refused, 1);
    tokio::time::sleep(Duration::from_millis(400)).await;
    home.connect().await;
    home.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_past_its_connections_is_refused_as_busy_and_others_are_not() {
    let home = Home::with(|limits| limits.connections_per_subject = 2).await;
    let (one, two, three) = (home.connect().await, home.connect().await, home.connect().await);
    let first = Stream::open(&one, "s", "ann").await;
    let _same_connection = Stream::open(&one, "t", "ann").await;
    let _second = Stream::open(&two, "s", "ann").await;
    assert_eq!(Stream::ask(&three, "s", "ann").await.refused().await, RefusalCode::Busy);
    assert_eq!(home.hits(Limit::ConnectionsPerSubject), 1);
    Stream::open(&three, "s", "bob").await;
    drop((first, _same_connection));
    one.close().await;
    let opened = async {
        while !matches!(
            Stream::ask(&three, "s", "ann").await.next().await,
            RelayFrame::Opened { .. }
        ) {}
    };
    timeout(PATIENCE, opened).await.unwrap();
    home.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_too_many_on_a_connection_is_refused_as_busy() {
    let home = Home::with(|limits| limits.open_stores = 2).await;
    let connection = home.connect().await;
    let _first = Stream::open(&connection, "a", "ann").await;
    let _second = Stream::open(&connection, "b", "ann").await;
    assert_eq!(Stream::ask(&connection, "c", "ann").await.refused().await, RefusalCode::Busy);
    assert_eq!(home.hits(Limit::OpenStores), 1);
    home.relay.stop().await;
}

/// The first stream too many waits until there is one less; those who have shown a token have more.
#[tokio::test(flavor = "multi_thread")]
async fn streams_past_the_bound_wait_and_members_have_more_than_strangers() {
    let home = Home::with(|limits| (limits.stranger_streams, limits.streams) = (2, 50)).await;
    let connection = home.connect().await;
    let hold = async || {
        let blob = ClientFrame::PutBlob { store: "s".to_owned(), hash: [1; 32], size: 9 };
        let (mut sender, receiver) = connection.open_stream().await.unwrap();
        // Half of a frame, so that the relay waits for the rest.
        let encoded = sds_sync::Frame::encode(&blob);
        sender.send_encoded(encoded.slice(..6)).await.unwrap();
        (sender, receiver)
    };
    let first = hold().await;
    let _second = hold().await;
    home.met(Limit::Streams).await;
    let pause = Duration::from_millis(200);
    assert!(timeout(pause, connection.open_stream()).await.is_err(), "a third is open");
    drop(first);
    let store = timeout(PATIENCE, Stream::open(&connection, "s", "ann")).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(timeout(PATIENCE, hold()).await.unwrap());
    }
    drop((store, held));
    home.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_token_in_time_is_cut_off_and_who_has_stays() {
    let home = Home::with(|limits| limits.authenticate_seconds = 1).await;
    let (stranger, member) = (home.connect().await, home.connect().await);
    let begun = Instant::now();
    let mut store = Stream::open(&member, "s", "ann").await;
    assert!(timeout(PATIENCE, stranger.read_datagram()).await.unwrap().is_err());
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(home.hits(Limit::AuthenticateTime), 1);
    store.send(&[change(1, 0)]).await;
    store.stored(1, 1).await;
    home.relay.stop().await;
}

/// Goal: who sends too many frames is slowed down, loses nothing, and slows nobody else down.
#[tokio::test(flavor = "multi_thread")]
async fn frames_past_the_rate_wait_and_arrive_all_the_same() {
    let home = Home::with(|limits| {
        (limits.frames_per_second, limits.stranger_frames_per_second) = (50, 50);
    });
    let home = home.await;
    let (fast, calm) = (home.connect().await, home.connect().await);
    let mut flood = Stream::open(&fast, "s", "ann").await;
    let mut other = Stream::open(&calm, "s", "ann").await;
    let begun = Instant::now();
    for start in 0..40 {
        flood.send(&[change(1, start)]).await;
    }
    flood.stored(1, 40).await;
    assert_eq!(home.hits(Limit::FrameRate), 0, "the bound itself is free");
    for start in 40..150 {
        flood.send(&[change(1, start)]).await;
    }
    home.met(Limit::FrameRate).await;
    let asked = Instant::now();
    other.send(&[change(2, 0)]).await;
    other.stored(2, 1).await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    flood.stored(1, 150).await;
    // Of 150 frames a second's worth is free.
    assert!(begun.elapsed() > Duration::from_millis(1_800), "{:?}", begun.elapsed());
    home.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_past_the_rate_of_a_connection_or_of_a_subject_wait() {
    const RATE: u32 = 256 << 10;
    for limit in [Limit::ByteRate, Limit::SubjectByteRate] {
        let home = Home::with(|limits| match limit {
            Limit::ByteRate => {
                (limits.bytes_per_second, limits.stranger_bytes_per_second) = (RATE, RATE);
            }
            _ => limits.bytes_per_second_per_subject = RATE,
        });
        let home = home.await;
        let connection = home.connect().await;
        let mut stream = Stream::open(&connection, "s", "ann").await;
        let begun = Instant::now();
        // Presence costs nothing but its bytes.
        let state = bytes::Bytes::from(vec![b'x'; 4_000]);
        for clock in 0..3 * u64::from(RATE) / 4_000 {
            let frame = ClientFrame::Presence { clock, state: state.clone() };
            stream.sender.send(&frame).await.unwrap();
        }
        stream.send(&[change(1, 0)]).await;
        stream.stored(1, 1).await;
        assert!(begun.elapsed() > Duration::from_millis(1_500), "{limit:?} {:?}", begun.elapsed());
        assert!(home.hits(limit) > 0, "{limit:?}");
        home.relay.stop().await;
    }
}

/// Goal: nobody is made to decrypt a flood of datagrams for long, and who is within the bound stays.
#[tokio::test(flavor = "multi_thread")]
async fn datagrams_past_the_rate_are_dropped_and_a_flood_of_them_ends_the_connection() {
    let home = Home::with(|limits| limits.datagrams_per_second = 20).await;
    let (flooding, calm) = (home.connect().await, home.connect().await);
    let mut flood = Stream::open(&flooding, "s", "ann").await;
    let mut other = Stream::open(&calm, "s", "ann").await;
    let show = |connection: &Connection, stream: &Stream, clock| {
        let frame = ClientFrame::Presence { clock, state: bytes::Bytes::from_static(b"{}") };
        assert!(connection.send_datagram(encode_datagram(stream.sender.id(), &frame)));
    };
    (0..20).for_each(|clock| show(&flooding, &flood, clock));
    (0..20).for_each(|clock| show(&calm, &other, clock));
    flood.send(&[change(1, 0)]).await;
    flood.stored(1, 1).await;
    assert_eq!(home.hits(Limit::DatagramRate), 0, "the bound itself is free");
    let ended = async {
        let pause = Duration::from_millis(1);
        let mut clock = 20;
        while !matches!(timeout(pause, flooding.read_datagram()).await, Ok(Err(_))) {
            show(&flooding, &flood, clock);
            clock += 1;
        }
    };
    timeout(PATIENCE, ended).await.expect("the flood is cut off");
    assert!(home.hits(Limit::DatagramRate) >= 20);
    other.send(&[change(2, 0)]).await;
    other.stored(2, 1).await;
    home.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_past_its_size_or_rate_is_passed_over() {
    let home = Home::with(|limits| (limits.presence_bytes, limits.presence_per_second) = (10, 5));
    let home = home.await;
    let connection = home.connect().await;
    let (mut ann, mut bob) =
        (Stream::open(&connection, "s", "ann").await, Stream::open(&connection, "s", "bob").await);
    let mut show = async |clock, state: &'static [u8]| {
        let frame = ClientFrame::Presence { clock, state: bytes::Bytes::from_static(state) };
        ann.sender.send(&frame).await.unwrap();
    };
    show(1, b"0123456789").await;
    let RelayFrame::Presence { state, .. } = bob.next().await else { panic!("no presence") };
    assert_eq!(&*state, b"0123456789");
    assert_eq!(home.hits(Limit::PresenceBytes), 0);
    show(2, b"0123456789a").await;
    home.met(Limit::PresenceBytes).await;
    for clock in 3..7 {
        show(clock, b"in time").await;
    }
    show(7, b"too many").await;
    home.met(Limit::PresenceRate).await;
    loop {
        let RelayFrame::Presence { state, .. } = bob.next().await else { panic!("no presence") };
        assert_eq!(&*state, b"in time");
        if timeout(Duration::from_millis(500), bob.receiver.next::<RelayFrame>()).await.is_err() {
            break;
        }
    }
    home.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_past_the_rate_are_passed_over_and_those_before_are_not() {
    let home = Home::with(|limits| limits.signals_per_second = 5).await;
    let connection = home.connect().await;
    let open = |subject| {
        let (store, version) = ("s".to_owned(), Version::new().encode().into());
        let token = token("s", subject, Scope::Write);
        ClientFrame::OpenSeated { protocol: 4, store, token, version, seats: Vec::new() }
    };
    let mut ann = Stream::begin(&connection, open("ann")).await;
    let mut bob = Stream::begin(&connection, open("bob")).await;
    for stream in [&mut ann, &mut bob] {
        assert!(matches!(stream.next().await, RelayFrame::OpenedSeated { .. }));
        assert!(matches!(stream.next().await, RelayFrame::Access { .. }));
    }
    let mut say = async |number: u8| {
        let frame = ClientFrame::Signal { to: 0, message: vec![number].into() };
        ann.sender.send(&frame).await.unwrap();
    };
    let mut heard = async || loop {
        if let RelayFrame::Signal { message, .. } = bob.next().await {
            return message[0];
        }
    };
    for number in 0..5 {
        say(number).await;
        assert_eq!(heard().await, number);
    }
    assert_eq!(home.hits(Limit::SignalRate), 0, "the bound itself is free");
    let mut number = 5;
    while home.hits(Limit::SignalRate) == 0 {
        say(number).await;
        number += 1;
        assert!(number < 200, "it is never met");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // When there is leave again, what was passed over does not come any more.
    let first_lost = home.hits(Limit::SignalRate);
    assert!(first_lost >= 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    say(255).await;
    let mut count = 0;
    while heard().await != 255 {
        count += 1;
    }
    assert!(count < number - 5, "all were passed on");
    home.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_past_their_size_are_refused_and_counted() {
    let home = Home::with(|_| {}).await;
    let connection = home.connect().await;
    let past = |max: usize| u32::try_from(max + 1).unwrap().to_le_bytes();
    let (mut sender, receiver) = connection.open_stream().await.unwrap();
    sender.send_encoded(past(FIRST_FRAME_BYTES_MAX).to_vec().into()).await.unwrap();
    let mut stranger = Stream { sender, receiver };
    assert_eq!(stranger.refused().await, RefusalCode::Malformed);
    assert_eq!(home.hits(Limit::FrameBytes), 1);
    let mut member = Stream::open(&connection, "s", "ann").await;
    member.sender.send_encoded(past(FRAME_BYTES_MAX).to_vec().into()).await.unwrap();
    assert_eq!(member.refused().await, RefusalCode::Malformed);
    assert_eq!(home.hits(Limit::FrameBytes), 2);
    home.relay.stop().await;
}

/// Sends the beginning of a frame of so many bytes.
async fn begin_frame(stream: &mut Stream, size: usize) {
    let head = u32::try_from(size).unwrap().to_le_bytes();
    stream.sender.send_encoded([&head[..], &[3; 100]].concat().into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_begins_no_large_frame() {
    let home = Home::with(|_| {}).await;
    let connection = home.connect().await;
    let open = open_with(token("s", "ann", Scope::Read), "s");
    let mut reader = Stream::opened(&connection, open).await;
    begin_frame(&mut reader, FIRST_FRAME_BYTES_MAX + 1).await;
    assert_eq!(reader.refused().await, RefusalCode::ReadOnly);
    assert_eq!(home.hits(Limit::FrameBytes), 1);
    home.relay.stop().await;
}

/// Goal: whoever begins large frames and leaves them there takes no more memory than there is room for,
/// and stands in nobody else's way. Method: as many as there is room for on a connection, and of a subject.
#[tokio::test(flavor = "multi_thread")]
async fn large_frames_that_have_begun_are_bounded_and_small_ones_go_on() {
    let home = Home::with(|_| {}).await;
    let of_connection = BEGUN_BYTES_PER_CONNECTION_MAX as usize / FRAME_BYTES_MAX;
    let of_subject = BEGUN_BYTES_PER_SUBJECT_MAX as usize / FRAME_BYTES_MAX;
    assert!(of_connection > 1 && of_subject > of_connection, "there is something to see");
    let (mut connections, mut begun) = (Vec::new(), Vec::new());
    let mut last = home.connect().await;
    let mut small = Stream::open(&last, "s", "ann").await;
    let mut next = 0;
    for number in 0..of_subject {
        if number % of_connection == 0 && number > 0 {
            connections.push(std::mem::replace(&mut last, home.connect().await));
        }
        let mut stream = Stream::open(&last, &format!("s{number}"), "ann").await;
        begin_frame(&mut stream, FRAME_BYTES_MAX).await;
        begun.push(stream);
        // Behind it on the same connection, so that it has come when this is answered.
        let mut behind = Stream::open(&last, "s", "ann").await;
        behind.send(&[change(1, next)]).await;
        next += 1;
        behind.stored(1, next).await;
        if number + 1 == of_connection {
            assert_eq!(home.hits(Limit::BegunBytes), 0, "the bound is free");
            let mut late = Stream::open(&last, "late", "ann").await;
            begin_frame(&mut late, FRAME_BYTES_MAX).await;
            assert_eq!(late.refused().await, RefusalCode::Busy);
            assert_eq!(home.hits(Limit::BegunBytes), 1);
        }
    }
    connections.push(std::mem::replace(&mut last, home.connect().await));
    let mut late = Stream::open(&last, "late", "ann").await;
    begin_frame(&mut late, FRAME_BYTES_MAX).await;
    assert_eq!(late.refused().await, RefusalCode::Busy, "a subject has so much on all connections");
    small.send(&[change(1, next)]).await;
    small.stored(1, next + 1).await;
    let mut other = Stream::open(&last, "late", "bob").await;
    begin_frame(&mut other, FRAME_BYTES_MAX).await;
    let mut behind = Stream::open(&last, "late", "bob").await;
    behind.send(&[change(2, 0)]).await;
    behind.stored(2, 1).await;
    assert_eq!(home.hits(Limit::BegunBytes), 2, "others have their own");
    // One that ends makes room.
    drop(begun.pop());
    let begins_again = async {
        loop {
            let mut again = Stream::open(&last, "again", "ann").await;
            begin_frame(&mut again, FRAME_BYTES_MAX).await;
            let pause = Duration::from_millis(100);
            if timeout(pause, again.receiver.next::<RelayFrame>()).await.is_err() {
                break;
            }
        }
    };
    timeout(PATIENCE, begins_again).await.unwrap();
    home.relay.stop().await;
}

fn hash_of(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

/// Offers a blob of the store `s`, and sends it if it is wanted; says what came of it.
async fn put(connection: &Connection, store: &str, bytes: &[u8]) -> Result<(), RefusalCode> {
    let (hash, size) = (hash_of(bytes), bytes.len() as u64);
    let offer = ClientFrame::OfferBlob { store: store.to_owned(), hash, size };
    let mut stream = Stream::begin(connection, offer).await;
    match stream.next().await {
        RelayFrame::BlobWantedFrom { .. } => {}
        RelayFrame::Refused { code, .. } => return Err(RefusalCode::from_number(code)),
        frame => panic!("{frame:?}"),
    }
    let chunk = ClientFrame::BlobChunk { bytes: bytes.to_vec().into() };
    stream.sender.send(&chunk).await.unwrap();
    assert_eq!(stream.next().await, RelayFrame::BlobStored);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_past_its_size_or_the_room_of_its_store_is_refused_as_too_large() {
    let home = Home::with(|limits| (limits.blob_bytes, limits.blob_bytes_per_store) = (100, 250));
    let home = home.await;
    let connection = home.connect().await;
    let _stores =
        (Stream::open(&connection, "s", "ann").await, Stream::open(&connection, "t", "ann").await);
    assert_eq!(put(&connection, "s", &[1; 101]).await, Err(RefusalCode::TooLarge));
    assert_eq!(home.hits(Limit::BlobBytes), 1);
    put(&connection, "s", &[1; 100]).await.unwrap();
    put(&connection, "s", &[2; 100]).await.unwrap();
    assert_eq!(put(&connection, "s", &[3; 51]).await, Err(RefusalCode::TooLarge));
    assert_eq!(home.hits(Limit::BlobBytesPerStore), 1);
    put(&connection, "s", &[4; 50]).await.unwrap();
    put(&connection, "t", &[3; 51]).await.unwrap();
    home.relay.stop().await;
}

/// Goal: uploads at the same time do not take more room together than there is, and what one does not use
/// is there for others again. Method: uploads that have leave to come, of either kind, and do not.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_at_the_same_time_share_the_room_of_their_store() {
    let home = Home::with(|limits| limits.blob_bytes_per_store = 250).await;
    let connection = home.connect().await;
    let _store = Stream::open(&connection, "s", "ann").await;
    let put = |bytes: &[u8]| {
        let (store, hash, size) = ("s".to_owned(), hash_of(bytes), bytes.len() as u64);
        ClientFrame::PutBlob { store, hash, size }
    };
    let mut waiting = Stream::begin(&connection, put(&[1; 100])).await;
    assert_eq!(waiting.next().await, RelayFrame::BlobWanted);
    let offer =
        ClientFrame::OfferBlob { store: "s".to_owned(), hash: hash_of(&[2; 100]), size: 100 };
    let mut other = Stream::begin(&connection, offer).await;
    assert_eq!(other.next().await, RelayFrame::BlobWantedFrom { offset: 0 });
    for late in [put(&[3; 51]), put(&[4; 200])] {
        let mut late = Stream::begin(&connection, late).await;
        assert_eq!(late.refused().await, RefusalCode::TooLarge);
    }
    assert_eq!(home.hits(Limit::BlobBytesPerStore), 2);
    // Exactly what is left.
    let mut last = Stream::begin(&connection, put(&[5; 50])).await;
    assert_eq!(last.next().await, RelayFrame::BlobWanted);
    let chunk = |bytes: &[u8]| ClientFrame::BlobChunk { bytes: bytes.to_vec().into() };
    last.sender.send(&chunk(&[5; 50])).await.unwrap();
    assert_eq!(last.next().await, RelayFrame::BlobStored);
    // One that fails gives its room back, and the blob that came keeps its own.
    waiting.sender.send(&chunk(&[9; 100])).await.unwrap();
    assert_eq!(waiting.refused().await, RefusalCode::WrongHash);
    let mut again = Stream::begin(&connection, put(&[6; 101])).await;
    assert_eq!(again.refused().await, RefusalCode::TooLarge);
    let mut again = Stream::begin(&connection, put(&[6; 100])).await;
    assert_eq!(again.next().await, RelayFrame::BlobWanted);
    again.sender.send(&chunk(&[6; 100])).await.unwrap();
    assert_eq!(again.next().await, RelayFrame::BlobStored);
    other.sender.send(&chunk(&[2; 100])).await.unwrap();
    assert_eq!(other.next().await, RelayFrame::BlobStored);
    home.relay.stop().await;
}

/// Goal: uploads of either kind are counted, whoever sends them, and one that ends makes room.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_a_store_past_the_bound_are_refused_as_busy() {
    let home = Home::with(|_| {}).await;
    let connection = home.connect().await;
    let _stores =
        (Stream::open(&connection, "s", "ann").await, Stream::open(&connection, "t", "ann").await);
    let (store, size) = (|| "s".to_owned(), 1);
    let put = |number: u8| ClientFrame::PutBlob { store: store(), hash: hash_of(&[number]), size };
    let mut waiting = Vec::new();
    for number in (0..).take(BLOB_PARTS_MAX) {
        let mut upload = Stream::begin(&connection, put(number)).await;
        assert_eq!(upload.next().await, RelayFrame::BlobWanted);
        waiting.push(upload);
    }
    assert_eq!(home.hits(Limit::BlobUploads), 0);
    let offer = ClientFrame::OfferBlob { store: store(), hash: hash_of(&[99]), size };
    for late in [put(99), offer] {
        let mut late = Stream::begin(&connection, late).await;
        assert_eq!(late.refused().await, RefusalCode::Busy);
    }
    assert_eq!(home.hits(Limit::BlobUploads), 2);
    self::put(&connection, "t", b"of another store").await.unwrap();
    let mut first = waiting.remove(0);
    first.sender.send(&ClientFrame::BlobChunk { bytes: vec![0].into() }).await.unwrap();
    assert_eq!(first.next().await, RelayFrame::BlobStored);
    let mut next = Stream::begin(&connection, put(99)).await;
    assert_eq!(next.next().await, RelayFrame::BlobWanted);
    home.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_past_the_bound_do_not_begin_and_those_that_are_there_go_on() {
    for limit in [Limit::Stores, Limit::StoresPerSubject] {
        let home = Home::with(|limits| match limit {
            Limit::Stores => limits.stores = 2,
            _ => limits.stores_per_subject = 2,
        });
        let home = home.await;
        let connection = home.connect().await;
        let mut first = Stream::open(&connection, "a", "ann").await;
        first.send(&[change(1, 0)]).await;
        first.stored(1, 1).await;
        let _second = Stream::open(&connection, "b", "ann").await;
        put(&connection, "b", b"a blob begins a store too").await.unwrap();
        let mut third = Stream::open(&connection, "c", "ann").await;
        third.send(&[change(1, 0)]).await;
        assert_eq!(third.refused().await, RefusalCode::Busy, "{limit:?}");
        assert_eq!(home.hits(limit), 1);
        let mut third = Stream::open(&connection, "c", "ann").await;
        assert_eq!(put(&connection, "c", b"blob").await, Err(RefusalCode::Busy));
        first.send(&[change(1, 1)]).await;
        first.stored(1, 2).await;
        let other = home.connect().await;
        let mut others = Stream::open(&other, "d", "bob").await;
        others.send(&[change(1, 0)]).await;
        if limit == Limit::Stores {
            assert_eq!(others.refused().await, RefusalCode::Busy);
        } else {
            others.stored(1, 1).await;
        }
        // Who deletes one may begin another.
        assert!(home.relay.delete_store(&id("b")).unwrap());
        if limit == Limit::StoresPerSubject {
            third.send(&[change(1, 0)]).await;
            third.stored(1, 1).await;
        }
        home.relay.stop().await;
    }
}

/// Goal: nobody fills a store with so many replicas that nobody can be told what it has. Method: as many as
/// there may be, one more, and then one that is there, over a restart.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_past_the_bound_are_refused_as_too_large_and_those_that_are_there_go_on() {
    let folder = folder();
    let start = async || {
        let mut config = RelayConfig::new(secret(), folder.path());
        config.limits.replicas_per_store = 3;
        Relay::start(config).await.unwrap()
    };
    let relay = start().await;
    let connection = client(&relay).await;
    let mut stream = Stream::open(&connection, "s", "ann").await;
    stream.send(&[change(1, 0)]).await;
    stream.stored(1, 1).await;
    stream.send(&[change(2, 0), change(3, 0), change(1, 1)]).await;
    stream.stored(3, 1).await;
    assert_eq!(relay.limit_hits(Limit::ReplicasPerStore), 0);
    stream.send(&[change(1, 2), change(4, 0)]).await;
    stream.stored(1, 3).await;
    assert_eq!(stream.refused().await, RefusalCode::TooLarge);
    assert_eq!(relay.limit_hits(Limit::ReplicasPerStore), 1);
    relay.stop().await;
    let relay = start().await;
    let connection = client(&relay).await;
    let mut stream = Stream::open(&connection, "s", "bob").await;
    stream.send(&[change(3, 1), change(5, 0)]).await;
    stream.stored(3, 2).await;
    assert_eq!(stream.refused().await, RefusalCode::TooLarge);
    let mut other = Stream::open(&connection, "t", "bob").await;
    other.send(&[change(5, 0)]).await;
    other.stored(5, 1).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_reads_begins_no_store() {
    let home = Home::with(|_| {}).await;
    let connection = home.connect().await;
    let open = open_with(token("s", "ann", Scope::Read), "s");
    let _reader = Stream::opened(&connection, open).await;
    let get = ClientFrame::GetBlobFrom { store: "s".to_owned(), hash: [1; 32], offset: 0 };
    assert_eq!(Stream::begin(&connection, get).await.next().await, RelayFrame::BlobMissing);
    assert_eq!(home.relay.log().number_of(&id("s")).unwrap(), None);
    home.relay.stop().await;
}
