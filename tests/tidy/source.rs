//! One source file as the rules see it: its lines, its code without comments and texts, its tests.

/// A file, and what is known of each of its lines.
pub struct Source {
    /// Relative to the package, with `/`.
    pub path: String,
    pub text: String,
    /// The text with every comment, string and character blanked; the same length in bytes.
    pub code: String,
    /// One per line: whether it belongs to a test.
    in_test: Vec<bool>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let code = blank(text);
        let in_test = test_lines(path, &code);
        Source { path: path.into(), text: text.into(), code, in_test }
    }

    /// Number, text and code of each line, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        let pairs = self.text.lines().zip(self.code.lines());
        pairs.enumerate().map(|(at, (text, code))| (at + 1, text, code))
    }

    /// Whether the line of this number is only compiled for tests.
    pub fn is_test(&self, line: usize) -> bool {
        self.in_test.get(line - 1).copied().unwrap_or(false)
    }

    /// Takes the whole file for a test's.
    pub fn mark_as_test(&mut self) {
        self.in_test.fill(true);
    }

    /// The number of the line that holds this byte.
    pub fn line_of(&self, at: usize) -> usize {
        line_of(&self.code, at)
    }

    /// The top folder or file below `src`: `wire` of `src/wire/header.rs`, `ids` of `src/ids.rs`.
    pub fn floor_name(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let top = inside.split('/').next().unwrap_or(inside);
        top.strip_suffix(".rs").unwrap_or(top)
    }

    /// A finding, as `path:line: what`.
    pub fn finding(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

fn line_of(code: &str, at: usize) -> usize {
    code.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The bytes of identifiers.
pub fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// Where `word` stands in `code` as a word of its own.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let word_at = |at: usize| bytes.get(at).is_some_and(|byte| is_word(*byte));
        !word_at(at.wrapping_sub(1)) && !word_at(at + word.len())
    })
}

/// The byte after the bracket that closes the one at `open`.
pub fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth -= 1,
            _ => (),
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// Replaces what is no code with blanks, line ends excepted.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + skipped(&bytes[at..], 0 < at && is_word(bytes[at - 1]));
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(code).expect("whole comments and texts were blanked")
}

/// The length of the comment, string or character that starts here, else 0.
fn skipped(rest: &[u8], inside_word: bool) -> usize {
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => quoted(rest, b'"'),
        [b'\'', b'\\', ..] => quoted(rest, b'\''),
        [b'\'', ..] => character(rest),
        [b'r', b'"' | b'#', ..] if !inside_word => raw_string(rest, 1),
        [b'b', b'r', b'"' | b'#', ..] if !inside_word => raw_string(rest, 2),
        _ => 0,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `'x'`, but not the lifetime `'x`.
fn character(rest: &[u8]) -> usize {
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(8)]).into_owned();
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), Some('\'')) => c.len_utf8() + 2,
        _ => 0,
    }
}

fn raw_string(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&b'"') {
        return 0;
    }
    let close = [vec![b'"'], vec![b'#'; hashes]].concat();
    let found = rest[open + 1..].windows(close.len()).position(|w| w == close);
    found.map_or(rest.len(), |at| open + 1 + at + close.len())
}

/// Marks the lines of `#[cfg(test)]` items, or all of a file that holds tests only.
fn test_lines(path: &str, code: &str) -> Vec<bool> {
    let count = code.lines().count();
    if !path.starts_with("src/") || path.ends_with("/tests.rs") || path.contains("/tests/") {
        return vec![true; count];
    }
    let mut in_test = vec![false; count];
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let body = code[at..].find(['{', ';']).map_or(code.len() - 1, |offset| at + offset);
        let end = if code.as_bytes()[body] == b'{' { closing(code, body) - 1 } else { body };
        in_test[line_of(code, at) - 1..line_of(code, end)].fill(true);
    }
    in_test
}

#[test]
fn comments_and_texts_are_no_code() {
    let kept = |text: &str| blank(text).split_whitespace().collect::<String>();
    assert_eq!(kept("a // b\nc /* d /* e */ f */ g"), "acg");
    assert_eq!(kept(r##"a("b\"c", 'd', '\'', r#"e"f"#, br"g") h"##), "a(,,,,)h");
    assert_eq!(kept("fn a<'b>(c: &'b str) {}"), "fna<'b>(c:&'bstr){}");
    assert_eq!(blank("\"é\" x").len(), "\"é\" x".len());
}

#[test]
fn a_test_module_is_a_test_and_the_rest_is_not() {
    let source = Source::new("src/a.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n}\nfn b() {}\n");
    let tests: Vec<usize> = (1..=5).filter(|line| source.is_test(*line)).collect();
    assert_eq!(tests, [2, 3, 4]);
    assert!(Source::new("src/wire/tests.rs", "fn a() {}").is_test(1));
}
