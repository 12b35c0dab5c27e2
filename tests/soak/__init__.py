"""A long run of one worker: its memory stays flat, and nothing else of it grows."""
