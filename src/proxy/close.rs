//! Closing a client's connection so that it can read our last words: whoever closes a socket on
//! which unread bytes wait resets it, and a reset takes away what the client has not read yet
//! (RFC 9112, section 9.6).

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{handle::Client, stream::Socket};
use crate::measure::ShedReason;

/// How much of what a client still sends is read after the last answer, and for how long.
const LINGER_BYTES: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(2);

const TOO_LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 40\r\nconnection: close\r\n\r\n\
    haldane: the request head came too late\n";

/// Closes the connection; tells a client whose head was `late` so.
pub(super) async fn close(client: &Client, mut socket: Socket, late: bool) {
    if late {
        client.worker.shed(ShedReason::HeaderTimeout);
        // The client may be gone; then nobody misses the answer.
        let _ = timeout(LINGER, async {
            socket.write_all(TOO_LATE).await?;
            socket.flush().await
        })
        .await;
    }
    linger(socket, client.state.peer_ended()).await;
}

/// Closes our side, and reads for a while what the client still sends.
pub(super) async fn linger(mut socket: Socket, peer_ended: bool) {
    // A client that reads nothing can keep TLS from saying goodbye.
    let closed = timeout(LINGER, socket.shutdown()).await;
    if !matches!(closed, Ok(Ok(()))) || peer_ended {
        return;
    }
    let drain = async {
        let mut scratch = vec![0; 16 * 1024];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match socket.read(&mut scratch).await {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    };
    // Whoever sends for longer than that is cut off.
    let _ = timeout(LINGER, drain).await;
}
