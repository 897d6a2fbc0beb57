"""Every operation of the WebHDFS gateway, over a folder that may be written."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import hdfs
import pytest
from fsspec.implementations.webhdfs import WebHDFS

from forebay.api.webhdfs.operations import OPERATIONS
from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.remote import Holder, NoRemote
from tests._gateway import Served, serving
from tests.integration._sites import OpenCache

DATA = os.urandom(300 * KIB)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a few files in it."""
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_bytes(b"bytes of a")
    (folder / "sub/b.bin").write_bytes(DATA)
    return folder


@pytest.fixture
def attached(open_cache: OpenCache, source: Path) -> Cache:
    """A cache with that folder attached as ``d`` to be written, and as ``fixed`` to be read."""
    cache = open_cache()
    cache.attach("d", source.as_uri(), writable=True, max_age=0)
    cache.attach("fixed", source.as_uri(), max_age=None)
    return cache


@pytest.fixture
def gateway(attached: Cache) -> Iterator[Served]:
    """A gateway to it."""
    with serving(attached) as served:
        yield served


def test_status_and_listings(gateway: Served, source: Path) -> None:
    status = gateway.get("/d/sub/b.bin?op=GETFILESTATUS&user.name=ann").json["FileStatus"]
    changed_ms = (source / "sub/b.bin").stat().st_mtime_ns // 1_000_000
    wanted = {
        "accessTime": changed_ms,
        "blockSize": 64 * MIB,
        "childrenNum": 0,
        "fileId": 0,
        "group": "ann",
        "length": len(DATA),
        "modificationTime": changed_ms,
        "owner": "ann",
        "pathSuffix": "",
        "permission": "644",
        "replication": 1,
        "storagePolicy": 0,
        "type": "FILE",
    }
    assert status == wanted
    listed = gateway.get("/d/sub?op=liststatus&USER.NAME=ann").json["FileStatuses"]["FileStatus"]
    assert listed == [{**wanted, "pathSuffix": "b.bin"}]
    assert gateway.get("/d/a?op=LISTSTATUS").json["FileStatuses"]["FileStatus"][0]["pathSuffix"] == ""
    for root in ("", "/"):
        found = gateway.get(f"{root}?op=LISTSTATUS").json["FileStatuses"]["FileStatus"]
        assert [(each["pathSuffix"], each["type"]) for each in found] == [
            ("d", "DIRECTORY"),
            ("fixed", "DIRECTORY"),
        ]
    assert gateway.get("/d/none?op=LISTSTATUS").exception == "FileNotFoundException"


def test_large_directories_are_sent_whole_and_in_pages(gateway: Served, source: Path) -> None:
    names = sorted(f"{number:04d}" for number in range(2_345))
    (source / "many").mkdir()
    for name in names:
        (source / "many" / name).touch()
    answer = gateway.get("/fixed/many?op=LISTSTATUS")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert [each["pathSuffix"] for each in answer.json["FileStatuses"]["FileStatus"]] == names
    found: list[str] = []
    after, pages, listing = "", 0, {"remainingEntries": 1}
    while listing["remainingEntries"]:
        listing = gateway.get(f"/fixed/many?op=LISTSTATUS_BATCH&startAfter={after}").json["DirectoryListing"]
        page = listing["partialListing"]["FileStatuses"]["FileStatus"]
        found += [each["pathSuffix"] for each in page]
        after, pages = found[-1], pages + 1
    assert (found, pages) == (names, 3)


def test_a_page_of_a_file_is_the_file_itself(gateway: Served) -> None:
    for path in ("/d/a", "/d/a/"):
        listing = gateway.get(f"{path}?op=LISTSTATUS_BATCH").json["DirectoryListing"]
        (status,) = listing["partialListing"]["FileStatuses"]["FileStatus"]
        assert (status["pathSuffix"], status["length"], listing["remainingEntries"]) == ("", 10, 0)


