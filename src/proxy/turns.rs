//! Reading in turns: an HTTP/2 connection that has read much lets those run for whom it has read.
//!
//! The codec ends a connection on which many small frames wait to be taken, and it reads for as long
//! as the socket has something. A burst of short messages, as gRPC makes them, is no flood if their
//! streams can take them in between.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// About so many bytes are read in one turn: some 1,200 frames at most, of which the codec bears
/// 2,000 with the windows that we give.
const TURN: usize = 16 * 1024;

/// A stream that is read in turns.
#[derive(Debug)]
pub(super) struct Turns<S> {
    stream: S,
    /// What is left of this turn.
    left: usize,
}

impl<S> Turns<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, left: TURN }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Turns<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left == 0 {
            this.left = TURN;
            // Whoever was woken by what was read stands in front of this in the worker's queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.left = match read {
            Poll::Ready(_) => this.left.saturating_sub(buf.filled().len() - before),
            Poll::Pending => TURN,
        };
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Turns<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
