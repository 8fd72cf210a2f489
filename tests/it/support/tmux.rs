//! A terminal of a private tmux, in which a shell runs: keys go in, and what is on the screen can
//! be read.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{run, until};

/// A busy machine may take long to draw.
const LIMIT: Duration = Duration::from_secs(20);

/// The terminal. Dropping it ends all that runs there.
pub struct Tmux {
    folder: tempfile::TempDir,
}

impl Tmux {
    /// One with so many columns and lines, and a shell that waits at its prompt.
    pub fn new(columns: usize, lines: usize) -> Tmux {
        let tmux = Tmux { folder: tempfile::tempdir().unwrap() };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let size = ["-x", &columns, "-y", &lines];
        let shell = ["env", "-u", "MITOGEN_LOG_LEVEL", "PS1=$ ", "ENV=", "sh", "-i"];
        let session = ["-f", "/dev/null", "new-session", "-d"];
        tmux.tmux(&[&session[..], &size, &shell].concat());
        tmux.shows(&["$"]);
        tmux
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        tmux.env_remove("TMUX").arg("-S").arg(self.path("socket")).args(args);
        run(&mut tmux)
    }

    /// A file of its own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Types a line.
    pub fn line(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.key("Enter");
    }

    /// Presses a key, by tmux's name.
    pub fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Gives it another size.
    pub fn resize(&self, columns: usize, lines: usize) {
        let (columns, lines) = (columns.to_string(), lines.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &lines]);
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// What will be on the screen when a program gives it back.
    pub fn behind(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-a"])
    }

    /// What a format of tmux says of it: `#{alternate_on}`.
    pub fn is(&self, format: &str) -> String {
        self.tmux(&["display-message", "-p", format]).trim_end().to_owned()
    }

    /// Waits until all of these are on the screen, and returns it.
    #[track_caller]
    pub fn shows(&self, words: &[&str]) -> String {
        let found = || {
            let screen = self.screen();
            words.iter().all(|word| screen.contains(word)).then_some(screen)
        };
        match until(LIMIT, found) {
            Some(screen) => screen,
            None => panic!("no {words:?}:\n{}", self.screen()),
        }
    }

    /// How the terminal is, as `stty` says: after a line of the shell, which must be at its prompt.
    #[track_caller]
    pub fn mode(&self) -> String {
        let path = self.path("mode");
        let _ = fs::remove_file(&path);
        self.line(&format!("stty -a >{0}.new; mv {0}.new {0}", path.display()));
        until(LIMIT, || fs::read_to_string(&path).ok()).unwrap()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // Ended by itself is as good.
        let mut tmux = Command::new("tmux");
        let _ = tmux.arg("-S").arg(self.path("socket")).arg("kill-server").output();
    }
}
