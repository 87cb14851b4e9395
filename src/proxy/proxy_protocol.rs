//! The PROXY protocol, versions 1 and 2: a balancer's word, ahead of everything else, about whom it
//! speaks for. After the specification that HAProxy publishes (`proxy-protocol.txt`).
//!
//! Only the client's address is of interest; what more a header says (ports, where it came to, type-
//! length-values) is skipped. Nothing behind the header is taken from the socket.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tokio::io::{AsyncReadExt, Interest};

use super::stream::Socket;

/// How a header of version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The part of it that says how long the rest is.
const FIXED: usize = 16;
/// Most bytes of the rest; addresses need 216, the others are what a balancer adds.
const MOST_REST: usize = 4096;
/// Most bytes of a header of version 1, its end of line included.
const MOST_TEXT: usize = 107;
const TEXT: &[u8; 6] = b"PROXY ";

/// A header is broken, or there is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Malformed {
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    #[error("the PROXY header is malformed")]
    Broken,
    #[error("the PROXY header is too long")]
    TooLong,
}

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// The beginning of a header.
    Part,
    /// A header of this length. It names a client, or says that the peer speaks for itself.
    Whole { length: usize, client: Option<IpAddr> },
}

/// Reads the header. None: the peer speaks for itself, as it does to see whether we are there.
pub(super) async fn receive(socket: &mut Socket) -> io::Result<Option<IpAddr>> {
    let mut header = [0; FIXED + MOST_REST];
    let mut taken = 0;
    loop {
        // Looked at before it is taken: what follows belongs to somebody else.
        let count = peek(socket, &mut header[taken..]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = taken + count;
        let seen = parse(&header[..end])
            .map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))?;
        let (until, whole) = match seen {
            Seen::Part => (end, None),
            Seen::Whole { length, client } => (length, Some(client)),
        };
        socket.read_exact(&mut header[taken..until]).await?;
        if let Some(client) = whole {
            return Ok(client);
        }
        taken = until;
    }
}

