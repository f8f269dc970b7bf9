//! What tokens are signed with: one secret, or several by name while one takes the place of another.

use std::fmt;

use jsonwebtoken::{DecodingKey, EncodingKey};

use crate::limits::{KEY_ID_BYTES_MAX, KEYS_MAX, SECRET_CHARS_MIN};

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

    pub(super) fn signing_key(&self) -> EncodingKey {
        EncodingKey::from_secret(self.0.as_bytes())
    }

    pub(super) fn checking_key(&self) -> DecodingKey {
        DecodingKey::from_secret(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The name of a secret: `kid` in the header of a token.
///
/// Invariant: 1 to [`KEY_ID_BYTES_MAX`] bytes of visible ASCII.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Box<str>);

/// The text cannot name a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key id: expected 1 to {KEY_ID_BYTES_MAX} visible ASCII characters")]
pub struct InvalidKeyId;

impl KeyId {
    /// The name of a secret.
    ///
    /// # Errors
    /// If the text is none.
    pub fn new(text: &str) -> Result<Self, InvalidKeyId> {
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > KEY_ID_BYTES_MAX || !is_visible {
            return Err(InvalidKeyId);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The secrets that tokens are checked with, and which of them signs.
///
/// Invariant: 1 to [`KEYS_MAX`] secrets, no two of one name; so at most one has none.
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: Vec<(Option<KeyId>, Secret)>,
}

/// The secret cannot be added to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// There is one of this name.
    #[error("two secrets have the same key id")]
    SameName,
    /// There are enough.
    #[error("more than {KEYS_MAX} secrets")]
    TooMany,
}

impl Keyring {
    /// One secret. It signs; with a name, tokens have to name it.
    #[must_use]
    pub fn new(name: Option<KeyId>, secret: Secret) -> Self {
        Self { keys: vec![(name, secret)] }
    }

    /// Adds a secret that tokens may be signed with too: the one that a rotation replaces, or the next
    /// one before it signs. The one without a name is for tokens that name none.
    ///
    /// # Errors
    /// If there is one of this name, or there are too many.
    pub fn add(&mut self, name: Option<KeyId>, secret: Secret) -> Result<(), KeyringError> {
        if self.keys.iter().any(|(known, _)| *known == name) {
            return Err(KeyringError::SameName);
        }
        if self.keys.len() >= KEYS_MAX {
            return Err(KeyringError::TooMany);
        }
        self.keys.push((name, secret));
        Ok(())
    }

    /// The one that signs: the first.
    pub(super) fn signing(&self) -> Option<(Option<&KeyId>, &Secret)> {
        self.keys.first().map(|(name, secret)| (name.as_ref(), secret))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Option<KeyId>, Secret)> {
        self.keys.iter()
    }
}

impl From<Secret> for Keyring {
    fn from(secret: Secret) -> Self {
        Self::new(None, secret)
    }
}
