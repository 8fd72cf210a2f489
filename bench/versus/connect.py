"""Connect and first call: local, ssh, sudo; each next to its floor, one sample of each in turn."""
import sys
import time

from common import PYTHON, RUNS, gateway, mitogen_router, private_sshd
from common import sample_row, spawn_ms
import functions


def in_turn(what, who, rounds, floor_ms, subject):
    """`subject` connects, calls, and returns what shuts it down, which is not timed."""
    floors, values = [], []
    for i in range(rounds * RUNS + 1):
        floors.append(floor_ms())
        start = time.perf_counter()
        end = subject()
        values.append((time.perf_counter() - start) * 1e3)
        end()
    sample_row(what, who, "ms", values[1:], floors[1:])     # the first of a process warms up


def called(context):
    context.call(functions.empty)
    return lambda: context.shutdown(wait=True)


def asked(make):
    """execnet's gateways live in groups; one group each, so that it can be ended."""
    import execnet
    group = execnet.Group()
    make(group).remote_exec("channel.send(1)").receive()
    return lambda: group.terminate(5)


def local(router):
    what = "local connect and first call"
    true = lambda: spawn_ms("/bin/true")
    in_turn(what, "mitogen-py", 12, true, lambda: called(router.local(python_path=PYTHON)))
    in_turn(what, "execnet", 12, true, lambda: asked(gateway))


def ssh(router, server):
    what = "ssh connect and first call"
    quiet = {"BatchMode": "yes", "IdentitiesOnly": "yes", "LogLevel": "ERROR",
             "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null",
             "GlobalKnownHostsFile": "/dev/null", "ControlMaster": "no"}
    options = [word for pair in quiet.items() for word in ("-o", "%s=%s" % pair)]
    options += ["-p", str(server["port"]), "-i", server["key"], "-l", server["username"]]
    true = lambda: spawn_ms("ssh", *options, "127.0.0.1", "true")
    in_turn(what, "mitogen-py", 4, true, lambda: called(router.ssh(
        hostname="127.0.0.1", port=server["port"], username=server["username"],
        identity_file=server["key"], check_host_keys="ignore", python_path=PYTHON)))
    in_turn(what, "execnet", 4, true, lambda: asked(lambda group: group.makegateway(
        "ssh=" + " ".join(options) + " 127.0.0.1//python=" + PYTHON)))


def sudo(router):
    in_turn("sudo connect and first call", "mitogen-py", 8, lambda: spawn_ms("sudo", "-n", "true"),
            lambda: called(router.sudo(username="root", python_path=PYTHON)))


def attempt(rows, *arguments):
    """What this machine lacks costs its own rows only."""
    try:
        rows(*arguments)
    except Exception as error:
        print("versus: not measured: %s: %s" % (rows.__name__, error), file=sys.stderr)


with mitogen_router() as router:
    attempt(local, router)
    attempt(sudo, router)
    with private_sshd() as server:
        attempt(ssh, router, server)
