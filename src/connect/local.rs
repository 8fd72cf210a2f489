//! Method `local`: a subprocess of the connecting context, executed directly from its own image; or
//! by way of a shell, where no file in memory is wanted.

use crate::call::router::Router;
use crate::connect::options::sealed::{Describe, Entry};
use crate::connect::options::{Base, Connect};
use crate::connect::recipe::{Recipe, Start};
use crate::connect::stage::first_script;
use crate::error::ConnectFailure;

/// A subprocess.
pub type Local = Connect<LocalOptions>;

/// The options of [`Local`]: none of its own.
#[derive(Clone, Debug, Default)]
pub struct LocalOptions {}

impl Router {
    /// A context in a subprocess.
    pub fn local(&self) -> Local {
        Connect::new(self, LocalOptions::default())
    }
}

/// Method `local` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "local",
    target: None,
    needs_target: false,
    user: None,
    port: None,
    options: &[],
    make: || Box::new(LocalOptions::default()),
};

impl Describe for LocalOptions {
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
        recipe.start = match recipe.memfd {
            true => Start::Own,
            // A shell makes the file, as it does everywhere else.
            false => {
                let argv = vec![b"sh".to_vec(), b"-c".to_vec(), first_script(base.nonce)];
                Start::Shell { argv, nonce: base.nonce }
            }
        };
        recipe.same_root = true;
        Ok(())
    }
}
