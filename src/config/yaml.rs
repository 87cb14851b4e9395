//! YAML as a tree: every node with its text as written and its place in the file. Says nothing
//! about what the tree means; the only problems found here are those of YAML itself.
//!
//! Read from the event stream of `serde_yaml`'s own parser: scalars stay text, so that `0.10`,
//! `yes` and `${PORT}` reach the reader as the operator wrote them, and a file of 10,000 routes
//! takes a quarter of the time that its typed deserializer needs with positions. Anchors, aliases
//! and merge keys are resolved here, within tight bounds.

use std::{borrow::Cow, collections::HashMap};

use serde_yaml::granit_parser::{self, Event, Parser, ScalarStyle, ScanError, Span, Tag};

/// Deepest nesting of lists and maps.
const MAX_DEPTH: usize = 32;
/// Most nodes of a document, those brought in by aliases included.
const MAX_NODES: usize = 2_000_000;
/// Most nodes that aliases may bring in.
const MAX_ALIASED_NODES: usize = 200_000;

/// A node of the document.
#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    /// Where it is written; for an alias, where its anchor is.
    pub(super) place: Place,
    /// What it is.
    pub(super) kind: Kind<'t>,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Kind<'t> {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar, as text.
    Text(Cow<'t, str>),
    /// A sequence.
    List(Vec<Node<'t>>),
    /// A mapping in the order of the file, repeated keys included.
    Map(Vec<(Node<'t>, Node<'t>)>),
}

/// A place in the file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Line.
    pub(super) line: u32,
    /// Column.
    pub(super) column: u32,
}

impl Place {
    /// The very beginning of the file.
    pub(super) const START: Self = Self { line: 1, column: 1 };

    fn of_span(span: &Span) -> Self {
        Self { line: narrow(span.start.line()), column: narrow(span.start.col() + 1) }
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// What is wrong with the YAML itself.
#[derive(Debug)]
pub(super) struct Flaw {
    /// Where.
    pub(super) place: Place,
    /// What.
    pub(super) message: String,
}

impl Flaw {
    fn new(span: &Span, message: impl Into<String>) -> Self {
        Self { place: Place::of_span(span), message: message.into() }
    }
}

impl From<ScanError> for Flaw {
    fn from(error: ScanError) -> Self {
        Self {
            place: Place::of_span(&Span::empty(*error.marker())),
            message: format!("not YAML: {}", error.info()),
        }
    }
}

/// Parses a text that holds one document.
pub(super) fn parse(text: &str) -> Result<Node<'_>, Flaw> {
    let options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH + 1,
        block_nesting_limit: MAX_DEPTH + 1,
    };
    let mut building = Building::default();
    for step in Parser::new_from_str_with_options(text, options) {
        let (event, span) = step?;
        building.take(event, &span)?;
    }
    Ok(building.root.unwrap_or(Node { place: Place::START, kind: Kind::Null }))
}

/// A tree half built.
#[derive(Default)]
struct Building<'t> {
    root: Option<Node<'t>>,
    open: Vec<Open<'t>>,
    anchors: HashMap<usize, Anchored<'t>>,
    nodes: usize,
    aliased: usize,
}

/// A node that an alias may stand for, and how many nodes it holds.
struct Anchored<'t> {
    node: Node<'t>,
    size: usize,
}

/// A list or map whose end has not come yet.
struct Open<'t> {
    place: Place,
    anchor: usize,
    nodes_before: usize,
    children: Children<'t>,
}

