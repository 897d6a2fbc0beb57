"""Traces and who records them: names, states, several processes, and what ends a recording."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from forebay.cache import Trace
from forebay.cache.record.part import CHUNK_BYTES
from forebay.cache.record.recorder import Recorder
from forebay.cache.record.traces import Traces
from forebay.config import KIB, MIB
from forebay.errors import ConfigError, TraceNotFound
from tests.faults._child import Child

BLOCK = 64 * KIB


@pytest.fixture
def traces(tmp_path: Path) -> Traces:
    return Traces(tmp_path / "traces", BLOCK)


def recorder_of(traces: Traces, name: str) -> Recorder:
    recorder = traces.join(name)
    assert recorder is not None
    return recorder


def note(recorder: Recorder, *names: str) -> None:
    for name in names:
        recorder.note(f"d/{name}", 1, 2, 3)


def names_in(trace: Trace) -> list[str]:
    return [access.path.removeprefix("d/") for access in trace.accesses()]


def test_a_recording_from_beginning_to_end(traces: Traces) -> None:
    assert traces.all() == []
    with traces.begin("t", MIB) as recording:
        recorder = recorder_of(traces, "t")
        assert recording.trace.status().state == "recording"
        assert recording.trace.status().processes == 0
        note(recorder, "a", "b")
        assert names_in(recording.trace) == ["a", "b"]
        recorder.close()
        note(recorder, "c")
    trace = traces.find("t")
    status = trace.status()
    assert (status.name, status.state, status.processes) == ("t", "complete", 1)
    assert status.to_json()["file_bytes"] == status.file_bytes > 0
    assert trace.block_bytes == BLOCK
    access = next(trace.accesses())
    assert access[1:] == ("d/a", 1, 2, 3)
    assert names_in(trace) == ["a", "b"]
    assert [each.name for each in traces.all()] == ["t"]
    traces.delete("t")
    assert traces.all() == []


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b", "x" * 129, "a\n"])
def test_bad_names(traces: Traces, name: str) -> None:
    with pytest.raises(ConfigError, match="trace name"):
        traces.begin(name, MIB)
    with pytest.raises(ConfigError, match="trace name"):
        traces.find(name)


def test_a_name_is_taken_once_and_a_missing_one_told(traces: Traces) -> None:
    traces.begin("epoch-1", MIB).end()
    with pytest.raises(ConfigError, match=r"'epoch-1' already.*forebay trace delete"):
        traces.begin("epoch-1", MIB)
    with pytest.raises(TraceNotFound, match=r"'epoch-2'.*'epoch-1'"):
        traces.find("epoch-2")
    with pytest.raises(TraceNotFound):
        traces.delete("epoch-2")


def test_nobody_joins_what_does_not_go_on(traces: Traces) -> None:
    assert traces.join("t") is None
    traces.begin("t", MIB).end()
    assert traces.join("t") is None


def test_threads_write_in_the_order_of_time(traces: Traces) -> None:
    with traces.begin("t", 64 * MIB) as recording:
        recorder = recorder_of(traces, "t")
        threads = [
            threading.Thread(target=note, args=(recorder, *(f"{number}-{n}" for n in range(500))))
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        recorder.close()
    accesses = list(recording.trace.accesses())
    assert len(accesses) == 2_000
    assert accesses == sorted(accesses, key=lambda access: access.time_ns)
    for number in range(4):
        own = [access.path for access in accesses if access.path.startswith(f"d/{number}-")]
        assert own == [f"d/{number}-{n}" for n in range(500)]


def test_forked_children_write_parts_of_their_own(traces: Traces) -> None:
    def read(link: Any, name: str) -> None:
        note(recorder, name)
        link.send("read")
        link.recv()

    with traces.begin("t", MIB) as recording:
        recorder = recorder_of(traces, "t")
        note(recorder, "parent")
        with Child(read, "one") as one, Child(read, "two") as two:
            assert one.receive() == two.receive() == "read"
            note(recorder, "parent again")
            # What they have read is there while they live, and after they were killed.
            assert set(names_in(recording.trace)) == {"parent", "one", "two", "parent again"}
            one.kill()
            two.send("end")
            two.result()
        recorder.close()
    assert set(names_in(traces.find("t"))) == {"parent", "one", "two", "parent again"}
    assert traces.find("t").status().processes == 3


def test_a_child_ends_no_recording_of_its_parent(traces: Traces) -> None:
    with traces.begin("t", MIB) as recording:

        def leave(link: Any) -> None:
            recording.end()

        with Child(leave) as child:
            child.result()
        assert recording.trace.status().state == "recording"


def test_a_killed_recording_is_interrupted_and_can_be_read(traces: Traces) -> None:
    def record(link: Any) -> None:
        traces.begin("t", MIB)
        note(recorder_of(traces, "t"), "a", "b")
        link.send("noted")
        link.recv()

    with Child(record) as child:
        assert child.receive() == "noted"
        assert traces.find("t").status().state == "recording"
        child.kill()
        child.exit_code()
    assert traces.find("t").status().state == "interrupted"
    assert names_in(traces.find("t")) == ["a", "b"]
    traces.delete("t")


def test_the_end_is_seen_by_whoever_still_records(traces: Traces) -> None:
    recording = traces.begin("t", 64 * MIB)
    recorder = recorder_of(traces, "t")
    note(recorder, "a")
    recording.end()
    recording.end()
    note(recorder, *map(str, range(5_000)))
    assert len(names_in(recording.trace)) < 5_000


def test_a_trace_that_is_deleted_meanwhile(traces: Traces, caplog: pytest.LogCaptureFixture) -> None:
    with traces.begin("t", 64 * MIB):
        recorder = recorder_of(traces, "t")
        note(recorder, "a")
        traces.delete("t")
        note(recorder, *map(str, range(5_000)))
        recorder.close()
    assert traces.all() == []
    assert caplog.records == []


def test_the_limit_ends_it_with_one_warning(traces: Traces, caplog: pytest.LogCaptureFixture) -> None:
    with traces.begin("t", CHUNK_BYTES) as recording, caplog.at_level(logging.WARNING):
        recorder = recorder_of(traces, "t")
        note(recorder, *map(str, range(30_000)))
        recorder.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the limit of 1048576 bytes" in caplog.text
    found = names_in(recording.trace)
    assert found == [str(number) for number in range(len(found))]
    assert recording.trace.status().state == "incomplete"


def test_a_full_disk_ends_it_with_one_warning(
    traces: Traces, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    with traces.begin("t", MIB) as recording:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
        recorder = recorder_of(traces, "t")
        note(recorder, *map(str, range(5_000)))
        recorder.close()
    assert len(caplog.records) == 1
    assert "No space left on device" in caplog.text
    assert recording.trace.status().state == "incomplete"
    assert names_in(recording.trace) == []


def test_a_shared_cache_shares_its_traces(tmp_path: Path) -> None:
    traces = Traces(tmp_path / "traces", BLOCK, shared_group=os.getgid())
    with traces.begin("t", MIB) as recording:
        recorder = recorder_of(traces, "t")
        note(recorder, "a")
        recorder.close()
    folder = recording.trace.folder
    assert folder.stat().st_mode & 0o7777 == folder.parent.stat().st_mode & 0o7777 == 0o2770
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o660}


def test_a_folder_that_holds_no_trace(tmp_path: Path, traces: Traces) -> None:
    with pytest.raises(FileNotFoundError):
        Trace(tmp_path)
    traces.begin("t", MIB).end()
    (tmp_path / "traces/t/about").write_text("{}")
    with pytest.raises(ValueError, match="is damaged; record the trace anew"):
        traces.find("t")
