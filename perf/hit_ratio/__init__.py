"""Policy against trace: what share of the reads is served from the store."""
