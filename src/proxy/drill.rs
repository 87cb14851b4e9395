//! The drill: harm that is done to an arm's answers on purpose. It is counted like the real thing,
//! and every answer that it touched says so.

use std::{future::pending, pin::pin};

use http::{HeaderMap, HeaderValue};
use tokio::time::sleep;

use super::{
    error::ProxyError,
    forward::{self, Exchange, Failure},
};
use crate::routing::Harm;

/// The header field of every answer that was hurt; its value is what was done.
const MARK: &str = "x-haldane-drill";

/// Does harm to the answer of an upstream. Nothing is done to a request that failed by itself.
pub(super) async fn hurt(harm: Harm, mut exchange: Exchange) -> Result<Exchange, Failure> {
    match harm {
        Harm::Latency(added) => {
            let slept = exchange.deadline.bound(pin!(sleep(added))).await;
            match slept {
                Ok(()) => return Ok(exchange),
                Err(_elapsed) => forward::let_go(exchange),
            }
        }
        Harm::Errors => forward::let_go(exchange),
        Harm::Hang => {
            // Its connection waits with it, as it would with a request that really hangs.
            let _ = exchange.deadline.bound(pin!(pending::<()>())).await;
        }
    }
    Err(ProxyError::Drill(harm).into())
}

/// Marks an answer that was hurt.
pub(super) fn mark(headers: &mut HeaderMap, harm: Harm) {
    let word = match harm {
        Harm::Latency(_) => "latency",
        Harm::Errors => "errors",
        Harm::Hang => "hang",
    };
    headers.insert(MARK, HeaderValue::from_static(word));
}
