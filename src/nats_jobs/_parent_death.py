"""A child process that does not outlive its parent, however that ends. On Linux; elsewhere nothing happens.

Run as a script: become the program in `argv[2:]`, which is killed when the process `argv[1]` ends. The wish
has to be uttered by the child itself, before it becomes the program; doing that in a forked copy of the
caller (`preexec_fn`) can deadlock when the caller has threads. The process keeps its pid.
"""

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, number: int) -> bool:
    """Let this process get the signal `number` when its parent ends; return whether that is still `parent`."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    except (ImportError, OSError, AttributeError):
        pass  # no ctypes, or no Linux: it runs, only without this safety net

    # The parent may have ended before the wish was uttered; then nobody would fulfil it.
    return os.getppid() == parent


if __name__ == "__main__" and end_with_parent(int(sys.argv[1]), int(signal.SIGKILL)):
    os.execv(sys.argv[2], sys.argv[2:])
