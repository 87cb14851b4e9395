//! The operator's view: status, metrics and the few verbs that steer a rollout. Reads published
//! snapshots on a runtime of its own, so that no scrape can touch the latency that we judge by.

mod settings;

pub use settings::Settings;
