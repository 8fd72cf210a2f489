//! Every failure can be shown, says something of its own, and shows nothing that a terminal obeys.

use super::*;

/// What a hostile process would like to see on a terminal.
const HOSTILE: &str = "x\u{1b}[31m\r\u{7}\u{202e}y";

fn hostile() -> String {
    HOSTILE.to_owned()
}

fn death() -> Death {
    let (context, seen_by) = (Some(ContextId(7)), Some(ContextId(3)));
    let (cause, exit) = (Cause::Exited, Some(Exit::Signal(9)));
    Death { cause, context, seen_by, exit, tail: hostile() }
}

/// The failure behind this one; a new one does not compile until it has its place.
fn next(failure: Option<&ConnectFailure>) -> Option<ConnectFailure> {
    use ConnectFailure::*;
    let Some(failure) = failure else { return Some(Timeout) };
    Some(match failure {
        Timeout => Spawn(2),
        Spawn(_) => NoTool(hostile()),
        NoTool(_) => Ended,
        Ended => PasswordRequired,
        PasswordRequired => PasswordWrong,
        PasswordWrong => UnknownPrompt(hostile()),
        UnknownPrompt(_) => Denied,
        Denied => HostKey,
        HostKey => HostKeyChanged,
        HostKeyChanged => HostUnknown,
        HostUnknown => ConnectionRefused,
        ConnectionRefused => Unreachable,
        Unreachable => Busy,
        Busy => NoTarget,
        NoTarget => NotEntered,
        NotEntered => NoShell,
        NoShell => NoTerminal,
        NoTerminal => TargetUnknown(hostile()),
        TargetUnknown(_) => NoImage { target: hostile(), available: hostile() },
        NoImage { .. } => ImageUnusable(hostile()),
        ImageUnusable(_) => NoDirectory(hostile()),
        NoDirectory(_) => ImageDoesNotRun,
        ImageDoesNotRun => ImageDamaged,
        ImageDamaged => InputEnded,
        InputEnded => Version { ours: 1, theirs: 2 },
        Version { .. } => Protocol(HOSTILE.into()),
        Protocol(_) => Cancelled,
        Cancelled => ViaGone(death()),
        ViaGone(_) => ForkForbidden,
        ForkForbidden => BadOption(hostile()),
        BadOption(_) => return None,
    })
}

fn connect_failures() -> Vec<ConnectFailure> {
    let mut all: Vec<ConnectFailure> = Vec::new();
    while let Some(failure) = next(all.last()) {
        all.push(failure);
    }
    all
}

#[track_caller]
fn assert_harmless(text: &str) {
    assert!(!text.is_empty() && !text.ends_with('.'), "{text:?}");
    let harmful = |c: char| c != '\n' && crate::trace::is_harmful(c);
    assert!(!text.contains(harmful), "{text:?}");
}

#[test]
fn every_failed_connect_says_its_own_and_harmless_words() {
    let failures = connect_failures();
    let mut texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
    texts.iter().for_each(|text| assert_harmless(text));
    assert!(texts.iter().all(|text| text != "failed"));
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), failures.len());
}

#[test]
fn a_failed_connect_names_hop_phase_exit_and_what_was_said() {
    for failure in connect_failures() {
        let words = failure.to_string();
        let (hop, tail) = (["ssh:", HOSTILE].concat(), hostile());
        let (phase, exit) = (Phase::Login, Some(Exit::Code(255)));
        let error = Error::from(ConnectError { failure, phase, hop, exit, typed: true, tail });
        let text = error.to_string();
        assert_harmless(&text);
        let said = format!("{words} (exit status 255); it said:\nx");
        let head = text.find(&said).unwrap_or_else(|| panic!("{text}"));
        assert!(text[..head].starts_with("ssh:x") && text[..head].ends_with(": "), "{text}");
        assert!(text[..head].contains("while logging in"), "{text}");
        assert_eq!(format!("{error:?}"), text);
    }
}

#[test]
fn every_other_error_is_harmless_too() {
    let call = |failure| ErrorKind::Call(CallError { function: hostile(), failure });
    let chain = vec![hostile(), hostile()];
    let (address, why) = (hostile(), hostile());
    for kind in [
        ErrorKind::Timeout,
        ErrorKind::Interrupted,
        ErrorKind::Closed(death()),
        ErrorKind::TooLarge { bytes: 2, bytes_max: 1 },
        ErrorKind::Malformed("a header"),
        ErrorKind::Usage("call it so".to_owned()),
        ErrorKind::Address(AddressError { address, at: 3, why }),
        ErrorKind::System { doing: "reading", errno: 5 },
        call(CallFailure::Error { type_name: hostile(), chain }),
        call(CallFailure::Panic(hostile())),
        call(CallFailure::Unknown),
        call(CallFailure::Signature { there: hostile(), here: hostile() }),
        call(CallFailure::Arguments(hostile())),
    ] {
        assert_harmless(&Error::new(kind).to_string());
    }
}
