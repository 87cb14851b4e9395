//! A few names, to find which of them another one is. Nearly all names that requests bring are none
//! of them, so a look at length, first and last byte comes before any comparison.

/// Most names of one set.
pub(super) const MAX_NAMES: usize = 64;

/// A set of different names, numbered from 0.
#[derive(Clone, Debug)]
pub(super) struct Names {
    names: Vec<Box<[u8]>>,
    /// By fingerprint, the first name that has it.
    first: Box<[u8; 256]>,
    /// By name, the next one of the same fingerprint.
    next: Vec<u8>,
}

const NONE: u8 = u8::MAX;

impl Names {
    /// No names.
    pub(super) fn new() -> Self {
        Self { names: Vec::new(), first: Box::new([NONE; 256]), next: Vec::new() }
    }

    /// Number of names.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Adds a name, which must not be one of them yet, if there is room.
    pub(super) fn add(&mut self, name: &[u8]) {
        if self.len() < MAX_NAMES {
            let first = &mut self.first[usize::from(fingerprint(name))];
            self.next.push(*first);
            *first = self.names.len() as u8;
            self.names.push(name.into());
        }
    }

    /// The number of a name.
    pub(super) fn find(&self, name: &[u8]) -> Option<usize> {
        let mut candidate = self.first[usize::from(fingerprint(name))];
        while candidate != NONE {
            let index = usize::from(candidate);
            if *self.names[index] == *name {
                return Some(index);
            }
            candidate = self.next[index];
        }
        None
    }
}

/// A number that tells most short texts apart, made of their length, first and last byte.
pub(super) fn fingerprint(text: &[u8]) -> u8 {
    let (Some(first), Some(last)) = (text.first(), text.last()) else { return 0 };
    first.wrapping_add(last.wrapping_mul(31)).wrapping_add((text.len() as u8).wrapping_mul(7))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_nothing_else() {
        let mut names = Names::new();
        let named = |number: usize| format!("n{}x", number);
        (0..MAX_NAMES).for_each(|number| names.add(named(number).as_bytes()));
        for number in 0..MAX_NAMES {
            assert_eq!(names.find(named(number).as_bytes()), Some(number));
        }
        assert_eq!(names.find(b""), None);
        assert_eq!(names.find(b"n64x"), None);
        names.add(b"one too many");
        assert_eq!(names.len(), MAX_NAMES);
    }
}
