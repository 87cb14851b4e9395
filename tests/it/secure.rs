//! TLS for the tests: an authority that issues certificates, and clients that trust it.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::harness::{Answer, Call, Connection};

/// Issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Issued {
    /// Writes `NAME.crt` and `NAME.key`.
    pub(crate) fn write(&self, directory: &Path, name: &str) {
        fs::write(directory.join(format!("{name}.crt")), &self.cert).unwrap();
        fs::write(directory.join(format!("{name}.key")), &self.key).unwrap();
    }

    pub(crate) fn leaf(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for names: those with `://` are URIs.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        let (uris, dns): (Vec<&str>, Vec<&str>) =
            names.iter().partition(|name| name.contains("://"));
        let mut params =
            CertificateParams::new(dns.into_iter().map(str::to_owned).collect::<Vec<_>>()).unwrap();
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Issued { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// A client; its connections share what they remember of sessions.
#[derive(Clone)]
pub(crate) struct Client {
    config: ClientConfig,
    name: &'static str,
}

impl Client {
    /// Trusts the authority, asks for `shop.example` and proposes no protocol.
    pub(crate) fn new(authority: &Authority) -> Self {
        Self::with(authority, None, rustls::ALL_VERSIONS)
    }

    /// As [`Client::new`], of one version of TLS.
    pub(crate) fn of_version(
        authority: &Authority,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        Self::with(authority, None, &[version])
    }

    /// As [`Client::new`], with a certificate.
    pub(crate) fn with(
        authority: &Authority,
        shown: Option<&Issued>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        Self::made_of(aws_lc_rs::default_provider(), authority, shown, versions)
    }

    /// As [`Client::new`], knowing these ciphers and liking the first best.
    pub(crate) fn of_ciphers(authority: &Authority, ciphers: &[SupportedCipherSuite]) -> Self {
        let cipher_suites = ciphers.to_vec();
        let provider = CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() };
        let version = ciphers[0].version();
        Self::made_of(provider, authority, None, &[version])
    }

    fn made_of(
        provider: CryptoProvider,
        authority: &Authority,
        shown: Option<&Issued>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some(issued) => builder
                .with_client_auth_cert(
                    vec![issued.leaf()],
                    PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        Self { config, name: "shop.example" }
    }

    pub(crate) fn asking(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    pub(crate) fn proposing(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols =
            protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    /// Shakes hands on a stream.
    pub(crate) async fn over(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        stream.set_nodelay(true).unwrap();
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        connector.connect(ServerName::try_from(self.name).unwrap(), stream).await
    }

    pub(crate) async fn connect(&self, addr: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        self.over(TcpStream::connect(addr).await.unwrap()).await
    }

    /// A connection for requests: HTTP/2 if that was agreed on.
    pub(crate) async fn open(&self, addr: SocketAddr) -> Connection {
        let stream = self.connect(addr).await.unwrap();
        let h2 = protocol(&stream) == Some("h2");
        Connection::over(stream, addr, h2).await.unwrap()
    }

    /// Makes a request on a connection of its own.
    pub(crate) async fn call(&self, addr: SocketAddr, call: Call) -> Answer {
        self.open(addr).await.call(call).await.unwrap()
    }
}

fn session(stream: &TlsStream<TcpStream>) -> &ClientConnection {
    stream.get_ref().1
}

/// What was agreed on.
pub(crate) fn protocol(stream: &TlsStream<TcpStream>) -> Option<&str> {
    session(stream).alpn_protocol().map(|protocol| std::str::from_utf8(protocol).unwrap())
}

/// The certificate that was shown.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    session(stream).peer_certificates().unwrap()[0].clone().into_owned()
}

/// Whether an earlier session was taken up.
pub(crate) fn resumed(stream: &TlsStream<TcpStream>) -> bool {
    session(stream).handshake_kind() == Some(rustls::HandshakeKind::Resumed)
}
