//! Normalises the host of a request: lower case, without port and trailing dot, IPv6 addresses in
//! brackets in their canonical text. Deliberately knows nothing of names in DNS or of IDNA.

use std::{borrow::Cow, net::Ipv6Addr};

/// Why a host is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostProblem {
    /// There is none.
    #[error("the host is empty")]
    Empty,
    /// It holds a character that no host holds.
    #[error("the host holds a character that no host holds")]
    ForbiddenCharacter,
    /// What stands in brackets is not an IPv6 address.
    #[error("the host is in brackets and not an IPv6 address")]
    MalformedAddress,
    /// What stands behind the host is not a port.
    #[error("the host is followed by something that is not a port")]
    MalformedPort,
}

/// The normal form of a `Host` field or an `:authority`. A host in normal form, with or without a
/// port, is borrowed.
///
/// # Errors
/// A [`HostProblem`]; such a request is answered with 400.
pub fn normalise_host(authority: &str) -> Result<Cow<'_, str>, HostProblem> {
    if authority.starts_with('[') {
        return normal_address(authority);
    }
    let (host, port) = match memchr::memchr(b':', authority.as_bytes()) {
        Some(colon) => (&authority[..colon], &authority[colon + 1..]),
        None => (authority, ""),
    };
    check_port(port)?;
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err(HostProblem::Empty);
    }
    if host.ends_with('.') || !host.bytes().all(is_host_byte) {
        return Err(HostProblem::ForbiddenCharacter);
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(Cow::Owned(host.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(host))
}

fn normal_address(authority: &str) -> Result<Cow<'_, str>, HostProblem> {
    let end = authority.find(']').ok_or(HostProblem::MalformedAddress)?;
    let (bracketed, rest) = authority.split_at(end + 1);
    let address: Ipv6Addr = bracketed[1..end].parse().map_err(|_| HostProblem::MalformedAddress)?;
    match rest.strip_prefix(':') {
        Some(port) => check_port(port)?,
        None if rest.is_empty() => {}
        None => return Err(HostProblem::MalformedPort),
    }
    let normal = format!("[{address}]");
    Ok(if normal == bracketed { Cow::Borrowed(bracketed) } else { Cow::Owned(normal) })
}

/// A port may be left out behind its colon (RFC 3986, section 3.2.3).
fn check_port(port: &str) -> Result<(), HostProblem> {
    let valid = port.is_empty()
        || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if valid { Ok(()) } else { Err(HostProblem::MalformedPort) }
}

/// Letters, digits, and the marks of RFC 3986's reg-name; escapes are not taken.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(authority: &str, expected: &str) {
        assert_eq!(normalise_host(authority).as_deref(), Ok(expected), "{authority}");
    }

    #[test]
    fn case_port_and_trailing_dot_do_not_matter() {
        check("shop.example.com", "shop.example.com");
        check("Shop.Example.COM:8080", "shop.example.com");
        check("shop.example.com.:80", "shop.example.com");
        check("shop.example.com:", "shop.example.com");
        check("10.0.0.1:80", "10.0.0.1");
    }

    #[test]
    fn addresses_keep_their_brackets() {
        check("[::1]", "[::1]");
        check("[::1]:8080", "[::1]");
        check("[2001:DB8:0:0::1]:80", "[2001:db8::1]");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for (authority, problem) in [
            ("", HostProblem::Empty),
            (":80", HostProblem::Empty),
            (".", HostProblem::Empty),
            ("a/b", HostProblem::ForbiddenCharacter),
            ("user@host", HostProblem::ForbiddenCharacter),
            ("a..", HostProblem::ForbiddenCharacter),
            ("a b", HostProblem::ForbiddenCharacter),
            ("::1", HostProblem::MalformedPort),
            ("a:b", HostProblem::MalformedPort),
            ("a:+80", HostProblem::MalformedPort),
            ("a:65536", HostProblem::MalformedPort),
            ("[::1", HostProblem::MalformedAddress),
            ("[x]", HostProblem::MalformedAddress),
            ("[::1]80", HostProblem::MalformedPort),
        ] {
            assert_eq!(normalise_host(authority), Err(problem), "{authority}");
        }
    }

    #[test]
    fn an_ordinary_host_is_borrowed() {
        for ordinary in ["shop.example.com", "shop.example.com:80", "shop.", "[::1]:80"] {
            assert!(matches!(normalise_host(ordinary), Ok(Cow::Borrowed(_))), "{ordinary}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_host_is_its_own_normal_form(authority in "[a-zA-Z0-9.:\\[\\]-]{0,16}") {
            if let Ok(normal) = normalise_host(&authority) {
                prop_assert_eq!(normalise_host(&normal), Ok(Cow::Borrowed(&*normal)));
            }
        }
    }
}
