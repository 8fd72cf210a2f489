//! Every maximum of the library, with its unit and its reason; nowhere else is one written down.

use std::time::Duration;

/// Payload bytes of one frame, and of one fragment: what a small message waits for at most per hop.
pub const FRAGMENT_BYTES: usize = 16 * 1024;
/// Bytes of an encoded header: tag, flags, five 32-bit varints, a 64-bit varint, a length.
pub const HEADER_BYTES_MAX: usize = 2 + 5 * 5 + 10 + 5;
/// Bytes of one message after reassembly, unless the program says otherwise; the original's
/// default. Checked before allocation.
pub const MESSAGE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Bytes of the largest message that a program may allow at least: a recipe of a connect, or an
/// error with its causes, has some 10,000.
pub const MESSAGE_BYTES_MIN: u64 = 64 * 1024;
/// Nesting of one decoded value: deeper input is hostile, and would use up a thread's stack.
pub const VALUE_DEPTH_MAX: u8 = 64;
/// Bytes that a decoder reserves ahead on the word of a length it has not seen the items of.
pub const DECODE_RESERVE_BYTES_MAX: usize = 4 * 1024;
/// Items of one decoded value that take no bytes, as those of `Vec<()>`: they cost their sender
/// nothing and us a turn of a loop each.
pub const EMPTY_ITEMS_MAX: usize = 64 * 1024;
/// Bytes that a message being put together reserves ahead of what has arrived, while it is small;
/// then it doubles.
pub const ASSEMBLY_STEP_BYTES: usize = 1024 * 1024;
/// Wake-up descriptors that are kept while no thread sleeps on them.
pub const IDLE_WAKES_MAX: usize = 4;
/// Messages that may be half arrived at one context from one stream: a sender finishes one message
/// to a handle before it begins the next, so more is a flood.
pub const ASSEMBLIES_MAX: usize = 1024;
/// Bytes of a longer message that are granted at a time beyond one fragment: enough for a fast line
/// there and back; less than a hop may grow by.
pub const ANNOUNCED_WINDOW_BYTES: u64 = 512 * 1024;
/// Bytes that one context has granted of all longer messages, beyond one fragment of each: a slow
/// hop may have all of them. One link is granted half of what others have left at most, and one
/// message a half of that again, so that neither what has stopped nor who lies starves others.
pub const ANNOUNCED_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Bytes of a message of several fragments that a loop sends without a grant, since it may not wait
/// for one: some times the largest recipe of a connect.
pub const UNGRANTED_BYTES_MAX: u64 = MESSAGE_BYTES_MIN;
/// Bytes that travel to one (context, handle) before the first grant.
pub const WINDOW_BYTES: usize = 4 * (FRAGMENT_BYTES + MESSAGE_COST_BYTES);
/// Bytes that one outbox holds before a user's thread waits.
pub const OUTBOX_HIGH_WATER_BYTES: usize = 256 * 1024;
/// Bytes of these that frames of others cannot take, so that what a context has to say itself, its
/// grants and its news of ends, is not lost for what is only forwarded.
pub const OUTBOX_OWN_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that one outbox holds before a frame is answered dead: "does not read".
pub const OUTBOX_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes from which on a buffer is given large pages, of mostly 2 MiB: beside so much one that is
/// not filled costs little.
pub const LARGE_PAGES_BYTES_MIN: usize = 4 << 20;
/// Bytes taken for a message that is encoded, with room for its header: few of the small grow.
pub const SMALL_FRAME_BYTES: usize = 128;
/// Bytes of memory that an outbox keeps once all is written: what many small frames take together.
pub const OUTBOX_KEPT_BYTES: usize = 4096;
/// Frames that come within this time of each other, writing left out, are gathered, so that one
/// write takes many: as they come from who does not wait for an answer to each.
pub const GATHER_GAP: Duration = Duration::from_micros(5);
/// Frames that are written one by one before those that follow are gathered.
pub const GATHER_AFTER: u32 = 2;
/// Frames above this are not gathered: to copy them costs as much as the call that is saved.
pub const GATHER_BYTES_MAX: usize = 1024;
/// Bytes read at once by a loop; one buffer serves all its streams.
pub const READ_BYTES: usize = 128 * 1024;
/// Bytes of one attached stream that wait for its callback, after which it is not read: what one
/// pipe holds.
pub const ATTACHED_BYTES_MAX: usize = 64 * 1024;
/// Bytes that a message counts for beside its payload, so that empty ones are not free.
pub const MESSAGE_COST_BYTES: usize = 64;
/// Reads from a descriptor whose process has ended: more than any socket, pipe or terminal holds,
/// in case somebody else still writes to it.
pub const DRAIN_READS_MAX: usize = 32;
/// Contexts that may hold Senders to one Receiver.
pub const HOLDERS_MAX: usize = ROUTES_PER_CHILD_MAX;
/// Ids that one child of the master may have leased in all its life: one in 256 of all there are,
/// since none is used twice, and a hop may start children for years. Of a hop a quarter of what
/// that may have, as for contexts.
pub const LEASED_IDS_MAX: u64 = 1 << 24;
/// The same, however many hops are between.
pub const LEASED_IDS_MIN: u64 = 1 << 20;
/// Bytes of half-arrived messages of data and control from one link, in units of the largest
/// message.
pub const ASSEMBLED_MESSAGES_MAX: u64 = 4;
/// Bytes that a blocking read takes at once: more than a terminal holds.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// Bytes kept of what a target printed, for its errors.
pub const TAIL_BYTES: usize = 2 * 1024;
/// Bytes of what a failure to connect has of it: of the terminal, and of the standard output.
pub const CONNECT_TAIL_BYTES: usize = 2 * TAIL_BYTES;
/// Bytes of noise before the first marker that a handshake reads before it gives up.
pub const NOISE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one line that a handshake looks at; the rest of a longer one is skipped.
pub const LINE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a context's name.
pub const NAME_BYTES_MAX: usize = 1024;
/// Bytes of a path or of an option's value in an address.
pub const OPTION_BYTES_MAX: usize = 4096;
/// Hops in one address.
pub const HOPS_MAX: usize = 32;
/// Calls of one context that may be unanswered.
pub const PENDING_CALLS_MAX: usize = 64 * 1024;
/// Bytes of calls to one context that may be unanswered, each counted with 16 KiB at most: it keeps
/// them until it runs them.
pub const CALLED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Time after which who has called so much looks whether it is waited for in turn.
pub const CALLED_WAIT: Duration = Duration::from_millis(100);
/// Contexts that may live behind one link of the master, a child's and what is below it; behind one
/// of a hop a quarter of what may live behind the link to that hop, so that one child cannot use up
/// what the others need.
pub const ROUTES_PER_CHILD_MAX: usize = 64 * 1024;
/// The same, however many hops are between.
pub const ROUTES_PER_CHILD_MIN: usize = 1024;
/// Ids that a new child is given at most, so that it can start children without asking; and that it
/// asks for then. Those far from the master ask for fewer at a time: nobody gives back what is
/// left.
pub const LEASE_IDS: u32 = 1024;
/// The least that they ask for.
pub const LEASE_IDS_MIN: u32 = 64;
/// Links of an error's source chain that travel.
pub const ERROR_CHAIN_MAX: usize = 32;
/// Bytes of one text of an error that travel.
pub const ERROR_TEXT_BYTES_MAX: usize = 8 * 1024;
/// Bytes of values of up to 16 KiB from one link that wait in all queues of one context: those of a
/// thousand contexts with full windows. Of larger ones as much, or some of the largest.
pub const LINK_QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Contexts that may have been given authority over another: each message that needs authority is
/// looked up among them.
pub const GRANTS_MAX: usize = 1024;
/// Messages which no context sends that keeps to the rules, after which a child is cut off: of a
/// forged source, malformed, to handles which never were.
pub const BAD_HANDLES_MAX: u32 = 1000;
/// Records of what one link, handler or queue refused: a log is not to be filled by one neighbour.
pub const LOGGED_REFUSALS_MAX: u32 = 100;
/// Connects of one router that are under way at a time, unless the program says otherwise: each
/// takes a process and its descriptors here, and an image's bytes in memory while they are written.
pub const CONNECTS_MAX: usize = 128;
/// Connects of one context that it was asked for, by itself or by others, and that are under way:
/// nobody has more that are unanswered.
pub const ATTEMPTS_MAX: usize = PENDING_CALLS_MAX;
/// Connects of one context to one server that are under way at a time: from 10 on that have not
/// logged in, an sshd turns away new ones (`MaxStartups`, by default 10:30:100).
pub const LOGINS_MAX: usize = 10;
/// Time after which a connect that a busy server turned away is tried again; it doubles each time,
/// and each is shortened by up to half, so that those who came together do not come again so.
pub const RETRY_PAUSE: Duration = Duration::from_millis(400);
/// The longest of those times.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Time for a connection to come up, if the caller names none; the original's.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which ssh asks whether the server is there: a host that has vanished is noticed
/// within a minute, and a line is not kept busy.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Such questions without an answer that end a connection: one lost packet does not.
pub const KEEPALIVE_COUNT: u32 = 3;
/// Intervals of silence after which a connection with a heartbeat is at its end, unless the caller
/// says otherwise: as for ssh, one lost word does not do it.
pub const HEARTBEAT_COUNT: u32 = 3;
/// The shortest of these intervals: a loop may be held up for a moment, and a line carries more
/// than signs of life.
pub const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
/// The longest: a day, after which nobody still waits to be told.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(24 * 3600);
/// The most such intervals.
pub const HEARTBEAT_COUNT_MAX: u32 = 1000;
/// Time that a child which was asked to end has before it is killed; the original's.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
/// Time that the end of a router waits for its loop, which has `SHUTDOWN_GRACE` for it: one that is
/// stuck in a sink of the log, say, does not hold a program up for ever.
pub const END_WAIT: Duration = Duration::from_secs(6);
/// Time beyond that for the news of its end to arrive, before it is cut off: some ways there and
/// back.
pub const SHUTDOWN_TOLD: Duration = Duration::from_millis(500);
/// Time after which nobody waits any more for a context that was asked to end: it was cut off, and
/// that was told.
pub const SHUTDOWN_WAIT: Duration = Duration::from_secs(SHUTDOWN_GRACE.as_secs() + 1);
/// Time that a context which leaves the tree waits for its parent to let it go, and for what it has
/// queued to be sent; the original's.
pub const DETACH_WAIT: Duration = Duration::from_secs(2);
/// Time that a process whose stream has ended has before it is killed.
pub const REAP_GRACE: Duration = Duration::from_millis(500);
/// Time for the kernel to end a process that was killed, when nobody can look again later.
pub const KILL_TIME: Duration = Duration::from_millis(100);
/// Bytes of a container's list of users, and of what a tool says of it: those of thousands.
pub const CONTAINER_FILE_BYTES_MAX: usize = 1024 * 1024;
/// Time between two looks at a process whose end nothing tells us: Linux before 5.3, other systems.
pub const LOOK_AGAIN_MAX: Duration = Duration::from_millis(100);
/// Silence before the first marker after which an empty line is sent, for an rc file that reads.
pub const NUDGE_AFTER: Duration = Duration::from_secs(1);
/// Time for which an unfinished line that looks like a question must stand before it is one: what
/// is printed in two pieces follows sooner.
pub const SETTLE_AFTER: Duration = Duration::from_millis(200);
/// Bytes of a question that is quoted: to those who are asked, and in an error.
pub const QUESTION_BYTES_MAX: usize = 1024;
/// Time for which a loop is left to the next thread that waits: what nobody waits for is late by so
/// much, once; and whoever calls without a pause wakes the broker so seldom.
pub const TURN_NAP: Duration = Duration::from_millis(1);
/// Waits in a row that the broker answers, with nothing for others between, before it lends the
/// loop: so few wake-ups more in the life of a busy caller, and of a seldom one a tenth each.
pub const LEND_AFTER: u32 = 10;
/// Stack bytes of a thread of ours that runs only library code.
pub const BROKER_STACK_BYTES: usize = 256 * 1024;
/// Time after which a callback is named in the log: longer than any that only notes something.
pub const CALLBACK_TIME: Duration = Duration::from_secs(1);
/// Stack bytes of a thread that runs users' code, as a copy's functions: as of a main thread.
pub const COPY_STACK_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of what `ps` shows for an agent: room for it travels in a line that must stay below 4,095.
pub const TITLE_BYTES_MAX: usize = 128;
/// Bytes that an error quotes of a `uname` that we do not know.
pub const UNAME_BYTES_MAX: usize = 200;
/// Bytes of a directory that is chosen for the image; it travels in the same line as the title.
pub const DIRECTORY_BYTES_MAX: usize = 1024;
/// Bytes of a wrapper with its arguments; they travel in the same line, too.
pub const WRAPPER_BYTES_MAX: usize = 1024;
/// Bytes of an image that one message carries, with the few that say of which image: one frame.
pub const IMAGE_PIECE_BYTES: u64 = FRAGMENT_BYTES as u64 - 16;
/// Pieces of one image that are on their way from a parent at a time.
pub const IMAGE_PIECES_MAX: u64 = 16;
/// Bytes of an image that a parent sends, and of the executable that it is made of.
pub const IMAGE_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Bytes of an image's name, as children ask for it.
pub const IMAGE_NAME_BYTES_MAX: usize = 64;
/// Images that one context has made or asked for; of what there is not, as much is remembered.
pub const IMAGES_HELD_MAX: usize = 64;
/// Images that are being made, or are on their way, at a time.
pub const IMAGES_COMING_MAX: usize = 16;
/// Those who wait for one image: connects of this context, and children.
pub const IMAGE_TAKERS_MAX: usize = PENDING_CALLS_MAX;
/// Chains of which a context remembers that a call has failed: a caller forgets a chain soon, and
/// each failure may have hundreds of KiB of text.
pub const CHAINS_MAX: usize = 256;
/// Threads of one context that run functions: each has a stack of `COPY_STACK_BYTES`.
pub const POOL_THREADS_MAX: u32 = 256;
/// Entries of each list in the answer of a context that is inspected: all of it, at its longest, is
/// less than `UNGRANTED_BYTES_MAX`, which its loop may send.
pub const INSPECTED_MAX: usize = 128;
/// Contexts that hold Senders to one Receiver there.
pub const INSPECTED_HOLDERS_MAX: usize = 8;
/// Bytes of a child's name there.
pub const INSPECTED_NAME_BYTES_MAX: usize = 64;
/// Bytes that the answers of all contexts of a tree have at most, as they are asked for shorter
/// lists where there are many: what one outbox holds on their way is some times that.
pub const INSPECTED_TREE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of one entry of each list.
pub const INSPECTED_ENTRY_BYTES: usize = 512;
/// Time in which a context tells of itself to itself.
pub const INSPECT_WAIT: Duration = Duration::from_secs(3);
/// Bytes of one record's text: a longer line is several records; one with all else fits a frame.
pub const LOG_TEXT_BYTES_MAX: usize = 8 * 1024;
/// Bytes of the name of who logs a record, and of what it says happened.
pub const LOG_TARGET_BYTES_MAX: usize = 256;
/// Bytes of one debug file: some hundred thousand records, a part of any disk.
pub const DEBUG_FILE_BYTES_MAX: isize = 64 * 1024 * 1024;
/// Deliveries that a broker remembers as its slowest: what one looks at first.
pub const SLOWEST_MAX: usize = 8;
/// Numbers of one record.
pub const LOG_NUMBERS_MAX: usize = 16;
/// Bytes of this process's own records that wait for the sink; those beyond are dropped, or their
/// threads wait.
pub const LOG_QUEUED_BYTES_MAX: usize = 1024 * 1024;
/// Records that were dropped after which their number is told, even while more are.
pub const LOG_DROPPED_TOLD: u64 = 10_000;
/// Time for which a user's thread waits for room for its record: one that holds what the sink waits
/// for does not wait for ever.
pub const LOG_WAIT: Duration = Duration::from_secs(10);
/// Time that the end of a router gives the contexts below to send what they have logged.
pub const LOG_GATHER_TIME: Duration = Duration::from_secs(1);
/// Contexts that are asked for that at a time: their answers are awaited in one table.
pub const LOG_ASKED_MAX: usize = 1000;
/// Time that the end of a router gives the sink to take all that was logged.
pub const LOG_FLUSH_TIME: Duration = Duration::from_secs(3);
/// Bytes of one encoded record: its texts, its numbers, and what says how long they are.
pub const LOG_RECORD_BYTES_MAX: usize =
    LOG_TEXT_BYTES_MAX + NAME_BYTES_MAX + 2 * LOG_TARGET_BYTES_MAX + 10 * LOG_NUMBERS_MAX + 64;
