//! What all methods' builders share; and what a method must tell of itself.

mod checks;

pub(crate) use checks::{check_folder, check_text, check_word, parse_flag};
use checks::{parse_level, parse_seconds};

use std::sync::Arc;
use std::time::Duration;

use crate::call::context::Context;
use crate::call::router::Router;
use crate::connect::address::Hop;
use crate::connect::meaning::{Hint, Meaning};
use crate::connect::recipe::{Pattern, Prompt, Recipe, Reply, Start};
use crate::connect::request::{Answerer, Question};
use crate::error::ConnectFailure;
use crate::limits::{
    CONNECT_TIMEOUT, HEARTBEAT_COUNT, HEARTBEAT_COUNT_MAX, HEARTBEAT_MAX, HEARTBEAT_MIN,
    NAME_BYTES_MAX, POOL_THREADS_MAX, WRAPPER_BYTES_MAX,
};
use crate::log::debug::LEVELS;
use crate::route::files::Files;
use crate::route::heartbeat::Heartbeat;
use crate::route::terms::Terms;
use crate::trace::Level;
use crate::wire::secret::Secret;

/// A connection to be made by method `M`; see [`Router`](crate::Router) for the methods.
#[must_use = "nothing happens until `connect` or `start`"]
#[derive(Clone)]
pub struct Connect<M> {
    pub(crate) router: Router,
    pub(crate) via: Option<Context>,
    pub(crate) common: Common,
    pub(crate) answerer: Option<Answerer>,
    pub(crate) method: M,
}

/// The options of every method that are text and numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Common {
    pub(crate) name: Option<String>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) directory: Option<String>,
    pub(crate) memfd: Option<bool>,
    pub(crate) wrapper: Vec<String>,
    pub(crate) pipes: Option<bool>,
    pub(crate) unidirectional: Option<bool>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) heartbeat_count: Option<u32>,
    pub(crate) threads: Option<u32>,
    pub(crate) debug: Option<String>,
    pub(crate) debug_level: Option<Level>,
    pub(crate) profiling: Option<String>,
}

/// What the connecting side adds to the options to get a [`Recipe`].
pub struct Base<'a> {
    /// The name of the context that connects; none if that is the master.
    pub parent: Option<&'a str>,
    /// What `ps` shows, unless a name was given.
    pub title: &'a str,
    /// Random, for the shell.
    pub nonce: u64,
    /// Random, for the agent.
    pub answer_nonce: u64,
    /// Whether somebody answers what nothing foresees.
    pub asks: bool,
}

/// One way to reach a context. This library's own types implement it, and no others can.
pub trait Method: sealed::Describe {}
impl<T: sealed::Describe> Method for T {}

pub(crate) mod sealed {
    use super::{Base, ConnectFailure, Recipe};

    /// A method's options, its words in addresses, and the recipe that it makes.
    pub trait Describe {
        /// Its entry in the table of methods.
        fn entry(&self) -> &'static Entry;

        /// Sets an option, by its name in addresses. Fails with what is wrong.
        fn set(&mut self, key: &str, value: &str) -> Result<(), String>;

        /// The options that were set, by name, in the entry's order.
        fn values(&self) -> Vec<(&'static str, String)>;

        /// Fails with what is wrong with an option.
        fn check(&self) -> Result<(), String>;

        /// Completes a recipe that starts nothing yet.
        fn complete(&self, base: &Base<'_>, recipe: &mut Recipe) -> Result<(), ConnectFailure>;
    }

    /// What an address must know of a method. One more method is one more of these.
    pub struct Entry {
        /// The method's name.
        pub name: &'static str,
        /// The option that the target in `method:target` sets.
        pub target: Option<&'static str>,
        /// Whether an address must have a target.
        pub needs_target: bool,
        /// The option that `user@` in front of the target sets.
        pub user: Option<&'static str>,
        /// The option that `:port` behind the target sets.
        pub port: Option<&'static str>,
        /// All options; those that every method has come on top.
        pub options: &'static [&'static str],
        /// The method without options.
        pub make: fn() -> Box<dyn Describe>,
    }
}

/// Options of every method.
impl<M: Method> Connect<M> {
    /// The new context's name in logs, errors and `ps`. Default: the address of its path.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.common.name = Some(name.into());
        self
    }

    /// The context that makes the connection. Default: this one.
    pub fn via(mut self, context: &Context) -> Self {
        self.via = Some(context.clone());
        self
    }

