//! Keys, tokens, and what must not be believed.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::rc::Rc;

use super::*;
use crate::routing::facts::{
    VerifiedTokens,
    signing::{Signer, base64url, key_set},
};

const NOW: u64 = 1_800_000_000;

fn rules(audience: Option<&str>) -> TokenRules {
    TokenRules { issuer: "https://id.example".to_owned(), audience: audience.map(str::to_owned) }
}

/// What verifies tokens of these signers.
fn tokens(signers: &[&Signer], audience: Option<&str>) -> Tokens {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.public()).collect();
    Tokens::new(&key_set(&keys), rules(audience)).unwrap()
}

/// Claims that are good at `NOW`, with some more.
fn claims(more: &Value) -> Value {
    let mut claims = json!({ "iss": "https://id.example", "exp": NOW + 600, "sub": "u7" });
    let more = more.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(more);
    claims
}

fn problem(tokens: &Tokens, authorization: &str) -> TokenProblem {
    tokens.verify(authorization.as_bytes(), NOW).expect_err("it was accepted")
}

#[test]
fn every_kind_of_key_verifies_its_own_tokens_and_no_others() {
    let algorithms =
        [Algorithm::RS256, Algorithm::PS512, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];
    let signers = algorithms.map(|algorithm| Signer::new(algorithm, None));
    for signer in &signers {
        let tokens = tokens(&[signer], None);
        let (found, until) =
            tokens.verify(signer.bearer(&claims(&json!({}))).as_bytes(), NOW).unwrap();
        assert_eq!(found.get("sub").unwrap()[0].as_ref(), "u7");
        assert_eq!(until, NOW + 660);
        for other in signers.iter().filter(|other| other.algorithm != signer.algorithm) {
            assert_eq!(problem(&tokens, &other.bearer(&claims(&json!({})))), TokenProblem::NoKey);
        }
        let stranger = Signer::new(signer.algorithm, None);
        let forged = stranger.bearer(&claims(&json!({})));
        assert_eq!(problem(&tokens, &forged), TokenProblem::Signature);
    }
}

#[test]
fn the_key_says_the_algorithm_and_not_the_token() {
    let signer = Signer::new(Algorithm::RS256, None);
    let tokens = tokens(&[&signer], None);
    // The public key is no shared secret, in whatever form it is taken.
    let public = signer.public();
    for secret in [public["n"].as_str().unwrap().to_owned(), public.to_string()] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let token = encode(&Header::new(Algorithm::HS256), &claims(&json!({})), &key).unwrap();
        assert_eq!(problem(&tokens, &format!("Bearer {token}")), TokenProblem::NoKey);
    }
    // {"alg":"none"} with good claims, with and without a signature.
    let good = signer.bearer(&claims(&json!({})));
    let parts: Vec<&str> = good.split('.').collect();
    for signature in ["", parts[2]] {
        let unsigned = format!("Bearer eyJhbGciOiJub25lIn0.{}.{signature}", parts[1]);
        assert_eq!(problem(&tokens, &unsigned), TokenProblem::Malformed);
    }
    // RS256 is written at the key: RS512 by the same key is another algorithm.
    let header = Header::new(Algorithm::RS512);
    let other = signer.with_header(&header, &claims(&json!({})));
    assert_eq!(problem(&tokens, &other), TokenProblem::NoKey);
    let mut anyhow = signer.public();
    anyhow.as_object_mut().unwrap().remove("alg");
    let open = Tokens::new(&key_set(&[anyhow]), rules(None)).unwrap();
    assert!(open.verify(other.as_bytes(), NOW).is_ok());
}

#[test]
fn a_key_id_picks_the_key_and_without_one_each_is_tried() {
    let [one, two] = ["one", "two"].map(|id| Signer::new(Algorithm::ES256, Some(id)));
    let both = tokens(&[&one, &two], None);
    let good = claims(&json!({}));
    assert!(both.verify(two.bearer(&good).as_bytes(), NOW).is_ok());
    assert_eq!(problem(&tokens(&[&one], None), &two.bearer(&good)), TokenProblem::NoKey);
    let nameless = two.with_header(&Header::new(Algorithm::ES256), &good);
    assert!(both.verify(nameless.as_bytes(), NOW).is_ok());
    let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
    assert_eq!(problem(&both, &two.with_header(&header, &good)), TokenProblem::Signature);
}

