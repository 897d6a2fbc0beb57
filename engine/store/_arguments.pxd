"""What Python hands over, checked and in the C library's form: functions in line, for `_store.pyx`."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from forebay.store.c_store cimport *


cdef inline int check_key(bytes key) except -1:
    cdef Py_ssize_t length = PyBytes_GET_SIZE(key)
    if length == 0 or length > FB_KEY_BYTES_MAX:
        raise ValueError(f"a key has 1 to {FB_KEY_BYTES_MAX} bytes, not {length}")
    return 0


cdef inline int key_of(fb_store *c, bytes key, fb_key *out) except -1:
    check_key(key)
    fb_key_for(c, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), out)
    return 0


cdef inline bytes names_of(tuple keys):
    """Return an array of fb_name, good for as long as the keys are kept."""
    cdef bytes array = PyBytes_FromStringAndSize(NULL, len(keys) * <Py_ssize_t>sizeof(fb_name))
    cdef fb_name *name = <fb_name *>PyBytes_AS_STRING(array)
    for key in keys:
        if not PyBytes_Check(key):
            raise TypeError(f"a key is bytes, not {type(key).__name__}")
        check_key(<bytes>key)
        name.bytes = PyBytes_AS_STRING(<bytes>key)
        name.length_bytes = PyBytes_GET_SIZE(<bytes>key)
        name += 1
    return array


cdef inline int check_length(uint64_t size_bytes) except -1:
    if size_bytes > FB_BLOCK_BYTES_MAX:
        raise ValueError(f"a block has at most {FB_BLOCK_BYTES_MAX} bytes, not {size_bytes}")
    return 0


cdef inline double ttl_of(object ttl_s) except? -2:
    cdef double seconds
    if ttl_s is None:
        return -1
    seconds = ttl_s
    if not seconds >= 0:
        raise ValueError(f"a TTL is a number of seconds, 0 or more, not {ttl_s!r}")
    return seconds


cdef inline int medium_of(str medium) except -1:
    from forebay.errors import ConfigError

    if medium is None:
        return FB_ANY_MEDIUM
    if medium not in ("MEM", "SSD", "HDD"):
        raise ConfigError(f"medium {medium!r}: must be one of MEM, SSD, HDD")
    return ("MEM", "SSD", "HDD").index(medium)


cdef inline int copy_path(char *out, str path) except -1:
    import os

    from forebay.errors import ConfigError

    cdef bytes encoded = os.fsencode(path)
    if len(encoded) >= FB_PATH_MAX or b"\0" in encoded:
        raise ConfigError(f"{path}: a path has at most {FB_PATH_MAX - 1} bytes and no zero among them")
    memset(out, 0, FB_PATH_MAX)
    memcpy(out, <char *>encoded, len(encoded))
    return 0


cdef inline int fill_config(fb_config *config, str path, object tiers, object values) except -1:
    from forebay.errors import ConfigError

    memset(config, 0, sizeof(fb_config))
    copy_path(config.path, path)
    if tiers is not None:
        if len(tiers) > FB_TIERS_MAX:
            raise ConfigError(f"{path}: {len(tiers)} tiers, at most {FB_TIERS_MAX}")
        config.tier_count = len(tiers)
        for i, tier in enumerate(tiers):
            copy_path(config.tiers[i].path, tier.path)
            config.tiers[i].quota_bytes = tier.quota_bytes
            config.tiers[i].medium = ("MEM", "SSD", "HDD").index(tier.medium)
            config.tiers[i].high_permille = round(tier.high * 1000)
            config.tiers[i].low_permille = round(tier.low * 1000)
    config.row_count = values.rows
    config.block_bytes = values.block_bytes
    config.checksum = ("none", "load", "read").index(values.checksum)
    config.map_disk = values.disk_views == "map"
    config.read_only = values.read_only
    config.reshape = values.reshape
    config.no_maintainer = not values.maintainer
    config.max_held_bytes = values.max_held_bytes
    config.stall_timeout_ms = round(values.stall_timeout_s * 1000)
    config.file_mode = 0o600 if values.group_id is None else 0o660
    config.group_id = -1 if values.group_id is None else values.group_id
    config.promote_bytes_per_second = values.promote_bytes_per_second
    return 0
