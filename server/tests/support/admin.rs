//! A relay with an admin listener, who may ask it for everything, and asking.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use sds_server::{Grant, Relay, RelayConfig, Scope, StoreSet};
use sds_sync::Token;
use serde_json::Value;
use tokio::time::timeout;

use super::common::{PATIENCE, grant, secret, sign};
use super::http::{bearer, exchange, request};

/// A relay with an admin listener, and where that is.
pub(crate) async fn relay(folder: &Path) -> (Relay, SocketAddr) {
    relay_of(RelayConfig::new(secret(), folder)).await
}

/// A relay as `config` says, but with an admin listener, and where that is.
pub(crate) async fn relay_of(config: RelayConfig) -> (Relay, SocketAddr) {
    let admin = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let relay = Relay::start(RelayConfig { admin, ..config }).await.unwrap();
    let address = relay.admin_addr().unwrap();
    (relay, address)
}

/// A token of an admin of these stores. It holds as long as any may, so that what is asked for never
/// outlives it.
pub(crate) fn admin_of(stores: StoreSet) -> Token {
    let lifetime = Duration::from_secs(90 * 24 * 3_600);
    sign(&Grant { stores, lifetime, ..grant("s", "boss", Scope::Admin) })
}

/// A token of an admin of the relay.
pub(crate) fn operator() -> Token {
    admin_of(StoreSet::all())
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

/// Sends `request` as it is, and reads until the relay ends the connection.
pub(crate) async fn send(address: SocketAddr, request: &[u8]) -> Answer {
    let talk = timeout(PATIENCE, exchange(address, request));
    let (status, head, body) = talk.await.expect("an answer in time").unwrap();
    Answer { status, head, body }
}

/// Asks with a value of the header `Authorization`, if there is one.
pub(crate) async fn ask_as(
    address: SocketAddr,
    what: (&str, &str),
    authorization: Option<&str>,
    body: &str,
) -> Answer {
    send(address, request(what, authorization, body).as_bytes()).await
}

/// Asks with a token.
pub(crate) async fn ask(
    address: SocketAddr,
    what: (&str, &str),
    token: &Token,
    body: &str,
) -> Answer {
    ask_as(address, what, Some(&bearer(token)), body).await
}
