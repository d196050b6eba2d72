//! Certificates made for a test.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::redis_server::words;

/// A private authority, and what it signed.
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    pub fn new() -> Certificates {
        let folder = TempDir::new().unwrap();
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        std::fs::write(folder.path().join("ca.pem"), ca_pem).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        for (name, host) in [("server", "127.0.0.1"), ("elsewhere", "127.0.0.9"), ("client", "gateway")] {
            let key = KeyPair::generate().unwrap();
            let certificate =
                CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
            std::fs::write(folder.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Certificates { folder }
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The settings of a server that shows a certificate and asks for one.
    pub fn server_settings(&self, name: &str, tls_port: u16) -> Vec<String> {
        words(&format!(
            "--tls-port {tls_port} --tls-cert-file {} --tls-key-file {} --tls-ca-cert-file {}",
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}.key")),
            self.path("ca.pem"),
        ))
    }
}
