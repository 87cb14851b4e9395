//! Makes keys, key sets and tokens for tests.

use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header, encode, jwk::Jwk};
use rcgen::KeyPair;
use serde_json::{Value, json};

/// A key that signs, and its public half.
pub(in crate::routing) struct Signer {
    pub(super) algorithm: Algorithm,
    id: Option<&'static str>,
    key: EncodingKey,
    /// As the key pair writes it: the bare 32 bytes of Ed25519.
    raw_public: Vec<u8>,
}

impl Signer {
    pub(in crate::routing) fn new(algorithm: Algorithm, id: Option<&'static str>) -> Self {
        let kind = match algorithm.family() {
            AlgorithmFamily::Ec if algorithm == Algorithm::ES384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            AlgorithmFamily::Ec => &rcgen::PKCS_ECDSA_P256_SHA256,
            AlgorithmFamily::Ed => &rcgen::PKCS_ED25519,
            AlgorithmFamily::Rsa | AlgorithmFamily::Hmac => &rcgen::PKCS_RSA_SHA256,
        };
        let pair = KeyPair::generate_for(kind).unwrap();
        let der = pair.serialize_der();
        let key = match algorithm.family() {
            AlgorithmFamily::Ec => EncodingKey::from_ec_der(&der),
            AlgorithmFamily::Ed => EncodingKey::from_ed_der(&der),
            // PKCS #1 stands behind the 26 bytes of PKCS #8.
            AlgorithmFamily::Rsa | AlgorithmFamily::Hmac => EncodingKey::from_rsa_der(&der[26..]),
        };
        Self { algorithm, id, key, raw_public: pair.public_key_raw().to_vec() }
    }

    /// The public half as a key set names it, with its algorithm.
    pub(in crate::routing) fn public(&self) -> Value {
        if self.algorithm == Algorithm::EdDSA {
            let x = base64url(&self.raw_public);
            return json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x, "kid": self.id });
        }
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = self.id.map(str::to_owned);
        serde_json::to_value(jwk).unwrap()
    }

    /// `Authorization` with a token of these claims.
    pub(in crate::routing) fn bearer(&self, claims: &Value) -> String {
        let header = Header { kid: self.id.map(str::to_owned), ..Header::new(self.algorithm) };
        self.with_header(&header, claims)
    }

    pub(super) fn with_header(&self, header: &Header, claims: &Value) -> String {
        format!("Bearer {}", encode(header, claims, &self.key).unwrap())
    }
}

/// A key set.
pub(in crate::routing) fn key_set(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

/// Base64 for URLs, without padding.
pub(super) fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let encode = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        let letter = |at: usize| char::from(LETTERS[(bits >> (18 - 6 * at) & 63) as usize]);
        (0..=chunk.len()).map(letter).collect::<String>()
    };
    bytes.chunks(3).map(encode).collect()
}
