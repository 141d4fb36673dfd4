//! `doorline picture-helper`: the process in which pictures are decoded. A door's H264 may crash it, hang it or fill its memory;
//! it takes nothing with it.
//!
//! Requests come on stdin, answers leave on stdout, each behind its length (four bytes, network order). Request: preset, key
//! frame. Answer: 0, width, height, JPEG; or the number of an error, from 1. It ends when stdin does.

#![allow(clippy::disallowed_methods)] // a shell: a process of its own

use media::snapshot::{Developer, Jpeg, MAX_KEY_FRAME, Preset, SnapshotError};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::io::{self, Read, Write};
use std::process::ExitCode;

/// The hidden subcommand.
pub const COMMAND: &str = "picture-helper";
/// Memory it may map; a picture of 4096×2304 with all its reference frames fits.
const MEMORY: u64 = 256 << 20;
/// CPU seconds for one picture.
const CPU_SECONDS: u64 = 2;
/// It never competes with media or signalling.
const NICENESS: i32 = 10;

/// Runs until stdin ends.
pub fn run() -> ExitCode {
    match confine().and_then(|()| serve(&mut io::stdin().lock(), &mut io::stdout().lock())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Gives up what decoding does not need.
fn confine() -> io::Result<()> {
    let at_most = |value| Rlimit { current: Some(value), maximum: Some(value) };
    // A server that is killed leaves nothing over, even while a picture hangs in here.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    // Whatever the thread that started it has.
    rustix::process::setpriority_process(None, NICENESS)?;
    setrlimit(Resource::As, at_most(MEMORY))?;
    setrlimit(Resource::Core, at_most(0))?;
    setrlimit(Resource::Fsize, at_most(0))?;
    setrlimit(Resource::Nproc, at_most(0))?;
    // What is open stays open, nothing more is opened.
    setrlimit(Resource::Nofile, at_most(3))?;
    Ok(())
}

fn serve(input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    let mut developer = Developer::default();
    while let Some(request) = read(input)? {
        let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec.cast_unsigned();
        // The limit counts from the start of the process, so it moves on with every request.
        setrlimit(Resource::Cpu, Rlimit { current: Some(used + 1 + CPU_SECONDS), maximum: None })?;
        let Some((preset, key_frame)) = parse_request(&request) else { return Err(io::ErrorKind::InvalidData.into()) };
        output.write_all(&write_answer(&developer.picture(key_frame, preset)))?;
        output.flush()?;
    }
    Ok(())
}

/// One message without its length; none at the end of the stream.
fn read(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_KEY_FRAME + 1 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// The request as it is written.
pub(super) fn write_request(preset: Preset, key_frame: &[u8]) -> Vec<u8> {
    framed(&[&[u8::from(preset == Preset::Small)], key_frame].concat())
}

fn parse_request(bytes: &[u8]) -> Option<(Preset, &[u8])> {
    match bytes {
        [0, key_frame @ ..] => Some((Preset::Large, key_frame)),
        [1, key_frame @ ..] => Some((Preset::Small, key_frame)),
        _ => None,
    }
}

fn write_answer(result: &Result<Jpeg, SnapshotError>) -> Vec<u8> {
    match result {
        Ok(Jpeg { width, height, bytes }) => {
            framed(&[&[0], &width.to_be_bytes()[..], &height.to_be_bytes(), bytes.as_slice()].concat())
        }
        Err(error) => framed(&[1 + SnapshotError::ALL.iter().position(|known| known == error).unwrap_or(0) as u8]),
    }
}

/// An answer without its length. `None`: nonsense; the helper may not be itself any more.
pub fn parse_answer(bytes: &[u8], preset: Preset) -> Option<Result<Jpeg, SnapshotError>> {
    match bytes {
        [0, w1, w2, h1, h2, jpeg @ ..] => {
            let whole = jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]) && jpeg.len() <= preset.max_bytes();
            let (width, height) = (u16::from_be_bytes([*w1, *w2]), u16::from_be_bytes([*h1, *h2]));
            whole.then(|| Ok(Jpeg { width, height, bytes: jpeg.to_vec() }))
        }
        [error] => SnapshotError::ALL.get(usize::from(*error).checked_sub(1)?).copied().map(Err),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let request = write_request(Preset::Small, &[1, 2, 3]);
        let bytes = read(&mut request.as_slice()).unwrap().unwrap();
        assert_eq!(parse_request(&bytes), Some((Preset::Small, &[1, 2, 3][..])));
        let jpeg = Jpeg { width: 640, height: 480, bytes: vec![0xff, 0xd8, 7, 0xff, 0xd9] };
        let results = SnapshotError::ALL.into_iter().map(Err).chain([Ok(jpeg)]);
        for result in results {
            let answer = read(&mut write_answer(&result).as_slice()).unwrap().unwrap();
            assert_eq!(parse_answer(&answer, Preset::Large), Some(result));
        }
    }

    #[test]
    fn nonsense_of_a_helper_is_told_apart() {
        let too_long = [&[0, 0, 1, 0, 1, 0xff, 0xd8][..], &vec![0; 100_000], &[0xff, 0xd9]].concat();
        for answer in [&[][..], &[0], &[200], &[1, 1], &[0, 0, 1, 0, 1], &[0, 0, 1, 0, 1, 0xff, 0xd8, 0], &too_long] {
            assert_eq!(parse_answer(answer, Preset::Small), None, "{answer:?}");
        }
        assert!(read(&mut &[0xff; 8][..]).is_err());
        assert!(read(&mut &[][..]).unwrap().is_none());
    }

    #[test]
    fn it_serves_until_its_input_ends() {
        let mut out = Vec::new();
        let input = [write_request(Preset::Large, b"x"), write_request(Preset::Small, b"y")].concat();
        serve(&mut input.as_slice(), &mut out).unwrap();
        assert_eq!(out, [0, 0, 0, 1, 2, 0, 0, 0, 1, 2], "no parameter sets, twice");
    }
}
