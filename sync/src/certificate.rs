//! The certificate of who answers: from files, or self-signed and kept, so that its hash can be pinned.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::new_file::write_private;
use crate::transport::CertificateHash;

/// The self-signed certificate and its key in their folder, in one file, so that they go together.
const IDENTITY_FILE: &str = "identity.pem";

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// Made at the first start, and kept in a folder. Clients pin its hash.
    SelfSigned,
    /// From PEM files.
    Files {
        /// The certificate and those that vouch for it.
        chain: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// Why there is no certificate. The operator can help.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} holds no {what}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
    },
    /// The key is not that of the certificate, or of no use here.
    #[error("the certificate and its key do not go together: {0}")]
    Mismatch(rustls::Error),
    /// A certificate cannot be made.
    #[error("a self-signed certificate cannot be made: {0}")]
    Generate(#[from] rcgen::Error),
}

/// A certificate chain with its key.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate and those that vouch for it.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Loads the certificate, or makes a self-signed one and keeps it in `folder`.
    ///
    /// # Errors
    /// If that fails.
    pub fn load(source: &CertificateSource, folder: &Path) -> Result<Self, CertificateError> {
        match source {
            CertificateSource::SelfSigned => Self::self_signed(folder),
            CertificateSource::Files { chain, key } => Self::from_files(chain, key),
        }
    }

    fn certified(&self) -> Result<CertifiedKey, CertificateError> {
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &provider)
            .map_err(CertificateError::Mismatch)
    }

    fn from_files(chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        let not_pem = |path: &Path, what| CertificateError::NotPem { path: path.to_owned(), what };
        let text = read(chain)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let certificates = certificates.ok().filter(|chain| !chain.is_empty());
        let certificates = certificates.ok_or_else(|| not_pem(chain, "certificate"))?;
        let private = PrivateKeyDer::from_pem_slice(&read(key)?);
        let private = private.map_err(|_| not_pem(key, "private key"))?;
        Ok(Self { chain: certificates, key: private })
    }

    fn self_signed(folder: &Path) -> Result<Self, CertificateError> {
        let path = folder.join(IDENTITY_FILE);
        if !path.exists() {
            let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
            // Whoever pins the hash does not look at the dates.
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2120, 1, 1);
            let made = params.self_signed(&pair)?;
            let text = made.pem() + &pair.serialize_pem();
            let written = write_private(&path, text.as_bytes());
            written.map_err(|source| CertificateError::Io { path: path.clone(), source })?;
        }
        // Of several that start at once, the fastest has made it.
        Self::from_files(&path, &path)
    }
}

/// The certificate that is shown at present. Another one can take its place while connections last.
pub struct LiveIdentity {
    source: CertificateSource,
    folder: PathBuf,
    shown: RwLock<Arc<CertifiedKey>>,
    /// What was found at the last look, good or bad.
    looked_at: Mutex<Result<Identity, Complaint>>,
}

/// What was wrong, in words: errors of the operating system cannot be compared.
type Complaint = String;

impl LiveIdentity {
    /// Loads the certificate, or makes a self-signed one and keeps it in `folder`.
    ///
    /// # Errors
    /// If that fails, or the key is not that of the certificate.
    pub fn load(source: &CertificateSource, folder: &Path) -> Result<Self, CertificateError> {
        let identity = Identity::load(source, folder)?;
        let shown = RwLock::new(Arc::new(identity.certified()?));
        let (source, folder) = (source.clone(), folder.to_owned());
        Ok(Self { source, folder, shown, looked_at: Mutex::new(Ok(identity)) })
    }

    /// Looks whether [`load`](Self::load) would find what can be used. Makes no certificate.
    ///
    /// # Errors
    /// If that fails, or the key is not that of the certificate.
    pub fn check(source: &CertificateSource, folder: &Path) -> Result<(), CertificateError> {
        if *source == CertificateSource::SelfSigned && !folder.join(IDENTITY_FILE).exists() {
            return Ok(());
        }
        Identity::load(source, folder)?.certified().map(drop)
    }

