//! Which kinds of device a request comes from, by its client hints (`Sec-CH-UA-Platform`,
//! `Sec-CH-UA-Mobile`) and, where these are not sent, its `User-Agent`.
//!
//! Deliberately not a database of devices: it knows the platforms, and a bot only by its own word.

use std::sync::LazyLock;

use http::{HeaderMap, header::USER_AGENT};
use memchr::memmem::Finder;

use super::Device;

/// Made once: a finder takes longer to make than to use on a `User-Agent`.
static ANDROID: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("Android"));
static MOBILE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("Mobile"));
static TABLET: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("Tablet"));

/// A set of kinds of device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DeviceSet(u8);

impl DeviceSet {
    /// Number of different sets, as values of [`DeviceSet::bits`].
    pub(super) const COUNT: usize = 1 << 6;

    /// The set of these kinds.
    pub(super) fn of(devices: &[Device]) -> Self {
        Self(devices.iter().fold(0, |bits, device| bits | bit(*device)))
    }

    /// The set with these bits.
    pub(super) fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// A number below [`DeviceSet::COUNT`].
    pub(super) fn bits(self) -> u8 {
        self.0
    }

    /// Whether the two have a kind in common.
    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

fn bit(device: Device) -> u8 {
    match device {
        Device::Ios => 1,
        Device::Android => 1 << 1,
        Device::Mobile => 1 << 2,
        Device::Tablet => 1 << 3,
        Device::Desktop => 1 << 4,
        Device::Bot => 1 << 5,
    }
}

/// The kinds of device that a request says it comes from; none where it does not say.
pub(super) fn devices(headers: &HeaderMap) -> DeviceSet {
    let agent = headers.get(USER_AGENT).map_or(&b""[..], |value| value.as_bytes());
    if says_bot(agent) {
        return DeviceSet::of(&[Device::Bot]);
    }
    hinted(headers).unwrap_or_else(|| by_agent(agent))
}

/// By the hints that Chromium sends with every request.
fn hinted(headers: &HeaderMap) -> Option<DeviceSet> {
    let platform = headers.get("sec-ch-ua-platform")?.as_bytes();
    let phone = headers.get("sec-ch-ua-mobile").is_some_and(|value| value.as_bytes() == b"?1");
    match (platform.trim_ascii(), phone) {
        (br#""Android""#, true) => Some(DeviceSet::of(&[Device::Android, Device::Mobile])),
        (br#""Android""#, false) => Some(DeviceSet::of(&[Device::Android, Device::Tablet])),
        (br#""iOS""#, true) => Some(DeviceSet::of(&[Device::Ios, Device::Mobile])),
        (br#""iOS""#, false) => Some(DeviceSet::of(&[Device::Ios, Device::Tablet])),
        (br#""Windows""# | br#""macOS""# | br#""Linux""# | br#""Chrome OS""#, false) => {
            Some(DeviceSet::of(&[Device::Desktop]))
        }
        (_, true) => Some(DeviceSet::of(&[Device::Mobile])),
        (_, false) => None,
    }
}

/// By the platform that a browser names in the first parentheses, `Mozilla/5.0 (platform; …)`.
fn by_agent(agent: &[u8]) -> DeviceSet {
    let Some(platform) = agent.strip_prefix(b"Mozilla/").and_then(|rest| {
        let open = memchr::memchr(b'(', rest)?;
        Some(&rest[open + 1..])
    }) else {
        return DeviceSet::default();
    };
    if platform.starts_with(b"iPhone") || platform.starts_with(b"iPod") {
        return DeviceSet::of(&[Device::Ios, Device::Mobile]);
    }
    if platform.starts_with(b"iPad") {
        return DeviceSet::of(&[Device::Ios, Device::Tablet]);
    }
    let within = &platform[..memchr::memchr(b')', platform).unwrap_or(platform.len())];
    let says_mobile = || MOBILE.find(platform).is_some();
    if ANDROID.find(within).is_some() {
        // Phones say "Mobile", tablets do not.
        let size = if says_mobile() { Device::Mobile } else { Device::Tablet };
        return DeviceSet::of(&[Device::Android, size]);
    }
    if TABLET.find(within).is_some() {
        return DeviceSet::of(&[Device::Tablet]);
    }
    DeviceSet::of(&[if says_mobile() { Device::Mobile } else { Device::Desktop }])
}

/// Words by which crawlers and scripts name themselves, in lower case.
const BOT_WORDS: [&[u8]; 4] = [b"bot", b"crawl", b"spider", b"slurp"];

/// Programs that are known by how their name begins.
const BOT_PROGRAMS: [&[u8]; 9] = [
    b"curl/",
    b"Wget/",
    b"python-",
    b"Python/",
    b"Go-http-client/",
    b"Java/",
    b"libwww-perl/",
    b"HTTPie/",
    b"kube-probe/",
];

fn says_bot(agent: &[u8]) -> bool {
    BOT_PROGRAMS.iter().any(|program| agent.starts_with(program))
        || agent.iter().enumerate().any(|(at, byte)| {
            // A filter by the first letter first: most letters begin none of the words.
            matches!(byte | 0x20, b'b' | b'c' | b's')
                && BOT_WORDS.iter().any(|word| begins_with(&agent[at..], word))
        })
}

fn begins_with(text: &[u8], lower_case: &[u8]) -> bool {
    text.get(..lower_case.len()).is_some_and(|start| start.eq_ignore_ascii_case(lower_case))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &[(&'static str, &str)], expected: &[Device]) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        assert_eq!(devices(&headers), DeviceSet::of(expected), "{fields:?}");
    }

    fn check_agent(agent: &str, expected: &[Device]) {
        check(&[("user-agent", agent)], expected);
    }

    #[test]
    fn browsers_name_their_platform() {
        check_agent(
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, \
             like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
            &[Device::Ios, Device::Mobile],
        );
        check_agent(
            "Mozilla/5.0 (iPad; CPU OS 12_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
            &[Device::Ios, Device::Tablet],
        );
        check_agent(
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/126.0.0.0 Mobile Safari/537.36",
            &[Device::Android, Device::Mobile],
        );
        check_agent(
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/126.0.0.0 Safari/537.36",
            &[Device::Android, Device::Tablet],
        );
        for desktop in ["Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "X11"] {
            let agent = format!("Mozilla/5.0 ({desktop}) Gecko/20100101 Firefox/127.0");
            check_agent(&agent, &[Device::Desktop]);
        }
    }

    #[test]
    fn hints_stand_before_the_user_agent() {
        let windows = ("user-agent", "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36");
        check(
            &[windows, ("sec-ch-ua-platform", "\"Android\""), ("sec-ch-ua-mobile", "?1")],
            &[Device::Android, Device::Mobile],
        );
        check(&[windows, ("sec-ch-ua-platform", "\"Unknown\"")], &[Device::Desktop]);
    }

    #[test]
    fn a_bot_is_a_bot_even_if_it_names_a_phone() {
        check_agent(
            "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X) AppleWebKit/537.36 Mobile Safari/537.36 \
             (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            &[Device::Bot],
        );
        check_agent("curl/8.5.0", &[Device::Bot]);
        check_agent("Mozilla/5.0 (compatible; Baiduspider/2.0)", &[Device::Bot]);
    }

    #[test]
    fn who_says_nothing_has_no_device() {
        check(&[], &[]);
        check_agent("", &[]);
        check_agent("okhttp/4.12.0", &[]);
    }
}
