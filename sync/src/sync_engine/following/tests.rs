//! The writer while somebody goes on from what is in the file.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tempfile::TempDir;

use super::super::gated::Gated;
use super::*;

#[tokio::test]
async fn whoever_cannot_go_on_from_the_file_lets_go_of_the_writer() {
    let (gated, folder) = (Gated::new(), TempDir::new().unwrap());
    let missing = rebase(&gated.shared, &folder.path().join("s.sds")).await;
    assert!(matches!(missing, Err(SyncError::Storage(_))), "{missing:?}");
    assert!(gated.is_written().await);
}

/// Goal: the writer is not held by somebody who stopped waiting for it. Method: one who is dropped while the
/// writer is busy, so that it hears only afterwards that it was to wait.
#[tokio::test]
async fn whoever_stops_waiting_for_the_writer_does_not_hold_it() {
    let (gated, folder) = (Gated::new(), TempDir::new().unwrap());
    gated.edit();
    gated.has_begun.recv().unwrap();
    {
        let file = folder.path().join("s.sds");
        let mut rebased = pin!(rebase(&gated.shared, &file));
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(rebased.as_mut().poll(&mut context), Poll::Pending));
    }
    gated.gate.send(()).unwrap();
    assert!(gated.is_written().await);
}