def test_pages_go_on_behind_names_that_are_gone_by_then(gateway: Served, source: Path) -> None:
    (source / "many").mkdir()
    names = sorted((f"{number:04d}" for number in range(1_005)), key=os.fsencode)
    odd = ["&=+ %41", "a b", "~", "ä", "\udcff"]
    for name in names + odd:
        (source / "many" / name).touch()
    wanted = sorted(names + odd, key=os.fsencode)
    page = gateway.get("/d/many?op=LISTSTATUS_BATCH").json["DirectoryListing"]
    first = [each["pathSuffix"] for each in page["partialListing"]["FileStatuses"]["FileStatus"]]
    (source / "many" / first[-1]).unlink()
    after = quote(first[-1], errors="surrogateescape")
    page = gateway.get(f"/d/many?op=LISTSTATUS_BATCH&startAfter={after}").json["DirectoryListing"]
    assert (
        first + [each["pathSuffix"] for each in page["partialListing"]["FileStatuses"]["FileStatus"]]
        == wanted
    )
    assert page["remainingEntries"] == 0
    for name in odd:
        after = quote(name, errors="surrogateescape")
        page = gateway.get(f"/d/many?op=LISTSTATUS_BATCH&startAfter={after}").json["DirectoryListing"]
        rest = [each["pathSuffix"] for each in page["partialListing"]["FileStatuses"]["FileStatus"]]
        assert (
            rest
            == [each for each in wanted if os.fsencode(each) > os.fsencode(name) and each != first[-1]][
                :1_000
            ]
        )


def test_a_listing_is_not_sent_in_chunks_to_who_does_not_know_them(gateway: Served, source: Path) -> None:
    (source / "none").mkdir()
    for path, status, exception in (("/d", 400, "UnsupportedOperationException"), ("/d/none", 200, "")):
        with socket.create_connection(gateway.address, 60) as connection:
            connection.sendall(f"GET /webhdfs/v1{path}?op=LISTSTATUS HTTP/1.0\r\n\r\n".encode())
            said = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        assert said.startswith(b"HTTP/1.1 %d " % status)
        assert exception.encode() in said
        assert b"transfer-encoding" not in said


def test_errors_of_names_that_are_not_utf8_are_told(gateway: Served, source: Path) -> None:
    (source / "\udcff").write_bytes(b"bytes")
    assert gateway.get("/d/%ff?op=OPEN").body == b"bytes"
    for method, query, exception in (
        ("GET", "OPEN&offset=6", "IOException"),
        ("PUT", "SETTIMES&modificationtime=1", "UnsupportedOperationException"),
        ("PUT", "CREATE", "FileAlreadyExistsException"),
    ):
        answer = gateway.ask(method, f"/d/%ff?op={query}")
        assert (answer.exception, answer.status < 500) == (exception, True)


@pytest.mark.parametrize(
    ("query", "begin", "end"),
    [
        ("", 0, len(DATA)),
        ("&offset=0", 0, len(DATA)),
        ("&offset=70000", 70_000, len(DATA)),
        ("&offset=70000&length=80000", 70_000, 150_000),
        ("&length=0", 0, 0),
        (f"&offset={len(DATA)}", len(DATA), len(DATA)),
        (f"&offset={len(DATA) - 1}&length={(1 << 63) - 1}", len(DATA) - 1, len(DATA)),
    ],
)
def test_open_sends_exactly_what_was_asked_for(gateway: Served, query: str, begin: int, end: int) -> None:
    for _ in range(2):
        answer = gateway.get(f"/d/sub/b.bin?op=OPEN{query}")
        assert (answer.status, answer.headers["content-length"]) == (200, str(end - begin))
        assert answer.body == DATA[begin:end]


def test_a_client_that_wants_no_redirect_is_told_where_to_go(gateway: Served) -> None:
    location = gateway.get("/d/a?op=OPEN&offset=3&noredirect=true").json["Location"]
    assert location.startswith(f"{gateway.url}/webhdfs/v1/d/a?op=OPEN&offset=3")
    assert gateway.get(location.partition("/v1")[2]).body == b"es of a"
    for method, path in (("PUT", "/d/new?op=CREATE"), ("POST", "/d/a?op=APPEND")):
        answer = gateway.ask(method, f"{path}&noredirect=true")
        assert (answer.status, "?" in answer.json["Location"]) == (200, True)
    assert "Location" in gateway.get("/d/a?op=GETFILECHECKSUM&noredirect=true").json