    /// Time for the whole attempt, from when it is its turn to the agent's first word; if a busy
    /// server turns it away, for all tries together. Default: 30 s.
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.common.connect_timeout = Some(time);
        self
    }

    /// A directory of the target to try first when a place is sought from which the agent can be
    /// executed. An absolute path. Default: /dev/shm, XDG_RUNTIME_DIR, a file in memory, /var/tmp,
    /// /tmp, HOME's `.cache`, HOME, the working directory.
    pub fn directory(mut self, path: impl Into<String>) -> Self {
        self.common.directory = Some(path.into());
        self
    }

    /// Whether the agent may run from a file in memory, which some hosts forbid or report. Without
    /// it, it always runs from a file, which has no name any more when it is written. Default: yes.
    pub fn memfd(mut self, may: bool) -> Self {
        self.common.memfd = Some(may);
        self
    }

    /// A command of the target, and its arguments, that executes the agent, as
    /// `["nice", "-n", "5"]`; what to execute is added. In addresses the words are separated by
    /// blanks. Default: none.
    pub fn wrapper(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.common.wrapper = words.into_iter().map(Into::into).collect();
        self
    }

    /// Has `answer` called with each question of a tool that no option answers, as for a
    /// verification code, or for a password that was not given. What it returns is typed; `None`
    /// gives the connect up. It runs on a thread of its own, in this process also where the connect
    /// is made [`via`](Connect::via) another, and within the connect timeout. Default: as
    /// [`Router::on_prompt`] says; else such a question ends the connect.
    pub fn on_prompt<F>(mut self, answer: F) -> Self
    where
        F: Fn(&Question) -> Option<Secret> + Send + Sync + 'static,
    {
        self.answerer = Some(Arc::new(answer));
        self
    }

    /// Whether the process that is started gets pipes as its standard input and output, which
    /// SELinux lets pass where privileges change, or a socket, which takes one descriptor less.
    /// Default: pipes for tools if SELinux is enabled where the connection is made.
    pub fn pipes(mut self, pipes: bool) -> Self {
        self.common.pipes = Some(pipes);
        self
    }

    /// Whether those below the new context may talk to it and its ancestors only: so networks that
    /// are apart stay apart. Default: as the context that connects. Only the master can make it
    /// less strict than that.
    pub fn unidirectional(mut self, only: bool) -> Self {
        self.common.unidirectional = Some(only);
        self
    }

    /// The time after which each end of the connection says that it is there, again and again; an
    /// end that has heard nothing at all for [some](Connect::heartbeat_count) of these times closes
    /// the connection, with [`Cause::Silent`](crate::error::Cause). So one that vanished without a
    /// word is noticed, and a context that was stopped taken for gone. From 0.1 seconds to a day.
    /// Default: never. It holds for this connection alone; `ssh` has a
    /// [keepalive](crate::Ssh::keepalive_interval) of its own, which is on.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.common.heartbeat = Some(interval);
        self
    }

    /// How many such times without a word end the connection: 1 to 1,000. Default: 3.
    pub fn heartbeat_count(mut self, count: u32) -> Self {
        self.common.heartbeat_count = Some(count);
        self
    }

    /// How many functions the new context runs at a time, each on a thread of its own: 1 to 256.
    /// Default: 1, in the order in which they were sent. With more, the calls of one caller begin
    /// in that order, but for those that wait for the one before them in their
    /// [chain](crate::Chain), and end in any.
    pub fn threads(mut self, count: u32) -> Self {
        self.common.threads = Some(count);
        self
    }

    /// Has the new context, and each that is started below it, write all that is logged there at
    /// this level and above to a file of its own, `mitogen.<process>.log` in this folder of its
    /// machine; see [`Router::enable_debug`], whose files these are like. A file that cannot be
    /// made is a warning in the log. In addresses `debug` and `debug_level`, which is `debug`
    /// unless given. Default: as the context that connects.
    pub fn debug(mut self, folder: impl Into<String>, level: Level) -> Self {
        (self.common.debug, self.common.debug_level) = (Some(folder.into()), Some(level));
        self
    }

    /// Has the new context, and each that is started below it, time what it delivers, and write
    /// that and all its [counters](crate::Counters) to `mitogen.stats.<process>.log` in this folder
    /// of its machine when it ends as it was asked to, or with its parent. Default: as the context
    /// that connects.
    pub fn profiling(mut self, folder: impl Into<String>) -> Self {
        self.common.profiling = Some(folder.into());
        self
    }
}

