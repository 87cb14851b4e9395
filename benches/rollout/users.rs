//! Users who come back: few come often, most seldom (Zipf). Remembers which arm each was on, and
//! every change. It does not say which changes are right.

use tokio::time::Instant;

/// A user who changed arms.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Move {
    pub(crate) from: String,
    pub(crate) to: String,
    /// When the last request that was answered by `from` was sent.
    pub(crate) after: Instant,
    /// When the first answer of `to` was there.
    pub(crate) before: Instant,
}

/// All users.
#[derive(Debug)]
pub(crate) struct Users {
    /// The share of requests that comes from this user or one before.
    cumulative: Vec<f64>,
    last: Vec<Option<Last>>,
    moves: Vec<Move>,
}

#[derive(Clone, Debug)]
struct Last {
    arm: String,
    sent: Instant,
}

impl Users {
    pub(crate) fn new(count: u32, exponent: f64) -> Self {
        let weights = (1..=count).map(|rank| f64::from(rank).powf(-exponent));
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|value| *value /= sum);
        Self { last: vec![None; cumulative.len()], cumulative, moves: Vec::new() }
    }

    /// Whom the next request comes from.
    pub(crate) fn anybody(&self) -> usize {
        let coin = fastrand::f64();
        self.cumulative.partition_point(|share| *share < coin).min(self.cumulative.len() - 1)
    }

    /// A request that was sent at this moment has been answered by this arm.
    pub(crate) fn answered(&mut self, user: usize, arm: &str, sent: Instant) {
        let last = &mut self.last[user];
        match last {
            // Answers may overtake each other; only what was sent later says something new.
            Some(last) if last.sent > sent => {}
            Some(last) if last.arm == arm => last.sent = sent,
            Some(last) => {
                let from = std::mem::replace(&mut last.arm, arm.to_owned());
                let after = std::mem::replace(&mut last.sent, sent);
                self.moves.push(Move { from, to: arm.to_owned(), after, before: Instant::now() });
            }
            None => *last = Some(Last { arm: arm.to_owned(), sent }),
        }
    }

    pub(crate) fn moves(&self) -> &[Move] {
        &self.moves
    }
}
