//! What many measurements of the same thing come to.

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

/// How many times as fast one thing is as another, and how sure that is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ratio {
    pub times: f64,
    /// The standard deviation, from those of both.
    pub stddev: Option<f64>,
}

impl Ratio {
    /// How many times as fast `this` is as `reference`.
    pub(super) fn new(reference: &Spread, this: &Spread) -> Self {
        let times = reference.mean / this.mean;
        let relative = |spread: &Spread| spread.stddev.map(|stddev| stddev / spread.mean);
        let stddev = relative(reference).zip(relative(this)).map(|(a, b)| times * a.hypot(b));
        Self { times, stddev }
    }

    /// The other way round.
    pub(super) fn inverse(self) -> Self {
        let Self { times, stddev } = self;
        Self { times: 1.0 / times, stddev: stddev.map(|stddev| stddev / (times * times)) }
    }

    /// Whether the difference is larger than chance makes it, and than two decimals show; the same
    /// whichever of both is the reference.
    pub(super) fn is_clear(self) -> bool {
        let Self { times, stddev } = if self.times < 1.0 { self.inverse() } else { self };
        times - 1.0 > stddev.unwrap_or(0.0).max(0.005)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_ratio_is_as_uncertain_as_both_of_its_parts() {
        let spread = |mean, stddev| Spread { mean, stddev, median: mean, min: mean, max: mean };
        // 10 % and 5 %, so the square root of 1.25 % of the square.
        let ratio = Ratio::new(&spread(8.0, Some(0.8)), &spread(2.0, Some(0.1)));
        assert_eq!(ratio.times, 4.0);
        assert!((ratio.stddev.unwrap() - 4.0 * 0.0125_f64.sqrt()).abs() < 1e-12);
        assert!(ratio.is_clear());
        let back = ratio.inverse();
        assert_eq!(back.times, 0.25);
        assert!((back.stddev.unwrap() - 0.25 * 0.0125_f64.sqrt()).abs() < 1e-12);
        assert_eq!(Ratio::new(&spread(8.0, Some(0.8)), &spread(2.0, None)).stddev, None);
        assert!(!Ratio::new(&spread(2.0, Some(0.2)), &spread(1.9, Some(0.2))).is_clear());
    }

    #[test]
    fn what_is_clear_does_not_depend_on_the_reference() {
        let ratio = |times, stddev| Ratio { times, stddev };
        // 91 times, give or take 123.
        let wild = ratio(0.011, Some(0.0149));
        assert!(!wild.is_clear() && !wild.inverse().is_clear());
        let sure = ratio(0.5, Some(0.1));
        assert!(sure.is_clear() && sure.inverse().is_clear());
        // Of single runs: 1.00 times is no difference, 1.25 times is one.
        assert!(!ratio(1.004, None).is_clear() && !ratio(0.997, None).is_clear());
        assert!(ratio(1.25, None).is_clear() && ratio(0.8, None).is_clear());
    }
}
