//! Random numbers for simulations: small, seeded, the same everywhere.

/// xoshiro256++ (Blackman, Vigna, ACM TOMS 2021), seeded by splitmix64.
#[derive(Clone, Debug)]
pub struct Dice {
    state: [u64; 4],
}

/// Expected counts from which rejection is faster than inversion.
const REJECTION_FROM: f64 = 10.0;

impl Dice {
    /// A stream of its own for each pair of seed and run.
    #[must_use]
    pub fn new(seed: u64, run: u64) -> Self {
        let mut mix = seed ^ run.wrapping_mul(0xd134_2543_de82_ef95).rotate_left(17);
        let mut next = || {
            mix = mix.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = mix;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Self { state: [next(), next(), next(), next()] }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in (0, 1).
    pub fn uniform(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) * (1.0 / (1_u64 << 52) as f64)
    }

    /// Standard normal (Box, Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Exponential with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.uniform().ln()
    }

    /// Poisson with this mean: inversion, or PTRS (Hoermann, Insurance: Math. and Economics
    /// 1993). Exact.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean.is_nan() || mean <= 0.0 {
            return 0;
        }
        if mean < REJECTION_FROM {
            let mut chance = (-mean).exp();
            let mut left = self.uniform();
            let mut count = 0_u64;
            while left > chance && count < 1000 {
                left -= chance;
                count += 1;
                chance *= mean / count as f64;
            }
            return count;
        }
        let b = 0.931 + 2.53 * mean.sqrt();
        let a = -0.059 + 0.024_83 * b;
        let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let squeeze = 0.9277 - 3.6224 / (b - 2.0);
        loop {
            let u = self.uniform() - 0.5;
            let v = self.uniform();
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + mean + 0.43).floor();
            if us >= 0.07 && v <= squeeze {
                return k as u64;
            }
            if k < 0.0 || (us < 0.013 && v > us) {
                continue;
            }
            let hat = v.ln() + inverse_alpha.ln() - (a / (us * us) + b).ln();
            if hat <= k * mean.ln() - mean - ln_factorial(k) {
                return k as u64;
            }
        }
    }

    /// Binomial: inversion, or BTRS (Hoermann, J. Stat. Comput. Simul. 1993). Exact.
    pub fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if n == 0 || p.is_nan() || p <= 0.0 {
            return 0;
        }
        if p >= 1.0 {
            return n;
        }
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        if n as f64 * p < REJECTION_FROM {
            return self.binomial_by_inversion(n, p);
        }
        self.binomial_by_rejection(n, p)
    }

    fn binomial_by_inversion(&mut self, n: u64, p: f64) -> u64 {
        let odds = p / (1.0 - p);
        let mut chance = (n as f64 * (-p).ln_1p()).exp();
        let mut left = self.uniform();
        let mut count = 0;
        while left > chance && count < n {
            left -= chance;
            chance *= odds * (n - count) as f64 / (count + 1) as f64;
            count += 1;
        }
        count
    }

    fn binomial_by_rejection(&mut self, n: u64, p: f64) -> u64 {
        let n = n as f64;
        let ratio = p / (1.0 - p);
        let spread = (n * p * (1.0 - p)).sqrt();
        let b = 1.15 + 2.53 * spread;
        let a = -0.0873 + 0.0248 * b + 0.01 * p;
        let squeeze = 0.92 - 4.2 / b;
        let alpha = (2.83 + 5.1 / b) * spread;
        let mode = ((n + 1.0) * p).floor();
        loop {
            let u = self.uniform() - 0.5;
            let v = self.uniform();
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + n * p + 0.5).floor();
            if k < 0.0 || k > n {
                continue;
            }
            if us >= 0.07 && v <= squeeze {
                return k as u64;
            }
            let hat = (v * alpha / (a / (us * us) + b)).ln();
            let bound = (mode + 0.5) * ((mode + 1.0) / (ratio * (n - mode + 1.0))).ln()
                + (n + 1.0) * ((n - mode + 1.0) / (n - k + 1.0)).ln()
                + (k + 0.5) * (ratio * (n - k + 1.0) / (k + 1.0)).ln()
                + stirling(mode)
                + stirling(n - mode)
                - stirling(k)
                - stirling(n - k);
            if hat <= bound {
                return k as u64;
            }
        }
    }
}

