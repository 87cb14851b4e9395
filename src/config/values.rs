//! The values of the file: each parsed from text, so that every scalar may be interpolated, and
//! valid once it exists. Bare numbers are refused where a unit is missing: `5` is neither 5 % nor
//! 5 seconds.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// What can be written as one scalar. An error is one line about what is wrong, and may have a
/// second line with what to write instead.
pub(super) trait Scalar: Sized {
    /// Parses the text after interpolation.
    fn parse(text: &str) -> Result<Self, String>;
    /// The regular expression that an editor may hold a value to; `${…}` passes anyway.
    const PATTERN: Option<&'static str>;
    /// The kinds of scalar that YAML makes of it where it is not quoted.
    const JSON_TYPES: &'static [&'static str];
}

fn read<'de, T: Scalar, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct TextVisitor<T>(std::marker::PhantomData<T>);

    impl<T: Scalar> Visitor<'_> for TextVisitor<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a single value")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            T::parse(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(TextVisitor(std::marker::PhantomData))
}

macro_rules! scalar {
    ($type:ident, $name:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                read(deserializer)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                Self::PATTERN.is_none()
            }
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = schemars::json_schema!({ "type": Self::JSON_TYPES });
                if let Some(pattern) = Self::PATTERN {
                    schema.insert("pattern".into(), format!("^({pattern}|.*\\$\\{{.*)$").into());
                }
                schema
            }
        }
    };
}

/// Any text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Text(pub(super) String);

impl Scalar for Text {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
    const PATTERN: Option<&'static str> = None;
    const JSON_TYPES: &'static [&'static str] = &["string", "number", "boolean"];
}
scalar!(Text, "Text");

/// `true` or `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

impl Scalar for Flag {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" | "True" | "TRUE" => Ok(Self(true)),
            "false" | "False" | "FALSE" => Ok(Self(false)),
            _ => Err(format!("`{text}` is neither true nor false\naccepted: true, false")),
        }
    }
    const PATTERN: Option<&'static str> = Some("true|false");
    const JSON_TYPES: &'static [&'static str] = &["boolean", "string"];
}
scalar!(Flag, "Flag");

/// A whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count(pub(super) u64);

impl Scalar for Count {
    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.replace('_', "");
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .parse()
            .ok()
            .filter(|_| is_number)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a whole number\nwrite digits alone, as in 100"))
    }
    const PATTERN: Option<&'static str> = Some("[0-9_]+");
    const JSON_TYPES: &'static [&'static str] = &["integer", "string"];
}
scalar!(Count, "Count");

/// A plain number, not negative.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Number(pub(super) f64);

impl Scalar for Number {
    fn parse(text: &str) -> Result<Self, String> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'_');
        let number = text.replace('_', "").parse().ok().filter(|number: &f64| number.is_finite());
        match number {
            Some(number) if plain => Ok(Self(number)),
            Some(_) | None => {
                Err(format!("`{text}` is not a plain number\nwrite it like 0.6 or 500"))
            }
        }
    }
    const PATTERN: Option<&'static str> = Some(r"[0-9_]+(\.[0-9]+)?");
    const JSON_TYPES: &'static [&'static str] = &["number", "string"];
}
scalar!(Number, "Number");

/// A percentage in steps of 0.01 %, in those steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Percent(u32);

impl Percent {
    /// This many steps of 0.01 %.
    pub(super) const fn of_steps(steps: u32) -> Self {
        Self(steps)
    }

    /// How many steps of 0.01 %.
    pub(super) const fn steps(self) -> u32 {
        self.0
    }

    /// As a share of 1.
    pub(super) fn share(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match (rest, rest % 10) {
            (0, _) => write!(formatter, "{whole}%"),
            (_, 0) => write!(formatter, "{whole}.{}%", rest / 10),
            _ => write!(formatter, "{whole}.{rest:02}%"),
        }
    }
}

impl Scalar for Percent {
    fn parse(text: &str) -> Result<Self, String> {
        let Some(number) = text.strip_suffix('%').map(str::trim_end) else {
            return Err(match text.parse::<f64>() {
                Ok(number) if number.is_finite() => {
                    format!("`{text}` is a bare number where a percentage is needed\nwrite {text}%")
                }
                _ => format!("`{text}` is not a percentage\nwrite it like 5% or 0.25%"),
            });
        };
        let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(rest) || number.ends_with('.') {
            return Err(format!("`{text}` is not a percentage\nwrite it like 5% or 0.25%"));
        }
        let rest = rest.trim_end_matches('0');
        if rest.len() > 2 {
            return Err(format!("`{text}` is finer than 0.01 %\nround it to two decimals"));
        }
        let hundredths = format!("{whole}{rest:0<2}");
        match hundredths.parse() {
            Ok(steps) if steps <= 1_000_000 => Ok(Self(steps)),
            Ok(_) | Err(_) => Err(format!("`{text}` is too much\nat most 10000%")),
        }
    }
    const PATTERN: Option<&'static str> = Some(r"[0-9]+(\.[0-9]{1,2})?\s*%");
    const JSON_TYPES: &'static [&'static str] = &["string"];
}
scalar!(Percent, "Percent");

