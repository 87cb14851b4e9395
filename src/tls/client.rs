//! How the proxy verifies an upstream, and what it shows to it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use super::pem::{Problem, certificates, private_key, roots};

/// TLS 1.2 and 1.3 towards an upstream that is verified by `ca` (none: by the system's
/// certificates), showing the certificate and key of `identity` if there is one. Sessions are
/// resumed among the connections made with one of these.
///
/// # Errors
///
/// If a file is of no use, or the key is not the certificate's.
pub fn client_config(
    ca: Option<&Path>,
    identity: Option<&(PathBuf, PathBuf)>,
) -> Result<ClientConfig, Problem> {
    let roots = match ca {
        Some(path) => Arc::new(roots(path)?),
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Problem::Setup)?
        .with_root_certificates(roots);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder
            .with_client_auth_cert(certificates(chain)?, private_key(key)?)
            .map_err(|error| Problem::Refused(chain.clone(), error)),
    }
}

/// The system's certificates, read once: reading them takes many milliseconds.
fn system_roots() -> Result<Arc<RootCertStore>, Problem> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "one of the system's certificates cannot be read");
        }
        // Old roots that do not parse are of no use to anybody, and nobody's fault.
        roots.add_parsable_certificates(found.certs);
        Arc::new(roots)
    });
    if roots.is_empty() { Err(Problem::NoSystemRoots) } else { Ok(Arc::clone(roots)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(ca: Option<&Path>, identity: Option<&(PathBuf, PathBuf)>) -> String {
        client_config(ca, identity).map_or_else(|problem| problem.to_string(), |_| "ok".to_owned())
    }

    #[test]
    fn files_of_no_use_are_named_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let one = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let two = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let cert = file("one.crt", &one.cert.pem());
        let key = file("one.key", &one.signing_key.serialize_pem());
        let foreign = file("two.key", &two.signing_key.serialize_pem());
        let text = file("text", "hello");
        let here = dir.path().display();
        let said_of =
            |chain: &PathBuf, key: &PathBuf| said(Some(&cert), Some(&(chain.clone(), key.clone())));
        assert_eq!(said(Some(&cert), None), "ok");
        assert_eq!(said_of(&cert, &key), "ok");
        assert_eq!(said(Some(&text), None), format!("{here}/text: there is no certificate in it"));
        assert_eq!(said_of(&cert, &text), format!("{here}/text: there is no private key in it"));
        assert!(said(Some(&dir.path().join("none")), None).contains("No such file"));
        let refused = said_of(&cert, &foreign);
        assert!(refused.starts_with(&format!("{here}/one.crt: ")), "{refused}");
        assert!(refused.contains("keys may not be consistent"), "{refused}");
    }
}