async fn peek(socket: &Socket, into: &mut [u8]) -> io::Result<usize> {
    match socket {
        Socket::Tcp(stream) => stream.peek(into).await,
        Socket::Unix(stream) => loop {
            stream.readable().await?;
            let looked = stream.try_io(Interest::READABLE, || {
                let (count, _) =
                    rustix::net::recv(stream, &mut *into, rustix::net::RecvFlags::PEEK)?;
                Ok(count)
            });
            match looked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        },
        Socket::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn parse(bytes: &[u8]) -> Result<Seen, Malformed> {
    let begins = |expected: &[u8]| {
        let length = bytes.len().min(expected.len());
        bytes[..length] == expected[..length]
    };
    if begins(SIGNATURE) {
        parse_binary(bytes)
    } else if begins(TEXT) {
        parse_text(bytes)
    } else {
        Err(Malformed::Missing)
    }
}

fn parse_text(bytes: &[u8]) -> Result<Seen, Malformed> {
    let looked_at = &bytes[..bytes.len().min(MOST_TEXT)];
    let Some(end) = looked_at.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < MOST_TEXT { Ok(Seen::Part) } else { Err(Malformed::TooLong) };
    };
    let line = std::str::from_utf8(&bytes[TEXT.len()..end]).map_err(|_| Malformed::Broken)?;
    let whole = |client| Ok(Seen::Whole { length: end + 2, client });
    let words: Vec<&str> = line.split(' ').collect();
    if words[0] == "UNKNOWN" {
        return whole(None);
    }
    let [family, from, to, from_port, to_port] = words[..] else {
        return Err(Malformed::Broken);
    };
    let port =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    let both = |fits: fn(&IpAddr) -> bool| {
        let address = |text: &str| text.parse::<IpAddr>().ok().filter(fits);
        address(from).filter(|_| address(to).is_some())
    };
    let client = match family {
        "TCP4" => both(IpAddr::is_ipv4),
        "TCP6" => both(IpAddr::is_ipv6),
        _ => None,
    };
    match client.filter(|_| port(from_port) && port(to_port)) {
        Some(client) => whole(Some(client.to_canonical())),
        None => Err(Malformed::Broken),
    }
}

fn parse_binary(bytes: &[u8]) -> Result<Seen, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(Seen::Part);
    };
    let (version, command) = (fixed[12] >> 4, fixed[12] & 0xf);
    let (family, transport) = (fixed[13] >> 4, fixed[13] & 0xf);
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if version != 2 || command > 1 || family > 3 || transport > 2 {
        return Err(Malformed::Broken);
    }
    if length > MOST_REST {
        return Err(Malformed::TooLong);
    }
    if rest.len() < length {
        return Ok(Seen::Part);
    }
    let rest = &rest[..length];
    // Family 3 is a Unix socket, 0 unspecified: neither has an address to speak of.
    let client: Option<IpAddr> = match (command, family) {
        (1, 1) => {
            let (from, _) = rest.split_first_chunk::<12>().ok_or(Malformed::Broken)?;
            Some(Ipv4Addr::from([from[0], from[1], from[2], from[3]]).into())
        }
        (1, 2) => {
            let from = rest.get(..36).and_then(|both| both.first_chunk::<16>());
            Some(Ipv6Addr::from(*from.ok_or(Malformed::Broken)?).into())
        }
        _ => None,
    };
    let client = client.map(|client| client.to_canonical());
    Ok(Seen::Whole { length: FIXED + length, client })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend(rest);
        header
    }

    fn check(header: &[u8], client: Option<&str>) {
        let mut bytes = header.to_vec();
        bytes.extend(b"GET / HTTP/1.1\r\n");
        let client = client.map(|text| text.parse().unwrap());
        assert_eq!(parse(&bytes), Ok(Seen::Whole { length: header.len(), client }));
        for cut in 0..header.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(Seen::Part), "cut at {cut}");
        }
    }

    #[test]
    fn text_headers_name_the_client() {
        check(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", Some("192.0.2.1"));
        check(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", Some("2001:db8::1"));
        check(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", Some("192.0.2.1"));
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None);
    }

    #[test]
    fn binary_headers_name_the_client_unless_the_peer_speaks_for_itself() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 1, 2, 3, 4];
        check(&binary(1, 0x11, &v4), Some("192.0.2.1"));
        let with_more: Vec<u8> = v4.iter().copied().chain([0x04, 0, 1, 9]).collect();
        check(&binary(1, 0x11, &with_more), Some("192.0.2.1"));
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[15] = 1;
        check(&binary(1, 0x21, &v6), Some("2001:db8::1"));
        check(&binary(0, 0x11, &v4), None);
        check(&binary(0, 0, &[]), None);
        check(&binary(1, 0x31, &[0; 216]), None);
        check(&binary(1, 0, &[1, 2, 3]), None);
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let refused = |bytes: &[u8]| parse(bytes).unwrap_err();
        for missing in
            [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"\x16\x03\x01", b"proxy TCP4", b"\r\n\r\nGET"]
        {
            assert_eq!(refused(missing), Malformed::Missing);
        }
        for broken in [
            "PROXY \r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            "PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 ::1 ::2 1 2\r\n",
            "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
            "PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
        ] {
            assert_eq!(refused(broken.as_bytes()), Malformed::Broken, "{broken}");
        }
        assert_eq!(refused(&binary(1, 0x11, &[0; 11])), Malformed::Broken);
        assert_eq!(refused(&binary(1, 0x21, &[0; 35])), Malformed::Broken);
        assert_eq!(refused(&binary(2, 0x11, &[0; 12])), Malformed::Broken);
        let unending = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(refused(&unending), Malformed::TooLong);
        assert_eq!(refused(&binary(1, 0x11, &vec![0; MOST_REST + 1])), Malformed::TooLong);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(
            start in prop_oneof![
                Just(Vec::new()), Just(SIGNATURE.to_vec()), Just(TEXT.to_vec()), Just(b"PROXY TCP4 ".to_vec()),
            ],
            rest in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let bytes = [start, rest].concat();
            match parse(&bytes) {
                Ok(Seen::Whole { length, client }) => {
                    prop_assert!(length <= bytes.len());
                    // What follows makes no difference.
                    prop_assert_eq!(parse(&bytes[..length]), Ok(Seen::Whole { length, client }));
                    prop_assert_eq!(parse(&bytes[..length - 1]), Ok(Seen::Part));
                }
                Ok(Seen::Part) => prop_assert!(bytes.len() < FIXED + MOST_REST),
                // A header that is broken stays so, whatever comes.
                Err(_) => prop_assert!(parse(&[&bytes[..], b"\r\n"].concat()).is_err()),
            }
        }

        #[test]
        fn every_client_is_read_back(v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>(), port: u16) {
            let (v4, v6) = (Ipv4Addr::from(v4), Ipv6Addr::from(v6));
            for client in [IpAddr::from(v4), IpAddr::from(v6)] {
                let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                let text = format!("PROXY {family} {client} {client} {port} {port}\r\n");
                let client = Some(client.to_canonical());
                prop_assert_eq!(parse(text.as_bytes()), Ok(Seen::Whole { length: text.len(), client }));
            }
            let rest: Vec<u8> = v6.octets().into_iter().chain([0; 20]).collect();
            let header = binary(1, 0x21, &rest);
            let client = Some(IpAddr::from(v6).to_canonical());
            prop_assert_eq!(parse(&header), Ok(Seen::Whole { length: header.len(), client }));
        }
    }
}
