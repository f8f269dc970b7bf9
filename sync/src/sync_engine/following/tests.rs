//! The writer while somebody goes on from what is in the file.

use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};

use sds_store::EntryId;
use tempfile::TempDir;

use super::super::writer::Writer;
use super::*;
use crate::persistence::MemoryPersistence;
use crate::store_id::StoreId;
use crate::synced_store::SyncedStore;

/// A store that says when it is about to be written, and is so only when it is told to.
struct Gated {
    shared: Arc<Shared>,
    has_begun: Receiver<()>,
    gate: Sender<()>,
}

impl Gated {
    fn new() -> Self {
        let ((gate, gated), (begun, has_begun)) = (channel(), channel());
        let gated = Mutex::new(gated);
        let replica = random::replica_id();
        let memory = MemoryPersistence::new(StoreId::new("s").unwrap(), replica);
        let file = memory.guarded(move || {
            begun.send(()).unwrap();
            gated.lock().unwrap().recv().unwrap();
            Ok(())
        });
        let (status, saved) = (watch::Sender::default(), watch::Sender::default());
        let (store, file) = SyncedStore::new(LocalStore::load(file).unwrap());
        let (writer, _thread) = Writer::spawn(file, status.clone(), saved.clone());
        Self { shared: Arc::new(Shared::new(store, status, saved, writer)), has_begun, gate }
    }

    fn edit(&self) {
        let label = |store: &mut DataStore| store.set_label(EntryId::ROOT, "edited");
        self.shared.edit(label).unwrap().unwrap();
    }

    /// Says whether what was edited comes to be written.
    async fn is_written(&self) -> bool {
        self.edit();
        self.gate.send(()).unwrap();
        let flushed = timeout(Duration::from_secs(20), self.shared.flush()).await;
        flushed.is_ok_and(|flushed| flushed.is_ok())
    }
}

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
