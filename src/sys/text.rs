//! Numbers to text and back, without the formatting machinery and without allocating.

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
        text.push(char::REPLACEMENT_CHARACTER);
        bytes = &bytes[good + bad..];
    }
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
}
