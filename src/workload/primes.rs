//! Primality by trial division, which uses CPU time and nothing else.

use serde::{Deserialize, Serialize};

use procession::{Context, Failure, Task};

/// Whether the number is prime, by trial division.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IsPrime(pub u64);

impl Task for IsPrime {
    const NAME: &'static str = "workload.is_prime";
    type Output = bool;

    fn run(self, _: &Context) -> Result<bool, Failure> {
        let Self(number) = self;
        if number < 4 || number.is_multiple_of(2) {
            return Ok(number == 2 || number == 3);
        }
        let root = number.isqrt();
        Ok((3..=root).step_by(2).all(|divisor| !number.is_multiple_of(divisor)))
    }
}

/// Primes of this number of digits, the smallest first, found by a fast test. All of them take about
/// the same time by trial division, unlike other numbers. After the last one the first one follows.
pub(super) fn of(digits: u32) -> impl Iterator<Item = u64> {
    let first = 10_u64.pow(digits - 1);
    let last = first.checked_mul(10).map_or(u64::MAX, |next| next - 1);
    (first..=last).cycle().filter(|&number| primal_check::miller_rabin(number))
}
