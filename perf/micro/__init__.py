"""One module for each path with a bar: a few thousand to a million operations, no network."""
