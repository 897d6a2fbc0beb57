from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MemberState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBER_UP: _ClassVar[MemberState]
    MEMBER_DOWN: _ClassVar[MemberState]
    MEMBER_LEAVING: _ClassVar[MemberState]
MEMBER_UP: MemberState
MEMBER_DOWN: MemberState
MEMBER_LEAVING: MemberState

class Placement(_message.Message):
    __slots__ = ("method", "run_bytes")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    RUN_BYTES_FIELD_NUMBER: _ClassVar[int]
    method: str
    run_bytes: int
    def __init__(self, method: _Optional[str] = ..., run_bytes: _Optional[int] = ...) -> None: ...

class HelloRequest(_message.Message):
    __slots__ = ("protocol", "group", "block_bytes", "placement", "role", "member_id", "software")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    BLOCK_BYTES_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    group: str
    block_bytes: int
    placement: Placement
    role: str
    member_id: str
    software: str
    def __init__(self, protocol: _Optional[int] = ..., group: _Optional[str] = ..., block_bytes: _Optional[int] = ..., placement: _Optional[_Union[Placement, _Mapping]] = ..., role: _Optional[str] = ..., member_id: _Optional[str] = ..., software: _Optional[str] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("protocol", "group", "block_bytes", "placement", "self", "view")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    BLOCK_BYTES_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    SELF_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    group: str
    block_bytes: int
    placement: Placement
    self: Member
    view: View
    def __init__(self_, protocol: _Optional[int] = ..., group: _Optional[str] = ..., block_bytes: _Optional[int] = ..., placement: _Optional[_Union[Placement, _Mapping]] = ..., self: _Optional[_Union[Member, _Mapping]] = ..., view: _Optional[_Union[View, _Mapping]] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("id", "address", "data_port", "weight", "zone", "state", "incarnation", "host", "gateway_port")
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DATA_PORT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_PORT_FIELD_NUMBER: _ClassVar[int]
    id: str
    address: str
    data_port: int
    weight: float
    zone: str
    state: MemberState
    incarnation: int
    host: str
    gateway_port: int
    def __init__(self, id: _Optional[str] = ..., address: _Optional[str] = ..., data_port: _Optional[int] = ..., weight: _Optional[float] = ..., zone: _Optional[str] = ..., state: _Optional[_Union[MemberState, str]] = ..., incarnation: _Optional[int] = ..., host: _Optional[str] = ..., gateway_port: _Optional[int] = ...) -> None: ...

class View(_message.Message):
    __slots__ = ("epoch", "members")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    members: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, epoch: _Optional[int] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ...) -> None: ...

class ViewRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Announcement(_message.Message):
    __slots__ = ("member",)
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    member: Member
    def __init__(self, member: _Optional[_Union[Member, _Mapping]] = ...) -> None: ...

class Frames(_message.Message):
    __slots__ = ("frames",)
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: bytes
    def __init__(self, frames: _Optional[bytes] = ...) -> None: ...

class Object(_message.Message):
    __slots__ = ("path", "size", "mtime_ns", "version", "is_dir", "age_ns")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MTIME_NS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_DIR_FIELD_NUMBER: _ClassVar[int]
    AGE_NS_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    size: int
    mtime_ns: int
    version: bytes
    is_dir: bool
    age_ns: int
    def __init__(self, path: _Optional[bytes] = ..., size: _Optional[int] = ..., mtime_ns: _Optional[int] = ..., version: _Optional[bytes] = ..., is_dir: _Optional[bool] = ..., age_ns: _Optional[int] = ...) -> None: ...

class StatRequest(_message.Message):
    __slots__ = ("dataset", "path")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    path: bytes
    def __init__(self, dataset: _Optional[str] = ..., path: _Optional[bytes] = ...) -> None: ...

class StatReply(_message.Message):
    __slots__ = ("object",)
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    object: Object
    def __init__(self, object: _Optional[_Union[Object, _Mapping]] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("dataset", "directory")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    directory: bytes
    def __init__(self, dataset: _Optional[str] = ..., directory: _Optional[bytes] = ...) -> None: ...

class ListPage(_message.Message):
    __slots__ = ("objects",)
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    objects: _containers.RepeatedCompositeFieldContainer[Object]
    def __init__(self, objects: _Optional[_Iterable[_Union[Object, _Mapping]]] = ...) -> None: ...

class LocateRequest(_message.Message):
    __slots__ = ("dataset", "path")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    path: bytes
    def __init__(self, dataset: _Optional[str] = ..., path: _Optional[bytes] = ...) -> None: ...

class LocateReply(_message.Message):
    __slots__ = ("cached_bytes", "total_bytes")
    CACHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    cached_bytes: int
    total_bytes: int
    def __init__(self, cached_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class BlockRef(_message.Message):
    __slots__ = ("dataset", "path", "version", "number")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    path: bytes
    version: bytes
    number: int
    def __init__(self, dataset: _Optional[str] = ..., path: _Optional[bytes] = ..., version: _Optional[bytes] = ..., number: _Optional[int] = ...) -> None: ...

class HoldsRequest(_message.Message):
    __slots__ = ("blocks",)
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    blocks: _containers.RepeatedCompositeFieldContainer[BlockRef]
    def __init__(self, blocks: _Optional[_Iterable[_Union[BlockRef, _Mapping]]] = ...) -> None: ...

class HoldsReply(_message.Message):
    __slots__ = ("held",)
    HELD_FIELD_NUMBER: _ClassVar[int]
    held: bytes
    def __init__(self, held: _Optional[bytes] = ...) -> None: ...

class PushPart(_message.Message):
    __slots__ = ("block", "object_bytes", "mtime_ns", "block_length", "crc32c", "data")
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    OBJECT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MTIME_NS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_LENGTH_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    block: BlockRef
    object_bytes: int
    mtime_ns: int
    block_length: int
    crc32c: int
    data: bytes
    def __init__(self, block: _Optional[_Union[BlockRef, _Mapping]] = ..., object_bytes: _Optional[int] = ..., mtime_ns: _Optional[int] = ..., block_length: _Optional[int] = ..., crc32c: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class PushReply(_message.Message):
    __slots__ = ("admitted", "reason")
    ADMITTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    admitted: bool
    reason: str
    def __init__(self, admitted: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class LoadRequest(_message.Message):
    __slots__ = ("target", "glob", "metadata_only", "dry_run", "verify", "files", "is_listed", "cancel_with_call", "members", "rate_limit")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    GLOB_FIELD_NUMBER: _ClassVar[int]
    METADATA_ONLY_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    IS_LISTED_FIELD_NUMBER: _ClassVar[int]
    CANCEL_WITH_CALL_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    RATE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    target: bytes
    glob: str
    metadata_only: bool
    dry_run: bool
    verify: bool
    files: _containers.RepeatedScalarFieldContainer[bytes]
    is_listed: bool
    cancel_with_call: bool
    members: _containers.RepeatedScalarFieldContainer[str]
    rate_limit: int
    def __init__(self, target: _Optional[bytes] = ..., glob: _Optional[str] = ..., metadata_only: _Optional[bool] = ..., dry_run: _Optional[bool] = ..., verify: _Optional[bool] = ..., files: _Optional[_Iterable[bytes]] = ..., is_listed: _Optional[bool] = ..., cancel_with_call: _Optional[bool] = ..., members: _Optional[_Iterable[str]] = ..., rate_limit: _Optional[int] = ...) -> None: ...

class LoadEvent(_message.Message):
    __slots__ = ("job", "state", "reason", "progress", "failures")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    job: str
    state: str
    reason: str
    progress: bytes
    failures: _containers.RepeatedCompositeFieldContainer[FileFailure]
    def __init__(self, job: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., progress: _Optional[bytes] = ..., failures: _Optional[_Iterable[_Union[FileFailure, _Mapping]]] = ...) -> None: ...

class FileFailure(_message.Message):
    __slots__ = ("path", "state", "error")
    PATH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    state: str
    error: str
    def __init__(self, path: _Optional[bytes] = ..., state: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("verb", "path", "arguments")
    VERB_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    verb: str
    path: bytes
    arguments: bytes
    def __init__(self, verb: _Optional[str] = ..., path: _Optional[bytes] = ..., arguments: _Optional[bytes] = ...) -> None: ...

class ApplyReply(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: bytes
    def __init__(self, result: _Optional[bytes] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: bytes
    def __init__(self, status: _Optional[bytes] = ...) -> None: ...

class SettingVersion(_message.Message):
    __slots__ = ("key", "version", "writer")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    key: str
    version: int
    writer: str
    def __init__(self, key: _Optional[str] = ..., version: _Optional[int] = ..., writer: _Optional[str] = ...) -> None: ...

class SettingsSummary(_message.Message):
    __slots__ = ("known",)
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    known: _containers.RepeatedCompositeFieldContainer[SettingVersion]
    def __init__(self, known: _Optional[_Iterable[_Union[SettingVersion, _Mapping]]] = ...) -> None: ...

class Setting(_message.Message):
    __slots__ = ("version", "is_deleted", "content", "part", "is_last")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_DELETED_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    version: SettingVersion
    is_deleted: bool
    content: bytes
    part: bytes
    is_last: bool
    def __init__(self, version: _Optional[_Union[SettingVersion, _Mapping]] = ..., is_deleted: _Optional[bool] = ..., content: _Optional[bytes] = ..., part: _Optional[bytes] = ..., is_last: _Optional[bool] = ...) -> None: ...
