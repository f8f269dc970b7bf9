//! What clients meet at each limit of a relay, and past it: real QUIC on loopback.
//!
//! Goal: no limit is only written down. Method: each is set low, reached, which is fine, and passed,
//! which has the effect that `Limits` describes and is counted under its name.

mod connections;
mod contents;
mod frames;
mod rates;
mod taking;
#[path = "../support"]
mod support {
    pub(crate) mod common;
    pub(crate) mod large;
    pub(crate) mod stream;
}

use std::time::Duration;

use sds_engine::{ReplicaId, Version};
use sds_server::limits::{
    BEGUN_BYTES_PER_CONNECTION_MAX, BEGUN_BYTES_PER_SUBJECT_MAX, Limit, Limits,
};
use sds_server::{Relay, RelayConfig, Scope};
use sds_sync::limits::{
    BLOB_BYTES_MAX, BLOB_CHUNK_BYTES_MAX, BLOB_FRAME_BYTES_MAX, BLOB_PARTS_MAX,
    FIRST_FRAME_BYTES_MAX, FRAME_BYTES_MAX, PRESENCE_PEERS_MAX,
};
use sds_sync::transport::{Connection, connect};
use sds_sync::{ClientFrame, Frame, RefusalCode, RelayFrame, Token, Trust, encode_datagram};
use support::common::{PATIENCE, folder, id, secret, token};
use support::stream::{Stream, change, client};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

struct Home {
    relay: Relay,
    _folder: TempDir,
}

impl Home {
    async fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let folder = folder();
        let mut config = RelayConfig::new(secret(), folder.path());
        change(&mut config.limits);
        config.limits.check().unwrap();
        Self { relay: Relay::start(config).await.unwrap(), _folder: folder }
    }

    async fn connect(&self) -> Connection {
        client(&self.relay).await
    }

    async fn try_connect(&self) -> Option<Connection> {
        let url = self.relay.url();
        connect(&url, &Trust::of(&url)).await.ok()
    }

    fn hits(&self, limit: Limit) -> u64 {
        self.relay.limit_hits(limit)
    }

    /// Waits until a limit has been met.
    async fn met(&self, limit: Limit) {
        let met = async {
            while self.hits(limit) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, met).await.unwrap_or_else(|_| panic!("{limit:?} is never met"));
    }
}

fn open(store: &str, subject: &str) -> ClientFrame {
    open_with(token(store, subject, Scope::Write), store)
}

fn open_with(token: Token, store: &str) -> ClientFrame {
    let (store, version) = (store.to_owned(), Version::new().encode().into());
    ClientFrame::Open { protocol: 3, store, token, version }
}

impl Stream {
    async fn ask(connection: &Connection, store: &str, subject: &str) -> Self {
        Self::begin(connection, open(store, subject)).await
    }

    async fn open(connection: &Connection, store: &str, subject: &str) -> Self {
        Self::opened(connection, open(store, subject)).await
    }

    async fn refused(&mut self) -> RefusalCode {
        self.refusal().await.expect("a refusal")
    }

    /// Waits until everything up to counter `next` of `author` is acknowledged.
    async fn stored(&mut self, author: u64, next: u64) {
        loop {
            let RelayFrame::Stored { version } = self.next().await else { continue };
            let version = Version::decode(&version).unwrap();
            if version.next(ReplicaId::new(author).unwrap()) >= next {
                return;
            }
        }
    }
}
