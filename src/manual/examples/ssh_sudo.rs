//! Another account of another machine: `cargo run --example ssh_sudo -- [ADDRESS [ACCOUNT]]`, as
//! in `ssh_sudo ssh:deploy@web1 root`. Defaults: `local` and root.
//!
//! Over ssh the executable must be static, as those of
//! `RUSTFLAGS=-Ctarget-feature=+crt-static cargo run --target x86_64-unknown-linux-gnu --example`.

use std::io;
use std::path::Path;

use mitogen::{Program, Result, stock};

/// Bytes of a file that may be read.
fn file_bytes(path: &Path) -> io::Result<usize> {
    Ok(std::fs::read(path)?.len())
}

fn main() -> Result<()> {
    Program::new().function(file_bytes).run(|router| {
        let mut args = std::env::args().skip(1);
        let address = args.next().unwrap_or("local".to_owned());
        let account = args.next().unwrap_or("root".to_owned());

        let near = router.connect(&address.parse()?)?;
        let far = router.sudo().username(account).via(&near).connect()?;
        for context in [&near, &far] {
            let who = context.call(stock::identify, ())?;
            let shadow = match context.call(file_bytes, "/etc/shadow") {
                Ok(bytes) => format!("{bytes} bytes"),
                Err(why) => why.to_string(),
            };
            println!(
                "{context}: {}@{}, process {}, /etc/shadow: {shadow}",
                who.user, who.host, who.pid
            );
        }
        Ok(())
    })
}
