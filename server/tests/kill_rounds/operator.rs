//! Who deletes stores, revokes tokens and makes backups.

use std::net::SocketAddr;
use std::path::Path;

use sds_engine::{Change, Op, Patch, ReplicaId, Version};
use sds_server::{Grant, Scope, StoreSet};
use sds_sync::limits::PROTOCOL_VERSION;
use sds_sync::transport::connect;
use sds_sync::{ClientFrame, RelayFrame, RelayUrl, Token, Trust};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::support::common::{grant, sign};
use crate::support::http::{bearer, exchange, request};

/// What was answered with success. What is asked for has a number, which is used once.
#[derive(Default)]
pub(crate) struct Operator {
    next: u64,
    pub(crate) deleted: Vec<String>,
    pub(crate) revoked: Vec<String>,
    /// The names of files.
    pub(crate) backups: Vec<String>,
}

impl Operator {
    /// Asks for one after another until the relay is killed.
    pub(crate) async fn work(
        mut self,
        url: RelayUrl,
        address: SocketAddr,
        killed: oneshot::Receiver<()>,
    ) -> Self {
        let work = async { while self.step(&url, address).await.is_some() {} };
        tokio::select! {
            () = work => {}
            _ = killed => {}
        }
        self
    }

    /// None when the relay has ended.
    pub(crate) async fn step(&mut self, url: &RelayUrl, address: SocketAddr) -> Option<()> {
        self.next += 1;
        let store = format!("gone-{}", self.next);
        fill(url, &store).await?;
        if ask(address, "DELETE", &format!("/api/stores/{store}"), "").await?.0 == 200 {
            self.deleted.push(store);
        }
        let jti = format!("token-{}", self.next);
        let body = format!("{{\"jti\":\"{jti}\"}}");
        if ask(address, "POST", "/api/revoke", &body).await?.0 == 200 {
            self.revoked.push(jti);
        }
        // Of one second there is one backup only.
        let (status, made) = ask(address, "POST", "/api/backup", "").await?;
        if status == 200 {
            let made: Value = serde_json::from_str(&made).unwrap();
            self.backups.push(made["backup"]["file"].as_str().unwrap().to_owned());
        }
        Some(())
    }

    /// Panics unless all backups are whole that were said to be made; they are removed then.
    pub(crate) fn check_backups(&mut self, data: &Path) {
        for file in self.backups.drain(..) {
            let path = data.join("backups").join(file);
            sds_server::backup::verify(&path).unwrap();
            std::fs::remove_file(path).unwrap();
        }
    }

    /// Panics unless all that was deleted and revoked is.
    pub(crate) async fn check(&self, address: SocketAddr) {
        let deleted = list(address, "/api/stores?deleted=true", "stores").await;
        let ids: Vec<&str> = deleted.iter().filter_map(|row| row["store"].as_str()).collect();
        for store in &self.deleted {
            assert!(ids.contains(&&**store), "{store} is deleted");
        }
        let revoked = list(address, "/api/revocations?", "revocations").await;
        let names: Vec<&str> = revoked.iter().filter_map(|row| row["jti"].as_str()).collect();
        for jti in &self.revoked {
            assert!(names.contains(&&**jti), "{jti} is revoked");
        }
    }
}

/// An admin of the relay.
fn operator() -> Token {
    sign(&Grant { stores: StoreSet::all(), ..grant("s", "boss", Scope::Admin) })
}

/// Status and body; None if the relay is gone.
async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let request = request((method, path), Some(&bearer(&operator())), body);
    let (status, _, body) = exchange(address, request.as_bytes()).await.ok()?;
    Some((status, body))
}

/// All rows of a list.
async fn list(address: SocketAddr, path: &str, name: &str) -> Vec<Value> {
    let (mut rows, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("{path}&limit=1000{after}");
        let (_, page) = ask(address, "GET", &path, "").await.unwrap();
        let page: Value = serde_json::from_str(&page).unwrap();
        rows.extend(page[name].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return rows,
        }
    }
}

/// Lets there be a store with something in it.
async fn fill(url: &RelayUrl, store: &str) -> Option<()> {
    let connection = connect(url, &Trust::of(url)).await.ok()?;
    let (mut sender, mut receiver) = connection.open_stream().await.ok()?;
    let (token, version) = (operator(), Version::new().encode().into());
    let (store, protocol) = (store.to_owned(), PROTOCOL_VERSION);
    sender.send(&ClientFrame::Open { protocol, store, token, version }).await.ok()?;
    let author = ReplicaId::new(7).unwrap();
    let change = Change::new(author, 0, Vec::new(), &[Op::Skip { count: 1 }]).unwrap();
    let patch = Patch::new(vec![change]).encode().into();
    sender.send(&ClientFrame::Changes { patch }).await.ok()?;
    while !matches!(receiver.next().await.ok()??, RelayFrame::Stored { .. }) {}
    Some(())
}