/// Bytes of an agent's records that wait to be sent, beyond which one of the library is dropped and
/// counted, and a thread of user code that logs waits.
pub const LOG_QUEUE_BYTES: usize = 64 * 1024;
/// Bytes of these beyond which its standard output and error are not read: records have room.
pub const LOG_PRINTED_BYTES: usize = LOG_QUEUE_BYTES / 2;
/// The same where a record is to come behind what was printed before it: more than two full pipes
/// of ordinary lines.
pub const LOG_DRAINED_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one of them behind which nothing is left that was printed before: more than a pipe, and
/// what was read and not cut, is.
pub const LOG_BEHIND_BYTES: usize = 128 * 1024;
/// Bytes that are read from one of them at once.
pub const LOG_READ_BYTES: usize = 4 * 1024;
/// Those who wait until all that was logged before is sent: ancestors, who ask one at a time.
pub const LOG_BARRIERS_MAX: usize = 64;
/// Time that user code's `exit` waits for what was printed to be sent.
pub const EXIT_FLUSH: Duration = Duration::from_millis(500);
/// Time that what was printed and is still in memory has to be written out, where another thread
/// may keep it from that for ever.
pub const STDOUT_WAIT: Duration = Duration::from_millis(500);
/// Milliseconds that a process which aborts leaves its loop to send what that has read.
pub const ABORT_LOOKS_MAX: u32 = 100;
