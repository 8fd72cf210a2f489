//! The terminal, which the view has to itself until it gives it back as it was: when it is dropped,
//! on a panic of any thread, and before the process stops or ends by a signal.

use std::fs::File;
use std::io::{self, Write};
use std::panic;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mitogen::__private::terminal::{self, Errno, Mode};

use super::super::text;
use super::screen::{ENTER, LEAVE, Size};

/// How the terminal was, while it is ours. Locked for moments only, and never while something is
/// written, which may take any time.
static BEFORE: Mutex<Option<Mode>> = Mutex::new(None);

fn before() -> MutexGuard<'static, Option<Mode>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The terminal that is our standard output.
pub struct Terminal {
    out: File,
}

impl Terminal {
    /// Takes it. `wake` is called when a panic, of whatever thread, has given it back and is told.
    ///
    /// # Errors
    /// It is no terminal, or is gone.
    pub fn take(wake: impl Fn() + Send + Sync + 'static) -> io::Result<Terminal> {
        let mut terminal = Terminal { out: text::unbuffered(io::stdout())? };
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // So that what it says is seen.
            give_back();
            hook(panic);
            wake();
        }));
        terminal.enter()?;
        Ok(terminal)
    }

    /// Has it to itself again, and empty. In the background this stops the process.
    ///
    /// # Errors
    /// It is gone.
    pub fn enter(&mut self) -> io::Result<()> {
        let now = Mode::of(&self.out).map_err(failed)?;
        let mode = *before().get_or_insert(now);
        mode.key_by_key().set(&self.out).map_err(failed)?;
        self.out.write_all(ENTER)
    }

    /// Gives it back, for a while or for good.
    pub fn leave(&mut self) {
        give_back();
    }

    /// Whether it is ours: a panic gives it back.
    pub fn is_ours(&self) -> bool {
        before().is_some()
    }

    /// Writes to it.
    ///
    /// # Errors
    /// It is gone.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Its lines and columns; as many as there usually are if it does not know.
    pub fn size(&self) -> Size {
        terminal::size(&self.out).unwrap_or((24, 80))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

fn failed(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.0)
}

/// Gives the terminal back as it was, if it is ours.
fn give_back() {
    if give_mode_back() {
        // One that is gone needs nothing.
        let _ = text::unbuffered(io::stdout()).and_then(|mut out| out.write_all(LEAVE));
    }
}

/// The same, but for what is on the screen: for a terminal that takes nothing. Whether it was ours.
pub fn give_mode_back() -> bool {
    let Some(mode) = before().take() else { return false };
    // As above.
    let _ = mode.set(io::stdout());
    true
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const ROLE: &str = "MITOGEN_TERMINAL_TEST_ROLE";

    /// Not a test but on a terminal of its own.
    #[test]
    fn panics_on_a_terminal() {
        if std::env::var_os(ROLE).is_some() {
            let mut terminal = Terminal::take(|| eprintln!("<woken>")).unwrap();
            terminal.write(b"<shown>").unwrap();
            // On another thread, which is harder.
            let ended = std::thread::spawn(|| panic!("on purpose")).join();
            assert!(ended.is_err() && !terminal.is_ours());
        }
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        let exe = std::env::current_exe().unwrap();
        let test = "watch::terminal::tests::panics_on_a_terminal";
        let line = format!(
            "stty -a >$B; {} --exact {test} --nocapture; stty -a >$A; cmp $A $B && echo same",
            exe.display()
        );
        let folder = tempfile::tempdir().unwrap();
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env(ROLE, "1").env("RUST_BACKTRACE", "0");
        script.env("A", folder.path().join("a")).env("B", folder.path().join("b"));
        let output = script.stdin(std::process::Stdio::null()).output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let order = [&text(ENTER), "<shown>", &text(LEAVE), "on purpose", "<woken>", "same"];
        let places = order.map(|text| shown.find(text));
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{shown:?}");
    }
}
