//! What all of these programs share: the relay's secret, tokens made with it, and how long to wait.

use std::time::{Duration, SystemTime};

use sds_server::{Grant, Scope, Secret, mint};
use sds_sync::{StoreId, Token};
use tempfile::TempDir;

pub(crate) const SECRET: &str = "a secret of more than thirty-two characters";

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn folder() -> TempDir {
    TempDir::new().unwrap()
}

pub(crate) fn secret() -> Secret {
    Secret::new(SECRET).unwrap()
}

pub(crate) fn id(text: &str) -> StoreId {
    StoreId::new(text).unwrap()
}

/// What a token of `subject` for a store says that holds for an hour.
pub(crate) fn grant(store: &str, subject: &str, scope: Scope) -> Grant {
    let (stores, subject) = (id(store).into(), subject.to_owned());
    Grant { stores, subject, scope, lifetime: Duration::from_secs(3_600), issuer: None }
}

pub(crate) fn sign(grant: &Grant) -> Token {
    mint(&secret(), grant, SystemTime::now()).unwrap()
}

/// A token of `subject` for a store that holds for an hour.
pub(crate) fn token(store: &str, subject: &str, scope: Scope) -> Token {
    sign(&grant(store, subject, scope))
}
