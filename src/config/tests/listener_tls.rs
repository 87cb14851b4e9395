//! What is said about the certificates of listeners.

use std::fs;

use super::directory_with_certificates;
use crate::{
    config::{Compiled, Problems, compile_text},
    tls::NameRule,
};

struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        Self(directory_with_certificates())
    }

    fn put(&self, name: &str, content: &str) {
        fs::write(self.0.path().join(name), content).unwrap();
    }

    fn compile(&self, listeners: &str) -> Result<Compiled, Problems> {
        let text = format!("version: 1\nlisteners:\n{listeners}\n");
        compile_text(&text, &self.0.path().join("haldane.yaml"), &|_| None)
    }

    fn tls(&self, tls: &str) -> Result<Compiled, Problems> {
        self.compile(&format!("  - address: 127.0.0.1:8443\n    tls:\n{tls}"))
    }

    /// Problems as `line:column path: message`, the directory left out.
    fn problems(&self, tls: &str) -> Vec<String> {
        let problems = self.tls(tls).expect_err("it was accepted");
        let here = format!("{}/", self.0.path().display());
        let show = |problem: &crate::config::Problem| {
            let crate::config::Problem { line, column, path, message, .. } = problem;
            format!("{line}:{column} {path}: {message}").replace(&here, "")
        };
        problems.list().iter().map(show).collect()
    }
}

const PAIR: &str = "      certificates: { cert: tls/shop.crt, key: tls/shop.key }\n";

#[test]
fn files_of_no_use_are_named_where_they_are_written() {
    let scene = Scene::new();
    let of = |cert: &str, key: &str| {
        scene
            .problems(&format!("      certificates:\n        - cert: {cert}\n          key: {key}"))
    };
    let path = "listeners[0].tls.certificates[0]";
    assert_eq!(
        of("tls/none", "tls/shop.key"),
        [format!("6:17 {path}.cert: tls/none: No such file or directory (os error 2)")]
    );
    assert_eq!(
        of("tls/shop.crt", "tls/shop.crt"),
        [format!("7:16 {path}.key: tls/shop.crt: there is no private key in it")]
    );
    assert_eq!(
        of("tls/shop.key", "tls/shop.key"),
        [format!("6:17 {path}.cert: tls/shop.key: there is no certificate in it")]
    );
    scene.put("other.key", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    assert_eq!(
        of("tls/shop.crt", "other.key"),
        [format!(
            "7:16 {path}.key: other.key: this key does not belong to the certificate in tls/shop.crt"
        )]
    );
    let clients = scene.problems(&format!("{PAIR}      client_ca: tls/shop.key"));
    assert_eq!(
        clients,
        ["6:18 listeners[0].tls.client_ca: tls/shop.key: there is no certificate in it"]
    );
}

#[test]
fn an_expired_certificate_is_something_to_think_about() {
    let scene = Scene::new();
    let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    scene.put("tls/shop.crt", &params.self_signed(&key).unwrap().pem());
    scene.put("tls/shop.key", &key.serialize_pem());
    let advice = scene.tls(PAIR).unwrap().advice;
    let said =
        |text: &&String| text.ends_with("has expired at 2020-01-01T00:00:00Z: clients refuse it");
    assert!(advice.iter().any(|text| said(&text)), "{advice:?}");
}

#[test]
fn clients_are_described_by_rules_that_cannot_be_mistaken() {
    let scene = Scene::new();
    let rules = "      client_ca: tls/clients.pem
      client_auth: optional
      client_names: [\"*.clients.example.com\", \"spiffe://example.com/*\"]
      client_header: X-Client
      hsts: 365d";
    let compiled = scene
        .compile(&format!(
            "  - address: 127.0.0.1:8080\n  - address: 127.0.0.1:8443\n    tls:\n{PAIR}{rules}"
        ))
        .unwrap();
    let tls = compiled.proxy.listeners[1].tls.clone().unwrap();
    let clients = tls.clients.unwrap();
    assert!(clients.optional);
    assert_eq!(clients.names[0], NameRule::DnsUnder("clients.example.com".to_owned()));
    assert_eq!(tls.hsts.unwrap(), "max-age=31536000");
    for listener in &compiled.proxy.listeners {
        assert_eq!(listener.reserved_fields, ["x-client"]);
    }
    let without = scene.problems(&format!("{PAIR}      client_header: x-client"));
    assert_eq!(
        without,
        ["6:22 listeners[0].tls.client_header: without `client_ca` no client is asked"]
    );
    let wrong = scene
        .problems(&format!("{PAIR}      client_ca: tls/clients.pem\n      client_names: \"*\""));
    assert_eq!(wrong, ["7:21 listeners[0].tls.client_names: `*` is no rule for names"]);
}

#[test]
fn redirects_lead_to_the_listener_with_tls() {
    let scene = Scene::new();
    let port = |others: &str, more: &str| {
        let listeners =
            format!("  - {{ address: \"127.0.0.1:8080\", redirect: https{more} }}\n{others}");
        scene.compile(&listeners).unwrap().proxy.listeners[0].redirect_https
    };
    let with_tls = |port: u16| format!("  - address: 127.0.0.1:{port}\n    tls:\n{PAIR}");
    assert_eq!(port("", ""), Some(443));
    assert_eq!(port(&with_tls(8443), ""), Some(8443));
    assert_eq!(port(&format!("{}{}", with_tls(8443), with_tls(443)), ""), Some(443));
    assert_eq!(port(&with_tls(8443), ", redirect_port: 444"), Some(444));
    let useless =
        scene.compile("  - { address: \"127.0.0.1:8080\", redirect_port: 444 }").unwrap_err();
    assert!(useless.to_string().contains("of use only with `redirect: https`"), "{useless}");
}
