//! The shell's part in bringing an agent up: the lines that we say to it, and the marks by which it
//! and the agent answer.

/// What a target is, as its `uname` and its shell say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The operating system, as `std::env::consts::OS` names it.
    pub os: &'static str,
    /// The processor, as `std::env::consts::ARCH` names it.
    pub cpu: &'static str,
    /// Whether an image may be sent compressed.
    pub gzip: bool,
}

impl Target {
    /// The name of its images: `<os>-<cpu>`.
    pub fn name(&self) -> String {
        [self.os, "-", self.cpu].concat()
    }
}
