"""Writes: through to the under storage, and what every process of the host knows of them afterwards."""
