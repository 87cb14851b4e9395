//! TLS towards one endpoint: whom it is taken for, and what is read again when files change.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::TlsConnector;

use super::{ConnectError, wire::Wire};
use crate::{
    proxy::{clock::Clock, stream::Socket},
    routing::{Endpoint, Protocol, Upstream, UpstreamTls},
    tls::{Files, Problem, client_config},
};

/// Files are looked at again at most this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// TLS of one worker towards one endpoint.
#[derive(Debug)]
pub(super) struct TlsClient {
    spec: UpstreamTls,
    protocols: &'static [&'static [u8]],
    name: Option<ServerName<'static>>,
    clock: Clock,
    looked: Cell<Duration>,
    files: RefCell<Files>,
    /// None: the files were of no use when they were last read, and never before.
    config: RefCell<Option<Arc<ClientConfig>>>,
}

impl TlsClient {
    /// None where the upstream is spoken to in the clear.
    pub(super) fn new(spec: &Upstream, endpoint: &Endpoint, clock: Clock) -> Option<Self> {
        let tls = spec.tls.as_ref()?;
        let protocols: &[&[u8]] = match spec.protocol {
            Protocol::Auto => &[b"h2", b"http/1.1"],
            Protocol::Http1 => &[b"http/1.1"],
            Protocol::H2 => &[b"h2"],
        };
        let paths = tls.ca.iter().chain(tls.identity.iter().flat_map(|(cert, key)| [cert, key]));
        let this = Self {
            spec: tls.clone(),
            protocols,
            name: server_name(tls, endpoint),
            clock,
            looked: Cell::new(clock.now()),
            files: RefCell::new(Files::new(paths.cloned().collect())),
            config: RefCell::new(None),
        };
        this.load();
        Some(this)
    }

    /// Makes a TLS session on a socket; its peer is verified. `only_http1`: nothing else is offered.
    pub(super) async fn handshake(
        &self,
        socket: Socket,
        only_http1: bool,
    ) -> Result<Wire, ConnectError> {
        self.look();
        let name = self.name.clone().ok_or(ConnectError::NoServerName)?;
        let config = self.config.borrow().clone().ok_or(ConnectError::TlsFiles)?;
        let connector = TlsConnector::from(config);
        let stream = if only_http1 {
            connector.with_alpn(vec![b"http/1.1".to_vec()]).connect(name, socket).await
        } else {
            connector.connect(name, socket).await
        };
        stream.map(Wire::tls).map_err(ConnectError::Tls)
    }

    /// Reads the files again if they changed.
    fn look(&self) {
        let now = self.clock.now();
        if now.saturating_sub(self.looked.get()) < LOOK_AGAIN {
            return;
        }
        self.looked.set(now);
        let changed = self.files.borrow_mut().changed();
        if changed || self.config.borrow().is_none() {
            self.load();
        }
    }

    /// Keeps what is in force where the files are of no use: they may be half written.
    fn load(&self) {
        match self.read() {
            Ok(config) => {
                self.config.replace(Some(Arc::new(config)));
            }
            Err(error) => tracing::warn!(%error, "files for TLS to an upstream are of no use"),
        }
    }

    fn read(&self) -> Result<ClientConfig, Problem> {
        let mut config = client_config(self.spec.ca.as_deref(), self.spec.identity.as_ref())?;
        config.alpn_protocols = self.protocols.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

/// The name that is asked for and verified: the configured one, else the endpoint's own.
fn server_name(tls: &UpstreamTls, endpoint: &Endpoint) -> Option<ServerName<'static>> {
    match (&tls.server_name, endpoint) {
        (Some(name), _) => ServerName::try_from(name.to_string()).ok(),
        (None, Endpoint::Name(name, _)) => {
            ServerName::try_from(name.trim_end_matches('.').to_owned()).ok()
        }
        (None, Endpoint::Address(addr)) => {
            Some(ServerName::IpAddress(IpAddr::to_canonical(&addr.ip()).into()))
        }
        (None, Endpoint::Unix(_)) => None,
    }
}
