"""Frontends in Python that speak the conventions of other ecosystems; none of them caches anything itself."""