def test_create_and_append_in_two_steps(gateway: Served, source: Path) -> None:
    first = gateway.ask("PUT", "/d/new/file?op=CREATE&permission=644")
    assert (first.status, first.body) == (307, b"")
    assert not (source / "new").exists()
    assert gateway.put("/d/new/file", DATA).status == 201
    assert (source / "new/file").read_bytes() == DATA
    assert gateway.append("/d/new/file", b"end").status == 200
    assert gateway.get("/d/new/file?op=OPEN").body == DATA + b"end"
    assert gateway.put("/d/new/file", b"x").exception == "FileAlreadyExistsException"
    assert gateway.put("/d/new/file?overwrite=true", b"x").status == 201
    assert gateway.put("/d/empty", b"").status == 201
    assert (source / "empty").read_bytes() == b""
    assert gateway.put("/d/sub?overwrite=true", b"x").exception == "FileAlreadyExistsException"
    assert gateway.put("/d/a/below", b"x").exception == "ParentNotDirectoryException"
    assert gateway.put("/fixed/other", b"x").exception == "AccessControlException"
    assert gateway.put("/d/absent/x?createparent=false", b"x").exception == "FileNotFoundException"
    first = gateway.ask("POST", "/fixed/a?op=APPEND")
    assert (first.status, first.exception) == (403, "AccessControlException")
    assert gateway.append("/d/none", b"x").exception == "FileNotFoundException"
    assert gateway.append("/d/sub", b"x").exception == "FileNotFoundException"


def test_names_of_every_kind(gateway: Served, source: Path) -> None:
    for name in ("with space", "ä+ü%41", "new\nline", "q?x=1&y", "a'b\"c", "\U0001f600"):
        assert gateway.put(f"/d/{quote(name)}", name.encode()).status == 201
        assert (source / name).read_bytes() == name.encode()
        assert gateway.get(f"/d/{quote(name)}?op=OPEN").body == name.encode()
        listed = gateway.get("/d?op=LISTSTATUS").json["FileStatuses"]["FileStatus"]
        assert name in [each["pathSuffix"] for each in listed]
    target = quote("/d/sub/ä b")
    assert gateway.ask("PUT", f"/d/{quote('with space')}?op=RENAME&destination={target}").json["boolean"]
    assert (source / "sub/ä b").read_bytes() == b"with space"


def test_changes(gateway: Served, source: Path) -> None:
    def asked(method: str, path: str) -> bool:
        return bool(gateway.ask(method, path).json["boolean"])

    assert asked("PUT", "/d/x/y?op=MKDIRS&permission=755")
    assert (source / "x/y").is_dir()
    assert asked("PUT", "/d/a?op=RENAME&destination=/d/x/y/a")
    assert not asked("PUT", "/d/a?op=RENAME&destination=/d/x/y/b")
    assert gateway.ask("DELETE", "/d/x?op=DELETE").exception == "PathIsNotEmptyDirectoryException"
    assert asked("DELETE", "/d/x?op=DELETE&recursive=true")
    assert not asked("DELETE", "/d/x?op=DELETE&recursive=true")
    assert not (source / "x").exists()
    assert asked("PUT", "/d/sub/b.bin?op=SETREPLICATION&replication=2")
    assert gateway.get("/d/sub/b.bin?op=GETFILESTATUS").json["FileStatus"]["replication"] == 2
    assert gateway.ask("PUT", "/d/sub/b.bin?op=SETTIMES&modificationtime=-1&accesstime=-1").status == 200
    refused = gateway.ask("PUT", "/d/sub/b.bin?op=SETTIMES&modificationtime=1")
    assert (refused.status, refused.exception) == (400, "UnsupportedOperationException")
    assert gateway.ask("DELETE", "/d?op=DELETE&recursive=true").exception == "AccessControlException"
    for options in ("OVERWRITE", "TO_TRASH", "NONE,OVERWRITE"):
        path = f"/d/sub/b.bin?op=RENAME&destination=/d/c&renameoptions={options}"
        assert gateway.ask("PUT", path).exception == "UnsupportedOperationException"


