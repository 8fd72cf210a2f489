"""Memory and wake-ups of children with nothing to do; this thread sleeps and is not counted."""
import os
import time

from common import PYTHON, execnet_group, gateway, mitogen_router, proc_kib, row, usage
import functions

SECONDS = float(os.environ.get("SECONDS", 5))


def watch(who, pids):
    time.sleep(1)
    row("memory of one idle child, PSS", who, "KiB", proc_kib(pids[0], "smaps_rollup", "Pss"))
    me = os.getpid()
    before = usage([me, *pids], without=me)
    time.sleep(SECONDS)
    after = usage([me, *pids], without=me)
    row("wake-ups of an idle tree", who, "", after[0] - before[0], 0, seconds=SECONDS)


with mitogen_router() as router:
    first = router.local(python_path=PYTHON)
    second = router.local(python_path=PYTHON)
    third = router.local(python_path=PYTHON, via=second)
    watch("mitogen-py", [context.call(functions.pid) for context in (first, second, third)])
with execnet_group() as group:
    children = [gateway(group) for _ in range(3)]
    source = "import os; channel.send(os.getpid())"
    watch("execnet", [child.remote_exec(source).receive() for child in children])
