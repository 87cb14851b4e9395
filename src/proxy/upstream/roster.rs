//! The roster of an upstream: its endpoints with the addresses of its names, each with a number
//! that every worker and the control thread know it by, and whether it is well.
//!
//! Pure: who asks the resolver and the endpoints is the lookout's business.

use std::{collections::HashMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    measure::EndpointNumber,
    routing::{Endpoint, Upstream},
};

/// A number is not given to another endpoint for so long after its own was last seen: by then its
/// requests are counted.
const QUARANTINE: Duration = Duration::from_secs(60);

/// The rosters of all upstreams, by name.
pub(in crate::proxy) type Rosters = HashMap<Arc<str>, Arc<Roster>>;

/// One place where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::proxy) struct Site {
    /// As the configuration names it.
    pub(in crate::proxy) endpoint: Endpoint,
    /// One of the addresses of a name.
    pub(in crate::proxy) address: Option<SocketAddr>,
}

impl fmt::Display for Site {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.endpoint, self.address) {
            (Endpoint::Address(address), _) => write!(formatter, "{address}"),
            (Endpoint::Name(name, port), None) => write!(formatter, "{name}:{port}"),
            (Endpoint::Name(name, _), Some(address)) => write!(formatter, "{name} at {address}"),
            (Endpoint::Unix(path), _) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// What health checks say of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Health {
    /// It is not asked, or it answered well.
    Well,
    /// It was not asked yet.
    Untested,
    /// It answered badly, or not at all.
    Unwell,
}

/// An endpoint and its number.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::proxy) struct Seat {
    pub(in crate::proxy) number: EndpointNumber,
    pub(in crate::proxy) site: Site,
    pub(in crate::proxy) health: Health,
}

/// The endpoints of an upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::proxy) struct Roster {
    pub(in crate::proxy) seats: Vec<Seat>,
    /// What the upstream lists, and whether its endpoints are asked.
    listed: Vec<Endpoint>,
    asked: bool,
    /// Numbers of endpoints that went away, and when.
    left: Vec<(EndpointNumber, Duration)>,
    /// Whether a name has ever had several addresses, so that its addresses are pods.
    several: bool,
    /// Whether some name was not resolved yet. Until then nobody is turned away.
    pub(in crate::proxy) unresolved: bool,
}

impl Roster {
    /// Takes over the endpoints as they are now. Those that stay keep their numbers, the others get
    /// the lowest that are free, in order.
    pub(in crate::proxy) fn seat(&mut self, sites: Vec<Site>, fresh: Health, now: Duration) {
        self.several |= pods(&sites) > 1;
        self.left.retain(|(_, at)| now.saturating_sub(*at) < QUARANTINE);
        let mut before = std::mem::take(&mut self.seats);
        before.retain(|seat| {
            let stays = sites.contains(&seat.site);
            if !stays {
                self.left.push((seat.number, now));
            }
            stays
        });
        let mut taken = [false; EndpointNumber::MOST + 1];
        let numbers = before.iter().map(|seat| seat.number);
        for number in numbers.chain(self.left.iter().map(|(number, _)| *number)) {
            taken[number.index()] = true;
        }
        let mut free = (0..EndpointNumber::MOST).map(EndpointNumber::of);
        let mut next = || free.find(|number| !std::mem::replace(&mut taken[number.index()], true));
        for site in sites {
            if self.seats.iter().any(|seat| seat.site == site) {
                continue;
            }
            let known = before.iter().position(|seat| seat.site == site);
            let seat = known.map(|place| before.swap_remove(place)).unwrap_or_else(|| Seat {
                number: next().unwrap_or(EndpointNumber::LAST),
                site,
                health: fresh,
            });
            self.seats.push(seat);
        }
    }

    /// The roster of an upstream before anybody has looked: names are still to be resolved, but
    /// for what `known` knows of them.
    pub(in crate::proxy) fn of(spec: &Upstream, known: Option<&Self>, now: Duration) -> Self {
        let mut roster = known.cloned().unwrap_or_default();
        let seats: Vec<Site> = roster.seats.iter().map(|seat| seat.site.clone()).collect();
        let addresses = |endpoint: &Endpoint| {
            let own = seats.iter().filter(|site| site.endpoint == *endpoint);
            own.filter_map(|site| site.address).collect::<Vec<_>>()
        };
        let fresh = if spec.health.is_some() { Health::Untested } else { Health::Well };
        let mut sites = Vec::new();
        roster.listed.clone_from(&spec.endpoints);
        roster.asked = spec.health.is_some();
        roster.unresolved = false;
        for endpoint in &spec.endpoints {
            if matches!(endpoint, Endpoint::Name(..)) {
                let known = addresses(endpoint);
                roster.unresolved |= known.is_empty();
                sites.extend(
                    known
                        .into_iter()
                        .map(|it| Site { endpoint: endpoint.clone(), address: Some(it) }),
                );
            } else {
                sites.push(Site { endpoint: endpoint.clone(), address: None });
            }
        }
        roster.seat(sites, fresh, now);
        if spec.health.is_none() {
            roster.seats.iter_mut().for_each(|seat| seat.health = Health::Well);
        }
        roster
    }

