//! Methods whose tools do not run here: kubectl, lxc of LXD, incus, jexec. Stubs pose as them,
//! which read their arguments as the tools' manuals say, and then run the command here. They show
//! that the words are right, and that a connection works over them; not how the tools behave
//! otherwise.

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind, Exit, Phase};
use mitogen::{Context, Program, Result, Router, stock};

use crate::support::*;

/// What `kubectl exec --help` and `kubectl options` say: options before and behind `exec`, the pod,
/// `--`, the command; without `-i` it has no input.
const KUBECTL: &str = r#"
fail() { echo "$1" >&2; exit 1; }
while :; do case $1 in
    --context) [ "$2" = far ] || fail "error: context \"$2\" does not exist"; shift 2;;
    --namespace|-n) namespace=$2; shift 2;;
    -v) shift 2;;
    exec) shift; break;;
    *) fail "error: unknown flag: $1";;
esac; done
input='' pod='' container=first
while :; do case $1 in
    -i|--stdin) input=yes; shift;;
    -c|--container) container=$2; shift 2;;
    --) shift; break;;
    -*) fail "error: unknown flag: $1";;
    *) [ -z "$pod" ] || fail "error: no separator before $1"; pod=$1; shift;;
esac; done
[ "${namespace-default}/$pod" = shop/web-0 ] ||
    fail "Error from server (NotFound): pods \"$pod\" not found"
[ "$container" = first ] ||
    fail "Error from server (BadRequest): container $container is not valid for pod $pod"
echo 'Defaulted container "first" out of: first, second' >&2
[ "$input" ] || exec </dev/null
MITOGEN_TEST_STUB="$container of $pod" exec "$@"
"#;

/// What the manual pages of `lxc exec` and `incus exec` say: instance, options, `--`, command.
const LXD: &str = r#"
fail() { echo "Error: $1" >&2; exit 1; }
[ "$1" = exec ] || fail "unknown command \"$1\" for \"lxc\""
shift
instance='' mode=auto
while :; do case $1 in
    --mode=auto|--mode=interactive|--mode=non-interactive) mode=${1#*=}; shift;;
    --) shift; break;;
    -*) fail "unknown flag: $1";;
    *) [ -z "$instance" ] || fail "no separator before $1"; instance=$1; shift;;
esac; done
[ "$mode" = non-interactive ] || fail 'a terminal is wanted'
case $instance in
    far:app) ;;
    asleep) fail 'Instance is not running';;
    *) fail 'Instance not found';;
esac
command -v "$1" >/dev/null || { echo 'Error: Command not found' >&2; exit 127; }
MITOGEN_TEST_STUB=$instance exec "$@"
"#;

/// What jexec(8) says: options, a jail, the command.
const JEXEC: &str = r#"
user=root
while getopts lu:U: option; do case $option in
    U) user=$OPTARG;;
    u) user="$OPTARG of the host";;
    l) ;;
    *) exit 1;;
esac; done
shift $((OPTIND - 1))
[ "$1" = www ] || { echo "jexec: jail \"$1\" not found" >&2; exit 1; }
shift
MITOGEN_TEST_STUB=$user exec "$@"
"#;

/// Runs a test with a router, another that is behind a child, and a stub.
#[track_caller]
fn with_stub(text: &str, test: impl FnOnce(&Router, &Context, &str) + Send) {
    leaves_nothing(&[], || {
        let router = Program::new().image(stock_image()).router().unwrap();
        let child = router.local().connect().unwrap();
        let folder = tempfile::tempdir().unwrap();
        test(&router, &child, &script(folder.path(), "stub", text));
        drop((router, child));
        assert_nothing_is_left();
    });
}

/// Checks that a context runs where the stub says.
#[track_caller]
fn assert_stub(router: &Router, context: Result<Context>, says: &str) {
    let context = context.unwrap();
    let argv = ["sh", "-c", "printf %s \"$MITOGEN_TEST_STUB\""].map(Into::into).to_vec();
    let output = router.receiver();
    context.call(stock::run, (stock::Command { argv }, output.to_sender())).unwrap();
    let said = output.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(said, [stock::Output::Stdout(says.as_bytes().to_vec())]);
}

#[track_caller]
fn assert_fails(outcome: Result<Context>, failure: ConnectFailure) -> ConnectError {
    let error = outcome.map(|_| "a context").unwrap_err();
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    assert_eq!((&error.failure, error.phase), (&failure, Phase::Login), "{error}");
    error.clone()
}

#[test]
fn kubectl_reads_our_words_as_we_mean_them() {
    with_stub(KUBECTL, |router, child, stub| {
        let pod = |name| router.kubectl(name).namespace("shop").kubectl_path(stub);
        assert_stub(router, pod("web-0").connect(), "first of web-0");
        let all = pod("web-0").context("far").container("first").kubectl_args(["-v", "1"]);
        assert_stub(router, all.via(child).connect(), "first of web-0");
        let text = format!("local/kubectl:web-0?namespace=shop&kubectl_path={stub}");
        assert_stub(router, router.connect(&text.parse().unwrap()), "first of web-0");

        let error = assert_fails(pod("web-1").connect(), ConnectFailure::NoTarget);
        assert_eq!(error.exit, Some(Exit::Code(1)));
        assert_fails(pod("web-0").container("x").connect(), ConnectFailure::NoTarget);
        assert_fails(pod("web-0").context("x").via(child).connect(), ConnectFailure::NoTarget);
    });
}

#[test]
fn the_clients_of_lxd_and_incus_read_our_words_as_we_mean_them() {
    with_stub(LXD, |router, child, stub| {
        assert_stub(router, router.lxd("far:app").lxc_path(stub).connect(), "far:app");
        assert_stub(
            router,
            router.incus("far:app").incus_path(stub).via(child).connect(),
            "far:app",
        );
        let text = format!("incus:far:app?incus_path={stub}");
        assert_stub(router, router.connect(&text.parse().unwrap()), "far:app");
        let lxd = |name| router.lxd(name).lxc_path(stub).connect();
        assert_fails(lxd("no-such"), ConnectFailure::NoTarget);
        assert_fails(lxd("asleep"), ConnectFailure::NoTarget);
        let folder = tempfile::tempdir().unwrap();
        let bare = script(folder.path(), "bare", &format!("PATH=/nonexistent\n{LXD}"));
        let bare = router.incus("far:app").incus_path(bare).connect();
        assert_fails(bare, ConnectFailure::NoShell);
    });
}

#[test]
fn jexec_reads_our_words_as_we_mean_them() {
    with_stub(JEXEC, |router, child, stub| {
        assert_stub(router, router.jail("www").jexec_path(stub).connect(), "root");
        let deploy = router.jail("www").username("deploy").jexec_path(stub);
        assert_stub(router, deploy.via(child).connect(), "deploy");
        let text = format!("jail:deploy@www?jexec_path={stub}");
        assert_stub(router, router.connect(&text.parse().unwrap()), "deploy");
        assert_fails(router.jail("ftp").jexec_path(stub).connect(), ConnectFailure::NoTarget);
    });
}
