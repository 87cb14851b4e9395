//! Which clients are let in by their certificates.

use std::{path::Path, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{
    names::{NameRule, caller},
    pem::{Problem, Source, roots_in},
    server::provider,
};

/// Who issues the certificates of clients, and what must be in them. Two are equal when they let in
/// the same.
#[derive(Clone, Debug)]
pub struct Clients {
    ca: Source,
    roots: Arc<RootCertStore>,
    /// Names of which a certificate needs one; any certificate will do where there are none.
    pub names: Vec<NameRule>,
    /// Whether clients without a certificate are let in, too.
    pub optional: bool,
}

impl PartialEq for Clients {
    fn eq(&self, other: &Self) -> bool {
        (&self.ca, &self.names, self.optional) == (&other.ca, &other.names, other.optional)
    }
}

impl Eq for Clients {}

impl Clients {
    /// Reads the certificates of the issuers: every client must show one of theirs.
    ///
    /// # Errors
    ///
    /// If the file is of no use.
    pub fn load(ca: &Path) -> Result<Self, Problem> {
        let (ca, bytes) = Source::read(ca)?;
        let roots = Arc::new(roots_in(&ca.path, &bytes)?);
        Ok(Self { ca, roots, names: Vec::new(), optional: false })
    }

    /// Reads the same file again.
    ///
    /// # Errors
    ///
    /// If the file is of no use.
    pub fn again(&self) -> Result<Self, Problem> {
        let Self { names, optional, .. } = self.clone();
        Ok(Self { names, optional, ..Self::load(&self.ca.path)? })
    }

    /// The file of the issuers.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.ca
    }

    pub(super) fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, Problem> {
        let builder = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&self.roots),
            Arc::clone(provider()),
        );
        let builder = if self.optional { builder.allow_unauthenticated() } else { builder };
        let verified = builder.build().map_err(|error| {
            Problem::Refused(self.ca.path.clone(), Error::General(error.to_string()))
        })?;
        Ok(if self.names.is_empty() {
            verified
        } else {
            Arc::new(Named { verified, rules: self.names.clone() })
        })
    }
}

/// Verifies as `verified` does, and looks at the names.
#[derive(Debug)]
struct Named {
    verified: Arc<dyn ClientCertVerifier>,
    rules: Vec<NameRule>,
}

impl ClientCertVerifier for Named {
    fn offer_client_auth(&self) -> bool {
        self.verified.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verified.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verified.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verified.verify_client_cert(leaf, intermediates, now)?;
        match caller(leaf, &self.rules) {
            Some(_) => Ok(verified),
            None => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verified.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verified.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verified.supported_verify_schemes()
    }
}
