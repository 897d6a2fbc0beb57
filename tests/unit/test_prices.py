"""The price file: which price counts, what it comes to, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.cache.prices import Price, Prices, load_prices
from forebay.errors import ConfigError

TEXT = """
currency = "USD"
[prices."s3://"]
class_a = 0.005
class_b = 0.0004
out_gb = 0.09
[prices."s3://near"]
class_b = 0.0004
[prices."s3://near/far"]
out_gb = 1
"""


def write(folder: Path, text: str) -> str:
    (folder / "prices.toml").write_text(text)
    return str(folder / "prices.toml")


@pytest.mark.parametrize(
    ("uri", "out_gb"),
    [
        ("s3://bucket/a", 0.09),
        ("s3://near", 0.0),
        ("s3://near/a", 0.0),
        ("s3://nearby", 0.09),
        ("s3://near/far", 1.0),
        ("s3://near/far/a", 1.0),
        ("s3://near/farther", 0.0),
    ],
)
def test_the_longest_uri_counts(tmp_path: Path, uri: str, out_gb: float) -> None:
    price = load_prices(write(tmp_path, TEXT), must_exist=True).of(uri)
    assert price is not None
    assert price.out_gb == out_gb


def test_of_what_nothing_is_said_nothing_is_known(tmp_path: Path) -> None:
    assert load_prices(write(tmp_path, TEXT), must_exist=True).of("file:///a") is None
    assert load_prices(str(tmp_path / "absent"), must_exist=False) == Prices()
    assert load_prices(write(tmp_path, ""), must_exist=True) == Prices()


def test_prices_are_for_a_thousand_requests_and_a_gigabyte() -> None:
    price = Price(class_a=5, class_b=0.5, delete=1, out_gb=90)
    assert price.of(2000, 4000, 500, 2 * 10**9) == 10 + 2 + 0.5 + 180
    assert price.of(0, -1000, 0, 0) == -0.5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "not valid TOML"),
        ("[price]", "unknown key 'price' (did you mean 'prices'?)"),
        ("prices = 1", "expected tables"),
        ("currency = 1", "currency: expected text"),
        ("[prices]\nout_gb = 1", "prices: out_gb: expected a table"),
        ('[prices."s3://"]\nout = 1', "unknown key 'out'"),
        ('[prices."s3://"]\nout_gb = -1', "s3://: out_gb: expected a price"),
        ('[prices."s3://"]\nout_gb = true', "expected a price"),
        ('[prices."s3://"]\nout_gb = "1"', "expected a price"),
        ('[prices."s3://"]\nout_gb = inf', "expected a price"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_prices(path, must_exist=False)
    assert words in str(caught.value)
    assert path in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent: cannot be read"):
        load_prices(str(tmp_path / "absent"), must_exist=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_prices(str(tmp_path), must_exist=False)


def test_the_example_is_valid(repository: Path) -> None:
    prices = load_prices(str(repository / "deploy/prices.toml.example"), must_exist=True)
    assert prices.currency == "USD"
    assert prices.of("s3://bucket/prefix") is not None
