//! Which of several matching routes wins. A type with an order, so that the rule stands in one
//! place; deliberately says nothing about how a match is found.

use std::cmp::Reverse;

use super::{Condition, HostPattern};

/// How specific one way of matching a route is; the greatest of those that match wins.
///
/// Fields are compared in their order: the host first, then the path, then whether the method is
/// named, then how many other conditions there are, and at last the place in the configuration,
/// where the first stands before the others. A route with several hosts, paths or `any`
/// alternatives at its top counts as that many routes, each with its own precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    /// How exactly the host is named.
    pub host: HostRank,
    /// How exactly the path is named.
    pub path: PathRank,
    /// Whether the method is named.
    pub method: bool,
    /// Number of conditions beside host, path and method. A nested `any`, `all` or `not` is one.
    pub others: usize,
    /// Place among the routes, counted from 0.
    pub order: Reverse<usize>,
}

/// How exactly a route names its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostRank {
    /// Not at all.
    Any,
    /// By a suffix of this length in bytes.
    Suffix(usize),
    /// Exactly.
    Exact,
}

/// How exactly a route names its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathRank {
    /// Not at all.
    Any,
    /// By a regular expression.
    Regex,
    /// By a prefix of this length in bytes.
    Prefix(usize),
    /// Exactly.
    Exact,
}

/// One way in which a route matches: at most one host, at most one path, and everything else.
#[derive(Clone, Debug)]
pub(super) struct Alternative<'a> {
    pub(super) precedence: Precedence,
    pub(super) host: HostKey,
    pub(super) path: PathKey,
    /// The terms that `host` and `path` do not stand for; all of them must hold.
    pub(super) rest: Vec<&'a Condition>,
}

/// The host of an alternative, in its normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HostKey {
    Any,
    Suffix(Box<str>),
    Exact(Box<str>),
}

/// The path of an alternative, in its normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathKey {
    Any,
    Prefix(Box<str>),
    Exact(Box<str>),
}

/// All the ways in which the route at `order` matches.
pub(super) fn alternatives(condition: &Condition, order: usize) -> Vec<Alternative<'_>> {
    conjunctions(condition).into_iter().flat_map(|terms| of_terms(&terms, order)).collect()
}

/// The terms of a condition: lists all of which must hold, one list for every alternative of an
/// `any` that stands alone. Deeper ones are left whole: multiplied out they could be very many.
pub(super) fn conjunctions(condition: &Condition) -> Vec<Vec<&Condition>> {
    let mut terms = Vec::new();
    collect_terms(condition, &mut terms);
    match terms[..] {
        [Condition::Any(alternatives)] => alternatives.iter().flat_map(conjunctions).collect(),
        _ => vec![terms],
    }
}

fn collect_terms<'a>(condition: &'a Condition, terms: &mut Vec<&'a Condition>) {
    if let Condition::All(all) = condition {
        all.iter().for_each(|condition| collect_terms(condition, terms));
    } else {
        terms.push(condition);
    }
}

fn of_terms<'a>(terms: &[&'a Condition], order: usize) -> Vec<Alternative<'a>> {
    let host_term = terms.iter().position(|term| matches!(term, Condition::Host(_)));
    let path_term = terms
        .iter()
        .position(|term| matches!(term, Condition::Path(_)))
        .or_else(|| terms.iter().position(|term| matches!(term, Condition::PathPrefix(_))));
    let rest: Vec<&Condition> = (0..terms.len())
        .filter(|index| Some(*index) != host_term && Some(*index) != path_term)
        .map(|index| terms[index])
        .collect();
    let regex =
        path_term.is_none() && rest.iter().any(|term| matches!(term, Condition::PathRegex(_)));
    let method = rest.iter().any(|term| matches!(term, Condition::Method(_)));
    let others = rest.len() - usize::from(regex) - usize::from(method);
    let paths = path_keys(path_term.map(|index| terms[index]));
    let mut alternatives = Vec::new();
    for host in host_keys(host_term.map(|index| terms[index])) {
        for path in &paths {
            let precedence = Precedence {
                host: host.rank(),
                path: path.rank(regex),
                method,
                others,
                order: Reverse(order),
            };
            let (host, path) = (host.clone(), path.clone());
            alternatives.push(Alternative { precedence, host, path, rest: rest.clone() });
        }
    }
    alternatives
}

fn host_keys(term: Option<&Condition>) -> Vec<HostKey> {
    let Some(Condition::Host(hosts)) = term else { return vec![HostKey::Any] };
    let key = |host: &HostPattern| match host {
        HostPattern::Exact(host) => HostKey::Exact(host.as_ref().into()),
        HostPattern::Suffix(suffix) => HostKey::Suffix(suffix.as_ref().into()),
    };
    hosts.iter().map(key).collect()
}

fn path_keys(term: Option<&Condition>) -> Vec<PathKey> {
    if let Some(Condition::Path(paths)) = term {
        return paths.iter().map(|path| PathKey::Exact(path.as_ref().into())).collect();
    }
    if let Some(Condition::PathPrefix(prefixes)) = term {
        return prefixes.iter().map(|prefix| PathKey::Prefix(prefix.as_ref().into())).collect();
    }
    vec![PathKey::Any]
}

impl HostKey {
    fn rank(&self) -> HostRank {
        match self {
            Self::Any => HostRank::Any,
            Self::Suffix(suffix) => HostRank::Suffix(suffix.len()),
            Self::Exact(_) => HostRank::Exact,
        }
    }
}

impl PathKey {
    fn rank(&self, regex: bool) -> PathRank {
        match self {
            Self::Any if regex => PathRank::Regex,
            Self::Any => PathRank::Any,
            Self::Prefix(prefix) => PathRank::Prefix(prefix.len()),
            Self::Exact(_) => PathRank::Exact,
        }
    }
}
