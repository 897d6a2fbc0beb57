"""Datasets, policies and manifests, the same on every member, newest wins."""
