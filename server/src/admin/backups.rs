//! Backups of the running relay, one at a time, into its folder.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::AdminState;
use super::answer::{Answer, ApiError, STORAGE_FAILED, json_answer};
use super::auth::Admin;
use crate::audit::Deed;
use crate::backup::FOLDER;
use crate::node::create_private;

/// How long an answer waits for the backup; a longer one is told of by the next question.
const PATIENCE: Duration = Duration::from_secs(20);

const UNDER_WAY: ApiError =
    ApiError::new(StatusCode::CONFLICT, "a backup is being made; ask again when it is done");

/// The last backup that was asked for.
#[derive(Debug, Default)]
pub(super) struct Backups {
    last: Mutex<Option<Value>>,
}

impl Backups {
    fn last(&self) -> Option<Value> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: Value) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    /// Notes that one begins, unless one is being made.
    fn begin(&self, state: Value) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = last.as_ref().is_none_or(|last| last["state"] != "running");
        if is_free {
            *last = Some(state);
        }
        is_free
    }
}

/// `GET /api/backup`
pub(super) async fn last(State(state): State<Arc<AdminState>>, admin: Admin) -> Answer {
    admin.check_of_relay()?;
    Ok(json_answer(json!({ "backup": state.backups.last() })))
}

/// `POST /api/backup`
pub(super) async fn begin(State(state): State<Arc<AdminState>>, admin: Admin) -> Answer {
    admin.check_of_relay()?;
    // To the millisecond: the next one may be asked for as soon as this one is made.
    let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let name = format!("relay-{}.backup", time.replace(':', "-"));
    let path = state.node.folder.join(FOLDER).join(&name);
    if !state.backups.begin(json!({ "state": "running", "file": name })) {
        return Err(UNDER_WAY);
    }
    let deed = admin.deed("backup").with("file", name.as_str());
    // It goes on if whoever asked for it leaves.
    let making = tokio::spawn(make(Arc::clone(&state), deed, name, path));
    let _in_time = timeout(PATIENCE, making).await;
    let last = state.backups.last();
    let code = match last.as_ref().and_then(|last| last["state"].as_str()) {
        Some("running") => StatusCode::ACCEPTED,
        Some("done") => StatusCode::OK,
        _ => return Err(STORAGE_FAILED),
    };
    Ok((code, json_answer(json!({ "backup": last }))).into_response())
}

async fn make(state: Arc<AdminState>, deed: Deed, name: String, path: PathBuf) {
    if state.audit.record(deed).await.is_err() {
        state.backups.set(json!({ "state": "failed", "file": name, "error": "audit-failed" }));
        return;
    }
    let (log, folder) = (Arc::clone(&state.node.log), state.node.folder.join(FOLDER));
    let made = tokio::task::spawn_blocking(move || {
        create_private(&folder).map_err(|error| error.to_string())?;
        log.backup(&path).map_err(|error| error.to_string())
    });
    let made = made.await.unwrap_or_else(|_| Err("the program is about to end".to_owned()));
    state.backups.set(match made {
        Ok(report) => {
            tracing::info!(file = name, bytes = report.bytes, "made a backup");
            json!({ "state": "done", "file": name, "rows": report.rows, "bytes": report.bytes })
        }
        Err(error) => {
            state.node.metrics.storage_failures.inc();
            tracing::error!(file = name, error, "cannot make a backup");
            json!({ "state": "failed", "file": name, "error": error })
        }
    });
}
