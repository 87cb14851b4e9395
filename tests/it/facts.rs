//! Countries and claims, from their files to the cohort of a request.

use std::{fs, path::Path};

use crate::harness::{Call, Haldane, Upstream, eventually};

/// Puts a file of `tests/data` in the place of another, all at once.
fn put(directory: &Path, from: &str, to: &str) {
    let new = directory.join("new.tmp");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    fs::copy(data.join(from), &new).unwrap();
    fs::rename(new, directory.join(to)).unwrap();
}

/// Germans and whoever is gold get the canary.
async fn start(sections: &str, matching: &str, prepare: impl FnOnce(&Path)) -> Haldane {
    let (old, new) = (Upstream::text("old").await, Upstream::text("new").await);
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path());
    let yaml = format!(
        "version: 1
listeners: [{{ name: edge, address: \"127.0.0.1:0\", trusted_proxies: 127.0.0.1 }}]
admin: {{ address: \"127.0.0.1:0\" }}
state_dir: state
{sections}
cohorts: [{{ name: chosen, match: {matching} }}]
services:
  shop:
    baseline: {}
    canaries: {{ v2: {{ upstream: \"{}\", version: \"2\" }} }}
    rollout: {{ manual: true, stages: [1%, 100%] }}
    cohorts: {{ chosen: {{ pin: v2 }} }}
    assign_by: client_ip
routes: [{{ service: shop }}]
",
        old.addr, new.addr
    );
    fs::write(directory.path().join("haldane.yaml"), yaml).unwrap();
    Haldane::in_dir(directory, 2).await
}

#[tokio::test]
async fn a_new_database_gives_clients_another_country_without_a_restart() {
    let haldane = start("geo: { database: country.mmdb }", "{ country: DE }", |directory| {
        put(directory, "country-de.mmdb", "country.mmdb");
    })
    .await;
    let ask = async |address: &str| {
        Call::get("/").header("x-forwarded-for", address).to(haldane.addr).await.text()
    };
    assert_eq!(ask("203.0.113.7").await, "new");
    assert_eq!(ask("192.0.2.7").await, "old");
    // Of no use: what was there before stays in force.
    fs::write(haldane.dir.path().join("country.mmdb"), "no database").unwrap();
    assert!(haldane.reload().await.status.is_client_error());
    assert_eq!(ask("203.0.113.7").await, "new");
    put(haldane.dir.path(), "country-fr.mmdb", "country.mmdb");
    eventually("the client is French", async || (ask("203.0.113.7").await == "old").then_some(()))
        .await;
    // The database is whole again, and nobody has asked for another reload.
    eventually("the reload that failed is still shown", async || {
        let metrics = haldane.metrics().await;
        metrics.contains("haldane_config_last_reload_successful 0").then_some(())
    })
    .await;
    assert_eq!(haldane.reload().await.status, 200);
    put(haldane.dir.path(), "country-de.mmdb", "country.mmdb");
    eventually("the client is German again", async || {
        (ask("203.0.113.7").await == "new").then_some(())
    })
    .await;
    assert!(haldane.metrics().await.contains("haldane_config_last_reload_successful 1"));
}

#[tokio::test]
async fn a_claim_counts_if_a_key_of_the_file_has_signed_it() {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
    use serde_json::json;

    let [old, new] = [(); 2].map(|()| {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        EncodingKey::from_ec_der(&pair.serialize_der())
    });
    let write = |directory: &Path, key: &EncodingKey| {
        let key = Jwk::from_encoding_key(key, Algorithm::ES256).unwrap();
        let beside = directory.join("keys.tmp");
        fs::write(&beside, json!({ "keys": [key] }).to_string()).unwrap();
        fs::rename(beside, directory.join("keys.json")).unwrap();
    };
    let sections = "jwt: { jwks: keys.json, issuer: https://id.example }";
    let matching = "{ jwt_claim: { name: tier, exact: gold } }";
    let haldane = start(sections, matching, |directory| write(directory, &old)).await;
    let bearer = |key: &EncodingKey, tier: &str| {
        let claims =
            json!({ "iss": "https://id.example", "exp": 32_503_680_000_u64, "tier": tier });
        format!("Bearer {}", encode(&Header::new(Algorithm::ES256), &claims, key).unwrap())
    };
    let ask = async |authorization: &str| {
        Call::get("/").header("authorization", authorization).to(haldane.addr).await.text()
    };
    for _ in 0..3 {
        assert_eq!(ask(&bearer(&old, "gold")).await, "new");
        assert_eq!(ask(&bearer(&old, "silver")).await, "old");
        assert_eq!(ask(&bearer(&new, "gold")).await, "old");
        assert_eq!(ask("Bearer x").await, "old");
    }
    write(haldane.dir.path(), &new);
    eventually("the new key is believed", async || {
        (ask(&bearer(&new, "gold")).await == "new").then_some(())
    })
    .await;
    // On the other worker too, and whatever was remembered there.
    eventually("the old key is not", async || {
        (ask(&bearer(&old, "gold")).await == "old").then_some(())
    })
    .await;
}
