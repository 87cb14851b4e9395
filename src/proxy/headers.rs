//! Header rules of a proxy: what ends at each hop, who the client is, what is told to the upstream.
//!
//! RFC 9110, section 7.6: the fields that `Connection` names and a closed list of others belong to
//! one hop. RFC 9110, section 7.6.3: `Via`.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use super::forwarded;
use crate::routing::HeaderOps;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Most fields that `Connection` may name; a message with more is broken or hostile.
const MAX_CONNECTION_OPTIONS: usize = 32;

/// Takes away what belongs to one hop. `TE: trailers` stays: it says that the client wants
/// trailers, and gRPC insists on it.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        for name in connection_options(headers) {
            // What frames the message is dealt with below and by the codec.
            if name != header::CONTENT_LENGTH && name != header::TE && name != header::HOST {
                headers.remove(name);
            }
        }
        headers.remove(header::CONNECTION);
    }
    let trailers = headers.contains_key(header::TE) && wants_trailers(headers);
    for name in [
        &header::TE,
        &header::TRANSFER_ENCODING,
        &header::UPGRADE,
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &HTTP2_SETTINGS,
    ] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

fn connection_options(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .take(MAX_CONNECTION_OPTIONS)
        .collect()
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|coding| {
            let name = coding.split(|byte| *byte == b';').next().unwrap_or(coding);
            name.trim_ascii().eq_ignore_ascii_case(b"trailers")
        })
}

/// Who the client is: the peer, or, where peers are trusted proxies, the last address in
/// X-Forwarded-For that is not one of theirs.
pub(super) fn client_ip(peer: IpAddr, trusted: &[IpNet], headers: &HeaderMap) -> IpAddr {
    let fields = headers.get_all(&X_FORWARDED_FOR).iter().rev();
    let entries = fields.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    nearest_untrusted(peer, trusted, entries.map(forwarded_address))
}

/// As [`client_ip`], by `Forwarded` where there is one: a proxy that writes it leaves what it finds
/// in X-Forwarded-For.
pub(super) fn client_ip_by_standard(
    peer: IpAddr,
    trusted: &[IpNet],
    headers: &HeaderMap,
) -> IpAddr {
    if headers.contains_key(header::FORWARDED) {
        nearest_untrusted(peer, trusted, forwarded::clients(headers))
    } else {
        client_ip(peer, trusted, headers)
    }
}

/// Goes from the peer towards the client for as long as it is told by somebody trusted.
fn nearest_untrusted(
    peer: IpAddr,
    trusted: &[IpNet],
    told: impl Iterator<Item = Option<IpAddr>>,
) -> IpAddr {
    let mut nearest = peer;
    for next in told {
        match next {
            Some(next) if is_trusted(nearest, trusted) => nearest = next,
            Some(_) | None => break,
        }
    }
    nearest
}

/// Whether a peer's word about its own clients is believed.
pub(super) fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|net| net.contains(&peer))
}

fn forwarded_address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    text.parse::<std::net::SocketAddr>().ok().map(|addr| addr.ip().to_canonical())
}

/// What the upstream is told about the client.
#[derive(Debug)]
pub(super) struct Forwarding<'a> {
    /// The peer's address as text.
    pub(super) peer: &'a HeaderValue,
    /// Whether the peer's own word is kept and appended to, or replaced.
    pub(super) trusted: bool,
    /// `http` or `https`.
    pub(super) proto: &'static str,
    /// The host that the client asked for.
    pub(super) host: &'a HeaderValue,
    /// The client's protocol version and our pseudonym.
    pub(super) via: &'static str,
    /// The peer, where `Forwarded` is sent as well.
    pub(super) standard: Option<IpAddr>,
}

/// Writes X-Forwarded-For, -Proto, -Host and Via, and Forwarded if it is wanted.
pub(super) fn set_forwarded(headers: &mut HeaderMap, forwarding: &Forwarding<'_>) {
    let chain = forwarding.trusted.then(|| joined(headers, &X_FORWARDED_FOR)).flatten();
    let chain = chain.and_then(|chain| appended(chain, forwarding.peer.as_bytes()));
    headers.insert(&X_FORWARDED_FOR, chain.unwrap_or_else(|| forwarding.peer.clone()));
    if !forwarding.trusted {
        headers.remove(header::FORWARDED);
    }
    if let Some(peer) = forwarding.standard {
        let element = forwarded::element(peer, forwarding.host, forwarding.proto);
        let value = match joined(headers, &header::FORWARDED) {
            Some(chain) => appended(chain, &element),
            None => HeaderValue::from_maybe_shared(bytes::Bytes::from(element)).ok(),
        };
        if let Some(value) = value {
            headers.insert(header::FORWARDED, value);
        }
    }
    if !forwarding.trusted || !headers.contains_key(&X_FORWARDED_PROTO) {
        headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static(forwarding.proto));
    }
    if !forwarding.trusted || !headers.contains_key(&X_FORWARDED_HOST) {
        headers.insert(&X_FORWARDED_HOST, forwarding.host.clone());
    }
    headers.append(header::VIA, HeaderValue::from_static(forwarding.via));
}

fn appended(mut chain: Vec<u8>, next: &[u8]) -> Option<HeaderValue> {
    chain.extend_from_slice(b", ");
    chain.extend_from_slice(next);
    HeaderValue::from_maybe_shared(bytes::Bytes::from(chain)).ok()
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut values = headers.get_all(name).iter();
    let mut all = values.next()?.as_bytes().to_vec();
    for value in values {
        all.extend_from_slice(b", ");
        all.extend_from_slice(value.as_bytes());
    }
    Some(all)
}

