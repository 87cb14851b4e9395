//! Writes small databases in MaxMind's format for tests: IPv6 trees with records of 32 bits, version
//! 2.0 of the format. Nothing is shared or compressed.

use ipnet::IpNet;

/// Where the country is written in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::routing) enum Place {
    IsoCode,
    CountryCode,
    Country,
    /// Nowhere that it is looked for.
    Elsewhere,
}

/// The files in `tests/data`: one network in two countries.
pub(in crate::routing) fn shipped() -> [(&'static str, Vec<u8>); 2] {
    let of = |country| database(Place::IsoCode, &[("203.0.113.0/24", country)]);
    [("country-de.mmdb", of("DE")), ("country-fr.mmdb", of("FR"))]
}

/// A database with a country for each of these networks, which do not overlap.
pub(in crate::routing) fn database(place: Place, networks: &[(&str, &str)]) -> Vec<u8> {
    let mut data = Vec::new();
    // Both sides of every node; 0 leads nowhere yet, since nothing leads to the root.
    let mut nodes: Vec<[Next; 2]> = vec![[Next::Nothing; 2]];
    for (network, country) in networks {
        let record = data.len();
        data.extend(record_of(place, country));
        insert(&mut nodes, network.parse().unwrap(), record);
    }
    let mut content = Vec::new();
    for side in nodes.iter().flatten() {
        let number = match side {
            Next::Nothing => nodes.len(),
            Next::Node(index) => *index,
            // Behind the tree come 16 bytes of nothing.
            Next::Record(offset) => nodes.len() + 16 + offset,
        };
        content.extend((number as u32).to_be_bytes());
    }
    content.extend([0; 16]);
    content.extend(data);
    content.extend(b"\xab\xcd\xefMaxMind.com");
    content.extend(metadata(nodes.len()));
    content
}

#[derive(Clone, Copy)]
enum Next {
    Nothing,
    Node(usize),
    Record(usize),
}

/// IPv4 stands under ::/96.
fn insert(nodes: &mut Vec<[Next; 2]>, network: IpNet, record: usize) {
    let (bits, length) = match network {
        IpNet::V4(v4) => (u128::from(u32::from(v4.network())), v4.prefix_len() + 96),
        IpNet::V6(v6) => (u128::from(v6.network()), v6.prefix_len()),
    };
    let mut node = 0;
    for depth in 0..length {
        let side = (bits >> (127 - depth) & 1) as usize;
        if depth + 1 == length {
            nodes[node][side] = Next::Record(record);
        } else if let Next::Node(next) = nodes[node][side] {
            node = next;
        } else {
            nodes.push([Next::Nothing; 2]);
            nodes[node][side] = Next::Node(nodes.len() - 1);
            node = nodes.len() - 1;
        }
    }
}

fn record_of(place: Place, country: &str) -> Vec<u8> {
    match place {
        Place::IsoCode => map(&[("country", map(&[("iso_code", text(country))]))]),
        Place::CountryCode => map(&[("country_code", text(country))]),
        Place::Country => map(&[("country", text(country))]),
        Place::Elsewhere => map(&[("as_name", text(country))]),
    }
}

fn metadata(nodes: usize) -> Vec<u8> {
    // Extended types: the first byte holds the size, the second the type less seven.
    let languages = vec![0x00, 11 - 7];
    let built = [vec![0x04, 9 - 7], 1_700_000_000_u32.to_be_bytes().to_vec()].concat();
    map(&[
        ("binary_format_major_version", number16(2)),
        ("binary_format_minor_version", number16(0)),
        ("build_epoch", built),
        ("database_type", text("Test")),
        ("description", map(&[("en", text("Countries for tests"))])),
        ("ip_version", number16(6)),
        ("languages", languages),
        ("node_count", [vec![6 << 5 | 4], (nodes as u32).to_be_bytes().to_vec()].concat()),
        ("record_size", number16(32)),
    ])
}

fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![7 << 5 | pairs.len() as u8];
    for (key, value) in pairs {
        bytes.extend(text(key));
        bytes.extend(value);
    }
    bytes
}

fn text(text: &str) -> Vec<u8> {
    assert!(text.len() < 29, "longer texts are written in another way");
    [&[2 << 5 | text.len() as u8], text.as_bytes()].concat()
}

fn number16(number: u16) -> Vec<u8> {
    [&[5 << 5 | 2], &number.to_be_bytes()[..]].concat()
}
