//! What is known about a request beyond its head: the country of its client, the claims of its
//! token. Both come from files that `config` reads; they travel with the table, so a request asks
//! neither a disk nor a lock.
//!
//! Asked for only by the conditions that name them, and at most once per request.

mod claims;
mod countries;
mod tokens;
mod verified;

#[cfg(test)]
#[cfg(feature = "geo")]
pub(super) mod mmdb;
#[cfg(test)]
#[cfg(feature = "jwt")]
pub(super) mod signing;

use std::{cell::OnceCell, net::IpAddr, rc::Rc, sync::Arc};

use http::{HeaderMap, header::AUTHORIZATION};

pub use claims::Claims;
pub use countries::{Countries, CountriesProblem, Country};
pub use tokens::{KeysProblem, TokenProblem, TokenRules, Tokens};
pub use verified::VerifiedTokens;

/// Where facts come from; nothing is known where nothing is configured.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Countries by address.
    pub countries: Option<Arc<Countries>>,
    /// What verifies tokens.
    pub tokens: Option<Arc<Tokens>>,
}

impl PartialEq for Facts {
    /// Whether both were made of the same content.
    fn eq(&self, other: &Self) -> bool {
        let digests = |facts: &Self| {
            (
                facts.countries.as_ref().map(|countries| *countries.digest()),
                facts.tokens.as_ref().map(|tokens| *tokens.digest()),
            )
        };
        digests(self) == digests(other)
    }
}

/// What one request has made known so far.
#[derive(Debug)]
pub struct Learned<'a> {
    facts: &'a Facts,
    verified: &'a VerifiedTokens,
    /// Seconds since 1970.
    now: fn() -> u64,
    country: OnceCell<Option<Country>>,
    claims: OnceCell<Option<Rc<Claims>>>,
}

impl<'a> Learned<'a> {
    /// Nothing yet. `verified` remembers tokens from one request to the next, `now` tells the
    /// seconds since 1970 and is asked only where a token is there.
    #[must_use]
    pub fn new(facts: &'a Facts, verified: &'a VerifiedTokens, now: fn() -> u64) -> Self {
        Self { facts, verified, now, country: OnceCell::new(), claims: OnceCell::new() }
    }

    /// The country of a client.
    pub fn country(&self, client_ip: IpAddr) -> Option<&Country> {
        let look_up = || self.facts.countries.as_ref()?.country(client_ip);
        self.country.get_or_init(look_up).as_ref()
    }

    /// The claims of the token that a request carries; none where it is missing or not valid.
    pub fn claims(&self, headers: &HeaderMap) -> Option<&Claims> {
        let verify = || {
            let tokens = self.facts.tokens.as_ref()?;
            let authorization = headers.get(AUTHORIZATION)?.as_bytes();
            self.verified.claims(tokens, authorization, (self.now)())
        };
        self.claims.get_or_init(verify).as_deref()
    }
}
