//! What a relay keeps: blobs, stores, and replicas of a store.

use super::*;

pub(crate) fn hash_of(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

/// Offers a blob of the store `s`, and sends it if it is wanted; says what came of it.
pub(crate) async fn put(
    connection: &Connection,
    store: &str,
    bytes: &[u8],
) -> Result<(), RefusalCode> {
    let (hash, size) = (hash_of(bytes), bytes.len() as u64);
    let offer = ClientFrame::OfferBlob { store: store.to_owned(), hash, size };
    let mut stream = Stream::begin(connection, offer).await;
    match stream.next().await {
        RelayFrame::BlobWantedFrom { .. } => {}
        RelayFrame::Refused { code, .. } => return Err(RefusalCode::from_number(code)),
        frame => panic!("{frame:?}"),
    }
    for piece in bytes.chunks(BLOB_CHUNK_BYTES_MAX) {
        let chunk = ClientFrame::BlobChunk { bytes: piece.to_vec().into() };
        stream.sender.send(&chunk).await.unwrap();
    }
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

/// Goal: a store has only so many blobs, those on their way among them, also after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_a_store_past_the_bound_are_refused_as_too_large() {
    let folder = folder();
    let mut config = RelayConfig::new(secret(), folder.path());
    config.limits.blobs_per_store = 2;
    let relay = Relay::start(config.clone()).await.unwrap();
    let connection = client(&relay).await;
    let _stores =
        (Stream::open(&connection, "s", "ann").await, Stream::open(&connection, "t", "ann").await);
    put(&connection, "s", b"one").await.unwrap();
    let offer = |bytes: &[u8]| {
        let (store, hash, size) = ("s".to_owned(), hash_of(bytes), bytes.len() as u64);
        ClientFrame::OfferBlob { store, hash, size }
    };
    let mut waiting = Stream::begin(&connection, offer(b"two")).await;
    assert!(matches!(waiting.next().await, RelayFrame::BlobWantedFrom { .. }));
    assert_eq!(put(&connection, "s", b"three").await, Err(RefusalCode::TooLarge));
    assert_eq!(relay.limit_hits(Limit::BlobsPerStore), 1);
    put(&connection, "t", b"three").await.unwrap();
    let chunk = ClientFrame::BlobChunk { bytes: b"two".to_vec().into() };
    waiting.sender.send(&chunk).await.unwrap();
    assert_eq!(waiting.next().await, RelayFrame::BlobStored);
    relay.stop().await;
    let relay = Relay::start(config).await.unwrap();
    let connection = client(&relay).await;
    let _store = Stream::open(&connection, "s", "ann").await;
    let mut known = Stream::begin(&connection, offer(b"two")).await;
    assert_eq!(known.next().await, RelayFrame::BlobStored, "it is here");
    assert_eq!(put(&connection, "s", b"three").await, Err(RefusalCode::TooLarge));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_of_a_blob_past_its_size_is_refused_and_counted() {
    let home = Home::with(|_| {}).await;
    let connection = home.connect().await;
    let _store = Stream::open(&connection, "s", "ann").await;
    let (store, hash, size) = ("s".to_owned(), [1; 32], 2 << 20);
    let offer = ClientFrame::OfferBlob { store, hash, size };
    let mut upload = Stream::begin(&connection, offer).await;
    assert!(matches!(upload.next().await, RelayFrame::BlobWantedFrom { .. }));
    let header = u32::try_from(BLOB_FRAME_BYTES_MAX + 1).unwrap().to_le_bytes();
    upload.sender.send_encoded(header.to_vec().into()).await.unwrap();
    assert_eq!(upload.refused().await, RefusalCode::Malformed);
    assert_eq!(home.hits(Limit::FrameBytes), 1);
    home.relay.stop().await;
}

/// Goal: who is refused because of the size of a blob has begun no store by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_too_large_begins_no_store() {
    let home = Home::with(|limits| limits.blob_bytes = 10).await;
    let connection = home.connect().await;
    let _store = Stream::open(&connection, "s", "ann").await;
    for size in [11, BLOB_BYTES_MAX + 1] {
        let put = ClientFrame::PutBlob { store: "s".to_owned(), hash: [1; 32], size };
        let mut upload = Stream::begin(&connection, put).await;
        assert_eq!(upload.refused().await, RefusalCode::TooLarge);
    }
    assert_eq!(home.relay.log().summary(&id("s")).unwrap(), None);
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
