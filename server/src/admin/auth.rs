//! Who may ask for what.
//!
//! Everything under `/api` needs a token of scope admin. An admin of the relay is one whose token
//! is for all stores (`stores` with `*`); any other sees and changes what belongs to its own
//! stores, and nothing else. A revocation takes away the stores it names, here as everywhere.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sds_sync::Token;
use sds_sync::access::{Access, BeyondMinter, Scope, StoreSet};

use super::AdminState;
use super::answer::ApiError;
use crate::audit::Deed;

const MISSING: ApiError = ApiError::new(StatusCode::UNAUTHORIZED, "missing token");
const INVALID: ApiError = ApiError::new(StatusCode::UNAUTHORIZED, "invalid token");
const NOT_ADMIN: ApiError = ApiError::forbidden("admin scope required");
const NOT_OF_RELAY: ApiError =
    ApiError::forbidden("only for an admin of the relay, whose token is for all stores");
const NOT_YOURS: ApiError = ApiError::forbidden("the stores are not all your own");

/// The address that a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct From(pub(super) SocketAddr);

/// An admin, as their token shows.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    pub(super) access: Access,
    /// The stores for which the token was revoked.
    revoked: Vec<StoreSet>,
    from: SocketAddr,
}

impl Admin {
    /// Whether `store` is one of theirs.
    pub(super) fn has(&self, store: &str) -> bool {
        self.access.stores.contains(store) && !self.revoked.iter().any(|set| set.contains(store))
    }

    /// Whether all of `stores` are theirs.
    pub(super) fn check_stores(&self, stores: &StoreSet) -> Result<(), ApiError> {
        let is_whole = !self.revoked.iter().any(|set| set.overlaps(stores));
        if is_whole && self.access.stores.covers(stores) { Ok(()) } else { Err(NOT_YOURS) }
    }

    /// Looks again at what was revoked, after something that took its time.
    pub(super) fn look_again(mut self, state: &AdminState) -> Result<Self, ApiError> {
        self.revoked = revoked_of(state, &self.access)?;
        Ok(self)
    }

    /// Whether they may make a token for `stores` that holds for `lifetime`.
    pub(super) fn check_grant(
        &self,
        stores: &StoreSet,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<(), ApiError> {
        self.check_stores(stores)?;
        // A lifetime that is past all dates is past the minter's too.
        let expires = now.checked_add(lifetime);
        let allowed = expires
            .map_or(Err(BeyondMinter::Lifetime), |expires| self.access.may_grant(stores, expires));
        allowed.map_err(|beyond| match beyond {
            BeyondMinter::Scope => NOT_ADMIN,
            BeyondMinter::Lifetime => {
                ApiError::forbidden("the token would outlive the one that asks for it")
            }
            _ => NOT_YOURS,
        })
    }

    /// Whether they are an admin of the relay.
    pub(super) fn is_of_relay(&self) -> bool {
        self.access.stores.is_all()
    }

    pub(super) fn check_of_relay(&self) -> Result<(), ApiError> {
        if self.is_of_relay() { Ok(()) } else { Err(NOT_OF_RELAY) }
    }

    /// A deed of theirs, for the audit log.
    pub(super) fn deed(&self, action: &'static str) -> Deed {
        let deed = Deed::new(action).with("by", self.access.subject.clone());
        let deed = match &self.access.id {
            Some(id) => deed.with("with", id.to_string()),
            None => deed,
        };
        deed.with("from", self.from.ip().to_string())
    }
}

impl FromRequestParts<Arc<AdminState>> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<AdminState>,
    ) -> Result<Self, Self::Rejection> {
        let From(from) = *parts.extensions.get::<From>().ok_or(INVALID)?;
        let admin = admit(state, &parts.headers, from)?;
        if let Some(asker) = parts.extensions.get::<Asker>() {
            // Nobody asks twice in one request.
            let _known = asker.0.set(admin.access.subject.clone());
        }
        Ok(admin)
    }
}

/// Who asks, once their token was found good.
#[derive(Clone, Debug, Default)]
struct Asker(Arc<OnceLock<String>>);

/// Writes down each request that is refused to whoever asks.
pub(super) async fn note_refusals(
    State(state): State<Arc<AdminState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let (asker, from) = (Asker::default(), request.extensions().get::<From>().copied());
    request.extensions_mut().insert(asker.clone());
    let response = next.run(request).await;
    let refused = response.extensions().get::<ApiError>().filter(|error| error.is_refusal());
    if let Some((error, From(from))) = refused.zip(from) {
        state.audit.note_refused(from.ip(), asker.0.get().map(String::as_str), error.message);
    }
    response
}

fn admit(state: &AdminState, headers: &HeaderMap, from: SocketAddr) -> Result<Admin, ApiError> {
    let token = bearer(headers).ok_or(MISSING)?;
    let access = state.node.gate.verify(&token, SystemTime::now()).map_err(|_| INVALID)?;
    let revoked = revoked_of(state, &access)?;
    if access.scope < Scope::Admin {
        return Err(NOT_ADMIN);
    }
    Ok(Admin { access, revoked, from })
}

/// The stores for which a token of this access was revoked, if it still holds for others.
fn revoked_of(state: &AdminState, access: &Access) -> Result<Vec<StoreSet>, ApiError> {
    let mut revoked = state.node.revocations.of(access);
    if access.stores.is_all() {
        // Only their like can take anything away from an admin of the relay.
        revoked.retain(StoreSet::is_all);
    }
    if revoked.iter().any(|set| set.covers(&access.stores)) { Err(INVALID) } else { Ok(revoked) }
}

fn bearer(headers: &HeaderMap) -> Option<Token> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Token::from(token.trim().to_owned()))
}
