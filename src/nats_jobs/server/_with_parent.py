"""Run as a script: become the program in `argv[2:]`, which Linux kills when the process `argv[1]` ends.

A server must not outlive a caller that was killed. The wish has to be uttered by the child itself, before it
becomes the server; doing that in a forked copy of the caller (`preexec_fn`) can deadlock when the caller has threads.
The process keeps its pid.
"""

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    except (ImportError, OSError, AttributeError):
        pass  # a Python without ctypes: the server runs, only without this safety net


if __name__ == "__main__":
    _end_with_parent()
    # The caller may have ended before the wish was uttered; then nobody would fulfil it.
    if os.getppid() == int(sys.argv[1]):
        os.execv(sys.argv[2], sys.argv[2:])
