//! How a listener speaks TLS to its clients: versions, ciphers, the choice of a certificate, and
//! what is remembered of a session.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use rustls::{
    CipherSuite, ServerConfig, SupportedCipherSuite,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, cipher_suite as suites},
    },
    server::{
        ClientHello, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache,
        StoresServerSessions,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{clients::Clients, identity::Identity, pem::Problem};

/// Sessions of clients that know no tickets; the oldest are forgotten.
const SESSIONS: usize = 4096;

/// What a listener speaks inside TLS, in the order of preference.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

/// A listener's TLS. Cheap to clone; one is shared by all workers.
#[derive(Clone, Debug)]
pub struct Server {
    /// Our order of ciphers.
    config: Arc<ServerConfig>,
    /// For clients that have no hardware for AES, by their order.
    soft: Arc<ServerConfig>,
    clients: Option<Clients>,
    memory: Memory,
}

/// What lets a client take up an earlier session.
#[derive(Clone, Debug)]
struct Memory {
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

/// The ciphers, each authenticated and behind an ephemeral key exchange, in the order of Mozilla's
/// "intermediate" configuration: the cheapest of those that nobody can break comes first.
const CIPHERS: [SupportedCipherSuite; 9] = [
    suites::TLS13_AES_128_GCM_SHA256,
    suites::TLS13_AES_256_GCM_SHA384,
    suites::TLS13_CHACHA20_POLY1305_SHA256,
    suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// The cryptography of aws-lc.
pub(super) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let cipher_suites = CIPHERS.to_vec();
        Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
    });
    &PROVIDER
}

impl Server {
    /// Shows the certificate that fits the name a client asks for, or the first; asks clients for
    /// one where `clients` says so. Sessions of `before` can be taken up again if the clients' rules
    /// are still the same: what was verified once is not verified again.
    ///
    /// # Errors
    ///
    /// If the clients' issuers are of no use, or the system gives no randomness.
    pub fn new(
        identities: &[Identity],
        clients: Option<&Clients>,
        before: Option<&Self>,
    ) -> Result<Self, Problem> {
        let memory = match before.filter(|before| before.clients.as_ref() == clients) {
            Some(before) => before.memory.clone(),
            None => Memory {
                tickets: aws_lc_rs::Ticketer::new().map_err(Problem::Setup)?,
                sessions: ServerSessionMemoryCache::new(SESSIONS),
            },
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(Problem::Setup)?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients.verifier()?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Shown::new(identities)));
        config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
        config.ticketer = Arc::clone(&memory.tickets);
        config.session_storage = Arc::clone(&memory.sessions);
        let soft = Arc::new(config.clone());
        config.ignore_client_order = true;
        Ok(Self { config: Arc::new(config), soft, clients: clients.cloned(), memory })
    }

    /// What a handshake goes on with, by what the client has said. A client that would like
    /// ChaCha20 best has no hardware for AES.
    #[must_use]
    pub fn answer(&self, hello: &ClientHello<'_>) -> &Arc<ServerConfig> {
        let known = |suite: &&CipherSuite| CIPHERS.iter().any(|ours| ours.suite() == **suite);
        match hello.cipher_suites().iter().find(known) {
            Some(
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            ) => &self.soft,
            Some(_) | None => &self.config,
        }
    }
}

/// The certificates to choose from.
#[derive(Debug)]
struct Shown {
    all: Vec<Arc<CertifiedKey>>,
    /// By their names; `*.example.com` stands under `example.com` in the second.
    exact: HashMap<String, Vec<usize>>,
    wildcard: HashMap<String, Vec<usize>>,
}

impl Shown {
    fn new(identities: &[Identity]) -> Self {
        let mut shown = Self {
            all: identities.iter().map(|it| Arc::clone(it.certified())).collect(),
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        };
        for (index, identity) in identities.iter().enumerate() {
            for name in identity.names() {
                let list = match name.strip_prefix("*.") {
                    Some(parent) => shown.wildcard.entry(parent.to_owned()),
                    None => shown.exact.entry(name),
                };
                list.or_default().push(index);
            }
        }
        shown
    }

    /// Those for a name, exact ones before wildcards.
    fn of(&self, name: &str) -> impl Iterator<Item = usize> {
        let name = name.to_ascii_lowercase();
        let exact = self.exact.get(&name);
        let wildcard = name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        exact.into_iter().chain(wildcard).flatten().copied()
    }
}

impl ResolvesServerCert for Shown {
    /// Of the certificates for the name, or else of all, the first whose key can sign in a way that
    /// the client understands: so one of each kind of key may be given for the same name.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let signs =
            |index: &usize| self.all[*index].key.choose_scheme(hello.signature_schemes()).is_some();
        let of_name = || hello.server_name().into_iter().flat_map(|name| self.of(name));
        let index = of_name()
            .find(signs)
            .or_else(|| of_name().next())
            .or_else(|| (0..self.all.len()).find(signs))
            .unwrap_or(0);
        self.all.get(index).map(Arc::clone)
    }
}
