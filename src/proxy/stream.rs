//! Byte streams of either side: a TCP or Unix socket, TLS on one, with what was already read put
//! back in front.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use tokio_rustls::TlsStream;

use super::connection::ConnectionState;

/// Up to this many bytes, copying a head and its body together and sending them costs less than
/// the kernel's work on a vector of two.
const JOINED: usize = 8 * 1024;

thread_local! {
    static JOIN: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(JOINED));
}

/// A connected socket.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// To a client.
    Tls(Box<TlsStream<Socket>>),
}

impl Socket {
    /// The socket of the system.
    fn innermost(&self) -> &Self {
        let mut socket = self;
        while let Self::Tls(tls) = socket {
            socket = tls.get_ref().0;
        }
        socket
    }

    /// Whether the peer had closed its side before our last bytes reached it: its answer to them
    /// is a reset on a connection that it had already ended, which the kernel reports as a broken
    /// pipe (RFC 9293, 3.10.7.4: a segment that arrives in CLOSED is answered by a reset). Waits
    /// for `patience` for that reset to arrive.
    pub(super) async fn was_closed_before(&self, patience: Duration) -> bool {
        let Self::Tcp(stream) = self.innermost() else {
            return false;
        };
        let pending = || stream.take_error().ok().flatten();
        if let Some(error) = pending() {
            return error.kind() == io::ErrorKind::BrokenPipe;
        }
        let reset = tokio::time::timeout(patience, stream.ready(Interest::ERROR)).await;
        reset.is_ok() && pending().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            // Many clients hang up without the goodbye of TLS. What they ask is framed, so a
            // request that was cut is seen to be.
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf).map(|read| {
                let hung_up = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
                read.or_else(|error| if hung_up(&error) { Ok(()) } else { Err(error) })
            }),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs {
            return self.poll_write(cx, only);
        }
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        // TLS puts them together itself, into one record.
        if length <= JOINED && !matches!(*self, Self::Tls(_)) {
            return JOIN.with_borrow_mut(|joined| {
                joined.clear();
                bufs.iter().for_each(|buf| joined.extend_from_slice(buf));
                self.poll_write(cx, joined)
            });
        }
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A client's socket: gives back first what the sniffer has read, and notes what the connection's
/// watchman needs to know. The codec drives it; closing is left to whoever holds the other handle.
#[derive(Debug)]
pub(super) struct ClientStream {
    socket: Rc<RefCell<Socket>>,
    prefix: Bytes,
    state: Rc<ConnectionState>,
}

impl ClientStream {
    pub(super) fn new(
        socket: Rc<RefCell<Socket>>,
        prefix: Bytes,
        state: Rc<ConnectionState>,
    ) -> Self {
        Self { socket, prefix, state }
    }
}

impl ClientStream {
    /// What the sniffer has read and nobody else has.
    pub(super) fn unread(self) -> Bytes {
        self.prefix
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.has_remaining() {
            let length = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut *this.socket.borrow_mut()).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Ok(()))) {
            this.state.bytes_read(buf.filled().len() - before);
        }
        read
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.socket.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.socket.borrow_mut()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