def test_a_rename_with_options_tells_what_it_could_not_do(gateway: Served, source: Path) -> None:
    # Hadoop's client does not look at the answer then: what is no exception counts as done.
    for path, target, exception in (
        ("/d/a", "/d/sub", "FileAlreadyExistsException"),
        ("/d/a", "/d/sub/b.bin", "FileAlreadyExistsException"),
        ("/d/a", "/d/a", "FileAlreadyExistsException"),
        ("/d/none", "/d/x", "FileNotFoundException"),
        ("/d/a", "/d/none/x", "FileNotFoundException"),
        ("/d/sub", "/d/sub/x", "IOException"),
        ("/d/sub/b.bin", "/d/a/x", "ParentNotDirectoryException"),
        ("/d", "/d/x", "AccessControlException"),
        ("/d/a", "/x", "AccessControlException"),
        ("/d/a", "/fixed/x", "UnsupportedOperationException"),
    ):
        answer = gateway.ask("PUT", f"{path}?op=RENAME&destination={target}&renameoptions=NONE")
        assert (path, target, answer.exception) == (path, target, exception)
    assert sorted(os.listdir(source)) == ["a", "sub"]
    answer = gateway.ask("PUT", "/d/a?op=RENAME&destination=/d/sub/x&renameoptions=none")
    assert (answer.status, answer.body) == (200, b"")
    assert (source / "sub/x").read_bytes() == b"bytes of a"


def test_users_are_names_and_no_more(gateway: Served) -> None:
    asked = "/?op=GETHOMEDIRECTORY&user.name"
    assert gateway.get(f"{asked}=ann&doas=bob").json == {"Path": "/user/bob"}
    assert gateway.get(f"{asked}=ann%40REALM.EXAMPLE").json == {"Path": "/user/ann@REALM.EXAMPLE"}
    for user in ("a%2Fb", "..", "%00", "%0a", "%ff", "u" * 256):
        assert gateway.get(f"{asked}={user}").exception == "IllegalArgumentException"


def test_what_else_clients_ask(gateway: Served) -> None:
    summary = gateway.get("/d?op=GETCONTENTSUMMARY").json["ContentSummary"]
    assert (summary["fileCount"], summary["directoryCount"], summary["length"]) == (2, 2, len(DATA) + 10)
    checksum = gateway.get("/d/a?op=GETFILECHECKSUM").json["FileChecksum"]
    assert (checksum["algorithm"], checksum["length"]) == ("MD5-of-0MD5-of-512CRC32C", 28)
    assert gateway.get("/?op=GETHOMEDIRECTORY&user.name=ann").json == {"Path": "/user/ann"}
    assert gateway.get("/d/a?op=GETTRASHROOT&user.name=ann").json == {"Path": "/user/ann/.Trash"}
    defaults = gateway.get("/?op=GETSERVERDEFAULTS").json["FsServerDefaults"]
    assert (defaults["blockSize"], defaults["trashInterval"]) == (64 * MIB, 0)
    located = gateway.get("/d/a?op=GETFILEBLOCKLOCATIONS&offset=2&length=5").json
    (location,) = located["BlockLocations"]["BlockLocation"]
    assert (location["offset"], location["length"]) == (2, 5)
    blocks = gateway.get("/d/a?op=GET_BLOCK_LOCATIONS").json["LocatedBlocks"]
    assert (blocks["fileLength"], len(blocks["locatedBlocks"])) == (10, 1)
    assert gateway.get("/d/sub?op=GET_BLOCK_LOCATIONS").json["LocatedBlocks"]["lastLocatedBlock"] is None
    assert gateway.get("/d/a?op=CHECKACCESS&fsaction=rw-").status == 200
    assert gateway.get("/fixed/a?op=CHECKACCESS&fsaction=-w-").exception == "AccessControlException"


