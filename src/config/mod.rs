//! What the operator wrote: the file as it is (`file`), compiled into what the parts need
//! (`compile`, which collects every problem), and watched for changes (`watch`).

use crate::{admin, proxy, rollout, routing};

/// A configuration that may be put in force.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Routes, cohorts, services and upstreams.
    pub routes: routing::RouteTable,
    /// Listeners.
    pub proxy: proxy::Settings,
    /// Plans and journal.
    pub rollout: rollout::Settings,
    /// Admin server.
    pub admin: admin::Settings,
    /// SHA-256 of the file's content after interpolation, in hex: names this configuration in the
    /// journal and in metrics.
    pub hash: String,
    /// What an operator should think about, one sentence each; among them the parts that are not
    /// yet in force.
    pub advice: Vec<String>,
}
