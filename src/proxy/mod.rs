//! The data plane: one file per stage of a request's life. Start reading at `handle`.
//!
//! Workers read the table and write events; nothing here knows the control plane.

mod accept;
mod arrive;
mod body;
mod check;
mod clock;
mod close;
mod connection;
mod deadline;
mod drill;
mod error;
mod forward;
mod forwarded;
mod grpc;
mod handle;
mod headers;
mod listen;
mod lookout;
mod observe;
mod probe;
mod proxy_protocol;
mod rescue;
mod resolver;
mod second;
mod settings;
mod start;
mod stream;
mod target;
mod tunnel;
mod turns;
mod upgrade;
mod upstream;
mod worker;

pub use listen::Listener;
pub use resolver::{Addresses, Resolver};
pub use settings::{Limits, Listen, ListenerSettings, ListenerTls, Settings};
pub use start::{Inputs, Proxy};
pub use worker::Link;
