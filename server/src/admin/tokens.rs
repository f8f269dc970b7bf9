//! Giving tokens out, and taking them back.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use sds_sync::Token;
use sds_sync::access::{Grant, KeyId, MintError, Scope, StoreSet, TokenId};
use serde_json::{Map, Value, json};

use super::AdminState;
use super::answer::{Answer, ApiError, STORAGE_FAILED, json_answer, number, object, text};
use super::auth::Admin;
use crate::audit::Deed;
use crate::config::parse_lifetime;
use crate::revocations::{Revocation, RevokeError, Revoked};
use crate::sessions::REVOKED;

/// How long a token holds whose request does not say.
const LIFETIME: Duration = Duration::from_secs(24 * 3_600);

const SUB_AND_SCOPE: ApiError = ApiError::bad("sub and scope required");
const BAD_SCOPE: ApiError = ApiError::bad("scope has to be read, write or admin");
const BAD_EXP: ApiError =
    ApiError::bad("exp has to be a number from 1 and a unit of s, m, h, d or w, such as 24h");
const BAD_STORES: ApiError = ApiError::bad(
    "expected either store, an id, or stores, 1 to 64 ids or beginnings of ids with * behind them",
);

/// `POST /api/token`
pub(super) async fn mint(
    State(state): State<Arc<AdminState>>,
    admin: Admin,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let fields = object(body)?;
    let now = SystemTime::now();
    let grant = grant(&state, &admin, &fields, now)?;
    let id = TokenId::random();
    let token = state.keys.mint(&grant, &id, now).map_err(|error| match error {
        MintError::SubjectTooLong => ApiError::bad("sub is too long"),
        MintError::TooLong => ApiError::bad("the token would be too long"),
        MintError::LifetimeTooLong => BAD_EXP,
        _ => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the token cannot be made"),
    })?;
    let (store, stores) = grant.stores.to_claims();
    let deed = admin
        .deed("mint")
        .with("jti", id.as_str())
        .with("sub", grant.subject)
        .with("scope", grant.scope.as_str())
        .with("stores", store.map_or_else(|| json!(stores), Value::from))
        .with("seconds", grant.lifetime.as_secs());
    // A token that nobody could account for later is not given out.
    state.audit.record(deed).await.map_err(|_| STORAGE_FAILED)?;
    state.node.metrics.minted(grant.scope);
    Ok(json_answer(json!({ "token": token.reveal() })))
}

/// What is asked for, if the admin may give it.
fn grant(
    state: &AdminState,
    admin: &Admin,
    fields: &Map<String, Value>,
    now: SystemTime,
) -> Result<Grant, ApiError> {
    let subject = text(fields, "sub", SUB_AND_SCOPE)?.filter(|subject| !subject.is_empty());
    let scope = text(fields, "scope", SUB_AND_SCOPE)?;
    let (Some(subject), Some(scope)) = (subject, scope) else { return Err(SUB_AND_SCOPE) };
    let scope: Scope = scope.parse().map_err(|_| BAD_SCOPE)?;
    let lifetime = match text(fields, "exp", BAD_EXP)? {
        Some(text) => parse_lifetime(text).map_err(|_| BAD_EXP)?,
        None => {
            let left = admin.access.expires.duration_since(now).unwrap_or_default();
            LIFETIME.min(left)
        }
    };
    let stores = stores(fields)?.unwrap_or_else(|| admin.access.stores.clone());
    admin.check_grant(&stores, lifetime, now)?;
    let (subject, issuer) = (subject.to_owned(), state.issuer.clone());
    Ok(Grant { stores, subject, scope, lifetime, issuer })
}

/// The stores that the body names, if it does.
fn stores(fields: &Map<String, Value>) -> Result<Option<StoreSet>, ApiError> {
    let store = text(fields, "store", BAD_STORES)?;
    let patterns = match fields.get("stores") {
        None | Some(Value::Null) => None,
        Some(Value::Array(patterns)) => {
            let texts = patterns.iter().map(Value::as_str);
            Some(texts.collect::<Option<Vec<&str>>>().ok_or(BAD_STORES)?)
        }
        Some(_) => return Err(BAD_STORES),
    };
    if store.is_none() && patterns.is_none() {
        return Ok(None);
    }
    StoreSet::from_claims(store, patterns.as_deref()).map(Some).map_err(|_| BAD_STORES)
}

