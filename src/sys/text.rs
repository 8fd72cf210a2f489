//! Numbers to text and back, without the formatting machinery and without allocating; and texts as
//! C wants them.

use std::ffi::CString;

use super::errno::{Errno, Result};
use crate::trace::is_harmful;

/// These bytes as text, where it is UTF-8, and a replacement character where it is not.
pub fn lossy(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    loop {
        let (good, bad) = match std::str::from_utf8(bytes) {
            Ok(_) => (bytes.len(), 0),
            Err(e) => {
                let good = e.valid_up_to();
                (good, e.error_len().unwrap_or(bytes.len() - good))
            }
        };
        text.push_str(std::str::from_utf8(&bytes[..good]).unwrap_or_default());
        if bad == 0 {
            return text;
        }
        text += "\u{fffd}";
        bytes = &bytes[good + bad..];
    }
}

/// Text of another process without anything that a terminal would obey.
pub fn harmless(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for c in lossy(bytes).chars() {
        let is_hidden = is_harmful(c) && c != '\n' && c != '\t';
        text.push(if is_hidden { '?' } else { c });
    }
    text
}

/// Whether `byte` is in it. The standard library's way looks at many bytes at once, in ten times
/// the code.
#[allow(clippy::manual_contains)]
#[inline(never)] // smaller code
pub fn has(text: &[u8], byte: u8) -> bool {
    text.iter().any(|other| *other == byte)
}

/// A text as C wants it; INVAL if there is a NUL in it.
#[inline(never)] // smaller code
pub fn c_string(text: &[u8]) -> Result<CString> {
    if has(text, 0) {
        return Err(Errno::INVAL);
    }
    // SAFETY: no NUL is in it.
    Ok(unsafe { CString::from_vec_unchecked(text.to_vec()) })
}

/// Whether two texts are the same but for the case of ASCII letters. The standard library's way
/// compares many bytes at once, in four times the code.
#[inline(never)] // smaller code
pub fn are_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.eq_ignore_ascii_case(b))
}

/// What stands between the separators.
pub fn fields(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    text.split(move |byte| *byte == separator)
}

/// A number's decimal digits.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    /// The digits of `number`.
    pub fn new(mut number: u64) -> Decimal {
        let mut digits = [b'0'; 20];
        let mut start = digits.len();
        for place in digits.iter_mut().rev() {
            *place += (number % 10) as u8;
            number /= 10;
            start -= 1;
            if number == 0 {
                break;
            }
        }
        Decimal { digits, start }
    }

    /// As bytes.
    pub fn bytes(&self) -> &[u8] {
        self.digits.split_at(self.start).1
    }
}

/// Where a process finds its descriptors by their numbers.
pub const FD_FOLDER: &[u8] =
    if cfg!(target_os = "linux") { b"/proc/self/fd/" } else { b"/dev/fd/" };

/// The path of a descriptor, terminated.
pub fn fd_path(number: i32) -> [u8; 64] {
    let mut path = [0; 64];
    let (folder, rest) = path.split_at_mut(FD_FOLDER.len());
    folder.copy_from_slice(FD_FOLDER);
    for (place, digit) in rest.iter_mut().zip(Decimal::new(number as u64).bytes()) {
        *place = *digit;
    }
    path
}

/// The number that these decimal digits are; `None` if they are something else or too many.
pub fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// What stands before the first `byte`; `text` is what stands behind it then. Without one that is
/// all, and nothing.
#[inline(never)] // smaller code
pub fn cut<'a>(text: &mut &'a [u8], byte: u8) -> &'a [u8] {
    let all = *text;
    let at = all.iter().position(|b| *b == byte).unwrap_or(all.len());
    *text = all.get(at + 1..).unwrap_or_default();
    &all[..at]
}

/// The number behind `label`, with blanks between, on the first line that begins with it and has
/// one: at most sixteen digits. Case does not matter, nor what is behind the digits.
pub fn number_behind(mut text: &[u8], label: &[u8], radix: u32) -> Option<u64> {
    while !text.is_empty() {
        let line = cut(&mut text, b'\n').trim_ascii_start();
        let (head, rest) = line.split_at(label.len().min(line.len()));
        let (mut number, mut count) = (0u64, 0);
        for byte in rest.trim_ascii_start() {
            let Some(digit) = char::from(*byte).to_digit(radix) else { break };
            number = number.wrapping_mul(radix.into()).wrapping_add(digit.into());
            count += 1;
        }
        if 0 < count && count < 17 && are_same(head, label) {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lossy_text_is_what_std_makes_of_it() {
        let cases: &[&[u8]] = &[
            b"",
            "plain \u{e9}\u{20ac}\u{1f600}".as_bytes(),
            b"\xff",
            b"a\xffb\xfe\xfdc",
            b"cut \xf0\x9f\x98",
            b"cut \xf0\x9f\x98 within",
            b"\xed\xa0\x80\xc0\x80",
        ];
        for case in cases {
            assert_eq!(lossy(case), String::from_utf8_lossy(case));
        }
    }

    #[test]
    fn numbers_become_text_and_come_back() {
        for number in [0, 7, 10, 4096, u64::MAX] {
            assert_eq!(Decimal::new(number).bytes(), number.to_string().as_bytes());
            assert_eq!(parse_decimal(Decimal::new(number).bytes()), Some(number));
        }
        for text in ["", "-1", "1a", "18446744073709551616"] {
            assert_eq!(parse_decimal(text.as_bytes()), None);
        }
    }

    #[test]
    fn text_is_cut_at_each_byte_and_at_its_end() {
        let mut text = &b"a::b"[..];
        assert_eq!([b':'; 5].map(|byte| cut(&mut text, byte)), [&b"a"[..], b"", b"b", b"", b""]);
    }

    #[test]
    fn a_number_is_found_behind_its_label() {
        let found = |text: &str, label: &str| number_behind(text.as_bytes(), label.as_bytes(), 10);
        for (text, label) in [
            ("4711\n", ""),
            ("\n 4711", ""),
            ("Name: web\nStatus: RUNNING\nPID: 4711\nPids: 9\n", "pid:"),
            ("Name: pid: 3\nPid: 4711\nIps:\n  eth0: inet\n", "pid:"),
            ("Leader=4711\n", "Leader="),
            ("web(1)\n\t  Leader: 4711 (systemd)\n", "leader:"),
        ] {
            assert_eq!(found(text, label), Some(4711), "{text:?}");
        }
        for text in ["", "\n", "running", "-1", "Pid: 1", "99999999999999999999"] {
            assert_eq!(found(text, ""), None, "{text:?}");
        }
        for text in ["", "Pid", "Pid:", "Pid: x", "Pids: 3", "Leader 4"] {
            assert_eq!(found(text, "pid:"), None, "{text:?}");
        }
        let status = b"CapEff:\t0\nCapBnd:\t00000000A80425fb\n";
        assert_eq!(number_behind(status, b"CapBnd:", 16), Some(0xa804_25fb));
    }
}
