//! Signals that this process hears, on a thread of its own; and what a tree is doing, told on
//! standard error when one asks by SIGUSR1, or by SIGQUIT once.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mitogen::__private::heard;
use mitogen::Router;

use super::{status, text};

/// How long a context may take to tell what it does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A second SIGQUIT within this time is meant as one.
const AGAIN: Duration = Duration::from_secs(5);
/// The thread waits, and starts others.
const STACK_BYTES: usize = 128 << 10;

/// Has `act` called for each of these signals, on a thread of its own. Without one, or without a
/// pipe, they keep their effects.
pub fn listen(numbers: &[i32], mut act: impl FnMut(i32) + Send + 'static) {
    let numbers = numbers.to_owned();
    let mut body = move |mut heard: File| {
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = heard.read(&mut bytes) {
            bytes[..count].iter().for_each(|byte| act(i32::from(*byte)));
        }
    };
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new().stack_size(STACK_BYTES).name("signals".to_owned());
    let thread = thread.spawn(move || {
        if let Ok(heard) = told.recv() {
            body(heard);
        }
    });
    // In this order: what is heard must be listened to.
    if let (Ok(_), Ok(heard)) = (thread, heard::hear(&numbers)) {
        // It waits for nothing else.
        let _ = tell.send(File::from(heard));
    }
}

/// Tells on standard error what the tree is doing, whenever one asks.
pub fn dump_when_asked(router: &Router) {
    listen_for(Dump::new(router, |said| {
        text::complain_behind(status::erased(), said);
    }));
}

/// Has its signals ask for it.
pub fn listen_for(mut dump: Dump) {
    listen(&Dump::SIGNALS, move |signal| {
        if dump.heard(signal) {
            heard::obey(signal);
        }
    });
}

/// Tells what a tree is doing.
pub struct Dump {
    router: Router,
    print: Arc<dyn Fn(&str) + Send + Sync>,
    is_busy: Arc<AtomicBool>,
    /// When it was asked for by SIGQUIT last.
    asked: Option<Instant>,
}

impl Dump {
    /// The signals that ask for it.
    pub const SIGNALS: [i32; 2] = [heard::USR1, heard::QUIT];

    /// `print` gets the text, on a thread of its own.
    pub fn new(router: &Router, print: impl Fn(&str) + Send + Sync + 'static) -> Dump {
        let is_busy = Arc::new(AtomicBool::new(false));
        Dump { router: router.clone(), print: Arc::new(print), is_busy, asked: None }
    }

    /// Tells, if that signal asks for it. The second SIGQUIT in a row does not: it is to end the
    /// process. Returns whether it is that.
    pub fn heard(&mut self, signal: i32) -> bool {
        if signal == heard::QUIT {
            if self.asked.is_some_and(|asked| asked.elapsed() < AGAIN) {
                return true;
            }
            self.asked = Some(Instant::now());
        }
        // What is being told is as new as what would be told next.
        if self.is_busy.swap(true, Ordering::Relaxed) {
            return false;
        }
        let (router, print, is_busy) =
            (self.router.clone(), self.print.clone(), self.is_busy.clone());
        let again = if signal == heard::QUIT { "; again within 5 s: ends" } else { "" };
        let tell = move || {
            let tree = router.inspect_tree(ANSWER_TIMEOUT);
            is_busy.store(false, Ordering::Relaxed);
            print(&format!("the tree now{again}:\n{tree}"));
        };
        if thread::Builder::new().name("dump".to_owned()).spawn(tell).is_err() {
            self.is_busy.store(false, Ordering::Relaxed);
        }
        false
    }
}
