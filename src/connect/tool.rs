//! What methods share whose tool is one command line around a shell, typed nothing and asked
//! nothing: containers and jails. Each is a table of options, words and hints.

use crate::connect::meaning::Meaning;
use crate::connect::options::sealed::{Describe, Entry};
use crate::connect::options::{Base, check_text, check_word, hints};
use crate::connect::recipe::{Recipe, Start};
use crate::connect::stage::first_script;
use crate::error::ConnectFailure;

/// What a line begins with, what is in it, and what that means.
pub type HintRow = (&'static str, &'static str, Meaning);

/// A method that is such a tool.
pub trait Tool {
    /// Its words in addresses.
    const ENTRY: &'static Entry;
    /// What its lines mean.
    const HINTS: &'static [HintRow];

    /// The options that were given.
    fn words(&self) -> &Words;

    /// The options, to be changed.
    fn words_mut(&mut self) -> &mut Words;

    /// The command line up to the script, the last of it a shell's `-c`. The options are good.
    fn argv(words: &Words) -> Vec<&str>;

    /// Fails with what is wrong with the options together.
    fn check_all(_: &Words) -> Result<(), String> {
        Ok(())
    }
}

/// Options, by name. Each is one word; but those named `..._args` are any number.
#[derive(Clone, Debug, Default)]
pub struct Words(Vec<(&'static str, Vec<String>)>);

impl Words {
    /// One option.
    pub fn of(key: &'static str, value: impl Into<String>) -> Words {
        Words(vec![(key, vec![value.into()])])
    }

    /// Sets an option.
    pub fn put(&mut self, key: &'static str, value: impl Into<String>) {
        self.put_all(key, [value]);
    }

    /// Sets an option of any number of words.
    pub fn put_all(
        &mut self,
        key: &'static str,
        values: impl IntoIterator<Item = impl Into<String>>,
    ) {
        self.0.retain(|(old, _)| *old != key);
        self.0.push((key, values.into_iter().map(Into::into).collect()));
    }

    /// An option's words; none if it was not given.
    pub fn all(&self, key: &str) -> &[String] {
        self.0.iter().find(|(name, _)| *name == key).map_or(&[], |(_, values)| values)
    }

    /// An option, if it was given.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.all(key).first().map(|value| &**value)
    }

    /// An option, or its default.
    pub fn or<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.value(key).unwrap_or(default)
    }

    /// A flag and an option, if that was given.
    pub fn flag<'a>(&'a self, flag: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
        self.value(key).into_iter().flat_map(move |value| [flag, value])
    }
}

/// The target's name and those of the options.
fn keys(entry: &'static Entry) -> impl Iterator<Item = &'static str> {
    entry.target.into_iter().chain(entry.options.iter().copied())
}

impl<T: Tool> Describe for T {
    fn entry(&self) -> &'static Entry {
        T::ENTRY
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let key = keys(T::ENTRY).find(|known| *known == key).ok_or("no such option")?;
        match key.ends_with("_args") {
            true => self.words_mut().put_all(key, value.split_whitespace()),
            false => self.words_mut().put(key, value),
        }
        check_each(self.words())
    }

    fn values(&self) -> Vec<(&'static str, String)> {
        let values = keys(T::ENTRY).map(|key| (key, self.words().all(key)));
        let given = values.filter(|(_, words)| !words.is_empty());
        given.map(|(key, words)| (key, words.join(" "))).collect()
    }

    fn check(&self) -> Result<(), String> {
        if let Some(target) = T::ENTRY.target {
            if T::ENTRY.needs_target && self.words().value(target).is_none() {
                return Err(format!("no {target}"));
            }
        }
        check_each(self.words()).and_then(|()| T::check_all(self.words()))
    }

    fn complete(&self, base: &Base<'_>, recipe: &mut Recipe) -> Result<(), ConnectFailure> {
        let mut argv: Vec<Vec<u8>> =
            T::argv(self.words()).into_iter().map(|word| word.as_bytes().to_vec()).collect();
        argv.push(first_script(base.nonce));
        recipe.start = Start::Shell { argv, nonce: base.nonce };
        recipe.hints = hints(T::HINTS);
        Ok(())
    }
}

fn check_each(words: &Words) -> Result<(), String> {
    for (key, values) in &words.0 {
        for value in values {
            match key.ends_with("_args") {
                true => check_text(key, value)?,
                false => check_word(key, value)?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::connect::options::{Common, recipe};

    const BASE: Base<'_> =
        Base { parent: None, title: "t", nonce: 1, answer_nonce: 2, asks: false };

    /// The recipe of these options, or what is wrong with them.
    pub fn made(entry: &Entry, options: &[(&str, &str)]) -> Result<Recipe, String> {
        let mut method = (entry.make)();
        for (key, value) in options {
            method.set(key, value)?;
        }
        recipe(&*method, &Common::default(), &BASE).map_err(|why| why.to_string())
    }

    /// Checks the arguments before the script, which is the last.
    #[track_caller]
    pub fn assert_argv(entry: &Entry, options: &[(&str, &str)], expected: &str) {
        let recipe = made(entry, options).unwrap();
        let Start::Shell { argv, .. } = recipe.start else { panic!("no shell") };
        assert_eq!(argv.last(), Some(&first_script(1)));
        let words = argv[..argv.len() - 1].iter().map(|word| String::from_utf8_lossy(word));
        assert_eq!(words.collect::<Vec<_>>().join(" "), expected);
        assert!(!recipe.terminal && recipe.secret.is_none() && !recipe.same_root);
    }

    /// Checks that a line of a tool that ends with 1 means `failure`.
    #[track_caller]
    pub fn assert_hint(entry: &Entry, line: &str, failure: ConnectFailure) {
        use crate::connect::handshake::{Handshake, Origin};
        let target = entry.target.unwrap();
        let recipe = std::sync::Arc::new(made(entry, &[(target, "app")]).unwrap());
        for origin in [Origin::Terminal, Origin::Stdout] {
            let mut handshake = Handshake::new(recipe.clone());
            handshake.started();
            handshake.input(origin, format!("{line}\n").as_bytes());
            let error = crate::connect::meaning::told(&mut handshake, crate::error::Exit::Code(1));
            assert_eq!(error.failure, failure, "{line}: {error}");
        }
    }

    #[test]
    fn what_a_tool_would_take_for_an_option_is_refused() {
        use crate::connect::{buildah, docker, incus, jail, kubectl, lxc, lxd, podman};
        for entry in [&buildah::ENTRY, &docker::ENTRY, &incus::ENTRY, &jail::ENTRY] {
            assert_refuses(entry);
        }
        for entry in [&kubectl::ENTRY, &lxc::ENTRY, &lxd::ENTRY, &podman::ENTRY] {
            assert_refuses(entry);
        }
    }

    #[track_caller]
    fn assert_refuses(entry: &'static Entry) {
        let name = entry.name;
        assert!(made(entry, &[]).is_err(), "{name}");
        for key in keys(entry) {
            for value in ["-t", "", "a\x1bb"] {
                // Any number of words may be options, or none; but no terminal's.
                let is_bad = !key.ends_with("_args") || value.contains('\x1b');
                let why = (entry.make)().set(key, value);
                assert_eq!(why.is_err(), is_bad, "{name} {key} {value:?}");
            }
        }
    }
}
