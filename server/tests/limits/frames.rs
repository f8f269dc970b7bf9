//! The sizes of frames, and large ones that have begun.

use super::*;

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

/// Goal: the greatest frame of a stranger is read like any other. Method: one whose version is none, which
/// only who reads it all can say.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_s_frame_of_the_greatest_size_is_read() {
    let home = Home::with(|_| {}).await;
    let connection = home.connect().await;
    let open = |bytes: usize| {
        let (store, version) = ("s".to_owned(), vec![0xFF; bytes].into());
        ClientFrame::Open { protocol: 3, store, token: token("s", "ann", Scope::Write), version }
    };
    let around = Frame::encode(&open(FIRST_FRAME_BYTES_MAX / 2)).len() - FIRST_FRAME_BYTES_MAX / 2;
    let header = size_of::<u32>();
    let greatest = Frame::encode(&open(FIRST_FRAME_BYTES_MAX + header - around));
    assert_eq!(greatest.len(), FIRST_FRAME_BYTES_MAX + header);
    let (mut sender, receiver) = connection.open_stream().await.unwrap();
    sender.send_encoded(greatest).await.unwrap();
    let answer = Stream { sender, receiver }.next().await;
    let RelayFrame::Refused { message, .. } = answer else { panic!("{answer:?}") };
    assert_eq!((&*message, home.hits(Limit::FrameBytes)), ("no valid version", 0));
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
