//! Deadlines: the ages at which the requests of a slot are looked at. Exact microseconds, not the
//! buckets of a histogram.

/// Deadlines that one recorder may have.
pub const MAX_DEADLINES: usize = 12;

/// The longest deadline: slots reach back no further.
pub const MAX_DEADLINE_US: u32 = 30_000_000;

/// The deadlines of one recorder. Which definition of slow stands at which place is up to the
/// caller; all recorders of a service must keep to the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Ascending; what is not used is `u32::MAX`.
    edges_us: [u32; MAX_DEADLINES],
    /// By definition: its place in `edges_us`.
    places: [u8; MAX_DEADLINES],
    definitions: u8,
    failed_by_us: [u32; 2],
    aborted_early_us: u32,
}

impl Default for Deadlines {
    /// None, and failures up to the longest age.
    fn default() -> Self {
        Self::new(&[], [MAX_DEADLINE_US; 2], 0)
    }
}

impl Deadlines {
    /// Deadlines by definition, in any order; at most [`MAX_DEADLINES`], further ones are left
    /// out. `failed_by_us` are the two ages up to which failures count. Requests that the client
    /// gave up before `aborted_early_us` are left out; later ones count as slow. Nothing is longer
    /// than [`MAX_DEADLINE_US`].
    #[must_use]
    pub fn new(by_definition_us: &[u32], failed_by_us: [u32; 2], aborted_early_us: u32) -> Self {
        let count = by_definition_us.len().min(MAX_DEADLINES);
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|definition| by_definition_us[*definition]);
        let mut edges_us = [u32::MAX; MAX_DEADLINES];
        let mut places = [0; MAX_DEADLINES];
        for (place, definition) in order.into_iter().enumerate() {
            edges_us[place] = by_definition_us[definition].min(MAX_DEADLINE_US);
            places[definition] = place as u8;
        }
        Self {
            edges_us,
            places,
            definitions: count as u8,
            failed_by_us: failed_by_us.map(|age_us| age_us.min(MAX_DEADLINE_US)),
            aborted_early_us: aborted_early_us.min(MAX_DEADLINE_US),
        }
    }

    /// Number of definitions.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.definitions)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.definitions == 0
    }

    /// The deadline of a definition in microseconds; `None` where there is no such definition.
    #[must_use]
    pub fn of(&self, definition: usize) -> Option<u32> {
        (definition < self.len()).then(|| self.edges_us[usize::from(self.places[definition])])
    }

    /// The ages up to which failures count, in microseconds.
    #[must_use]
    pub const fn failed_by_us(&self) -> [u32; 2] {
        self.failed_by_us
    }

    /// The age after which nothing changes any more, in microseconds.
    #[must_use]
    pub fn reach_us(&self) -> u32 {
        let last = self.definitions.checked_sub(1).map_or(0, |last| self.edges_us[last as usize]);
        last.max(self.failed_by_us[0]).max(self.failed_by_us[1]).max(self.aborted_early_us)
    }

    /// Whether an abort at this age is left out of the evidence.
    pub(super) const fn aborted_early(&self, age_us: u32) -> bool {
        age_us < self.aborted_early_us
    }

    /// The place of the first deadline that a latency keeps; beyond the last one: none.
    #[inline]
    pub(super) fn place(&self, latency_us: u32) -> usize {
        // Without branches: all of them are compared at once.
        self.edges_us.iter().map(|edge| u32::from(latency_us > *edge)).sum::<u32>() as usize
    }

    /// The place of a definition.
    pub(super) fn place_of(&self, definition: usize) -> usize {
        usize::from(self.places[definition])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_equal_to_the_deadline_keeps_it() {
        let deadlines = Deadlines::new(&[300, 100, 200], [0; 2], 0);
        assert_eq!(deadlines.place(100), 0);
        assert_eq!(deadlines.place(101), 1);
        assert_eq!(deadlines.place(300), 2);
        assert!(deadlines.place(301) >= deadlines.len());
        assert_eq!(deadlines.place_of(0), 2);
        assert_eq!(deadlines.of(1), Some(100));
        assert_eq!(deadlines.of(3), None);
    }

    #[test]
    fn nothing_reaches_further_than_half_a_minute() {
        let deadlines = Deadlines::new(&[u32::MAX, 5], [u32::MAX; 2], u32::MAX);
        assert_eq!(deadlines.reach_us(), MAX_DEADLINE_US);
        assert_eq!(deadlines.of(0), Some(MAX_DEADLINE_US));
    }
}
