//! Checks that a body is one whole GIF.
//!
//! No pixels are decoded: only the blocks up to the trailer are read, so a check takes microseconds
//! and a small file cannot unpack into a huge one.

use gif::{DecodeOptions, DecodingError};
use thiserror::Error;

/// Why a body is no flag.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidGif {
    /// No bytes at all.
    #[error("it is empty")]
    Empty,
    /// Another format, such as an HTML page.
    #[error("it does not start as a GIF does")]
    OtherFormat,
    /// Its end is missing.
    #[error("it ends after {0} bytes, before the image does")]
    CutShort(usize),
    /// A GIF without a picture.
    #[error("it has no picture in it")]
    NoPicture,
    /// The blocks are invalid.
    #[error("{0}")]
    Malformed(String),
}

/// Checks that `bytes` hold a whole GIF, from its signature to its trailer, with a picture in it.
pub fn check(bytes: &[u8]) -> Result<(), InvalidGif> {
    if bytes.is_empty() {
        return Err(InvalidGif::Empty);
    }
    let signature = &bytes[..bytes.len().min(6)];
    if !b"GIF87a".starts_with(signature) && !b"GIF89a".starts_with(signature) {
        return Err(InvalidGif::OtherFormat);
    }
    let why = |error| match error {
        DecodingError::UnexpectedEof => InvalidGif::CutShort(bytes.len()),
        other => InvalidGif::Malformed(other.to_string()),
    };
    let mut options = DecodeOptions::new();
    options.skip_frame_decoding(true);
    let mut decoder = options.read_info(bytes).map_err(why)?;
    let mut pictures = 0;
    // Where the trailer is missing, the decoder reports missing bytes.
    while decoder.next_frame_info().map_err(why)?.is_some() {
        pictures += 1;
    }
    if pictures == 0 {
        return Err(InvalidGif::NoPicture);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gif::{Encoder, Frame};

    fn flag(frames: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 8, 4, &[255, 0, 0, 0, 0, 255]).unwrap();
        for _ in 0..frames {
            let pixels: Vec<u8> = (0..32).map(|i| i % 2).collect();
            encoder.write_frame(&Frame::from_indexed_pixels(8, 4, pixels, None)).unwrap();
        }
        drop(encoder);
        bytes
    }

    #[test]
    fn a_whole_gif_passes() {
        assert_eq!(check(&flag(1)), Ok(()));
        assert_eq!(check(&flag(3)), Ok(()));
    }

    #[test]
    fn bytes_after_the_trailer_are_let_be() {
        let mut bytes = flag(1);
        bytes.extend_from_slice(b"\n");
        assert_eq!(check(&bytes), Ok(()));
    }

    #[test]
    fn every_cut_is_noticed_even_the_last_byte() {
        let whole = flag(2);
        for length in 1..whole.len() {
            assert_eq!(check(&whole[..length]), Err(InvalidGif::CutShort(length)));
        }
        assert_eq!(check(b""), Err(InvalidGif::Empty));
    }

    #[test]
    fn other_formats_are_named_so() {
        assert_eq!(check(b"<!doctype html><html></html>"), Err(InvalidGif::OtherFormat));
        assert_eq!(check(b"\x89PNG\r\n\x1a\n"), Err(InvalidGif::OtherFormat));
    }

    #[test]
    fn a_gif_without_a_picture_or_sense_fails() {
        let mut nothing = flag(0);
        assert!(check(&nothing).is_err());
        // The decoder takes a trailer right after the palette for the start of a block, and asks
        // for one byte more before it sees the end.
        nothing.push(0);
        assert_eq!(check(&nothing), Err(InvalidGif::NoPicture));
        let mut bytes = flag(1);
        bytes[13 + 6] = 0x99; // where the first block starts, after header and palette
        assert!(matches!(check(&bytes), Err(InvalidGif::Malformed(_))));
    }
}
