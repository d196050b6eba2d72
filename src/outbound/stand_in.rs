//! A stand-in for a sender's host: an HTTPS server on loopback with a certificate made for the test, which only the
//! test's client trusts. The integration tests include this file, too.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};
use tokio_util::task::AbortOnDropHandle;

use super::{Client, Reach, Trust};

/// What the stand-in was asked, and answers.
type Handler = dyn Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync;

pub(crate) struct StandIn {
    pub address: SocketAddr,
    certificate: CertificateDer<'static>,
    /// What it was asked so far, for those who wait for more.
    pub asked: watch::Receiver<Vec<String>>,
    _serving: AbortOnDropHandle<()>,
}

impl StandIn {
    /// Serves for these names until it is dropped.
    pub async fn start(
        names: &[&str],
        handler: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> StandIn {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asking, asked) = watch::channel(Vec::new());
        let serving = serve(listener, TlsAcceptor::from(Arc::new(config)), asking, Arc::new(handler));
        let serving = AbortOnDropHandle::new(tokio::spawn(serving));
        StandIn { address, certificate, asked, _serving: serving }
    }

    /// A client that takes every name to the stand-in and trusts its certificate alone.
    pub fn client(&self) -> Client {
        Client::new(self.trust(), Reach::StandIn(self.address)).unwrap()
    }

    pub fn trust(&self) -> Trust {
        Trust::Only(vec![self.certificate.clone()])
    }

    /// Its certificate, for a client that reads files.
    pub fn certificate_pem(&self) -> String {
        use base64::Engine;
        let encoded = base64::engine::general_purpose::STANDARD.encode(&self.certificate);
        format!("-----BEGIN CERTIFICATE-----\n{encoded}\n-----END CERTIFICATE-----\n")
    }

    /// What it was asked so far: host and path.
    pub fn asked(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    asking: watch::Sender<Vec<String>>,
    handler: Arc<Handler>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, asking, handler) = (acceptor.clone(), asking.clone(), Arc::clone(&handler));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(|request: Request<Incoming>| {
                let host = request.headers()[HOST].to_str().unwrap();
                asking.send_modify(|asked| asked.push(format!("{host}{}", request.uri())));
                let response = handler(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
