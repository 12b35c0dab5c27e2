"""`run_in="process"`: what comes out of a job's process is facts, and it lives no longer than its worker."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from nats_jobs import JobDef, job_processor
from nats_jobs.errors import ProcessDied, ProcessNotStarted, RemoteError, UsageError
from nats_jobs.events import Complete, DeadLettered, Error, Interrupted
from support import in_process
from support.jobs import Seen, in_stream, until, until_empty

pytestmark = pytest.mark.anyio


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


ENDS = {
    "odd": (RemoteError, "OddError", "503: the bank is closed"),
    "group": (RemoteError, "ExceptionGroup", "one; two"),
    "sys.exit": (RemoteError, "SystemExit", "3"),
    "interrupt": (RemoteError, "KeyboardInterrupt", ""),
    "os._exit": (ProcessDied, "ProcessDied", "exit code 3"),
    "killed": (ProcessDied, "ProcessDied", "SIGKILL; has the system run out of memory"),
    "garbage": (ProcessDied, "ProcessDied", "is malformed"),
    "coroutine": (RemoteError, "HandlerReturned", "an awaitable"),
    "generator": (RemoteError, "HandlerReturned", "a generator"),
    "async generator": (RemoteError, "HandlerReturned", "an async generator"),
    "future": (RemoteError, "HandlerReturned", "a future"),
}


async def test_however_a_function_ends_event_and_dead_letter_tell_it(url: str, name: str) -> None:
    seen = Seen()
    defn = JobDef[str](
        stream=name, perform=in_process.end_as_told, run_in="process", num_attempts=1, concurrency=2
    )
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        sent = await p.enqueue_many(defn, list(ENDS))
        await until_empty(p.js, name)
        kinds = {ack.sequence: kind for ack, kind in zip(sent, ENDS, strict=True)}
        errors = {kinds[event.sequence]: event.error for event in seen.of(Error)}
        letters = {letter.payload(): letter async for letter in p.dead_letters.browse(stream=name)}
        await p.stop()

    assert set(errors) == set(letters) == set(ENDS)
    for kind, (type_, type_name, text) in ENDS.items():
        error, letter = errors[kind], letters[kind]
        assert type(error) is type_
        assert (letter.reason, letter.error_type) == ("exhausted", type_name)
        assert text in str(error)
        assert text in letter.error
        if isinstance(error, RemoteError):
            assert "in_process.py" in error.traceback or kind in (
                "coroutine",
                "generator",
                "async generator",
                "future",
            )


async def test_what_a_function_asks_for_in_a_process_is_done(url: str, name: str) -> None:
    seen = Seen()
    defn = JobDef[str](stream=name, perform=in_process.end_as_told, run_in="process", num_attempts=2)
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue_many(defn, ["retry", "snooze", "reject", "rejected in a group"])
        await until_empty(p.js, name)
        await p.stop()

    assert sorted(event.reason for event in seen.of(Interrupted)) == ["retry", "snoozed"]
    assert [(event.reason, event.error) for event in seen.of(DeadLettered)] == [("rejected", "never")] * 2
    assert len(seen.of(Complete)) == 2


async def test_a_process_is_used_again_and_ends_with_its_worker(url: str, name: str, tmp_path: Path) -> None:
    defn = JobDef[str](stream=name, perform=in_process.note_pid, run_in="process")
    async with job_processor(url) as p:
        await p.start(defn)
        files = [tmp_path / str(number) for number in range(3)]
        await p.enqueue_many(defn, [str(file) for file in files])
        await until_empty(p.js, name)
        (pid,) = {int(file.read_text().split()[0]) for file in files}
        assert alive(pid)
        await p.stop()
        assert not alive(pid)


async def test_a_process_that_dies_while_it_is_idle_is_no_failure_of_the_next_job(
    url: str, name: str, tmp_path: Path
) -> None:
    seen = Seen()
    defn = JobDef[str](stream=name, perform=in_process.note_pid, run_in="process", num_attempts=1)
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue(defn, str(tmp_path / "1"))
        await until_empty(p.js, name)
        os.kill(int((tmp_path / "1").read_text().split()[0]), signal.SIGKILL)
        await p.enqueue(defn, str(tmp_path / "2"))
        await until_empty(p.js, name)
        await p.stop()

    assert not seen.of(Error)
    assert len(seen.of(Complete)) == 2


async def test_a_process_that_cannot_end_by_itself_is_killed_with_its_worker(
    url: str, name: str, tmp_path: Path
) -> None:
    defn = JobDef[str](stream=name, perform=in_process.leave_a_thread, run_in="process")
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, str(tmp_path / "pid"))
        await until_empty(p.js, name)
        await p.stop()
        assert not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_all_processes_of_a_unit_is_a_stop_with_grace(
    url: str, name: str, tmp_path: Path, number: signal.Signals
) -> None:
    seen = Seen()
    file = tmp_path / "pid"
    defn = JobDef[str](stream=name, perform=in_process.outlive_signals, run_in="process", num_attempts=1)
    async with job_processor(url, on_event=seen, stop_signals=[number]) as p:
        await p.start(defn)
        await p.enqueue(defn, str(file))
        await until(lambda: file.exists() and file.read_text())
        os.kill(int(file.read_text()), number)
        os.kill(os.getpid(), number)

    assert file.read_text() == "done"
    assert len(seen.of(Complete)) == 1


async def test_what_is_printed_written_and_logged_there_arrives_here(
    url: str, name: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """More than a pipe takes."""
    count = 2000
    logging.getLogger("app").setLevel(logging.INFO)
    defn = JobDef[int](stream=name, perform=in_process.say_much, run_in="process", num_attempts=1)
    try:
        async with job_processor(url) as p:
            await p.start(defn)
            await p.enqueue(defn, count)
            await until_empty(p.js, name)
            await p.stop()
    finally:
        logging.getLogger("app").setLevel(logging.NOTSET)

    out, err = capfd.readouterr()
    assert (out.count("out x"), err.count("err x")) == (count, count)
    logged = [record for record in caplog.records if record.name == "app.part"]
    assert [record.getMessage().split()[1] for record in logged] == [str(number) for number in range(count)]
    assert {record.levelno for record in logged} == {logging.INFO}


async def test_what_a_function_starts_dies_of_signals(url: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "codes"
    defn = JobDef[str](stream=name, perform=in_process.start_children, run_in="process", num_attempts=1)
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, str(file))
        await until_empty(p.js, name)
        await p.stop()

    assert file.read_text() == f"{-signal.SIGTERM} {-signal.SIGTERM}"


async def test_a_process_that_cannot_be_started_ends_the_worker_and_the_job_goes_back(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen()
    defn = JobDef[str](stream=name, perform=in_process.end_as_told, run_in="process", num_attempts=1)
    monkeypatch.setattr(sys, "executable", "/nothing/there")
    with pytest.raises(ProcessNotStarted, match="end_as_told could not be started"):
        async with job_processor(url, on_event=seen) as p:
            await p.start(defn)
            await p.enqueue(defn, "fine")

    monkeypatch.undo()
    assert not seen.of(Error)
    async with job_processor(url, on_event=seen) as p:
        assert await in_stream(p.js, name) == 1
        await p.start(defn)
        await until_empty(p.js, name)
        await p.stop()

    assert len(seen.of(Complete)) == 1


async def test_a_payload_that_cannot_be_pickled_is_said_to_be_that(url: str, name: str) -> None:
    class Unpicklable:
        name = "odd"
        content_type = "application/odd"

        def encode(self, value: object) -> bytes:
            return b""

        def decode(self, data: bytes) -> Any:
            return lambda: None

    seen = Seen()
    defn = JobDef[Any](
        stream=name, perform=in_process.end_as_told, run_in="process", num_attempts=1, codec=Unpicklable()
    )
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue(defn, "x")
        await until_empty(p.js, name)
        await p.stop()

    (error,) = (event.error for event in seen.of(Error))
    assert re.search("cannot be encoded as pickle, for run_in='process'", str(error))


async def test_a_wrapped_coroutine_function_is_not_acknowledged_for_its_coroutine(
    url: str, name: str
) -> None:
    seen = Seen()
    defn = JobDef[Any](stream=name, perform=in_process.wrapped, run_in="process", num_attempts=1)
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue(defn, 1)
        await until_empty(p.js, name)
        await p.stop()

    assert ["an awaitable (coroutine)" in event.error for event in seen.of(DeadLettered)] == [True]


async def test_a_class_method_runs_in_a_process_and_a_method_of_an_object_is_refused(
    url: str, name: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="at the top of a module"):
        JobDef(stream=name, perform=in_process.Methods().of_instance, run_in="process")

    defn = JobDef[str](stream=name, perform=in_process.Methods.of_class, run_in="process")
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, str(tmp_path / "class"))
        await until_empty(p.js, name)
        await p.stop()

    assert (tmp_path / "class").read_text() == "Methods"


async def test_a_function_that_its_name_does_not_lead_to_is_refused(url: str, name: str) -> None:
    hidden = in_process.traced(in_process.note_pid)
    defn = JobDef[str](stream=name, perform=hidden, run_in="process")
    with pytest.raises(UsageError, match="is not the function that was given as perform"):
        async with job_processor(url) as p:
            await p.start(defn)


async def test_leaving_the_processor_early_kills_what_runs(url: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    defn = JobDef[str](stream=name, perform=in_process.sleep_in_process, run_in="process")
    with anyio.CancelScope() as scope:
        async with job_processor(url) as p:
            await p.start(defn)
            await p.enqueue(defn, str(file))
            await until(lambda: file.exists() and file.read_text())
            scope.cancel()

    assert not alive(int(file.read_text()))
