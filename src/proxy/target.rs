//! The target of a request: one host and one normalised path, matched and forwarded alike.
//!
//! What is ambiguous is refused here, before anything else looks at the request: no host or two,
//! CONNECT, a path that cannot be normalised.

use std::borrow::Cow;

use http::{HeaderValue, Method, Uri, Version, header, request::Parts};

use super::{error::ProxyError, settings::Limits};
use crate::routing::{normalise_host, normalise_path, refuse_encoded_slashes};

/// Where a request wants to go.
#[derive(Debug)]
pub(super) struct Target {
    /// Host and port as the client wrote them.
    pub(super) authority: HeaderValue,
    /// The normalised path, where it differs from the one in the request.
    pub(super) new_path: Option<String>,
    host: HostName,
}

/// The normalised host: mostly the beginning of the authority.
#[derive(Debug)]
enum HostName {
    Prefix(usize),
    Rewritten(String),
}

impl Target {
    /// Reads the target; refuses what is ambiguous.
    pub(super) fn read(parts: &Parts, limits: &Limits) -> Result<Self, ProxyError> {
        if parts.method == Method::CONNECT {
            return Err(ProxyError::Connect);
        }
        let authority = authority(parts)?;
        let host = match normalise_host(text(&authority)?)? {
            Cow::Borrowed(host) => HostName::Prefix(host.len()),
            Cow::Owned(host) => HostName::Rewritten(host),
        };
        let path = parts.uri.path();
        if path == "*" && parts.method != Method::OPTIONS {
            return Err(ProxyError::BadRequest("only OPTIONS has the target *"));
        }
        let path = normalise_path(path)?;
        if limits.reject_escaped_slashes {
            refuse_encoded_slashes(&path)?;
        }
        let new_path = match path {
            Cow::Borrowed(_) => None,
            Cow::Owned(path) => Some(path),
        };
        Ok(Self { authority, new_path, host })
    }

    /// The host in lower case, without its port.
    pub(super) fn host_name(&self) -> &str {
        match &self.host {
            // `read` has seen that the authority is text.
            HostName::Prefix(length) => {
                self.authority.to_str().map_or("", |authority| &authority[..*length])
            }
            HostName::Rewritten(host) => host,
        }
    }

    /// The normalised path of the request that this target was read from.
    pub(super) fn path<'a>(&'a self, uri: &'a Uri) -> &'a str {
        self.new_path.as_deref().unwrap_or_else(|| uri.path())
    }
}

fn text(authority: &HeaderValue) -> Result<&str, ProxyError> {
    authority.to_str().map_err(|_| ProxyError::BadRequest("the host is malformed"))
}

/// Exactly one host: the target's own (HTTP/2, absolute form), which RFC 9112, section 3.2.2 puts
/// above the field, or the one `Host` field.
fn authority(parts: &Parts) -> Result<HeaderValue, ProxyError> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(ProxyError::BadRequest("there are two Host fields"));
    }
    let Some(authority) = parts.uri.authority() else {
        return host.cloned().ok_or(ProxyError::BadRequest("there is no Host field"));
    };
    if host.is_none() && parts.version < Version::HTTP_2 {
        return Err(ProxyError::BadRequest("there is no Host field"));
    }
    if authority.as_str().contains('@') {
        return Err(ProxyError::BadRequest("the host is malformed"));
    }
    if parts.version >= Version::HTTP_2
        && host.is_some_and(|host| {
            !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
        })
    {
        return Err(ProxyError::BadRequest("there are two different hosts"));
    }
    HeaderValue::from_str(authority.as_str())
        .map_err(|_| ProxyError::BadRequest("the host is malformed"))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn check(request: http::request::Builder, expected: Result<(&str, &str), &str>) {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let read = Target::read(&parts, &Limits::default());
        let found = match &read {
            Ok(target) => Ok((target.host_name(), target.path(&parts.uri)))
                .map(|(h, p)| (h.to_owned(), p.to_owned())),
            Err(error) => Err(error.to_string()),
        };
        let expected =
            expected.map(|(host, path)| (host.to_owned(), path.to_owned())).map_err(str::to_owned);
        assert_eq!(found, expected);
    }

    #[test]
    fn one_host_and_one_path_are_read() {
        check(
            Request::get("/a/../b?x=1").header("host", "Shop.Example:8080"),
            Ok(("shop.example", "/b")),
        );
        check(Request::get("http://shop/a").header("host", "other"), Ok(("shop", "/a")));
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        check(Request::get("/"), Err("there is no Host field"));
        check(
            Request::get("/").header("host", "a").header("host", "a"),
            Err("there are two Host fields"),
        );
        check(
            Request::get("http://a/").version(Version::HTTP_2).header("host", "b"),
            Err("there are two different hosts"),
        );
        check(Request::connect("a:443").header("host", "a"), Err("CONNECT is not served here"));
        let (parts, ()) = Request::get("/a%00b").header("host", "a").body(()).unwrap().into_parts();
        assert!(Target::read(&parts, &Limits::default()).is_err());
    }
}
