//! Method `fork`: a copy of the connecting context's own process, which executes nothing. What a
//! copy does is in `agent/fork.rs`.

use std::sync::Arc;

use crate::call::router::Router;
use crate::connect::options::sealed::{Describe, Entry};
use crate::connect::options::{Base, Connect};
use crate::connect::recipe::{Offered, Recipe, Start};
use crate::error::ConnectFailure;
use crate::lock::Lock;

/// A copy of this process, made by [`Router::fork`].
pub type Fork = Connect<ForkOptions>;

/// The options of [`Fork`].
#[derive(Clone, Default)]
pub struct ForkOptions {
    /// How this process is copied, if that was promised here.
    promised: Option<Promised>,
    hooks: Hooks,
}

/// Offers a copy that runs these hooks to the attempt of this nonce.
pub type Promised = Arc<dyn Fn(Hooks, u64) -> Offered + Send + Sync>;

/// What is run in a copy. The original never touches it: each copy takes its own.
#[derive(Clone, Default)]
pub struct Hooks {
    /// First of all.
    pub on_fork: Option<Once<OnFork>>,
    /// When the copy knows who it is, before the first call.
    pub on_start: Option<Once<OnStart>>,
}

/// See [`Hooks::on_fork`].
pub type OnFork = Box<dyn FnOnce() + Send>;
/// See [`Hooks::on_start`].
pub type OnStart = Box<dyn FnOnce(&Router) + Send>;

/// What is taken out once.
pub struct Once<T>(Arc<Lock<Option<T>>>);

impl<T> Once<T> {
    /// Takes it; again there is none.
    pub fn take(&self) -> Option<T> {
        self.0.lock().take()
    }
}

impl<T> Clone for Once<T> {
    fn clone(&self) -> Once<T> {
        Once(self.0.clone())
    }
}

impl ForkOptions {
    /// Of a process that may be copied like this.
    pub fn promised(promised: Promised) -> ForkOptions {
        ForkOptions { promised: Some(promised), hooks: Hooks::default() }
    }
}

impl Fork {
    /// What the copy runs first: it closes what belongs to the original, breaks its locks, seeds
    /// its random generators. If it panics the connect fails, with what it said. Default: nothing.
    ///
    /// What it owns is this process's, which keeps it; the copy has a copy. Not with
    /// [`via`](Connect::via).
    pub fn on_fork(mut self, hook: impl FnOnce() + Send + 'static) -> Fork {
        let hook: OnFork = Box::new(hook);
        self.method.hooks.on_fork = Some(Once(Arc::new(Lock::new(Some(hook)))));
        self
    }

    /// What the copy runs once it has its place in the tree, before the first call that comes, with
    /// its own router; it may use all that this process had in memory, and may be all that the copy
    /// is for. The connect does not wait for it. If it panics the context ends, and whoever waits
    /// for that is told what it said. Default: nothing.
    ///
    /// What it owns is as with [`on_fork`](Connect::on_fork). Routers of this process, and all that
    /// was made with them, fail there with [`ErrorKind::Usage`](crate::error::ErrorKind).
    pub fn on_start(mut self, hook: impl FnOnce(&Router) + Send + 'static) -> Fork {
        let hook: OnStart = Box::new(hook);
        self.method.hooks.on_start = Some(Once(Arc::new(Lock::new(Some(hook)))));
        self
    }
}

/// Method `fork` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "fork",
    target: None,
    needs_target: false,
    user: None,
    port: None,
    options: &[],
    make: || Box::new(ForkOptions::default()),
};

impl Describe for ForkOptions {
    fn entry(&self) -> &'static Entry {
        &ENTRY
    }

    fn set(&mut self, _key: &str, _value: &str) -> Result<(), String> {
        Ok(())
    }

    fn values(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn complete(&self, base: &Base<'_>, recipe: &mut Recipe) -> Result<(), ConnectFailure> {
        if !recipe.wrapper.is_empty() {
            let why = "fork takes no wrapper: it executes nothing";
            return Err(ConnectFailure::BadOption(why.to_owned()));
        }
        let offer = |promised: &Promised| promised(self.hooks.clone(), base.answer_nonce);
        recipe.start = Start::Fork(self.promised.as_ref().map(offer));
        recipe.same_root = true;
        Ok(())
    }
}
