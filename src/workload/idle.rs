//! Tasks that use next to no CPU time.

use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use procession::{Context, Failure, Task};

/// Sleeps for a number of milliseconds and returns it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sleep(pub u64);

impl Task for Sleep {
    const NAME: &'static str = "workload.sleep";
    type Output = u64;

    fn run(self, _: &Context) -> Result<u64, Failure> {
        thread::sleep(Duration::from_millis(self.0));
        Ok(self.0)
    }
}

/// Does nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Noop;

impl Task for Noop {
    const NAME: &'static str = "workload.noop";
    type Output = u8;

    fn run(self, _: &Context) -> Result<u8, Failure> {
        Ok(0)
    }
}
