//! Random numbers from the kernel, fit for secrets.

use std::os::fd::AsFd;

use super::errno::{Errno, Result};
use super::fd;

/// Fills `buffer` with random bytes. Where the kernel has none to give the process ends: going on
/// with predictable handles would be worse.
pub fn fill(buffer: &mut [u8]) {
    if from_kernel(buffer).or_else(|_| from_device(buffer)).is_err() {
        std::process::abort();
    }
}

/// A random number.
pub fn u32() -> u32 {
    let mut bytes = [0; 4];
    fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

/// A random number.
pub fn u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

#[cfg(not(target_vendor = "apple"))]
fn from_kernel(buffer: &mut [u8]) -> Result<()> {
    use super::errno::{check_size, retry};

    let mut rest = buffer;
    while !rest.is_empty() {
        let (start, length) = (rest.as_mut_ptr(), rest.len());
        let n = retry(|| {
            // SAFETY: the buffer is ours to write for its whole length.
            check_size(unsafe { libc::getrandom(start.cast(), length, 0) })
        })?;
        rest = rest.get_mut(n..).ok_or(Errno::IO)?;
    }
    Ok(())
}

#[cfg(target_vendor = "apple")]
fn from_kernel(_buffer: &mut [u8]) -> Result<()> {
    Err(Errno::NOSYS)
}

fn from_device(buffer: &mut [u8]) -> Result<()> {
    let device = fd::open_read(c"/dev/urandom")?;
    let mut filled = 0;
    while filled < buffer.len() {
        match fd::read(device.as_fd(), &mut buffer[filled..])? {
            0 => return Err(Errno::IO),
            n => filled += n,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sources_fill_everything_and_differ() {
        let (mut a, mut b) = ([0; 4096], [0; 4096]);
        from_kernel(&mut a).unwrap();
        from_device(&mut b).unwrap();
        assert!(a.chunks(64).chain(b.chunks(64)).all(|chunk| chunk.iter().any(|byte| *byte != 0)));
        assert_ne!(a, b);
        assert_ne!(u64(), u64());
    }
}
