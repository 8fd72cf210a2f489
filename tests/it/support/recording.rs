//! What a parent says to bring an agent up, written down once, to be said again by hand: all of it,
//! or up to some point.

use std::fs;
use std::io::BufRead;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use mitogen::Router;
use tempfile::TempDir;

use super::{script, stock_image_bytes, until};

/// All that one parent said: to a shell, then to the agent that this became.
pub struct Recording {
    folder: TempDir,
    command: String,
    /// The line that takes the image.
    pub line: Vec<u8>,
    /// The image as it was sent.
    pub image: Vec<u8>,
    /// The first frame.
    pub frame: Vec<u8>,
}

impl Recording {
    /// Has a router connect to a shell beneath a tool that writes down what passes.
    #[track_caller]
    pub fn make(router: &Router) -> Recording {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let tool = format!(
            "for last; do :; done\nprintf %s \"$last\" >{at}/command\n\
             tee {at}/said | sh -c \"$last\""
        );
        let tool = script(folder.path(), "ssh", &tool);
        let context = router.ssh("recorded").ssh_path(tool).connect().unwrap();
        // Now all is said but perhaps the first frame, after which comes nothing of itself.
        let (mut said, mut line, mut image) = (Vec::new(), 0, 0);
        until(Duration::from_secs(10), || {
            said = fs::read(folder.path().join("said")).unwrap();
            line = said.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            let text = String::from_utf8_lossy(&said[..line]).into_owned();
            let count = text
                .split_once("head -c ")
                .unwrap()
                .1
                .split(|c: char| !c.is_ascii_digit())
                .next()
                .unwrap();
            image = line + count.parse::<usize>().unwrap();
            (image < said.len()).then_some(())
        });
        drop(context);
        let path = folder.path().join("mgn-image");
        fs::write(&path, stock_image_bytes()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        Recording {
            command: fs::read_to_string(folder.path().join("command")).unwrap(),
            line: said[..line].to_vec(),
            image: said[line..image].to_vec(),
            frame: said[image..].to_vec(),
            folder,
        }
    }

    /// Starts the shell that was spoken to.
    pub fn shell(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &self.command]);
        command
    }

    /// Starts the agent itself.
    pub fn agent(&self) -> Command {
        let mut command = Command::new(self.folder.path().join("mgn-image"));
        command.arg0("mitogen").arg("mitogen-agent-0123456789abcdef");
        command
    }
}

/// Reads lines until one has this mark in it.
#[track_caller]
pub fn hear(stream: &mut impl BufRead, mark: &str) {
    let mut line = Vec::new();
    while !String::from_utf8_lossy(&line).contains(mark) {
        line.clear();
        assert_ne!(stream.read_until(b'\n', &mut line).unwrap(), 0, "no {mark}");
    }
}