impl<M> Connect<M> {
    pub(crate) fn new(router: &Router, method: M) -> Connect<M> {
        Connect {
            router: router.clone(),
            via: None,
            common: Common::default(),
            answerer: None,
            method,
        }
    }
}

impl Common {
    /// Their names in addresses.
    pub(crate) const OPTIONS: [&'static str; 12] = [
        "connect_timeout",
        "directory",
        "memfd",
        "wrapper",
        "pipes",
        "unidirectional",
        "heartbeat",
        "heartbeat_count",
        "threads",
        "debug",
        "debug_level",
        "profiling",
    ];

    /// Sets an option by its name. Fails with what is wrong.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "connect_timeout" => self.connect_timeout = Some(parse_seconds(value)?),
            "heartbeat" => self.heartbeat = Some(parse_seconds(value)?),
            "heartbeat_count" => {
                self.heartbeat_count = Some(value.parse().map_err(|_| "not a count")?);
            }
            "threads" => self.threads = Some(value.parse().map_err(|_| "not a count")?),
            "debug" => self.debug = Some(value.to_owned()),
            "debug_level" => self.debug_level = Some(parse_level(value)?),
            "profiling" => self.profiling = Some(value.to_owned()),
            "unidirectional" => self.unidirectional = Some(parse_flag(value)?),
            "directory" => self.directory = Some(value.to_owned()),
            "wrapper" => self.wrapper = value.split_whitespace().map(str::to_owned).collect(),
            "pipes" => self.pipes = Some(parse_flag(value)?),
            _ => self.memfd = Some(parse_flag(value)?),
        }
        self.check()
    }

    /// The options that were set, by name.
    pub(crate) fn values(&self) -> Vec<(&'static str, String)> {
        let seconds = |time: Duration| time.as_secs_f64().to_string();
        let flag = |set: bool| if set { "yes" } else { "no" }.to_owned();
        let level = |level: Level| LEVELS[level as usize - 1].to_owned();
        let (memfd, pipes) = (self.memfd.map(flag), self.pipes.map(flag));
        let wrapper = Some(self.wrapper.join(" ")).filter(|words| !words.is_empty());
        let directory = self.directory.clone();
        let connect_timeout = ("connect_timeout", self.connect_timeout.map(seconds));
        [
            connect_timeout,
            ("directory", directory),
            ("memfd", memfd),
            ("wrapper", wrapper),
            ("pipes", pipes),
            ("unidirectional", self.unidirectional.map(flag)),
            ("heartbeat", self.heartbeat.map(seconds)),
            ("heartbeat_count", self.heartbeat_count.map(|count| count.to_string())),
            ("threads", self.threads.map(|count| count.to_string())),
            ("debug", self.debug.clone()),
            ("debug_level", self.debug_level.map(level)),
            ("profiling", self.profiling.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }

    fn beat(&self) -> Result<Heartbeat, String> {
        let count = self.heartbeat_count.unwrap_or(HEARTBEAT_COUNT);
        if count == 0 || HEARTBEAT_COUNT_MAX < count {
            return Err(format!("heartbeat_count is {count}: 1 to {HEARTBEAT_COUNT_MAX}"));
        }
        let Some(interval) = self.heartbeat else { return Ok(Heartbeat::default()) };
        if interval < HEARTBEAT_MIN || HEARTBEAT_MAX < interval {
            return Err(format!(
                "heartbeat is {interval:?}: {HEARTBEAT_MIN:?} to {HEARTBEAT_MAX:?}"
            ));
        }
        let interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        Ok(Heartbeat { interval_ms, count })
    }

    fn terms(&self) -> Result<Terms, String> {
        let threads = self.threads.unwrap_or(1);
        if threads == 0 || POOL_THREADS_MAX < threads {
            return Err(format!("threads is {threads}: 1 to {POOL_THREADS_MAX}"));
        }
        let (unidirectional, files) = (self.unidirectional, self.files());
        Ok(Terms { unidirectional, heartbeat: self.beat()?, threads, files })
    }

    fn files(&self) -> Files {
        let level = self.debug_level.unwrap_or(Level::Debug);
        Files {
            debug: self.debug.as_ref().map_or(String::new(), |path| Files::debug_of(level, path)),
            profiling: self.profiling.clone().unwrap_or_default(),
        }
    }

    fn check(&self) -> Result<(), String> {
        if let Some(name) = &self.name {
            check_word("name", name)?;
            if name.contains('/') || NAME_BYTES_MAX < name.len() {
                return Err(format!("name has a `/`, or more than {NAME_BYTES_MAX} bytes"));
            }
        }
        if let Some(command) = self.wrapper.first() {
            check_word("wrapper", command)?;
            self.wrapper.iter().try_for_each(|word| check_text("wrapper", word))?;
        }
        if WRAPPER_BYTES_MAX < self.wrapper.iter().map(|word| word.len() + 3).sum::<usize>() {
            return Err(format!("wrapper has more than {WRAPPER_BYTES_MAX} bytes"));
        }
        self.terms().and(Ok(()))?;
        let folders = [&self.directory, &self.debug, &self.profiling];
        for (key, path) in ["directory", "debug", "profiling"].into_iter().zip(folders) {
            path.as_ref().map_or(Ok(()), |path| check_folder(key, path))?;
        }
        Ok(())
    }
}

/// The recipe for a connection by `method`.
pub(crate) fn recipe(
    method: &dyn sealed::Describe,
    common: &Common,
    base: &Base<'_>,
) -> Result<Recipe, ConnectFailure> {
    common.check().and_then(|()| method.check()).map_err(ConnectFailure::BadOption)?;
    let time = common.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
    let mut recipe = Recipe {
        name: path_name(method, common, base.parent),
        title: match &common.name {
            Some(name) => ["mitogen:", name].concat(),
            None => base.title.to_owned(),
        },
        start: Start::Own,
        answer_nonce: base.answer_nonce,
        env: Vec::new(),
        terminal: false,
        as_su: false,
        asks: base.asks,
        secret: None,
        prompts: Vec::new(),
        hints: Vec::new(),
        same_root: false,
        timeout_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        directory: common.directory.as_ref().map(|path| path.clone().into_bytes()),
        memfd: common.memfd.unwrap_or(true),
        pipes: common.pipes,
        terms: common.terms().map_err(ConnectFailure::BadOption)?,
        orders: Vec::new(),
        wrapper: common.wrapper.iter().map(|word| word.clone().into_bytes()).collect(),
    };
    method.complete(base, &mut recipe)?;
    Ok(recipe)
}

/// The name of the context that is to be: the one given, or its address, cut where it is too long.
pub(crate) fn path_name(
    method: &dyn sealed::Describe,
    common: &Common,
    parent: Option<&str>,
) -> String {
    if let Some(name) = &common.name {
        return name.clone();
    }
    let hop = Hop::of(method, common).to_string();
    let mut name = match parent {
        Some(parent) => [parent, "/", &hop].concat(),
        None => hop,
    };
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name
}

/// A table of hints, each what a line begins with, what is in it, and what that means.
pub(crate) fn hints(table: &[(&str, &str, Meaning)]) -> Vec<Hint> {
    table
        .iter()
        .map(|(starts, holds, meaning)| Hint {
            line: Pattern::line(starts.as_bytes(), holds.as_bytes()),
            meaning: *meaning,
        })
        .collect()
}

/// How questions for a password look, each by what it begins and ends with; behind these, the word
/// in the languages that tools speak.
pub(crate) fn password_prompts(questions: &[(&[u8], &[u8])]) -> Vec<Prompt> {
    let exact = questions.iter().map(|(starts, ends)| Pattern::ending(starts, ends));
    let words = PASSWORD_WORDS.iter().map(|word| Prompt {
        line: Pattern::line(b"", word.as_bytes()),
        reply: Reply::PasswordOnceSettled,
    });
    exact.map(Prompt::password).chain(words).collect()
}

/// What asks for a password has one of these, as OpenSSH, Linux-PAM and sudo are translated; where
/// case matters, since it is not ASCII, without the first letter, or twice.
const PASSWORD_WORDS: [&str; 29] = [
    "password",
    "passwort",
    "kennwort",
    "contrase",
    "contrasinal",
    "mot de passe",
    "senha",
    "palavra-passe",
    "parol",
    "parool",
    "wachtwoord",
    "lösenord",
    "passord",
    "adgangskode",
    "salasana",
    "hasło",
    "heslo",
    "geslo",
    "lozinka",
    "jelszó",
    "арол",
    "озинка",
    "şifre",
    "Şifre",
    "パスワード",
    "密码",
    "密碼",
    "口令",
    "암호",
];