/// A length of time with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) Duration);

impl Scalar for Time {
    fn parse(text: &str) -> Result<Self, String> {
        if text.parse::<f64>().is_ok() {
            return Err(format!(
                "`{text}` is a bare number where a duration is needed\nwrite {text}s or {text}ms"
            ));
        }
        // A year and a day bounds all sums of times.
        const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
        match humantime::parse_duration(text) {
            Ok(time) if time <= LONGEST => Ok(Self(time)),
            Ok(_) => Err(format!("`{text}` is longer than a year\nwrite less than 366d")),
            Err(_) => {
                Err(format!("`{text}` is not a duration\nwrite it like 250ms, 5s, 1m, 1h 30m"))
            }
        }
    }
    const PATTERN: Option<&'static str> = Some(r"([0-9.]+\s*[a-zµ]+\s*)+");
    const JSON_TYPES: &'static [&'static str] = &["string"];
}
scalar!(Time, "Duration");

/// A number of bytes with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) u64);

impl Scalar for Size {
    fn parse(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = (&text[..split], text[split..].trim());
        let factor: u64 = match unit {
            "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            "" if !number.is_empty() => {
                return Err(format!(
                    "`{text}` is a bare number where a size is needed\nwrite {text}B or {text}KiB"
                ));
            }
            _ => return Err(format!("`{text}` is not a size\nwrite it like 512B, 64KiB, 1GiB")),
        };
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        bytes
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a size\nwrite it like 64KiB or 1GiB"))
    }
    const PATTERN: Option<&'static str> = Some(r"[0-9]+\s*(B|kB|KB|MB|GB|KiB|MiB|GiB|TiB)");
    const JSON_TYPES: &'static [&'static str] = &["string"];
}
scalar!(Size, "Size");

/// The length of a block: chosen by the placebo, or fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// Starts at 5 s and is calibrated.
    Auto,
    /// Kept.
    Fixed(Duration),
}

impl Scalar for Block {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        Time::parse(text).map(|Time(length)| Self::Fixed(length))
    }
    const PATTERN: Option<&'static str> = Some(r"auto|([0-9.]+\s*[a-zµ]+\s*)+");
    const JSON_TYPES: &'static [&'static str] = &["string"];
}
scalar!(Block, "BlockLength");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentages_keep_two_decimals_and_need_their_sign() {
        let steps = |text| Percent::parse(text).map(Percent::steps);
        assert_eq!(steps("5%"), Ok(500));
        assert_eq!(steps("0.01%"), Ok(1));
        assert_eq!(steps("0.10 %"), Ok(10));
        assert_eq!(steps("12.5%"), Ok(1250));
        assert_eq!(steps("100%"), Ok(10_000));
        let wrong = |text| Percent::parse(text).unwrap_err();
        assert_eq!(wrong("5"), "`5` is a bare number where a percentage is needed\nwrite 5%");
        assert_eq!(
            wrong("0.05"),
            "`0.05` is a bare number where a percentage is needed\nwrite 0.05%"
        );
        assert_eq!(wrong("0.001%"), "`0.001%` is finer than 0.01 %\nround it to two decimals");
        for text in ["-1%", ".5%", "5.%", "%", "five%", "1e2%", "99999999999%", "5 % "] {
            assert!(Percent::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        let parse = |text| Time::parse(text).map(|time| time.0);
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(
            parse("5").unwrap_err(),
            "`5` is a bare number where a duration is needed\nwrite 5s or 5ms"
        );
        for text in ["", "soon", "5 parsecs", "-5s", "900000d", "0"] {
            assert!(Time::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_need_a_unit() {
        let parse = |text| Size::parse(text).map(|size| size.0);
        assert_eq!(parse("64KiB"), Ok(65_536));
        assert_eq!(parse("1 MB"), Ok(1_000_000));
        assert!(parse("64").unwrap_err().contains("64KiB"));
        for text in ["", "KiB", "64 kibi", "99999999999GiB", "-1B"] {
            assert!(Size::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_true_and_false_are_flags() {
        assert_eq!(Flag::parse("true"), Ok(Flag(true)));
        for text in ["yes", "no", "on", "off", "1", ""] {
            assert!(Flag::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_percentage_is_read_back_as_it_is_shown(steps in 0_u32..=1_000_000) {
            let percent = Percent::of_steps(steps);
            prop_assert_eq!(Percent::parse(&percent.to_string()), Ok(percent));
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,40}") {
            // The results differ; that there is one is the point.
            let _ = (Percent::parse(&text), Time::parse(&text), Size::parse(&text));
            let _ = (Count::parse(&text), Flag::parse(&text), Block::parse(&text));
        }
    }
}
