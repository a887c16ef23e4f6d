//! The images: one small GIF for each of the 194 codes that have a flag.
//!
//! The artwork is Twemoji's (licensed CC-BY 4.0), which comes as PNG. The book's servers serve
//! GIFs, so each PNG is redrawn as a GIF at the first request, and kept. A code has the same bytes on
//! every machine.

use std::sync::OnceLock;

use axum::body::Bytes;
use thiserror::Error;

use super::drawings::DRAWINGS;
use crate::flags::codes::AVAILABLE;

/// Below this alpha a pixel counts as transparent: GIF has no half-transparent pixels.
const OPAQUE_FROM: u8 = 128;

/// How hard the encoder searches for the best 256 colours, from 1 (most) to 30 (least). Flags have
/// few colours, and those with more look the same at this setting, in a fraction of the time.
const QUANTIZER_SPEED: i32 = 10;

/// The flag of a lower-case, two-letter country code, as a GIF; `None` if the code has none.
///
/// The first call for a code redraws it; all later ones share the same bytes.
///
/// ```
/// use procession_cli::flag_server::image;
///
/// assert!(image("br").unwrap().starts_with(b"GIF89a"));
/// assert!(image("zz").is_none());
/// ```
pub fn image(cc: &str) -> Option<Bytes> {
    static IMAGES: [OnceLock<Bytes>; AVAILABLE.len()] =
        [const { OnceLock::new() }; AVAILABLE.len()];

    if !cc.bytes().all(|letter| letter.is_ascii_lowercase()) {
        return None;
    }
    let index = AVAILABLE.binary_search(&cc.to_ascii_uppercase().as_str()).ok()?;
    let gif = IMAGES[index].get_or_init(|| {
        Bytes::from(redraw(&DRAWINGS[index]).expect("the embedded drawings are sound"))
    });
    Some(gif.clone())
}

/// The entity tag of an image: its length and a hash of it (FNV-1a).
pub(super) fn entity_tag(gif: &[u8]) -> String {
    let hash = gif.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("\"{:x}-{hash:x}\"", gif.len())
}

#[derive(Debug, Error)]
enum RedrawError {
    #[error("the PNG cannot be decoded")]
    Decode(#[from] png::DecodingError),
    #[error("the PNG is too large")]
    TooLarge,
    #[error("the GIF cannot be encoded")]
    Encode(#[from] gif::EncodingError),
}

/// A PNG made into a GIF of the same size.
fn redraw(png: &[u8]) -> Result<Vec<u8>, RedrawError> {
    let (width, height, mut pixels) = rgba(png)?;
    for pixel in pixels.chunks_exact_mut(4) {
        if pixel[3] < OPAQUE_FROM {
            // All transparent pixels get one colour, which needs one palette entry.
            pixel.fill(0);
        } else {
            pixel[3] = u8::MAX;
        }
    }
    let frame = gif::Frame::from_rgba_speed(width, height, &mut pixels, QUANTIZER_SPEED);
    let mut gif = Vec::new();
    gif::Encoder::new(&mut gif, width, height, &[])?.write_frame(&frame)?;
    Ok(gif)
}

/// The width, the height and the pixels of a PNG, as red, green, blue and alpha bytes.
fn rgba(png: &[u8]) -> Result<(u16, u16, Vec<u8>), RedrawError> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
    decoder.set_transformations(
        png::Transformations::normalize_to_color8() | png::Transformations::ALPHA,
    );
    let mut reader = decoder.read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().ok_or(RedrawError::TooLarge)?];
    let info = reader.next_frame(&mut pixels)?;
    pixels.truncate(info.buffer_size());
    if info.color_type == png::ColorType::GrayscaleAlpha {
        pixels = pixels
            .chunks_exact(2)
            .flat_map(|pixel| [pixel[0], pixel[0], pixel[0], pixel[1]])
            .collect();
    }
    let side = |pixels: u32| u16::try_from(pixels).map_err(|_| RedrawError::TooLarge);
    Ok((side(info.width)?, side(info.height)?, pixels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_available_code_has_a_gif_that_looks_like_its_drawing() {
        for (code, drawing) in AVAILABLE.iter().zip(&DRAWINGS) {
            let cc = code.to_ascii_lowercase();
            let gif = image(&cc).unwrap();
            assert!(gif.starts_with(b"GIF89a"), "{code}");
            assert!((200..20_000).contains(&gif.len()), "{code}: {}", gif.len());

            let mut options = gif::DecodeOptions::new();
            options.set_color_output(gif::ColorOutput::RGBA);
            let mut decoder = options.read_info(&gif[..]).unwrap();
            let frame = decoder.read_next_frame().unwrap().unwrap();
            let (width, height, drawn) = rgba(drawing).unwrap();
            assert_eq!((frame.width, frame.height), (width, height), "{code}");

            let mut difference = 0;
            let mut opaque = 0;
            for (shown, drawn) in frame.buffer.chunks_exact(4).zip(drawn.chunks_exact(4)) {
                assert_eq!(shown[3] == 255, drawn[3] >= OPAQUE_FROM, "{code}");
                if shown[3] == 255 {
                    opaque += 1;
                    difference += (0..3)
                        .map(|channel| u32::from(shown[channel].abs_diff(drawn[channel])))
                        .sum::<u32>();
                }
            }
            assert!(opaque > 1_000, "{code}: only {opaque} pixels can be seen");
            assert!(difference < 10 * opaque, "{code}: the colours are off");
            assert!(decoder.read_next_frame().unwrap().is_none(), "{code}");
        }
    }

    #[test]
    fn no_other_code_has_an_image() {
        for cc in ["", "b", "brr", "zz", "aq", "eu", "BR", "Br", "b/", "ñ"] {
            assert!(image(cc).is_none(), "{cc}");
        }
    }

    #[test]
    fn a_code_is_redrawn_only_once() {
        assert_eq!(image("br").unwrap().as_ptr(), image("br").unwrap().as_ptr());
    }
}
