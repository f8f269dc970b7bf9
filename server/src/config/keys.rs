//! What tokens are signed and checked with: secrets from files, or one from the environment, and
//! never from both.

use std::fmt;
use std::path::PathBuf;

use sds_sync::access::{KeyId, Keyring, Secret};
use serde::{Deserialize, Serialize};

use super::{ConfigError, SECRET_VARIABLE, Settings, read};

/// What says where the file with the one secret is.
const SECRET_FILE_PLACE: &str = "SDS_JWT_SECRET_FILE (or --secret-file)";

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
    /// If there is none, they are from more than one place, one is too short, or they do not go
    /// together.
    pub fn keyring(&self) -> Result<Keyring, ConfigError> {
        self.check_places()?;
        let mut keys = Vec::new();
        if let Some(EnvironmentSecret(text)) = &self.secret {
            keys.push((None, secret(text, || SECRET_VARIABLE.to_owned())?));
        }
        for KeySettings { kid, secret_file } in &self.secret_files() {
            let named = |kid: &String| {
                KeyId::new(kid).map_err(|invalid| ConfigError::KeyId(kid.clone(), invalid))
            };
            let kid = kid.as_ref().map(named).transpose()?;
            let text = read(secret_file)?;
            let text = text.trim_end_matches(['\r', '\n']);
            keys.push((kid, secret(text, || secret_file.display().to_string())?));
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

    /// Secrets that are replaced in one place would go on signing and checking from another.
    fn check_places(&self) -> Result<(), ConfigError> {
        let places = [
            self.secret.as_ref().map(|_| SECRET_VARIABLE),
            self.secret_file.as_ref().map(|_| SECRET_FILE_PLACE),
            self.keys.first().map(|_| "[[keys]] of the configuration"),
        ];
        let mut places = places.into_iter().flatten();
        match (places.next(), places.next()) {
            (Some(one), Some(other)) => Err(ConfigError::TwoPlaces(one, other)),
            _ => Ok(()),
        }
    }

    /// The files with secrets, wherever they are named.
    pub(super) fn secret_files(&self) -> Vec<KeySettings> {
        let single = self.secret_file.iter().cloned();
        let single = single.map(|secret_file| KeySettings { kid: None, secret_file });
        single.chain(self.keys.iter().cloned()).collect()
    }
}

fn secret(text: &str, from: impl FnOnce() -> String) -> Result<Secret, ConfigError> {
    Secret::new(text).map_err(|source| ConfigError::Secret { from: from(), source })
}
