//! Many conditions asked at once. Every condition is a row, a bit in a mask; for every attribute
//! that some row reads, tables made beforehand give the mask of the rows that a value leaves alive.
//! A request reads each attribute once, masks are combined, and the first row that is alive wins.
//!
//! What cannot be tabled (regular expressions, countries and claims, shares of keys, `any` and `not`
//! over several attributes) is the row's remainder, asked only of rows that are alive, in their order.

use std::borrow::Cow;

use http::HeaderName;

use super::{
    RequestHead,
    classes::{AddressTable, Mask, Masks, Terms, TextTable},
    device::{DeviceSet, devices},
    names::{MAX_NAMES, Names},
    predicate::{Attribute, Predicate, Value},
    read::{cookie_value, cookies, form_decoded, parameters},
};

/// Most rows of one index; more are cut into several. It bounds the memory of the masks, which is
/// at most the square of this for every attribute.
const MAX_ROWS: usize = 4096;
const MAX_WORDS: usize = MAX_ROWS / 64;

/// Conditions, asked in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    chunks: Box<[Chunk]>,
}

impl Rows {
    /// Compiles rows; all terms of a row must hold.
    pub(super) fn new(rows: Vec<Vec<Predicate>>) -> Self {
        let mut rows = rows.into_iter().peekable();
        let mut chunks = Vec::new();
        while rows.peek().is_some() {
            chunks.push(Chunk::new(rows.by_ref().take(MAX_ROWS).collect()));
        }
        Self { chunks: chunks.into() }
    }

    /// The first row that a request fulfils.
    pub(super) fn first(&self, head: &RequestHead<'_>) -> Option<usize> {
        self.chunks
            .iter()
            .enumerate()
            .find_map(|(index, chunk)| Some(index * MAX_ROWS + chunk.first(head)?))
    }
}

#[derive(Clone, Debug)]
struct Chunk {
    masks: Masks,
    /// All rows.
    all: Mask,
    readers: Box<[Reader]>,
    /// By row, what no table decides.
    remainders: Box<[Box<[Predicate]>]>,
}

/// An attribute, or all cookies or parameters, and the tables of its values.
#[derive(Clone, Debug)]
enum Reader {
    Method(TextTable),
    Host(TextTable),
    Path(TextTable),
    ClientIp(AddressTable),
    Header(HeaderName, TextTable),
    Cookies(Named),
    Parameters(Named),
    Device(Box<[Mask]>),
}

/// Tables of several attributes that are read in one pass over cookies or parameters.
#[derive(Clone, Debug)]
struct Named {
    names: Names,
    /// By the number of the name.
    tables: Vec<TextTable>,
}

impl Chunk {
    fn new(rows: Vec<Vec<Predicate>>) -> Self {
        let mut masks = Masks::new(rows.len());
        let mut terms: Vec<(Attribute, Vec<(usize, Predicate)>)> = Vec::new();
        let mut remainders = Vec::with_capacity(rows.len());
        for (row, predicates) in rows.into_iter().enumerate() {
            let (tabled, remainder): (Vec<_>, Vec<_>) =
                predicates.into_iter().partition(|term| term.only_attribute().is_some());
            remainders.push(remainder.into_boxed_slice());
            for term in tabled {
                let attribute = term.only_attribute();
                match terms.iter_mut().find(|(known, _)| Some(known) == attribute) {
                    Some((_, terms)) => terms.push((row, term)),
                    None => terms.extend(attribute.cloned().map(|new| (new, vec![(row, term)]))),
                }
            }
        }
        let readers = readers(&mut masks, &terms);
        let all = masks.all();
        masks.finish();
        Self { masks, all, readers, remainders: remainders.into() }
    }

    fn first(&self, head: &RequestHead<'_>) -> Option<usize> {
        // Clearing the largest buffer would take as long as reading an attribute.
        match self.masks.words() {
            0..=2 => self.first_in(&mut [0; 2], head),
            3..=16 => self.first_in(&mut [0; 16], head),
            _ => self.first_in(&mut [0; MAX_WORDS], head),
        }
    }

    fn first_in(&self, buffer: &mut [u64], head: &RequestHead<'_>) -> Option<usize> {
        let words = &mut buffer[..self.masks.words()];
        words.copy_from_slice(self.masks.at(self.all));
        let mut alive = Alive { masks: &self.masks, words };
        if !self.readers.iter().all(|reader| reader.narrow(&mut alive, head)) {
            return None;
        }
        alive.rows().find(|row| self.remainders[*row].iter().all(|term| term.holds(head)))
    }
}

/// The rows that no attribute has ruled out so far.
struct Alive<'a> {
    masks: &'a Masks,
    words: &'a mut [u64],
}

