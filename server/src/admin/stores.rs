//! Stores: which there are, what they take, and deleting them.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use sds_sync::access::unix_seconds;
use sds_sync::{StorageError, StoreId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::AdminState;
use super::answer::{Answer, ApiError, NOT_FOUND, Named, STORAGE_FAILED, json_answer, to_the_end};
use super::auth::Admin;
use super::people::{BAD_QUERY, page_len};
use crate::limits::Limit;
use crate::node::Node;
use crate::store_log::{StoreLog, StoreSummary, Wanted};

/// Which stores are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreQuery {
    #[serde(default)]
    deleted: bool,
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/stores`
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
    admin: Admin,
    query: Result<Query<StoreQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|_| BAD_QUERY)?;
    let max = page_len(query.limit)?;
    let page = read(&state.node, move |log| match query.deleted {
        true => deleted(log, &admin, query.after, max),
        false => live(log, &admin, query.after, max),
    });
    let Page { rows, next } = page.await?;
    Ok(json_answer(json!({ "stores": rows, "next": next })))
}

/// Rows for an answer, and where the next ones begin: the last of these, so that nobody hears of a
/// store that is not theirs.
struct Page {
    rows: Vec<Value>,
    next: Option<String>,
}

fn live(
    log: &StoreLog,
    admin: &Admin,
    after: Option<String>,
    max: usize,
) -> Result<Page, StorageError> {
    let is_wanted = |store: &str| admin.has(store);
    let wanted = Wanted { among: &admin.access.stores, is_wanted: &is_wanted };
    let stores = log.stores(&wanted, after.as_deref(), max)?;
    let last = stores.last().filter(|_| stores.len() == max);
    let next = last.map(|last| last.store.as_str().to_owned());
    Ok(Page { rows: stores.iter().map(row).collect(), next })
}

fn deleted(
    log: &StoreLog,
    admin: &Admin,
    after: Option<String>,
    max: usize,
) -> Result<Page, StorageError> {
    let is_wanted = |store: &str| admin.has(store);
    let wanted = Wanted { among: &admin.access.stores, is_wanted: &is_wanted };
    let stores = log.deleted_stores(&wanted, after.as_deref(), max)?;
    let last = stores.last().filter(|_| stores.len() == max);
    let next = last.map(|(store, _)| store.as_str().to_owned());
    Ok(Page { rows: stores.iter().map(|(store, when)| tombstone(store, *when)).collect(), next })
}

/// `GET /api/stores/{store}`
pub(super) async fn one(
    State(state): State<Arc<AdminState>>,
    admin: Admin,
    Named(store): Named,
) -> Answer {
    let store = own(&admin, &store)?;
    let summary = read(&state.node, move |log| log.summary(&store)).await?;
    Ok(json_answer(row(&summary.ok_or(NOT_FOUND)?)))
}

/// `DELETE /api/stores/{store}`
pub(super) async fn delete(
    State(state): State<Arc<AdminState>>,
    admin: Admin,
    Named(store): Named,
) -> Answer {
    let store = own(&admin, &store)?;
    if !admin.is_of_relay() {
        check_tombstones(&state.node, &admin).await?;
    }
    let deed = admin.deed("delete").with("store", store.as_str());
    to_the_end(&Arc::clone(&state), async move {
        let deleted = state.node.ask(move |node| node.delete_store(&store)).await;
        if !deleted.ok_or(STORAGE_FAILED)? {
            return Err(NOT_FOUND);
        }
        state.audit.record(deed).await.map_err(|_| STORAGE_FAILED)?;
        Ok(json_answer(json!({ "deleted": true })))
    })
    .await
}

/// Whether an admin of stores may delete one more. Those who ask at the same time do not see each
/// other, so there may be as many more as the listener serves at a time.
async fn check_tombstones(node: &Arc<Node>, admin: &Admin) -> Result<(), ApiError> {
    const TOO_MANY: ApiError = ApiError::new(
        StatusCode::INSUFFICIENT_STORAGE,
        "too many stores were deleted; an admin of the relay can forget some of them",
    );
    // Those who make admins for parts of their stores have no more with them.
    let stores = admin.access.realm.as_ref().unwrap_or(&admin.access.stores).clone();
    let limits = &node.limits;
    let max = limits.tombstones_per_admin;
    let counted = read(node, move |log| log.count_deleted(|id| stores.contains(id), max));
    let (all, own) = counted.await?;
    let limit = if own >= max {
        Limit::TombstonesPerAdmin
    } else if all >= limits.tombstones {
        Limit::Tombstones
    } else {
        return Ok(());
    };
    node.metrics.limit_hit(limit);
    Err(TOO_MANY)
}

/// `DELETE /api/stores/{store}/tombstone`
pub(super) async fn undelete(
    State(state): State<Arc<AdminState>>,
    admin: Admin,
    Named(store): Named,
) -> Answer {
    admin.check_of_relay()?;
    let store = own(&admin, &store)?;
    let deed = admin.deed("undelete").with("store", store.as_str());
    to_the_end(&Arc::clone(&state), async move {
        if !read(&state.node, move |log| log.undelete(&store)).await? {
            return Err(NOT_FOUND);
        }
        state.audit.record(deed).await.map_err(|_| STORAGE_FAILED)?;
        Ok(json_answer(json!({ "undeleted": true })))
    })
    .await
}

/// The store of this id, if it is one of the admin's. They are not told whether there are others.
fn own(admin: &Admin, store: &str) -> Result<StoreId, ApiError> {
    StoreId::new(store).ok().filter(|store| admin.has(store.as_str())).ok_or(NOT_FOUND)
}

/// Asks the relay's file.
async fn read<T: Send + 'static>(
    node: &Arc<Node>,
    look: impl FnOnce(&StoreLog) -> Result<T, StorageError> + Send + 'static,
) -> Result<T, ApiError> {
    node.read(look).await.ok_or(STORAGE_FAILED)
}

fn row(summary: &StoreSummary) -> Value {
    json!({
        "store": summary.store.as_str(),
        "deleted": null,
        "changes": summary.changes,
        "log_bytes": summary.change_bytes,
        "blobs": summary.blobs,
        "blob_bytes": summary.blob_bytes,
        "last_activity": summary.last_change.map(unix_seconds),
    })
}

fn tombstone(store: &StoreId, when: SystemTime) -> Value {
    json!({ "store": store.as_str(), "deleted": unix_seconds(when) })
}
