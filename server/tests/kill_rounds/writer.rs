//! Who appends as fast as the relay takes it.

use std::sync::Arc;

use fastrand::Rng;
use sds_engine::{Change, EntryId, Field, Life, Op, Patch, ReplicaId, Value, Version};
use sds_server::Scope;
use sds_sync::limits::{FRAME_BYTES_MAX, PROTOCOL_VERSION};
use sds_sync::transport::{StreamError, connect};
use sds_sync::{ClientFrame, RelayFrame, RelayUrl, Trust};
use tokio::sync::{Notify, oneshot};

use crate::support::common::token;
use crate::{STORES, store};

/// Somebody who has made changes, and knows which of them were acknowledged.
pub(crate) struct Writer {
    pub(crate) number: u64,
    dice: Rng,
    pub(crate) changes: Vec<Change>,
    pub(crate) acknowledged: u64,
}

impl Writer {
    pub(crate) fn new(number: u64, seed: u64) -> Self {
        let dice = Rng::with_seed(seed ^ ((number + 1) << 32));
        Self { number, dice, changes: Vec::new(), acknowledged: 0 }
    }

    pub(crate) fn replica(&self) -> ReplicaId {
        ReplicaId::new(1 + self.number).unwrap()
    }

    fn end(&self) -> u64 {
        self.changes.last().map_or(0, |change| change.header().end())
    }

    fn edit(&mut self) -> Change {
        // Mostly like keystrokes, now and then larger than a page.
        let size = match self.dice.u64(..1_000) {
            0..=1 => 300_000,
            2..=40 => 5_000,
            _ => 1 + self.dice.u64(..30),
        };
        let text = (0..size).map(|_| char::from(b'a' + self.dice.u8(..26)));
        let set = Op::Set {
            entry: EntryId::ROOT,
            life: Life::FIRST,
            field: Field::Label,
            value: Value::Text(text.collect()),
        };
        let change = Change::new(self.replica(), self.end(), vec![], &[set]).unwrap();
        self.changes.push(change.clone());
        change
    }

    /// Writes until the relay is killed: by itself a client notices that only after a while.
    pub(crate) async fn write(
        mut self,
        url: RelayUrl,
        killed: oneshot::Receiver<()>,
        progress: Arc<Notify>,
    ) -> Self {
        tokio::select! {
            gone = self.session(&url, &progress) => assert!(gone.is_some(), "the relay answers as it should"),
            _ = killed => {}
        }
        self
    }

    /// None if the relay has said something that it must not.
    async fn session(&mut self, url: &RelayUrl, progress: &Notify) -> Option<StreamError> {
        let id = store(self.number % STORES);
        let subject = format!("writer {}", self.number);
        let token = token(id.as_str(), &subject, Scope::Write);
        let Ok(connection) = connect(url, &Trust::of(url)).await else {
            return Some(StreamError::CutOff);
        };
        let (mut sender, mut receiver) = match connection.open_stream().await {
            Ok(stream) => stream,
            Err(error) => return Some(error),
        };
        receiver.set_max(FRAME_BYTES_MAX);
        // What the others write is not wanted: only headers of one's own matter here.
        let (version, seats) = (Version::new().encode().into(), vec![self.replica().as_u64()]);
        let (store, protocol) = (id.to_string(), PROTOCOL_VERSION);
        let open = ClientFrame::OpenSeated { protocol, store, token, version, seats };
        if let Err(error) = sender.send(&open).await {
            return Some(error);
        }
        let mut sent = u64::MAX;
        loop {
            match receiver.next::<RelayFrame>().await {
                Ok(Some(RelayFrame::OpenedSeated { version, .. })) => {
                    let there = Version::decode(&version).unwrap().next(self.replica());
                    assert!(there >= self.acknowledged, "{there} of {}", self.acknowledged);
                    sent = there;
                }
                Ok(Some(RelayFrame::Stored { version })) => {
                    let stored = Version::decode(&version).unwrap().next(self.replica());
                    self.acknowledged = self.acknowledged.max(stored);
                    progress.notify_one();
                }
                Ok(Some(RelayFrame::Changes { .. } | RelayFrame::Access { .. })) => continue,
                Ok(None) => return Some(StreamError::CutOff),
                Err(error) => return Some(error),
                Ok(Some(frame)) => {
                    println!("the relay says {frame:?}");
                    return None;
                }
            }
            // Everything that is not there yet, and something new.
            for _ in 0..1 + self.dice.u64(..40) {
                self.edit();
            }
            let known = self.changes.partition_point(|change| change.header().start < sent);
            for change in &self.changes[known..] {
                let patch = Patch::new(vec![change.clone()]).encode().into();
                if let Err(error) = sender.send(&ClientFrame::Changes { patch }).await {
                    return Some(error);
                }
            }
            sent = self.end();
        }
    }
}
