//! JSON Web Tokens (RFC 7519) of `Authorization: Bearer`, verified by the public keys of a JSON Web
//! Key Set (RFC 7517).
//!
//! The key says which algorithms are good for it, never the token: `none` and shared secrets are no
//! algorithms here. Deliberately fetches no keys and asks nobody whether a token was revoked.

/// What a token must say beside being signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRules {
    /// Who must have issued it (`iss`).
    pub issuer: String,
    /// For whom it must have been issued (`aud`); anyone where left out.
    pub audience: Option<String>,
}

/// Why a file is no set of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysProblem {
    /// It was built without the feature.
    #[error("this build cannot verify JSON Web Tokens: the feature `jwt` is switched off")]
    NotInThisBuild,
    /// It is no set of keys.
    #[error("is no JSON Web Key Set: {0}")]
    Format(String),
    /// None of its keys verifies anything.
    #[error(
        "none of its {0} keys can be used: RSA of 2048 to 8192 bits, P-256, P-384 and Ed25519 can, if they are public and for signatures"
    )]
    NoKey(usize),
}

/// Why a token has no claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenProblem {
    /// The field holds something else than a bearer token.
    #[error("there is no bearer token")]
    NoToken,
    /// It is longer than any that is looked at.
    #[error("it is longer than 16 KiB")]
    TooLong,
    /// It is no signed token, or asks for what is not understood.
    #[error("it is malformed, or asks for what is not understood")]
    Malformed,
    /// No key is there for it.
    #[error("no key is there for its algorithm and key id")]
    NoKey,
    /// The signature is not that of any key that it may be of.
    #[error("its signature is wrong")]
    Signature,
    /// It has no time at which it ends.
    #[error("it has no `exp`")]
    NoEnd,
    /// It is over.
    #[error("it has expired")]
    Expired,
    /// It has not begun.
    #[error("it is not valid yet")]
    NotYet,
    /// Somebody else issued it.
    #[error("its issuer is another one")]
    Issuer,
    /// It was issued for somebody else.
    #[error("its audience is another one")]
    Audience,
}

/// Longest token that is looked at, in bytes.
#[cfg(feature = "jwt")]
const MAX_TOKEN: usize = 16 << 10;

/// The token of a field `Authorization`.
pub(super) fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = authorization.split_at_checked("Bearer".len())?;
    let token = rest.trim_ascii();
    let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer") && rest.first() == Some(&b' ');
    (is_bearer && !token.is_empty()).then_some(token)
}

#[cfg(not(feature = "jwt"))]
pub use absent::Tokens;
#[cfg(feature = "jwt")]
pub use present::Tokens;

#[cfg(feature = "jwt")]
mod present {
    use std::{fmt, str::FromStr};

    use jsonwebtoken::{
        Algorithm, DecodingKey, Validation, decode, decode_header,
        errors::ErrorKind,
        jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
    };
    use serde::Deserialize;
    use serde_json::{Map, Value};
    use sha2::{Digest, Sha256};

    use super::{KeysProblem, MAX_TOKEN, TokenProblem, TokenRules, bearer};
    use crate::routing::facts::Claims;

    /// How much the clocks of issuer and proxy may differ, in seconds.
    const LEEWAY: u64 = 60;
    /// Keys of which a signature may be, at most; a token without a key id is tried on each.
    const MOST_TRIED: usize = 8;
    /// Lengths of RSA keys of use: 2048 to 8192 bits. Some write a zero before them.
    const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1025;
    /// Keys of a set, at most.
    const MOST_KEYS: usize = 256;

    /// What verifies tokens.
    pub struct Tokens {
        keys: Vec<Key>,
        rules: TokenRules,
        digest: [u8; 32],
    }

