//! One request on a stream: its head for HTTP/2, its body, the head of the answer; and what the
//! upstream says it did not take.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
};

use h2::Reason;
use http::{
    HeaderMap, Request, Response, Uri, Version, header,
    request::Parts,
    uri::{Authority, Scheme},
};
use http_body::Body as _;

use super::{Stream, download::Download, upload::Upload};
use crate::proxy::{
    body::RequestBody,
    upstream::connection::{BrokenOff, SendError},
};

impl Stream {
    /// Sends a request and waits for the head of its answer.
    pub(in crate::proxy::upstream) async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<Download>, SendError> {
        // A clone waits for itself alone where the peer has less room than it said.
        let mut sender = self.connection.sender.borrow().clone();
        if poll_fn(|cx| sender.poll_ready(cx)).await.is_err() {
            return Err(SendError::Unsent(Box::new(request)));
        }
        let writes = self.connection.tally.writes.get();
        let (parts, body) = request.into_parts();
        let head = head(&parts, self.connection.https);
        let (mut answer, stream) = match sender.send_request(head, body.is_end_stream()) {
            Ok(opened) => opened,
            Err(error) => return Err(self.failed(error, writes, parts, Some(body))),
        };
        let mut upload = Upload::new(body, stream);
        let answered = poll_fn(|cx| {
            if !upload.is_done() {
                // Its end is seen by itself; the answer does not wait for it.
                let _ = Pin::new(&mut upload).poll(cx);
            }
            Pin::new(&mut answer).poll(cx)
        });
        match answered.await {
            Ok(answer) => {
                upload.taken();
                let (mut parts, body) = answer.into_parts();
                parts.version = Version::HTTP_11;
                let upload = (!upload.is_done()).then_some(upload);
                let body = Download::new(body, &parts, upload);
                Ok(Response::from_parts(parts, body))
            }
            Err(error) => Err(self.failed(error, writes, parts, upload.take_back())),
        }
    }

    /// The upstream took nothing of a stream that it refused or that its GOAWAY left out (RFC 9113,
    /// section 8.7), and nothing of one of which no byte was written.
    fn failed(
        &self,
        error: h2::Error,
        writes: u32,
        parts: Parts,
        body: Option<RequestBody>,
    ) -> SendError {
        let refused = error.is_remote()
            && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM));
        let unwritten = error.is_io() && self.connection.tally.writes.get() == writes;
        match body {
            _ if !refused && !unwritten => SendError::Failed(BrokenOff::Http2(error)),
            Some(body) => SendError::Unsent(Box::new(Request::from_parts(parts, body))),
            None => SendError::NeverTaken,
        }
    }
}

/// The head as HTTP/2 has it (RFC 9113, section 8.3): the host is in the target, and nothing frames
/// the message. The fields are copied: the request may have to be sent again.
fn head(parts: &Parts, https: bool) -> Request<()> {
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = parts.method.clone();
    let mut fields = parts.headers.clone();
    let authority = take_authority(&mut fields);
    for name in [header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE] {
        fields.remove(name);
    }
    *request.headers_mut() = fields;
    let mut target = http::uri::Parts::default();
    target.scheme = Some(if https { Scheme::HTTPS } else { Scheme::HTTP });
    target.path_and_query = parts.uri.path_and_query().cloned();
    target.authority = authority;
    // Without a host that can stand in a target the field stays where it is.
    *request.uri_mut() = Uri::from_parts(target).unwrap_or_else(|_| parts.uri.clone());
    request
}

fn take_authority(fields: &mut HeaderMap) -> Option<Authority> {
    let host = fields.get(header::HOST)?;
    let authority = Authority::try_from(host.as_bytes()).ok()?;
    fields.remove(header::HOST);
    Some(authority)
}
