"""Random bytes from child to parent: many blocks through one Sender, and one value."""
import os
import threading
import time

from common import PYTHON, RUNS, execnet_group, floor, gateway, mitogen_router, proc_kib, row
from common import sample_row
import functions

BLOCK = 128 << 10
MIB = int(os.environ.get("MIB", 512))
VALUE_MIB = 64
BULK, VALUE, PEAK = ("bulk through one Sender", "one 64 MiB value",
                     "peak memory of a child after the bulk")


def in_turn(what, who, mib, rounds, subject):
    """`subject` receives `mib` MiB and returns how many bytes came in how many seconds."""
    floors, values = [], []
    for _ in range(rounds * RUNS):
        floors.extend(floor("bulk", mib)["mb_per_s"] for _ in range(3))
        got, seconds = subject()
        assert got == mib << 20, got
        values.append(got / 1e6 / seconds)
    sample_row(what, who, "MB/s", values, floors)


def clock(work):
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def original(router):
    import mitogen.core
    child = router.local(python_path=PYTHON)
    pid = child.call(functions.pid)
    before = proc_kib(pid, "status", "VmHWM")

    def pour():
        receiver = mitogen.core.Receiver(router)
        call = child.call_async(functions.pour, receiver.to_sender(), (MIB << 20) // BLOCK, BLOCK)
        got = sum(len(message.unpickle()) for message in receiver)
        call.get().unpickle()
        return got

    def value():
        child.call(functions.make_value, VALUE_MIB << 20)
        return clock(lambda: len(child.call(functions.take_value)))

    in_turn(BULK, "mitogen-py", MIB, 1, lambda: clock(pour))
    row(PEAK, "mitogen-py", "KiB", proc_kib(pid, "status", "VmHWM"), before, mib=MIB)
    in_turn(VALUE, "mitogen-py", VALUE_MIB, 2, value)


def beside(router):
    """A small call to a child while another child of the same hop sends as fast as it can."""
    import mitogen.core
    hop = router.local(python_path=PYTHON)
    quiet, loud = (router.local(python_path=PYTHON, via=hop) for _ in range(2))

    def call_us():
        values = []
        for _ in range(200 * RUNS):
            start = time.perf_counter()
            quiet.call(functions.empty)
            values.append((time.perf_counter() - start) * 1e6)
        return values

    idle = call_us()
    receiver = mitogen.core.Receiver(router)
    call = loud.call_async(functions.pour, receiver.to_sender(), 1000, BLOCK)
    reader = threading.Thread(target=lambda: [message.unpickle() for message in receiver])
    reader.start()
    time.sleep(0.3)
    sample_row("small call beside a full-speed bulk", "mitogen-py", "us", call_us(), idle)
    reader.join()
    call.get().unpickle()


def execnet_rows(group):
    child = gateway(group)
    pid = child.remote_exec("import os; channel.send(os.getpid())").receive()
    before = proc_kib(pid, "status", "VmHWM")
    # The blocks are made before the clock runs: the child waits to be told.
    source = ("import os\nblock = os.urandom(%d)\nchannel.send(b'')\nchannel.receive()\n"
              "for _ in range(%d): channel.send(block)")

    def pour(size, count):
        channel = child.remote_exec(source % (size, count))
        channel.receive()

        def drain():
            channel.send(1)
            return sum(map(len, channel))
        return clock(drain)

    in_turn(BULK, "execnet", MIB, 2, lambda: pour(BLOCK, (MIB << 20) // BLOCK))
    row(PEAK, "execnet", "KiB", proc_kib(pid, "status", "VmHWM"), before, mib=MIB)
    in_turn(VALUE, "execnet", VALUE_MIB, 2, lambda: pour(VALUE_MIB << 20, 1))


with mitogen_router() as router:
    original(router)
    beside(router)
with execnet_group() as group:
    execnet_rows(group)
