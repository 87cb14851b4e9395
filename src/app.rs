//! The composition root: from a compiled configuration to bound sockets and running threads.
