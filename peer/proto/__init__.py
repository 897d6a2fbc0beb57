"""The messages of forebay.v1: forebay.proto, and what protoc makes of it (``make proto``), nothing else."""
