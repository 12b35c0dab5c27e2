"""The pages of documentation as lists of fenced blocks, and as the programs that they make.

What a block is for stands in a comment above it, `<!-- test: … -->`. For Python:

    (nothing)         a program of its own
    continue          put into the program above, before its last statement, and run again
    beside            a program that runs to its end while the one above runs
    prelude           the imports of all fragments on all pages
    wrap              a fragment: the body of `async with job_processor() as p`
    pytest            a module of tests
    not run: REASON   only compiled

And for text: `prints`, or `prints, in any order`: what the program above prints, where `^C` is a SIGINT.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

__all__ = ("README", "Block", "Program", "blocks", "programs")

README = Path(__file__).parents[2] / "README.md"
_FENCE = re.compile(r"```(\w*)$")
_DIRECTIVE = re.compile(r"<!-- test: (.+) -->$")
_HEADING = re.compile(r"#{1,6} (.+)$")


@dataclass(frozen=True)
class Block:
    """One fenced block. `page` is the path from the root, `line` that of its fence."""

    page: str
    line: int
    heading: str
    language: str
    directive: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}, {self.heading}"

    @property
    def code(self) -> str:
        """The text at the line where it stands, so that a traceback points into the page."""
        return "\n" * self.line + self.text


@dataclass(frozen=True)
class Program:
    """A program on a page, and what the page says that it prints."""

    block: Block
    source: str
    prints: Block | None = None
    beside: str | None = None

    def __str__(self) -> str:
        return str(self.block)

    def continued(self, block: Block) -> Program:
        """Return this program with `block` in it."""
        last = ast.parse(self.source).body[-1].lineno - 1
        lines = self.source.splitlines(keepends=True)
        return Program(block, "".join(lines[:last]) + block.text + "\n" + "".join(lines[last:]))


def blocks(page: str, text: str) -> list[Block]:
    """Return every fenced block of a page, in order."""
    found: list[Block] = []
    heading = directive = ""
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        if fence := _FENCE.match(line):
            found.append(Block(page, number, heading, fence[1], directive, _text_of(lines)))
            directive = ""
        elif note := _DIRECTIVE.match(line):
            directive = note[1]
        elif title := _HEADING.match(line):
            heading = title[1]

    return found


def _text_of(lines: Iterator[tuple[int, str]]) -> str:
    """Return the lines up to the closing fence."""
    return "".join(f"{line}\n" for _, line in takewhile(lambda numbered: numbered[1] != "```", lines))


def programs(found: list[Block]) -> list[Program]:
    """Put the blocks together to programs."""
    made: list[Program] = []
    for block in found:
        match block.language, block.directive:
            case "python", "":
                made.append(Program(block, block.text))
            case "python", "continue":
                made.append(made[-1].continued(block))
            case "python", "beside":
                made[-1] = replace(made[-1], beside=block.text)
            case "text", _:
                made[-1] = replace(made[-1], prints=block)
            case _:
                pass

    return made
