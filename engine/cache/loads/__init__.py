"""Loads: durable jobs that bring a dataset, a path, a glob or a list of files into the cache."""
