//! What the admin server needs from the configuration.

use std::{net::SocketAddr, path::PathBuf};

/// Settings of the admin server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens; loopback by default.
    pub address: SocketAddr,
    /// The file with the token that every write needs; without one, writes are accepted from
    /// loopback alone.
    pub token_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 9900)), token_file: None }
    }
}
