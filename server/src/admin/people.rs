//! Who is here, and cutting them off.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use sds_sync::StoreId;
use sds_sync::access::unix_seconds;
use serde::Deserialize;
use serde_json::{Value, json};

use super::AdminState;
use super::answer::{
    Answer, ApiError, STORAGE_FAILED, TOO_MANY_ROWS, json_answer, number, object, text, to_the_end,
};
use super::auth::Admin;
use crate::limits::{ADMIN_PAGE, ADMIN_PAGE_MAX};
use crate::sessions::{ConnectionFacts, Selection, SessionFacts};

pub(super) const BAD_QUERY: ApiError = ApiError::bad("the query is not well formed");
const BAD_STORE: ApiError = ApiError::bad("no store has such an id");

/// Which sessions are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionQuery {
    store: Option<String>,
    subject: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
}

/// Which connections are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectionQuery {
    after: Option<u64>,
    limit: Option<usize>,
}

/// How many rows an answer has.
pub(super) fn page_len(limit: Option<usize>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(ADMIN_PAGE);
    match limit {
        0 => Err(BAD_QUERY),
        1..=ADMIN_PAGE_MAX => Ok(limit),
        _ => Err(TOO_MANY_ROWS),
    }
}

/// `GET /api/sessions`
pub(super) async fn sessions(
    State(state): State<Arc<AdminState>>,
    admin: Admin,
    query: Result<Query<SessionQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|_| BAD_QUERY)?;
    let max = page_len(query.limit)?;
    let store = query.store.map(|store| StoreId::new(&store)).transpose();
    let store = store.map_err(|_| BAD_STORE)?;
    let selection = Selection { store, subject: query.subject, ..Selection::default() };
    let node = &state.node;
    let may_see = |store: &str| admin.has(store);
    let listed = node.sessions.list(&node.rooms, &selection, may_see, query.after, max);
    let next = listed.last().filter(|_| listed.len() == max).map(|last| last.number);
    let sessions: Vec<Value> = listed.iter().map(session).collect();
    Ok(json_answer(json!({ "sessions": sessions, "next": next })))
}

/// `GET /api/connections`
pub(super) async fn connections(
    State(state): State<Arc<AdminState>>,
    admin: Admin,
    query: Result<Query<ConnectionQuery>, QueryRejection>,
) -> Answer {
    admin.check_of_relay()?;
    let Query(query) = query.map_err(|_| BAD_QUERY)?;
    let max = page_len(query.limit)?;
    let listed = state.node.sessions.list_connections(query.after, max);
    let next = listed.last().filter(|_| listed.len() == max).map(|last| last.number);
    let connections: Vec<Value> = listed.iter().map(connection).collect();
    Ok(json_answer(json!({ "connections": connections, "next": next })))
}

/// `POST /api/kick`
pub(super) async fn kick(
    State(state): State<Arc<AdminState>>,
    admin: Admin,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    const ONE_OF: ApiError =
        ApiError::bad("expected at least one of session, connection, subject and store");
    let fields = object(body)?;
    let store = text(&fields, "store", BAD_STORE)?.map(StoreId::new).transpose();
    let selection = Selection {
        session: number(&fields, "session", ONE_OF)?,
        connection: number(&fields, "connection", ONE_OF)?,
        subject: text(&fields, "subject", ONE_OF)?.map(str::to_owned),
        store: store.map_err(|_| BAD_STORE)?,
    };
    let Selection { session, connection, subject, store } = &selection;
    let is_narrowed = session.is_some() || subject.is_some() || store.is_some();
    if !is_narrowed && connection.is_none() {
        return Err(ONE_OF);
    }
    let mut deed = admin.deed("kick");
    for (name, number) in [("session", session), ("connection", connection)] {
        deed = if let Some(number) = number { deed.with(name, *number) } else { deed };
    }
    for (name, text) in
        [("subject", subject.as_deref()), ("store", store.as_ref().map(StoreId::as_str))]
    {
        deed = if let Some(text) = text { deed.with(name, text) } else { deed };
    }
    // A connection as a whole is the relay's, and goes with all that it has open.
    let cut_off = connection.filter(|_| !is_narrowed && admin.is_of_relay());
    to_the_end(&Arc::clone(&state), async move {
        let sessions = &state.node.sessions;
        let ended = sessions.kick(&selection, |store| admin.has(store));
        if let Some(connection) = cut_off {
            sessions.cut_off(connection);
        }
        state.audit.record(deed.with("ended", ended)).await.map_err(|_| STORAGE_FAILED)?;
        Ok(json_answer(json!({ "ended": ended })))
    })
    .await
}

fn session(facts: &SessionFacts) -> Value {
    json!({
        "session": facts.number,
        "connection": facts.connection,
        "store": facts.store.as_str(),
        "subject": facts.subject,
        "scope": facts.scope.as_str(),
        "expires": unix_seconds(facts.expires),
        "address": facts.address.map(|address| address.to_string()),
        "since": unix_seconds(facts.since),
        "connection_received_bytes": facts.bytes.received,
        "connection_sent_bytes": facts.bytes.sent,
        "position": facts.position,
        "lag": facts.lag,
    })
}

fn connection(facts: &ConnectionFacts) -> Value {
    json!({
        "connection": facts.number,
        "address": facts.address.to_string(),
        "since": unix_seconds(facts.since),
        "sessions": facts.sessions,
        "received_bytes": facts.bytes.received,
        "sent_bytes": facts.bytes.sent,
    })
}
