"""Manifests: versions of a dataset, made, put in use, compared with the source, carried off and retired."""
