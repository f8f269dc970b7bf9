//! Connections, handshakes, streams, open stores, and the time to show a token.

use sds_sync::RelayUrl;
use tokio::net::UdpSocket;

use super::*;

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
        let encoded = Frame::encode(&blob);
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

/// Goal: a handshake has as long as `authenticate_seconds` says, and not as long as a connection without a
/// sign of life. Method: only the first packet of a client gets through.
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_takes_too_long_is_cut_off_and_counted() {
    let home = Home::with(|limits| limits.authenticate_seconds = 1).await;
    home.connect().await;
    let local = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let (front, back) =
        (UdpSocket::bind(local).await.unwrap(), UdpSocket::bind(local).await.unwrap());
    let pinned = home.relay.url().pin();
    let url = RelayUrl::new("127.0.0.1", front.local_addr().unwrap().port(), pinned).unwrap();
    let shaking = tokio::spawn(async move { connect(&url, &Trust::of(&url)).await.is_ok() });
    let mut packet = vec![0; 2_000];
    let (size, _) = front.recv_from(&mut packet).await.unwrap();
    let begun = Instant::now();
    back.send_to(&packet[..size], home.relay.local_addr()).await.unwrap();
    home.met(Limit::AuthenticateTime).await;
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(home.hits(Limit::AuthenticateTime), 1, "who is in time is not");
    let failed = "sds_relay_handshakes_total{outcome=\"failed\"} 1\n";
    assert!(home.relay.metrics().contains(failed), "{}", home.relay.metrics());
    shaking.abort();
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
