//! Haldane: a reverse proxy that splits requests between a baseline and its canaries by cohort
//! rules, measures every request inline, and takes weight away from a canary when the evidence
//! says that it is worse.
//!
//! The modules below stand in reading order. `ARCHITECTURE.md` says which may import which; the
//! test `tests/it/tidy.rs` holds the code to it.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod judge;
pub mod lab;
pub mod measure;
pub mod plot;
pub mod proxy;
pub mod rollout;
pub mod routing;
pub mod shutdown;
pub mod tls;
