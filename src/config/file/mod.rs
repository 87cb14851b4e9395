//! The file as the operator wrote it: a serde mirror of every key, with nothing resolved, checked
//! or defaulted. The comments here are what an editor shows; the JSON schema is made of them.
//!
//! An enum named `\0shape` is told apart by what the value is: see `reader`.

mod listener;
mod matching;
mod plan;
mod route;
pub(super) mod scenario;
mod service;
mod upstream;

use schemars::JsonSchema;
use serde::Deserialize;

pub(super) use listener::{Certificate, ClientAuth, Limits, Listener, ListenerTls};
pub(super) use matching::{Cohort, Device, KeySource, Match, Share, Tested};
pub(super) use plan::{Fallback, Judge, Rollout, Stage, StageOrWeight};
pub(super) use route::{
    HeaderOps, Latency, PrefixRewrite, Retry, Route, Slo, Upgrades, UpgradesWord,
};
pub(super) use service::{Override, Risk, RolloutOrName, Service, Sessions, SessionsWord};
pub(super) use upstream::{
    Balance, HealthCheck, Pool, Protocol, Upstream, UpstreamOrName, UpstreamTls,
};

use super::{
    given::{Given, Many, Named},
    values::{Count, Size, Text, Time},
};

/// The configuration of Haldane.
///
/// Every value may hold `${NAME}` or `${NAME:-default}`. File paths are relative to this file.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(
    deny_unknown_fields,
    title = "Haldane configuration",
    extend("required" = ["version", "listeners"])
)]
pub(super) struct File {
    /// The version of this format: 1.
    pub(super) version: Given<Count>,
    /// Where clients connect to.
    pub(super) listeners: Given<Many<Listener>>,
    /// The admin server: dashboard, metrics, API.
    pub(super) admin: Given<Admin>,
    /// Where the journal lives; created if missing. Default: /var/lib/haldane.
    pub(super) state_dir: Given<Text>,
    /// How much of the journal is kept.
    pub(super) journal: Given<Journal>,
    /// How long requests may go on after a SIGTERM. Default: 30s.
    pub(super) drain: Given<Time>,
    /// Where a client's country is looked up.
    pub(super) geo: Given<Geo>,
    /// How JSON Web Tokens are verified.
    pub(super) jwt: Given<Jwt>,
    /// Where requests go to, by name.
    pub(super) upstreams: Given<Named<Upstream>>,
    /// Segments of requests, in order: the first that matches names the request's cohort, everyone
    /// else is `default`.
    pub(super) cohorts: Given<Many<Cohort>>,
    /// A baseline and its canaries, by name.
    pub(super) services: Given<Named<Service>>,
    /// Which requests lead to which service.
    pub(super) routes: Given<Many<Route>>,
    /// Plans of rollouts, by name.
    pub(super) rollouts: Given<Named<Rollout>>,
}

/// The admin server.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Admin {
    /// Where it listens; a change needs a restart. Default: 127.0.0.1:9900.
    pub(super) address: Given<Text>,
    /// A file with the token that every write needs. Without one, writes are accepted from loopback
    /// alone.
    pub(super) token_file: Given<Text>,
}

/// How much of the journal is kept.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Journal {
    /// For how long. Default: 30d.
    pub(super) keep: Given<Time>,
    /// Up to which size. Default: 1GiB.
    pub(super) max_size: Given<Size>,
}

/// Where a client's country is looked up.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Geo {
    /// A database of countries by address, in MaxMind's format.
    pub(super) database: Given<Text>,
}

/// How JSON Web Tokens are verified.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Jwt {
    /// A file with the keys, as a JSON Web Key Set.
    pub(super) jwks: Given<Text>,
    /// Who must have issued a token (`iss`).
    pub(super) issuer: Given<Text>,
    /// For whom a token must have been issued (`aud`); anyone where left out.
    pub(super) audience: Given<Text>,
}
