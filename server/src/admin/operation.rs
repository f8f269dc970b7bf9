//! Whether the relay is well, what it does, and stopping it in good order.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sds_sync::access::unix_seconds;
use serde_json::{Value, json};

use super::AdminState;
use super::answer::{Answer, STORAGE_FAILED, json_answer, to_the_end};
use super::auth::Admin;
use crate::metrics::MEDIA_TYPE;
use crate::node::Node;

/// `GET /healthz`: there is no need to start the relay anew.
pub(super) async fn healthz(State(state): State<Arc<AdminState>>) -> Response {
    match state.node.check_alive() {
        Ok(()) => "ok\n".into_response(),
        Err(why) => unavailable(why),
    }
}

/// `GET /readyz`: clients can be sent here.
pub(super) async fn readyz(State(state): State<Arc<AdminState>>) -> Response {
    match state.node.check_ready().await {
        Ok(()) => "ready\n".into_response(),
        Err(why) => unavailable(why),
    }
}

fn unavailable(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

/// `GET /metrics`
pub(super) async fn metrics(State(state): State<Arc<AdminState>>) -> impl IntoResponse {
    let node = Arc::clone(&state.node);
    // Many connections are asked for what they have carried.
    let text = tokio::task::spawn_blocking(move || node.measure()).await.unwrap_or_default();
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], text)
}

/// `GET /api/openapi.json`
pub(super) async fn openapi() -> impl IntoResponse {
    const JSON: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];
    (JSON, include_str!("openapi.json"))
}

/// `GET /api/status`
pub(super) async fn status(State(state): State<Arc<AdminState>>, admin: Admin) -> Answer {
    let (store, stores) = admin.access.stores.to_claims();
    let relay = if admin.is_of_relay() { relay_status(&state).await } else { Value::Null };
    Ok(json_answer(json!({
        "subject": admin.access.subject,
        "store": store,
        "stores": stores,
        "expires": unix_seconds(admin.access.expires),
        "relay": relay,
    })))
}

async fn relay_status(state: &AdminState) -> Value {
    let (node, started) = (Arc::clone(&state.node), state.started);
    let not_ready = node.check_ready().await.err();
    // Many connections are asked for what they have carried.
    let status = tokio::task::spawn_blocking(move || describe(&node, started, not_ready));
    status.await.unwrap_or_default()
}

fn describe(node: &Node, started: SystemTime, not_ready: Option<&str>) -> Value {
    node.sessions.tally(&node.metrics);
    let (connections, sessions) = node.sessions.count();
    let metrics = &node.metrics;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started": unix_seconds(started),
        "now": unix_seconds(SystemTime::now()),
        "not_ready": not_ready,
        "connections": connections,
        "sessions": sessions,
        "stores_open": node.rooms.len(),
        "received_bytes": metrics.received_bytes.get(),
        "sent_bytes": metrics.sent_bytes.get(),
        "changes_appended": metrics.changes_appended.get(),
        "changes_delivered": metrics.changes_delivered.get(),
        "lag_max": node.sessions.lag_max(&node.rooms),
        "revocations": node.revocations.len(),
    })
}

/// `POST /api/drain`
pub(super) async fn drain(State(state): State<Arc<AdminState>>, admin: Admin) -> Answer {
    admin.check_of_relay()?;
    to_the_end(&Arc::clone(&state), async move {
        state.audit.record(admin.deed("drain")).await.map_err(|_| STORAGE_FAILED)?;
        state.node.ask_to_stop();
        Ok((StatusCode::ACCEPTED, json_answer(json!({ "draining": true }))).into_response())
    })
    .await
}