impl Alive<'_> {
    /// Rules out what is not in the mask; whether any row is left.
    fn keep(&mut self, mask: Mask) -> bool {
        let kept = self.masks.at(mask);
        // Up to 128 rows, without the overhead of a vectorised loop.
        if let ([one, other], [kept_one, kept_other]) = (&mut *self.words, kept) {
            *one &= kept_one;
            *other &= kept_other;
            return *one | *other != 0;
        }
        let mut left = 0;
        for (word, kept) in self.words.iter_mut().zip(kept) {
            *word &= kept;
            left |= *word;
        }
        left != 0
    }

    fn rows(&self) -> impl Iterator<Item = usize> {
        self.words
            .iter()
            .enumerate()
            .flat_map(|(index, word)| Bits(*word).map(move |bit| index * 64 + bit))
    }
}

/// The numbers of the bits that are set, lowest first.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let lowest = (self.0 != 0).then(|| self.0.trailing_zeros() as usize)?;
        self.0 &= self.0 - 1;
        Some(lowest)
    }
}

/// The readers of all attributes, the cheap ones first.
fn readers(masks: &mut Masks, terms: &[(Attribute, Vec<(usize, Predicate)>)]) -> Box<[Reader]> {
    let mut readers = Vec::new();
    let (mut cookies, mut parameters) = (Vec::new(), Vec::new());
    let mut device = None;
    for (attribute, terms) in terms {
        match attribute {
            Attribute::Method => readers.push(Reader::Method(TextTable::new(masks, terms))),
            Attribute::Host => readers.push(Reader::Host(TextTable::new(masks, terms))),
            Attribute::Path => readers.push(Reader::Path(TextTable::new(masks, terms))),
            Attribute::ClientIp => readers.push(Reader::ClientIp(AddressTable::new(masks, terms))),
            Attribute::Header(name) => {
                readers.push(Reader::Header(name.clone(), TextTable::new(masks, terms)));
            }
            Attribute::Cookie(name) => add_named(&mut cookies, name, TextTable::new(masks, terms)),
            Attribute::Query(name) => {
                add_named(&mut parameters, name, TextTable::new(masks, terms));
            }
            Attribute::Device => device = Some(Reader::Device(device_table(masks, terms))),
        }
    }
    readers.extend(cookies.into_iter().map(Reader::Cookies));
    readers.extend(parameters.into_iter().map(Reader::Parameters));
    readers.extend(device);
    readers.into()
}

fn add_named(groups: &mut Vec<Named>, name: &str, table: TextTable) {
    if groups.last().is_none_or(|group| group.tables.len() == MAX_NAMES) {
        groups.push(Named { names: Names::new(), tables: Vec::new() });
    }
    if let Some(group) = groups.last_mut() {
        group.names.add(name.as_bytes());
        group.tables.push(table);
    }
}

fn device_table(masks: &mut Masks, terms: &Terms) -> Box<[Mask]> {
    (0..DeviceSet::COUNT)
        .map(|bits| masks.alive_for(terms, &Value::Devices(DeviceSet::from_bits(bits as u8))))
        .collect()
}

impl Reader {
    /// Rules out the rows that do not live with the request's value; whether any is left.
    fn narrow(&self, alive: &mut Alive<'_>, head: &RequestHead<'_>) -> bool {
        match self {
            Self::Method(table) => alive.keep(table.at(head.method.as_str().as_bytes())),
            Self::Host(table) => alive.keep(table.at(head.host.as_bytes())),
            Self::Path(table) => alive.keep(table.at(head.path.as_bytes())),
            Self::ClientIp(table) => alive.keep(table.at(head.client_ip.to_canonical())),
            Self::Header(name, table) => {
                let value = head.headers.get(name);
                alive.keep(value.map_or(table.absent(), |value| table.at(value.as_bytes())))
            }
            Self::Cookies(named) => {
                let value = |raw| Cow::Borrowed(cookie_value(raw));
                named.narrow(alive, cookies(head.headers), value)
            }
            Self::Parameters(named) => {
                let query = head.query.unwrap_or_default();
                named.narrow(alive, parameters(query), form_decoded)
            }
            Self::Device(table) => alive.keep(table[usize::from(devices(head.headers).bits())]),
        }
    }
}

impl Named {
    /// Goes through the pairs of name and raw value once. Of several of a name the first counts.
    fn narrow<'a>(
        &self,
        alive: &mut Alive<'_>,
        pairs: impl Iterator<Item = (impl AsRef<[u8]>, &'a [u8])>,
        value: impl Fn(&'a [u8]) -> Cow<'a, [u8]>,
    ) -> bool {
        let mut unseen = u64::MAX >> (MAX_NAMES - self.tables.len());
        for (name, raw) in pairs {
            let Some(index) = self.names.find(name.as_ref()) else { continue };
            if unseen >> index & 1 == 0 {
                continue;
            }
            unseen &= !(1 << index);
            if !alive.keep(self.tables[index].at(&value(raw))) {
                return false;
            }
            if unseen == 0 {
                return true;
            }
        }
        Bits(unseen).all(|index| alive.keep(self.tables[index].absent()))
    }
}
