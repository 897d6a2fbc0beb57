"""Measurements of the HDFS-style API and the WebHDFS gateway."""
