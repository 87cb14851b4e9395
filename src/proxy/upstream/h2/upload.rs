//! The body of a request on its way into a stream, and what is kept of it until the upstream has
//! certainly taken the request.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::Body as _;

use crate::proxy::body::{PutBack, RequestBody};

/// So much of a body is kept; a request of which more was sent cannot be sent again.
const KEPT: usize = 64 * 1024;

/// Moves a body into a stream. Completes when all of it is in there, or when that is in vain.
#[derive(Debug)]
pub(super) struct Upload {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// Waits for room in the stream.
    waiting: Option<Bytes>,
    kept: Kept,
    done: bool,
}

/// What was sent.
#[derive(Debug)]
enum Kept {
    All {
        data: VecDeque<Bytes>,
        trailers: Option<HeaderMap>,
        bytes: usize,
    },
    /// Too much.
    Nothing,
}

impl Upload {
    pub(super) fn new(body: RequestBody, stream: SendStream<Bytes>) -> Self {
        let done = body.is_end_stream();
        let kept = Kept::All { data: VecDeque::new(), trailers: None, bytes: 0 };
        Self { body, stream, waiting: None, kept, done }
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// What is sent from now on is not kept: the upstream has taken the request.
    pub(super) fn taken(&mut self) {
        self.kept = Kept::Nothing;
    }

    /// The whole body again, unless too much was sent.
    pub(super) fn take_back(self) -> Option<RequestBody> {
        match self.kept {
            Kept::Nothing => None,
            Kept::All { data, trailers, .. } => {
                if !data.is_empty() || trailers.is_some() {
                    return Some(self.body.put_back(PutBack { data, trailers }));
                }
                Some(self.body)
            }
        }
    }

    fn keep(&mut self, piece: &Bytes) {
        if let Kept::All { data, bytes, .. } = &mut self.kept {
            *bytes += piece.len();
            if *bytes <= KEPT {
                data.push_back(piece.clone());
            } else {
                self.kept = Kept::Nothing;
            }
        }
    }

    /// Sends what waits as far as there is room.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        while let Some(mut piece) = self.waiting.take() {
            let room = self.stream.capacity();
            if room == 0 && !piece.is_empty() {
                self.waiting = Some(piece);
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
                }
            }
            let part = piece.split_to(room.min(piece.len()));
            let last = piece.is_empty() && self.body.is_end_stream();
            self.stream.send_data(part, last).map_err(|_| Gone)?;
            self.done |= last;
            if !piece.is_empty() {
                self.stream.reserve_capacity(piece.len());
                self.waiting = Some(piece);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        ready!(self.poll_waiting(cx))?;
        if self.done {
            return Poll::Ready(Ok(()));
        }
        let sent = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                // Peers count empty frames, and bear few of them.
                Ok(piece) if piece.is_empty() && !self.body.is_end_stream() => {
                    return Poll::Ready(Ok(()));
                }
                Ok(piece) => {
                    self.keep(&piece);
                    self.stream.reserve_capacity(piece.len());
                    self.waiting = Some(piece);
                    return Poll::Ready(Ok(()));
                }
                Err(frame) => {
                    let Ok(fields) = frame.into_trailers() else { return Poll::Ready(Ok(())) };
                    if let Kept::All { trailers, .. } = &mut self.kept {
                        *trailers = Some(fields.clone());
                    }
                    self.stream.send_trailers(fields)
                }
            },
            None => self.stream.send_data(Bytes::new(), true),
            Some(Err(_)) => {
                // Whose fault it is stands in the request's `Upload`.
                self.stream.send_reset(Reason::CANCEL);
                return Poll::Ready(Err(Gone));
            }
        };
        self.done = true;
        Poll::Ready(sent.map_err(|_| Gone))
    }
}

/// The stream takes nothing more. Why, the answer's side knows.
struct Gone;

impl Future for Upload {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        while !this.done {
            if this.stream.poll_reset(cx).is_ready() {
                this.done = true;
                break;
            }
            if ready!(this.poll_step(cx)).is_err() {
                this.done = true;
            }
        }
        Poll::Ready(())
    }
}