#[test]
fn times_issuer_and_audience_are_checked() {
    let signer = Signer::new(Algorithm::EdDSA, None);
    let tokens = tokens(&[&signer], Some("shop"));
    let check = |more: &Value, expected: Result<(), TokenProblem>| {
        let authorization = signer.bearer(&claims(more));
        let found = tokens.verify(authorization.as_bytes(), NOW).map(|_| ());
        assert_eq!(found, expected, "{more}");
    };
    check(&json!({ "aud": "shop" }), Ok(()));
    check(&json!({ "aud": ["other", "shop"] }), Ok(()));
    check(&json!({ "aud": "other" }), Err(TokenProblem::Audience));
    check(&json!({}), Err(TokenProblem::Audience));
    check(&json!({ "aud": "shop", "iss": "https://id.example/" }), Err(TokenProblem::Issuer));
    check(&json!({ "aud": "shop", "iss": null }), Err(TokenProblem::Issuer));
    check(&json!({ "aud": "shop", "exp": NOW - 59 }), Ok(()));
    check(&json!({ "aud": "shop", "exp": NOW - 60 }), Err(TokenProblem::Expired));
    check(&json!({ "aud": "shop", "exp": NOW as f64 + 0.5 }), Ok(()));
    check(&json!({ "aud": "shop", "exp": -5 }), Err(TokenProblem::Expired));
    check(&json!({ "aud": "shop", "exp": 1e300 }), Ok(()));
    check(&json!({ "aud": "shop", "exp": "soon" }), Err(TokenProblem::Malformed));
    check(&json!({ "aud": "shop", "nbf": NOW + 60 }), Ok(()));
    check(&json!({ "aud": "shop", "nbf": NOW + 61 }), Err(TokenProblem::NotYet));
    let endless = signer.bearer(&json!({ "iss": "https://id.example", "aud": "shop" }));
    assert_eq!(problem(&tokens, &endless), TokenProblem::NoEnd);
}

#[test]
fn what_is_critical_and_not_understood_is_refused() {
    let signer = Signer::new(Algorithm::ES256, None);
    let header = Header { crit: Some(vec!["b64".to_owned()]), ..Header::new(Algorithm::ES256) };
    let authorization = signer.with_header(&header, &claims(&json!({})));
    assert_eq!(problem(&tokens(&[&signer], None), &authorization), TokenProblem::Malformed);
}

#[test]
fn the_scheme_is_bearer_in_any_case_and_nothing_else() {
    let token = |field: &str| bearer(field.as_bytes()).map(|token| token.to_vec());
    assert_eq!(token("Bearer a.b.c"), Some(b"a.b.c".to_vec()));
    assert_eq!(token("bearer   a.b.c "), Some(b"a.b.c".to_vec()));
    for field in ["", "Bearer", "Bearer ", "Bearera.b.c", "Basic a.b.c", "Beärer x"] {
        assert_eq!(token(field), None, "{field}");
    }
    let signer = Signer::new(Algorithm::ES256, None);
    let tokens = tokens(&[&signer], None);
    assert_eq!(problem(&tokens, "Basic dTpw"), TokenProblem::NoToken);
    let long = format!("Bearer {}", "a".repeat(MAX_TOKEN + 1));
    assert_eq!(problem(&tokens, &long), TokenProblem::TooLong);
}

