//! The data plane: one file per stage of a request's life. Start reading at `handle`.

mod settings;

pub use settings::{Limits, Listen, ListenerSettings, ListenerTls, Settings};