@pytest.mark.parametrize(("method", "op"), [(m, op) for m, each in OPERATIONS.items() for op in each])
def test_an_unknown_dataset_is_told_of_by_every_operation(gateway: Served, method: str, op: str) -> None:
    answer = gateway.ask(method, f"/none/a?op={op}&destination=/none/b&fsaction=r--&replication=1")
    if op in ("GETHOMEDIRECTORY", "GETTRASHROOT", "GETSERVERDEFAULTS"):
        assert answer.status == 200
    elif op in ("RENAME", "DELETE"):
        assert answer.json == {"boolean": False}
    else:
        assert (answer.status, answer.exception) == (404, "FileNotFoundException")


@pytest.mark.parametrize(
    ("method", "path", "status", "exception"),
    [
        ("GET", "/d/a", 400, "IllegalArgumentException"),
        ("GET", "/d/a?op=", 400, "IllegalArgumentException"),
        ("GET", "/d/a?op=NONE", 400, "UnsupportedOperationException"),
        ("PUT", "/d/a?op=OPEN", 400, "UnsupportedOperationException"),
        ("PUT", "/d/a?op=SETPERMISSION&permission=777", 400, "UnsupportedOperationException"),
        ("GET", "/d/a?op=GETXATTRS", 400, "UnsupportedOperationException"),
        ("POST", "/d/a?op=CONCAT&sources=/d/b", 400, "UnsupportedOperationException"),
        ("GET", "/d/a?op=OPEN&offset=-1", 400, "IllegalArgumentException"),
        ("GET", "/d/a?op=OPEN&offset=1e3", 400, "IllegalArgumentException"),
        ("GET", f"/d/a?op=OPEN&offset={1 << 64}", 400, "IllegalArgumentException"),
        ("GET", f"/d/a?op=OPEN&length={'9' * 5000}", 400, "IllegalArgumentException"),
        ("GET", "/d/a?op=OPEN&length=-5", 400, "IllegalArgumentException"),
        ("GET", "/d/a?op=OPEN&offset=11", 403, "IOException"),
        ("GET", "/d/a?op=OPEN&noredirect=perhaps", 400, "IllegalArgumentException"),
        ("GET", "/d/a?op=OPEN" + "&x=1" * 100, 400, "IllegalArgumentException"),
        ("GET", "/d/..%2fa?op=OPEN", 400, "IllegalArgumentException"),
        ("GET", "/d/%2e%2e/d/a?op=OPEN", 400, "IllegalArgumentException"),
        ("GET", "/d/../d/a?op=OPEN", 400, "IllegalArgumentException"),
        ("GET", "/d/%252e%252e/a?op=OPEN", 404, "FileNotFoundException"),
        ("GET", "/d/%00?op=OPEN", 400, "IllegalArgumentException"),
        ("GET", "/d/a%ff?op=OPEN", 404, "FileNotFoundException"),
        ("GET", "/d/sub?op=OPEN", 404, "FileNotFoundException"),
        ("PUT", "/d/a?op=RENAME", 400, "IllegalArgumentException"),
        ("PUT", "/d/a?op=RENAME&destination=/d/../x", 400, "IllegalArgumentException"),
        ("PUT", "/d/a?op=RENAME&destination=x", 400, "IllegalArgumentException"),
        ("PUT", "/d/a?op=SETREPLICATION&replication=0", 400, "IllegalArgumentException"),
        ("HEAD", "/d/a?op=OPEN", 400, ""),
        ("GET", "../../etc/passwd?op=OPEN", 404, "FileNotFoundException"),
    ],
)
def test_what_is_wrong_is_told(gateway: Served, method: str, path: str, status: int, exception: str) -> None:
    answer = gateway.ask(method, path)
    assert answer.status == status
    if exception:
        assert answer.exception == exception


