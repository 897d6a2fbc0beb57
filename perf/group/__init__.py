"""Groups of real members, processes of their own, on the loopback."""
