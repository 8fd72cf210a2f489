//! Lines of a file as they are appended, wherever it is:
//! `cargo run --example stream -- PATH [SECONDS [ADDRESS]]` ends when nothing has been appended for
//! so long. Defaults: 0 and `local`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use mitogen::{Program, Result, Sender};

/// Sends the lines of a file, until none has come for `patience`. The stream ends when the last
/// `out` is dropped, which is here; if this fails, with the failure.
fn tail(path: &Path, patience: Duration, out: Sender<String>) -> Result<(), String> {
    let mut file = BufReader::new(File::open(path).map_err(|why| why.to_string())?);
    let (mut line, mut last) = (String::new(), Instant::now());
    loop {
        match file.read_line(&mut line).map_err(|why| why.to_string())? {
            0 if patience <= last.elapsed() => return Ok(()),
            0 => sleep(Duration::from_millis(50)),
            // A line that was read in two halves is still one.
            _ if !line.ends_with('\n') => (),
            _ => {
                // Sleeps while the receiver has no room; fails once it is closed.
                out.send(line.trim_end()).map_err(|why| why.to_string())?;
                line.clear();
                last = Instant::now();
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Program::new().function(tail).run(|router| {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let path = args.first().map_or("/etc/passwd", String::as_str);
        let patience = Duration::from_secs_f64(args.get(1).map_or("0", String::as_str).parse()?);
        let address = args.get(2).map_or("local", String::as_str);

        let host = router.connect(&address.parse()?)?;
        let lines = router.receiver::<String>();
        host.call_no_reply(tail, (path, patience, lines.to_sender()))?;
        for line in lines {
            println!("{}", line?);
        }
        Ok(())
    })
}
