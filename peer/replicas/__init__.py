"""Copies of blocks on further members: pushed, repaired, handed over."""
