//! Who may write. Reads are open to whoever reaches the address.
//!
//! With a token file, a write carries its token. Without one, it comes from this machine: from a
//! loopback peer, addressed to a loopback name (a page that rebinds its DNS name to 127.0.0.1 still
//! sends its own name). A foreign `Origin` is refused in both cases.

use std::{
    io::Read,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use http::{HeaderMap, StatusCode, Uri, header};
use sha2::{Digest, Sha256};

use super::problem::Problem;

/// Longest token that is read from a file, in bytes.
const TOKEN_BYTES: u64 = 4096;

/// The token of a file, without white space at its end. Read anew for every write, so that a
/// rotated token is in force at once.
///
/// # Errors
/// When the file cannot be read, is longer than 4 KiB, or is empty.
pub(crate) fn read_token(path: &Path) -> Result<Vec<u8>, Problem> {
    let fault = |what: String| {
        tracing::error!(path = %path.display(), what, "the admin token cannot be used");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The proxy cannot read its token file, so nothing can be written; its log says why.",
        )
    };
    let mut token = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(TOKEN_BYTES + 1).read_to_end(&mut token))
        .map_err(|error| fault(error.to_string()))?;
    if token.len() as u64 > TOKEN_BYTES {
        return Err(fault("longer than 4096 bytes".to_owned()));
    }
    token.truncate(token.trim_ascii_end().len());
    if token.is_empty() {
        return Err(fault("empty".to_owned()));
    }
    Ok(token)
}

/// Whether a write with this head, from this peer, is allowed.
///
/// # Errors
/// 401 for a missing or wrong token, 403 for a foreign peer, name or origin.
pub(crate) fn check_write(
    headers: &HeaderMap,
    peer: SocketAddr,
    token: Option<&[u8]>,
) -> Result<(), Problem> {
    check_origin(headers)?;
    match token {
        Some(token) => check_token(headers, token),
        None => check_local(headers, peer),
    }
}

fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let own = text(headers, header::HOST);
    let same = origin.to_str().ok().and_then(|origin| origin.split_once("://")).is_some_and(
        |(scheme, authority)| {
            matches!(scheme, "http" | "https")
                && own.is_some_and(|own| own.eq_ignore_ascii_case(authority))
        },
    );
    if same {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "This write comes from a page of another origin; only the proxy's own pages may write.",
        ))
    }
}

fn check_token(headers: &HeaderMap, token: &[u8]) -> Result<(), Problem> {
    let Some(given) = headers.get(header::AUTHORIZATION) else {
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "Writes need the token: send `Authorization: Bearer TOKEN`, or use --token-file.",
        ));
    };
    let given = given.as_bytes();
    let bearer = match given.split_at_checked("Bearer ".len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"Bearer ") => rest.trim_ascii(),
        Some(_) | None => b"",
    };
    if equal(bearer, token) {
        Ok(())
    } else {
        Err(Problem::new(StatusCode::UNAUTHORIZED, "This is not the token of this proxy."))
    }
}

/// Compares digests, and all bytes of them: neither the place of a difference nor the length of the
/// token shows in the time taken.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (Sha256::digest(one), Sha256::digest(other));
    one.iter().zip(other.iter()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

fn check_local(headers: &HeaderMap, peer: SocketAddr) -> Result<(), Problem> {
    if !peer.ip().to_canonical().is_loopback() {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "Without admin.token_file, writes are accepted from loopback alone. Configure a token \
             to write from elsewhere.",
        ));
    }
    if text(headers, header::HOST).is_some_and(is_loopback_name) {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "Without admin.token_file, writes must be addressed to localhost, 127.0.0.1 or [::1].",
        ))
    }
}

fn is_loopback_name(authority: &str) -> bool {
    let Ok(uri) = authority.parse::<Uri>() else { return false };
    let Some(host) = uri.host() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const LOCAL: &str = "127.0.0.1:50000";
    const REMOTE: &str = "192.0.2.7:50000";

    fn allowed(peer: &str, token: Option<&str>, fields: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        check_write(&headers, peer.parse().unwrap(), token.map(str::as_bytes)).is_ok()
    }

    #[test]
    fn without_a_token_only_this_machine_may_write() {
        assert!(allowed(LOCAL, None, &[("host", "127.0.0.1:9900")]));
        assert!(allowed(LOCAL, None, &[("host", "LocalHost:9900")]));
        assert!(allowed("[::1]:50000", None, &[("host", "[::1]:9900")]));
        assert!(allowed("[::ffff:127.0.0.1]:50000", None, &[("host", "localhost")]));
        assert!(!allowed(REMOTE, None, &[("host", "localhost:9900")]));
    }

    #[test]
    fn a_rebound_name_may_not_write() {
        assert!(!allowed(LOCAL, None, &[("host", "evil.example:9900")]));
        assert!(!allowed(LOCAL, None, &[("host", "127.0.0.1.evil.example")]));
        assert!(!allowed(LOCAL, None, &[("host", "localhost@evil.example")]));
        assert!(!allowed(LOCAL, None, &[]));
    }

    #[test]
    fn a_foreign_origin_may_not_write_even_with_the_token() {
        let host = ("host", "127.0.0.1:9900");
        let token = ("authorization", "Bearer s3cret");
        assert!(allowed(LOCAL, None, &[host, ("origin", "http://127.0.0.1:9900")]));
        assert!(!allowed(LOCAL, None, &[host, ("origin", "http://127.0.0.1:8080")]));
        assert!(!allowed(LOCAL, None, &[host, ("origin", "null")]));
        assert!(!allowed(LOCAL, Some("s3cret"), &[host, token, ("origin", "http://evil.example")]));
    }

    #[test]
    fn with_a_token_file_the_token_alone_decides() {
        let check = |value, expected| {
            assert_eq!(allowed(REMOTE, Some("s3cret"), &[("authorization", value)]), expected);
        };
        check("Bearer s3cret", true);
        check("bearer  s3cret ", true);
        check("Bearer s3cre", false);
        check("Bearer s3cret2", false);
        check("Bearer ", false);
        check("Basic s3cret", false);
        assert!(!allowed(LOCAL, Some("s3cret"), &[("host", "localhost")]));
    }

    #[test]
    fn a_rotated_token_is_read_without_its_trailing_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(read_token(&path).is_err());
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), b"one");
        std::fs::write(&path, "two\r\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), b"two");
        std::fs::write(&path, "\n").unwrap();
        assert!(read_token(&path).is_err());
    }
}
