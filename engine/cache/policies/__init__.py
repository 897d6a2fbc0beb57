"""Policies: what holds for the objects at and below a path, the deepest word on each thing first."""
