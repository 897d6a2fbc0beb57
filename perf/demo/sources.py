"""The three ways to the same bytes: straight from S3 with boto3, through forebay, as files of a mount.

A source is described by a value that can be sent to another process and opened there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import boto3
from botocore.config import Config

import forebay
from perf.demo.dataset import BUCKET, Sample

DATASET = "training"


class Source(Protocol):
    """Reads samples; from any thread."""

    def read(self, sample: Sample) -> Any:
        """Return the sample's bytes as an object with the buffer protocol."""
        ...


class SourceSpec(Protocol):
    """Where a source is, without the source."""

    def open(self) -> Source: ...


@dataclass(frozen=True)
class S3Spec:
    """The bucket at an endpoint, keys from the environment."""

    endpoint_url: str
    connections: int

    def open(self) -> Source:
        return S3Source(self)


class S3Source:
    """One GET a read, as a training script without a cache does."""

    def __init__(self, spec: S3Spec) -> None:
        config = Config(max_pool_connections=spec.connections, s3={"addressing_style": "path"})
        self._client = boto3.client("s3", endpoint_url=spec.endpoint_url, config=config)

    def read(self, sample: Sample) -> bytes:
        part = {} if sample.whole else {"Range": f"bytes={sample.offset}-{sample.offset + sample.length - 1}"}
        body: bytes = self._client.get_object(Bucket=BUCKET, Key=sample.key, **part)["Body"].read()
        return body


@dataclass(frozen=True)
class ForebaySpec:
    """A cache directory with one tier in front of the same endpoint."""

    cache_dir: Path
    tier: forebay.Tier
    endpoint_url: str

    def open(self) -> Source:
        return ForebaySource(self)


class ForebaySource:
    """Reads through the cache; a hit is a view of the cached bytes."""

    def __init__(self, spec: ForebaySpec) -> None:
        self._cache = forebay.open(spec.cache_dir, tiers=[spec.tier])
        self._cache.attach(DATASET, f"s3://{BUCKET}", endpoint_url=spec.endpoint_url, max_age=None)

    def read(self, sample: Sample) -> forebay.View:
        path = f"{DATASET}/{sample.key}"
        if sample.whole:
            return self._cache.read(path)
        return self._cache.read(path, sample.offset, sample.length)


@dataclass(frozen=True)
class MountSpec:
    """The folder where the data set is mounted."""

    folder: Path

    def open(self) -> Source:
        return MountSource(self.folder)


class MountSource:
    """Reads files, and knows nothing of forebay."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, sample: Sample) -> bytes:
        descriptor = os.open(self._folder / sample.key, os.O_RDONLY)
        try:
            return os.pread(descriptor, sample.length, sample.offset)
        finally:
            os.close(descriptor)
