//! Names in client certificates: which are let in, and by which one a client is called.
//!
//! Names are those of the subject alternative names, DNS and URI. The subject's common name is no
//! name here: what it says is free text.

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use super::identity::parse;

/// A rule for names of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// This DNS name, in lower case.
    Dns(String),
    /// Names of one label more than this: `*.` left out.
    DnsUnder(String),
    /// This URI.
    Uri(String),
    /// URIs that begin so; it ends in `/`.
    UriUnder(String),
}

impl NameRule {
    /// Reads a rule: `a.example.com`, `*.example.com`, `spiffe://example.com/a`,
    /// `spiffe://example.com/*`. None if it is no such thing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*');
        if let Some((scheme, rest)) = text.split_once("://") {
            let under = rest.strip_suffix("/*");
            let fits = !scheme.is_empty() && plain(scheme) && plain(under.unwrap_or(rest));
            return (fits && !rest.is_empty()).then(|| match under {
                Some(under) => Self::UriUnder(format!("{scheme}://{under}/")),
                None => Self::Uri(text.to_owned()),
            });
        }
        let under = text.strip_prefix("*.");
        let name = under.unwrap_or(text);
        let label = |label: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            !label.is_empty() && label.bytes().all(plain)
        };
        let name = name.split('.').all(label).then(|| name.to_ascii_lowercase())?;
        Some(if under.is_some() { Self::DnsUnder(name) } else { Self::Dns(name) })
    }

    fn takes_dns(&self, name: &str) -> bool {
        match self {
            Self::Dns(wanted) => name == wanted,
            Self::DnsUnder(parent) => {
                name.split_once('.').is_some_and(|(label, rest)| label != "*" && rest == parent)
            }
            Self::Uri(_) | Self::UriUnder(_) => false,
        }
    }

    fn takes_uri(&self, uri: &str) -> bool {
        match self {
            Self::Uri(wanted) => uri == wanted,
            Self::UriUnder(prefix) => uri.strip_prefix(prefix).is_some_and(|it| !it.is_empty()),
            Self::Dns(_) | Self::DnsUnder(_) => false,
        }
    }
}

/// What a client with this certificate is called: the first of its URIs, then of its DNS names, that
/// a rule takes; without rules the first there is, or `sha256:` and the certificate's hash in hex.
/// None where there are rules and none takes it: then it may not come in.
#[must_use]
pub fn caller(leaf: &CertificateDer<'_>, rules: &[NameRule]) -> Option<String> {
    let parsed = parse(leaf).ok()?;
    let any = rules.is_empty();
    let uri = parsed
        .valid_uri_names()
        .find(|uri| any || rules.iter().any(|rule| rule.takes_uri(uri)))
        .map(str::to_owned);
    let dns = || {
        parsed
            .valid_dns_names()
            .map(str::to_ascii_lowercase)
            .find(|name| any || rules.iter().any(|rule| rule.takes_dns(name)))
    };
    uri.or_else(dns).or_else(|| any.then(|| fingerprint(leaf)))
}

fn fingerprint(leaf: &CertificateDer<'_>) -> String {
    let hash = Sha256::digest(leaf);
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn check(rules: &[&str], dns: &[&str], uris: &[&str], expected: Option<&str>) {
        let mut params =
            CertificateParams::new(dns.iter().copied().map(str::to_owned).collect::<Vec<_>>())
                .unwrap();
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        let cert = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let rules: Vec<_> = rules.iter().map(|rule| NameRule::parse(rule).unwrap()).collect();
        let found = caller(cert.der(), &rules);
        let known =
            found.map(|name| if name.starts_with("sha256:") { "sha256".to_owned() } else { name });
        assert_eq!(known.as_deref(), expected, "{rules:?} {dns:?} {uris:?}");
    }

    #[test]
    fn without_rules_the_first_name_is_taken() {
        let uri = "spiffe://example.com/a";
        check(&[], &["a.example.com"], &[uri], Some(uri));
        check(&[], &["A.example.com", "b.example.com"], &[], Some("a.example.com"));
        check(&[], &[], &[], Some("sha256"));
    }

    #[test]
    fn with_rules_only_names_that_fit_are_let_in() {
        let dns = &["*.Clients.example.com"];
        check(dns, &["a.clients.EXAMPLE.com"], &[], Some("a.clients.example.com"));
        check(
            dns,
            &["other.example.com", "b.clients.example.com"],
            &[],
            Some("b.clients.example.com"),
        );
        for outside in ["a.b.clients.example.com", "clients.example.com", "aclients.example.com"] {
            check(dns, &[outside], &[], None);
        }
        check(dns, &["*.clients.example.com"], &[], None);
        check(dns, &[], &[], None);
        check(&["a.example.com"], &["a.example.com"], &[], Some("a.example.com"));
        let uri = &["spiffe://example.com/ns/*", "spiffe://example.com/one"];
        check(uri, &[], &["spiffe://example.com/ns/shop"], Some("spiffe://example.com/ns/shop"));
        check(uri, &[], &["spiffe://example.com/one"], Some("spiffe://example.com/one"));
        check(uri, &[], &["spiffe://example.com/ns/"], None);
        check(uri, &["spiffe"], &["spiffe://example.com/one/more"], None);
    }

    #[test]
    fn what_could_match_more_than_it_seems_is_no_rule() {
        for text in
            ["", "*", "*.", "a.*.b", "*a.b", "a b", "spiffe://", "spiffe://a*", "://a", "a..b"]
        {
            assert_eq!(NameRule::parse(text), None, "{text}");
        }
    }
}
