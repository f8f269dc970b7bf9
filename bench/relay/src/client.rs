//! A client without a store: it sends changes and counts what comes.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use sds_engine::{Change, EntryId, Field, Life, Op, Patch, ReplicaId, Value, Version};
use sds_sync::limits::{FRAME_BYTES_MAX, PROTOCOL_VERSION};
use sds_sync::transport::{Connection, FrameReceiver, FrameSender, connect};
use sds_sync::{ClientFrame, RelayFrame, RelayUrl, StoreId, Trust};

use crate::relay::token;

/// A store that is open on a connection.
#[derive(Debug)]
pub(crate) struct Client {
    /// Kept: with it the stream ends.
    pub(crate) connection: Arc<Connection>,
    pub(crate) sender: FrameSender,
    pub(crate) receiver: FrameReceiver,
}

impl Client {
    /// Connects and opens `store`, as somebody who has nothing.
    pub(crate) async fn open(
        url: &RelayUrl,
        store: &StoreId,
        subject: &str,
        seat: u64,
    ) -> Result<Self> {
        let connection = Arc::new(connect(url, &Trust::of(url)).await?);
        let (mut sender, mut receiver) = connection.open_stream().await?;
        receiver.set_max(FRAME_BYTES_MAX);
        let frame = ClientFrame::OpenSeated {
            protocol: PROTOCOL_VERSION,
            store: store.to_string(),
            token: token(store, subject)?,
            version: Version::new().encode().into(),
            seats: vec![seat],
        };
        sender.send(&frame).await?;
        match receiver.next::<RelayFrame>().await? {
            Some(RelayFrame::OpenedSeated { .. }) => Ok(Self { connection, sender, receiver }),
            other => bail!("not opened: {other:?}"),
        }
    }

    /// The next patch of others.
    pub(crate) async fn next_patch(&mut self) -> Result<Bytes> {
        loop {
            match next(&mut self.receiver).await? {
                RelayFrame::Changes { patch } => return Ok(patch),
                RelayFrame::Refused { message, .. } => bail!("refused: {message}"),
                _ => {}
            }
        }
    }

    /// Waits until the relay has everything of `replica` before `end` on disk.
    pub(crate) async fn stored(&mut self, replica: ReplicaId, end: u64) -> Result<()> {
        loop {
            match next(&mut self.receiver).await? {
                RelayFrame::Stored { version }
                    if Version::decode(&version)?.next(replica) >= end =>
                {
                    return Ok(());
                }
                RelayFrame::Refused { message, .. } => bail!("refused: {message}"),
                _ => {}
            }
        }
    }
}

/// The next frame.
pub(crate) async fn next(receiver: &mut FrameReceiver) -> Result<RelayFrame> {
    receiver.next().await?.context("the relay has ended the stream")
}

/// The changes of one replica, one after the other.
#[derive(Debug)]
pub(crate) struct Author {
    pub(crate) replica: ReplicaId,
    pub(crate) next: u64,
}

impl Author {
    /// Replica `number`, which has made nothing yet.
    pub(crate) fn new(number: u64) -> Result<Self> {
        Ok(Self { replica: ReplicaId::new(number).context("no replica 0")?, next: 0 })
    }

    /// The next change, about what an edit is: a label of twenty characters, which no compression
    /// makes much smaller than half.
    pub(crate) fn change(&mut self) -> Result<Change> {
        let noise = (self.next + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let set = Op::Set {
            entry: EntryId::ROOT,
            life: Life::FIRST,
            field: Field::Label,
            value: Value::Text(format!("item {:015x}", noise >> 4)),
        };
        let change = Change::new(self.replica, self.next, Vec::new(), &[set])?;
        self.next = change.header().end();
        Ok(change)
    }

    /// The next change in a frame of its own.
    pub(crate) fn frame(&mut self) -> Result<ClientFrame> {
        self.frame_of(1)
    }

    /// The next `count` changes in one frame.
    pub(crate) fn frame_of(&mut self, count: usize) -> Result<ClientFrame> {
        let changes = (0..count).map(|_| self.change()).collect::<Result<Vec<_>>>()?;
        Ok(ClientFrame::Changes { patch: Patch::new(changes).encode().into() })
    }
}

/// A store's id.
pub(crate) fn store(number: usize) -> Result<StoreId> {
    Ok(StoreId::new(&format!("bench-{number}"))?)
}
