//! SHA-256 of data that the task generates, so that the task itself is small.
//!
//! The data is hashed in pieces of [`PIECE`] bytes, as in the script for CPython: CPython's `hashlib`
//! releases the GIL while it hashes more than 2047 bytes at once, and larger pieces would hide the
//! cost of the GIL for code that does not release it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use procession::{Context, Failure, Task};

const PIECE: usize = 1024;

/// Hashes `bytes` bytes; returns the digest in hexadecimal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sha {
    pub seed: u64,
    pub bytes: u64,
}

impl Task for Sha {
    const NAME: &'static str = "workload.sha";
    type Output = String;

    fn run(self, _: &Context) -> Result<String, Failure> {
        let mut hasher = Sha256::new();
        let mut piece = [0; PIECE];
        let mut left = self.bytes;
        for n in 0.. {
            if left == 0 {
                break;
            }
            let number = (self.seed << 32 | n).to_le_bytes();
            piece.chunks_exact_mut(number.len()).for_each(|chunk| chunk.copy_from_slice(&number));
            let length = left.min(PIECE as u64);
            hasher.update(&piece[..length as usize]);
            left -= length;
        }
        Ok(hex(&hasher.finalize()))
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
