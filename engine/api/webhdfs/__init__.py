"""The WebHDFS gateway: the HDFS-style API over HTTP, for Hadoop's, Spark's and Python's own clients."""
