//! RC4, with which the book uses CPU time: a text is enciphered and deciphered, and must then be the
//! same as before.

use rc4::{KeyInit, Rc4, StreamCipher};
use serde::{Deserialize, Serialize};

use procession::{Context, Failure, Task};

/// Enciphers and deciphers `bytes` bytes; returns their number.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Arcfour {
    pub seed: u64,
    pub bytes: u64,
}

impl Task for Arcfour {
    const NAME: &'static str = "workload.arcfour";
    type Output = usize;

    fn run(self, _: &Context) -> Result<usize, Failure> {
        let key = self.seed.to_le_bytes();
        let plain: Vec<u8> = (0..self.bytes).map(|n| (n * 31 + self.seed) as u8).collect();
        let mut text = plain.clone();
        for is_back in [false, true] {
            Rc4::new_from_slice(&key)
                .map_err(|error| Failure::msg(format!("the key is refused: {error}")))?
                .apply_keystream(&mut text);
            let is_plain = text == plain;
            // A text of a few bytes may happen to be its own cipher.
            if is_back != is_plain && (is_back || text.len() >= 16) {
                return Err(Failure::msg("what was enciphered and deciphered is not what it was"));
            }
        }
        Ok(text.len())
    }
}
