//! Finds the route of a request: by its host, then by its path, then by everything else. Every
//! step is a look-up, so the number of routes hardly matters; only routes of the same host and path
//! are asked one after the other, and from a handful on they are asked all at once.

use std::collections::{BTreeSet, HashMap};

use super::{
    Condition, RequestHead, RouteId,
    hash::FastBuild,
    precedence::{Alternative, HostKey, PathKey, alternatives},
    predicate::Predicate,
    rows::Rows,
};

type ByText<T> = HashMap<Box<[u8]>, T, FastBuild>;

/// Up to so many routes of the same host and path are asked one by one.
const MAX_ASKED_ONE_BY_ONE: usize = 4;

/// Routes by host.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteTree {
    exact: ByText<Paths>,
    suffixes: ByText<Paths>,
    /// The lengths of the suffixes, the longest first.
    suffix_lengths: Box<[usize]>,
    any: Paths,
}

/// The routes of a host by path.
#[derive(Clone, Debug, Default)]
struct Paths {
    exact: ByText<Candidates>,
    prefixes: ByText<Candidates>,
    /// The lengths of the prefixes, the longest first.
    prefix_lengths: Box<[usize]>,
    any: Candidates,
}

/// The routes of a host and a path, in their precedence.
#[derive(Clone, Debug, Default)]
struct Candidates {
    few: Box<[(Box<[Predicate]>, RouteId)]>,
    many: Option<Box<(Rows, Box<[RouteId]>)>>,
}

impl RouteTree {
    /// The tree of these conditions, in normal form and in the order of the configuration.
    pub(super) fn new<'a>(conditions: impl Iterator<Item = &'a Condition>) -> Self {
        let mut all: Vec<Alternative<'_>> = conditions
            .enumerate()
            .flat_map(|(order, condition)| alternatives(condition, order))
            .collect();
        all.sort_by_key(|alternative| std::cmp::Reverse(alternative.precedence));
        let (mut exact, mut suffixes, mut any) = (Grouped::new(), Grouped::new(), Vec::new());
        for alternative in &all {
            match &alternative.host {
                HostKey::Exact(host) => exact.entry(host.as_bytes().into()),
                HostKey::Suffix(suffix) => suffixes.entry(suffix.as_bytes().into()),
                HostKey::Any => {
                    any.push(alternative);
                    continue;
                }
            }
            .or_default()
            .push(alternative);
        }
        Self {
            suffix_lengths: lengths(&suffixes),
            exact: each(exact, Paths::new),
            suffixes: each(suffixes, Paths::new),
            any: Paths::new(&any),
        }
    }

    /// The matching route of the greatest precedence.
    pub(super) fn find(&self, head: &RequestHead<'_>) -> Option<RouteId> {
        let host = head.host.as_bytes();
        self.exact
            .get(host)
            .and_then(|paths| paths.find(head))
            .or_else(|| self.by_suffix(host).find_map(|paths| paths.find(head)))
            .or_else(|| self.any.find(head))
    }

    fn by_suffix(&self, host: &[u8]) -> impl Iterator<Item = &Paths> {
        self.suffix_lengths.iter().filter_map(|length| {
            let start = host.len().checked_sub(*length)?;
            // Suffixes begin with a dot, so only those of the host that do are looked up.
            (host.get(start) == Some(&b'.')).then(|| self.suffixes.get(&host[start..]))?
        })
    }
}

impl Paths {
    fn new(alternatives: &[&Alternative<'_>]) -> Self {
        let (mut exact, mut prefixes, mut any) = (Grouped::new(), Grouped::new(), Vec::new());
        for &alternative in alternatives {
            match &alternative.path {
                PathKey::Exact(path) => exact.entry(path.as_bytes().into()),
                PathKey::Prefix(prefix) => prefixes.entry(prefix.as_bytes().into()),
                PathKey::Any => {
                    any.push(alternative);
                    continue;
                }
            }
            .or_default()
            .push(alternative);
        }
        Self {
            prefix_lengths: lengths(&prefixes),
            exact: each(exact, Candidates::new),
            prefixes: each(prefixes, Candidates::new),
            any: Candidates::new(&any),
        }
    }

    fn find(&self, head: &RequestHead<'_>) -> Option<RouteId> {
        let path = head.path.as_bytes();
        let exact = if self.exact.is_empty() { None } else { self.exact.get(path) };
        exact
            .and_then(|candidates| candidates.find(head))
            .or_else(|| self.by_prefix(path).find_map(|candidates| candidates.find(head)))
            .or_else(|| self.any.find(head))
    }

    fn by_prefix(&self, path: &[u8]) -> impl Iterator<Item = &Candidates> {
        self.prefix_lengths.iter().filter_map(|&length| {
            let prefix = path.get(..length)?;
            let on_border = length == path.len() || path[length] == b'/' || prefix.ends_with(b"/");
            on_border.then(|| self.prefixes.get(prefix))?
        })
    }
}

impl Candidates {
    fn new(alternatives: &[&Alternative<'_>]) -> Self {
        let rows = alternatives.iter().map(|alternative| {
            alternative.rest.iter().map(|term| Predicate::of(term)).collect::<Vec<_>>()
        });
        let routes =
            alternatives.iter().map(|alternative| RouteId(alternative.precedence.order.0 as u32));
        if alternatives.len() > MAX_ASKED_ONE_BY_ONE {
            let many = (Rows::new(rows.collect()), routes.collect());
            return Self { few: Box::default(), many: Some(Box::new(many)) };
        }
        let few = rows.map(Vec::into_boxed_slice).zip(routes).collect();
        Self { few, many: None }
    }

    fn find(&self, head: &RequestHead<'_>) -> Option<RouteId> {
        if let Some((rows, routes)) = self.many.as_deref() {
            return rows.first(head).map(|row| routes[row]);
        }
        let holds = |terms: &[Predicate]| terms.iter().all(|term| term.holds(head));
        self.few.iter().find(|(terms, _)| holds(terms)).map(|(_, route)| *route)
    }
}

type Grouped<'a> = HashMap<Box<[u8]>, Vec<&'a Alternative<'a>>>;

fn lengths(grouped: &Grouped<'_>) -> Box<[usize]> {
    let lengths: BTreeSet<usize> = grouped.keys().map(|text| text.len()).collect();
    lengths.into_iter().rev().collect()
}

fn each<'a, T>(grouped: Grouped<'a>, new: impl Fn(&[&'a Alternative<'a>]) -> T) -> ByText<T> {
    grouped.into_iter().map(|(text, alternatives)| (text, new(&alternatives))).collect()
}
