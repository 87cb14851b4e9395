//! Tables from the values of one attribute to masks of rows. The tests of all rows cut the values
//! into classes (each value that is named, each stretch between prefixes, everything else, none at
//! all); every row is asked once for every class, when the table is made.

use std::{collections::HashMap, net::IpAddr};

use super::{
    hash::FastBuild,
    names::fingerprint,
    predicate::{Predicate, Test, Value},
    stretches::Stretches,
};

/// A set of rows, as a number in [`Masks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mask(u32);

/// All masks of one index, each different one once.
#[derive(Clone, Debug)]
pub(super) struct Masks {
    rows: usize,
    words: usize,
    bits: Vec<u64>,
    known: HashMap<Box<[u64]>, Mask>,
}

/// The terms of one attribute, each with its row.
pub(super) type Terms = [(usize, Predicate)];

impl Masks {
    /// No masks yet, of so many rows.
    pub(super) fn new(rows: usize) -> Self {
        // Never less than two words, so that few rows need one kind of loop only.
        Self { rows, words: rows.div_ceil(64).max(2), bits: Vec::new(), known: HashMap::new() }
    }

    /// Number of words of a mask.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    /// The words of a mask.
    pub(super) fn at(&self, mask: Mask) -> &[u64] {
        &self.bits[mask.0 as usize * self.words..][..self.words]
    }

    /// The mask of the rows that a value leaves alive: those all of whose terms hold for it, and
    /// those that have none.
    pub(super) fn alive_for(&mut self, terms: &Terms, value: &Value<'_>) -> Mask {
        let mut bits = self.full();
        for (row, term) in terms {
            if !term.holds_for(value) {
                bits[row / 64] &= !(1 << (row % 64));
            }
        }
        self.shared(bits)
    }

    /// As [`Masks::alive_for`] texts that end with the reverse of `backwards`.
    fn alive_ending_like(&mut self, terms: &Terms, backwards: &[u8]) -> Mask {
        self.alive_for(terms, &Value::TextEndingLike(&reversed(backwards)))
    }

    /// The mask of all rows.
    pub(super) fn all(&mut self) -> Mask {
        let bits = self.full();
        self.shared(bits)
    }

    /// Forgets what only the making of masks needs.
    pub(super) fn finish(&mut self) {
        self.known = HashMap::new();
        self.bits.shrink_to_fit();
    }

    fn full(&self) -> Box<[u64]> {
        let mut bits = vec![0; self.words].into_boxed_slice();
        (0..self.rows).for_each(|row| bits[row / 64] |= 1 << (row % 64));
        bits
    }

    fn shared(&mut self, bits: Box<[u64]>) -> Mask {
        let next = Mask(self.known.len() as u32);
        let all_bits = &mut self.bits;
        *self.known.entry(bits).or_insert_with_key(|bits| {
            all_bits.extend(bits);
            next
        })
    }
}

/// Masks by the value of an attribute that is text.
#[derive(Clone, Debug)]
pub(super) struct TextTable {
    absent: Mask,
    exact: HashMap<Box<[u8]>, Mask, FastBuild>,
    /// The fingerprints of the keys of `exact`, one bit each.
    fingerprints: [u64; 4],
    /// All other values.
    stretches: Stretches<Mask>,
    /// Whether `stretches` are of reversed texts, because the tests ask how a text ends.
    from_end: bool,
}

impl TextTable {
    /// The table of these terms.
    pub(super) fn new(masks: &mut Masks, terms: &Terms) -> Self {
        let (mut named, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for (_, term) in terms {
            term.for_each_test(&mut |test| match test {
                Test::Exact(texts) => named.extend(texts.iter().cloned()),
                Test::Prefix(prefixes) => starts.extend(prefixes.iter().cloned()),
                Test::Suffix(suffixes) => ends.extend(suffixes.iter().map(|end| reversed(end))),
                Test::Regex(_) | Test::Present(_) | Test::Nets(_) | Test::Devices(_) => {}
            });
        }
        let from_end = !ends.is_empty();
        let stretches = if from_end {
            let like = |first: &[u8]| masks.alive_ending_like(terms, first);
            Stretches::new(ends, like)
        } else {
            Stretches::new(starts, |first| masks.alive_for(terms, &Value::TextLike(first)))
        };
        let mut table = Self {
            absent: masks.alive_for(terms, &Value::Absent),
            exact: HashMap::default(),
            fingerprints: [0; 4],
            stretches,
            from_end,
        };
        for text in named {
            let (word, bit) = word_and_bit(&text);
            table.fingerprints[word] |= bit;
            let mask = masks.alive_for(terms, &Value::Text((&*text).into()));
            table.exact.insert(text, mask);
        }
        table
    }

    /// The mask of the rows that live without a value.
    pub(super) fn absent(&self) -> Mask {
        self.absent
    }

    /// The mask of the rows that live with this value.
    pub(super) fn at(&self, text: &[u8]) -> Mask {
        let (word, bit) = word_and_bit(text);
        if self.fingerprints[word] & bit != 0
            && let Some(mask) = self.exact.get(text)
        {
            return *mask;
        }
        if self.from_end { self.at_end(text) } else { self.stretches.at(text) }
    }

    /// No name in DNS has more than 255 bytes; what is longer costs an allocation.
    fn at_end(&self, text: &[u8]) -> Mask {
        let mut buffer = [0; 255];
        match buffer.get_mut(..text.len()) {
            Some(backwards) => {
                backwards.copy_from_slice(text);
                backwards.reverse();
                self.stretches.at(backwards)
            }
            None => self.stretches.at(&reversed(text)),
        }
    }
}

fn word_and_bit(text: &[u8]) -> (usize, u64) {
    let fingerprint = fingerprint(text);
    (usize::from(fingerprint / 64), 1 << (fingerprint % 64))
}

fn reversed(text: &[u8]) -> Box<[u8]> {
    text.iter().rev().copied().collect()
}

/// Masks by the client's address.
#[derive(Clone, Debug)]
pub(super) struct AddressTable {
    /// The stretches of addresses in the same networks, by their first address, in order.
    stretches: Box<[(IpAddr, Mask)]>,
    /// What lies before the first stretch.
    other: Mask,
}

impl AddressTable {
    /// The table of these terms.
    pub(super) fn new(masks: &mut Masks, terms: &Terms) -> Self {
        let mut firsts = Vec::new();
        for (_, term) in terms {
            term.for_each_test(&mut |test| {
                if let Test::Nets(nets) = test {
                    firsts.extend(nets.iter().map(ipnet::IpNet::network));
                    firsts.extend(nets.iter().filter_map(|net| next(net.broadcast())));
                }
            });
        }
        firsts.push(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED));
        firsts.sort_unstable();
        firsts.dedup();
        let stretches = firsts
            .into_iter()
            .map(|first| (first, masks.alive_for(terms, &Value::Address(first))))
            .collect();
        let lowest = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        Self { stretches, other: masks.alive_for(terms, &Value::Address(lowest)) }
    }

    /// The mask of the rows that live with this address.
    pub(super) fn at(&self, address: IpAddr) -> Mask {
        let after = self.stretches.partition_point(|(first, _)| *first <= address);
        after.checked_sub(1).map_or(self.other, |index| self.stretches[index].1)
    }
}

/// The address behind this one in the same family.
fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}
