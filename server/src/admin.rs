//! What an operator asks of the relay over HTTP, on a listener of its own: tokens, who is here,
//! stores, backup, drain, health and metrics, and a page to look at.
//!
//! The listener speaks plain HTTP/1.1: it is meant for the machine itself, or for a proxy that
//! speaks TLS. `openapi.json` describes it; a test holds it and the routes together.

mod answer;
mod auth;
mod backups;
mod operation;
mod page;
mod people;
mod server;
mod stores;
mod tokens;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::routing::{MethodRouter, delete, get, post};
use sds_sync::access::Keyring;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::audit::Audit;
use crate::node::Node;

/// What requests are answered from.
pub(crate) struct AdminState {
    pub(crate) node: Arc<Node>,
    pub(crate) audit: Arc<Audit>,
    /// What tokens are signed with.
    pub(crate) keys: Keyring,
    /// Who gives them.
    pub(crate) issuer: Option<String>,
    pub(crate) started: SystemTime,
    backups: backups::Backups,
    /// Places for deeds that are being done and written down; closed by a relay that stops.
    deeds: Arc<Semaphore>,
}

/// How many deeds may be under way.
const DEEDS_MAX: u32 = 1_024;

/// The listener, until this is dropped.
#[derive(Debug)]
pub(crate) struct AdminListener {
    local_addr: SocketAddr,
    serving: JoinHandle<()>,
    deeds: Arc<Semaphore>,
}

type Routes = MethodRouter<Arc<AdminState>>;

impl AdminState {
    pub(crate) fn new(
        node: Arc<Node>,
        audit: Arc<Audit>,
        keys: Keyring,
        issuer: Option<String>,
    ) -> Self {
        let (started, backups) = (SystemTime::now(), backups::Backups::default());
        let deeds = Arc::new(Semaphore::new(DEEDS_MAX as usize));
        Self { node, audit, keys, issuer, started, backups, deeds }
    }
}

impl AdminListener {
    /// Listens at `address`.
    ///
    /// # Errors
    /// If it is taken.
    pub(crate) async fn start(address: SocketAddr, state: AdminState) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let local_addr = listener.local_addr()?;
        if !local_addr.ip().is_loopback() {
            tracing::warn!(%local_addr, "the admin listener takes tokens without TLS from other machines");
        }
        let (metrics, deeds) = (Arc::clone(&state.node.metrics), Arc::clone(&state.deeds));
        let serving = tokio::spawn(server::serve(listener, router(state), metrics));
        Ok(Self { local_addr, serving, deeds })
    }

    pub(crate) const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Takes nobody else, and waits until what is being done is done and written down. From then on
    /// nothing is done any more.
    pub(crate) async fn stop(self) {
        self.serving.abort();
        // Nobody closes it before.
        let _all = self.deeds.acquire_many(DEEDS_MAX).await;
        self.deeds.close();
    }
}

impl Drop for AdminListener {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn router(state: AdminState) -> Router {
    let state = Arc::new(state);
    let mut router = Router::new();
    for (_, path, route) in routes() {
        router = router.route(path, route);
    }
    router
        .fallback(async || answer::NOT_FOUND)
        .method_not_allowed_fallback(async || answer::NOT_FOUND)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), auth::note_refusals))
        .layer(axum::middleware::map_response(page::harden))
        .with_state(state)
}

/// All that there is to ask, with its method and path.
fn routes() -> Vec<(&'static str, &'static str, Routes)> {
    vec![
        ("get", "/", get(page::page)),
        ("get", "/healthz", get(operation::healthz)),
        ("get", "/readyz", get(operation::readyz)),
        ("get", "/metrics", get(operation::metrics)),
        ("get", "/api/openapi.json", get(operation::openapi)),
        ("post", "/api/token", post(tokens::mint)),
        ("post", "/api/revoke", post(tokens::revoke)),
        ("get", "/api/revocations", get(tokens::revocations)),
        ("delete", "/api/revocations/{revocation}", delete(tokens::lift)),
        ("get", "/api/status", get(operation::status)),
        ("get", "/api/sessions", get(people::sessions)),
        ("get", "/api/connections", get(people::connections)),
        ("post", "/api/kick", post(people::kick)),
        ("get", "/api/stores", get(stores::list)),
        ("get", "/api/stores/{store}", get(stores::one)),
        ("delete", "/api/stores/{store}", delete(stores::delete)),
        ("delete", "/api/stores/{store}/tombstone", delete(stores::undelete)),
        ("get", "/api/backup", get(backups::last)),
        ("post", "/api/backup", post(backups::begin)),
        ("post", "/api/drain", post(operation::drain)),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_description_names_what_there_is_and_nothing_else() {
        let description: Value = serde_json::from_str(include_str!("admin/openapi.json")).unwrap();
        let mut told = BTreeSet::new();
        for (path, operations) in description["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                told.insert((method.clone(), path.clone()));
            }
        }
        let there = routes();
        let there =
            there.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()));
        assert_eq!(there.collect::<BTreeSet<_>>(), told);
    }
}
