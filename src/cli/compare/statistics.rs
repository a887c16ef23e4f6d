//! Statistics of repeated measurements, and the comparison of two samples: a difference, no difference,
//! or no conclusion.

use serde::Serialize;

/// Statistics of at least one value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub mean: f64,
    /// Standard deviation of the sample; `None` for a single value.
    pub stddev: Option<f64>,
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let count = sorted.len();
        let mean = sorted.iter().sum::<f64>() / count as f64;
        let deviations = sorted.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let stddev = (count > 1).then(|| (deviations / (count - 1) as f64).sqrt());
        let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
        Some(Self { mean, stddev, median, min, max })
    }
}

/// One measured time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// The round of the measurement.
    pub round: usize,
    pub seconds: f64,
}

/// How many times as fast one thing is as another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ratio {
    /// The quotient of the mean times, as a reader of the table computes it.
    pub times: f64,
    /// The quotient of the median times.
    pub of_medians: f64,
    /// The 95 % confidence interval of `times`; `None` for a single run, which does not show how far
    /// runs lie apart.
    pub interval: Option<Interval>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    /// 0 where the measurements set no lower bound.
    pub low: f64,
    /// Infinite where they set no upper bound.
    pub high: f64,
}

/// The conclusion from a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Conclusion {
    Faster,
    Slower,
    /// Within 10 %.
    AsFast,
    CannotTell,
}

/// A smaller difference is not visible in a ratio with two decimals.
const VISIBLE: f64 = 1.005;
/// Two samples are equally fast if their ratio lies between the inverse of this and this.
const EQUAL: f64 = 1.1;

impl Ratio {
    /// Exactly 1: the ratio of a sample and itself.
    pub(super) const ONE: Self =
        Self { times: 1.0, of_medians: 1.0, interval: Some(Interval { low: 1.0, high: 1.0 }) };

    /// How many times as fast `this` is as `reference`; `None` without times, or with invalid ones.
    pub(super) fn new(reference: &[Sample], this: &[Sample]) -> Option<Self> {
        let spread = |samples: &[Sample]| {
            let seconds: Vec<_> = samples.iter().map(|sample| sample.seconds).collect();
            Spread::of(&seconds)
        };
        let (a, b) = (spread(reference)?, spread(this)?);
        let is_possible = |spread: &Spread| spread.min > 0.0 && spread.max.is_finite();
        if !is_possible(&a) || !is_possible(&b) {
            return None;
        }
        let times = a.mean / b.mean;
        let interval = interval((reference, a.mean), (this, b.mean));
        let interval = interval
            .map(|Interval { low, high }| Interval { low: low * times, high: high * times });
        Some(Self { times, of_medians: a.median / b.median, interval })
    }

    /// The inverse ratio.
    pub(super) fn inverse(self) -> Self {
        let Self { times, of_medians, interval } = self;
        // 0 and infinity are inverse to each other.
        let interval =
            interval.map(|Interval { low, high }| Interval { low: 1.0 / high, high: 1.0 / low });
        Self { times: 1.0 / times, of_medians: 1.0 / of_medians, interval }
    }

    /// The conclusion, which does not depend on which of both samples is the reference.
    pub(super) fn verdict(self) -> Conclusion {
        let Some(Interval { low, high }) = self.interval else { return Conclusion::CannotTell };
        if self.is_clearly_more() {
            Conclusion::Faster
        } else if self.inverse().is_clearly_more() {
            Conclusion::Slower
        } else if low >= 1.0 / EQUAL && high <= EQUAL {
            Conclusion::AsFast
        } else {
            Conclusion::CannotTell
        }
    }

    /// Whether the lower bound is a visible difference, and the medians agree.
    fn is_clearly_more(self) -> bool {
        self.is_at_least(VISIBLE) && self.of_medians > 1.0
    }

    /// Whether the lower bound is at least this.
    pub(super) fn is_at_least(self, times: f64) -> bool {
        self.interval.is_some_and(|interval| interval.low >= times)
    }

    /// Whether the upper bound is at most 10 % above 1.
    pub(super) fn is_no_gain(self) -> bool {
        self.interval.is_some_and(|interval| interval.high <= EQUAL)
    }

    /// Whether the lower bound is more than 10 % above 1.
    pub(super) fn is_gain(self) -> bool {
        self.is_at_least(EQUAL)
    }

