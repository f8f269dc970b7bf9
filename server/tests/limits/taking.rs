//! Who takes nothing of what it asked for.

use sds_sync::limits::{STREAM_WINDOW_BYTES, chunk_timeout};

use super::*;
use crate::contents::{hash_of, put};
use crate::support::large::large_change;

/// What may be on its way before the frame that is not taken.
const WINDOW: u64 = STREAM_WINDOW_BYTES as u64;

/// Much more than that.
const CHANGES: u64 = 6;
const BYTES: usize = 1_000_000;

/// Moves the clock, as fast as everything that was to happen until then has happened.
async fn let_pass(time: Duration) {
    tokio::time::pause();
    tokio::time::sleep(time).await;
    tokio::time::resume();
}

/// Goal: nobody keeps what is on its way to somebody for longer than a slow line takes, and whoever takes it
/// within that time is not cut off. Method: a store and a blob of which nothing is read, on a clock that the
/// test moves once they are stuck.
#[tokio::test]
async fn who_takes_nothing_is_cut_off_after_the_time_of_a_slow_line_and_not_before() {
    let home = Home::with(|_| {}).await;
    let connection = home.connect().await;
    let mut writer = Stream::open(&connection, "s", "ann").await;
    for author in 1..=CHANGES {
        writer.send(&[large_change(author, 0, BYTES)]).await;
        writer.stored(author, 1).await;
    }
    let blob = vec![7; 4 * STREAM_WINDOW_BYTES as usize];
    put(&connection, "s", &blob).await.unwrap();
    let reader = home.connect().await;
    let store = Stream::open(&reader, "s", "bob").await;
    let hash = hash_of(&blob);
    let get = ClientFrame::GetBlob { store: "s".to_owned(), hash };
    let mut unread = Stream::begin(&reader, get).await;
    assert!(matches!(unread.next().await, RelayFrame::BlobFound { .. }));
    // On the way are only as many bytes as there is room for by now.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let_pass(chunk_timeout(WINDOW) - Duration::from_secs(5)).await;
    assert_eq!(home.hits(Limit::TakeTime), 0, "the time itself is free");
    let chunk = chunk_timeout(WINDOW + BLOB_FRAME_BYTES_MAX as u64) - chunk_timeout(WINDOW);
    let_pass(chunk + Duration::from_secs(10)).await;
    home.met(Limit::TakeTime).await;
    let_pass(chunk_timeout(FRAME_BYTES_MAX as u64)).await;
    assert_eq!(home.hits(Limit::TakeTime), 2, "the store and the blob");
    for mut stream in [store, unread] {
        stream.receiver.set_max(FRAME_BYTES_MAX);
        let end = async {
            loop {
                match stream.receiver.next::<RelayFrame>().await {
                    Ok(Some(_)) => {}
                    end => return end,
                }
            }
        };
        assert!(timeout(PATIENCE, end).await.unwrap().is_err(), "it is cut off");
    }
    // Who reads is served as before.
    writer.send(&[change(100, 0)]).await;
    writer.stored(100, 1).await;
    home.relay.stop().await;
}
