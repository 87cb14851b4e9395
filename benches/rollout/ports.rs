//! Free ports, each given out once. They lie below the range that the system takes for outgoing
//! connections: else a closed port could be some client's own, which would then talk to itself.
//!
//! A process that is just being started holds for a moment whatever is open here, so none is started
//! while a port is tried: [`spawn`] sees to that.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};

const FIRST: u16 = 12_000;
const LAST: u16 = 32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);
static STARTING: Mutex<()> = Mutex::new(());

/// Listens on the loopback, on a port that nobody else is given.
pub(crate) fn listen() -> io::Result<TcpListener> {
    // Two benches at the same time begin at different places.
    let begin = u16::try_from(std::process::id() % u32::from(LAST - FIRST)).unwrap_or(0);
    let mut tried = Err(io::ErrorKind::AddrInUse.into());
    for _ in FIRST..LAST {
        let offset = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (LAST - FIRST);
        tried = TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST + offset));
        if tried.is_ok() {
            break;
        }
    }
    tried
}

/// An address on the loopback that nobody listens on and nobody else is given.
pub(crate) fn free() -> io::Result<SocketAddr> {
    let _nobody_starts = nobody_starts();
    listen()?.local_addr()
}

/// Starts a process.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let _nobody_starts = nobody_starts();
    command.spawn()
}

fn nobody_starts() -> MutexGuard<'static, ()> {
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}
