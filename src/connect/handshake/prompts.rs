//! Questions of the tool that brings us to the target, and what is typed.

use super::{Action, Awaits, Handshake, Origin};
use crate::connect::recipe::{Prompt, Reply, is_question, trim};
use crate::error::ConnectFailure;
use crate::limits::QUESTION_BYTES_MAX;
use crate::wire::secret::Secret;

impl Handshake {
    /// The line has stood for `SETTLE_AFTER`, unless something came since.
    pub fn settled(&mut self) -> Vec<Action> {
        let prompts = &mut self.prompts;
        prompts.settling = false;
        if prompts.stirred {
            self.look(Origin::Terminal);
        } else if self.awaits == Awaits::Shell && !prompts.answered {
            self.judge();
        }
        std::mem::take(&mut self.actions)
    }

    /// What somebody says to the question of [`Action::Ask`]; none if nobody does. Nothing comes of
    /// it if the question was withdrawn.
    pub fn answer(&mut self, says: Option<Secret>) -> Vec<Action> {
        let is_late = std::mem::take(&mut self.prompts.owed);
        if is_late && self.prompts.asked {
            self.actions.push(Action::Ask(self.prompts.question.clone()));
        } else if std::mem::take(&mut self.prompts.asked) && !self.is_over() {
            match says {
                Some(secret) => {
                    self.prompts.secrets.push(secret.clone());
                    self.prompts.typed |= self.prompts.for_password;
                    self.reply(secret, Origin::Terminal, true);
                }
                None => {
                    let question = std::mem::take(&mut self.prompts.question);
                    self.fail(ConnectFailure::UnknownPrompt(question));
                }
            }
        }
        std::mem::take(&mut self.actions)
    }

    /// Looks at the unfinished line of an output. A prompt is answered at once; what only looks
    /// like a question must stand for a while.
    #[inline(never)] // a frame of its own: smaller code
    pub(super) fn look(&mut self, origin: Origin) {
        self.prompts.stirred = true;
        if self.awaits != Awaits::Shell || self.prompts.answered {
            return;
        }
        match self.foreseen(origin).map(|prompt| prompt.reply) {
            Some(Reply::Yes) => self.reply(Secret::from("yes"), origin, true),
            Some(Reply::Nothing) => self.reply(Secret::from(""), origin, true),
            Some(Reply::Password) if self.recipe.secret.is_some() || !self.recipe.asks => {
                self.password(origin, false);
            }
            _ if origin == Origin::Stdout => (),
            _ if self.recipe.types() && is_question(self.terminal.line()) => self.settle(),
            _ => (),
        }
    }

    /// Whether the unfinished line of the terminal asks for the password in words that nothing else
    /// uses.
    pub(super) fn is_prompt(&self) -> bool {
        let foreseen = self.foreseen(Origin::Terminal);
        foreseen.is_some_and(|prompt| prompt.reply == Reply::Password)
    }

    fn foreseen(&self, origin: Origin) -> Option<&Prompt> {
        let line = match origin {
            Origin::Stdout => self.stdout.line(),
            Origin::Terminal => self.terminal.line(),
        };
        self.recipe.prompts.iter().find(|prompt| prompt.line.matches(line))
    }

    fn settle(&mut self) {
        if !std::mem::replace(&mut self.prompts.settling, true) {
            self.prompts.stirred = false;
            self.actions.push(Action::Settle);
        }
    }

    /// The line of the terminal stands. If it is a question, it is answered, or the end.
    fn judge(&mut self) {
        if !is_question(self.terminal.line()) {
            return;
        }
        let typed = self.prompts.typed;
        match self.foreseen(Origin::Terminal).map(|prompt| prompt.reply) {
            Some(Reply::Password) => self.password(Origin::Terminal, true),
            Some(Reply::PasswordOnceSettled) if !typed => self.password(Origin::Terminal, true),
            _ => self.ask(false),
        }
    }

    fn password(&mut self, origin: Origin, whole: bool) {
        match self.recipe.secret.clone() {
            _ if self.prompts.typed => self.fail(ConnectFailure::PasswordWrong),
            Some(secret) => {
                self.prompts.typed = true;
                self.prompts.question = self.question();
                self.reply(secret, origin, whole);
            }
            None if self.recipe.asks => self.ask(true),
            None => self.fail(ConnectFailure::PasswordRequired),
        }
    }

    /// The line of the terminal, from behind a mark of ours, which is no word for people.
    fn question(&self) -> String {
        let line = self.terminal.line();
        let mark: &[u8] = match self.foreseen(Origin::Terminal) {
            Some(Prompt { reply: Reply::Password, line }) => &line.holds,
            _ => b"",
        };
        let at = line.windows(mark.len().max(1)).rposition(|window| window == mark);
        let line = trim(&line[at.map_or(0, |at| at + mark.len())..]);
        self.quotable(&line[line.len().saturating_sub(QUESTION_BYTES_MAX)..])
    }

    fn ask(&mut self, for_password: bool) {
        let question = self.question();
        if self.prompts.question == question {
            // The same again: what was typed is wrong.
            self.fail(ConnectFailure::PasswordWrong);
        } else if !self.recipe.asks {
            self.fail(ConnectFailure::UnknownPrompt(question));
        } else {
            let prompts = &mut self.prompts;
            (prompts.answered, prompts.asked, prompts.for_password) = (true, true, for_password);
            prompts.question.clone_from(&question);
            if !prompts.owed {
                self.actions.push(Action::Ask(question));
            }
        }
    }

    /// Types the answer to what stands on the unfinished line. If that is `whole`, it is taken for
    /// ended: whoever shows what is typed leaves it to the terminal, which shows nothing, to end
    /// it. Else it lasts until it is ended, for a prompt may go on behind what we know it by. Who
    /// reads standard input never ends it.
    fn reply(&mut self, secret: Secret, origin: Origin, whole: bool) {
        self.actions.push(Action::Type(secret));
        self.prompts.answered = !whole && !self.recipe.types_to_stdin();
        match origin {
            _ if self.prompts.answered => (),
            Origin::Stdout => self.stdout.end_line(false, &[]),
            Origin::Terminal => self.terminal.end_line(false, &[]),
        }
    }
}
