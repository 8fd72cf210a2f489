//! Options of sudo as its own command line has them.

use crate::connect::options::check_word;

/// Those that we have a meaning for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Args {
    pub(super) user: Option<String>,
    pub(super) role: Option<String>,
    pub(super) selinux_type: Option<String>,
    pub(super) set_home: bool,
    pub(super) preserve_env: bool,
    pub(super) login: bool,
}

impl Args {
    /// Reads them. Fails with the one that is wrong.
    pub(super) fn read(args: &[String]) -> Result<Args, String> {
        let mut parsed = Args::default();
        let mut rest = args.iter().map(String::as_str);
        while let Some(arg) = rest.next() {
            match arg.strip_prefix("--") {
                Some(name) => parsed.long(arg, name, &mut rest)?,
                None => parsed.short(arg, &mut rest)?,
            }
        }
        Ok(parsed)
    }

    fn long<'a>(
        &mut self,
        arg: &str,
        name: &'a str,
        rest: &mut dyn Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        let letter = match name {
            "user" => 'u',
            "role" => 'r',
            "type" => 't',
            "set-home" => 'H',
            "preserve-env" => 'E',
            "login" => 'i',
            "non-interactive" => 'n',
            _ => return Err(unsupported(arg)),
        };
        if self.flag(letter) {
            return value.map_or(Ok(()), |_| Err(unsupported(arg)));
        }
        self.value(arg, letter, value.or_else(|| rest.next()))
    }

    fn short<'a>(
        &mut self,
        arg: &'a str,
        rest: &mut dyn Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        let letters = arg.strip_prefix('-').filter(|letters| !letters.is_empty());
        let mut letters = letters.ok_or_else(|| unsupported(arg))?.chars();
        while let Some(letter) = letters.next() {
            if !self.flag(letter) {
                let value = Some(letters.as_str()).filter(|value| !value.is_empty());
                return self.value(arg, letter, value.or_else(|| rest.next()));
            }
        }
        Ok(())
    }

    /// Sets the flag of this letter, if there is one.
    fn flag(&mut self, letter: char) -> bool {
        match letter {
            'H' => self.set_home = true,
            'E' => self.preserve_env = true,
            'i' => self.login = true,
            // So it is, unless there is a password.
            'n' => (),
            _ => return false,
        }
        true
    }

    fn value(&mut self, arg: &str, letter: char, value: Option<&str>) -> Result<(), String> {
        let place = match letter {
            'u' => &mut self.user,
            'r' => &mut self.role,
            't' => &mut self.selinux_type,
            _ => return Err(unsupported(arg)),
        };
        let value = value.ok_or_else(|| format!("sudo_args: {arg} needs a value"))?;
        check_word("sudo_args", value)?;
        *place = Some(value.to_owned());
        Ok(())
    }
}

fn unsupported(arg: &str) -> String {
    format!("sudo_args: {arg} is not supported; -E -H -i -n -r -t -u are")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Args, String> {
        Args::read(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read_in_all_their_forms() {
        let full = Args {
            user: Some("joe".to_owned()),
            role: Some("r".to_owned()),
            selinux_type: Some("t".to_owned()),
            set_home: true,
            preserve_env: true,
            login: true,
        };
        for text in [
            "-H -E -i -n -u joe -r r -t t",
            "-HEinujoe -rr -tt",
            "-HEi -nu joe --role=r --type t",
            "--set-home --preserve-env --login --non-interactive --user joe --role r --type=t",
        ] {
            assert_eq!(read(text).as_ref(), Ok(&full), "{text}");
        }
        assert_eq!(read(""), Ok(Args::default()));
    }

    #[test]
    fn what_has_no_meaning_here_is_refused_by_name() {
        for text in [
            "-S",
            "-HS",
            "-k",
            "--stdin",
            "--preserve-env=PATH",
            "-u",
            "--user",
            "--user=",
            "-u -x",
            "joe",
            "-",
            "--",
            "-g wheel",
            "--login=yes",
            "-hhost",
        ] {
            let why = read(text).unwrap_err();
            assert!(why.starts_with("sudo_args"), "{text}: {why}");
        }
    }
}
