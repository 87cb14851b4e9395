//! Bodies on their way: the client's to the upstream, and the upstream's to the client.
//!
//! Nothing is buffered: a frame is asked for when the other side has room for it.

use std::{
    cell::Cell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{
    connection::InFlight,
    deadline::{Deadline, Deadlines},
    grpc,
    observe::Observation,
    upstream::{AnswerBody, Chosen, Lease},
};
use crate::measure::Outcome;

/// Why a body ended before its end.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// How far the client's body has come.
#[derive(Debug, Default)]
pub(super) struct Upload {
    complete: Cell<bool>,
    /// When it was complete, as of the last tick.
    completed: Cell<Duration>,
    broken: Cell<bool>,
}

impl Upload {
    pub(super) fn complete(&self) -> bool {
        self.complete.get()
    }

    /// Since when the client's body is complete.
    pub(super) fn complete_since(&self) -> Option<Duration> {
        self.complete.get().then(|| self.completed.get())
    }

    fn note_complete(&self, now: Duration) {
        if !self.complete.replace(true) {
            self.completed.set(now);
        }
    }

    /// Whether the client broke off its body.
    pub(super) fn broken(&self) -> bool {
        self.broken.get()
    }
}

/// The body of a request on its way to the upstream.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// There is none.
    Empty,
    /// The proxy's own.
    Own(Full<Bytes>),
    /// The client's.
    Client { body: Incoming, upload: Rc<Upload>, stall: Stall },
    /// The client's, of which the beginning goes out once more.
    Again { first: PutBack, rest: Box<RequestBody> },
}

/// The beginning of a body that an upstream did not take.
#[derive(Debug)]
pub(super) struct PutBack {
    pub(super) data: VecDeque<Bytes>,
    /// With these the body is over.
    pub(super) trailers: Option<HeaderMap>,
}

impl PutBack {
    fn is_empty(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    fn next(&mut self) -> Option<Frame<Bytes>> {
        self.data.pop_front().map(Frame::data).or_else(|| self.trailers.take().map(Frame::trailers))
    }
}

impl RequestBody {
    /// Puts back what was read of it.
    pub(super) fn put_back(self, first: PutBack) -> Self {
        if let Some(upload) = self.upload() {
            upload.complete.set(false);
        }
        Self::Again { first, rest: Box::new(self) }
    }

