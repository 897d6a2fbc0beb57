"""`make demo`: a training-style reader straight from S3, then through forebay, every hash verified."""
