"""``python -m forebay``: the command line, the same as the ``forebay`` script."""

from __future__ import annotations

import sys

from forebay.cli import main

if __name__ == "__main__":
    sys.exit(main())