/// HTTP/2 may split a cookie into several fields; HTTP/1 knows one (RFC 9113, section 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut values = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (values.next(), values.next()) else {
        return;
    };
    let mut all = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        all.extend_from_slice(b"; ");
        all.extend_from_slice(value.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(all)) {
        headers.insert(header::COOKIE, value);
    }
}

/// Takes fields away, also where an underscore stands for a hyphen: many applications make the same
/// of both.
pub(super) fn take_away(headers: &mut HeaderMap, fields: &[HeaderName]) {
    let hyphen = |byte| if byte == b'_' { b'-' } else { byte };
    let same = |one: &HeaderName, other: &HeaderName| {
        let [one, other] = [one, other].map(|name| name.as_str().bytes().map(hyphen));
        one.eq(other)
    };
    let meant = |name: &&HeaderName| fields.iter().any(|field| same(name, field));
    let found: Vec<HeaderName> = headers.keys().filter(meant).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Applies the operator's changes.
pub(super) fn apply(headers: &mut HeaderMap, ops: &HeaderOps) {
    for name in &ops.remove {
        headers.remove(name);
    }
    for (name, value) in &ops.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &ops.add {
        headers.append(name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn check_stripped(fields: &[(&'static str, &'static str)], left: &[&str]) {
        let mut headers = map(fields);
        strip_hop_by_hop(&mut headers);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, left);
    }

    #[test]
    fn every_connection_line_is_obeyed() {
        check_stripped(
            &[
                ("connection", "x-one, keep-alive"),
                ("connection", "X-Two"),
                ("x-one", "1"),
                ("x-two", "2"),
                ("x-three", "3"),
                ("keep-alive", "timeout=5"),
                ("upgrade", "h2c"),
                ("http2-settings", "AAMA"),
                ("proxy-connection", "close"),
                ("transfer-encoding", "chunked"),
            ],
            &["x-three"],
        );
    }

    #[test]
    fn the_wish_for_trailers_goes_on() {
        let mut headers = map(&[("te", "gzip, trailers;q=1"), ("connection", "te")]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers[header::TE], "trailers");
        check_stripped(&[("te", "gzip")], &[]);
    }

    #[test]
    fn a_client_cannot_remove_what_the_upstream_relies_on() {
        check_stripped(
            &[("connection", "host, content-length"), ("host", "a"), ("content-length", "3")],
            &["content-length", "host"],
        );
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_trusted_peers_are_believed_about_their_clients() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let headers =
            map(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-for", "10.0.0.7")]);
        assert_eq!(client_ip(ip("10.0.0.1"), &trusted, &headers), ip("2.2.2.2"));
        assert_eq!(client_ip(ip("9.9.9.9"), &trusted, &headers), ip("9.9.9.9"));
        let broken = map(&[("x-forwarded-for", "1.1.1.1, nonsense")]);
        assert_eq!(client_ip(ip("10.0.0.1"), &trusted, &broken), ip("10.0.0.1"));
    }

    #[test]
    fn forwarded_fields_are_replaced_or_appended_to() {
        let peer = HeaderValue::from_static("10.0.0.1");
        let host = HeaderValue::from_static("shop");
        let mut forwarding = Forwarding {
            peer: &peer,
            trusted: false,
            proto: "http",
            host: &host,
            via: "1.1 haldane",
            standard: None,
        };
        let before = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=1.1.1.1"),
        ];
        let mut headers = map(&before);
        set_forwarded(&mut headers, &forwarding);
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "shop");
        assert!(!headers.contains_key("forwarded"));
        forwarding.trusted = true;
        let mut headers = map(&before);
        set_forwarded(&mut headers, &forwarding);
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 10.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["forwarded"], "for=1.1.1.1");
        assert_eq!(headers["via"], "1.1 haldane");
        forwarding.standard = Some(ip("10.0.0.1"));
        let ours = "for=10.0.0.1;host=\"shop\";proto=http";
        let mut headers = map(&before);
        set_forwarded(&mut headers, &forwarding);
        assert_eq!(headers["forwarded"].to_str().unwrap(), format!("for=1.1.1.1, {ours}"));
        forwarding.trusted = false;
        let mut headers = map(&before);
        set_forwarded(&mut headers, &forwarding);
        assert_eq!(headers["forwarded"], ours);
    }

    #[test]
    fn the_standard_field_goes_before_the_other_where_it_is_believed() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let both = map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("forwarded", "for=3.3.3.3, for=2.2.2.2, for=10.0.0.9"),
        ]);
        assert_eq!(client_ip_by_standard(ip("10.0.0.1"), &trusted, &both), ip("2.2.2.2"));
        assert_eq!(client_ip_by_standard(ip("9.9.9.9"), &trusted, &both), ip("9.9.9.9"));
        let one = map(&[("x-forwarded-for", "1.1.1.1")]);
        assert_eq!(client_ip_by_standard(ip("10.0.0.1"), &trusted, &one), ip("1.1.1.1"));
        let hidden = map(&[("forwarded", "for=1.1.1.1, for=_secret")]);
        assert_eq!(client_ip_by_standard(ip("10.0.0.1"), &trusted, &hidden), ip("10.0.0.1"));
    }

    #[test]
    fn reserved_fields_are_taken_away_however_they_are_spelled() {
        let mut headers = map(&[("x-client", "1"), ("x_client", "2"), ("x-clients", "3")]);
        take_away(&mut headers, &[HeaderName::from_static("x-client")]);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-clients"]);
    }

    #[test]
    fn crumbs_of_a_cookie_are_joined() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        join_cookies(&mut headers);
        assert_eq!(headers.get_all("cookie").iter().count(), 1);
        assert_eq!(headers["cookie"], "a=1; b=2; c=3");
    }
}
