//! Hashes in the journal: one string of sixteen hexadecimal digits each. Shorter than decimal
//! numbers, and no reader of JSON rounds them.

use std::fmt::Write as _;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Digits of one hash.
const DIGITS: usize = 16;

pub(crate) fn serialize<S: Serializer>(hashes: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = String::with_capacity(hashes.len() * DIGITS);
    for hash in hashes {
        write!(text, "{hash:016x}").map_err(serde::ser::Error::custom)?;
    }
    serializer.serialize_str(&text)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let (hashes, rest) = text.as_bytes().as_chunks::<DIGITS>();
    if !rest.is_empty() {
        return Err(D::Error::custom("hashes have sixteen digits each"));
    }
    let hash = |digits: &[u8; DIGITS]| {
        let digits = std::str::from_utf8(digits).map_err(D::Error::custom)?;
        u64::from_str_radix(digits, 16).map_err(D::Error::custom)
    };
    hashes.iter().map(hash).collect()
}
