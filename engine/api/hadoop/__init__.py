"""The parts of the HDFS-style API that know no cache: what it describes, and how paths are written."""
