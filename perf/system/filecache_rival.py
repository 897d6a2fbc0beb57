"""fsspec's own filecache over s3fs, in an interpreter of its own: s3fs wants another botocore than boto3's.

Run by fsspec_cat.py with the interpreter of build/fsspec-peers; nothing of forebay is imported. The first
line on stdin says what to read; for each further one all is read so many times, and the seconds are printed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time

import fsspec


def main() -> None:
    """Fill the cache, say the digest of all bytes, then take the time of each request."""
    order = json.loads(sys.stdin.readline())
    fs = fsspec.filesystem(
        "filecache",
        target_protocol="s3",
        target_options={"endpoint_url": order["endpoint_url"]},
        cache_storage=order["folder"],
    )
    paths = order["paths"]
    found = fs.cat(paths)
    print(hashlib.sha256(b"".join(found[path] for path in paths)).hexdigest(), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            fs.cat(paths)
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
