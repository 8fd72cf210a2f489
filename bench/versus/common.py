"""What the scripts share: floors by the Rust bench, statistics, /proc, and the rows they print."""
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time

FLOORS = os.environ["FLOORS"]
PYTHON = sys.executable
RUNS = int(os.environ.get("RUNS", 1))


def floor(*arguments):
    """One floor as the Rust bench measures it: see `play_role` in bench/floors.rs."""
    return json.loads(subprocess.check_output([FLOORS, "--floor", *map(str, arguments)]))


def spawn_ms(*command):
    return floor("spawn", 1, *command)["p50_ms"]


def row(what, who, unit, value, floor=None, **more):
    """Prints one row; `what` names a row of bench/report.rs."""
    line = {"what": what, "who": who, "unit": unit, "value": round(value, 4)}
    if floor is not None:
        line["floor"] = round(floor, 4)
    print(json.dumps({**line, **more}), flush=True)


def sample_row(what, who, unit, values, floors):
    values, floors = sorted(values), sorted(floors)
    row(what, who, unit, statistics.median(values), statistics.median(floors),
        n=len(values), min=round(values[0], 4), p99=round(values[len(values) * 99 // 100], 4),
        floor_min=round(floors[0], 4))


@contextlib.contextmanager
def private_sshd():
    """The bench's own sshd; yields its port, username and key."""
    server = subprocess.Popen([FLOORS, "--floor", "sshd"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    try:
        yield json.loads(server.stdout.readline())
    finally:
        server.stdin.close()
        server.wait()


@contextlib.contextmanager
def mitogen_router():
    """A router of the original and its broker, which ends with all its children."""
    import mitogen.master
    broker = mitogen.master.Broker()
    try:
        yield mitogen.master.Router(broker)
    finally:
        broker.shutdown()
        broker.join()


@contextlib.contextmanager
def execnet_group():
    import execnet
    group = execnet.Group()
    try:
        yield group
    finally:
        group.terminate(5)


def gateway(group):
    """A local child of execnet's."""
    return group.makegateway("popen//python=" + PYTHON)


def usage(pids, without=None):
    """(voluntary switches, processor seconds) of the live threads of `pids`."""
    time.sleep(0.001)       # the kernel brings a thread's time up to date when it goes to sleep
    switches = seconds = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            if int(thread) == without:
                continue
            task = f"/proc/{pid}/task/{thread}/"
            with open(task + "status") as file:
                switches += sum(int(line.split()[1]) for line in file
                                if line.startswith("voluntary"))
            with open(task + "schedstat") as file:
                seconds += int(file.read().split()[0]) / 1e9
    return switches, seconds


def spent(before, after, count):
    """(wake-ups, processor microseconds) per repetition; the nap of `usage` left out."""
    return (after[0] - before[0] - 1) / count, (after[1] - before[1]) / count * 1e6


def cpu_with_children():
    """Processor seconds of this process and of the children that it has waited for."""
    kinds = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(kind.ru_utime + kind.ru_stime for kind in kinds)


def proc_kib(pid, file, field):
    """A number in KiB out of a file of /proc."""
    with open(f"/proc/{pid}/{file}") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))
