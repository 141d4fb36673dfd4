//! G.711 (ITU-T): 16-bit samples ↔ 8-bit μ-law and A-law.

/// μ-law: sign, 3-bit segment, 4-bit step of a 14-bit sample, all bits inverted.
pub fn ulaw(sample: i16) -> u8 {
    let magnitude = sample.unsigned_abs().min(32_635) + 132;
    let segment = 7 - (magnitude << 1).leading_zeros().min(7) as u8;
    let step = (magnitude >> (segment + 3)) as u8 & 0x0f;
    !(u8::from(sample < 0) << 7 | segment << 4 | step)
}

/// A-law: the same on a 13-bit sample, even bits inverted.
pub fn alaw(sample: i16) -> u8 {
    let magnitude = if sample < 0 { !sample } else { sample }.unsigned_abs() >> 4;
    let segment = (12 - magnitude.leading_zeros().clamp(5, 12)) as u8;
    let step = if segment == 0 { magnitude as u8 } else { (magnitude >> (segment - 1)) as u8 & 0x0f };
    let byte = segment << 4 | step & 0x0f;
    (if sample < 0 { byte } else { byte | 0x80 }) ^ 0x55
}

pub fn from_ulaw(byte: u8) -> i16 {
    let byte = !byte;
    let magnitude = (((i16::from(byte & 15) << 3) + 132) << ((byte >> 4) & 7)) - 132;
    if byte & 0x80 != 0 { -magnitude } else { magnitude }
}

pub fn from_alaw(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (mantissa, segment) = (i16::from(byte & 15) << 4, (byte >> 4) & 7);
    let magnitude = if segment == 0 { mantissa + 8 } else { (mantissa + 0x108) << (segment - 1) };
    if byte & 0x80 != 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_laws_come_back_within_their_step() {
        for sample in (-32_000i16..=32_000).step_by(37) {
            let step = i32::from(sample.unsigned_abs()) / 16 + 16;
            let near = |decoded: i16| (i32::from(decoded) - i32::from(sample)).abs() <= step;
            assert!(near(from_ulaw(ulaw(sample))), "ulaw {sample}: {}", from_ulaw(ulaw(sample)));
            assert!(near(from_alaw(alaw(sample))), "alaw {sample}: {}", from_alaw(alaw(sample)));
        }
        assert_eq!((ulaw(0), alaw(0)), (0xff, 0xd5));
    }

    #[test]
    fn every_byte_survives_its_way_back() {
        for byte in 0..=255u8 {
            // μ-law has two zeros.
            assert!(ulaw(from_ulaw(byte)) == byte || byte == 0x7f, "ulaw {byte}");
            assert_eq!(alaw(from_alaw(byte)), byte, "alaw");
        }
    }
}
