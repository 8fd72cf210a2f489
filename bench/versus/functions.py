"""Functions that run in the original's children."""
import os

value = None


def empty():
    pass


def pid():
    return os.getpid()


def pour(sender, count, size):
    """Random bytes the way its own documentation sends them: as a pickled Blob."""
    import mitogen.core
    block = mitogen.core.Blob(os.urandom(size))
    for _ in range(count):
        sender.send(block)
    sender.close()


def make_value(size):
    global value
    import mitogen.core
    value = mitogen.core.Blob(os.urandom(size))


def take_value():
    return value
