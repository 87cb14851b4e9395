//! A hash for tables whose keys come from the configuration: short, and without a seed. Requests
//! only look up and never add, so nobody outside can make the keys of a table collide.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds [`WordHasher`]s.
pub(super) type FastBuild = BuildHasherDefault<WordHasher>;

/// Folds eight bytes at a time into a 128-bit product.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WordHasher(u64);

/// 2^64 divided by the golden ratio: an odd number without a pattern in its bits.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl WordHasher {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ MULTIPLIER) * u128::from(MULTIPLIER);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        // What remains is read as few words that may overlap: a copy of unknown length costs more.
        let short = |at: usize| u64::from(rest[at]);
        match (rest.len(), bytes.last_chunk(), rest.first_chunk(), rest.last_chunk()) {
            (0, ..) => {}
            (_, Some(last), ..) => self.mix(u64::from_le_bytes(*last)),
            (_, None, Some(first), Some(last)) => self.mix(
                u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32,
            ),
            (length, ..) => {
                self.mix(short(0) | short(length / 2) << 8 | short(length - 1) << 16);
            }
        }
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::BuildHasher};

    use super::*;

    #[test]
    fn every_length_and_every_byte_counts() {
        let mut seen = HashSet::new();
        for length in 0..40 {
            let text = vec![b'a'; length];
            assert!(seen.insert(FastBuild::default().hash_one(&*text)));
            for changed in 0..length {
                let mut text = text.clone();
                text[changed] = b'b';
                assert!(seen.insert(FastBuild::default().hash_one(&*text)), "{length} {changed}");
            }
        }
    }
}
