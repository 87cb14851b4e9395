//! Requests and services for tests of routing.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, Method};

use super::{
    Arm, CohortPolicy, FailedWhen, HeaderOps, Judged, KeySource, RecorderGrid, RequestHead,
    Rewrite, Route, Salt, Service, ServiceId, Upgrades, UpstreamId,
};

/// The head of a request, owned.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) client_ip: IpAddr,
}

impl Request {
    /// A GET of a path on a host.
    pub(super) fn get(host: &str, path: &str) -> Self {
        Self {
            method: Method::GET,
            host: host.to_owned(),
            path: path.to_owned(),
            query: None,
            headers: HeaderMap::new(),
            client_ip: IpAddr::from([203, 0, 113, 7]),
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), value.parse().unwrap());
        self
    }

    pub(super) fn query(mut self, query: &str) -> Self {
        self.query = Some(query.to_owned());
        self
    }

    pub(super) fn from(mut self, client_ip: &str) -> Self {
        self.client_ip = client_ip.parse().unwrap();
        self
    }

    pub(super) fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            client_ip: self.client_ip,
            learned: None,
        }
    }
}

/// A route that does nothing but lead to service 0.
pub(crate) fn route(name: &str) -> Route {
    Route {
        name: name.into(),
        service: ServiceId(0),
        timeout: Duration::from_secs(10),
        judged: Judged::FirstByte,
        failed_when: FailedWhen::default(),
        rescue: false,
        retries: 0,
        upgrades: Upgrades::default(),
        rewrite: Rewrite::default(),
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        recorders: RecorderGrid::default(),
    }
}

/// A service with so many canaries, `v1`, `v2`, …, assigned by the cookie `uid`.
pub(super) fn service(canaries: usize, cohorts: &[CohortPolicy]) -> Service {
    let arm = |index: usize| Arm {
        name: if index == 0 { "baseline".into() } else { Arc::from(format!("v{index}")) },
        version: Arc::from(""),
        upstream: UpstreamId(index as u32),
        request_headers: HeaderOps::default(),
    };
    Service {
        name: "shop".into(),
        arms: (0..=canaries).map(arm).collect(),
        assign_by: vec![KeySource::Cookie("uid".into())],
        salt: Salt::derive("shop"),
        override_by: None,
        cohorts: cohorts.to_vec(),
        arm_header: false,
        toggles: Vec::new(),
    }
}
