"""Round trips of an empty call, over more hops, and many at once."""
import collections
import os
import statistics
import threading
import time

from common import PYTHON, RUNS, execnet_group, floor, gateway, mitogen_router, row, sample_row
from common import spent, usage
import functions

WINDOW = 256


def timed(pids, count, work):
    """Median in us, all values, wake-ups and processor us per repetition."""
    for _ in range(100):
        work()
    values, now, before = [], time.perf_counter, usage(pids)
    for _ in range(count):
        start = now()
        work()
        values.append((now() - start) * 1e6)
    return statistics.median(values), values, *spent(before, usage(pids), count)


def rows(who, cores, pids, count, work):
    """The rows of one hop; returns its median and that of the floor."""
    name = "one" if cores == "one core" else "free"
    floors = [floor("pingpong", 5000, name)]
    median, values, wakeups, cpu_us = timed(pids, count, work)
    floors.append(floor("pingpong", 5000, name))
    least = {key: statistics.mean(each[key] for each in floors) for key in floors[0]}
    sample_row(f"round trip, {cores}", who, "us", values, [each["p50_us"] for each in floors])
    row(f"wake-ups per call, {cores}", who, "", wakeups, least["wakeups"], n=count)
    row(f"processor time per call, {cores}", who, "us", cpu_us, least["cpu_us"], n=count)
    return median, least["p50_us"]


def original(cores):
    with mitogen_router() as router:
        chain, context = [], None
        for _ in range(4):
            context = router.local(python_path=PYTHON, via=context)
            chain.append((context, context.call(functions.pid)))
        me = os.getpid()
        child = chain[0][0]
        one, least = rows("mitogen-py", cores, [me, chain[0][1]], 3000 * RUNS,
                          lambda: child.call(functions.empty))
        for depth in (2, 4):
            far = chain[depth - 1][0]
            median = timed([], 1000 * RUNS, lambda: far.call(functions.empty))[0]
            row(f"further hop of {depth}, {cores}", "mitogen-py", "us",
                (median - one) / (depth - 1), least, n=1000 * RUNS)


def echo_of_execnet(cores):
    """An open channel that echoes: less than a call, but the nearest that execnet has."""
    with execnet_group() as group:
        child = gateway(group)
        pid = child.remote_exec("import os; channel.send(os.getpid())").receive()
        echo = child.remote_exec("for x in channel: channel.send(x)")
        rows("execnet", cores, [os.getpid(), pid], 3000 * RUNS,
             lambda: (echo.send(1), echo.receive()))


def pipelined(who, start, finish, count):
    flight, begun = collections.deque(), time.perf_counter()
    for _ in range(count):
        if len(flight) == WINDOW:
            finish(flight.popleft())
        flight.append(start())
    while flight:
        finish(flight.popleft())
    rate = count / (time.perf_counter() - begun)
    row("pipelined empty calls, window 256", who, "/s", rate, n=count)


def latches():
    """Two threads that hand one item to and fro."""
    import mitogen.core
    there, back = mitogen.core.Latch(), mitogen.core.Latch()

    def far():
        while there.get():
            back.put(1)
    other = threading.Thread(target=far)
    other.start()
    values = timed([], 2000 * RUNS, lambda: (there.put(1), back.get()))[1]
    there.put(0)
    other.join()
    floors = [floor("sockets", 2000)["p50_us"] for _ in range(3)]
    sample_row("latch round trip, two threads", "mitogen-py", "us", values, floors)


latches()
for cores in ("scheduler free", "one core"):
    if cores == "one core":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})     # children inherit it
    original(cores)
    echo_of_execnet(cores)
    os.sched_setaffinity(0, range(os.cpu_count()))

with mitogen_router() as router:
    child = router.local(python_path=PYTHON)
    child.call(functions.empty)
    pipelined("mitogen-py", lambda: child.call_async(functions.empty),
              lambda call: call.get().unpickle(), 20000 * RUNS)
with execnet_group() as group:
    echo = gateway(group).remote_exec("for x in channel: channel.send(x)")
    pipelined("execnet", lambda: echo.send(1), lambda _: echo.receive(), 20000 * RUNS)