    /// Whether the lower bound is at most 10 % below this.
    pub(super) fn reaches(self, times: f64) -> bool {
        self.is_at_least(times / EQUAL)
    }
}

/// The 95 % confidence interval of the quotient of two means, as a multiple of that quotient, by
/// Fieller's theorem (E. C. Fieller: Some problems in interval estimation, Journal of the Royal
/// Statistical Society B 16, 1954): all the ratios r for which the t-test does not refute that the
/// mean of `a - r b` is 0. It needs no estimate of the error of a quotient, which is wrong where the
/// noise is large; there its bounds become 0 and infinity.
///
/// Modes run in turn, so a disturbance of the machine affects the runs of a whole round. The times of a
/// round are therefore compared as pairs, and a disturbance of both does not count. If runs are missing,
/// the samples are treated as independent, with the degrees of freedom of the smaller one, which makes
/// the interval wider.
fn interval((a, mean_a): (&[Sample], f64), (b, mean_b): (&[Sample], f64)) -> Option<Interval> {
    let fewest = a.len().min(b.len());
    if fewest < 2 {
        return None;
    }
    let is_paired = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.round == b.round);
    let deviations = |samples: &[Sample], mean: f64| -> Vec<f64> {
        samples.iter().map(|sample| sample.seconds / mean - 1.0).collect()
    };
    let (x, y) = (deviations(a, mean_a), deviations(b, mean_b));
    // The covariance of the means, not of the samples.
    let covariance = |x: &[f64], y: &[f64]| {
        let products = x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let count = x.len() as f64;
        products / (count - 1.0) / count
    };
    let squared = student_t(fewest - 1).powi(2);
    // The ratios between the roots of p r² - 2 q r + s.
    let p = 1.0 - squared * covariance(&y, &y);
    let s = 1.0 - squared * covariance(&x, &x);
    let q = 1.0 - if is_paired { squared * covariance(&x, &y) } else { 0.0 };
    // The measured ratio, which is 1 here, lies between them, except for rounding errors.
    let root = (q * q - p * s).max(0.0).sqrt();
    let low = if s > 0.0 { (s / (q + root)).min(1.0) } else { 0.0 };
    let high = if p > 0.0 { ((q + root) / p).max(1.0) } else { f64::INFINITY };
    Some(Interval { low, high })
}

/// The quantile for more degrees of freedom differs by less than one part in a thousand.
const MOST_FREEDOM: usize = 2000;

