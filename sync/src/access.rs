//! Tokens: who may open which stores, and until when.
//!
//! HS256 only. Claims: `sub`; `aud`, one text, the store, or `stores`, several by name or prefix;
//! `scope`; `exp`; `iss` if whoever checks has an issuer; `jti` and `iat`, by which tokens are revoked;
//! `realm`, the stores of the admin whom it comes from.
//! `kid` in the header names the secret. Anything else about a token makes it unauthorized, except the
//! wrong store: forbidden.
//!
//! Not here: what was revoked, which a relay keeps.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod keys;
mod minting;
mod stores;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::{Deserialize, Serialize};

use crate::limits::{CLOCK_INTERVAL, SUBJECT_BYTES_MAX, TOKEN_BYTES_MAX, TOKEN_ID_BYTES_MAX};
use crate::message::Token;

pub use keys::{InvalidKeyId, KeyId, Keyring, KeyringError, Secret, WeakSecret};
pub use minting::{BeyondMinter, Grant, MintError, TokenId, mint};
pub use stores::{InvalidStores, StoreSet};

/// What a token allows. Each scope allows what the one before it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// To receive.
    Read,
    /// To send changes and blobs.
    Write,
    /// To give others access to the store.
    Admin,
}

impl Scope {
    /// The scope's name in a token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// The text names no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a scope: expected read, write or admin")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            "admin" => Ok(Self::Admin),
            _ => Err(UnknownScope),
        }
    }
}

/// Why a token does not open a store.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The token is none of this relay's, or is past its time.
    #[error("the token is missing, damaged, expired or not from here")]
    Unauthorized,
    /// The token opens another store.
    #[error("the token is for another store")]
    Forbidden,
}

/// What somebody may do with which stores, as a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Who.
    pub subject: String,
    /// What.
    pub scope: Scope,
    /// Until when.
    pub expires: SystemTime,
    /// With which stores.
    pub stores: StoreSet,
    /// The token's own name, if it has one.
    pub id: Option<Box<str>>,
    /// When the token was made, if it says so.
    pub issued: Option<SystemTime>,
    /// The name of the secret that it was signed with, if that has one.
    pub key: Option<KeyId>,
    /// The stores of the admin of stores whom the token comes from, if it does. Such an admin may
    /// give any subject a token, so what a subject takes counts for each realm apart.
    pub realm: Option<StoreSet>,
}

impl Access {
    /// Whether changes and blobs may be sent.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.scope >= Scope::Write
    }

    /// The realm of the tokens that somebody with this access makes: that of their own token, so that
    /// admins who make admins stay within it.
    #[must_use]
    pub fn realm_of_grants(&self) -> Option<StoreSet> {
        let own = || Some(self.stores.clone()).filter(|stores| !stores.is_all());
        self.realm.clone().or_else(own)
    }

    /// How long it holds from `now` on.
    #[must_use]
    pub fn left(&self, now: SystemTime) -> Duration {
        self.expires.duration_since(now).unwrap_or_default()
    }

    /// Whether it holds no more at `now`.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires <= now
    }

    /// How long to sleep at most until somebody looks again whether it has expired: clocks are set,
    /// machines suspended.
    #[must_use]
    pub fn next_look(&self, now: SystemTime) -> Duration {
        self.left(now).min(CLOCK_INTERVAL)
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stores: Option<Vec<String>>,
    scope: Scope,
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    realm: Option<Realm>,
}

/// Stores as the one claim for a realm names them.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Realm {
    /// One by name.
    Store(String),
    /// Several by patterns; none stands for those of the token itself.
    Patterns(Vec<String>),
}

impl Realm {
    fn new(realm: &StoreSet, stores: &StoreSet) -> Self {
        match realm.to_claims() {
            _ if realm == stores => Self::Patterns(Vec::new()),
            (Some(store), _) => Self::Store(store),
            (None, patterns) => Self::Patterns(patterns.unwrap_or_default()),
        }
    }

    fn stores(&self, of_token: &StoreSet) -> Option<StoreSet> {
        match self {
            Self::Store(store) => StoreSet::from_claims::<&str>(Some(store), None).ok(),
            Self::Patterns(none) if none.is_empty() => Some(of_token.clone()),
            Self::Patterns(patterns) => StoreSet::parse(patterns).ok(),
        }
    }
}

impl Claims {
    /// The stores, which exactly one of two claims names.
    fn stores(&self) -> Option<StoreSet> {
        StoreSet::from_claims(self.aud.as_deref(), self.stores.as_deref()).ok()
    }
}

/// Checks tokens.
pub struct Gate {
    keys: HashMap<Option<KeyId>, DecodingKey>,
    validation: Validation,
    issuer: Option<String>,
}

impl Gate {
    /// Accepts what was signed with one of `keys`, by `issuer` if there is one.
    #[must_use]
    pub fn new(keys: impl Into<Keyring>, issuer: Option<String>) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // The audience, the issuer and the time are checked here: they need the store and `now`.
        validation.validate_aud = false;
        validation.validate_exp = false;
        let keys = keys.into();
        let keys = keys.iter().map(|(name, secret)| (name.clone(), secret.checking_key()));
        Self { keys: keys.collect(), validation, issuer }
    }

    /// What `token` allows with `store`.
    ///
    /// # Errors
    /// If it does not open that store at the time `now`.
    pub fn check(
        &self,
        token: &Token,
        store: &str,
        now: SystemTime,
    ) -> Result<Access, AccessError> {
        let access = self.verify(token, now)?;
        if access.stores.contains(store) { Ok(access) } else { Err(AccessError::Forbidden) }
    }

    /// What `token` allows with which stores.
    ///
    /// # Errors
    /// If it is not good at the time `now`.
    pub fn verify(&self, token: &Token, now: SystemTime) -> Result<Access, AccessError> {
        self.read(token, now).ok_or(AccessError::Unauthorized)
    }

    fn read(&self, token: &Token, now: SystemTime) -> Option<Access> {
        let text = token.reveal();
        if text.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let key = decode_header(text).ok()?.kid;
        let key = key.map(|name| KeyId::new(&name)).transpose().ok()?;
        let claims = decode::<Claims>(text, self.keys.get(&key)?, &self.validation).ok()?.claims;
        let is_ours = self.issuer.is_none() || claims.iss == self.issuer;
        let expires = time(claims.exp).filter(|expires| *expires > now)?;
        if !is_ours || claims.sub.is_empty() || claims.sub.len() > SUBJECT_BYTES_MAX {
            return None;
        }
        if claims.jti.as_ref().is_some_and(|id| id.len() > TOKEN_ID_BYTES_MAX) {
            return None;
        }
        let stores = claims.stores()?;
        let realm = match &claims.realm {
            Some(realm) => Some(realm.stores(&stores)?),
            None => None,
        };
        Some(Access {
            scope: claims.scope,
            expires,
            stores,
            realm,
            issued: claims.iat.and_then(time),
            key,
            id: claims.jti,
            subject: claims.sub,
        })
    }
}

/// A time as tokens have it: seconds since 1970, and 0 for all times before.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn time(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
