//! The body of an answer on a stream, with the rest of the request's body if that goes on.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{header, response::Parts};
use http_body::{Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_local};

use super::upload::Upload;
use crate::proxy::body::BodyError;

/// The body of an answer. Dropping it resets a stream that goes on.
#[derive(Debug)]
pub(in crate::proxy) struct Download {
    stream: RecvStream,
    state: State,
    /// Bytes that are still to come, where the answer said how many.
    left: Option<u64>,
    _upload: Option<Running>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    End,
}

/// The rest of an upload; its end is the answer's.
#[derive(Debug)]
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Download {
    pub(super) fn new(stream: RecvStream, head: &Parts, upload: Option<Upload>) -> Self {
        let length = head.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|it| it.to_str().ok()?.parse().ok());
        let upload = upload.map(|upload| Running(spawn_local(upload)));
        Self { stream, state: State::Data, left: length, _upload: upload }
    }

    pub(in crate::proxy::upstream) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.state == State::Data {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // A stream that was reset meanwhile has nothing to give back to.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    self.state = State::End;
                    return Poll::Ready(Some(Err(broken(error))));
                }
                None => self.state = State::Trailers,
            }
        }
        if self.state == State::Trailers {
            let trailers = ready!(self.stream.poll_trailers(cx));
            self.state = State::End;
            return Poll::Ready(trailers.transpose().map(|it| match it {
                Ok(trailers) => Ok(Frame::trailers(trailers)),
                Err(error) => Err(broken(error)),
            }));
        }
        Poll::Ready(None)
    }

    pub(in crate::proxy::upstream) fn is_end_stream(&self) -> bool {
        self.state == State::End || self.stream.is_end_stream()
    }

    pub(in crate::proxy::upstream) fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

/// What the client is told of a reset. Some reasons are no error to it, or promise that nothing
/// was taken: of an answer that has begun they would be lies.
fn broken(error: h2::Error) -> BodyError {
    match error.reason() {
        Some(Reason::NO_ERROR | Reason::CANCEL | Reason::REFUSED_STREAM) => {
            format!("the upstream broke off its answer: {error}").into()
        }
        Some(_) | None => error.into(),
    }
}