/// `POST /api/revoke`
pub(super) async fn revoke(
    State(state): State<Arc<AdminState>>,
    admin: Admin,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    // Who has lost some of their stores has lost the right to speak for all of them.
    admin.check_stores(&admin.access.stores)?;
    let fields = object(body)?;
    let now = SystemTime::now();
    let revocation = revocation(&state, &admin, &fields, now)?;
    let deed = match &revocation.what {
        Revoked::Token(id) => admin.deed("revoke").with("jti", id.to_string()),
        Revoked::Subject(subject) => admin.deed("revoke").with("sub", subject.to_string()),
        Revoked::Key(key) => {
            admin.deed("revoke").with("kid", key.as_ref().map_or("", KeyId::as_str))
        }
    };
    // It goes on if whoever asked for it leaves: what is revoked must not stay open.
    let revoking = tokio::spawn(carry_out(state, revocation, deed, now));
    revoking.await.unwrap_or(Err(STORAGE_FAILED))
}

/// Revokes, ends the sessions that are concerned, and writes it down.
async fn carry_out(
    state: Arc<AdminState>,
    revocation: Revocation,
    deed: Deed,
    now: SystemTime,
) -> Answer {
    let node = Arc::clone(&state.node);
    let added = tokio::task::spawn_blocking(move || node.revocations.add(revocation, now)).await;
    match added {
        Ok(Ok(())) => {}
        Ok(Err(RevokeError::TooMany)) => {
            let message = "too many revocations are in force";
            return Err(ApiError::new(StatusCode::INSUFFICIENT_STORAGE, message));
        }
        Ok(Err(RevokeError::File(error))) => {
            tracing::error!(%error, "cannot write the revocations");
            return Err(STORAGE_FAILED);
        }
        Err(_) => return Err(STORAGE_FAILED),
    }
    let node = &state.node;
    let is_meant = |store: &_, access: &_| {
        let store: &sds_sync::StoreId = store;
        node.revocations.is_revoked(access, store.as_str())
    };
    let ended = node.sessions.end(REVOKED, is_meant);
    state.audit.record(deed.with("ended", ended)).await.map_err(|_| STORAGE_FAILED)?;
    Ok(json_answer(json!({ "revoked": true, "ended": ended })))
}

/// What is to be revoked: within the admin's own stores.
fn revocation(
    state: &AdminState,
    admin: &Admin,
    fields: &Map<String, Value>,
    now: SystemTime,
) -> Result<Revocation, ApiError> {
    const ONE_OF: ApiError = ApiError::bad("expected exactly one of token, jti, sub and kid");
    const BAD_TIME: ApiError = ApiError::bad("expected seconds since 1970");
    let name = |name| text(fields, name, ONE_OF);
    let time = |name| -> Result<Option<SystemTime>, ApiError> {
        let Some(seconds) = number(fields, name, BAD_TIME)? else { return Ok(None) };
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).map(Some).ok_or(BAD_TIME)
    };
    let mut expires = time("expires")?;
    let mut issued_until = time("issued_until")?;
    let what = match (name("token")?, name("jti")?, name("sub")?, name("kid")?) {
        (Some(token), None, None, None) => {
            let access = state.node.gate.verify(&Token::from(token.to_owned()), now);
            let access = access.map_err(|_| ApiError::bad("the token is not good anyway"))?;
            admin.check_stores(&access.stores)?;
            expires = Some(access.expires);
            let no_name = ApiError::bad("the token has no jti; its subject can be revoked");
            Revoked::Token(access.id.ok_or(no_name)?)
        }
        (None, Some(id), None, None) => Revoked::Token(id.into()),
        (None, None, Some(subject), None) => {
            issued_until = issued_until.or(Some(now));
            Revoked::Subject(subject.into())
        }
        (None, None, None, Some(key)) => {
            admin.check_of_relay()?;
            let no_key = |_| ApiError::bad("the kid is none");
            Revoked::Key(match key {
                "" => None,
                key => Some(KeyId::new(key).map_err(no_key)?),
            })
        }
        _ => return Err(ONE_OF),
    };
    Ok(Revocation { what, issued_until, within: admin.access.stores.clone(), expires })
}
