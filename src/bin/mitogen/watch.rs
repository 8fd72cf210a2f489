//! `mitogen tree --watch`: connects, and shows how the contexts are until one has seen enough.

mod form;
mod keys;
mod live;
mod look;
mod model;
mod screen;
mod table;
mod terminal;

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use mitogen::__private::heard;
use mitogen::error::{Death, ErrorKind};
use mitogen::stock::{self, Identity};
use mitogen::{Address, Context, Latch, Result, Router, Select};

use super::args::Place;
use super::run::{UNREACHABLE, reason};
use super::signals::{self, Dump};
use super::text;
use form::Form;
use keys::{Key, Keys};
use look::Seen;
use model::Model;

/// How long the view may take to end before it is ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Without anything to do it wakes up no more often.
const IDLE: Duration = Duration::from_secs(3600);
/// A thread that reads keys.
const STACK_BYTES: usize = 128 << 10;

/// What `mitogen tree --watch` is asked to do.
pub struct Options {
    /// One object a line instead of tables.
    pub json: bool,
    /// The time between two looks.
    pub interval: Duration,
    /// The addresses to connect.
    pub places: Vec<Place>,
}

/// What happens.
enum Event {
    /// What is to be this row is up, or was not reached.
    Outcome(usize, Result<Context>),
    /// Whose it is, and where.
    Identity(usize, Result<Identity>),
    /// A context has ended.
    Gone(u32, String),
    /// All were looked at.
    Looked(Vec<Seen>),
    /// A signal came.
    Signal(i32),
    /// Keys were pressed; nothing if there will be no more.
    Input(Vec<u8>),
    /// What the tree is doing, for standard error.
    Dump(String),
    /// Nothing.
    Nothing,
}

/// Where other threads put what happens.
type Inbox = Arc<Latch<Event>>;

/// Why the view ends.
enum End {
    /// One has seen enough, or nothing is left to see.
    Enough,
    /// A signal said so.
    Signal(i32),
    /// It cannot be shown.
    Unwritable(io::Error),
    /// A panic, which has told of itself.
    Panic,
}

/// The view.
struct Watch<'a> {
    router: &'a Router,
    options: &'a Options,
    /// The rows of the places.
    rows: Vec<usize>,
    model: Model,
    form: Form,
    keys: Keys,
    select: Select<'a, Event>,
    /// Has the next look be made.
    took: mpsc::Sender<()>,
}

/// Connects, and shows the tree until one has seen enough, or a signal ends it.
pub fn watch(router: &Router, options: &Options) -> Result<ExitCode> {
    let inbox = Inbox::default();
    let select = Select::new();
    // It is never closed.
    select.add(&*inbox, |event| event.unwrap_or(Event::Nothing))?;
    let Identity { user, host, .. } = stock::identify();
    let model = Model::new(router.context_id().0, router.name(), &[&user, "@", &host].concat());
    let woken = inbox.clone();
    // As below.
    let wake = move || drop(woken.put(Event::Nothing));
    let form = match Form::new(options.json, options.interval, wake) {
        Ok(form) => form,
        Err(error) => return Ok(ExitCode::from(text::unwritable(&error))),
    };
    hear(router, &inbox, form.is_live());
    let keys = Keys::default();
    let told = inbox.clone();
    router.on_disconnect(move |context, death| {
        let id = context.context_id();
        // Nobody closes it.
        let _ = told.put(Event::Gone(id.0, why(id.0, death)));
    })?;
    let (took, taken) = mpsc::channel();
    let rows = Vec::new();
    let mut view = Watch { router, options, rows, model, form, keys, select, took };
    view.connect()?;
    let told = inbox.clone();
    let tell = move |seen| told.put(Event::Looked(seen)).is_ok();
    let looks = look::every(options.interval, router, tell, taken);
    let end = match looks {
        Ok(()) => view.show(),
        Err(error) => End::Unwritable(error),
    };
    Ok(view.end(end))
}

/// Why a context ended, without the id that stands beside it.
fn why(id: u32, death: &Death) -> String {
    let said = death.to_string();
    said.strip_prefix(&format!("context {id}: ")).unwrap_or(&said).to_owned()
}

/// Has signals and keys come to the inbox; only what a view of a terminal needs of them.
fn hear(router: &Router, inbox: &Inbox, is_terminal: bool) {
    let (told, heard_by) = (inbox.clone(), inbox.clone());
    // As above, here and below.
    let mut dump = Dump::new(router, move |said| {
        let _ = told.put(Event::Dump(said.to_owned()));
    });
    if !is_terminal {
        return signals::listen_for(dump);
    }
    let others = [heard::INT, heard::TERM, heard::HUP, heard::WINCH, heard::TSTP, heard::CONT];
    signals::listen(&[&Dump::SIGNALS[..], &others].concat(), move |signal| {
        if Dump::SIGNALS.contains(&signal) && !dump.heard(signal) {
            return;
        }
        let _ = heard_by.put(Event::Signal(signal));
        if matches!(signal, heard::INT | heard::TERM | heard::HUP | heard::QUIT) {
            thread::sleep(LAST_WORDS);
            terminal::give_mode_back();
            heard::obey(signal);
        }
    });
    let Some(mut keys) = text::unbuffered(io::stdin()).ok().filter(File::is_terminal) else {
        return;
    };
    let told = inbox.clone();
    let read = move || {
        let mut bytes = [0; 256];
        loop {
            let count = keys.read(&mut bytes).unwrap_or(0);
            let _ = told.put(Event::Input(bytes[..count].to_vec()));
            if count == 0 {
                return;
            }
        }
    };
    let thread = thread::Builder::new().stack_size(STACK_BYTES).name("keys".to_owned());
    // Without keys there still is Ctrl-C.
    let _ = thread.spawn(read);
}

