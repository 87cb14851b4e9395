//! Just enough HTTP/1.1 to cost little: messages are split at their empty line and their
//! `content-length`; nothing is chunked, because both ends are ours or answer with a length.

use std::io;

use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Largest head or body that is taken.
const MOST_BYTES: usize = 16 << 20;
const READ_BYTES: usize = 2048;

/// A connection and what was read from it but not yet taken.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
    /// Whether the connection may be used again.
    pub(crate) keeps: bool,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(READ_BYTES) })
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next head up to its empty line; `None` where the other side closed before its first byte.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                let rest = self.buffer.split_off(end + 4);
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            if !self.more().await? {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// The answer to what was written; `None` where the other side closed without one.
    pub(crate) async fn answer(&mut self) -> io::Result<Option<Answer>> {
        let Some(head) = self.head().await? else { return Ok(None) };
        let status = head.get(9..12).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        let length = field(&head, "content-length").and_then(|text| text.parse().ok());
        let length: usize = length.ok_or(io::ErrorKind::InvalidData)?;
        while self.buffer.len() < length {
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.buffer.split_off(length);
        let body = std::mem::replace(&mut self.buffer, rest);
        let keeps = !field(&head, "connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        Ok(Some(Answer { status, head, body, keeps }))
    }

    /// Reads once; false at the end.
    async fn more(&mut self) -> io::Result<bool> {
        if self.buffer.len() > MOST_BYTES {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.buffer.reserve(READ_BYTES);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }
}

/// The first field of this name, which is given in lower case.
pub(crate) fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(head).ok()?;
    text.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