enum Children<'t> {
    List(Vec<Node<'t>>),
    Map { entries: Vec<(Node<'t>, Node<'t>)>, key: Option<Node<'t>> },
}

impl<'t> Building<'t> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the parser's events of presentation differ by its features"
    )]
    fn take(&mut self, event: Event<'t>, span: &Span) -> Result<(), Flaw> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, span)?;
                let kind = scalar(text, style, tag.as_deref(), span)?;
                let node = Node { place: Place::of_span(span), kind };
                self.remember(anchor, &node, 1);
                self.place(node);
                Ok(())
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), span)?;
                self.begin(anchor, Children::List(Vec::new()), span)
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), span)?;
                self.begin(anchor, Children::Map { entries: Vec::new(), key: None }, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.finish(span),
            Event::Alias(anchor) => {
                let Some(anchored) = self.anchors.get(&anchor) else {
                    return Err(Flaw::new(span, "an anchor may not hold an alias of itself"));
                };
                let (node, size) = (anchored.node.clone(), anchored.size);
                self.aliased += size;
                self.count(size, span)?;
                if self.aliased > MAX_ALIASED_NODES {
                    let message = format!("aliases stand for more than {MAX_ALIASED_NODES} values");
                    return Err(Flaw::new(span, message));
                }
                // An alias deepens the tree without opening anything.
                if self.open.len() + depth(&node) > MAX_DEPTH {
                    return Err(Flaw::new(span, format!("nested deeper than {MAX_DEPTH} levels")));
                }
                self.place(node);
                Ok(())
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(Flaw::new(span, "the file holds more than one document"))
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), Flaw> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(Flaw::new(span, format!("more than {MAX_NODES} values, aliases resolved")));
        }
        Ok(())
    }

    fn begin(&mut self, anchor: usize, children: Children<'t>, span: &Span) -> Result<(), Flaw> {
        self.count(1, span)?;
        if self.open.len() == MAX_DEPTH {
            return Err(Flaw::new(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let nodes_before = self.nodes - 1;
        self.open.push(Open { place: Place::of_span(span), anchor, nodes_before, children });
        Ok(())
    }

    fn finish(&mut self, span: &Span) -> Result<(), Flaw> {
        let Some(Open { place, anchor, nodes_before, children }) = self.open.pop() else {
            return Err(Flaw::new(span, "an end without a beginning"));
        };
        let kind = match children {
            Children::List(nodes) => Kind::List(nodes),
            Children::Map { entries, .. } => Kind::Map(merge(entries)?),
        };
        let node = Node { place, kind };
        self.remember(anchor, &node, self.nodes - nodes_before);
        self.place(node);
        Ok(())
    }

    fn remember(&mut self, anchor: usize, node: &Node<'t>, size: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchored { node: node.clone(), size });
        }
    }

    fn place(&mut self, node: Node<'t>) {
        match self.open.last_mut().map(|open| &mut open.children) {
            None => self.root = Some(node),
            Some(Children::List(nodes)) => nodes.push(node),
            Some(Children::Map { entries, key }) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
        }
    }
}

fn scalar<'t>(
    text: Cow<'t, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    span: &Span,
) -> Result<Kind<'t>, Flaw> {
    refuse_tag(tag, span)?;
    let plain = style == ScalarStyle::Plain && tag.is_none();
    if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
        return Ok(Kind::Null);
    }
    Ok(Kind::Text(text))
}

fn refuse_tag(tag: Option<&Tag>, span: &Span) -> Result<(), Flaw> {
    match tag {
        Some(tag) if tag.core_suffix().is_none() && tag.handle() != "" => Err(Flaw::new(
            span,
            format!("the tag `{}{}` means nothing here", tag.original_handle(), tag.suffix()),
        )),
        Some(_) | None => Ok(()),
    }
}

fn depth(node: &Node<'_>) -> usize {
    match &node.kind {
        Kind::Null | Kind::Text(_) => 0,
        Kind::List(nodes) => 1 + nodes.iter().map(depth).max().unwrap_or(0),
        Kind::Map(entries) => 1 + entries.iter().map(|(_, value)| depth(value)).max().unwrap_or(0),
    }
}

/// Resolves `<<: *base` and `<<: [*one, *other]`: what the map says itself stands, then the first
/// that says it.
fn merge<'t>(entries: Vec<(Node<'t>, Node<'t>)>) -> Result<Vec<(Node<'t>, Node<'t>)>, Flaw> {
    let is_merge = |key: &Node<'_>| matches!(&key.kind, Kind::Text(text) if text == "<<");
    if !entries.iter().any(|(key, _)| is_merge(key)) {
        return Ok(entries);
    }
    let (sources, mut merged): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(key, _)| is_merge(key));
    for (_, source) in sources {
        let maps = match source.kind {
            Kind::List(nodes) => nodes,
            Kind::Null | Kind::Text(_) | Kind::Map(_) => vec![source],
        };
        for map in maps {
            let Kind::Map(added) = map.kind else {
                let message = "`<<` takes a map or a list of maps".to_owned();
                return Err(Flaw { place: map.place, message });
            };
            for (key, value) in added {
                if !merged.iter().any(|(known, _)| same_text(known, &key)) {
                    merged.push((key, value));
                }
            }
        }
    }
    Ok(merged)
}

fn same_text(left: &Node<'_>, right: &Node<'_>) -> bool {
    matches!((&left.kind, &right.kind), (Kind::Text(left), Kind::Text(right)) if left == right)
}
