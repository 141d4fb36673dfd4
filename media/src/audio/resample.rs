//! 8 kHz ↔ 16 kHz with a half-band filter: every second coefficient of it is zero, so it costs half of what it seems to.

/// Coefficients on one side that are not zero: 47 taps, -60 dB above 4.6 kHz, flat to 3.4 kHz (all of G.711's band).
const SIDE: usize = 12;
/// Samples the filter looks back on at 16 kHz.
const HISTORY: usize = 4 * SIDE - 2;
/// Kaiser's β for 60 dB.
const BETA: f32 = 5.65;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// A filter and what it has heard.
#[derive(Clone, Debug)]
pub(crate) struct HalfBand {
    way: Way,
    /// Of the odd distances 1, 3, 5 … from the middle tap, which is ½.
    side: [f32; SIDE],
    /// The end of what came before, at the 16 kHz side.
    line: Vec<f32>,
}

impl HalfBand {
    /// `None` where the rates are the same.
    pub fn between(from: u32, to: u32) -> Option<HalfBand> {
        let way = match from.cmp(&to) {
            std::cmp::Ordering::Less => Way::Up,
            std::cmp::Ordering::Greater => Way::Down,
            std::cmp::Ordering::Equal => return None,
        };
        Some(HalfBand { way, side: side(), line: vec![0.0; HISTORY] })
    }

    /// Appends the samples at the other rate. `Down` takes an even number.
    pub fn run(&mut self, input: &[i16], out: &mut Vec<i16>) {
        match self.way {
            // A zero between two samples, and twice the level to make up for it.
            Way::Up => self.line.extend(input.iter().flat_map(|sample| [f32::from(*sample) * 2.0, 0.0])),
            Way::Down => self.line.extend(input.iter().map(|sample| f32::from(*sample))),
        }
        let step = if self.way == Way::Up { 1 } else { 2 };
        for window in self.line.windows(HISTORY + 1).step_by(step) {
            let middle = HISTORY / 2;
            let mut sum = window[middle] * 0.5;
            for (index, weight) in self.side.iter().enumerate() {
                let away = 2 * index + 1;
                sum += weight * (window[middle - away] + window[middle + away]);
            }
            out.push(sum.round() as i16);
        }
        let heard = self.line.len() - HISTORY;
        self.line.drain(..heard);
    }
}

/// A windowed sinc; its sum is scaled so that the level stays.
fn side() -> [f32; SIDE] {
    let mut side = [0.0; SIDE];
    for (index, weight) in side.iter_mut().enumerate() {
        let away = (2 * index + 1) as f32;
        let sinc = (std::f32::consts::FRAC_PI_2 * away).sin() / (std::f32::consts::PI * away);
        let at = away / (2 * SIDE) as f32;
        *weight = sinc * bessel(BETA * (1.0 - at * at).sqrt()) / bessel(BETA);
    }
    let sum: f32 = side.iter().sum();
    side.map(|weight| weight * 0.25 / sum)
}

/// Modified Bessel function of order 0, by its series.
fn bessel(x: f32) -> f32 {
    let mut term = 1.0;
    (1..20).fold(1.0, |sum, k| {
        term *= (x / 2.0 / k as f32).powi(2);
        sum + term
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::TAU;

    fn tone(hz: f32, rate: u32, count: usize) -> Vec<i16> {
        (0..count).map(|n| (8000.0 * (TAU * hz * n as f32 / rate as f32).sin()) as i16).collect()
    }

    fn rms(samples: &[i16]) -> f32 {
        (samples.iter().map(|s| f32::from(*s).powi(2)).sum::<f32>() / samples.len() as f32).sqrt()
    }

    #[test]
    fn speech_keeps_its_level_and_what_does_not_fit_is_gone() {
        let through = |hz: f32, from: u32, to: u32| {
            let mut out = vec![];
            HalfBand::between(from, to).unwrap().run(&tone(hz, from, 3200), &mut out);
            20.0 * (rms(&out[400..]) / rms(&tone(hz, from, 3200))).log10()
        };
        for hz in [100.0, 1000.0, 3000.0, 3400.0] {
            assert!(through(hz, 8000, 16_000).abs() < 0.2, "up {hz}: {}", through(hz, 8000, 16_000));
            assert!(through(hz, 16_000, 8000).abs() < 0.2, "down {hz}: {}", through(hz, 16_000, 8000));
        }
        assert!(through(5000.0, 16_000, 8000) < -50.0, "{}", through(5000.0, 16_000, 8000));
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        for (from, to) in [(8000, 16_000), (16_000, 8000)] {
            let input = tone(700.0, from, 960);
            let (mut whole, mut pieces) = (vec![], vec![]);
            HalfBand::between(from, to).unwrap().run(&input, &mut whole);
            let mut filter = HalfBand::between(from, to).unwrap();
            input.chunks(160).for_each(|part| filter.run(part, &mut pieces));
            assert_eq!(whole, pieces);
            assert_eq!(whole.len(), 960 * to as usize / from as usize);
        }
        assert!(HalfBand::between(8000, 8000).is_none());
    }
}
