//! What both sides of the proxy share of TLS: PEM files, certificates with their keys, and whom to
//! trust.
//!
//! The sessions themselves are `proxy`'s: `arrive` speaks to clients, `upstream` to upstreams.
//! Nothing here opens a socket.

mod client;
mod clients;
mod files;
mod identity;
mod names;
mod pem;
mod server;

pub use client::client_config;
pub use clients::Clients;
pub use files::Files;
pub use identity::{Identity, Validity};
pub use names::{NameRule, caller};
pub use pem::{Problem, Source, certificates, private_key, roots};
pub use server::Server;