def test_a_group_sends_clients_to_who_answers(open_cache: OpenCache, source: Path) -> None:
    class Group(NoRemote):
        gateways: tuple[str, ...] = ("other.host:9870",)

        def holders(self, dataset: str, path: str, offset: int, replicas: int = 1) -> list[Holder]:
            return [Holder("h:7070", each) for each in self.gateways]

    group = Group()
    cache = open_cache(remote=group)
    cache.attach("d", source.as_uri(), max_age=None)
    with serving(cache, own="my.host:9870") as gateway:
        answer = gateway.get("/d/a?op=OPEN&offset=2")
        assert answer.status == 307
        assert answer.headers["location"].startswith(
            "http://other.host:9870/webhdfs/v1/d/a?op=OPEN&offset=2&"
        )
        # Whoever was sent here is answered, whatever the other's view of the group is.
        again = answer.headers["location"].partition("/v1")[2]
        assert gateway.get(again).body == b"tes of a"
        for gateways in (("my.host:9870",), ("other.host:9870", "my.host:9870"), ("",), ()):
            group.gateways = gateways
            assert gateway.get("/d/a?op=OPEN").body == b"bytes of a"
        group.gateways = ("other.host:9870", "third.host:9870")
        for excluded, authority in (
            ("", "other.host:9870"),
            ("other.host:9871", "other.host:9870"),
            ("Other.Host:9870", "third.host:9870"),
            ("other.host", "third.host:9870"),
            ("third.host:9870,%20my.host:9870", "other.host:9870"),
            ("third.host,other.host:9870", None),
        ):
            answer = gateway.get(f"/d/a?op=OPEN&excludedatanodes={excluded}")
            if authority is None:
                assert answer.body == b"bytes of a"
            else:
                assert answer.headers["location"].startswith(f"http://{authority}/webhdfs/v1/d/a?op=OPEN&")


def test_who_has_a_token_is_sent_nowhere_without_asking_to_be(open_cache: OpenCache, source: Path) -> None:
    class Group(NoRemote):
        def holders(self, dataset: str, path: str, offset: int, replicas: int = 1) -> list[Holder]:
            return [Holder("h:7070", "other.host:9870")]

    cache = open_cache(remote=Group())
    cache.attach("d", source.as_uri(), max_age=None)
    token = {"Authorization": "Bearer t0"}
    with serving(cache, own="my.host:9870") as gateway:
        # Clients that follow a redirect to another host drop it, and would be refused there.
        assert gateway.ask("GET", "/d/a?op=OPEN", headers=token).body == b"bytes of a"
        told = gateway.ask("GET", "/d/a?op=OPEN&noredirect=true", headers=token).json
        assert told["Location"].startswith("http://other.host:9870/")
        assert "t0" not in told["Location"]


