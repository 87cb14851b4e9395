//! Countries by address, out of a database in MaxMind's format that is wholly in memory.
//!
//! Deliberately knows nothing but the country: neither the region nor where it is registered.

use std::{fmt, net::IpAddr};

/// A country: two upper-case letters as in ISO 3166-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Country([u8; 2]);

impl Country {
    /// Its letters.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    #[cfg(feature = "geo")]
    fn parse(text: &str) -> Option<Self> {
        let letters: [u8; 2] = text.as_bytes().try_into().ok()?;
        let both = letters.iter().all(u8::is_ascii_alphabetic);
        both.then(|| Self(letters.map(|letter| letter.to_ascii_uppercase())))
    }
}

impl fmt::Display for Country {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.0.map(char::from);
        write!(formatter, "{first}{second}")
    }
}

/// Why a file is no database of countries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CountriesProblem {
    /// It was built without the feature.
    #[error("this build cannot look up countries: the feature `geo` is switched off")]
    NotInThisBuild,
    /// It is not in the format, or damaged.
    #[error("is no database in MaxMind's format: {0}")]
    Format(String),
    /// It is about something else.
    #[error(
        "`{0}` has no countries: none of its first records has `country.iso_code`, `country_code` or `country`"
    )]
    NoCountry(String),
}

#[cfg(not(feature = "geo"))]
pub use absent::Countries;
#[cfg(feature = "geo")]
pub use present::Countries;

#[cfg(feature = "geo")]
mod present {
    use maxminddb::{LookupResult, PathElement, Reader};
    use sha2::{Digest, Sha256};

    use super::{CountriesProblem, Country, IpAddr, fmt};

    /// Records that are looked at for a country before a database is said to have none.
    const MOST_LOOKED_AT: usize = 10_000;

    /// The places where databases write the country.
    const PLACES: [&[PathElement<'static>]; 3] = [
        &[PathElement::Key("country"), PathElement::Key("iso_code")],
        &[PathElement::Key("country_code")],
        &[PathElement::Key("country")],
    ];

    /// A database of countries by address.
    pub struct Countries {
        reader: Reader<Vec<u8>>,
        place: &'static [PathElement<'static>],
        digest: [u8; 32],
    }

    impl Countries {
        /// Takes the content of a file.
        ///
        /// # Errors
        /// That it is no database in the format, or has no countries.
        pub fn new(content: Vec<u8>) -> Result<Self, CountriesProblem> {
            let digest = Sha256::digest(&content).into();
            let format =
                |error: maxminddb::MaxMindDbError| CountriesProblem::Format(error.to_string());
            let reader = Reader::from_source(content).map_err(format)?;
            let mut found = None;
            for record in reader.networks(Default::default()).map_err(format)?.take(MOST_LOOKED_AT)
            {
                let record = record.map_err(format)?;
                found = PLACES.into_iter().find(|place| country_in(&record, place).is_some());
                if found.is_some() {
                    break;
                }
            }
            let Some(place) = found else {
                return Err(CountriesProblem::NoCountry(reader.metadata().database_type.clone()));
            };
            Ok(Self { reader, place, digest })
        }

        /// The country of an address, if the database knows it.
        #[must_use]
        pub fn country(&self, address: IpAddr) -> Option<Country> {
            // An error says that the database has only the other family of addresses, or that the
            // record is damaged: the country is not known then.
            let record = self.reader.lookup(address.to_canonical()).ok()?;
            country_in(&record, self.place)
        }

        /// What the database calls itself.
        #[must_use]
        pub fn name(&self) -> &str {
            &self.reader.metadata().database_type
        }

        /// The SHA-256 of its content.
        #[must_use]
        pub fn digest(&self) -> &[u8; 32] {
            &self.digest
        }
    }

    fn country_in(
        record: &LookupResult<'_, Vec<u8>>,
        place: &[PathElement<'_>],
    ) -> Option<Country> {
        Country::parse(record.decode_path::<&str>(place).ok()??)
    }

    impl fmt::Debug for Countries {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.debug_struct("Countries").field("name", &self.name()).finish_non_exhaustive()
        }
    }
}

#[cfg(not(feature = "geo"))]
mod absent {
    use super::{CountriesProblem, Country, IpAddr};

    /// There is none in this build.
    #[derive(Debug)]
    pub enum Countries {}

    impl Countries {
        /// There is none in this build.
        ///
        /// # Errors
        /// Always.
        pub fn new(_content: Vec<u8>) -> Result<Self, CountriesProblem> {
            Err(CountriesProblem::NotInThisBuild)
        }

        /// The country of an address.
        #[must_use]
        pub fn country(&self, _address: IpAddr) -> Option<Country> {
            match *self {}
        }

        /// What the database calls itself.
        #[must_use]
        pub fn name(&self) -> &str {
            match *self {}
        }

        /// The SHA-256 of its content.
        #[must_use]
        pub fn digest(&self) -> &[u8; 32] {
            match *self {}
        }
    }
}

#[cfg(test)]
#[cfg(feature = "geo")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routing::facts::mmdb::{Place, database, shipped};

    fn countries(place: Place) -> Countries {
        let networks =
            [("203.0.113.0/24", "DE"), ("198.51.100.0/25", "fr"), ("2001:db8::/32", "AT")];
        Countries::new(database(place, &networks)).unwrap()
    }

    fn country(countries: &Countries, address: &str) -> Option<String> {
        countries.country(address.parse().unwrap()).map(|country| country.to_string())
    }

    #[test]
    fn an_address_has_the_country_of_its_network_wherever_it_is_written() {
        for place in [Place::IsoCode, Place::CountryCode, Place::Country] {
            let countries = countries(place);
            let check = |address: &str, expected: Option<&str>| {
                assert_eq!(
                    country(&countries, address).as_deref(),
                    expected,
                    "{address} {place:?}"
                );
            };
            check("203.0.113.0", Some("DE"));
            check("203.0.113.255", Some("DE"));
            check("::ffff:203.0.113.7", Some("DE"));
            check("203.0.112.255", None);
            check("203.0.114.0", None);
            check("198.51.100.127", Some("FR"));
            check("198.51.100.128", None);
            check("2001:db8:ffff::1", Some("AT"));
            check("2001:db9::", None);
        }
    }

    #[test]
    fn what_has_no_countries_is_refused() {
        let problem = |content: Vec<u8>| Countries::new(content).unwrap_err();
        let asn = database(Place::Elsewhere, &[("203.0.113.0/24", "DE")]);
        assert_eq!(problem(asn), CountriesProblem::NoCountry("Test".to_owned()));
        let cut = &database(Place::IsoCode, &[("203.0.113.0/24", "DE")]);
        for content in [&[][..], b"no database", &cut[..cut.len() / 2]] {
            assert!(matches!(problem(content.to_vec()), CountriesProblem::Format(_)));
        }
    }

    // The files stand in `tests/data` for the tests of the whole proxy. To make them anew, write
    // down what `shipped` returns.
    #[test]
    fn the_databases_of_the_tests_are_what_the_writer_writes() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        for (name, content) in shipped() {
            let path = directory.join(name);
            let there = std::fs::read(&path).unwrap_or_default();
            assert!(there == content, "{} is another", path.display());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn a_damaged_database_never_panics(
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            address in any::<IpAddr>(),
        ) {
            let mut content = database(Place::IsoCode, &[("203.0.113.0/24", "DE")]);
            let at = at.index(content.len());
            content[at] = byte;
            if let Ok(countries) = Countries::new(content) {
                let _ = countries.country(address);
                let _ = countries.country([203, 0, 113, 7].into());
            }
        }
    }
}
