//! Making tokens, and who may make which.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, Header, encode};

use super::{Access, Claims, Keyring, Realm, Scope, Secret, StoreSet};
use crate::limits::{SUBJECT_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::message::Token;
use crate::random;

/// What a token is to say.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The stores that it opens.
    pub stores: StoreSet,
    /// Whom it is for.
    pub subject: String,
    /// What it allows.
    pub scope: Scope,
    /// How long it holds.
    pub lifetime: Duration,
    /// Who gives it, where the relay asks for that.
    pub issuer: Option<String>,
}

/// The name of a token, by which it can be revoked: `jti`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenId(Box<str>);

impl TokenId {
    /// A name that no other token has.
    #[must_use]
    pub fn random() -> Self {
        Self::from_halves(random::number(), random::number())
    }

    /// The name that is made of these numbers.
    #[must_use]
    pub fn from_halves(high: u64, low: u64) -> Self {
        let mut text = String::with_capacity(32);
        // Writing to a string never fails.
        let _ = write!(text, "{high:016x}{low:016x}");
        Self(text.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why no token can be made.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// A token is for somebody.
    #[error("the subject is empty")]
    NoSubject,
    /// Nobody has such a long name.
    #[error("the subject is longer than {SUBJECT_BYTES_MAX} bytes")]
    SubjectTooLong,
    /// The end is beyond what a date can say.
    #[error("the lifetime is too long")]
    LifetimeTooLong,
    /// The token would be longer than a relay reads.
    #[error("the token would be longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// The signature could not be made.
    #[error("the token cannot be signed")]
    Signature,
}

/// Why somebody may not make a token.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeyondMinter {
    /// Only admins make tokens.
    #[error("admin scope required")]
    Scope,
    /// The minter cannot open these stores.
    #[error("the stores are not all the minter's own")]
    Stores,
    /// The minter's own token ends sooner.
    #[error("the token would outlive the minter's own")]
    Lifetime,
}

impl Access {
    /// Whether somebody with this access may make a token for `stores` that holds until `expires`. Its
    /// scope may be any: only admins make tokens, and there is no greater one.
    ///
    /// # Errors
    /// What of it is beyond their own rights.
    pub fn may_grant(&self, stores: &StoreSet, expires: SystemTime) -> Result<(), BeyondMinter> {
        if self.scope < Scope::Admin {
            Err(BeyondMinter::Scope)
        } else if !self.stores.covers(stores) {
            Err(BeyondMinter::Stores)
        } else if expires > self.expires {
            Err(BeyondMinter::Lifetime)
        } else {
            Ok(())
        }
    }
}

impl Keyring {
    /// Makes a token, signed with the first secret.
    ///
    /// # Errors
    /// If the grant is not one, or the token would not be accepted.
    pub fn mint(&self, grant: &Grant, id: &TokenId, now: SystemTime) -> Result<Token, MintError> {
        self.mint_within(grant, id, now, None)
    }

    /// The same on behalf of an admin of stores; `realm` is what [`Access::realm_of_grants`] says.
    ///
    /// # Errors
    /// The same.
    pub fn mint_within(
        &self,
        grant: &Grant,
        id: &TokenId,
        now: SystemTime,
        realm: Option<&StoreSet>,
    ) -> Result<Token, MintError> {
        if grant.subject.is_empty() {
            return Err(MintError::NoSubject);
        }
        if grant.subject.len() > SUBJECT_BYTES_MAX {
            return Err(MintError::SubjectTooLong);
        }
        let seconds =
            |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|since| since.as_secs());
        let end = now.checked_add(grant.lifetime).ok_or(MintError::LifetimeTooLong)?;
        let (aud, stores) = grant.stores.to_claims();
        let claims = Claims {
            sub: grant.subject.clone(),
            aud,
            stores,
            scope: grant.scope,
            exp: seconds(end).map_err(|_| MintError::LifetimeTooLong)?,
            iat: seconds(now).ok(),
            iss: grant.issuer.clone(),
            jti: Some(id.as_str().into()),
            realm: realm.map(|realm| Realm::new(realm, &grant.stores)),
        };
        let (name, secret) = self.signing().ok_or(MintError::Signature)?;
        let mut header = Header::new(Algorithm::HS256);
        header.kid = name.map(|name| name.as_str().to_owned());
        let token = encode(&header, &claims, &secret.signing_key());
        let token = token.map_err(|_| MintError::Signature)?;
        if token.len() > TOKEN_BYTES_MAX { Err(MintError::TooLong) } else { Ok(token.into()) }
    }
}

/// Makes a token with the only secret that there is.
///
/// # Errors
/// If the grant is not one, or the token would not be accepted.
pub fn mint(secret: &Secret, grant: &Grant, now: SystemTime) -> Result<Token, MintError> {
    Keyring::from(secret.clone()).mint(grant, &TokenId::random(), now)
}