    /// How far the client's body has come.
    pub(super) fn upload(&self) -> Option<&Rc<Upload>> {
        match self {
            Self::Empty | Self::Own(_) => None,
            Self::Client { upload, .. } => Some(upload),
            Self::Again { rest, .. } => rest.upload(),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (body, upload, stall) = match self.get_mut() {
            Self::Empty => return Poll::Ready(None),
            Self::Own(body) => {
                let frame = Pin::new(body).poll_frame(cx);
                return frame.map(|frame| frame.map(|ok| ok.map_err(|e| match e {})));
            }
            Self::Client { body, upload, stall } => (body, upload, stall),
            Self::Again { first, rest } => {
                let Some(frame) = first.next() else {
                    return Pin::new(&mut **rest).poll_frame(cx);
                };
                if let Some(upload) = rest.upload() {
                    upload.complete.set(first.is_empty() && rest.is_end_stream());
                }
                return Poll::Ready(Some(Ok(frame)));
            }
        };
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                stall.moved();
                if body.is_end_stream() {
                    upload.note_complete(stall.deadlines.coarse_now());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                upload.note_complete(stall.deadlines.coarse_now());
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                upload.broken.set(true);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Pending => {
                ready!(stall.poll_stalled(cx));
                upload.broken.set(true);
                Poll::Ready(Some(Err("the client's body does not move".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Own(body) => body.is_end_stream(),
            Self::Client { body, .. } => body.is_end_stream(),
            Self::Again { first, rest } => first.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Own(body) => body.size_hint(),
            Self::Client { body, .. } => body.size_hint(),
            Self::Again { first, rest } => {
                let again: usize = first.data.iter().map(Bytes::len).sum();
                match rest.size_hint().exact() {
                    Some(length) => SizeHint::with_exact(length + again as u64),
                    None => SizeHint::default(),
                }
            }
        }
    }
}

/// Notices a body that does not move.
#[derive(Debug)]
pub(super) struct Stall {
    deadline: Option<Deadline>,
    deadlines: Rc<Deadlines>,
    /// None: it may rest for as long as it likes.
    limit: Option<Duration>,
}

impl Stall {
    pub(super) fn new(deadlines: &Rc<Deadlines>, limit: Duration) -> Self {
        Self { deadline: None, deadlines: Rc::clone(deadlines), limit: Some(limit) }
    }

    /// Notices nothing: silence is what the two ends agreed on.
    pub(super) fn never(deadlines: &Rc<Deadlines>) -> Self {
        Self { deadline: None, deadlines: Rc::clone(deadlines), limit: None }
    }

    fn moved(&mut self) {
        self.deadline = None;
    }

    /// Ready when the body has not moved since the first call after the last frame, for the
    /// limit.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.limit else { return Poll::Pending };
        let deadline = self.deadline.get_or_insert_with(|| self.deadlines.within(limit));
        deadline.poll_expired(cx).map(|_| ())
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum ResponseBody {
    /// Written by the proxy itself.
    Local { body: Full<Bytes>, _in_flight: InFlight },
    /// The upstream's.
    Upstream(Box<Download>),
}

/// The upstream's body on its way to the client, under observation.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) body: AnswerBody,
    pub(super) observation: Option<Observation>,
    pub(super) lease: Option<Lease>,
    /// Counts it at its endpoint.
    pub(super) chosen: Option<Chosen>,
    pub(super) upload: Option<Rc<Upload>>,
    pub(super) statuses: grpc::Statuses,
    /// The end of the whole answer, for routes that are judged by the last byte.
    pub(super) total: Option<Deadline>,
    /// The gRPC call that is answered.
    pub(super) call: Option<CallEnd>,
    pub(super) stall: Stall,
    /// Keeps the connection counted as busy.
    pub(super) _in_flight: InFlight,
}

/// How a gRPC call ends that its client gives no more time.
#[derive(Debug)]
pub(super) struct CallEnd {
    /// None: the client has all the time there is.
    pub(super) deadline: Option<Deadline>,
    pub(super) over: bool,
}

impl Download {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_over() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(trailers) = self.poll_call_over(cx) {
            return Poll::Ready(Some(Ok(trailers)));
        }
        if let Some(total) = &mut self.total
            && total.poll_expired(cx).is_ready()
        {
            self.finish(Outcome::Hung);
            return Poll::Ready(Some(Err("the answer was not complete in time".into())));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.stall.moved();
                if let Some(trailers) = frame.trailers_ref() {
                    self.judge(trailers);
                }
                if self.body.is_end_stream() {
                    self.complete();
                } else if let Some(observation) = &mut self.observation
                    // The trailers of a call are mostly there with its only message.
                    && self.call.is_none()
                {
                    observation.streams();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let client = self.upload.as_ref().is_some_and(|upload| upload.broken());
                self.finish(if client { Outcome::Aborted } else { Outcome::Failed });
                Poll::Ready(Some(Err(error)))
            }
            Poll::Pending => {
                if let Some(observation) = &mut self.observation {
                    observation.streams();
                }
                ready!(self.stall.poll_stalled(cx));
                self.finish(Outcome::Failed);
                Poll::Ready(Some(Err("the upstream's body does not move".into())))
            }
        }
    }

    /// Judges a gRPC call by the fields that carry its status.
    fn judge(&mut self, fields: &HeaderMap) {
        let failed = self.statuses.fail(fields);
        if let Some(chosen) = &self.chosen
            && self.call.is_some()
        {
            chosen.judged(failed);
        }
        if let Some(observation) = &mut self.observation {
            if failed {
                observation.fail();
            } else if self.statuses.refuse(fields) {
                observation.refuse();
            }
        }
    }

    /// Ends a gRPC call whose client gives it no more time, in the words in which its upstream
    /// would. The upstream's stream is reset.
    fn poll_call_over(&mut self, cx: &mut Context<'_>) -> Poll<Frame<Bytes>> {
        let Some(CallEnd { deadline: Some(deadline), over }) = &mut self.call else {
            return Poll::Pending;
        };
        ready!(deadline.poll_expired(cx));
        *over = true;
        let trailers =
            grpc::status(grpc::Code::DeadlineExceeded, "the deadline of the call is over");
        // The endpoint is not judged by how much time its clients give it.
        self.chosen = None;
        self.judge(&trailers);
        self.lease = None;
        if let Some(observation) = self.observation.take() {
            observation.complete();
        }
        Poll::Ready(Frame::trailers(trailers))
    }

    fn is_over(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.over)
    }

    pub(super) fn complete(&mut self) {
        self.chosen = None;
        if let Some(observation) = self.observation.take() {
            observation.complete();
        }
        let uploaded = self.upload.as_ref().is_none_or(|upload| upload.complete());
        match self.lease.take() {
            Some(lease) if uploaded => lease.give_back(),
            // Dropped: the upstream has answered before the end of the client's body, and the
            // connection would wait for that end.
            Some(_) | None => {}
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        self.lease = None;
        self.chosen = None;
        if let Some(observation) = self.observation.take() {
            observation.finish(outcome);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Local { body, .. } => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|ok| ok.map_err(|e| match e {}))),
            Self::Upstream(download) => download.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local { body, .. } => body.is_end_stream(),
            Self::Upstream(download) => download.is_over() || download.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local { body, .. } => body.size_hint(),
            Self::Upstream(download) => download.body.size_hint(),
        }
    }
}
