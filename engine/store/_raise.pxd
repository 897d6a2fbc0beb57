"""The one table that turns the C library's codes into exceptions: functions in line, for `_store.pyx`."""

from libc.errno cimport EDQUOT, EINVAL, EOPNOTSUPP, EROFS, ETIMEDOUT

from forebay.store.c_store cimport fb_pin_room


cdef inline object error_for(int code, str what):
    import os

    from forebay.errors import StoreBusy

    if code == -ETIMEDOUT:
        return StoreBusy(ETIMEDOUT, f"{what}: a live process holds the lock of that part of the index")
    if code == -EROFS:
        return PermissionError(EROFS, f"{what}: the store is open read-only here, or its table of rows is full")
    if code == -EINVAL:
        return ValueError(f"{what}: invalid argument")
    return OSError(-code, f"{what}: {os.strerror(-code)}")


cdef inline object open_error(int code, str message, str path):
    from forebay.errors import ConfigError, StoreBusy

    if code in (-EINVAL, -EOPNOTSUPP):
        return ConfigError(message)
    if code == -ETIMEDOUT:
        return StoreBusy(ETIMEDOUT, message)
    return OSError(-code, message, path)


cdef inline object pin_limit(const fb_pin_room *room):
    import os

    from forebay.errors import PinLimit

    tier = os.fsdecode(<bytes>room.tier_path)
    return PinLimit(
        EDQUOT,
        f"a pin of {room.wanted_bytes} bytes in tier {tier}: {room.pinned_bytes} are pinned there, "
        f"at most {room.limit_bytes} (80 %) may be",
    )
