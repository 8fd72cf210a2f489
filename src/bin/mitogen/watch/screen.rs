//! What is on the screen, and the bytes that make it something else. Pure: it knows no terminal.

use mitogen::Printable;

use super::super::columns;

/// Shows another screen, hides the cursor, and lets no line wrap.
pub const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[m\x1b[2J";
/// Undoes that.
pub const LEAVE: &[u8] = b"\x1b[m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// A line of the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Its text; what is too long is cut.
    pub text: String,
    /// Whether it stands out, up to the edge.
    pub is_head: bool,
}

impl Line {
    /// An ordinary one.
    pub fn plain(text: String) -> Line {
        Line { text, is_head: false }
    }

    /// One that stands out.
    pub fn head(text: String) -> Line {
        Line { text, is_head: true }
    }
}

/// Lines and columns.
pub type Size = (usize, usize);

/// What is on the screen.
#[derive(Default)]
pub struct Screen {
    size: Size,
    shown: Vec<Line>,
}

impl Screen {
    /// Nobody knows what is on the screen any more.
    pub fn forget(&mut self) {
        self.size = (0, 0);
    }

    /// The bytes that have the screen, of this size, show these lines and no others.
    pub fn draw(&mut self, lines: &[Line], size: Size) -> Vec<u8> {
        let mut out = Vec::new();
        if self.size != size {
            out.extend_from_slice(b"\x1b[m\x1b[2J");
            self.size = size;
            self.shown = vec![Line::default(); size.0];
        }
        for (at, shown) in self.shown.iter_mut().enumerate() {
            let wanted = fitting(lines.get(at), size.1);
            if *shown != wanted {
                put(&mut out, at, &wanted);
                *shown = wanted;
            }
        }
        out
    }
}

/// The line as it is seen: nothing in it that a terminal obeys, and no more than there is room for.
fn fitting(line: Option<&Line>, columns: usize) -> Line {
    let Some(Line { text, is_head }) = line else { return Line::default() };
    let harmless = Printable(text).to_string().replace(['\n', '\t'], " ");
    let text = columns::cut(&harmless, columns);
    match is_head {
        true => Line::head(columns::filled(text, columns, false)),
        false => Line::plain(text.to_owned()),
    }
}

/// Erases first: behind the text would be behind what the terminal makes of it, which nobody knows.
fn put(out: &mut Vec<u8>, at: usize, line: &Line) {
    out.extend_from_slice(format!("\x1b[{};1H\x1b[K", at + 1).as_bytes());
    if line.is_head {
        out.extend_from_slice(b"\x1b[7m");
    }
    out.extend_from_slice(line.text.as_bytes());
    if line.is_head {
        out.extend_from_slice(b"\x1b[m");
    }
}

/// Which of many rows are seen.
#[derive(Default)]
pub struct Scroll {
    top: usize,
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// So many rows up.
    Up(usize),
    /// So many rows down.
    Down(usize),
}

impl Scroll {
    /// Moves. Beyond the ends there is nothing.
    pub fn go(&mut self, to: Move) {
        self.top = match to {
            Move::Up(rows) => self.top.saturating_sub(rows),
            Move::Down(rows) => self.top.saturating_add(rows),
        };
    }

    /// The rows that are seen of so many, where there is room for so many.
    pub fn seen(&mut self, rows: usize, room: usize) -> std::ops::Range<usize> {
        self.top = self.top.min(rows.saturating_sub(room));
        self.top..rows.min(self.top.saturating_add(room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<Line> {
        texts.iter().map(|text| Line::plain((*text).to_owned())).collect()
    }

    fn drawn(screen: &mut Screen, texts: &[&str], size: Size) -> String {
        String::from_utf8(screen.draw(&lines(texts), size)).unwrap()
    }

    #[test]
    fn only_what_differs_is_drawn() {
        let mut screen = Screen::default();
        let first = drawn(&mut screen, &["a", "b"], (3, 10));
        assert_eq!(first, "\x1b[m\x1b[2J\x1b[1;1H\x1b[Ka\x1b[2;1H\x1b[Kb");
        assert_eq!(drawn(&mut screen, &["a", "b"], (3, 10)), "");
        assert_eq!(
            drawn(&mut screen, &["a", "c", "d"], (3, 10)),
            "\x1b[2;1H\x1b[Kc\x1b[3;1H\x1b[Kd"
        );
        assert_eq!(drawn(&mut screen, &["a"], (3, 10)), "\x1b[2;1H\x1b[K\x1b[3;1H\x1b[K");
        screen.forget();
        assert_eq!(drawn(&mut screen, &["a"], (3, 10)), "\x1b[m\x1b[2J\x1b[1;1H\x1b[Ka");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_what_stood_there_is_erased_whatever_its_width() {
        let mut screen = Screen::default();
        let all = drawn(&mut screen, &["abcdef", "日本", "x"], (2, 3));
        assert_eq!(all, "\x1b[m\x1b[2J\x1b[1;1H\x1b[Kabc\x1b[2;1H\x1b[K日");
        let wider = drawn(&mut screen, &["abcdef"], (1, 6));
        assert_eq!(wider, "\x1b[m\x1b[2J\x1b[1;1H\x1b[Kabcdef");
        // Four characters in two columns.
        let narrow = drawn(&mut screen, &["กำกิกำ"], (1, 6));
        assert_eq!(narrow, "\x1b[1;1H\x1b[Kกำกิกำ");
    }

    #[test]
    fn a_head_stands_out_up_to_the_edge() {
        let mut screen = Screen::default();
        let drawn = screen.draw(&[Line::head("ab".to_owned())], (1, 4));
        assert_eq!(drawn, b"\x1b[m\x1b[2J\x1b[1;1H\x1b[K\x1b[7mab  \x1b[m");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let mut screen = Screen::default();
        let all = drawn(&mut screen, &["\x1b[2J\u{9b}5m\u{202e}\r\na\tb"], (1, 80));
        assert_eq!(all, "\x1b[m\x1b[2J\x1b[1;1H\x1b[K\\x1b[2J\\x9b5m\\x202e\\x0d a b");
    }

    #[test]
    fn scrolling_stays_within_the_rows() {
        let mut scroll = Scroll::default();
        assert_eq!(scroll.seen(10, 4), 0..4);
        scroll.go(Move::Down(3));
        assert_eq!(scroll.seen(10, 4), 3..7);
        scroll.go(Move::Down(usize::MAX));
        assert_eq!(scroll.seen(10, 4), 6..10);
        assert_eq!(scroll.seen(10, 40), 0..10);
        scroll.go(Move::Up(1));
        assert_eq!((scroll.seen(0, 4), scroll.seen(3, 0)), (0..0, 0..0));
    }
}