/// The two-sided 95 % quantile of Student's t distribution.
fn student_t(freedom: usize) -> f64 {
    let freedom = freedom.min(MOST_FREEDOM);
    let (mut low, mut high) = (0.0, 13.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        match within(middle, freedom) < 0.95 {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

/// The share of Student's t distribution between -t and t, for whole degrees of freedom: 26.7.3 and
/// 26.7.4 in Abramowitz and Stegun, Handbook of Mathematical Functions.
fn within(t: f64, freedom: usize) -> f64 {
    let angle = (t / (freedom as f64).sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    // 1 + 2/3 cos² + 2·4/(3·5) cos⁴ + … of an odd number, 1 + 1/2 cos² + 1·3/(2·4) cos⁴ + … of an
    // even one.
    let (mut sum, mut term) = (0.0, 1.0);
    let mut n = 2 + freedom % 2;
    while n <= freedom {
        sum += term;
        term *= cos * cos * (n - 1) as f64 / n as f64;
        n += 2;
    }
    match freedom % 2 {
        0 => sin * sum,
        _ => 2.0 / std::f64::consts::PI * (angle + sin * cos * sum),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn samples(seconds: &[f64]) -> Vec<Sample> {
        let sample = |(round, &seconds)| Sample { round, seconds };
        seconds.iter().enumerate().map(sample).collect()
    }

    fn ratio(reference: &[f64], this: &[f64]) -> Ratio {
        Ratio::new(&samples(reference), &samples(this)).unwrap()
    }

    #[track_caller]
    fn assert_near(value: f64, expected: f64) {
        assert!((value - expected).abs() <= 5e-4 * expected, "{value}, not {expected}");
    }

    #[test]
    fn the_spread_of_some_times() {
        assert_eq!(Spread::of(&[]), None);
        let one = Spread::of(&[2.0]).unwrap();
        assert_eq!(one, Spread { mean: 2.0, stddev: None, median: 2.0, min: 2.0, max: 2.0 });
        let spread = Spread::of(&[4.0, 2.0, 9.0, 1.0]).unwrap();
        assert_eq!((spread.mean, spread.median, spread.min, spread.max), (4.0, 3.0, 1.0, 9.0));
        assert!((spread.stddev.unwrap() - (38.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
    }

    #[test]
    fn the_quantiles_of_student_are_those_of_the_printed_tables() {
        for (freedom, expected) in [
            (1, 12.706),
            (2, 4.303),
            (3, 3.182),
            (4, 2.776),
            (5, 2.571),
            (9, 2.262),
            (10, 2.228),
            (30, 2.042),
            (120, 1.980),
            (1_000_000, 1.961),
        ] {
            assert_near(student_t(freedom), expected);
        }
    }

    #[test]
    fn the_interval_of_a_ratio_is_that_of_fieller() {
        // All of the noise is in one of both: it is that of the t-test of one mean. Here 8, 10, 12
        // beside 2: 5 times, and 10 ± 4.303 · 2 / √3 in two ways.
        let Ratio { times, interval, .. } = ratio(&[8.0, 10.0, 12.0], &[2.0, 2.0, 2.0]);
        let interval = interval.unwrap();
        assert_eq!(times, 5.0);
        assert_near(interval.low, (10.0 - 4.9686) / 2.0);
        assert_near(interval.high, (10.0 + 4.9686) / 2.0);
        // Not of pairs: 1 - 4.303² · 0.01 / 3 of each, one run of the larger sample left out.
        let a = samples(&[0.9, 1.0, 1.1]);
        let b: Vec<_> = a.iter().map(|a| Sample { round: a.round + 1, ..*a }).collect();
        let part = 1.0 - 4.3027_f64.powi(2) * 0.01 / 3.0;
        let high = (1.0 + (1.0 - part * part).sqrt()) / part;
        assert_near(Ratio::new(&a, &b).unwrap().interval.unwrap().high, high);
    }

    #[test]
    fn a_disturbance_of_a_whole_round_does_not_count() {
        // The rounds differ, and the second sample always takes half of the first.
        let (slow, fast) = ([2.0, 4.0, 6.0, 2.0], [1.01, 2.0, 3.0, 1.0]);
        let paired = ratio(&slow, &fast);
        assert_eq!(paired.verdict(), Conclusion::Faster);
        assert!(paired.is_at_least(1.9), "{paired:?}");
        // As if the first run of one and the last of the other were missing.
        let other_rounds = samples(&fast).into_iter();
        let other_rounds: Vec<_> =
            other_rounds.map(|run| Sample { round: run.round + 1, ..run }).collect();
        let unpaired = Ratio::new(&samples(&slow), &other_rounds).unwrap();
        assert_eq!((unpaired.times, unpaired.verdict()), (paired.times, Conclusion::CannotTell));
    }

    #[test]
    fn runs_that_lie_far_apart_allow_no_conclusion() {
        // Of the means it is half as fast.
        let wild = ratio(&[1.0, 1.1, 1.0], &[1.0, 1.05, 4.15]);
        assert!((0.49..0.51).contains(&wild.times), "{wild:?}");
        assert_eq!(wild.verdict(), Conclusion::CannotTell);
        assert_eq!(wild.interval.unwrap().high, f64::INFINITY, "no bound");
        assert_eq!(wild.inverse().interval.unwrap().low, 0.0, "nor here");
        // One run of five takes a thousand times as long.
        let one = ratio(&[1.0; 5], &[1.0, 1.0, 1000.0, 1.0, 1.0]);
        assert_eq!(one.verdict(), Conclusion::CannotTell);
    }

    #[test]
    fn a_single_run_allows_no_conclusion() {
        let single = ratio(&[10.0], &[1.0]);
        assert_eq!((single.times, single.interval), (10.0, None));
        assert_eq!(single.verdict(), Conclusion::CannotTell);
        assert_eq!(ratio(&[10.0, 10.1, 9.9], &[1.0]).verdict(), Conclusion::CannotTell);
    }

    #[test]
    fn a_difference_is_visible_or_both_are_equal_within_a_tenth() {
        let outcome = |times: f64, noise: f64| {
            let reference = [times - noise, times, times + noise];
            ratio(&reference, &[1.0; 3]).verdict()
        };
        assert_eq!(outcome(2.0, 0.1), Conclusion::Faster);
        assert_eq!(outcome(0.5, 0.01), Conclusion::Slower);
        assert_eq!(outcome(1.02, 0.001), Conclusion::Faster);
        assert_eq!(outcome(1.004, 0.0), Conclusion::AsFast);
        assert_eq!(outcome(1.0, 0.03), Conclusion::AsFast);
        assert_eq!(outcome(1.0, 0.05), Conclusion::CannotTell);
        assert_eq!(outcome(1.05, 0.03), Conclusion::CannotTell);
    }

    #[test]
    fn no_difference_is_claimed_if_the_medians_disagree() {
        let slower_by_mean = Ratio {
            times: 0.9,
            of_medians: 1.01,
            interval: Some(Interval { low: 0.8, high: 0.95 }),
        };
        assert_eq!(slower_by_mean.verdict(), Conclusion::CannotTell);
        assert_eq!(slower_by_mean.inverse().verdict(), Conclusion::CannotTell);
    }

    #[test]
    fn invalid_times_have_no_ratio() {
        let good = samples(&[1.0, 1.0]);
        for odd in [&[][..], &[0.0, 1.0], &[-1.0, 3.0], &[f64::NAN, 1.0], &[f64::INFINITY, 1.0]] {
            assert_eq!(Ratio::new(&good, &samples(odd)), None, "{odd:?}");
            assert_eq!(Ratio::new(&samples(odd), &good), None, "{odd:?}");
        }
    }

    /// Two equally fast samples, in five rounds, with noise of rounds and of runs.
    #[test]
    fn a_difference_of_equally_fast_samples_is_rarely_claimed() {
        let mut random = fastrand::Rng::with_seed(1);
        // Nearly normal, with a standard deviation of 1.
        let mut normal = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        let tries = 4000;
        let claims = (0..tries).filter(|_| {
            let rounds: Vec<_> = (0..5).map(|_| (1.0 + 0.2 * normal()).max(0.2)).collect();
            let mut runs = || -> Vec<_> {
                rounds.iter().map(|round| round * (1.0 + 0.1 * normal()).max(0.2)).collect()
            };
            let (a, b) = (runs(), runs());
            matches!(ratio(&a, &b).verdict(), Conclusion::Faster | Conclusion::Slower)
        });
        let share = claims.count() as f64 / f64::from(tries);
        assert!((0.01..0.06).contains(&share), "{share}");
    }

    fn times() -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
        let some = |count| prop::collection::vec(1e-4..100.0, count);
        let noise =
            (0.001..0.5_f64, 0.5..2.0_f64, prop::collection::vec((-1.0..1.0, -1.0..1.0), 2..9));
        let alike = noise.prop_map(|(noise, times, runs): (f64, f64, Vec<(f64, f64)>)| {
            let a = runs.iter().map(|(a, _)| 1.0 + noise * a).collect();
            (a, runs.iter().map(|(_, b)| times * (1.0 + noise * b)).collect())
        });
        prop_oneof![(some(1..9), some(1..9)), alike]
    }

    proptest! {
        #[test]
        fn the_verdict_does_not_depend_on_the_reference((a, b) in times()) {
            let (one, other) = (ratio(&a, &b), ratio(&b, &a));
            let mirrored = match other.verdict() {
                Conclusion::Faster => Conclusion::Slower,
                Conclusion::Slower => Conclusion::Faster,
                same => same,
            };
            prop_assert_eq!(one.verdict(), mirrored);
            let back = other.inverse();
            let is_near = |a: f64, b: f64| a == b || (a / b - 1.0).abs() < 1e-6;
            prop_assert!(is_near(one.times, back.times));
            if let (Some(one), Some(back)) = (one.interval, back.interval) {
                let is_same = is_near(one.low, back.low) && is_near(one.high, back.high);
                prop_assert!(is_same, "{:?} {:?}", one, back);
            }
        }

        #[test]
        fn the_measured_ratio_lies_in_its_interval((a, b) in times()) {
            let ratio = ratio(&a, &b);
            let measured = a.iter().sum::<f64>() / a.len() as f64
                / (b.iter().sum::<f64>() / b.len() as f64);
            prop_assert!((ratio.times / measured - 1.0).abs() < 1e-9);
            if let Some(Interval { low, high }) = ratio.interval {
                prop_assert!(0.0 <= low && low <= ratio.times && ratio.times <= high);
            }
        }
    }
}
