//! Uploads that end before their time.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use interprocess::local_socket::traits::tokio::Listener as _;
use sds_engine::ReplicaId;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::*;
use crate::limits::BLOB_FRAME_BYTES_MAX;
use crate::local_socket::LocalAddress;
use crate::persistence::{MemoryPersistence, Persistence};
use crate::store_id::StoreId;

/// A way to blobs on which nobody ever gets a turn to write.
struct NoTurn {
    blobs: Arc<dyn BlobStorage>,
    /// Told when somebody waits for one.
    asked: Arc<Notify>,
}

impl BlobDoor for NoTurn {
    type Room = ();
    type Leave = ();

    fn check(&self, _: bool) -> Result<(), Refusal> {
        Ok(())
    }

    async fn open(&self, _: bool) -> Result<Option<Arc<dyn BlobStorage>>, Refusal> {
        Ok(Some(Arc::clone(&self.blobs)))
    }

    async fn admit(&self, _: Offer) -> Result<(), Refusal> {
        Ok(())
    }

    async fn turn(&self, _: BlobWork) -> Option<()> {
        self.asked.notify_one();
        std::future::pending().await
    }

    fn gather(&self) -> Option<()> {
        None
    }
}

/// Goal: an upload that ends while it waits for a turn does not make those wait for the disk who serve all
/// others. Method: one that is removed whole, by the thread that serves, at a disk that notes who comes.
#[tokio::test]
async fn whoever_ends_an_upload_does_not_wait_for_the_disk() {
    let (came, who_came) = channel();
    let came = Mutex::new(came);
    let memory = MemoryPersistence::new(StoreId::new("s").unwrap(), ReplicaId::new(1).unwrap());
    let memory = memory.guarded(move || {
        came.lock().unwrap().send(thread::current().id()).unwrap();
        Ok(())
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.sds");
    std::fs::write(&file, []).unwrap();
    let address = LocalAddress::of(&file);
    let (listener, _made) = address.listen().unwrap();
    let (client, service) = tokio::join!(address.connect_async(), listener.accept());
    let (client, service) = (Arc::new(client.unwrap()), Arc::new(service.unwrap()));
    let asked = Arc::new(Notify::new());
    let door = NoTurn { blobs: memory.blobs(), asked: Arc::clone(&asked) };
    let hash = BlobHash(Sha256::digest([7]).into());
    let offer = Offer { hash, size: 1, can_resume: false };
    let upload = tokio::spawn(async move {
        let sender = FrameSender::local(Arc::clone(&service));
        let receiver = FrameReceiver::local(service, BLOB_FRAME_BYTES_MAX);
        serve_put(&door, offer, sender, receiver).await
    });
    let chunk = ClientFrame::BlobChunk { bytes: Bytes::from_static(&[7]) };
    let mut client = FrameSender::local(client);
    client.send(&chunk).await.unwrap();
    timeout(Duration::from_secs(60), asked.notified()).await.unwrap();
    upload.abort();
    assert!(upload.await.unwrap_err().is_cancelled());
    let who = who_came.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_ne!(who, thread::current().id());
}
