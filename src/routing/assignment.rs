//! The assignment: which arm a request of a service goes to. Made once per request, in this order:
//! a believed override, a pin, the keyed hash of the assignment key, the coin.
//!
//! The hash is SipHash-2-4 under the service's salt. Its input is the key's bytes alone and not
//! where they were read: a user whose id comes in a cookie from the browser and in a header from the
//! app sees one version in both. It does not know weights, arms or routes, so the same key is the
//! same unit on every replica, after every restart and under every table.

use std::{borrow::Cow, net::IpAddr};

use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher24;

use super::{
    ArmIndex, CohortId, KeySource, RequestHead, Salt, Service, ServiceDial,
    read::{cookie, parameter},
};

/// The arm of a request, and how it came to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The arm.
    pub arm: ArmIndex,
    /// The keyed hash of the assignment key, never 0; 0 where no key decided: by the coin, a pin or
    /// an override.
    pub unit: u64,
    /// Whether the request was forced there (pin, override) and is left out of the evidence.
    pub excluded: bool,
}

/// The bucket of a hash or a coin: its upper part scaled to 0..10,000, `(hash * 10^4) >> 64`.
#[must_use]
pub fn bucket(hash: u64) -> u16 {
    ((u128::from(hash) * super::BUCKETS as u128) >> 64) as u16
}

/// Assigns a request. `coin` is 64 fresh random bits, used where the request has no key.
#[must_use]
pub fn assign(
    service: &Service,
    dial: &ServiceDial,
    cohort: CohortId,
    head: &RequestHead<'_>,
    coin: u64,
) -> Assignment {
    if let Some(arm) = overridden(service, head).or_else(|| dial.pin(cohort)) {
        return Assignment { arm, unit: 0, excluded: true };
    }
    let unit = key_hash(&service.assign_by, service.salt, head);
    let arm = dial.arm(cohort, bucket(unit.unwrap_or(coin)));
    Assignment { arm, unit: unit.unwrap_or(0), excluded: false }
}

/// The keyed hash of the first key that is present, never 0. An empty value is no key: it would
/// make one unit of all who have none.
pub(super) fn key_hash(sources: &[KeySource], salt: Salt, head: &RequestHead<'_>) -> Option<u64> {
    sources.iter().find_map(|source| {
        let key = match source {
            KeySource::Cookie(name) => cookie(head.headers, name).map(Cow::Borrowed),
            KeySource::Header(name) => {
                head.headers.get(name).map(|value| Cow::Borrowed(value.as_bytes()))
            }
            KeySource::Query(name) => parameter(head.query, name),
            KeySource::ClientIp => return Some(address_hash(salt, head.client_ip)),
        }?;
        (!key.is_empty()).then(|| hash(salt, &key))
    })
}

/// The hash of an address: its octets behind 0xFF, which no text begins with. Of an IPv6 address
/// only the first 64 bits count: the rest is the client's own to choose, and changes daily.
fn address_hash(salt: Salt, address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            hash(salt, &[0xff, a, b, c, d])
        }
        IpAddr::V6(v6) => {
            let mut key = [0xff; 9];
            key[1..].copy_from_slice(&v6.octets()[..8]);
            hash(salt, &key)
        }
    }
}

fn hash(salt: Salt, key: &[u8]) -> u64 {
    // 0 says "no key" in events.
    SipHasher24::new_with_keys(salt.0, salt.1).hash(key).max(1)
}

/// The arm that a trusted client asks for; a value that names none is passed over.
fn overridden(service: &Service, head: &RequestHead<'_>) -> Option<ArmIndex> {
    let rule = service.override_by.as_ref()?;
    let wish = head.headers.get(&rule.header)?.as_bytes();
    let client_ip = head.client_ip.to_canonical();
    if !rule.from.iter().any(|net| net.contains(&client_ip)) {
        return None;
    }
    if wish == b"never" {
        return Some(ArmIndex(0));
    }
    let arm = service.arms.iter().position(|arm| arm.name.as_bytes() == wish)?;
    Some(ArmIndex(arm as u8))
}

impl Salt {
    /// The key made of a salt as the operator wrote it: the first 16 bytes of its SHA-256, as two
    /// little-endian words.
    #[must_use]
    pub fn derive(text: &str) -> Self {
        let digest = Sha256::digest(text.as_bytes());
        let word = |from: usize| {
            digest[from..from + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        Self(word(0), word(8))
    }
}