    struct Key {
        id: Option<String>,
        key: DecodingKey,
        /// One for each algorithm that the key is good for, with nothing left to the library but
        /// the signature.
        ways: Vec<(Algorithm, Validation)>,
    }

    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }

    impl Tokens {
        /// Takes the content of a file with a key set. Keys of no use are passed over.
        ///
        /// # Errors
        /// That it is no key set, or has no key of use.
        pub fn new(content: &[u8], rules: TokenRules) -> Result<Self, KeysProblem> {
            let set: Set = serde_json::from_slice(content)
                .map_err(|error| KeysProblem::Format(error.to_string()))?;
            if set.keys.len() > MOST_KEYS {
                return Err(KeysProblem::Format(format!("more than {MOST_KEYS} keys")));
            }
            let keys: Vec<Key> = set.keys.iter().filter_map(Key::of).collect();
            if keys.is_empty() {
                return Err(KeysProblem::NoKey(set.keys.len()));
            }
            let mut digest = Sha256::new_with_prefix(Sha256::digest(content));
            digest.update(Sha256::digest(&rules.issuer));
            if let Some(audience) = &rules.audience {
                digest.update(audience);
            }
            Ok(Self { keys, rules, digest: digest.finalize().into() })
        }

        /// The claims of a token and the second since 1970 up to which they hold; `now` is one,
        /// too.
        ///
        /// # Errors
        /// Why it has none.
        pub fn verify(
            &self,
            authorization: &[u8],
            now: u64,
        ) -> Result<(Claims, u64), TokenProblem> {
            let token = bearer(authorization).ok_or(TokenProblem::NoToken)?;
            if token.len() > MAX_TOKEN {
                return Err(TokenProblem::TooLong);
            }
            let claims = self.signed(token)?;
            let until = self.check(&claims, now)?;
            Ok((Claims::of(&claims), until))
        }

        fn signed(&self, token: &[u8]) -> Result<Map<String, Value>, TokenProblem> {
            let header = decode_header(token).map_err(|_| TokenProblem::Malformed)?;
            // Whoever does not understand what is critical must refuse (RFC 7515, 4.1.11).
            if header.crit.is_some() {
                return Err(TokenProblem::Malformed);
            }
            let named = |key: &&Key| match (&key.id, &header.kid) {
                (Some(id), Some(wanted)) => id == wanted,
                (None, _) | (_, None) => true,
            };
            let ways = self.keys.iter().filter(named).filter_map(|key| {
                let way = key.ways.iter().find(|(algorithm, _)| *algorithm == header.alg)?;
                Some((&key.key, &way.1))
            });
            let mut problem = TokenProblem::NoKey;
            for (key, validation) in ways.take(MOST_TRIED) {
                match decode(token, key, validation) {
                    Ok(data) => return Ok(data.claims),
                    Err(error) if *error.kind() == ErrorKind::InvalidSignature => {
                        problem = TokenProblem::Signature;
                    }
                    Err(_) => problem = TokenProblem::Malformed,
                }
            }
            Err(problem)
        }

        fn check(&self, claims: &Map<String, Value>, now: u64) -> Result<u64, TokenProblem> {
            let until = match claims.get("exp") {
                Some(end) => seconds(end)?.saturating_add(LEEWAY),
                None => return Err(TokenProblem::NoEnd),
            };
            if now >= until {
                return Err(TokenProblem::Expired);
            }
            if let Some(begin) = claims.get("nbf")
                && now.saturating_add(LEEWAY) < seconds(begin)?
            {
                return Err(TokenProblem::NotYet);
            }
            if claims.get("iss").and_then(Value::as_str) != Some(&self.rules.issuer) {
                return Err(TokenProblem::Issuer);
            }
            match &self.rules.audience {
                Some(audience) if !is_for(claims.get("aud"), audience) => {
                    Err(TokenProblem::Audience)
                }
                Some(_) | None => Ok(until),
            }
        }

        /// Number of keys of use.
        #[must_use]
        pub fn keys(&self) -> usize {
            self.keys.len()
        }

        /// A SHA-256 over the keys and the rules.
        #[must_use]
        pub fn digest(&self) -> &[u8; 32] {
            &self.digest
        }
    }

    impl fmt::Debug for Tokens {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut tokens = formatter.debug_struct("Tokens");
            tokens
                .field("keys", &self.keys.len())
                .field("rules", &self.rules)
                .finish_non_exhaustive()
        }
    }

    /// A NumericDate (RFC 7519, 2): seconds since 1970, perhaps with a fraction.
    fn seconds(value: &Value) -> Result<u64, TokenProblem> {
        // Saturates on both ends.
        let whole = |seconds: f64| seconds as u64;
        value.as_u64().or_else(|| value.as_f64().map(whole)).ok_or(TokenProblem::Malformed)
    }

    fn is_for(named: Option<&Value>, audience: &str) -> bool {
        let is = |value: &Value| value.as_str() == Some(audience);
        named.is_some_and(|named| {
            is(named) || named.as_array().is_some_and(|all| all.iter().any(is))
        })
    }

    impl Key {
        fn of(given: &Value) -> Option<Self> {
            let jwk = Jwk::deserialize(given).ok()?;
            let common = &jwk.common;
            let signs =
                common.public_key_use.as_ref().is_none_or(|is| *is == PublicKeyUse::Signature);
            let verifies = common
                .key_operations
                .as_ref()
                .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
            if !signs || !verifies {
                return None;
            }
            let key = DecodingKey::from_jwk(&jwk).ok()?;
            let named =
                given.get("alg").map(|name| Algorithm::from_str(name.as_str().unwrap_or("")));
            let ways: Vec<_> = algorithms(&jwk, &key)
                .iter()
                .filter(|algorithm| named.as_ref().is_none_or(|named| *named == Ok(**algorithm)))
                .map(|algorithm| (*algorithm, signature_only(*algorithm)))
                .collect();
            (!ways.is_empty()).then(|| Self { id: common.key_id.clone(), key, ways })
        }
    }

    /// What a key is good for by its kind and size; nothing for one that is broken.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library may come to know more kinds")]
    fn algorithms(jwk: &Jwk, key: &DecodingKey) -> &'static [Algorithm] {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        // RSA keys are kept in two numbers instead.
        let length = key.try_get_as_bytes().map_or(0, <[u8]>::len);
        match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) if RSA_BYTES.contains(&(rsa.n.len() * 3 / 4)) => {
                &[RS256, RS384, RS512, PS256, PS384, PS512]
            }
            AlgorithmParameters::EllipticCurve(ec)
                if ec.curve == EllipticCurve::P256 && length == 65 =>
            {
                &[ES256]
            }
            AlgorithmParameters::EllipticCurve(ec)
                if ec.curve == EllipticCurve::P384 && length == 97 =>
            {
                &[ES384]
            }
            AlgorithmParameters::OctetKeyPair(pair)
                if pair.curve == EllipticCurve::Ed25519 && length == 32 =>
            {
                &[EdDSA]
            }
            _ => &[],
        }
    }

    /// The claims are checked here, since the library would look at the clock.
    fn signature_only(algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation
    }
}

#[cfg(not(feature = "jwt"))]
mod absent {
    use super::{KeysProblem, TokenProblem, TokenRules};
    use crate::routing::facts::Claims;

    /// There is none in this build.
    #[derive(Debug)]
    pub enum Tokens {}

    impl Tokens {
        /// There is none in this build.
        ///
        /// # Errors
        /// Always.
        pub fn new(_content: &[u8], _rules: TokenRules) -> Result<Self, KeysProblem> {
            Err(KeysProblem::NotInThisBuild)
        }

        /// The claims of a token and the second since 1970 up to which they hold.
        ///
        /// # Errors
        /// Why it has none.
        pub fn verify(
            &self,
            _authorization: &[u8],
            _now: u64,
        ) -> Result<(Claims, u64), TokenProblem> {
            match *self {}
        }

        /// Number of keys of use.
        #[must_use]
        pub fn keys(&self) -> usize {
            match *self {}
        }

        /// A SHA-256 over the keys and the rules.
        #[must_use]
        pub fn digest(&self) -> &[u8; 32] {
            match *self {}
        }
    }
}

#[cfg(test)]
#[cfg(feature = "jwt")]
mod tests;
