//! Why no connection to an upstream could be had, and who is to blame for that.

use std::{io, rc::Rc};

use rustix::io::Errno;

/// Why no connection could be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum ConnectError {
    #[error("connecting to the upstream failed: {0}")]
    Io(#[from] io::Error),
    #[error("the upstream did not accept the connection in time")]
    Timeout,
    #[error("the name of the upstream has no address")]
    NoAddress,
    #[error("the handshake with the upstream failed: {0}")]
    Handshake(#[from] hyper::Error),
    #[error("the handshake with the upstream failed: {0}")]
    Http2(::h2::Error),
    #[error("the upstream does not speak HTTP/2")]
    NotHttp2,
    #[error("the upstream speaks HTTP/2 alone, in which no other protocol can be switched to")]
    NotHttp1,
    #[error("the upstream did not agree on HTTP/2")]
    NotAgreed,
    #[error("the TLS handshake with the upstream failed: {0}")]
    Tls(io::Error),
    #[error("the files for TLS to the upstream are of no use")]
    TlsFiles,
    #[error("there is no name to verify the upstream by")]
    NoServerName,
    #[error("{0}")]
    Joined(Rc<ConnectError>),
    #[error("too many requests wait for a connection to this upstream")]
    Overloaded,
    #[error("the upstream has no endpoints")]
    NoEndpoint,
    #[error("the endpoint has gone away")]
    Retired,
}

impl ConnectError {
    /// Whether the proxy itself lacks descriptors, ports or memory.
    pub(in crate::proxy) fn is_own(&self) -> bool {
        let Self::Io(error) = self.cause() else { return false };
        [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    }

    /// Whether it says that the endpoint cannot be reached.
    pub(super) fn is_the_endpoints(&self) -> bool {
        match self.cause() {
            Self::Io(_) => !self.is_own(),
            Self::Timeout
            | Self::Handshake(_)
            | Self::Http2(_)
            | Self::NotHttp2
            | Self::NotAgreed
            | Self::Tls(_) => true,
            Self::NoAddress
            | Self::NotHttp1
            | Self::TlsFiles
            | Self::NoServerName
            | Self::Joined(_)
            | Self::Overloaded
            | Self::NoEndpoint
            | Self::Retired => false,
        }
    }

    /// The error that others wait for, too.
    fn cause(&self) -> &Self {
        if let Self::Joined(joined) = self { joined } else { self }
    }
}
