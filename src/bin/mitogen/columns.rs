//! Text in columns of a terminal: how wide it is, cut and filled to a width. Pure.

/// The columns that a text takes.
pub fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

/// The beginning of a text that takes at most so many columns.
pub fn cut(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    for (at, c) in text.char_indices() {
        taken += width_of(c);
        if columns < taken {
            return &text[..at];
        }
    }
    text
}

/// The text filled with blanks up to this width: behind it, or in front where it is a number.
pub fn filled(text: &str, columns: usize, is_number: bool) -> String {
    let blanks = " ".repeat(columns.saturating_sub(width(text)));
    if is_number { blanks + text } else { text.to_owned() + &blanks }
}

/// Enlarges each width to what its cell takes.
pub fn widen(widths: &mut [usize], cells: &[String]) {
    for (known, cell) in widths.iter_mut().zip(cells) {
        *known = width(cell).max(*known);
    }
}

/// A row, each cell as wide as its column; the names of those that are numbers are given by
/// `is_number`.
pub fn row(cells: &[String], widths: &[usize], is_number: impl Fn(usize) -> bool) -> String {
    let cells = cells.iter().zip(widths).enumerate();
    let cells = cells.map(|(at, (cell, width))| filled(cell, *width, is_number(at)));
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// As terminals do it, nearly: two columns for East Asian characters and pictures, none for what is
/// put over the character before.
fn width_of(c: char) -> usize {
    match c as u32 {
        0x300..=0x36f | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff => 2,
        0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 => 2,
        0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_never_takes_more_columns_than_there_are() {
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("日本語", 5), "日本");
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("e\u{301}e\u{301}", 1), "e\u{301}");
        assert_eq!((cut("abc", 0), cut("", 3)), ("", ""));
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["id", "name"], ["7", "日本"], ["12", "a"]].map(|row| row.map(str::to_owned));
        let mut widths = [0; 2];
        rows.iter().for_each(|cells| widen(&mut widths, cells));
        assert_eq!(widths, [2, 4]);
        let shown = rows.map(|cells| row(&cells, &widths, |at| at == 0));
        assert_eq!(shown, ["id  name", " 7  日本", "12  a"]);
    }
}
