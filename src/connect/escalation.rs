//! What sudo, su and doas share: how they start the shell, in which language they speak, and the
//! options that are texts of theirs.

use crate::connect::meaning::{Hint, Meaning};
use crate::connect::options::check_text;
use crate::connect::recipe::Pattern;
use crate::connect::stage::first_script;

/// What stands between two texts of a list in an address.
pub(crate) const LIST_SEPARATOR: &str = "|";

/// Makes the tool speak English where the GNU library translates, and changes nothing else of its
/// locale.
pub(crate) fn env() -> Vec<Vec<u8>> {
    vec![b"LANGUAGE=C".to_vec()]
}

/// The script of the first stage, which keeps that from the target's programs.
pub(crate) fn script(nonce: u64) -> Vec<u8> {
    [b"unset LANGUAGE;", &first_script(nonce)[..]].concat()
}

/// The same as one command of any shell.
pub(crate) fn command(nonce: u64) -> Vec<u8> {
    [b"exec sh -c '", &script(nonce)[..], b"'"].concat()
}

/// Reads a list of an address.
pub(crate) fn list(value: &str) -> Vec<String> {
    value.split(LIST_SEPARATOR).map(str::to_owned).collect()
}

/// Fails if one of these texts can match no line, or every one.
pub(crate) fn check_all(
    prompt: &Option<String>,
    incorrect: &Option<Vec<String>>,
) -> Result<(), String> {
    let incorrect = incorrect.iter().flatten().map(|text| ("incorrect_prompts", text));
    for (key, text) in prompt.iter().map(|text| ("password_prompt", text)).chain(incorrect) {
        check_text(key, text)?;
        if text.trim().is_empty() {
            return Err(format!("{key} is empty"));
        }
    }
    Ok(())
}

/// The lines that mean that the password is wrong.
pub(crate) fn end_hints(texts: &Option<Vec<String>>, default: &[&str]) -> Vec<Hint> {
    let hint = |text: &str| Hint {
        line: Pattern::line(b"", text.trim().as_bytes()),
        meaning: Meaning::PasswordWrong,
    };
    match texts {
        Some(texts) => texts.iter().map(|text| hint(text)).collect(),
        None => default.iter().map(|text| hint(text)).collect(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::connect::options::sealed::Entry;
    use crate::connect::options::{Base, Common, recipe};
    use crate::connect::recipe::{Recipe, Start};

    /// The words before the script, and the recipe, of a method with these options.
    pub(crate) fn made(
        entry: &Entry,
        options: &[(&str, &str)],
    ) -> Result<(String, Recipe), String> {
        let mut method = (entry.make)();
        for (key, value) in options {
            method.set(key, value)?;
        }
        let base =
            Base { parent: Some("ssh:web"), title: "t", nonce: 1, answer_nonce: 2, asks: false };
        let recipe = recipe(&*method, &Common::default(), &base).map_err(|why| why.to_string())?;
        let Start::Shell { argv, .. } = &recipe.start else { panic!("no shell") };
        let words = argv[..argv.len() - 1].iter().map(|word| String::from_utf8_lossy(word));
        Ok((words.collect::<Vec<_>>().join(" "), recipe))
    }

    #[test]
    fn a_list_is_read_as_it_is_written() {
        assert_eq!(list("su: sorry|no").join(LIST_SEPARATOR), "su: sorry|no");
        assert!(check_all(&None, &Some(list("su: sorry|no"))).is_ok());
        assert!(check_all(&None, &Some(list("su: sorry|"))).is_err());
    }
}
