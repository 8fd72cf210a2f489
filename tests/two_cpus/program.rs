//! A program for a tree of several CPUs: checks that values mean the same on all of them, and that
//! calls and streams cross it. `two_cpus IMAGES CLIENT...`: each client poses as ssh, and leads to
//! the next context below the last.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use mitogen::{CallContext, Context, Image, Program, Result, Sender, stock};

mitogen::value! {
    /// One of everything whose size or order a CPU has a say in.
    #[derive(Clone, Debug, PartialEq)]
    struct Everything {
        bytes: (u8, i8, u16, i16, u32, i32),
        wide: (u64, i64, u128, i128),
        sizes: Vec<usize>,
        offsets: Vec<isize>,
        floats: (f32, f64),
        text: (char, String, PathBuf, Option<Box<String>>),
        lists: (Vec<u8>, Vec<u16>, [i64; 3], BTreeMap<String, u32>),
        time: Duration,
        outcome: Result<bool, String>,
        kind: Kind,
    }

    #[derive(Clone, Debug, PartialEq)]
    enum Kind { Nothing, Line(String), Pair { first: u64, second: f64 } }
}

/// The same on every CPU, if the language is.
fn samples() -> Vec<Everything> {
    let kinds = [
        Kind::Nothing,
        Kind::Line("é\0\u{10ffff}".to_owned()),
        Kind::Pair { first: u64::MAX - 1, second: f64::MIN_POSITIVE },
    ];
    kinds.into_iter().zip([0, 1, u32::MAX]).map(|(kind, number)| sample(kind, number)).collect()
}

fn sample(kind: Kind, number: u32) -> Everything {
    let wide = u64::from(number) << 31 | 0x0123_4567;
    Everything {
        bytes: (number as u8, number as i8, number as u16, i16::MIN, number, i32::MIN),
        wide: (wide, i64::MIN + 1, u128::MAX - u128::from(wide), i128::MIN),
        sizes: vec![0, 127, 128, 0x1234_5678, number as usize],
        offsets: vec![0, -1, -64, 64, 0x1234_5678, i32::MIN as isize],
        floats: (number as f32 / 3.0, -(wide as f64) / 7.0),
        text: (
            '\u{10000}',
            "日本".to_owned(),
            PathBuf::from("/a b"),
            Some(Box::new("boxed".to_owned())),
        ),
        lists: (
            (0..=255).collect(),
            vec![0, 1, 0x1234, u16::MAX],
            [i64::MIN, 0, i64::MAX],
            (0..40).map(|n| (format!("key {n}"), n * 0x0101_0101)).collect(),
        ),
        time: Duration::new(u64::from(number) << 8, 999_999_999),
        outcome: if number == 0 { Ok(true) } else { Err("no".to_owned()) },
        kind,
    }
}

/// Whether they mean there what they mean here; and the same, made there.
fn understood(values: Vec<Everything>) -> (bool, Vec<Everything>) {
    (values == samples(), samples())
}

/// Bytes whose order shows, for sizes that take several messages.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n * 31 + n / 251) as u8).collect()
}

/// The CPU of each context from here down a chain; each asks the next.
fn cpus(cx: &CallContext, mut below: Vec<Context>) -> Result<Vec<String>> {
    let own = format!("{} for {}", std::env::consts::ARCH, cx.caller_id());
    if below.is_empty() {
        return Ok(vec![own]);
    }
    let next = below.remove(0);
    let mut all = vec![own];
    all.extend(next.call(cpus, below)?);
    Ok(all)
}

/// Sends a pattern of each of these sizes, as a stream.
fn stream(sizes: Vec<usize>, out: Sender<Vec<u8>>) -> Result<()> {
    sizes.into_iter().try_for_each(|size| out.send(pattern(size)))
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let images = args.next().filter(|name| !name.starts_with("mitogen-agent-"));
    let images = images.map_or(Ok(Vec::new()), Image::directory)?;
    let program = Program::new().function(understood).function(cpus).function(stream);
    program.images(images).run(|router| {
        let mut chain: Vec<Context> = Vec::new();
        for client in args {
            let hop = router.ssh("next").ssh_path(client).connect_timeout(Duration::from_secs(60));
            let hop = if let Some(last) = chain.last() { hop.via(last) } else { hop };
            chain.push(hop.connect()?);
        }
        // Started from its own image, by a context that may have another CPU than we.
        let twin = router.local().via(&chain[0]).connect()?;
        println!("twin: {}", twin.call(stock::identify, ())?.cpu);
        chain.iter().chain([&twin]).try_for_each(check)?;
        let all = chain[0].call(cpus, chain[1..].to_vec())?;
        println!("chain: {}", all.join(", "));
        Ok(())
    })
}

/// Values and streams to a context and back.
fn check(context: &Context) -> Result<()> {
    let (same_there, made_there) = context.call(understood, samples())?;
    assert!(same_there, "{} reads other values than were sent", context.name());
    assert_eq!(made_there, samples(), "{}", context.name());

    let sizes = vec![0, 1, 127, 128, 16_384, 16_385, 300_000];
    let receiver = context.router().receiver::<Vec<u8>>();
    context.call_no_reply(stream, (&sizes, receiver.to_sender()))?;
    let came = receiver.into_iter().collect::<Result<Vec<_>>>()?;
    assert_eq!(came, sizes.iter().map(|size| pattern(*size)).collect::<Vec<_>>());
    println!("checked: {}", context.name());
    Ok(())
}
