//! Primality the hard way, which takes the CPU and nothing else.

use serde::{Deserialize, Serialize};

use procession::{Context, Failure, Task};

/// Tells whether the number is prime, by trial division.
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

/// Primes of so many digits, the smallest first, found the easy way: they all take equally long
/// to be found prime the hard way, which other numbers do not. Where they run out, it begins anew.
pub(super) fn of(digits: u32) -> impl Iterator<Item = u64> {
    let first = 10_u64.pow(digits - 1);
    let last = first.checked_mul(10).map_or(u64::MAX, |next| next - 1);
    (first..=last).cycle().filter(|&number| primal_check::miller_rabin(number))
}
