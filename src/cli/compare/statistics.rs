//! What many measurements of the same thing come to, and what may be said of two things that were
//! measured: a difference, none, or that the measurements cannot tell.

/// Of some times, at least one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub mean: f64,
    /// The sample's standard deviation; none of a single measurement.
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
    /// In which round it was measured.
    pub round: usize,
    pub seconds: f64,
}

/// How many times as fast one thing is as another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ratio {
    /// The quotient of the mean times: what a reader gets who divides the means of the table.
    pub times: f64,
    /// The quotient of the median times.
    pub of_medians: f64,
    /// In which range `times` lies with a confidence of 95 %; none of a single run, which does not
    /// show how far runs lie apart.
    pub interval: Option<Interval>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    /// 0 where the measurements set no lower bound.
    pub low: f64,
    /// Infinite where they set no upper bound.
    pub high: f64,
}

/// What a ratio allows to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Faster,
    Slower,
    /// As fast, within 10 %.
    Equal,
    /// The measurements cannot tell.
    Unknown,
}

/// A difference smaller than this cannot be seen in a ratio of two decimals.
const VISIBLE: f64 = 1.005;
/// Two things whose ratio lies within this, or its inverse, are called equally fast.
const EQUAL: f64 = 1.1;

impl Ratio {
    /// Exactly 1, of a thing and itself.
    pub(super) const ONE: Self =
        Self { times: 1.0, of_medians: 1.0, interval: Some(Interval { low: 1.0, high: 1.0 }) };

    /// How many times as fast `this` is as `reference`; none if there are no times, or impossible
    /// ones.
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

    /// The other way round.
    pub(super) fn inverse(self) -> Self {
        let Self { times, of_medians, interval } = self;
        // Of 0 and infinity each is the other's inverse.
        let interval =
            interval.map(|Interval { low, high }| Interval { low: 1.0 / high, high: 1.0 / low });
        Self { times: 1.0 / times, of_medians: 1.0 / of_medians, interval }
    }

    /// What may be said; the same whichever of both is the reference.
    pub(super) fn outcome(self) -> Outcome {
        let Some(Interval { low, high }) = self.interval else { return Outcome::Unknown };
        if self.is_clearly_more() {
            Outcome::Faster
        } else if self.inverse().is_clearly_more() {
            Outcome::Slower
        } else if low >= 1.0 / EQUAL && high <= EQUAL {
            Outcome::Equal
        } else {
            Outcome::Unknown
        }
    }

    /// Whether even the lower bound is a difference that can be seen, and the medians, which stand
    /// beside the means, do not say the opposite.
    fn is_clearly_more(self) -> bool {
        self.is_at_least(VISIBLE) && self.of_medians > 1.0
    }

    /// Whether it is surely no less than this.
    pub(super) fn is_at_least(self, times: f64) -> bool {
        self.interval.is_some_and(|interval| interval.low >= times)
    }

    /// Whether it is surely above 1 by no more than 10 %.
    pub(super) fn is_no_gain(self) -> bool {
        self.interval.is_some_and(|interval| interval.high <= EQUAL)
    }

    /// Whether it is surely above 1 by more than 10 %.
    pub(super) fn is_gain(self) -> bool {
        self.is_at_least(EQUAL)
    }

    /// Whether it is surely at least this, but for 10 %.
    pub(super) fn reaches(self, times: f64) -> bool {
        self.is_at_least(times / EQUAL)
    }
}

/// The 95 % confidence interval of the quotient of two means, as a multiple of that quotient, by
/// Fieller's theorem (E. C. Fieller: Some problems in interval estimation, Journal of the Royal
/// Statistical Society B 16, 1954): all the ratios r for which the t-test does not refute that the
/// mean of `a - r b` is 0. It needs no logarithms and no estimate of an error of a quotient, which
/// is wrong where the noise is large; there its bounds become 0 and infinity.
///
/// Modes run in turn, so what disturbs the machine for a while disturbs the runs of a whole round.
/// The times of a round are therefore compared as pairs: what disturbed both does not count. Where
/// runs are missing there are no pairs; then both are taken as independent, with the degrees of
/// freedom of the smaller sample, which makes the interval wider rather than narrower.
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
    // Of the means, not of the samples.
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
    // A ratio of 1, which is the measured one, always lies between them; but for rounding.
    let root = (q * q - p * s).max(0.0).sqrt();
    let low = if s > 0.0 { (s / (q + root)).min(1.0) } else { 0.0 };
    let high = if p > 0.0 { ((q + root) / p).max(1.0) } else { f64::INFINITY };
    Some(Interval { low, high })
}

