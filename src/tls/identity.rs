//! A certificate with its key, as a listener shows it: read from two files, checked to belong
//! together. An expired one is still an identity: whether to go on with it is not decided here.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    Error, InconsistentKeys,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, UnixTime},
    sign::CertifiedKey,
};
use webpki::{EndEntityCert, KeyUsage};

use super::pem::{Problem, Source, certificates_in, private_key_in};

/// A certificate chain and its key. Two are equal when their files are and hold the same.
#[derive(Clone, Debug)]
pub struct Identity {
    cert: Source,
    key: Source,
    certified: Arc<CertifiedKey>,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.cert == other.cert && self.key == other.key
    }
}

impl Eq for Identity {}

/// When a certificate may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Valid,
    /// Not yet: from this moment, in seconds since 1970.
    From(u64),
    /// No more: since this moment, in seconds since 1970.
    Expired(u64),
}

impl Identity {
    /// Reads a certificate chain, leaf first, and its key.
    ///
    /// # Errors
    ///
    /// If a file is of no use, or the key is not the certificate's.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, Problem> {
        let (cert, chain) = Source::read(cert)?;
        let (key, secret) = Source::read(key)?;
        let chain = certificates_in(&cert.path, &chain)?;
        let refused = |error| Problem::Refused(cert.path.clone(), error);
        parse(&chain[0]).map_err(refused)?;
        let signing = aws_lc_rs::sign::any_supported_type(&private_key_in(&key.path, &secret)?)
            .map_err(|error| Problem::Refused(key.path.clone(), error))?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                return Err(Problem::Mismatch { cert: cert.path, key: key.path });
            }
            Err(error) => return Err(refused(error)),
        }
        Ok(Self { cert, key, certified: Arc::new(certified) })
    }

    /// Reads the same files again.
    ///
    /// # Errors
    ///
    /// As [`Identity::load`].
    pub fn again(&self) -> Result<Self, Problem> {
        Self::load(&self.cert.path, &self.key.path)
    }

    /// The files that it was read from: certificate and key.
    #[must_use]
    pub fn sources(&self) -> [&Source; 2] {
        [&self.cert, &self.key]
    }

    pub(super) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// The DNS names of the certificate, `*.example.com` among them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        parse(&self.certified.cert[0]).map_or_else(
            |_| Vec::new(),
            |leaf| leaf.valid_dns_names().map(str::to_ascii_lowercase).collect(),
        )
    }

    /// Whether the certificate may be shown at this moment, given as time since 1970.
    #[must_use]
    pub fn validity(&self, now: Duration) -> Validity {
        let Ok(leaf) = parse(&self.certified.cert[0]) else { return Validity::Valid };
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        // Without anybody to trust there is no path; but whether it is the time for this
        // certificate is looked at first.
        let checked = leaf.verify_for_usage(
            algorithms.all,
            &[],
            &[],
            UnixTime::since_unix_epoch(now),
            KeyUsage::server_auth(),
            None,
            None,
        );
        match checked {
            Err(webpki::Error::CertExpired { not_after, .. }) => {
                Validity::Expired(not_after.as_secs())
            }
            Err(webpki::Error::CertNotValidYet { not_before, .. }) => {
                Validity::From(not_before.as_secs())
            }
            Ok(_) | Err(_) => Validity::Valid,
        }
    }
}

/// The certificate, taken apart.
pub(super) fn parse<'a>(leaf: &'a CertificateDer<'_>) -> Result<EndEntityCert<'a>, Error> {
    EndEntityCert::try_from(leaf)
        .map_err(|error| Error::General(format!("the certificate is malformed: {error}")))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    struct Made {
        dir: tempfile::TempDir,
        cert: PathBuf,
        key: PathBuf,
    }

    fn made(until: Option<(i32, u8, u8)>) -> Made {
        let dir = tempfile::tempdir().unwrap();
        let mut params =
            rcgen::CertificateParams::new(["Shop.example".to_owned(), "*.b.example".to_owned()])
                .unwrap();
        if let Some((year, month, day)) = until {
            params.not_before = rcgen::date_time_ymd(year - 1, month, day);
            params.not_after = rcgen::date_time_ymd(year, month, day);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let (cert_path, key_path) = (dir.path().join("a.crt"), dir.path().join("a.key"));
        fs::write(&cert_path, cert.pem()).unwrap();
        fs::write(&key_path, key.serialize_pem()).unwrap();
        Made { dir, cert: cert_path, key: key_path }
    }

    #[test]
    fn a_certificate_knows_its_names_and_its_time() {
        let made = made(Some((2020, 1, 1)));
        let identity = Identity::load(&made.cert, &made.key).unwrap();
        assert_eq!(identity.names(), ["shop.example", "*.b.example"]);
        let at = |days: u64| identity.validity(Duration::from_secs(days * 86_400));
        let (from, until) = (17_897, 18_262);
        assert_eq!(at(from - 1), Validity::From(from * 86_400));
        assert_eq!(at(from + 1), Validity::Valid);
        assert_eq!(at(until + 1), Validity::Expired(until * 86_400));
    }

    #[test]
    fn content_and_not_time_makes_another_identity() {
        let (one, other) = (made(None), made(None));
        let before = Identity::load(&one.cert, &one.key).unwrap();
        fs::write(&one.cert, fs::read(&one.cert).unwrap()).unwrap();
        assert_eq!(before.again().unwrap(), before);
        fs::copy(&other.cert, &one.cert).unwrap();
        let problem = before.again().unwrap_err();
        assert!(problem.to_string().contains("does not belong to the certificate"), "{problem}");
        fs::copy(&other.key, &one.key).unwrap();
        assert_ne!(before.again().unwrap(), before);
    }

    #[test]
    fn files_of_no_use_are_named_with_the_reason() {
        let made = made(None);
        let said = |cert: &Path, key: &Path| {
            let problem = Identity::load(cert, key).unwrap_err();
            let here = format!("{}/", made.dir.path().display());
            problem.to_string().replace(&here, "")
        };
        let text = made.dir.path().join("text");
        fs::write(&text, "hello").unwrap();
        assert_eq!(said(&text, &made.key), "text: there is no certificate in it");
        assert_eq!(said(&made.cert, &text), "text: there is no private key in it");
        assert_eq!(said(&made.key, &made.key), "a.key: there is no certificate in it");
        let none = said(&made.dir.path().join("none"), &made.key);
        assert!(none.starts_with("none: No such file"), "{none}");
        fs::write(&text, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let malformed = said(&text, &made.key);
        assert!(malformed.contains("the certificate is malformed"), "{malformed}");
    }
}
