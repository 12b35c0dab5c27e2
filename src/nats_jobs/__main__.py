"""`python -m nats_jobs` is `nats-jobs`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
