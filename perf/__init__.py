"""Measurements of forebay: each figure a ratio, taken in one interleaved run. See README.md."""
