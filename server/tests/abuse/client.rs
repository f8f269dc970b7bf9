//! A client that speaks the protocol by hand, so that it may do what no proper one does.

use std::time::{Duration, SystemTime};

use sds_engine::{Change, Op, Patch, ReplicaId, Version};
use sds_server::{Grant, Scope, Secret, mint};
use sds_sync::transport::{Connection, FrameReceiver, FrameSender, connect};
use sds_sync::{ClientFrame, RelayFrame, RelayUrl, StoreId, Token, Trust};

pub(crate) const SECRET: &str = "a secret of more than thirty-two characters";

fn token(store: &str, subject: &str) -> Token {
    let grant = Grant {
        stores: StoreId::new(store).unwrap().into(),
        subject: subject.to_owned(),
        scope: Scope::Write,
        lifetime: Duration::from_secs(3_600),
        issuer: None,
    };
    mint(&Secret::new(SECRET).unwrap(), &grant, SystemTime::now()).unwrap()
}

pub(crate) async fn dial(url: &RelayUrl) -> Option<Connection> {
    connect(url, &Trust::of(url)).await.ok()
}

pub(crate) async fn open(
    connection: &Connection,
    store: &str,
    subject: &str,
) -> Option<(FrameSender, FrameReceiver)> {
    open_with(connection, store, subject, &Version::new()).await
}

/// The same for somebody who has `version`.
pub(crate) async fn open_with(
    connection: &Connection,
    store: &str,
    subject: &str,
    version: &Version,
) -> Option<(FrameSender, FrameReceiver)> {
    let request = opening(store, subject, version);
    let (mut sender, mut receiver) = connection.open_stream().await.ok()?;
    sender.send(&request).await.ok()?;
    let answer = receiver.next().await.ok()??;
    matches!(answer, RelayFrame::Opened { .. }).then_some((sender, receiver))
}

/// The frame that opens a store.
pub(crate) fn opening(store: &str, subject: &str, version: &Version) -> ClientFrame {
    let (token, version) = (token(store, subject), version.encode().into());
    ClientFrame::Open { protocol: 3, store: store.to_owned(), token, version }
}

/// A frame of so many changes of one counter each.
pub(crate) fn changes(author: u64, from: u64, count: u64) -> ClientFrame {
    let author = ReplicaId::new(author).unwrap();
    let one = |start| Change::new(author, start, Vec::new(), &[Op::Skip { count: 1 }]).unwrap();
    let changes = (from..from + count).map(one).collect();
    ClientFrame::Changes { patch: Patch::new(changes).encode().into() }
}
