//! How a snapshot is shown at a terminal: a line for each thing, what waits first, the oldest
//! before the others. Names are made harmless.

use std::fmt::{self, Display, Formatter};

use crate::ids::ContextId;
use crate::inspect::snapshot::{
    Awaited, Child, ChildState, End, Function, Listed, Queue, Room, Snapshot, Stream, What,
};
use crate::trace::Printable;

impl Display for Snapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title())?;
        self.show(f, "")
    }
}

impl Snapshot {
    /// The first line.
    pub(super) fn title(&self) -> impl Display {
        let ends = if self.is_ending { ", ends" } else { "" };
        let (age, pid) = (Span(self.age_ms), self.pid);
        fmt_with(move |f| {
            write!(f, "{}, pid {pid}, here for {age}{ends}", Named(self.context_id, &self.name))
        })
    }

    /// All other lines, behind this margin.
    pub(super) fn show(&self, f: &mut Formatter<'_>, margin: &str) -> fmt::Result {
        let mut lines = Lines { f, margin };
        self.show_calls(&mut lines)?;
        self.show_waits(&mut lines)?;
        self.show_children(&mut lines)?;
        self.show_streams(&mut lines)?;
        let routes = self.routes.first.iter().map(|route| match route.via == route.context_id {
            true => route.context_id.to_string(),
            false => format!("{} by {}", route.context_id, route.via),
        });
        lines.list("below", routes, self.routes.more)?;
        if 0 < self.timers {
            let due = self.next_timer_ms.map(|ms| format!(", the next in {}", Span(ms)));
            lines.put("timers", format_args!("{}{}", self.timers, due.unwrap_or_default()))?;
        }
        if self.is_lent {
            lines.put("turn", format_args!("had by a thread that waits"))?;
        }
        Ok(())
    }

    fn show_calls(&self, lines: &mut Lines<'_, '_>) -> fmt::Result {
        let mut running: Vec<_> = self.running.first.iter().collect();
        running.sort_by_key(|call| std::cmp::Reverse(call.age_ms));
        for call in running {
            let cancelled = if call.is_cancelled { ", cancelled" } else { "" };
            let (function, left) = (&call.function, Left(call.left_ms));
            let (age, caller) = (Span(call.age_ms), call.caller_id);
            lines.put(
                "runs",
                format_args!("{function} for {age}, called by {caller}{cancelled}{left}"),
            )?;
        }
        lines.more("runs", self.running.more)?;
        let calls = self.queued.first.iter();
        let calls = calls.map(|call| ((call.caller_id, &call.function), call.age_ms));
        for ((caller, function), Group { count, age_ms }) in grouped(calls) {
            let (times, age) = (Times(count), Span(age_ms));
            lines.put("queued", format_args!("{function}{times} for {age}, called by {caller}"))?;
        }
        lines.more("queued", self.queued.more)
    }

    fn show_waits(&self, lines: &mut Lines<'_, '_>) -> fmt::Result {
        // It waits for its own end all the time.
        let is_own = |it: &&Awaited| it.what == What::End && it.context_id == Some(self.context_id);
        let pending = self.pending.first.iter().filter(|it| !is_own(it));
        let pending = pending.map(|it| ((it.context_id, &it.what), it.age_ms));
        for ((context, what), Group { count, age_ms }) in grouped(pending) {
            let (whom, times, age) = (Whom(context), Times(count), Span(age_ms));
            lines.put("waits", format_args!("for {whom}: {what}{times} for {age}"))?;
        }
        lines.more("waits", self.pending.more)?;
        if 0 < self.held_callers {
            let threads = Threads(self.held_callers);
            lines.put("waits", format_args!("{threads} to call: too much is unanswered"))?;
        }
        let mut rooms: Vec<_> = self.rooms.first.iter().collect();
        rooms.sort_by_key(|room| std::cmp::Reverse(room.held_senders));
        rooms.into_iter().try_for_each(|room| lines.put(room.label(), format_args!("{room}")))?;
        lines.more("sent", self.rooms.more)?;
        let mut others: Vec<_> = self.receivers.first.iter().collect();
        others.sort_by_key(|it| std::cmp::Reverse(it.takers()));
        for it in others {
            lines.put(it.label(), format_args!("{it}"))?;
        }
        lines.more("listens", self.receivers.more)
    }

