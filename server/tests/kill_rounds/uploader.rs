//! Who sends large values, and goes on in the middle of them after the relay was killed.

use fastrand::Rng;
use sds_engine::Version;
use sds_server::Scope;
use sds_sync::limits::{BLOB_CHUNK_BYTES_MAX, BLOB_FRAME_BYTES_MAX, PROTOCOL_VERSION};
use sds_sync::transport::{Connection, FrameReceiver, FrameSender, connect};
use sds_sync::{ClientFrame, RelayFrame, RelayUrl, Trust};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::store;
use crate::support::common::token;

/// One after another, each made from its number.
pub(crate) struct Uploader {
    seed: u64,
    /// How many are acknowledged; the next one is offered until it is.
    pub(crate) acknowledged: u64,
    /// How often the relay had a part of one already.
    pub(crate) resumed: u64,
}

impl Uploader {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed, acknowledged: 0, resumed: 0 }
    }

    fn content(&self, number: u64) -> Vec<u8> {
        let mut dice = Rng::with_seed(self.seed ^ (number << 16));
        let mut bytes = vec![0; dice.usize(1..12 << 20)];
        dice.fill(&mut bytes);
        bytes
    }

    /// Sends until the relay is killed.
    pub(crate) async fn upload(mut self, url: RelayUrl, killed: oneshot::Receiver<()>) -> Self {
        tokio::select! {
            _ = self.send(&url, u64::MAX) => {}
            _ = killed => {}
        }
        self
    }

    /// Sends so many more; none if the relay ends before that.
    pub(crate) async fn send(&mut self, url: &RelayUrl, count: u64) -> Option<()> {
        let (connection, _open) = open(url).await?;
        for _ in 0..count {
            let bytes = self.content(self.acknowledged);
            let (hash, size) = (Sha256::digest(&bytes).into(), bytes.len() as u64);
            let offer = ClientFrame::OfferBlob { store: store(0).to_string(), hash, size };
            let (mut sender, mut receiver) = connection.open_stream().await.ok()?;
            sender.send(&offer).await.ok()?;
            let mut answer = receiver.next::<RelayFrame>().await.ok()??;
            if let RelayFrame::BlobWantedFrom { offset } = answer {
                self.resumed += u64::from(offset > 0);
                for piece in bytes[usize::try_from(offset).unwrap()..].chunks(BLOB_CHUNK_BYTES_MAX)
                {
                    let bytes = piece.to_vec().into();
                    sender.send(&ClientFrame::BlobChunk { bytes }).await.ok()?;
                }
                answer = receiver.next().await.ok()??;
            }
            assert_eq!(answer, RelayFrame::BlobStored);
            self.acknowledged += 1;
        }
        Some(())
    }

    /// Panics unless all that was acknowledged is at the relay.
    pub(crate) async fn check(&self, url: &RelayUrl) {
        let (connection, _open) = open(url).await.unwrap();
        for number in 0..self.acknowledged {
            let bytes = self.content(number);
            let hash = Sha256::digest(&bytes).into();
            let (mut sender, mut receiver) = connection.open_stream().await.unwrap();
            receiver.set_max(BLOB_FRAME_BYTES_MAX);
            let wanted = ClientFrame::GetBlob { store: store(0).to_string(), hash };
            sender.send(&wanted).await.unwrap();
            let mut got = Vec::new();
            while let Ok(Some(frame)) = receiver.next::<RelayFrame>().await {
                match frame {
                    RelayFrame::BlobFound { size } => assert_eq!(size, bytes.len() as u64),
                    RelayFrame::BlobChunk { bytes } => got.extend_from_slice(&bytes),
                    frame => panic!("blob {number}: {frame:?}"),
                }
            }
            assert!(got == bytes, "blob {number}");
        }
    }
}

/// Only who has a store open may send it large values.
async fn open(url: &RelayUrl) -> Option<(Connection, (FrameSender, FrameReceiver))> {
    let connection = connect(url, &Trust::of(url)).await.ok()?;
    let (mut sender, mut receiver) = connection.open_stream().await.ok()?;
    let store = store(0).to_string();
    let (token, version) =
        (token(&store, "uploader", Scope::Write), Version::new().encode().into());
    let open = ClientFrame::Open { protocol: PROTOCOL_VERSION, store, token, version };
    sender.send(&open).await.ok()?;
    let opened = receiver.next::<RelayFrame>().await.ok()??;
    matches!(opened, RelayFrame::Opened { .. }).then_some((connection, (sender, receiver)))
}
