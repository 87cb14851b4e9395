//! What simulations are held against: exact intervals for shares, and the information bounds of
//! detection.

/// The exact two-sided interval for a share, `hits` of `runs`, at `confidence` (Clopper, Pearson
/// 1934).
#[must_use]
pub fn exact_interval(hits: u64, runs: u64, confidence: f64) -> (f64, f64) {
    let tail = (1.0 - confidence) / 2.0;
    let solve = |wanted: f64, at_most: &dyn Fn(f64) -> f64| {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if at_most(middle) > wanted { low = middle } else { high = middle }
        }
        low
    };
    let lower =
        if hits == 0 { 0.0 } else { solve(1.0 - tail, &|p| binomial_at_most(hits - 1, runs, p)) };
    let upper = if hits >= runs { 1.0 } else { solve(tail, &|p| binomial_at_most(hits, runs, p)) };
    (lower, upper)
}

/// P(Bin(n, p) <= k).
fn binomial_at_most(k: u64, n: u64, p: f64) -> f64 {
    if p <= 0.0 {
        return 1.0;
    }
    if p >= 1.0 {
        return f64::from(u8::from(k >= n));
    }
    let mut term_ln = n as f64 * (-p).ln_1p();
    let odds_ln = (p / (1.0 - p)).ln();
    let mut sum = 0.0;
    for i in 0..=k.min(n) {
        sum += term_ln.exp();
        term_ln += odds_ln + ((n - i) as f64 / (i + 1) as f64).ln();
    }
    sum.min(1.0)
}

/// The information divergence of two coins.
fn divergence(p: f64, q: f64) -> f64 {
    let part = |a: f64, b: f64| if a == 0.0 { 0.0 } else { a * (a / b).ln() };
    part(p, q) + part(1.0 - p, 1.0 - q)
}

/// The least mean number of canary requests until evidence of 1/alpha that the canary's bad
/// share `canary` exceeds the baseline's `baseline`, at weight `weight`, with both estimated
/// (Wald 1945, with the growth of the best two-sample bet: Turner, Ly, Gruenwald, arXiv
/// 2106.02693).
#[must_use]
pub fn two_sample_requests(baseline: f64, canary: f64, weight: f64, alpha: f64) -> f64 {
    let pooled = weight * canary + (1.0 - weight) * baseline;
    let per_request =
        divergence(canary, pooled) + (1.0 - weight) / weight * divergence(baseline, pooled);
    -alpha.ln() / per_request
}

/// The canary requests within the blocks that no bet can do without: each multiplies the wealth by
/// at most `1 + .95 (pi1 / pi0 - 1)`.
#[must_use]
pub fn block_floor_requests(ratio: f64, weight: f64, per_block: f64, alpha: f64) -> f64 {
    let under = weight * ratio / (1.0 - weight + weight * ratio);
    let blocks = (2.4 - alpha.ln()) / (0.95 * (under / weight - 1.0)).ln_1p();
    blocks * per_block * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_tables() {
        let (low, high) = exact_interval(5, 100, 0.95);
        assert!((low - 0.016_43).abs() < 1e-4 && (high - 0.112_83).abs() < 1e-4, "{low} {high}");
        assert_eq!(exact_interval(0, 10, 0.95).0, 0.0);
        assert!((exact_interval(0, 1000, 0.95).1 - 0.003_68).abs() < 1e-5);
    }

    #[test]
    fn the_two_sample_bound_is_that_of_the_literature() {
        let bound = |w| two_sample_requests(0.01, 0.015, w, 0.001).round();
        assert_eq!([bound(0.5), bound(0.05), bound(0.01)], [13_552.0, 6_694.0, 6_384.0]);
    }

    #[test]
    fn the_floor_grows_with_the_weight() {
        let blocks = |w: f64| block_floor_requests(2.0, w, 1.0 / w, 0.001).round();
        assert_eq!([blocks(0.05), blocks(0.5)], [15.0, 34.0]);
    }
}