    /// Whether it is of an upstream as `spec` describes it, rather than of one of the same name.
    pub(super) fn is_of(&self, spec: &Upstream) -> bool {
        self.listed == spec.endpoints && self.asked == spec.health.is_some()
    }

    /// How many pods there are among these sites, where they can be counted: one endpoint alone
    /// may hide any number.
    pub(super) fn pods<'a>(
        &self,
        spec: &Upstream,
        sites: impl Iterator<Item = &'a Site>,
    ) -> Option<u32> {
        let sites: Vec<Site> = sites.cloned().collect();
        (self.several || spec.endpoints.len() > 1).then(|| pods(&sites) as u32)
    }
}

/// The pods behind some sites. One that has an address of either family is behind two of them.
fn pods(sites: &[Site]) -> usize {
    let mut families: HashMap<&Endpoint, [usize; 2]> = HashMap::new();
    for site in sites {
        let family = usize::from(site.address.is_some_and(|address| address.is_ipv6()));
        families.entry(&site.endpoint).or_default()[family] += 1;
    }
    families.values().map(|[four, six]| four.max(six)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(addresses: &[&str]) -> Vec<Site> {
        let site = |address: &&str| Site {
            endpoint: Endpoint::Name("shop".into(), 80),
            address: Some(address.parse().unwrap()),
        };
        addresses.iter().map(site).collect()
    }

    fn numbers(roster: &Roster) -> Vec<(String, usize)> {
        let number = |seat: &Seat| (seat.site.address.unwrap().to_string(), seat.number.index());
        roster.seats.iter().map(number).collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_address_that_stays_keeps_its_number_and_a_new_one_takes_none_that_was_just_left() {
        let mut roster = Roster::default();
        roster.seat(sites(&["10.0.0.1:80", "10.0.0.2:80"]), Health::Well, SECOND);
        roster.seat(sites(&["10.0.0.3:80", "10.0.0.2:80"]), Health::Well, 2 * SECOND);
        let now = [("10.0.0.3:80".to_owned(), 3), ("10.0.0.2:80".to_owned(), 2)];
        assert_eq!(numbers(&roster), now);
        let all = ["10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"];
        roster.seat(sites(&all), Health::Well, 100 * SECOND);
        assert_eq!(numbers(&roster)[2], ("10.0.0.4:80".to_owned(), 1));
    }

    #[test]
    fn more_endpoints_than_numbers_share_the_last_one() {
        let many: Vec<String> =
            (0..300).map(|it| format!("10.0.{}.{}:80", it / 200, it % 200)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut roster = Roster::default();
        roster.seat(sites(&many), Health::Well, SECOND);
        let shared = roster.seats.iter().filter(|seat| seat.number == EndpointNumber::LAST);
        assert_eq!(shared.count(), 300 - EndpointNumber::MOST + 1);
    }

    #[test]
    fn pods_are_the_addresses_of_a_name_and_a_pod_of_both_families_is_one() {
        let spec = |endpoints| Upstream { endpoints, ..Upstream::bare("one") };
        let name = || Endpoint::Name("shop".into(), 80);
        let check = |addresses: &[&str]| {
            let mut roster = Roster::default();
            roster.seat(sites(addresses), Health::Well, SECOND);
            let seats = roster.seats.clone();
            roster.pods(&spec(vec![name()]), seats.iter().map(|seat| &seat.site))
        };
        assert_eq!(check(&["10.0.0.1:80"]), None);
        assert_eq!(check(&["127.0.0.1:80", "[::1]:80"]), None);
        assert_eq!(check(&["10.0.0.1:80", "10.0.0.2:80", "[::1]:80", "[::2]:80"]), Some(2));
        let mut roster = Roster::default();
        roster.seat(sites(&["10.0.0.1:80", "10.0.0.2:80"]), Health::Well, SECOND);
        roster.seat(sites(&["10.0.0.1:80"]), Health::Well, SECOND);
        let seats = roster.seats.clone();
        let counted = roster.pods(&spec(vec![name()]), seats.iter().map(|seat| &seat.site));
        assert_eq!(counted, Some(1), "it was seen to have several");
    }
}
