//! The least that each measured thing could cost on this machine, with nothing of ours in it.
//! Two processes are needed for most: the second is this program in another role.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use std::{env, process, thread};

use crate::measure::{self, Outcome, Pinned, Samples, Track};
use crate::sshd::Sshd;

/// What a ping and a pong carry: about as much as an empty call.
const PING_BYTES: usize = 64;

/// The block in which bulk data is sent, here and in our rows.
pub const BLOCK_BYTES: usize = 128 << 10;

/// The least program there is.
pub const TRUE: [&str; 1] = ["/bin/true"];
/// The same under sudo, to root, without a password.
pub const SUDO_TRUE: [&str; 3] = ["sudo", "-n", "true"];

/// Starts `command` and waits for it, which must succeed. Descriptors are inherited, so that std
/// takes `posix_spawn` and nothing is opened.
pub fn spawn_and_wait(command: &[&str]) -> Outcome<()> {
    let status = Command::new(command[0]).args(&command[1..]).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// Processor time of starting `command` and waiting for it, in milliseconds, both processes.
pub fn spawn_cpu_ms(count: usize, command: &[&str]) -> Outcome<f64> {
    let before = measure::cpu_with_children_ms();
    for _ in 0..count {
        spawn_and_wait(command)?;
    }
    Ok((measure::cpu_with_children_ms() - before) / count as f64)
}

/// This program in another role, at the other end of a socket pair. Ends when dropped.
struct Peer {
    socket: UnixStream,
    child: Child,
}

impl Peer {
    fn start(role: &[&str]) -> Outcome<Peer> {
        let (socket, far) = UnixStream::pair()?;
        let child = Command::new(env::current_exe()?)
            .arg("--floor")
            .args(role)
            .stdin(OwnedFd::from(far))
            .spawn()?;
        Ok(Peer { socket, child })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        let _ = self.child.wait();
    }
}

/// A process that sends back whatever it is sent: the floor of a round trip.
pub struct Echo(Peer);

impl Echo {
    /// Starts it and plays until both ends are warm.
    pub fn start() -> Outcome<Echo> {
        let mut echo = Echo(Peer::start(&["echo"])?);
        for _ in 0..100 {
            echo.ping()?;
        }
        Ok(echo)
    }

    /// One round trip.
    pub fn ping(&mut self) -> Outcome<()> {
        let mut block = [0; PING_BYTES];
        self.0.socket.write_all(&block)?;
        Ok(self.0.socket.read_exact(&mut block)?)
    }

    /// Both ends: this process and the other.
    pub fn pids(&self) -> [u32; 2] {
        [process::id(), self.0.child.id()]
    }
}

/// Median of one byte to another thread and back, in microseconds.
pub fn sockets_us(turns: usize) -> Outcome<f64> {
    let (mut near, mut far) = UnixStream::pair()?;
    let other = thread::spawn(move || {
        let mut byte = [0];
        while far.read_exact(&mut byte).is_ok() && far.write_all(&byte).is_ok() {}
    });
    let (mut each, mut byte) = (Track::default(), [0]);
    each.block(&[], turns, || {
        near.write_all(&byte)?;
        Ok(near.read_exact(&mut byte)?)
    })?;
    drop(near);
    other.join().map_err(|_| "the other thread panicked")?;
    Ok(each.samples_us.median())
}

/// Bytes over a bare socket pair, child to parent, in blocks: MB/s (10^6 bytes).
pub fn bulk_mb_per_s(mib: usize) -> Outcome<f64> {
    let mut peer = Peer::start(&["pour", &mib.to_string()])?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut left = mib << 20;
    // The child says when it runs: its start is no part of the copying.
    peer.socket.read_exact(&mut block[..1])?;
    let start = Instant::now();
    peer.socket.write_all(&[0])?;
    while 0 < left {
        match peer.socket.read(&mut block)? {
            0 => return Err("the pouring end stopped early".into()),
            count => left -= count.min(left),
        }
    }
    Ok((mib << 20) as f64 / 1e6 / start.elapsed().as_secs_f64())
}

/// Plays the role that the command line asks for, if it does; then there is nothing else to do.
///
/// `echo` and `pour` are the far ends of the floors; the others print a floor as one JSON object,
/// for the scripts that measure other programs beside the same floors.
pub fn play_role(arguments: &[&str]) -> Option<Outcome<()>> {
    Some(match arguments {
        ["--floor", "echo"] => echo(),
        ["--floor", "pour", mib] => pour(mib),
        ["--floor", "bulk", mib] => print_bulk(mib),
        ["--floor", "pingpong", count, cores] => print_pingpong(count, cores),
        ["--floor", "sockets", count] => print_sockets(count),
        ["--floor", "spawn", count, command @ ..] => print_spawn(count, command),
        ["--floor", "sshd"] => serve_ssh(),
        _ => return None,
    })
}

fn far_end() -> Outcome<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

fn echo() -> Outcome<()> {
    let mut socket = far_end()?;
    let mut block = [0; PING_BYTES];
    while socket.read_exact(&mut block).is_ok() {
        socket.write_all(&block)?;
    }
    Ok(())
}

fn pour(mib: &str) -> Outcome<()> {
    let mut socket = far_end()?;
    let block = random_bytes(BLOCK_BYTES);
    socket.write_all(&[0])?;
    socket.read_exact(&mut [0])?;
    for _ in 0..(mib.parse::<usize>()? << 20) / BLOCK_BYTES {
        socket.write_all(&block)?;
    }
    Ok(())
}

fn print_bulk(mib: &str) -> Outcome<()> {
    println!("{{\"mb_per_s\": {:.1}}}", bulk_mb_per_s(mib.parse()?)?);
    Ok(())
}

fn print_pingpong(count: &str, cores: &str) -> Outcome<()> {
    let mut echo = Echo::start()?;
    let pids = echo.pids();
    let _pinned = if cores == "one" { Some(Pinned::new(&pids)?) } else { None };
    let mut track = Track::default();
    track.block(&pids, count.parse()?, || echo.ping())?;
    let p50 = track.samples_us.median();
    let (wakeups, cpu) = (track.wakeups(), track.cpu_us());
    println!("{{\"p50_us\": {p50:.3}, \"wakeups\": {wakeups:.3}, \"cpu_us\": {cpu:.3}}}");
    Ok(())
}

fn print_sockets(count: &str) -> Outcome<()> {
    println!("{{\"p50_us\": {:.3}}}", sockets_us(count.parse()?)?);
    Ok(())
}

fn print_spawn(count: &str, command: &[&str]) -> Outcome<()> {
    let mut samples = Samples::default();
    let count = count.parse()?;
    let cpu_ms = spawn_cpu_ms(count, command)?;
    for _ in 0..count {
        samples.time_ms(|| spawn_and_wait(command))?;
    }
    println!("{{\"p50_ms\": {:.4}, \"cpu_ms\": {cpu_ms:.4}}}", samples.median());
    Ok(())
}

/// A private sshd until the end of standard input.
fn serve_ssh() -> Outcome<()> {
    let sshd = Sshd::start()?;
    println!("{}", sshd.to_json());
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Bytes that no compression shrinks, by xorshift; the same every time.
pub fn random_bytes(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}
