"""Cases of mounts: forebay's beside those of others, over the same S3 server."""
