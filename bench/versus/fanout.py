"""Processor time of parent and children per context, when COUNT of them live at once."""
import os

from common import PYTHON, RUNS, cpu_with_children, execnet_group, floor, gateway, mitogen_router
from common import row, usage
import functions

COUNT = int(os.environ.get("COUNT", 40 * RUNS))


def fan_out(who, connect):
    least = floor("spawn", 50, "/bin/true")["cpu_ms"]
    before = cpu_with_children()
    pids = [connect() for _ in range(COUNT)]
    parent = cpu_with_children() - before
    each_ms = (parent + usage(pids)[1]) / COUNT * 1e3
    row("processor time per context of a fan-out", who, "ms", each_ms, least, n=COUNT)


with mitogen_router() as router:
    # The first context of a process also minifies what is sent to all of them.
    router.local(python_path=PYTHON).call(functions.pid)
    fan_out("mitogen-py", lambda: router.local(python_path=PYTHON).call(functions.pid))
with execnet_group() as group:
    source = "import os; channel.send(os.getpid())"
    fan_out("execnet", lambda: gateway(group).remote_exec(source).receive())
