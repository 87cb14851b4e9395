//! Resolving names: the seam between the lookout and whoever knows addresses.

use std::{fmt, io, net::SocketAddr, pin::Pin, sync::Arc};

use tokio::net::lookup_host;

/// Addresses, some time later.
pub type Addresses = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

type Resolve = dyn Fn(Arc<str>, u16) -> Addresses + Send + Sync;

/// Finds the addresses of names.
#[derive(Clone)]
pub struct Resolver(Arc<Resolve>);

impl Resolver {
    /// Resolves as this function does.
    pub fn new(resolve: impl Fn(Arc<str>, u16) -> Addresses + Send + Sync + 'static) -> Self {
        Self(Arc::new(resolve))
    }

    /// The system's, on threads that may block.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|name, port| {
            Box::pin(async move { Ok(lookup_host((&*name, port)).await?.collect()) })
        })
    }

    /// The addresses of a name, with the port.
    pub(super) fn resolve(&self, name: &Arc<str>, port: u16) -> Addresses {
        (self.0)(Arc::clone(name), port)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Resolver")
    }
}
