//! Names of the operator's choice, and the small texts that several sections share: header fields,
//! networks, keys.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::Compiling;
use crate::{
    config::{
        file::{HeaderOps as WrittenOps, KeySource as WrittenKey},
        given::{Given, Many, Named},
        reading::Spot,
        values::Text,
    },
    routing::{HeaderOps, KeySource},
};

/// Names that mean something else among arms and cohorts.
const RESERVED: [&str; 4] = ["default", "baseline", "other", "never"];

/// Longest name: names are labels of metrics and columns of tables.
const LONGEST: usize = 63;

impl Compiling<'_, '_> {
    /// Whether a name may stand in URLs, metrics and `SERVICE/ARM`; notes it if not.
    pub(super) fn check_name(&self, name: &str, spot: Spot) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let good = !name.is_empty() && name.len() <= LONGEST && name.bytes().all(plain);
        if !good {
            self.problem_with_help(
                spot,
                format!("`{name}` cannot be a name"),
                format!("letters, digits, `-`, `_` and `.`, at most {LONGEST} of them"),
            );
        }
        good
    }

    /// As [`Compiling::check_name`], for arms and cohorts, where some names are reserved.
    pub(super) fn check_free_name(&self, name: &str, spot: Spot) -> bool {
        if RESERVED.contains(&name) {
            self.problem_with_help(
                spot,
                format!("the name `{name}` is reserved"),
                format!("any other name than {}", RESERVED.join(", ")),
            );
            return false;
        }
        self.check_name(name, spot)
    }

    /// The items of a list that may not be empty.
    pub(super) fn items<'g, T>(&self, list: &'g Given<Many<T>>) -> &'g [Given<T>] {
        let Some((items, spot)) = list.located() else { return &[] };
        if items.is_empty() {
            self.problem(spot, "an empty list: leave the key out, or say something");
        }
        items
    }

    /// Networks; a single address is a network of one.
    pub(super) fn networks(&self, list: &Given<Many<Text>>) -> Vec<IpNet> {
        let read = |item: &Given<Text>| {
            let (Text(text), spot) = item.located()?;
            let network = text.parse::<IpNet>().ok();
            let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            if network.is_none() {
                self.problem_with_help(
                    spot,
                    format!("`{text}` is not an address or network"),
                    "write it like 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32",
                );
            }
            network.map(|network| network.trunc())
        };
        self.items(list).iter().filter_map(read).collect()
    }

    /// The name of a header field.
    pub(super) fn header_name(&self, text: &str, spot: Spot) -> Option<HeaderName> {
        let name = HeaderName::from_bytes(text.as_bytes()).ok();
        if name.is_none() {
            self.problem(spot, format!("`{text}` cannot be the name of a header field"));
        }
        name
    }

    /// Where keys are read.
    pub(super) fn keys(&self, list: &Given<Many<WrittenKey>>) -> Vec<KeySource> {
        self.items(list).iter().filter_map(|key| self.key(key)).collect()
    }

    fn key(&self, key: &Given<WrittenKey>) -> Option<KeySource> {
        let (key, spot) = key.located()?;
        let named = match key {
            WrittenKey::Word(_) => return Some(KeySource::ClientIp),
            WrittenKey::Named(named) => named,
        };
        let mut sources = Vec::new();
        if let Some((Text(name), spot)) = named.cookie.located() {
            sources.extend(self.token(name, spot).map(KeySource::Cookie));
        }
        if let Some((Text(name), spot)) = named.header.located() {
            sources.extend(self.header_name(name, spot).map(KeySource::Header));
        }
        if let Some((Text(name), spot)) = named.query.located() {
            sources.push(KeySource::Query(name.as_str().into()));
            if name.is_empty() {
                self.problem(spot, "an empty name");
            }
        }
        let given = [&named.cookie, &named.header, &named.query];
        if given.iter().filter(|key| !key.is_absent()).count() != 1 {
            self.problem_with_help(
                spot,
                "a key comes from exactly one place",
                "{ cookie: NAME }, { header: NAME }, { query: NAME } or client_ip",
            );
        }
        sources.pop()
    }

    /// A cookie's name.
    pub(super) fn token(&self, text: &str, spot: Spot) -> Option<Arc<str>> {
        let separator =
            |byte: u8| !byte.is_ascii_graphic() || b"=;,\"\\()<>@:/[]?{}".contains(&byte);
        if text.is_empty() || text.bytes().any(separator) {
            self.problem(spot, format!("`{text}` cannot be the name of a cookie"));
            return None;
        }
        Some(text.into())
    }

    /// Changes to a header.
    pub(super) fn header_ops(&self, ops: &Given<WrittenOps>) -> HeaderOps {
        let Some(ops) = ops.get() else { return HeaderOps::default() };
        let remove = ops.remove.get().map_or(&[] as &[_], |remove| remove);
        let removed = |name: &Given<Text>| {
            let (Text(name), spot) = name.located()?;
            self.free_header(name, spot)
        };
        HeaderOps {
            remove: remove.iter().filter_map(removed).collect(),
            set: self.fields(&ops.set),
            add: self.fields(&ops.add),
        }
    }

    fn fields(&self, fields: &Given<Named<Text>>) -> Vec<(HeaderName, HeaderValue)> {
        let read = |(name, value): &(crate::config::given::Name, Given<Text>)| {
            let header = self.free_header(&name.text, name.spot);
            let (Text(text), spot) = value.located()?;
            let Ok(value) = HeaderValue::from_str(text) else {
                self.problem(spot, "a header field holds no line breaks or control characters");
                return None;
            };
            Some((header?, value))
        };
        fields.get().map_or(&[] as &[_], |fields| fields).iter().filter_map(read).collect()
    }

    /// A header field that the framing of messages does not rest on.
    pub(super) fn free_header(&self, text: &str, spot: Spot) -> Option<HeaderName> {
        const FRAMING: [&str; 7] = [
            "connection",
            "content-length",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ];
        let name = self.header_name(text, spot)?;
        if FRAMING.contains(&name.as_str()) {
            self.problem(spot, format!("`{name}` belongs to the proxy and cannot be changed"));
            return None;
        }
        if name == http::header::HOST {
            self.problem_with_help(
                spot,
                "the host is no ordinary field",
                "use `rewrite: { host }`",
            );
            return None;
        }
        Some(name)
    }
}
