//! The command `mitogen`; without the feature `command` the stock agent, which runs the stock
//! functions for whoever started it and does nothing by itself.

#![cfg_attr(not(any(feature = "command", test)), no_main)]

#[cfg(feature = "command")]
mod args;
#[cfg(feature = "command")]
mod run;
#[cfg(feature = "command")]
mod status;
#[cfg(feature = "command")]
mod printer;
#[cfg(feature = "command")]
mod tree;
#[cfg(feature = "command")]
mod watch;
#[cfg(feature = "command")]
mod signals;
#[cfg(feature = "command")]
mod columns;
#[cfg(feature = "command")]
mod units;
#[cfg(feature = "command")]
mod json;
#[cfg(feature = "command")]
mod text;

#[cfg(feature = "command")]
fn main() -> std::process::ExitCode {
    program().run(args::dispatch).unwrap_or_else(|error| {
        text::complain(&error.to_string());
        std::process::ExitCode::FAILURE
    })
}

/// The stock functions; and the images of agents that were there when this was built.
#[cfg(feature = "command")]
fn program() -> mitogen::Program {
    let promise = mitogen::__private::promise_of_command();
    let program = mitogen::Program::new().allow_fork(promise);
    #[cfg(feature = "images")]
    let program = {
        use mitogen::Image;
        // All compressed; that of this CPU plain, too, so that `local` needs no gzip.
        const ALL: &[(&str, &[u8])] = &include!(env!("MITOGEN_IMAGES"));
        let images = ALL.iter().map(|(name, bytes)| Image::embedded(name, bytes));
        images.fold(program, mitogen::Program::image)
    };
    program
}

#[cfg(not(any(feature = "command", test)))]
mitogen::__stock_agent!();
