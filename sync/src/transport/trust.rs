//! Whom a client believes, in the terms of TLS.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, RootCertStore,
    SignatureScheme,
};

use super::{ALPN, CertificateHash, TransportError, Trust};

/// The TLS side of a connection to a relay that `trust` accepts. Reads files; it may block.
pub(super) fn client_config(trust: &Trust) -> Result<ClientConfig, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TransportError::Tls(Arc::new(error)))?;
    let mut config = match trust {
        Trust::SystemRoots => builder.with_root_certificates(system_roots()?),
        Trust::CaFile(path) => builder.with_root_certificates(roots_of(path)?),
        Trust::PinnedSha256(hash) => {
            let verifier = PinnedCertificate { hash: *hash, provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    }
    .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn system_roots() -> Result<RootCertStore, TransportError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TransportError::NoSystemRoots) } else { Ok(roots) }
}

fn roots_of(path: &Path) -> Result<RootCertStore, TransportError> {
    let failed = |reason| TransportError::CaFile { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|_| failed("it cannot be read"))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|_| failed("it is not PEM"))?;
        roots.add(certificate).map_err(|_| failed("a certificate in it is malformed"))?;
    }
    if roots.is_empty() { Err(failed("it holds no certificate")) } else { Ok(roots) }
}

/// Accepts one certificate, from whoever proves to have its key.
#[derive(Debug)]
struct PinnedCertificate {
    hash: CertificateHash,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if CertificateHash::of(end_entity) == self.hash {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    /// The hash alone proves nothing, for anybody may send the certificate along.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn refusal_of(content: &[u8]) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        client_config(&Trust::CaFile(file.path().to_owned())).unwrap_err().to_string()
    }

    #[test]
    fn a_useless_ca_file_is_a_typed_error() {
        let missing = client_config(&Trust::CaFile("/nowhere/ca.pem".into())).unwrap_err();
        assert_eq!(missing.code(), "ca-file");
        assert!(refusal_of(b"no pem at all").contains("no certificate"));
        let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(refusal_of(garbage).contains("malformed"));
    }
}
