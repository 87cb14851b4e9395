//! The configuration from outside: texts in, what is compiled or complained of out.

mod accepted;
#[cfg(all(feature = "geo", feature = "jwt"))]
mod facts;
mod listener_tls;
mod refused;
mod shipped;
mod strange;

use std::path::Path;

use super::{Compiled, Problems, compile_text};

/// Compiles a text as `/etc/haldane/haldane.yaml` with no environment.
fn compile(text: &str) -> Result<Compiled, Problems> {
    compile_text(text, Path::new("/etc/haldane/haldane.yaml"), &|_| None)
}

/// A directory with `tls/shop.crt`, `tls/shop.key` and `tls/clients.pem`.
fn directory_with_certificates() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let tls = directory.path().join("tls");
    std::fs::create_dir(&tls).unwrap();
    let made = rcgen::generate_simple_self_signed(["shop.example.com".to_owned()]).unwrap();
    std::fs::write(tls.join("shop.crt"), made.cert.pem()).unwrap();
    std::fs::write(tls.join("shop.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(tls.join("clients.pem"), made.cert.pem()).unwrap();
    directory
}

/// Compiles a text that must be right.
fn accept(text: &str) -> Compiled {
    compile(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The problems of a text as `line:column path: message (help)`.
fn refuse(text: &str) -> Vec<String> {
    let problems = compile(text).expect_err("it was accepted");
    let show = |problem: &super::Problem| {
        let help = problem.help.as_ref().map_or(String::new(), |help| format!(" ({help})"));
        let super::Problem { line, column, path, message, .. } = problem;
        format!("{line}:{column} {path}: {message}{help}")
    };
    problems.list().iter().map(show).collect()
}

/// A listener, a service and a route, so that a test says only what it is about.
const LEAST: &str = "version: 1
listeners: [{ address: \"0.0.0.0:8080\" }]
services:
  shop:
    baseline: 127.0.0.1:9001
    canaries: { v2: { upstream: \"127.0.0.1:9002\", version: \"2.3.1\" } }
routes: [{ service: shop }]
";