#[test]
fn keys_of_no_use_are_passed_over_and_a_set_of_them_is_refused() {
    let signer = Signer::new(Algorithm::ES256, None);
    let with = |name: &str, value: Value| {
        let mut key = signer.public();
        key[name] = value;
        key
    };
    let rsa = Signer::new(Algorithm::RS256, None).public();
    let mut short = rsa.clone();
    short["n"] = rsa["n"].as_str().unwrap()[..170].into();
    let useless = vec![
        json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" }),
        json!({ "kty": "oct", "k": "c2VjcmV0" }),
        with("use", "enc".into()),
        with("key_ops", json!(["sign"])),
        with("alg", "ES384".into()),
        with("alg", "ES999".into()),
        with("alg", 7.into()),
        with("x", "AAAA".into()),
        with("x", "not base64!".into()),
        with("crv", "P-384".into()),
        with("kty", "AKP".into()),
        short,
        json!({}),
        json!("key"),
    ];
    for key in &useless {
        let refused = Tokens::new(&key_set(std::slice::from_ref(key)), rules(None)).unwrap_err();
        assert_eq!(refused, KeysProblem::NoKey(1), "{key}");
    }
    let set = key_set(&[useless, vec![signer.public()]].concat());
    let tokens = Tokens::new(&set, rules(None)).unwrap();
    assert_eq!(tokens.keys(), 1);
    assert!(tokens.verify(signer.bearer(&claims(&json!({}))).as_bytes(), NOW).is_ok());
    for content in ["", "[]", "{}", "{\"keys\": 7}", "not json"] {
        let refused = Tokens::new(content.as_bytes(), rules(None)).unwrap_err();
        assert!(matches!(refused, KeysProblem::Format(_)), "{content}");
    }
}

#[test]
fn a_token_is_verified_once_within_its_time_and_the_keys_that_it_was_verified_by() {
    let signer = Signer::new(Algorithm::ES256, None);
    let tokens = tokens(&[&signer], None);
    let verified = VerifiedTokens::default();
    let good = signer.bearer(&claims(&json!({ "exp": NOW + 10 })));
    let ask = |tokens: &Tokens, now| verified.claims(tokens, good.as_bytes(), now);
    let first = ask(&tokens, NOW).unwrap();
    assert!(Rc::ptr_eq(&first, &ask(&tokens, NOW + 69).unwrap()));
    assert_eq!(ask(&tokens, NOW + 70), None, "over, leeway included");
    // Somebody else's keys, and the same keys with another rule.
    let stranger = Signer::new(Algorithm::ES256, None);
    assert_eq!(ask(&self::tokens(&[&stranger], None), NOW), None);
    assert!(ask(&tokens, NOW).is_some());
    assert_eq!(ask(&self::tokens(&[&signer], Some("shop")), NOW), None);
    let forged = stranger.bearer(&claims(&json!({})));
    assert_eq!(verified.claims(&tokens, forged.as_bytes(), NOW), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_of_a_field_panic_or_are_believed(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "(?i)bearer [A-Za-z0-9_-]{0,60}(\\.[A-Za-z0-9_-]{0,60}){0,4}".prop_map(String::into_bytes),
            ("\\PC{0,30}", "\\PC{0,60}").prop_map(|(header, payload)| {
                let header = format!("{{\"alg\":\"ES256\",\"x\":\"{header}\"}}");
                format!("Bearer {}.{}.AAAA", base64url(header.as_bytes()), base64url(payload.as_bytes())).into_bytes()
            }),
        ],
    ) {
        thread_local! {
            static TOKENS: Tokens = tokens(&[&Signer::new(Algorithm::ES256, None)], None);
        }
        TOKENS.with(|tokens| {
            prop_assert!(tokens.verify(&bytes, NOW).is_err());
            prop_assert_eq!(VerifiedTokens::default().claims(tokens, &bytes, NOW), None);
            Ok(())
        })?;
    }

    #[test]
    fn no_changed_token_is_believed(at in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_.-]") {
        thread_local! {
            static GOOD: (Tokens, String) = {
                let signer = Signer::new(Algorithm::ES256, None);
                (tokens(&[&signer], None), signer.bearer(&claims(&json!({ "tier": "gold" }))))
            };
        }
        GOOD.with(|(tokens, good)| {
            let place = "Bearer ".len() + at.index(good.len() - "Bearer ".len());
            let mut changed = good.clone();
            changed.replace_range(place..=place, &letter);
            if changed != *good {
                prop_assert!(tokens.verify(changed.as_bytes(), NOW).is_err());
            }
            Ok(())
        })?;
    }
}
