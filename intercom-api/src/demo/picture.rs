//! The picture that goes with the unlock: is it one, does it show the test picture, and where can it be looked at?

use super::stage::hex;
use anyhow::{Context, ensure};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Decodes it, reads the frame number in it, and leaves it in a file of its own: the demo's folder goes with the demo.
pub fn keep(jpeg: &[u8]) -> anyhow::Result<String> {
    ensure!(!jpeg.is_empty(), "there is none");
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::Luma);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    let luma = decoder.decode().map_err(|error| anyhow::anyhow!("it cannot be decoded: {error:?}"))?;
    let (width, height) = decoder.dimensions().context("it has no size")?;
    // The clip's counter: eight blocks along the top, white is 1.
    let bit = |n: usize| luma.get(height / 15 * width + (2 * n + 1) * width / 16).is_some_and(|y| *y > 125);
    let frame = (0..8).fold(0, |number, n| number | u8::from(bit(n)) << n);
    ensure!(frame < 50, "it shows something else");
    let path = std::env::temp_dir().join(format!("doorline-demo.{}.jpg", hex()?));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(jpeg)?;
    Ok(format!("{width}×{height}, {} bytes, frame {frame} in it, {}", jpeg.len(), path.display()))
}
