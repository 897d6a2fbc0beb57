"""Recording: which parts of which objects are read, in order, written down as it happens, and read again."""
