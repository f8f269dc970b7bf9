//! Giving tokens out, and taking them back.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use sds_sync::Token;
use sds_sync::access::{Grant, KeyId, MintError, Scope, StoreSet, TokenId, unix_seconds};
use sds_sync::limits::{SUBJECT_BYTES_MAX, TOKEN_ID_BYTES_MAX};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::AdminState;
use super::answer::{
    Answer, ApiError, NOT_FOUND, Named, STORAGE_FAILED, json_answer, number, object, text,
    to_the_end,
};
use super::auth::Admin;
use super::people::{BAD_QUERY, page_len};
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
    let realm = admin.access.realm_of_grants();
    let token = state.keys.mint_within(&grant, &id, now, realm.as_ref());
    let token = token.map_err(|error| match error {
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
    // Who was revoked meanwhile gives nothing out any more.
    admin.look_again(&state)?.check_stores(&grant.stores)?;
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
    let (field, name) = what(&revocation);
    let deed = admin.deed("revoke").with(field, name);
    to_the_end(&Arc::clone(&state), carry_out(state, revocation, deed, now)).await
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
            state.node.metrics.storage_failures.inc();
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
        (None, Some(id), None, None) if id.len() <= TOKEN_ID_BYTES_MAX => Revoked::Token(id.into()),
        (None, Some(_), None, None) => return Err(ApiError::bad("the jti is too long")),
        (None, None, Some(subject), None) => {
            if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX {
                return Err(ApiError::bad("sub has to be a text of 1 to 1,024 bytes"));
            }
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

/// Which revocations are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevocationQuery {
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/revocations`
pub(super) async fn revocations(
    State(state): State<Arc<AdminState>>,
    admin: Admin,
    query: Result<Query<RevocationQuery>, QueryRejection>,
) -> Answer {
    let Query(RevocationQuery { after, limit }) = query.map_err(|_| BAD_QUERY)?;
    let max = page_len(limit)?;
    let listed = tokio::task::spawn_blocking(move || {
        let may_see = |known: &Revocation| admin.check_stores(&known.within).is_ok();
        state.node.revocations.list(SystemTime::now(), may_see, after.as_deref(), max)
    });
    let listed = listed.await.map_err(|_| STORAGE_FAILED)?;
    let next = listed.last().filter(|_| listed.len() == max).map(|(name, _)| name.clone());
    let rows: Vec<Value> = listed.iter().map(|(name, known)| row(name, known)).collect();
    Ok(json_answer(json!({ "revocations": rows, "next": next })))
}

/// `DELETE /api/revocations/{revocation}`
pub(super) async fn lift(
    State(state): State<Arc<AdminState>>,
    admin: Admin,
    Named(wanted): Named,
) -> Answer {
    let deed = admin.deed("lift").with("revocation", wanted.clone());
    to_the_end(&Arc::clone(&state), carry_back(state, admin, wanted, deed)).await
}

/// Takes a revocation back, and writes it down.
async fn carry_back(state: Arc<AdminState>, admin: Admin, wanted: String, deed: Deed) -> Answer {
    let node = Arc::clone(&state.node);
    let lifted = tokio::task::spawn_blocking(move || {
        let may_lift = |known: &Revocation| admin.check_stores(&known.within).is_ok();
        node.revocations.lift(&wanted, may_lift)
    });
    match lifted.await {
        Ok(Ok(Some(revocation))) => {
            let (field, name) = what(&revocation);
            let deed = deed.with(field, name);
            state.audit.record(deed).await.map_err(|_| STORAGE_FAILED)?;
            Ok(json_answer(json!({ "lifted": true })))
        }
        Ok(Ok(None)) => Err(NOT_FOUND),
        Ok(Err(error)) => {
            state.node.metrics.storage_failures.inc();
            tracing::error!(%error, "cannot write the revocations");
            Err(STORAGE_FAILED)
        }
        Err(_) => Err(STORAGE_FAILED),
    }
}

/// What is revoked: under which field of a request, and its name.
fn what(revocation: &Revocation) -> (&'static str, String) {
    match &revocation.what {
        Revoked::Token(id) => ("jti", id.to_string()),
        Revoked::Subject(subject) => ("sub", subject.to_string()),
        Revoked::Key(key) => ("kid", key.as_ref().map_or("", KeyId::as_str).to_owned()),
    }
}

fn row(name: &str, revocation: &Revocation) -> Value {
    let (store, stores) = revocation.within.to_claims();
    let mut row = json!({
        "revocation": name,
        "issued_until": revocation.issued_until.map(unix_seconds),
        "expires": revocation.expires.map(unix_seconds),
        "stores": stores.or_else(|| store.map(|store| vec![store])),
    });
    let (field, name) = what(revocation);
    row[field] = name.into();
    row
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::pin::pin;
    use std::task::{Context, Waker};

    use axum::extract::FromRequestParts;
    use axum::http::Request;
    use sds_sync::access::{Keyring, Secret};
    use tempfile::TempDir;

    use super::super::auth::From;
    use super::*;
    use crate::node::{Relay, RelayConfig};

    /// Goal: when a revocation is answered its subject gives out nothing any more. Method: it is
    /// revoked, for all or for some of its stores, while the line about the token is written.
    #[tokio::test]
    async fn who_is_revoked_while_a_token_is_made_gets_none() {
        let folder = TempDir::new().unwrap();
        let secret = Secret::new("a secret of more than thirty-two characters").unwrap();
        let keys = Keyring::from(secret);
        let relay = Relay::start(RelayConfig::new(keys.clone(), folder.path())).await.unwrap();
        let (node, audit) = (Arc::clone(&relay.node), Arc::clone(&relay.audit));
        let state = Arc::new(AdminState::new(node, audit, keys, None));
        let rows = [
            (vec!["other"], Ok(StatusCode::OK)),
            (vec!["a1*"], Err(StatusCode::FORBIDDEN)),
            (vec!["a*"], Err(StatusCode::UNAUTHORIZED)),
        ];
        for (within, expected) in rows {
            let mut tries = 0;
            let answer = loop {
                tries += 1;
                assert!(tries < 100, "the line is always written at once");
                let name = format!("{within:?}{tries}");
                let admin = admin_of(&state, &name).await;
                let body = r#"{"sub":"bob","scope":"read","store":"a1"}"#;
                let mut minting = pin!(mint(State(Arc::clone(&state)), admin, Ok(body.into())));
                if minting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                    continue;
                }
                let what = Revoked::Subject(name.into());
                let within = StoreSet::parse(&within).unwrap();
                let revocation = Revocation { what, issued_until: None, within, expires: None };
                state.node.revocations.add(revocation, SystemTime::now()).unwrap();
                break minting.await;
            };
            let status = answer.map(|answer| answer.status()).map_err(|error| error.status);
            assert_eq!(status, expected, "{within:?}");
        }
        relay.stop().await;
    }

    /// An admin of `a*` whose token was found good.
    async fn admin_of(state: &Arc<AdminState>, subject: &str) -> Admin {
        let grant = Grant {
            stores: StoreSet::parse(&["a*"]).unwrap(),
            subject: subject.to_owned(),
            scope: Scope::Admin,
            lifetime: LIFETIME * 2,
            issuer: None,
        };
        let token = state.keys.mint(&grant, &TokenId::random(), SystemTime::now()).unwrap();
        let request = Request::builder()
            .header("Authorization", format!("Bearer {}", token.reveal()))
            .extension(From(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        Admin::from_request_parts(&mut parts, state).await.unwrap()
    }
}
