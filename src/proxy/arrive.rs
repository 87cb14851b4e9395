//! What a client says before its first request: the PROXY protocol's header, the TLS handshake, and
//! which version of HTTP it speaks. All of it under the time that a header may take.
//!
//! HTTP/1 and HTTP/2 share a port: inside TLS they are agreed on in the handshake, else the first
//! bytes tell them apart (prior knowledge).

use std::{future::poll_fn, io, net::IpAddr, pin::pin, sync::Arc, task::Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use rustls::{pki_types::CertificateDer, server::Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

use super::{
    close::linger,
    connection::{ConnectionState, Signal},
    headers,
    listen::Listener,
    proxy_protocol,
    settings::ListenerSettings,
    stream::Socket,
    worker::Worker,
};
use crate::{
    measure::ShedReason,
    tls::{self, caller},
};

/// How a client opens HTTP/2 by prior knowledge (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Read at once from a new connection: most heads fit.
const FIRST_READ: usize = 2048;

/// A connection on which a request may come.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) socket: Socket,
    /// What was read of the first request already.
    pub(super) first: Bytes,
    pub(super) h2: bool,
    /// The client: the socket's peer, or whom that speaks for.
    pub(super) peer: IpAddr,
    /// What the client is called by its certificate, where the upstream is told.
    pub(super) identity: Option<HeaderValue>,
}

/// Meets a new client; none if it goes, takes too long, or is refused.
pub(super) async fn arrive(
    worker: &Worker,
    listener: &Listener,
    mut socket: Socket,
    mut peer: IpAddr,
    state: &ConnectionState,
) -> Option<Arrived> {
    let settings = &listener.settings;
    if settings.proxy_protocol {
        peer = introduced(worker, settings, &mut socket, peer, state).await?;
    }
    let Some(tls) = &listener.tls else {
        let (first, h2) = sniff(worker, &mut socket, state).await?;
        return Some(Arrived { socket, first, h2, peer, identity: None });
    };
    let mut stream = shake_hands(worker, tls, socket, state).await?;
    state.head_begins();
    let session = stream.get_ref().1;
    let agreed = session.alpn_protocol().map(|protocol| protocol == b"h2");
    let identity = identity(settings, session.peer_certificates());
    let (first, h2) = match agreed {
        Some(h2) => (Bytes::new(), h2),
        None => sniff(worker, &mut stream, state).await?,
    };
    Some(Arrived { socket: Socket::Tls(Box::new(stream)), first, h2, peer, identity })
}

/// Waits for `future`, unless the watch tells the connection to end.
async fn unless_told<F: Future>(state: &ConnectionState, future: F) -> Result<F::Output, Signal> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => state.poll_signal(cx).map(Err),
    })
    .await
}

/// Counts a connection that took too long; one that ends with the process is nobody's fault.
fn too_late(worker: &Worker, signal: Signal, reason: ShedReason) {
    match signal {
        Signal::HeadTimeout => worker.shed(reason),
        Signal::Close => {}
    }
}

/// The client that the socket's peer speaks for, by the PROXY protocol.
async fn introduced(
    worker: &Worker,
    settings: &ListenerSettings,
    socket: &mut Socket,
    peer: IpAddr,
    state: &ConnectionState,
) -> Option<IpAddr> {
    let reason = ShedReason::ProxyProtocol;
    let trusted = &settings.trusted_proxies;
    if !trusted.is_empty() && !headers::is_trusted(peer, trusted) {
        tracing::debug!(%peer, "may not speak for others");
        worker.shed(reason);
        return None;
    }
    match unless_told(state, proxy_protocol::receive(socket)).await {
        Ok(Ok(client)) => Some(client.unwrap_or(peer)),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "no PROXY header");
            worker.shed(reason);
            None
        }
        Err(signal) => {
            too_late(worker, signal, reason);
            None
        }
    }
}

/// The handshake. A client that goes without a word is not counted: that is how a balancer looks
/// whether a port is open.
async fn shake_hands(
    worker: &Worker,
    tls: &tls::Server,
    socket: Socket,
    state: &ConnectionState,
) -> Option<TlsStream<Socket>> {
    let mut greeting = LazyConfigAcceptor::new(Acceptor::default(), socket);
    let greeted = match unless_told(state, &mut greeting).await {
        Ok(greeted) => greeted,
        Err(signal) => {
            too_late(worker, signal, ShedReason::Handshake);
            return None;
        }
    };
    let failed = match greeted {
        Ok(hello) => {
            let config = Arc::clone(tls.answer(&hello.client_hello()));
            let shaken = hello.into_stream(config).into_fallible();
            match unless_told(state, shaken).await {
                Ok(Ok(stream)) => return Some(stream.into()),
                Ok(Err((error, socket))) => (error, Some(socket)),
                Err(signal) => {
                    too_late(worker, signal, ShedReason::Handshake);
                    return None;
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
        Err(error) => (error, greeting.take_io()),
    };
    let (error, socket) = failed;
    tracing::debug!(%error, "handshake failed");
    worker.shed(ShedReason::Handshake);
    if let Some(socket) = socket {
        // The client should read why.
        linger(socket, false).await;
    }
    None
}

/// What the upstream is told of the client's certificate, which the handshake has verified.
fn identity(
    settings: &ListenerSettings,
    certificates: Option<&[CertificateDer<'_>]>,
) -> Option<HeaderValue> {
    let tls = settings.tls.as_ref()?;
    tls.client_header.as_ref()?;
    let name = caller(certificates?.first()?, &tls.clients.as_ref()?.names)?;
    HeaderValue::from_str(&name).ok()
}

/// Reads until the first bytes tell HTTP/1 from HTTP/2; none if the client goes or takes too long.
async fn sniff<S>(worker: &Worker, socket: &mut S, state: &ConnectionState) -> Option<(Bytes, bool)>
where
    S: AsyncRead + Unpin,
{
    let mut first = BytesMut::with_capacity(FIRST_READ);
    loop {
        match unless_told(state, socket.read_buf(&mut first)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return None,
            Err(signal) => {
                too_late(worker, signal, ShedReason::HeaderTimeout);
                return None;
            }
        }
        let length = first.len().min(PREFACE.len());
        if first[..length] != PREFACE[..length] {
            return Some((first.freeze(), false));
        }
        if length == PREFACE.len() {
            return Some((first.freeze(), true));
        }
    }
}
