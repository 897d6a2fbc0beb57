"""Results on disk: one JSON file a run in perf/results, and the newest figure of every bar.

A run holds machine facts and, for each case, the figures of every round, the bars made of them and facts
beside them, so that tables and plots are made again without measuring again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf.harness import Bar, Case, Facts, Outcome, Samples
from perf.places import BUILD

FOLDER = Path(__file__).parent / "results"
SCHEMA = 1


@dataclass(frozen=True)
class CaseResult:
    """A case as it stands in a results file."""

    name: str
    title: str
    limit: str
    unit: str
    seconds: float
    workload: Facts
    samples: Samples
    bars: list[Bar]
    facts: Facts

    @classmethod
    def of(cls, case: Case, outcome: Outcome, seconds: float) -> CaseResult:
        return cls(
            case.name,
            case.title,
            case.limit,
            outcome.unit,
            seconds,
            outcome.workload,
            outcome.samples,
            outcome.bars,
            outcome.facts,
        )

    def as_json(self) -> Facts:
        return {**vars(self), "bars": [bar.as_json() for bar in self.bars]}

    @classmethod
    def from_json(cls, data: Facts) -> CaseResult:
        return cls(**{**data, "bars": [Bar.from_json(bar) for bar in data["bars"]]})


@dataclass(frozen=True)
class Run:
    """One invocation of run.py."""

    machine: Facts
    quick: bool
    cases: list[CaseResult]
    failures: dict[str, str]

    def save(self) -> Path:
        """Write the run into perf/results under the time it began; a quick one into build/perf."""
        folder = BUILD / "perf" if self.quick else FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        moment = self.machine["date"].partition("+")[0].replace(":", "")
        path = folder / f"{moment}.json"
        content = {
            "schema": SCHEMA,
            "machine": self.machine,
            "quick": self.quick,
            "cases": [case.as_json() for case in self.cases],
            "failures": self.failures,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")
        return path


@dataclass(frozen=True)
class Standing:
    """The newest full result of a case, and where it stands."""

    case: CaseResult
    machine: dict[str, Any]
    path: Path


def newest() -> dict[str, Standing]:
    """Return the newest result of every case."""
    standings: dict[str, Standing] = {}
    for path, content in _saved_runs():
        for data in content["cases"]:
            standings[data["name"]] = Standing(CaseResult.from_json(data), content["machine"], path)
    return standings


def _saved_runs() -> Iterator[tuple[Path, Facts]]:
    """Give the runs, oldest first. Raises: ValueError (a file of another schema)."""
    for path in sorted(FOLDER.glob("*.json")):
        content = json.loads(path.read_text())
        if content["schema"] != SCHEMA:
            raise ValueError(f"{path}: schema {content['schema']}, this is {SCHEMA}")
        yield path, content
