//! One integration binary: the behaviour of a running proxy, module by module.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test by panicking")]

mod accounting;
mod admin;
mod asks;
mod assignment;
mod balance;
mod command_line;
mod edge;
mod events;
mod forward;
mod grpc;
mod h2;
mod harness;
mod journal;
mod operate;
mod plane;
mod refuse;
mod reload;
mod rescue;
mod secure;
mod streams;
mod tidy;
mod tls;
mod tls_clients;
mod tls_upstream;
mod upgrades;
mod upstream;
