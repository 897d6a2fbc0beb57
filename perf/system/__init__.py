"""Cases over the whole cache: paths in, bytes out, a real S3 server behind it."""
