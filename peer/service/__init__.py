"""Answers peers over gRPC: one class a service, no cache logic."""
