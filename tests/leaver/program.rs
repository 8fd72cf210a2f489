//! A program whose function leaves the tree: `leaver ADDRESS FOLDER`. It connects the address, has
//! that context detach itself, says what it has learnt of that, and ends with its input. What has
//! left writes how it fares to the file `left` of the folder, and ends when `stop` is there.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, io, thread};

use mitogen::error::ErrorKind;
use mitogen::{CallContext, Context, ContextId, Program, Receiver, Result, Sender, stock};

/// More than a connection holds at a time.
const PIECES: usize = 100;
const PIECE_BYTES: usize = 20_000;

type Waits = (Receiver<u32>, Context);

/// Detaches this context, with a child, a process, and waits of all sorts.
fn leave(
    cx: &CallContext,
    folder: &Path,
    give: Sender<Sender<u32>>,
    out: Sender<Vec<u8>>,
) -> Result<(), Box<dyn Error>> {
    let router = cx.router();
    let (numbers, child) = (router.receiver(), router.local().connect()?);
    give.send(numbers.to_sender())?;
    drop(give);
    start_sleep("100007")?;
    child.call(start_sleep, "100008")?;
    for _ in 0..PIECES {
        out.send(vec![7; PIECE_BYTES])?;
    }
    cx.detach()?;
    println!("Nobody reads this, and nobody must.");
    let facts = facts(cx, &(numbers, child), &out);
    fs::write(folder.join("facts"), facts)?;
    fs::rename(folder.join("facts"), folder.join("left"))?;
    while !folder.join("stop").exists() {
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn start_sleep(seconds: &str) -> io::Result<()> {
    Command::new("sleep").arg(seconds).spawn().map(drop)
}

/// One fact a line.
fn facts(cx: &CallContext, (numbers, child): &Waits, out: &Sender<Vec<u8>>) -> String {
    let router = cx.router();
    let limit = Duration::from_secs(5);
    let error =
        |outcome: Result<()>| outcome.map_or_else(|error| error.to_string(), |()| "".into());
    let master = router.context_by_id(ContextId(0));
    [
        format!("pid {}", std::process::id()),
        format!("parents {}", router.parent_id().is_some() || !router.parent_ids().is_empty()),
        format!("master {}", router.is_master()),
        format!("receiver {}", error(numbers.get_timeout(limit).map(drop))),
        format!("sender {}", error((0..PIECES).try_for_each(|_| out.send(vec![7; PIECE_BYTES])))),
        format!("call {}", error(master.call(stock::ping, ()))),
        format!("again {}", error(cx.detach())),
        format!("child {}", error(child.call(stock::ping, ()))),
        format!("other {}", error(router.local().connect().map(drop))),
        format!("child pid {}", child.call(stock::identify, ()).map_or(0, |child| child.pid)),
    ]
    .join("\n")
}

fn main() -> Result<()> {
    Program::new().function(leave).function(start_sleep).run(|router| {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let context = router.connect(&args[0].parse()?)?;
        let (given, pieces) = (router.receiver::<Sender<u32>>(), router.receiver::<Vec<u8>>());
        let waits = (given.to_sender(), pieces.to_sender());
        let call = context.call_async(leave, (&args[1], waits.0, waits.1));
        let held = given.get()?;
        let bytes: usize = pieces.into_iter().map_while(Result::ok).map(|piece| piece.len()).sum();
        println!("bytes {}", bytes == PIECES * PIECE_BYTES);
        let Err(error) = call.get() else { return Ok(()) };
        let ErrorKind::Closed(death) = error.kind() else { return Err(error) };
        println!("left {} {error}", death.context == Some(context.context_id()));
        println!("child {}", router.children().contains(&context));
        println!("held {}", held.send(1).is_err());
        io::read_to_string(io::stdin()).unwrap_or_default();
        Ok(())
    })
}
