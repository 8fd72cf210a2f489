//! For the other snippets: what registers and calls, with the bounds of the real ones.
use mitogen::function::{Arguments, Function, Signature};

pub struct Program;

impl Program {
    pub fn new() -> Program {
        Program
    }

    pub fn function<F, M>(self, _: F) -> Program
    where
        F: Signature<M> + Function<M>,
    {
        self
    }
}

pub struct Context;

impl Context {
    pub fn call<F, M>(&self, _: F, _: impl Arguments<F::Args>) -> Result<F::Output, String>
    where
        F: Signature<M> + Function<M>,
    {
        Err(String::new())
    }
}
