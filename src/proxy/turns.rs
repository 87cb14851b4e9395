//! Reading in turns: an HTTP/2 connection that has read much lets those run for whom it has read.
//!
//! The codec ends a connection on which many small frames wait to be taken, and it reads for as long
//! as the socket has something. A burst of short messages, as gRPC makes them, is no flood if their
//! streams can take them in between.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::spawn_local,
};

/// So many bytes are read in one turn: some 1,200 frames at most, of which the codec bears 2,000 with
/// the windows that we give.
const TURN: usize = 16 * 1024;

/// A stream that is read in turns.
#[derive(Debug)]
pub(super) struct Turns<S> {
    stream: S,
    turn: Rc<Turn>,
}

#[derive(Debug)]
struct Turn {
    left: Cell<usize>,
    /// Who waits for the next turn.
    waker: RefCell<Option<Waker>>,
}

impl Turn {
    /// Waits for the next turn. A task of its own begins it: the codec may come again in the same
    /// breath, before anybody else could run.
    fn wait(self: &Rc<Self>, waker: &Waker) {
        if self.waker.replace(Some(waker.clone())).is_none() {
            // Whoever was woken by what was read stands in front of this in the worker's queue.
            let turn = Rc::clone(self);
            spawn_local(async move {
                turn.left.set(TURN);
                if let Some(waker) = turn.waker.take() {
                    waker.wake();
                }
            });
        }
    }
}

impl<S> Turns<S> {
    pub(super) fn new(stream: S) -> Self {
        let turn = Turn { left: Cell::new(TURN), waker: RefCell::default() };
        Self { stream, turn: Rc::new(turn) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Turns<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let left = this.turn.left.get();
        if left == 0 {
            this.turn.wait(cx.waker());
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = if buf.remaining() <= left {
            Pin::new(&mut this.stream).poll_read(cx, buf)
        } else {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(left));
            let read = Pin::new(&mut this.stream).poll_read(cx, &mut part);
            let length = part.filled().len();
            buf.advance(length);
            read
        };
        this.turn.left.set(match read {
            Poll::Ready(_) => left - (buf.filled().len() - before),
            Poll::Pending => TURN,
        });
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        task::LocalSet,
    };

    use super::*;

    #[tokio::test]
    async fn after_a_turn_others_run_and_then_the_rest_is_read() {
        let (mut near, far) = duplex(1 << 20);
        let sent: Vec<u8> = (0..3 * TURN + 5).map(|it| it as u8).collect();
        near.write_all(&sent).await.unwrap();
        drop(near);
        let mut turns = Turns::new(far);
        let mut space = vec![0; 1 << 20];
        let mut buf = ReadBuf::new(&mut space);
        let tasks = LocalSet::new();
        let (read, rest) = tasks
            .run_until(async {
                let read = poll_fn(|cx| {
                    // However often it is asked.
                    let turns = (0..9).map(|_| Pin::new(&mut turns).poll_read(cx, &mut buf));
                    Poll::Ready(turns.filter(Poll::is_ready).count())
                });
                let read = read.await;
                let mut rest = Vec::new();
                turns.read_to_end(&mut rest).await.unwrap();
                (read, rest)
            })
            .await;
        assert_eq!((read, buf.filled().len()), (1, TURN));
        assert_eq!([buf.filled(), &rest].concat(), sent);
    }
}
