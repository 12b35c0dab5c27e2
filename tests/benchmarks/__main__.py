"""`python tests/benchmarks`, or `python -m benchmarks` in the directory `tests`."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    # Run by its path: then Python looks for modules here, and not where this package is.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.run import main

if __name__ == "__main__":
    sys.exit(main())
