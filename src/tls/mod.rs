//! What both sides of the proxy share of TLS: PEM files, and whether they changed.
//!
//! The sessions themselves are `proxy`'s: `accept` speaks to clients, `upstream` to upstreams.
//! Nothing here opens a socket.

mod client;
mod files;
mod pem;

pub use client::client_config;
pub use files::Files;
pub use pem::{Problem, certificates, private_key, roots};
