//! Frames, bytes, datagrams, presence and messages a second.

use super::*;

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
    // Behind the flood it would have come later.
    assert!(asked.elapsed() < Duration::from_millis(1_800), "{:?}", asked.elapsed());
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

/// Goal: who has shown no token is slower than who has. Method: the same frame, before a token was shown and
/// after it, of more bytes than strangers may send at once.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_strangers_have_a_rate_of_their_own() {
    const RATE: u32 = 16 << 10;
    let home = Home::with(|limits| limits.stranger_bytes_per_second = RATE).await;
    let (connection, other) = (home.connect().await, home.connect().await);
    // A bound of the frame itself, so that only its bytes are of interest.
    let refused = |bytes: u32| ClientFrame::Open {
        protocol: 3,
        store: "s".to_owned(),
        token: Token::from("x".to_owned()),
        version: vec![0; bytes as usize].into(),
    };
    let ask = async |connection: &Connection, bytes| {
        Stream::begin(connection, refused(bytes)).await.refused().await;
    };
    ask(&other, RATE / 2).await;
    assert_eq!(home.hits(Limit::ByteRate), 0, "what is within the rate is free");
    let begun = Instant::now();
    ask(&connection, 3 * RATE).await;
    home.met(Limit::ByteRate).await;
    let hits = home.hits(Limit::ByteRate);
    // What was too much is waited for before the next frame is read.
    Stream::open(&connection, "s", "ann").await;
    assert!(begun.elapsed() > Duration::from_millis(1_800), "{:?}", begun.elapsed());
    let hits_of_stranger = home.hits(Limit::ByteRate);
    assert!(hits_of_stranger >= hits);
    ask(&connection, 3 * RATE).await;
    assert_eq!(home.hits(Limit::ByteRate), hits_of_stranger, "a member is faster");
    home.relay.stop().await;
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
    let mut clock = 3;
    while home.hits(Limit::PresenceRate) == 0 {
        show(clock, b"too often").await;
        clock += 1;
        assert!(clock < 1_000, "it is never met");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // When there is leave again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    show(clock, b"after").await;
    loop {
        let RelayFrame::Presence { state, .. } = bob.next().await else { panic!("no presence") };
        assert_ne!(&*state, b"0123456789a");
        if &*state == b"after" {
            break;
        }
    }
    home.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_show_themselves_in_a_store_and_no_more_of_one_subject() {
    let home = Home::with(|limits| limits.connections_per_subject = 1_000).await;
    let watching = home.connect().await;
    let mut bob = Stream::open(&watching, "s", "bob").await;
    let mut shown = Vec::new();
    let mut show = async || {
        let connection = home.connect().await;
        let mut ann = Stream::open(&connection, "s", "ann").await;
        let state = bytes::Bytes::from_static(b"here");
        ann.sender.send(&ClientFrame::Presence { clock: 1, state }).await.unwrap();
        shown.push((connection, ann));
    };
    let mut heard = std::collections::BTreeSet::new();
    for count in 1..=PRESENCE_PEERS_MAX {
        show().await;
        while heard.len() < count {
            let RelayFrame::Presence { peer, .. } = bob.next().await else { continue };
            heard.insert(peer);
        }
    }
    assert_eq!(home.hits(Limit::PresencePeers), 0, "the bound itself is free");
    show().await;
    home.met(Limit::PresencePeers).await;
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

/// Goal: however many stores somebody opens, and on how many connections, the messages that they send are
/// bounded. Method: few in each store, so that no store has more than its connection may send in all.
#[tokio::test(flavor = "multi_thread")]
async fn signals_are_counted_over_all_stores_and_connections_of_a_subject() {
    const STORES: u32 = 20;
    const ROUNDS: u32 = 4;
    let half = ROUNDS * STORES / 2;
    for limit in [Limit::SignalRate, Limit::SubjectSignalRate] {
        let home = Home::with(|limits| match limit {
            Limit::SignalRate => limits.signals_per_second = ROUNDS,
            // Either connection stays below it.
            _ => limits.signals_per_second_per_subject = half + half / 4,
        })
        .await;
        let connections = [home.connect().await, home.connect().await];
        let mut streams = Vec::new();
        for number in 0..STORES {
            let store = format!("s{number}");
            let token = token(&store, "ann", Scope::Write);
            let version = Version::new().encode().into();
            let open =
                ClientFrame::OpenSeated { protocol: 4, store, token, version, seats: vec![] };
            let connection = &connections[number as usize % connections.len()];
            let mut stream = Stream::begin(connection, open).await;
            assert!(matches!(stream.next().await, RelayFrame::OpenedSeated { .. }));
            streams.push(stream);
        }
        // On a slow machine there is leave again meanwhile.
        let mut tries = 0;
        while home.hits(limit) == 0 {
            assert!(tries < 10, "{limit:?} is never met");
            tries += 1;
            for _ in 0..ROUNDS {
                for stream in &mut streams {
                    let signal = ClientFrame::Signal { to: 0, message: vec![1].into() };
                    stream.sender.send(&signal).await.unwrap();
                }
            }
            tokio::time::sleep(Duration::from_millis(1_500)).await;
        }
        home.relay.stop().await;
    }
}
