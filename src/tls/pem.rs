//! Certificates and keys from PEM files. Nothing here judges a certificate: who may show it, for
//! which name and until when, is seen in a handshake.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};

/// Largest file that is read: several times the certificates of all public authorities.
const MAX_BYTES: u64 = 4 << 20;

/// Why a file, or what was made of it, is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be read.
    #[error("{}: {}", .0.display(), .1)]
    Unreadable(PathBuf, io::Error),
    /// It is no PEM.
    #[error("{}: it is no PEM file: {}", .0.display(), .1)]
    NotPem(PathBuf, pem::Error),
    /// There is no certificate in it.
    #[error("{}: there is no certificate in it", .0.display())]
    NoCertificate(PathBuf),
    /// There is no private key in it.
    #[error("{}: there is no private key in it", .0.display())]
    NoKey(PathBuf),
    /// The key is not the certificate's.
    #[error("{}: this key does not belong to the certificate in {}", .key.display(), .cert.display())]
    Mismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// What it holds is refused.
    #[error("{}: {}", .0.display(), .1)]
    Refused(PathBuf, rustls::Error),
    /// The system has no certificates to verify a peer by.
    #[error("the system has no certificates to verify by; name a file with `ca`")]
    NoSystemRoots,
    /// TLS cannot be set up at all.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

impl Problem {
    /// The file that is of no use, where it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Unreadable(path, _)
            | Self::NotPem(path, _)
            | Self::NoCertificate(path)
            | Self::NoKey(path)
            | Self::Mismatch { key: path, .. }
            | Self::Refused(path, _) => Some(path),
            Self::NoSystemRoots | Self::Setup(_) => None,
        }
    }
}

/// A file, and what it held when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of its content.
    pub digest: [u8; 32],
}

impl Source {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<(Self, Vec<u8>), Problem> {
        let bytes = read(path)?;
        let digest = Sha256::digest(&bytes).into();
        Ok((Self { path: path.to_owned(), digest }, bytes))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let unreadable = |error| Problem::Unreadable(path.to_owned(), error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        let message = format!("it is larger than {} MiB", MAX_BYTES >> 20);
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, message)));
    }
    Ok(bytes)
}

/// All certificates of a file, at least one, in its order.
///
/// # Errors
///
/// If the file cannot be read, is no PEM, or holds none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    certificates_in(path, &read(path)?)
}

pub(super) fn certificates_in(
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| Problem::NotPem(path.to_owned(), error))?;
    if certificates.is_empty() {
        return Err(Problem::NoCertificate(path.to_owned()));
    }
    Ok(certificates)
}

/// The first private key of a file.
///
/// # Errors
///
/// If the file cannot be read, is no PEM, or holds none.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    private_key_in(path, &read(path)?)
}

pub(super) fn private_key_in(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Problem> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| {
        if matches!(error, pem::Error::NoItemsFound) {
            Problem::NoKey(path.to_owned())
        } else {
            Problem::NotPem(path.to_owned(), error)
        }
    })
}

/// The certificates of a file as roots of trust.
///
/// # Errors
///
/// If the file cannot be read, is no PEM, holds none, or holds one that cannot be a root.
pub fn roots(path: &Path) -> Result<RootCertStore, Problem> {
    roots_in(path, &read(path)?)
}

pub(super) fn roots_in(path: &Path, bytes: &[u8]) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(path, bytes)? {
        roots.add(certificate).map_err(|error| Problem::Refused(path.to_owned(), error))?;
    }
    Ok(roots)
}
