//! The texts in their order, cut into stretches: in each of them every text begins with the same of
//! the prefixes that were asked for. Finding a text's stretch is a search over numbers made of the
//! first bytes in which the borders differ, whole texts are compared only where these are equal.

/// Values by stretch.
#[derive(Clone, Debug)]
pub(super) struct Stretches<T> {
    /// What all borders begin with.
    common: Box<[u8]>,
    /// The first eight bytes of `common`, and which of their bits it has.
    common_key: u64,
    common_bits: u64,
    /// Of every border, the first eight bytes behind `common`, as a number in the same order.
    keys: Box<[u64]>,
    /// The borders, without `common`: the first text of every stretch but the one before the first
    /// border.
    borders: Box<[Box<[u8]>]>,
    /// By stretch, the one before the first border first.
    values: Box<[T]>,
}

impl<T: Copy> Stretches<T> {
    /// The stretches between these prefixes, each with the value that `value` gives to a text of
    /// it. The text before the first border is the empty one.
    pub(super) fn new(prefixes: Vec<Box<[u8]>>, mut value: impl FnMut(&[u8]) -> T) -> Self {
        let borders = borders(prefixes);
        let before = value(b"");
        let values = std::iter::once(before).chain(borders.iter().map(|first| value(first)));
        let values = values.collect();
        let common = common_prefix(&borders);
        let behind = |border: &[u8]| border[common.len()..].into();
        let borders: Box<[Box<[u8]>]> = borders.iter().map(|border| behind(border)).collect();
        let keys = borders.iter().map(|border| key(border)).collect();
        let common_bits = key(&vec![0xff; common.len()]);
        Self { common_key: key(&common), common_bits, common, keys, borders, values }
    }

    /// The value of a text's stretch.
    pub(super) fn at(&self, text: &[u8]) -> T {
        if self.borders.is_empty() {
            return self.before();
        }
        let first = key(text) & self.common_bits;
        if first != self.common_key {
            return if first < self.common_key { self.before() } else { self.beyond() };
        }
        let Some(rest) = text.strip_prefix(&*self.common) else {
            return if *text < *self.common { self.before() } else { self.beyond() };
        };
        let wanted = key(rest);
        let lower = self.keys.partition_point(|key| *key < wanted);
        let equal = self.keys[lower..].iter().take_while(|key| **key == wanted).count();
        let tied = &self.borders[lower..lower + equal];
        self.values[lower + tied.partition_point(|border| **border <= *rest)]
    }
}

impl<T: Copy> Stretches<T> {
    fn before(&self) -> T {
        self.values[0]
    }

    fn beyond(&self) -> T {
        self.values[self.borders.len()]
    }
}

/// The texts at which prefixes begin and end, in order.
fn borders(prefixes: Vec<Box<[u8]>>) -> Vec<Box<[u8]>> {
    let ends: Vec<Box<[u8]>> = prefixes.iter().filter_map(|prefix| end_of(prefix)).collect();
    let mut borders = prefixes;
    borders.extend(ends);
    borders.sort_unstable();
    borders.dedup();
    borders
}

/// The first text behind all that begin with this prefix.
fn end_of(prefix: &[u8]) -> Option<Box<[u8]>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end: Box<[u8]> = prefix[..=last].into();
    end[last] += 1;
    Some(end)
}

/// What all of these begin with. They are in order, so the first and the last differ first.
fn common_prefix(sorted: &[Box<[u8]>]) -> Box<[u8]> {
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return Box::default() };
    first.iter().zip(last).take_while(|(one, other)| one == other).map(|(byte, _)| *byte).collect()
}

fn key(text: &[u8]) -> u64 {
    if let Some(first) = text.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    text.iter().fold(0, |key, byte| key << 8 | u64::from(*byte)) << (8 * (8 - text.len()) % 64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The prefixes that a text begins with, as bits.
    fn begins_with(prefixes: &[Box<[u8]>], text: &[u8]) -> u32 {
        let bits = prefixes.iter().enumerate();
        bits.fold(0, |bits, (at, prefix)| bits | u32::from(text.starts_with(prefix)) << at)
    }

    fn any_text() -> impl Strategy<Value = Box<[u8]>> {
        let byte = prop::sample::select(&[0, b'a', b'b', 0xfe, 0xff][..]);
        (0..3usize, prop::collection::vec(byte, 0..4))
            .prop_map(|(repeats, tail)| [b"/section-".repeat(repeats), tail].concat().into())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_text_is_in_the_stretch_of_its_prefixes(
            prefixes in prop::collection::vec(any_text(), 0..8),
            text in any_text(),
        ) {
            let stretches = Stretches::new(prefixes.clone(), |first| begins_with(&prefixes, first));
            prop_assert_eq!(stretches.at(&text), begins_with(&prefixes, &text));
        }
    }
}
