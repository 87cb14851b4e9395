//! A connection to an upstream: how it is made, lent to a request and given back.

use std::{rc::Rc, time::Duration};

use hyper::{Request, Response};
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{
    ConnectError, Site,
    answer::AnswerBody,
    endpoint::{EndpointPool, Place},
    h1::{self, Switching},
    h2,
    tls::TlsClient,
    wire::Wire,
};
use crate::{
    proxy::{body::RequestBody, stream::Socket},
    routing::{Endpoint, Protocol, Upstream},
};

/// A connection that has just been opened.
#[derive(Debug)]
pub(super) enum Opened {
    /// For one request at a time.
    Http1(h1::Connection),
    /// For many.
    Http2(Rc<h2::Connection>),
}

impl Opened {
    /// Opens a connection; `place` is kept for as long as it is open.
    pub(super) async fn open(
        spec: &Upstream,
        site: &Site,
        tls: Option<&TlsClient>,
        place: Place,
    ) -> Result<Self, ConnectError> {
        let opening = async {
            let wire = wire(site, tls, false).await?;
            match agreed(spec.protocol, &wire)? {
                Version::Http1 => Ok(Self::Http1(h1::Connection::open(wire, place).await?)),
                Version::Http2 => {
                    Ok(Self::Http2(h2::Connection::open(wire, place, &spec.h2).await?))
                }
            }
        };
        timeout(spec.connect_timeout, opening).await.map_err(|_| ConnectError::Timeout)?
    }

    /// Opens a connection for one request at a time, whatever else the upstream would speak.
    pub(super) async fn open_http1(
        spec: &Upstream,
        site: &Site,
        tls: Option<&TlsClient>,
        place: Place,
    ) -> Result<h1::Connection, ConnectError> {
        if spec.protocol == Protocol::H2 {
            return Err(ConnectError::NotHttp1);
        }
        let opening = async {
            let wire = wire(site, tls, true).await?;
            Ok(h1::Connection::open(wire, place).await?)
        };
        timeout(spec.connect_timeout, opening).await.map_err(|_| ConnectError::Timeout)?
    }
}

enum Version {
    Http1,
    Http2,
}

/// The version that is spoken: what was agreed on over TLS, else what the configuration says.
fn agreed(protocol: Protocol, wire: &Wire) -> Result<Version, ConnectError> {
    match (protocol, wire.agreed()) {
        (Protocol::Auto, Some(b"h2")) => Ok(Version::Http2),
        (Protocol::H2, Some(other)) if other != b"h2" => Err(ConnectError::NotAgreed),
        // Without an agreement the two sides know beforehand.
        (Protocol::H2, _) => Ok(Version::Http2),
        (Protocol::Auto | Protocol::Http1, _) => Ok(Version::Http1),
    }
}

/// A connection, or a stream of one, lent to one request. Dropping it closes what was lent.
#[derive(Debug)]
pub(in crate::proxy) struct Lease {
    lent: Lent,
    /// Whether the upstream may have closed the connection while it was idle.
    pub(in crate::proxy) may_be_stale: bool,
    /// How long the request waited for it, if at all.
    pub(in crate::proxy) waited: Option<Duration>,
}

#[derive(Debug)]
enum Lent {
    Connection { connection: h1::Connection, pool: Rc<EndpointPool> },
    Stream(h2::Stream),
}

/// Why a request got no answer.
#[derive(Debug)]
pub(in crate::proxy) enum SendError {
    /// The upstream took nothing of it; here it is back.
    Unsent(Box<Request<RequestBody>>),
    /// It was sent, but the upstream did not take it; it is not whole any more.
    NeverTaken,
    /// The upstream may have taken it.
    Failed(BrokenOff),
}

/// How an exchange with an upstream ended too early.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum BrokenOff {
    /// On HTTP/1.
    #[error(transparent)]
    Http1(hyper::Error),
    /// On HTTP/2.
    #[error(transparent)]
    Http2(::h2::Error),
}

impl Lease {
    /// `may_be_stale`: whether the upstream may have closed the connection while it was idle.
    pub(super) fn connection(
        connection: h1::Connection,
        pool: Rc<EndpointPool>,
        may_be_stale: bool,
        waited: Option<Duration>,
    ) -> Self {
        Self { lent: Lent::Connection { connection, pool }, may_be_stale, waited }
    }

    /// A stream is never stale: its connection says what it took.
    pub(super) fn stream(stream: h2::Stream, waited: Option<Duration>) -> Self {
        Self { lent: Lent::Stream(stream), may_be_stale: false, waited }
    }

    /// Sends a request and waits for the head of its answer.
    pub(in crate::proxy) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<AnswerBody>, SendError> {
        match &mut self.lent {
            Lent::Connection { connection, .. } => {
                let answer = connection.send(request, self.may_be_stale).await?;
                Ok(answer.map(AnswerBody::Http1))
            }
            Lent::Stream(stream) => {
                // It is large, and more requests go by HTTP/1.
                let answer = Box::pin(stream.send(request)).await?;
                Ok(answer.map(|body| AnswerBody::Http2(Box::new(body))))
            }
        }
    }

    /// The upstream has agreed to another protocol: what is left is no pool's any more. `None` for
    /// a stream of HTTP/2, which cannot.
    pub(in crate::proxy) fn into_switching(self) -> Option<Switching> {
        match self.lent {
            Lent::Connection { connection, .. } => Some(connection.into_switching()),
            Lent::Stream(_) => None,
        }
    }

    /// Gives the connection back, ready for the next request.
    pub(in crate::proxy) fn give_back(self) {
        match self.lent {
            Lent::Connection { connection, pool } => {
                connection.rest();
                pool.put_back(connection);
            }
            Lent::Stream(stream) => drop(stream),
        }
    }
}

async fn wire(
    site: &Site,
    tls: Option<&TlsClient>,
    only_http1: bool,
) -> Result<Wire, ConnectError> {
    let socket = dial(site).await?;
    match tls {
        None => Ok(Wire::plain(socket)),
        Some(tls) => tls.handshake(socket, only_http1).await,
    }
}

async fn dial(site: &Site) -> Result<Socket, ConnectError> {
    match (&site.endpoint, site.address) {
        (Endpoint::Address(addr), _) => tcp(TcpStream::connect(addr).await?),
        (Endpoint::Name(..), Some(addr)) => tcp(TcpStream::connect(addr).await?),
        (Endpoint::Name(..), None) => Err(ConnectError::NoAddress),
        (Endpoint::Unix(path), _) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
    }
}

fn tcp(stream: TcpStream) -> Result<Socket, ConnectError> {
    stream.set_nodelay(true)?;
    Ok(Socket::Tcp(stream))
}
