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
    let arm = match unit {
        Some(unit) => dial.keyed_arm(cohort, bucket(unit)),
        None => dial.arm(cohort, bucket(coin)),
    };
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::routing::{
        CohortPolicy, Condition, Override,
        fixtures::{Request, service},
    };

    const DEFAULT: CohortId = CohortId(0);
    const BASELINE: ArmIndex = ArmIndex(0);
    const CANARY: ArmIndex = ArmIndex(1);

    fn visitor(key: &str) -> Request {
        Request::get("shop", "/").with("cookie", &format!("uid={key}"))
    }

    fn assigned(service: &Service, weights_bp: &[u16], request: &Request) -> Assignment {
        let dial = ServiceDial::new(service, weights_bp);
        assign(service, &dial, DEFAULT, &request.head(), 0)
    }

    #[test]
    fn the_hash_is_the_published_siphash_2_4() {
        let salt = Salt(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let input: Vec<u8> = (0..15).collect();
        assert_eq!(hash(salt, &input), 0xa129_ca61_49be_45e5);
    }

    // Whoever changes one of these numbers moves every user of every deployment.
    #[test]
    fn keys_keep_their_units_and_buckets_for_ever() {
        let salt = Salt::derive("checkout");
        assert_eq!(salt, Salt(0xdd7e_9f96_581e_76c7, 0xe821_201b_6486_8149));
        for (key, unit, in_bucket) in [
            ("user-1", 0x781f_bef8_40f9_2442, 4692),
            ("user-2", 0x70fb_a926_a9b8_ed0b, 4413),
            ("a", 0x1022_8e90_ec4d_fce8, 630),
            ("8a2f0c9e-3b1d-4b6c-9f57-0f2f4a5e6d7c", 0x4911_2394_cc18_d9cb, 2854),
            ("Zoë", 0x180c_ed57_eba1_e052, 939),
        ] {
            assert_eq!((hash(salt, key.as_bytes()), bucket(unit)), (unit, in_bucket), "{key}");
        }
        let address = |text: &str| address_hash(salt, text.parse().unwrap());
        assert_eq!(address("203.0.113.7"), 0xe161_6466_7129_2f6b);
        assert_eq!(address("::ffff:203.0.113.7"), 0xe161_6466_7129_2f6b);
        assert_eq!(address("2001:db8:1:2::7"), 0xb052_5c49_a011_b67b);
        assert_eq!(address("2001:db8:1:2:ffff::"), 0xb052_5c49_a011_b67b);
    }

    #[test]
    fn buckets_divide_the_hashes_evenly() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), 9_999);
        assert_eq!(bucket(1 << 63), 5_000);
        assert_eq!(bucket((1 << 63) - 1), 4_999);
    }

    #[test]
    fn the_same_id_is_the_same_unit_wherever_it_is_read() {
        let sources = [KeySource::Cookie("uid".into()), KeySource::Query("uid".into())];
        let header = KeySource::Header("x-user-id".parse().unwrap());
        let service = Service { assign_by: [&sources[..], &[header]].concat(), ..service(1, &[]) };
        let browser = visitor("user-1");
        let app = Request::get("shop", "/").with("x-user-id", "user-1");
        let link = Request::get("shop", "/").query("uid=user%2D1");
        let unit = |request: &Request| assigned(&service, &[5000], request).unit;
        assert_eq!(unit(&browser), unit(&app));
        assert_eq!(unit(&browser), unit(&link));
        let both = visitor("user-2").with("x-user-id", "user-1");
        assert_ne!(unit(&browser), unit(&both), "the first source that is present decides");
    }

    #[test]
    fn an_empty_key_is_no_key() {
        let both = vec![KeySource::Cookie("uid".into()), KeySource::ClientIp];
        let service = Service { assign_by: both, ..service(1, &[]) };
        let anonymous = assigned(&service, &[5000], &visitor(""));
        let address = address_hash(service.salt, visitor("").client_ip);
        assert_eq!(anonymous.unit, address);
    }

    #[test]
    fn without_a_key_the_coin_decides() {
        let service = service(1, &[]);
        let dial = ServiceDial::new(&service, &[500]);
        let request = Request::get("shop", "/");
        let by_coin = |coin| assign(&service, &dial, DEFAULT, &request.head(), coin);
        let canary = by_coin(0);
        assert_eq!(canary, Assignment { arm: CANARY, unit: 0, excluded: false });
        assert_eq!(by_coin(u64::MAX).arm, BASELINE);
        let coins = (0..10_000u64).map(|n| n * (u64::MAX / 10_000) + (1 << 49));
        assert_eq!(coins.filter(|coin| by_coin(*coin).arm == CANARY).count(), 500);
    }

    #[test]
    fn a_session_that_drains_stays_and_a_coin_leaves() {
        let service = service(1, &[]);
        let before = Arc::new(ServiceDial::new(&service, &[10_000]));
        let dial = ServiceDial::new(&service, &[0]).draining(&before);
        let arm = |request: &Request| assign(&service, &dial, DEFAULT, &request.head(), 7).arm;
        assert_eq!(arm(&visitor("user-1")), CANARY);
        assert_eq!(arm(&Request::get("shop", "/")), BASELINE);
    }

    #[test]
    fn an_override_is_believed_from_trusted_addresses_alone() {
        let rule = Override {
            header: "x-canary".parse().unwrap(),
            from: vec!["10.0.0.0/8".parse().unwrap()],
        };
        let service = Service { override_by: Some(rule), ..service(2, &[]) };
        let asking = |wish: &str, address: &str| {
            assigned(&service, &[0, 0], &visitor("user-1").with("x-canary", wish).from(address))
        };
        let forced = |arm| Assignment { arm: ArmIndex(arm), unit: 0, excluded: true };
        assert_eq!(asking("v2", "10.1.2.3"), forced(2));
        assert_eq!(asking("v2", "::ffff:10.1.2.3"), forced(2));
        assert_eq!(asking("baseline", "10.1.2.3"), forced(0));
        assert_eq!(asking("never", "10.1.2.3"), forced(0));
        let usual = assigned(&service, &[0, 0], &visitor("user-1"));
        assert!(!usual.excluded && usual.unit != 0);
        assert_eq!(asking("v2", "192.0.2.1"), usual);
        assert_eq!(asking("v9", "10.1.2.3"), usual);
    }

    #[test]
    fn a_pinned_cohort_goes_to_its_arm_outside_the_evidence_until_it_is_rolled_back() {
        let pinned = CohortPolicy { pin: Some(CANARY), max_weight_bp: None };
        let service = service(1, &[CohortPolicy::default(), pinned]);
        let request = visitor("user-1");
        let in_cohort = |weight| {
            let dial = ServiceDial::new(&service, &[weight]);
            assign(&service, &dial, CohortId(1), &request.head(), 0)
        };
        assert_eq!(in_cohort(1), Assignment { arm: CANARY, unit: 0, excluded: true });
        assert_eq!(in_cohort(0), assigned(&service, &[0], &request));
        assert!(!in_cohort(0).excluded);
    }

    #[test]
    fn a_percentage_says_nothing_about_the_arm() {
        let service = service(1, &[]);
        let condition = Condition::Percent {
            share_bp: 5000,
            by: service.assign_by.clone(),
            salt: Salt::derive("cohort beta"),
        };
        let mut counts = [[0u32; 2]; 2];
        let dial = ServiceDial::new(&service, &[5000]);
        for user in 0..10_000 {
            let request = visitor(&format!("user-{user}"));
            let arm = assign(&service, &dial, DEFAULT, &request.head(), 0).arm;
            counts[usize::from(condition.holds(&request.head()))][usize::from(arm.0)] += 1;
        }
        // Each cell is binomial with mean 2,500 and sd 43.
        for count in counts.concat() {
            assert!((2_300..2_700).contains(&count), "{counts:?}");
        }
    }

    proptest! {
        #[test]
        fn raising_a_weight_moves_no_user_back_and_lowering_none_forward(
            users in prop::collection::vec("[a-z0-9]{1,12}", 100),
        ) {
            let service = service(1, &[]);
            let at = [500, 2500, 6000, 1000].map(|weight| {
                let dial = ServiceDial::new(&service, &[weight]);
                let on_canary = |user: &&String| {
                    assign(&service, &dial, DEFAULT, &visitor(user).head(), 0).arm == CANARY
                };
                users.iter().filter(on_canary).collect::<BTreeSet<_>>()
            });
            prop_assert!(at[0].is_subset(&at[1]) && at[1].is_subset(&at[2]));
            prop_assert!(at[3].is_subset(&at[2]));
        }

        #[test]
        fn a_key_has_the_same_unit_under_every_table(
            key in "[a-zA-Z0-9-]{1,40}",
            weights in prop::collection::vec(0..3_000u16, 3),
            coin in any::<u64>(),
        ) {
            let three = service(3, &[]);
            let first = assigned(&three, &weights, &visitor(&key));
            let rebuilt = ServiceDial::new(&three.clone(), &weights);
            let again = assign(&three, &rebuilt, DEFAULT, &visitor(&key).head(), coin);
            prop_assert_eq!(first, again);
            prop_assert_eq!(first.unit, assigned(&service(1, &[]), &[10_000], &visitor(&key)).unit);
        }
    }
}