impl Watch<'_> {
    /// Starts to connect every hop of every address; each gets a row.
    fn connect(&mut self) -> Result<()> {
        let mut prefixes: Vec<(Address, usize)> = Vec::new();
        let row_of = |prefixes: &[(Address, usize)], prefix: &Address| {
            prefixes.iter().find(|(known, _)| known == prefix).map(|(_, row)| *row)
        };
        for place in &self.options.places {
            let mut row = 0;
            for prefix in place.address.prefixes() {
                row = row_of(&prefixes, &prefix).unwrap_or_else(|| {
                    let row = self.model.add(row, &prefix.to_string());
                    prefixes.push((prefix, row));
                    row
                });
            }
            self.rows.push(row);
        }
        for (prefix, row) in prefixes {
            let start = self.router.start(&prefix);
            self.select.add(start, move |outcome| Event::Outcome(row, outcome))?;
        }
        Ok(())
    }

    /// Shows the tree until there is an end.
    fn show(&mut self) -> End {
        loop {
            let now = Instant::now();
            if self.form.is_lost() {
                return End::Panic;
            }
            match self.form.show(&self.model, now) {
                Ok(true) => self.model.shown(now),
                Ok(false) => (),
                Err(error) => return End::Unwritable(error),
            }
            if !self.form.is_live() && self.is_over() && self.form.due(&self.model, now).is_none() {
                return End::Enough;
            }
            let due = self.form.due(&self.model, now);
            let pause = due.map_or(IDLE, |due| due.saturating_duration_since(now));
            let event = match self.select.next_timeout(pause) {
                Ok(event) => event.unwrap_or(Event::Nothing),
                Err(error) if *error.kind() == ErrorKind::Timeout => Event::Nothing,
                Err(error) => return End::Unwritable(io::Error::other(error.to_string())),
            };
            if let Some(end) = self.happens(event) {
                return end;
            }
        }
    }

    /// Whether nothing is left that could change.
    fn is_over(&self) -> bool {
        self.model.count(|state| state.why().is_none()) == 0
    }

    fn happens(&mut self, event: Event) -> Option<End> {
        match event {
            Event::Outcome(row, outcome) => self.came_up(row, outcome),
            Event::Identity(row, Ok(Identity { user, host, .. })) => {
                self.model.place(row, &[user, host].join("@"));
            }
            Event::Gone(id, why) => self.model.gone(id, &why),
            Event::Looked(seen) => {
                // Who looks ends with the view.
                let _ = self.took.send(());
                seen.into_iter().for_each(|seen| self.saw(seen));
                self.model.leave(Instant::now());
                if self.form.is_unseen() {
                    return Some(End::Unwritable(io::ErrorKind::BrokenPipe.into()));
                }
            }
            Event::Input(bytes) => return self.pressed(&bytes),
            Event::Signal(signal) => return self.heard(signal),
            Event::Dump(said) => return self.form.say(&said).err().map(End::Unwritable),
            Event::Identity(_, Err(_)) | Event::Nothing => return None,
        }
        self.form.changed();
        None
    }

    fn came_up(&mut self, row: usize, outcome: Result<Context>) {
        match outcome {
            Ok(context) => {
                self.model.up(row, context.context_id().0);
                let call = context.call_async(stock::identify, ());
                // It was not added before, and this is not closed.
                let _ = self.select.add(call, move |identity| Event::Identity(row, identity));
            }
            Err(error) => {
                let name = self.model.row(row).name.clone();
                let said = error.to_string();
                let why = said.strip_prefix(&[&name, ": "].concat()).unwrap_or(&said);
                self.model.failed(row, why);
                let places = self.options.places.iter().zip(&self.rows);
                for (place, _) in places.filter(|(_, of)| **of == row) {
                    let what = [&place.label, ": ", &reason(place, &error)].concat();
                    self.form.complain(what);
                }
            }
        }
    }

    fn saw(&mut self, Seen { id, parent, name, answer }: Seen) {
        let found = self.model.find(id).or_else(|| self.model.awaited(&name, id, parent));
        let found = found.or_else(|| {
            // One that no address has led to.
            Some(self.model.add_found(self.model.find(parent?)?, &name, id))
        });
        if let Some(row) = found {
            self.model.told(row, answer);
        }
    }

    fn pressed(&mut self, bytes: &[u8]) -> Option<End> {
        if bytes.is_empty() {
            return Some(End::Enough);
        }
        for key in self.keys.read(bytes) {
            match key {
                Key::Quit => return Some(End::Enough),
                key => self.form.press(key),
            }
        }
        None
    }

    fn heard(&mut self, signal: i32) -> Option<End> {
        let taken = match signal {
            heard::WINCH => {
                self.form.changed();
                Ok(())
            }
            heard::TSTP => self.form.aside(|| heard::obey(signal)),
            // Whoever had the terminal meanwhile may have left it otherwise.
            heard::CONT => self.form.aside(|| ()),
            _ => return Some(End::Signal(signal)),
        };
        taken.err().map(End::Unwritable)
    }

    /// Gives the terminal back, says what failed, and tells the exit status.
    fn end(self, end: End) -> ExitCode {
        let Watch { form, model, rows, .. } = self;
        form.end();
        match end {
            End::Signal(signal) => {
                heard::obey(signal);
                ExitCode::from(128_u8.wrapping_add(signal as u8))
            }
            End::Unwritable(error) => ExitCode::from(text::unwritable(&error)),
            End::Panic => ExitCode::FAILURE,
            End::Enough if rows.iter().any(|row| model.row(*row).state.why().is_some()) => {
                ExitCode::from(UNREACHABLE)
            }
            End::Enough => ExitCode::SUCCESS,
        }
    }
}