    /// Looks whether there is another certificate by now; says whether it is shown from now on. If it is
    /// no good, the former one stays; that is told once. Reads two small files.
    ///
    /// # Errors
    /// If what is there by now cannot be used.
    pub fn refresh(&self) -> Result<bool, CertificateError> {
        // Whoever has shown a certificate makes no other: those who pin it would be locked out.
        let found = match &self.source {
            CertificateSource::SelfSigned => {
                let path = self.folder.join(IDENTITY_FILE);
                Identity::from_files(&path, &path)
            }
            CertificateSource::Files { chain, key } => Identity::from_files(chain, key),
        };
        let mut looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let certified = found.and_then(|identity| {
            let is_new = looked_at.as_ref().is_ok_and(|known| *known != identity);
            Ok((identity.certified()?, identity, is_new))
        });
        match certified {
            Ok((certified, identity, is_new)) => {
                let was_bad = looked_at.is_err();
                *looked_at = Ok(identity);
                if is_new || was_bad {
                    let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
                    let is_other = shown.cert != certified.cert;
                    *shown = Arc::new(certified);
                    return Ok(is_other);
                }
                Ok(false)
            }
            Err(error) => {
                let complaint = error.to_string();
                let is_known = looked_at.as_ref().is_err_and(|known| *known == complaint);
                *looked_at = Err(complaint);
                if is_known { Ok(false) } else { Err(error) }
            }
        }
    }

    /// The hash of the certificate, for clients to pin.
    #[must_use]
    pub fn hash(&self) -> CertificateHash {
        CertificateHash::of(self.shown().cert.first().map_or(&[], |first| first))
    }

    fn shown(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for LiveIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown())
    }
}

impl fmt::Debug for LiveIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveIdentity").field("source", &self.source).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|source| CertificateError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_self_signed_certificate_stays_the_same_and_its_key_private() {
        let folder = TempDir::new().unwrap();
        let first = Identity::load(&CertificateSource::SelfSigned, folder.path()).unwrap();
        let second = Identity::load(&CertificateSource::SelfSigned, folder.path()).unwrap();
        assert_eq!(first.chain, second.chain);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let key = fs::metadata(folder.path().join(IDENTITY_FILE)).unwrap();
            assert_eq!(key.permissions().mode() & 0o777, 0o600);
        }
    }

    /// As several processes may that share a folder.
    #[test]
    fn all_who_start_at_once_have_the_same_certificate() {
        for _ in 0..20 {
            let folder = TempDir::new().unwrap();
            let load = || Identity::load(&CertificateSource::SelfSigned, folder.path()).unwrap();
            let identities = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
                threads.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
            });
            for one in &identities {
                assert_eq!((&one.chain, &one.key), (&identities[0].chain, &identities[0].key));
            }
        }
    }

    #[test]
    fn what_is_shown_stays_while_its_file_is_gone() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(IDENTITY_FILE);
        let live = LiveIdentity::load(&CertificateSource::SelfSigned, folder.path()).unwrap();
        let hash = live.hash();
        fs::rename(&path, folder.path().join("elsewhere.pem")).unwrap();
        assert!(matches!(live.refresh(), Err(CertificateError::Io { .. })), "it is told");
        assert!(matches!(live.refresh(), Ok(false)), "once");
        assert!(!path.exists());
        assert_eq!(live.hash(), hash);
        fs::rename(folder.path().join("elsewhere.pem"), &path).unwrap();
        assert!(matches!(live.refresh(), Ok(false)), "it is the same");
        assert_eq!(live.hash(), hash);
    }

    #[test]
    fn files_without_a_certificate_are_typed_errors() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("chain.pem");
        let source = CertificateSource::Files { chain: path.clone(), key: path.clone() };
        let missing = Identity::load(&source, folder.path()).map(drop).unwrap_err();
        assert!(matches!(missing, CertificateError::Io { .. }));
        fs::write(&path, "no pem").unwrap();
        let not_pem = Identity::load(&source, folder.path()).map(drop).unwrap_err();
        assert!(matches!(not_pem, CertificateError::NotPem { .. }));
    }
}
