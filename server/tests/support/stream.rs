//! One stream of a client, frame by frame.

use sds_engine::{Change, Op, Patch, ReplicaId};
use sds_server::Relay;
use sds_sync::transport::{Connection, FrameReceiver, FrameSender, connect};
use sds_sync::{ClientFrame, RefusalCode, RelayFrame, Trust};
use tokio::time::timeout;

use super::common::PATIENCE;

pub(crate) async fn client(relay: &Relay) -> Connection {
    connect(&relay.url(), &Trust::of(&relay.url())).await.unwrap()
}

pub(crate) struct Stream {
    pub(crate) sender: FrameSender,
    pub(crate) receiver: FrameReceiver,
}

impl Stream {
    pub(crate) async fn begin(connection: &Connection, first: ClientFrame) -> Self {
        let (mut sender, receiver) = connection.open_stream().await.unwrap();
        sender.send(&first).await.unwrap();
        Self { sender, receiver }
    }

    /// Opens a store with the frame `open`; the relay lets it.
    pub(crate) async fn opened(connection: &Connection, open: ClientFrame) -> Self {
        let mut stream = Self::begin(connection, open).await;
        let answer = stream.next().await;
        assert!(matches!(answer, RelayFrame::Opened { .. }), "{answer:?}");
        stream
    }

    pub(crate) async fn send(&mut self, changes: &[Change]) {
        let patch = Patch::new(changes.to_vec()).encode().into();
        self.sender.send(&ClientFrame::Changes { patch }).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> RelayFrame {
        let next = timeout(PATIENCE, self.receiver.next()).await.expect("an answer in time");
        next.unwrap().expect("a frame before the end")
    }

    /// Why the relay ends the stream, if that is what its next frame says.
    pub(crate) async fn refusal(&mut self) -> Option<RefusalCode> {
        let RelayFrame::Refused { code, .. } = self.next().await else { return None };
        let end = timeout(PATIENCE, self.receiver.next::<RelayFrame>()).await.unwrap();
        assert!(matches!(end, Ok(None)), "{end:?}");
        Some(RefusalCode::from_number(code))
    }
}

/// A change that takes one counter and builds on nothing.
pub(crate) fn change(author: u64, start: u64) -> Change {
    let author = ReplicaId::new(author).unwrap();
    Change::new(author, start, Vec::new(), &[Op::Skip { count: 1 }]).unwrap()
}
