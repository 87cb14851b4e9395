//! Tables of any size, and requests as browsers send them that find their routes in them.

use std::{net::IpAddr, sync::Arc, time::Duration};

use haldane::{
    measure::{Epoch, RecorderId},
    routing::{
        Arm, Condition, Dials, Facts, FailedWhen, HeaderOps, HostPattern, Judged, KeySource,
        LiveTable, RecorderGrid, RequestHead, Rewrite, Route, RouteTable, Salt, Service,
        ServiceDial, ServiceId, TableParts, Upgrades, UpstreamId,
    },
};
use http::{HeaderMap, HeaderValue, Method, header};

/// Routes share services, each of them this many.
const ROUTES_PER_SERVICE: usize = 100;

/// How many different requests there are.
const REQUESTS: usize = 256;

/// Requests, each with everything that its head borrows.
pub(crate) struct Requests(Vec<(String, String, HeaderMap, IpAddr)>);

impl Requests {
    /// The head of a request, one after the other in turns.
    pub(crate) fn head(&self, turn: usize) -> RequestHead<'_> {
        let (host, path, headers, client_ip) = &self.0[turn % self.0.len()];
        RequestHead {
            method: &Method::GET,
            host,
            path,
            query: Some("page=2&sort=price&ref=newsletter"),
            headers,
            client_ip: *client_ip,
            learned: None,
        }
    }

    /// Number of different requests.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a request finds a route.
    pub(crate) fn is_routed(&self, turn: usize, table: &LiveTable) -> bool {
        table.routes.route(&self.head(turn)).is_some()
    }
}

fn host_name(host: usize) -> String {
    format!("shop-{host}.example.com")
}

fn section(path: usize) -> String {
    format!("/section-{path}/items")
}

/// Requests spread over the routes of [`routes`] with the same arguments.
pub(crate) fn requests(hosts: usize, paths: usize) -> Requests {
    let request = |number: usize| {
        // Two primes, so that hosts and paths are met in all combinations and in no order.
        let (host, path) = (number * 389 % hosts, number * 31 % paths);
        let path = format!("{}/8431/details.html", section(path));
        let client_ip = IpAddr::from([203, 0, 113, number as u8]);
        (host_name(host), path, browser_headers(number), client_ip)
    };
    Requests((0..REQUESTS).map(request).collect())
}