def test_the_client_called_hdfs(gateway: Served, source: Path, tmp_path: Path) -> None:
    client = hdfs.InsecureClient(gateway.url, user="ann", root="/")
    assert client.list("/") == ["d", "fixed"]
    assert client.status("/d/sub/b.bin")["length"] == len(DATA)
    with client.read("/d/sub/b.bin", offset=5, length=1_000) as reader:
        assert reader.read() == DATA[5:1_005]
    client.write("/d/new/x", b"hello")
    client.write("/d/new/x", b" again", append=True)
    assert (source / "new/x").read_bytes() == b"hello again"
    (tmp_path / "up").write_bytes(DATA)
    client.upload("/d/new/up", str(tmp_path / "up"))
    client.download("/d/new/up", str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == DATA
    client.rename("/d/new/x", "/d/new/y")
    assert client.list("/d/new") == ["up", "y"]
    assert [name for _, _, names in client.walk("/d/new") for name in names] == ["up", "y"]
    assert client.delete("/d/new", recursive=True)
    assert client.status("/d/new", strict=False) is None
    assert client.content("/d")["fileCount"] == 2
    with pytest.raises(hdfs.HdfsError, match="not supported"):
        client.set_permission("/d/a", "777")


def test_the_command_line_of_the_client_called_hdfs(gateway: Served, source: Path, tmp_path: Path) -> None:
    configuration = tmp_path / "hdfscli.cfg"
    configuration.write_text(
        f"[global]\ndefault.alias = here\n[here.alias]\nurl = {gateway.url}\nuser = ann\nroot = /d\n"
    )

    def hdfscli(*arguments: str) -> None:
        program = "import sys; from hdfs.__main__ import main; main(sys.argv[1:])"
        environ = os.environ | {"HDFSCLI_CONFIG": str(configuration), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], cwd=tmp_path, env=environ, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()

    (tmp_path / "up").write_bytes(DATA)
    hdfscli("upload", "up", "sub/up")
    assert (source / "sub/up").read_bytes() == DATA
    (tmp_path / "more").write_text("more")
    hdfscli("upload", "--append", "more", "sub/up")
    assert (source / "sub/up").read_bytes() == DATA + b"more"
    hdfscli("download", "sub", "down")
    assert sorted(os.listdir(tmp_path / "down")) == ["b.bin", "up"]
    assert (tmp_path / "down/b.bin").read_bytes() == DATA


def test_fsspecs_webhdfs(gateway: Served, source: Path, tmp_path: Path) -> None:
    fs = WebHDFS("127.0.0.1", port=gateway.port, user="ann", skip_instance_cache=True)
    assert fs.ls("/d", detail=False) == ["/d/a", "/d/sub"]
    assert fs.info("/d/sub/b.bin")["size"] == len(DATA)
    assert fs.cat("/d/sub/b.bin") == DATA
    assert fs.cat_file("/d/sub/b.bin", start=7, end=100_000) == DATA[7:100_000]
    large = os.urandom(6 * MIB)
    fs.makedirs("/d/fs")
    # It writes by appending, some MiB at a time.
    fs.pipe("/d/fs/large", large)
    assert (source / "fs/large").read_bytes() == large
    (tmp_path / "up").write_bytes(DATA)
    fs.put(str(tmp_path / "up"), "/d/fs/up")
    fs.mv("/d/fs/up", "/d/fs/moved")
    fs.get("/d/fs/moved", str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == DATA
    with fs.open("/d/fs/large") as file:
        file.seek(5 * MIB)
        assert file.read(10) == large[5 * MIB : 5 * MIB + 10]
    assert sorted(fs.find("/d/fs")) == ["/d/fs/large", "/d/fs/moved"]
    fs.rm("/d/fs", recursive=True)
    assert not (source / "fs").exists()


def test_what_lies_on_a_disk_is_read_by_a_thread(tmp_path: Path, source: Path) -> None:
    with Cache(tmp_path / "disk", [Tier(str(tmp_path / "tier"), 64 * MIB, "SSD")]) as cache:
        cache.attach("d", source.as_uri(), max_age=None)
        with serving(cache) as gateway:
            for _ in range(2):
                assert gateway.get("/d/sub/b.bin?op=OPEN").body == DATA
                assert gateway.get("/d/sub/b.bin?op=OPEN&offset=7&length=70000").body == DATA[7:70_007]
                assert gateway.get("/d/a?op=OPEN").body == b"bytes of a"
        # The event loop looks by this: a slow disk would stop it, and everyone's bodies with it.
        snapshot = cache.snapshot("d/a")
        assert cache.usage("d/a").cached_bytes == 10
        assert snapshot.known(0, 10) is None
        assert bytes(snapshot.read(0, 10)) == b"bytes of a"


def test_what_one_frontend_warmed_all_hit(gateway: Served, attached: Cache, source: Path) -> None:
    assert gateway.get("/fixed/sub/b.bin?op=OPEN").body == DATA
    (source / "sub/b.bin").unlink()
    # Immutable, and the storage has it no more: what comes was cached.
    with attached.open("fixed/sub/b.bin") as file:
        assert io.BufferedReader(file).read() == DATA
    assert bytes(attached.read("fixed/sub/b.bin")) == DATA
    attached.read("fixed/a").release()
    (source / "a").unlink()
    assert gateway.get("/fixed/a?op=OPEN").body == b"bytes of a"
