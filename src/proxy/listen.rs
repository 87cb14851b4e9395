//! Listening sockets: bound once, cloned into every worker.
//!
//! One socket per address is shared by all workers: closing a member of an SO_REUSEPORT group would
//! reset what the kernel has queued on it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use super::settings::{Listen, ListenerSettings};
use crate::tls;

/// Length of the kernel's queue of connections that nobody has accepted yet.
const BACKLOG: i32 = 4096;

/// A bound listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// How it behaves.
    pub settings: Arc<ListenerSettings>,
    /// TLS, made ready once for all workers.
    pub(super) tls: Option<tls::Server>,
    socket: Arc<ListenSocket>,
    /// Connections that are open over all workers.
    open: Arc<AtomicU32>,
    /// Connections that the limit of open files allows.
    affordable: u32,
}

/// Descriptors that are not for connections: the journal, the listeners, the runtimes.
const OTHER_FILES: u64 = 40;

#[derive(Debug)]
enum ListenSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, std::path::PathBuf),
}

impl Drop for ListenSocket {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Left behind it would only be in the way of the next start, which removes it too.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A listener's socket as one worker has it.
#[derive(Debug)]
pub(super) enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    /// Binds a listener.
    ///
    /// # Errors
    ///
    /// The system's, with the address named; or that TLS cannot be set up.
    pub fn bind(settings: &Arc<ListenerSettings>) -> io::Result<Self> {
        let tls = tls(settings, None)?;
        let socket = match &settings.address {
            Listen::Tcp(addr) => bind_tcp(*addr).map(ListenSocket::Tcp),
            Listen::Unix(path) => bind_unix(path).map(|it| ListenSocket::Unix(it, path.clone())),
        };
        let socket = socket.map_err(|error| {
            let address = match &settings.address {
                Listen::Tcp(addr) => addr.to_string(),
                Listen::Unix(path) => format!("unix:{}", path.display()),
            };
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })?;
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let affordable = files.saturating_sub(OTHER_FILES).max(2) / 2;
        Ok(Self {
            settings: Arc::clone(settings),
            tls,
            socket: Arc::new(socket),
            open: Arc::default(),
            affordable: u32::try_from(affordable).unwrap_or(u32::MAX),
        })
    }

    /// The same socket under new settings.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up.
    pub fn with_settings(&self, settings: &Arc<ListenerSettings>) -> io::Result<Self> {
        let tls = if settings.tls == self.settings.tls {
            self.tls.clone()
        } else {
            tls(settings, self.tls.as_ref())?
        };
        Ok(Self { settings: Arc::clone(settings), tls, ..self.clone() })
    }

    /// The bound address; none for a Unix socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &*self.socket {
            ListenSocket::Tcp(listener) => listener.local_addr().ok(),
            ListenSocket::Unix(..) => None,
        }
    }

    /// Whether both are the same socket.
    #[must_use]
    pub fn same_socket(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.socket, &other.socket)
    }

    pub(super) fn accepting(&self) -> io::Result<Accepting> {
        match &*self.socket {
            ListenSocket::Tcp(listener) => {
                tokio::net::TcpListener::from_std(listener.try_clone()?).map(Accepting::Tcp)
            }
            ListenSocket::Unix(listener, _) => {
                tokio::net::UnixListener::from_std(listener.try_clone()?).map(Accepting::Unix)
            }
        }
    }

    /// Takes one of the listener's places, unless all are taken: as many as its settings say, and
    /// no more than leave a file descriptor for the upstream of each.
    pub(super) fn take_place(&self) -> Option<ListenerPlace> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let place = ListenerPlace(Arc::clone(&self.open));
        (open < self.settings.limits.connections.min(self.affordable)).then_some(place)
    }
}

/// One open connection of a listener; given back when dropped.
#[derive(Debug)]
pub(super) struct ListenerPlace(Arc<AtomicU32>);

impl Drop for ListenerPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn tls(
    settings: &ListenerSettings,
    before: Option<&tls::Server>,
) -> io::Result<Option<tls::Server>> {
    let made = settings
        .tls
        .as_ref()
        .map(|tls| tls::Server::new(&tls.certificates, tls.clients.as_ref(), before));
    made.transpose().map_err(io::Error::other)
}

fn bind_tcp(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_unix(path: &std::path::Path) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::{fs::FileTypeExt, net::UnixStream};
    let stale = std::fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket())
        && UnixStream::connect(path).is_err();
    if stale {
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
