//! Free ports, each given out once. They lie below the range that the system takes for outgoing
//! connections: else a closed port could be some client's own, which would then talk to itself.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

const FIRST: u16 = 12_000;
const LAST: u16 = 32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// An address on the loopback that nobody listens on and that nobody else is given.
pub(crate) fn free() -> SocketAddr {
    // Two benches at the same time begin at different places.
    let begin = u16::try_from(std::process::id() % u32::from(LAST - FIRST)).unwrap_or(0);
    for _ in FIRST..LAST {
        let offset = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (LAST - FIRST);
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + offset));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
    panic!("no port from {FIRST} to {LAST} is free");
}
