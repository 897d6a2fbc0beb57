"""What top and status make of the records of mounts."""

from __future__ import annotations

from typing import Any

from forebay.cli.mount_rates import OperationRates, mount_rates, mount_rows, rate_rows


def record(pid: int, **operations: tuple[int, int, float]) -> dict[str, Any]:
    """Return the record of a mount with counts, errors and mean times of its operations."""
    return {
        "mountpoint": "/m\n",
        "dataset": "d",
        "pid": pid,
        "read_only": True,
        "operations": {
            name: {"count": count, "errors": errors, "mean_us": mean_us, "p99_us": 4096}
            for name, (count, errors, mean_us) in operations.items()
        },
    }


def test_rates_are_those_of_the_interval() -> None:
    before, after = record(1, read=(10, 0, 50.0)), record(1, read=(30, 4, 150.0), lookup=(4, 0, 2.0))
    assert mount_rates([before], [after], 2.0) == [
        OperationRates("/m\n", "read", 10.0, 2.0, 200.0, 4096),
        OperationRates("/m\n", "lookup", 2.0, 0.0, 2.0, 4096),
    ]


def test_a_mount_that_was_made_anew_begins_anew() -> None:
    (rates,) = mount_rates([record(1, read=(100, 0, 1.0))], [record(2, read=(3, 0, 1.0))], 1.0)
    assert rates.per_s == 3


def test_rows() -> None:
    rates = mount_rates([record(1, read=(3, 0, 1.0))], [record(1, read=(3, 0, 1.0))], 1.0)
    assert list(rate_rows(rates)) == [("/m\\n", "read", "0.0", "-", "4.1 ms", "0.0")]
    assert list(mount_rows([record(7, read=(3, 1, 1.0), open=(2, 0, 1.0))])) == [
        ("/m\\n", "d", "7", "read-only", "5", "1")
    ]
