//! An engine whose file another process owns: what others write there comes in here.
//!
//! While there is an owner, it tells; while there is none, the file is looked at whenever it has
//! changed. What this engine edits goes its usual way, through `SharedFile`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use interprocess::local_socket::tokio::Stream;
use sds_engine::{Patch, Version};
use sds_store::{DataStore, StoreError};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::shared::Shared;
use super::status::SyncStatus;
use super::writer::Job;
use crate::guest_session::{GuestSession, Wish};
use crate::limits::FRAME_BYTES_MAX;
use crate::local_socket::LocalAddress;
use crate::local_store::LocalStore;
use crate::message::ClientFrame;
use crate::persistence::StorageError;
use crate::random;
use crate::synced_store::Purpose;
use crate::transport::{FrameReceiver, FrameSender};

/// How often a file that nobody owns is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often the owner is asked again for blobs that it did not have.
const BLOB_INTERVAL: Duration = Duration::from_secs(30);

/// Following a file, until this is ended.
pub(super) struct Following {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Following {
    /// Begins to follow a file. Needs a tokio runtime.
    pub(super) fn begin(shared: &Arc<Shared>, file: PathBuf) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let shared = Arc::clone(shared);
        let task = tokio::spawn(async move {
            tokio::select! {
                // Without a sender the engine is gone altogether.
                _ = stopped.wait_for(|stop| *stop) => {}
                () = look_for_blobs(&shared) => {}
                () = follow_under_any_seat(&shared, &file) => {}
            }
        });
        Self { stop, task }
    }

    /// Stops following.
    pub(super) async fn end(self) {
        self.stop.send_replace(true);
        // A task that panicked has ended too.
        let _ended = self.task.await;
    }
}

/// Follows a file; begins anew after the seat was lost, for then there is less here than the owner was
/// told.
async fn follow_under_any_seat(shared: &Arc<Shared>, file: &Path) {
    let mut status = shared.status.subscribe();
    let is_lost =
        |status: &SyncStatus| matches!(status.storage_error, Some(StorageError::SeatLost { .. }));
    loop {
        tokio::select! {
            () = follow(shared, file) => return,
            lost = status.wait_for(is_lost) => {
                if lost.is_err() {
                    return;
                }
            }
        }
        let store = Arc::clone(shared);
        let taken = tokio::task::spawn_blocking(move || store.take_lost_seat()).await;
        if let Ok(Err(error)) = &taken {
            tracing::error!(store = %shared.id, %error, "cannot go on under another seat");
        }
        if !matches!(taken, Ok(Ok(()))) {
            return;
        }
    }
}

async fn follow(shared: &Arc<Shared>, file: &Path) {
    let mut seen = None;
    loop {
        if let Ok(stream) = LocalAddress::of(file).connect_async().await {
            if shared.writer.ask(Job::Reattach).is_err() {
                return;
            }
            hear(shared, stream).await;
        }
        let now = stamp(file).ok();
        if now != seen && look(shared, file).await {
            seen = now;
        }
        sleep(INTERVAL).await;
    }
}

/// Finds out which of the blobs that the store refers to the owner has: of each once it is referred to,
/// and of those that were not there now and then.
async fn look_for_blobs(shared: &Arc<Shared>) {
    let mut changed = shared.blobs_changed.subscribe();
    let mut asked = BTreeSet::new();
    while let Ok(missing) = shared.blobs_to_look_for() {
        for hash in &missing {
            if asked.insert(*hash) {
                let (blobs, hash) = (Arc::clone(&shared.blobs), *hash);
                let found = tokio::task::spawn_blocking(move || blobs.find(&hash)).await;
                if matches!(found, Ok(Ok(Some(_)))) && shared.blob_found(&hash).is_err() {
                    return;
                }
            }
        }
        asked.retain(|hash| missing.contains(hash));
        match timeout(BLOB_INTERVAL, changed.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => asked.clear(),
        }
    }
}

/// Takes in what the owner tells, until it does not any more.
async fn hear(shared: &Arc<Shared>, stream: Stream) {
    let stream = Arc::new(stream);
    let mut sender = FrameSender::local(Arc::clone(&stream));
    let mut receiver = FrameReceiver::local(stream, FRAME_BYTES_MAX);
    let Ok(known) = shared.read(|store| store.version().clone()) else { return };
    let mut session = GuestSession::new(&shared.id, &known, Wish::Nothing);
    while let Some(frame) = session.poll_transmit() {
        if sender.send(&frame).await.is_err() {
            return;
        }
    }
    while let Ok(Some(frame)) = receiver.next().await {
        if session.handle_frame(frame).is_err() {
            return;
        }
        // It comes before all changes, to who has nothing yet.
        if let Some(snapshot) = session.take_snapshot()
            && !take_in_snapshot(shared, snapshot).await
        {
            break;
        }
        let changes = session.take_received();
        if !changes.is_empty() {
            let patch = Patch::pack(changes.iter().map(|change| &**change));
            if !take_in(shared, patch).await {
                break;
            }
        }
    }
    let _gone = sender.send(&ClientFrame::Bye).await;
}

/// Takes in what is in the file; whether that went well.
async fn look(shared: &Arc<Shared>, file: &Path) -> bool {
    let folder = file.parent().unwrap_or(file).to_owned();
    let (store, reader) = (shared.id.clone(), Arc::clone(shared));
    let read = move || {
        let local = LocalStore::open_to_read(&folder, &store).ok()?;
        let known = reader.read(|store| store.version().clone()).ok()?;
        let is_new = !known.covers(local.store().version());
        Some(is_new.then(|| local.store().export_patch(&known)))
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Some(Some(patch))) => take_in(shared, patch).await,
        Ok(Some(None)) => true,
        Ok(None) | Err(_) => false,
    }
}

async fn take_in_snapshot(shared: &Arc<Shared>, snapshot: Vec<u8>) -> bool {
    let unpack = move || {
        let owners = DataStore::from_binary(random::replica_id(), &snapshot)?;
        Ok::<_, StoreError>(owners.export_patch(&Version::new()))
    };
    match tokio::task::spawn_blocking(unpack).await {
        Ok(Ok(patch)) => take_in(shared, patch).await,
        Ok(Err(error)) => {
            tracing::warn!(store = %shared.id, %error, "cannot read the owner's snapshot");
            false
        }
        Err(_) => false,
    }
}

async fn take_in(shared: &Arc<Shared>, patch: Vec<u8>) -> bool {
    let shared = Arc::clone(shared);
    let take = move || {
        let taken = shared.take_in(Purpose::Sync, &Version::new(), &patch);
        taken
            .inspect_err(|error| tracing::warn!(store = %shared.id, %error, "cannot follow"))
            .is_ok()
    };
    tokio::task::spawn_blocking(take).await.unwrap_or(false)
}

/// What changes whenever a file is written to.
fn stamp(file: &Path) -> io::Result<(SystemTime, u64)> {
    let metadata = fs::metadata(file)?;
    Ok((metadata.modified()?, metadata.len()))
}