/// ln k! less its Stirling approximation `(k + 1/2) ln(k + 1) - (k + 1) + ln(2 pi)/2`.
fn stirling(k: f64) -> f64 {
    const TABLE: [f64; 10] = [
        0.081_061_466_795_327_26,
        0.041_340_695_955_409_29,
        0.027_677_925_684_998_34,
        0.020_790_672_103_765_09,
        0.016_644_691_189_821_19,
        0.013_876_128_823_070_75,
        0.011_896_709_945_891_77,
        0.010_411_265_261_972_09,
        0.009_255_462_182_712_733,
        0.008_330_563_433_362_87,
    ];
    if let Some(exact) = TABLE.get(k as usize) {
        return *exact;
    }
    let next = k + 1.0;
    let square = next * next;
    (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / 1260.0 / square) / square) / next
}

fn ln_factorial(k: f64) -> f64 {
    (k + 0.5) * (k + 1.0).ln() - (k + 1.0) + 0.918_938_533_204_672_7 + stirling(k)
}

/// The probability that a standard normal exceeds `z`; relative error below 2e-7 (Chebyshev fit
/// of erfc: Press et al., Numerical Recipes, section 6.2).
#[must_use]
pub fn normal_tail(z: f64) -> f64 {
    const FIT: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let polynomial = FIT.iter().rev().fold(0.0, |sum, c| sum * t + c);
    let tail = 0.5 * t * (polynomial - x * x).exp();
    if z >= 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(mut draw: impl FnMut(&mut Dice) -> f64) -> (f64, f64) {
        let mut dice = Dice::new(3, 4);
        let draws: Vec<f64> = (0..200_000).map(|_| draw(&mut dice)).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance =
            draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / draws.len() as f64;
        (mean, variance)
    }

    #[test]
    fn binomials_have_their_moments() {
        for (n, p) in [(3, 0.2), (500, 0.01), (500, 0.25), (40, 0.9), (100_000, 0.3)] {
            let (mean, variance) = moments(|dice| dice.binomial(n, p) as f64);
            let (m, v) = (n as f64 * p, n as f64 * p * (1.0 - p));
            assert!((mean - m).abs() < 5.0 * (v / 200_000.0).sqrt(), "{n} {p}: {mean}");
            assert!((variance / v - 1.0).abs() < 0.03, "{n} {p}: {variance}");
        }
    }

    #[test]
    fn poissons_have_their_moments() {
        for m in [0.3, 7.0, 30.0, 5000.0] {
            let (mean, variance) = moments(|dice| dice.poisson(m) as f64);
            assert!((mean - m).abs() < 5.0 * (m / 200_000.0).sqrt(), "{m}: {mean}");
            assert!((variance / m - 1.0).abs() < 0.03, "{m}: {variance}");
        }
    }

    #[test]
    fn rejection_gives_the_distribution_of_inversion() {
        let share_at = |k: u64| {
            let mut dice = Dice::new(1, 1);
            let direct = (0..200_000).filter(|_| dice.binomial_by_rejection(60, 0.25) == k).count();
            let other = (0..200_000).filter(|_| dice.binomial_by_inversion(60, 0.25) == k).count();
            (direct as f64 / 2e5, other as f64 / 2e5)
        };
        for k in [8, 12, 15, 18, 24] {
            let (a, b) = share_at(k);
            assert!((a - b).abs() < 0.003, "{k}: {a} {b}");
        }
    }

    #[test]
    fn the_normal_tail_is_known() {
        for (z, tail) in [(0.0, 0.5), (1.959_964, 0.025), (3.090_232, 0.001), (-1.281_552, 0.9)] {
            assert!((normal_tail(z) / tail - 1.0).abs() < 1e-5, "{z}");
        }
    }
}
