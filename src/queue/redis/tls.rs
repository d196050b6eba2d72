//! TLS to Redis: whose certificates count, and which one the gateway shows.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, crypto};

/// Who the gateway is, for servers that ask.
#[derive(Debug)]
pub struct Identity {
    /// Its certificate, and those between it and the authority.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
}

/// A client that trusts these authorities alone, or Mozilla's if none are given.
///
/// # Errors
/// A certificate can't be used, or the key doesn't belong to it.
pub fn config(
    authorities: Option<Vec<CertificateDer<'static>>>,
    identity: Option<Identity>,
) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    match authorities {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(authorities) => authorities.into_iter().try_for_each(|authority| roots.add(authority))?,
    }
    // The provider is named here, since the process has no default one.
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(Identity { certificates, key }) => builder.with_client_auth_cert(certificates, key),
    }
}

/// Reads the certificates of a PEM file.
///
/// # Errors
/// Why there are none.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    if certificates.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(certificates) }
}

/// Reads the private key of a PEM file.
///
/// # Errors
/// Why there is none.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| error.to_string())
}