    fn show_children(&self, lines: &mut Lines<'_, '_>) -> fmt::Result {
        let is_up = |child: &&Child| child.state == ChildState::Up;
        for child in self.children.first.iter().filter(|child| !is_up(child)) {
            lines.put("child", format_args!("{child}"))?;
        }
        let up = self.children.first.iter().filter(is_up);
        let up = up.map(|child| format!("{} (pid {})", child.context_id, child.pid));
        lines.list("children", up, self.children.more)
    }

    fn show_streams(&self, lines: &mut Lines<'_, '_>) -> fmt::Result {
        let is_busy = |it: &&Stream| 0 < it.queued_bytes || !it.is_read || it.is_blocked;
        for stream in self.streams.first.iter().filter(is_busy) {
            lines.put("stream", format_args!("{stream}"))?;
        }
        let idle = self.streams.first.iter().filter(|stream| !is_busy(stream));
        let idle = idle.filter(|it| !matches!(it.end, End::Process(_) | End::Terminal(_)));
        lines.list("streams", idle.map(|stream| stream.end.to_string()), self.streams.more)
    }
}

/// Where lines go.
struct Lines<'a, 'f> {
    f: &'a mut Formatter<'f>,
    margin: &'a str,
}

impl Lines<'_, '_> {
    fn put(&mut self, label: &str, text: fmt::Arguments<'_>) -> fmt::Result {
        writeln!(self.f, "{}    {label:<9} {text}", self.margin)
    }

    fn more(&mut self, label: &str, more: u64) -> fmt::Result {
        if more == 0 { Ok(()) } else { self.put(label, format_args!("and {more} more")) }
    }

    /// One line for all, if there are any.
    fn list(&mut self, label: &str, items: impl Iterator<Item = String>, more: u64) -> fmt::Result {
        let mut items: Vec<String> = items.collect();
        if 0 < more {
            items.push(format!("{more} more"));
        }
        if items.is_empty() {
            return Ok(());
        }
        self.put(label, format_args!("{}", items.join(", ")))
    }
}

/// Several of the same.
pub(super) struct Group {
    pub count: u64,
    /// Of the oldest.
    pub age_ms: u64,
}

/// What is the same, together; the oldest first.
pub(super) fn grouped<K: PartialEq>(all: impl Iterator<Item = (K, u64)>) -> Vec<(K, Group)> {
    let mut groups: Vec<(K, Group)> = Vec::new();
    for (key, age_ms) in all {
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, group)) => {
                group.count += 1;
                group.age_ms = group.age_ms.max(age_ms);
            }
            None => groups.push((key, Group { count: 1, age_ms })),
        }
    }
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.age_ms));
    groups
}

fn fmt_with<F: Fn(&mut Formatter<'_>) -> fmt::Result>(show: F) -> impl Display {
    struct Shown<F>(F);
    impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> Display for Shown<F> {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            (self.0)(f)
        }
    }
    Shown(show)
}

/// A context and its name.
pub(super) struct Named<'a>(pub ContextId, pub &'a str);

impl Display for Named<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        // A line stays one.
        let name = self.1.replace(['\n', '\t'], " ");
        if name.is_empty() { Ok(()) } else { write!(f, " ({})", Printable(&name)) }
    }
}

/// A time, as exact as people want it.
pub(super) struct Span(pub u64);

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ms = self.0;
        let (seconds, minutes, hours) = (ms / 1000, ms / 60_000, ms / 3_600_000);
        match ms {
            0..1000 => write!(f, "{ms} ms"),
            1000..60_000 => write!(f, "{seconds}.{} s", ms % 1000 / 100),
            60_000..3_600_000 => write!(f, "{minutes} min {} s", seconds % 60),
            3_600_000..172_800_000 => write!(f, "{hours} h {} min", minutes % 60),
            _ => write!(f, "{} d {} h", hours / 24, hours % 24),
        }
    }
}

struct Left(Option<u64>);

impl Display for Left {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |ms| write!(f, ", with {} left", Span(ms)))
    }
}

pub(super) struct Times(pub u64);

impl Display for Times {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if 1 < self.0 { write!(f, ", {} times, the oldest", self.0) } else { Ok(()) }
    }
}

