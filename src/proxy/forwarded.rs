//! `Forwarded` (RFC 7239): the standard's form of X-Forwarded-*. Only `for`, `host` and `proto` are
//! written, only `for` is read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderValue, header};

/// The clients that a request's `Forwarded` fields name, the nearest first. None: one that is
/// hidden, unknown or malformed.
pub(super) fn clients(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let fields = headers.get_all(header::FORWARDED).iter().rev();
    fields.flat_map(|value| {
        let elements = split(value.as_bytes(), b',');
        let clients: Vec<_> = match elements {
            Some(elements) => elements.into_iter().rev().map(client).collect(),
            None => vec![None],
        };
        clients
    })
}

/// One element: `for=192.0.2.60;host="example.com";proto=http`.
pub(super) fn element(client: IpAddr, host: &HeaderValue, proto: &str) -> Vec<u8> {
    let mut element = match client {
        IpAddr::V4(client) => format!("for={client};host=\""),
        IpAddr::V6(client) => format!("for=\"[{client}]\";host=\""),
    }
    .into_bytes();
    for byte in host.as_bytes() {
        if matches!(byte, b'"' | b'\\') {
            element.push(b'\\');
        }
        element.push(*byte);
    }
    element.extend_from_slice(b"\";proto=");
    element.extend_from_slice(proto.as_bytes());
    element
}

/// The parts between separators that do not stand inside quotes. None if a quote is left open.
fn split(text: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let (mut parts, mut from) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if *byte == separator && !quoted => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    (!quoted).then_some(parts)
}

fn client(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for pair in split(element, b';')? {
        let (name, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
        if name.trim_ascii().eq_ignore_ascii_case(b"for") {
            // Two of them contradict each other.
            if found.replace(node(value[1..].trim_ascii())?).is_some() {
                return None;
            }
        }
    }
    found
}

/// An address, with or without a port, in quotes where it needs them.
fn node(value: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(value).ok()?;
    let text = match text.strip_prefix('"') {
        // No address has anything in it that needs an escape.
        Some(rest) => rest.strip_suffix('"')?,
        None => text,
    };
    let address = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0.parse::<Ipv6Addr>().ok()?.into(),
        None => {
            let address = text.split_once(':').map_or(text, |(address, _)| address);
            IpAddr::from(address.parse::<Ipv4Addr>().ok()?)
        }
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(fields: &[&str]) -> Vec<Option<String>> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::FORWARDED, HeaderValue::from_str(field).unwrap());
        }
        clients(&headers).map(|client| client.map(|client| client.to_string())).collect()
    }

    fn check(fields: &[&str], expected: &[Option<&str>]) {
        let expected: Vec<_> = expected.iter().map(|it| it.map(str::to_owned)).collect();
        assert_eq!(read(fields), expected, "{fields:?}");
    }

    #[test]
    fn clients_are_read_from_the_nearest_on() {
        check(&["for=192.0.2.43, for=198.51.100.17"], &[Some("198.51.100.17"), Some("192.0.2.43")]);
        check(
            &["for=192.0.2.1", "For=\"192.0.2.2:4711\""],
            &[Some("192.0.2.2"), Some("192.0.2.1")],
        );
        check(
            &["for=\"[2001:db8:cafe::17]:4711\";proto=http;by=203.0.113.43"],
            &[Some("2001:db8:cafe::17")],
        );
        check(&["proto=https ; FOR=192.0.2.1;host=\"a,b;c=\\\"d\""], &[Some("192.0.2.1")]);
    }

    #[test]
    fn what_is_hidden_unknown_or_malformed_names_nobody() {
        for field in [
            "for=unknown",
            "for=_hidden",
            "for=_SEVKISEK:80",
            "proto=http",
            "",
            "for=",
            "for",
            "for=\"192.0.2.1",
            "for=2001:db8::1",
            "for=\"[2001:db8::1\"",
            "for=1.1.1.1;for=2.2.2.2",
        ] {
            check(&[field], &[None]);
        }
        check(&["for=192.0.2.1, for=\"x, for=192.0.2.2"], &[None]);
    }

    proptest! {
        #[test]
        fn an_element_is_read_back(v6 in any::<[u8; 16]>(), v4 in any::<[u8; 4]>(), host in "[!-~]{0,40}") {
            for client in [IpAddr::from(v4), IpAddr::from(v6)] {
                let host = HeaderValue::from_str(&host).unwrap();
                let text = String::from_utf8(element(client, &host, "https")).unwrap();
                let expected = vec![Some(client.to_canonical().to_string())];
                prop_assert_eq!(read(&[&text]), expected.clone());
                let twice = format!("for=_x, {text}");
                prop_assert_eq!(read(&[&twice]), [expected, vec![None]].concat());
            }
        }

        #[test]
        fn no_field_is_too_strange(field in "[ -~]{0,60}") {
            prop_assert!(!read(&[&field]).is_empty());
        }
    }
}