fn browser_headers(user: usize) -> HeaderMap {
    let cookies = format!(
        "_ga=GA1.2.1689372158.1718{user:06}; theme=dark; uid=8a2f0c9e-3b1d-4b6c-9f57-{user:012}; \
         session=eyJhbGciOiJIUzI1NiJ9; consent=1"
    );
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/126.0.0.0 Safari/537.36";
    let fields = [
        (header::HOST, "shop.example.com"),
        (header::USER_AGENT, agent),
        (header::ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        (header::ACCEPT_LANGUAGE, "en-GB,en;q=0.5"),
        (header::ACCEPT_ENCODING, "gzip, deflate, br, zstd"),
        (header::REFERER, "https://shop.example.com/"),
        (header::UPGRADE_INSECURE_REQUESTS, "1"),
        (header::COOKIE, &*cookies),
    ];
    let mut headers: HeaderMap = fields
        .into_iter()
        .map(|(name, value)| (name, HeaderValue::from_str(value).expect("visible characters")))
        .collect();
    headers.insert("x-plan", HeaderValue::from_static("standard"));
    headers.insert("x-region", HeaderValue::from_static("eu-west-1"));
    headers
}

/// Routes with one prefix each: so many hosts, with so many paths each.
pub(crate) fn routes(hosts: usize, paths: usize) -> Vec<(Condition, Route)> {
    let columns: Arc<[u16]> = Arc::new([0]);
    (0..hosts * paths)
        .map(|number| {
            let condition = Condition::All(vec![
                Condition::Host(vec![HostPattern::Exact(host_name(number / paths).into())]),
                Condition::PathPrefix(vec![section(number % paths).into()]),
            ]);
            (condition, route(number, &columns))
        })
        .collect()
}

fn route(number: usize, columns: &Arc<[u16]>) -> Route {
    Route {
        name: format!("route-{number}").into(),
        service: ServiceId((number / ROUTES_PER_SERVICE) as u32),
        timeout: Duration::from_secs(10),
        judged: Judged::FirstByte,
        failed_when: FailedWhen::default(),
        rescue: false,
        retries: 0,
        upgrades: Upgrades::default(),
        rewrite: Rewrite::default(),
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        recorders: RecorderGrid {
            base: RecorderId(number as u32 * 4),
            arms: 2,
            columns: Arc::clone(columns),
            other: 1,
        },
    }
}

fn service(number: usize) -> Service {
    let arm = |name: &str| Arm {
        name: name.into(),
        version: "1".into(),
        upstream: UpstreamId(0),
        request_headers: HeaderOps::default(),
    };
    Service {
        name: format!("service-{number}").into(),
        arms: vec![arm("baseline"), arm("v2")],
        assign_by: vec![KeySource::Cookie("uid".into()), KeySource::ClientIp],
        salt: Salt::derive(&number.to_string()),
        override_by: None,
        cohorts: Vec::new(),
        arm_header: false,
        toggles: Vec::new(),
    }
}

/// The parts of a table with these routes and cohorts, and the services that the routes name.
pub(crate) fn parts(routes: Vec<(Condition, Route)>, cohorts: Vec<Condition>) -> TableParts {
    let named = cohorts.into_iter().enumerate();
    TableParts {
        services: (0..routes.len().div_ceil(ROUTES_PER_SERVICE)).map(service).collect(),
        cohorts: named.map(|(number, is)| (format!("cohort-{number}").into(), is)).collect(),
        routes,
        upstreams: Vec::new(),
        facts: Facts::default(),
    }
}

/// A live table of these routes and cohorts, with every canary at 5 %.
pub(crate) fn live(routes: Vec<(Condition, Route)>, cohorts: Vec<Condition>) -> LiveTable {
    let routes = RouteTable::new(parts(routes, cohorts));
    let dial = |service| Arc::new(ServiceDial::new(service, &[500]));
    let dials = Dials::new(routes.services().iter().map(dial).collect());
    let (routes, dials) = (Arc::new(routes), Arc::new(dials));
    LiveTable { routes, dials, epoch: Epoch::new(1), asks: Arc::default() }
}

/// Cohorts of several kinds. Most requests are in none of them, so that every attribute is read.
pub(crate) mod cohorts {
    use haldane::routing::{Condition, Device, KeySource, Salt, ValueMatch};
    use http::HeaderName;
    use regex::Regex;

    fn exact(value: String) -> ValueMatch {
        ValueMatch::Exact(vec![value.into()])
    }

    fn prefix(value: String) -> ValueMatch {
        ValueMatch::Prefix(vec![value.into()])
    }

    fn header(name: &'static str, value: ValueMatch) -> Condition {
        Condition::Header(HeaderName::from_static(name), value)
    }

    fn cookie(name: &str, value: ValueMatch) -> Condition {
        Condition::Cookie(name.into(), value)
    }

    fn query(name: &str, value: ValueMatch) -> Condition {
        Condition::Query(name.into(), value)
    }

    /// One by a header, one by a cookie.
    pub(crate) fn few() -> Vec<Condition> {
        vec![header("x-staff", exact("1".into())), cookie("beta", exact("1".into()))]
    }

    /// So many, each on one of ten attributes, by exact values or prefixes.
    pub(crate) fn over_ten_attributes(count: usize) -> Vec<Condition> {
        (0..count)
            .map(|number| match number % 10 {
                0 => header("x-staff", exact(format!("team-{number}"))),
                1 => header("x-plan", exact(format!("plan-{number}"))),
                2 => header("x-region", prefix(format!("eu-north-{number}"))),
                3 => header("accept-language", prefix(format!("d{number}"))),
                4 => cookie("beta", exact(format!("{number}"))),
                5 => cookie("theme", exact(format!("theme-{number}"))),
                6 => cookie("session", prefix(format!("ey{number}"))),
                7 => query("ref", exact(format!("campaign-{number}"))),
                8 => query("page", exact(format!("page-{number}"))),
                _ => Condition::PathPrefix(vec![format!("/section-{number}/sale").into()]),
            })
            .collect()
    }

    /// So many cohorts of one kind, none of which the requests are in.
    type OfOneKind = fn(usize) -> Vec<Condition>;

    /// Cohorts that cost more than a look-up, or whose attribute does.
    pub(crate) fn dear() -> [(&'static str, OfOneKind); 6] {
        [
            ("exact", |count| {
                let cohort = |number| header("x-plan", exact(format!("plan-{number}")));
                (0..count).map(cohort).collect()
            }),
            ("not", |count| {
                let cohort = |number| {
                    let not = header("x-plan", exact(format!("plan-{number}")));
                    let other = header("x-plan", exact(format!("{number}")));
                    Condition::All(vec![Condition::Not(Box::new(not)), other])
                };
                (0..count).map(cohort).collect()
            }),
            ("not, over two attributes", |count| {
                let cohort = |number| {
                    let other = cookie("theme", exact(format!("theme-{number}")));
                    let plan = header("x-plan", ValueMatch::Present(true));
                    Condition::Not(Box::new(Condition::Any(vec![other, plan])))
                };
                (0..count).map(cohort).collect()
            }),
            ("path_regex", |count| {
                let regex = |number| Regex::new(&format!("/items/[0-9]+/x{number}")).ok();
                (0..count)
                    .map(|number| Condition::PathRegex(regex(number).into_iter().collect()))
                    .collect()
            }),
            ("percent", |count| {
                let by = vec![KeySource::Cookie("uid".into())];
                let cohort = |number: usize| Condition::Percent {
                    share_bp: 0,
                    by: by.clone(),
                    salt: Salt::derive(&number.to_string()),
                };
                (0..count).map(cohort).collect()
            }),
            ("device", |count| (0..count).map(|_| Condition::Device(vec![Device::Bot])).collect()),
        ]
    }
}