pub(super) struct Threads(pub u64);

impl Display for Threads {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 == 1 { f.write_str("a thread") } else { write!(f, "{} threads", self.0) }
    }
}

struct Whom(Option<ContextId>);

impl Display for Whom {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => id.fmt(f),
            None => f.write_str("anybody"),
        }
    }
}

impl Display for Function {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "function {:016x}", self.fingerprint),
            name => write!(f, "{}", Printable(&name.replace(['\n', '\t'], " "))),
        }
    }
}

impl Display for What {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            What::Other => f.write_str("an answer"),
            What::Call(function) => function.fmt(f),
            What::CallNoReply(function) => write!(f, "{function}, without a reply,"),
            What::Connect => f.write_str("a connect"),
            What::Receiver(_) => f.write_str("a message"),
            What::Handler => f.write_str("a message to a handler"),
            What::End => f.write_str("its end"),
        }
    }
}

impl Awaited {
    fn takers(&self) -> u64 {
        if let What::Receiver(Queue { takers, .. }) = self.what { takers } else { 0 }
    }

    fn label(&self) -> &'static str {
        match self.what {
            What::Receiver(_) if 0 < self.takers() => "waits",
            What::Receiver(_) => "receiver",
            What::Handler => "handler",
            _ => "listens",
        }
    }
}

impl Display for Awaited {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (handle, age) = (self.handle, Span(self.age_ms));
        match &self.what {
            What::Receiver(queue) => {
                if 0 < queue.takers {
                    write!(f, "{} for values at ", Threads(queue.takers))?;
                }
                write!(f, "{handle}, there for {age}: {queue}")
            }
            _ => write!(f, "{handle}, there for {age}"),
        }
    }
}

impl Display for Queue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.values {
            0 => f.write_str("nothing waits in it")?,
            1 => f.write_str("a value waits in it")?,
            count => write!(f, "{count} values wait in it")?,
        }
        if self.holders.count() == 0 { Ok(()) } else { write!(f, ", from {}", self.holders) }
    }
}

impl<T: Display> Display for Listed<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (at, item) in self.first.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{item}")?;
        }
        if self.more == 0 { Ok(()) } else { write!(f, " and {} more", self.more) }
    }
}

impl Room {
    fn label(&self) -> &'static str {
        if 0 < self.held_senders { "waits" } else { "sent" }
    }
}

impl Display for Room {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Room { context_id, handle, outstanding_bytes, held_senders, is_announced } = self;
        if 0 < *held_senders {
            write!(f, "{} for {context_id} to take what is sent ", Threads(*held_senders))?;
        }
        write!(f, "to handle {handle} of {context_id}: {outstanding_bytes} bytes are on the way")?;
        if *is_announced { f.write_str(", and a large message") } else { Ok(()) }
    }
}

impl Display for Child {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (name, age) = (Named(self.context_id, &self.name), Span(self.age_ms));
        write!(f, "{name}, pid {}, started {age} ago: {}", self.pid, self.state)
    }
}

impl Display for ChildState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ChildState::Starting(phase) => write!(f, "it is being connected, {phase}"),
            ChildState::Up => f.write_str("it is up"),
            ChildState::Ending => f.write_str("its process is to end"),
            ChildState::Detached => f.write_str("it has left the tree"),
            ChildState::Exited => f.write_str("its process has ended"),
        }
    }
}

impl Display for End {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            End::Other => f.write_str("other"),
            End::Parent => f.write_str("parent"),
            End::Child(id) => write!(f, "child {id}"),
            End::Starting(id) => write!(f, "child {id}, which is being connected"),
            End::Terminal(id) => write!(f, "terminal of child {id}"),
            End::Process(id) => write!(f, "process of child {id}"),
            End::Watched => f.write_str("a process of the program"),
            End::Attached => f.write_str("a stream of the program"),
        }
    }
}

impl Display for Stream {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} bytes wait to be written", self.end, self.queued_bytes)?;
        if 0 < self.held_senders {
            write!(f, ", {} for room", Threads(self.held_senders))?;
        }
        if !self.is_read {
            f.write_str(", not read")?;
        }
        if self.is_blocked { f.write_str(", takes no more now") } else { Ok(()) }
    }
}
