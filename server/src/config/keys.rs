//! What tokens are signed and checked with: secrets from files, or one from the environment.

use std::fmt;
use std::path::PathBuf;

use sds_sync::access::{KeyId, Keyring, Secret};
use serde::{Deserialize, Serialize};

use super::{ConfigError, SECRET_VARIABLE, Settings, read};

/// A secret in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// Its name in tokens. One without is for tokens that name none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kid: Option<String>,
    /// A file with the secret; a line end behind it is not part of it.
    pub secret_file: PathBuf,
}

/// A secret that came from the environment, good or not. It never shows.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvironmentSecret(pub(super) String);

impl fmt::Debug for EnvironmentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnvironmentSecret(..)")
    }
}

impl Settings {
    /// What tokens are signed and checked with. Reads the secrets.
    ///
    /// # Errors
    /// If there is none, one is too short, or they do not go together.
    pub fn keyring(&self) -> Result<Keyring, ConfigError> {
        if let Some(EnvironmentSecret(text)) = &self.secret {
            let from = SECRET_VARIABLE.to_owned();
            let secret = Secret::new(text).map_err(|source| ConfigError::Secret { from, source });
            return Ok(secret?.into());
        }
        let mut keys = Vec::new();
        for KeySettings { kid, secret_file } in &self.keys {
            let named = |kid: &String| {
                KeyId::new(kid).map_err(|invalid| ConfigError::KeyId(kid.clone(), invalid))
            };
            let kid = kid.as_ref().map(named).transpose()?;
            let text = read(secret_file)?;
            let secret = Secret::new(text.trim_end_matches(['\r', '\n'])).map_err(|source| {
                ConfigError::Secret { from: secret_file.display().to_string(), source }
            })?;
            keys.push((kid, secret));
        }
        if let Some(signing) = &self.signing_key {
            let is_signing = |(kid, _): &(Option<KeyId>, Secret)| {
                kid.as_ref().is_some_and(|kid| kid.as_str() == signing)
            };
            let index = keys.iter().position(is_signing);
            let index = index.ok_or_else(|| ConfigError::NoSuchKey(signing.clone()))?;
            keys[..=index].rotate_right(1);
        }
        let mut keys = keys.into_iter();
        let (kid, secret) = keys.next().ok_or(ConfigError::NoSecret)?;
        let mut keyring = Keyring::new(kid, secret);
        keys.try_for_each(|(kid, secret)| keyring.add(kid, secret))?;
        Ok(keyring)
    }
}