/// Above this, the quantile of this number of degrees of freedom is taken, which differs by less
/// than one part in a thousand from all larger ones.
const MOST_FREEDOM: usize = 2000;

/// Student's t, within which 95 % of its distribution lie.
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
    fn what_disturbs_a_whole_round_does_not_count() {
        // Each round takes another time, and this always takes half of it.
        let (slow, fast) = ([2.0, 4.0, 6.0, 2.0], [1.01, 2.0, 3.0, 1.0]);
        let paired = ratio(&slow, &fast);
        assert_eq!(paired.outcome(), Outcome::Faster);
        assert!(paired.is_at_least(1.9), "{paired:?}");
        // As if the first run of one and the last of the other were missing.
        let other_rounds = samples(&fast).into_iter();
        let other_rounds: Vec<_> =
            other_rounds.map(|run| Sample { round: run.round + 1, ..run }).collect();
        let unpaired = Ratio::new(&samples(&slow), &other_rounds).unwrap();
        assert_eq!((unpaired.times, unpaired.outcome()), (paired.times, Outcome::Unknown));
    }

    #[test]
    fn runs_that_lie_far_apart_cannot_tell_whatever_their_means_are() {
        // Of the means it is half as fast.
        let wild = ratio(&[1.0, 1.1, 1.0], &[1.0, 1.05, 4.15]);
        assert!((0.49..0.51).contains(&wild.times), "{wild:?}");
        assert_eq!(wild.outcome(), Outcome::Unknown);
        assert_eq!(wild.interval.unwrap().high, f64::INFINITY, "no bound");
        assert_eq!(wild.inverse().interval.unwrap().low, 0.0, "nor here");
        // One run of five that took a thousand times as long proves nothing.
        let one = ratio(&[1.0; 5], &[1.0, 1.0, 1000.0, 1.0, 1.0]);
        assert_eq!(one.outcome(), Outcome::Unknown);
    }

    #[test]
    fn a_single_run_tells_nothing() {
        let single = ratio(&[10.0], &[1.0]);
        assert_eq!((single.times, single.interval), (10.0, None));
        assert_eq!(single.outcome(), Outcome::Unknown);
        assert_eq!(ratio(&[10.0, 10.1, 9.9], &[1.0]).outcome(), Outcome::Unknown);
    }

    #[test]
    fn a_difference_is_one_that_can_be_seen_or_both_are_equal_within_a_tenth() {
        let outcome = |times: f64, noise: f64| {
            let reference = [times - noise, times, times + noise];
            ratio(&reference, &[1.0; 3]).outcome()
        };
        assert_eq!(outcome(2.0, 0.1), Outcome::Faster);
        assert_eq!(outcome(0.5, 0.01), Outcome::Slower);
        assert_eq!(outcome(1.02, 0.001), Outcome::Faster);
        assert_eq!(outcome(1.004, 0.0), Outcome::Equal);
        assert_eq!(outcome(1.0, 0.03), Outcome::Equal);
        assert_eq!(outcome(1.0, 0.05), Outcome::Unknown);
        assert_eq!(outcome(1.05, 0.03), Outcome::Unknown);
    }

    #[test]
    fn no_difference_is_claimed_that_the_medians_deny() {
        let slower_by_mean = Ratio {
            times: 0.9,
            of_medians: 1.01,
            interval: Some(Interval { low: 0.8, high: 0.95 }),
        };
        assert_eq!(slower_by_mean.outcome(), Outcome::Unknown);
        assert_eq!(slower_by_mean.inverse().outcome(), Outcome::Unknown);
    }

    #[test]
    fn impossible_times_have_no_ratio() {
        let good = samples(&[1.0, 1.0]);
        for odd in [&[][..], &[0.0, 1.0], &[-1.0, 3.0], &[f64::NAN, 1.0], &[f64::INFINITY, 1.0]] {
            assert_eq!(Ratio::new(&good, &samples(odd)), None, "{odd:?}");
            assert_eq!(Ratio::new(&samples(odd), &good), None, "{odd:?}");
        }
    }

    /// Of two things that are equally fast, in five rounds with noise of both kinds.
    #[test]
    fn of_things_that_are_equally_fast_few_are_told_apart() {
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
            matches!(ratio(&a, &b).outcome(), Outcome::Faster | Outcome::Slower)
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
        fn what_is_told_does_not_depend_on_the_reference((a, b) in times()) {
            let (one, other) = (ratio(&a, &b), ratio(&b, &a));
            let mirrored = match other.outcome() {
                Outcome::Faster => Outcome::Slower,
                Outcome::Slower => Outcome::Faster,
                same => same,
            };
            prop_assert_eq!(one.outcome(), mirrored);
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
