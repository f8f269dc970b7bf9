//! Tokens: who may open which store, and until when.
//!
//! HS256 only. Claims: `sub`; `aud`, one text, the store; `scope`; `exp`; and `iss` if whoever
//! checks has an issuer. Anything else about a token makes it unauthorized, except the wrong store: forbidden.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use crate::limits::{SECRET_CHARS_MIN, TOKEN_BYTES_MAX};
use crate::message::Token;
use crate::store_id::StoreId;

/// What tokens are signed with. It never shows.
#[derive(Clone)]
pub struct Secret(Box<str>);

/// The secret is too short to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret is missing or shorter than {SECRET_CHARS_MIN} characters")]
pub struct WeakSecret;

impl Secret {
    /// A secret of at least [`SECRET_CHARS_MIN`] characters.
    ///
    /// # Errors
    /// If it is shorter.
    pub fn new(text: &str) -> Result<Self, WeakSecret> {
        if text.chars().count() < SECRET_CHARS_MIN {
            Err(WeakSecret)
        } else {
            Ok(Self(text.into()))
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

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

/// What a token is to say.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The store it opens.
    pub store: StoreId,
    /// Whom it is for.
    pub subject: String,
    /// What it allows.
    pub scope: Scope,
    /// How long it holds.
    pub lifetime: Duration,
    /// Who gives it, where the relay asks for that.
    pub issuer: Option<String>,
}

/// Why no token can be made.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// A token is for somebody.
    #[error("the subject is empty")]
    NoSubject,
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

/// What somebody may do with a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Who.
    pub subject: String,
    /// What.
    pub scope: Scope,
    /// Until when.
    pub expires: SystemTime,
}

impl Access {
    /// Whether changes and blobs may be sent.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.scope >= Scope::Write
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    aud: String,
    scope: Scope,
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
}

/// Checks tokens.
pub struct Gate {
    key: DecodingKey,
    validation: Validation,
    issuer: Option<String>,
}

impl Gate {
    /// Accepts what was signed with `secret`, by `issuer` if there is one.
    #[must_use]
    pub fn new(secret: &Secret, issuer: Option<String>) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // The audience, the issuer and the time are checked here: they need the store and `now`.
        validation.validate_aud = false;
        validation.validate_exp = false;
        Self { key: DecodingKey::from_secret(secret.0.as_bytes()), validation, issuer }
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
        if token.reveal().len() > TOKEN_BYTES_MAX {
            return Err(AccessError::Unauthorized);
        }
        let claims = decode::<Claims>(token.reveal(), &self.key, &self.validation)
            .map_err(|_| AccessError::Unauthorized)?
            .claims;
        let is_ours = self.issuer.is_none() || claims.iss == self.issuer;
        let expires = UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp));
        let expires = expires.filter(|expires| *expires > now).ok_or(AccessError::Unauthorized)?;
        if !is_ours || claims.sub.is_empty() {
            return Err(AccessError::Unauthorized);
        }
        if claims.aud != store {
            return Err(AccessError::Forbidden);
        }
        Ok(Access { subject: claims.sub, scope: claims.scope, expires })
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// Makes a token.
///
/// # Errors
/// If the grant is not one, or the token would not be accepted.
pub fn mint(secret: &Secret, grant: &Grant, now: SystemTime) -> Result<Token, MintError> {
    if grant.subject.is_empty() {
        return Err(MintError::NoSubject);
    }
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|since| since.as_secs());
    let end = now.checked_add(grant.lifetime).ok_or(MintError::LifetimeTooLong)?;
    let claims = Claims {
        sub: grant.subject.clone(),
        aud: grant.store.as_str().to_owned(),
        scope: grant.scope,
        exp: seconds(end).map_err(|_| MintError::LifetimeTooLong)?,
        iat: seconds(now).ok(),
        iss: grant.issuer.clone(),
    };
    let key = EncodingKey::from_secret(secret.0.as_bytes());
    let token = encode(&Header::new(Algorithm::HS256), &claims, &key);
    let token = token.map_err(|_| MintError::Signature)?;
    if token.len() > TOKEN_BYTES_MAX { Err(MintError::TooLong) } else { Ok(token.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn secret() -> Secret {
        Secret::new("0123456789abcdef0123456789abcdef").unwrap()
    }

    fn grant() -> Grant {
        Grant {
            store: StoreId::new("s").unwrap(),
            subject: "desk".to_owned(),
            scope: Scope::Write,
            lifetime: DAY,
            issuer: None,
        }
    }

    fn sign(algorithm: Algorithm, claims: &impl Serialize) -> Token {
        let key = EncodingKey::from_secret(secret().0.as_bytes());
        encode(&Header::new(algorithm), claims, &key).unwrap().into()
    }

    #[test]
    fn secrets_have_at_least_32_characters() {
        assert_eq!(Secret::new(&"é".repeat(31)).unwrap_err(), WeakSecret);
        assert!(Secret::new(&"é".repeat(32)).is_ok());
        assert_eq!(Secret::new("").unwrap_err(), WeakSecret);
        assert!(!format!("{:?}", secret()).contains("0123"));
    }

    #[test]
    fn a_minted_token_opens_its_store_until_it_expires() {
        let now = SystemTime::now();
        let token = mint(&secret(), &grant(), now).unwrap();
        let gate = Gate::new(&secret(), None);
        let access = gate.check(&token, "s", now).unwrap();
        assert_eq!((access.subject.as_str(), access.scope), ("desk", Scope::Write));
        assert!(access.may_write());
        assert_eq!(gate.check(&token, "s", now + DAY), Err(AccessError::Unauthorized));
        assert_eq!(gate.check(&token, "t", now), Err(AccessError::Forbidden));
    }

    #[test]
    fn tokens_of_others_are_unauthorized() {
        let now = SystemTime::now();
        let gate = Gate::new(&secret(), None);
        let other = Secret::new(&"x".repeat(32)).unwrap();
        let foreign = mint(&other, &grant(), now).unwrap();
        // {"alg":"none","typ":"JWT"} . {"sub":"desk","aud":"s","scope":"write","exp":99999999999}
        let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJkZXNrIiwiYXVkIjoicyIsInNjb3BlIjoid3JpdGUiLCJleHAiOjk5OTk5OTk5OTk5fQ.";
        for token in ["", "x", "a.b.c", unsigned, foreign.reveal(), &"x".repeat(9_000)] {
            let checked = gate.check(&Token::from(token.to_owned()), "s", now);
            assert_eq!(checked, Err(AccessError::Unauthorized), "{token}");
        }
    }

    #[test]
    fn claims_that_are_missing_or_of_another_kind_are_unauthorized() {
        let now = SystemTime::now();
        let gate = Gate::new(&secret(), None);
        let good = r#"{"sub":"desk","aud":"s","scope":"read","exp":99999999999}"#;
        let rows = [
            (good.to_owned(), true),
            (good.replace(r#""s""#, r#"["s"]"#), false),
            (good.replace(r#""sub":"desk","#, ""), false),
            (good.replace("desk", ""), false),
            (good.replace("read", "superuser"), false),
            (good.replace(r#""scope":"read","#, ""), false),
            (good.replace(r#","exp":99999999999"#, ""), false),
            (good.replace("99999999999", "1"), false),
            (good.replace("99999999999", "-1"), false),
            (good.replace("99999999999", "18446744073709551615"), false),
        ];
        for (claims, is_good) in rows {
            let claims: serde_json::Value = serde_json::from_str(&claims).unwrap();
            let token = sign(Algorithm::HS256, &claims);
            assert_eq!(gate.check(&token, "s", now).is_ok(), is_good, "{claims}");
            let token = sign(Algorithm::HS384, &claims);
            let checked = gate.check(&token, "s", now);
            assert_eq!(checked, Err(AccessError::Unauthorized), "only HS256");
        }
    }

    #[test]
    fn with_an_issuer_only_its_tokens_are_good() {
        let now = SystemTime::now();
        let gate = Gate::new(&secret(), Some("home".to_owned()));
        for (issuer, is_good) in [(None, false), (Some("away"), false), (Some("home"), true)] {
            let grant = Grant { issuer: issuer.map(str::to_owned), ..grant() };
            let token = mint(&secret(), &grant, now).unwrap();
            assert_eq!(gate.check(&token, "s", now).is_ok(), is_good, "{issuer:?}");
        }
    }

    #[test]
    fn what_would_not_be_accepted_is_not_minted() {
        let now = SystemTime::now();
        let mint = |grant: &Grant| mint(&secret(), grant, now).map(drop);
        let nobody = Grant { subject: String::new(), ..grant() };
        assert_eq!(mint(&nobody), Err(MintError::NoSubject));
        let forever = Grant { lifetime: Duration::MAX, ..grant() };
        assert_eq!(mint(&forever), Err(MintError::LifetimeTooLong));
        let long = Grant { subject: "x".repeat(TOKEN_BYTES_MAX), ..grant() };
        assert_eq!(mint(&long), Err(MintError::TooLong));
    }
}
