//! Made-up traffic: the same seed makes the same requests, on any number of threads.

mod requests;
mod stalls;
mod weather;

use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

pub use requests::{End, Population, Request, Requests};
pub use stalls::Stalls;
pub use weather::{Arm, Conditions, Weather, rate_at};

/// The generator that all randomness of the laboratory comes from.
pub type Random = Xoshiro256PlusPlus;

/// What a stream of random numbers is for. Streams of one run are independent, so that one more
/// draw in one of them moves nothing in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The common load.
    Weather,
    /// Stalls of the baseline's pods.
    BaselinePods,
    /// Stalls of the canary's pods.
    CanaryPods,
    /// Arrivals, users, coins, latencies and errors.
    Requests,
    /// The same of requests that are repeated.
    Retries,
}

/// The generator of one stream of one run.
#[must_use]
pub fn random(seed: u64, run: u32, stream: Stream) -> Random {
    // The generator's own seeding scrambles, so that neighbouring numbers do no harm.
    let run = (u64::from(run) << 3 | stream as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Random::seed_from_u64(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ run)
}
