//! Clients that are not ours: they present what they like and believe everybody.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};

/// What a client shows of itself.
pub(crate) enum Presented {
    /// No certificate.
    Nothing,
    /// A chain, leaf first, and its key.
    Certificate(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
}

impl Presented {
    pub(crate) fn files(certificate: &Path, key: &Path) -> Result<Presented> {
        let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
        Ok(Presented::Certificate(
            chain,
            PrivateKeyDer::from_pem_file(key)?,
        ))
    }

    fn config(&self) -> Result<Arc<ClientConfig>> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(BelievesEverybody));
        let mut config = match self {
            Presented::Nothing => builder.with_no_client_auth(),
            Presented::Certificate(chain, key) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key())?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Whether the server ends the connection once it has seen what the client shows. (In TLS 1.3 the client's own part of the
/// handshake succeeds first.)
pub(crate) fn handshake_fails(address: SocketAddr, presented: &Presented) -> Result<bool> {
    let config = presented.config()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let Ok(mut stream) = connect(address, config).await else {
                return Ok(true);
            };
            // An HTTP/2 server that lets us in sends its settings; one that does not sends an alert or nothing.
            let mut first = [0; 1];
            Ok(!matches!(stream.read(&mut first).await, Ok(1)))
        })
}

/// A gRPC channel to a listening end.
pub(crate) async fn channel(address: SocketAddr, presented: &Presented) -> Result<Channel> {
    let connector = Connector {
        address,
        config: presented.config()?,
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    endpoint
        .connect_with_connector(connector)
        .await
        .context("connect")
}

async fn connect(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(config)
        .connect(ServerName::from(address.ip()), tcp)
        .await
}

struct Connector {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (address, config) = (self.address, Arc::clone(&self.config));
        Box::pin(async move { Ok(TokioIo::new(connect(address, config).await?)) })
    }
}

#[derive(Debug)]
struct BelievesEverybody;

impl ServerCertVerifier for BelievesEverybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
