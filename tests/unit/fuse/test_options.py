"""Mount options, as they stand behind -o and in fstab."""

from __future__ import annotations

import stat

import pytest

from forebay.errors import ConfigError
from forebay.fuse.attributes import Appearance
from forebay.fuse.options import MountOptions


def test_what_is_said_later_holds() -> None:
    options = MountOptions().with_text("ro,umask=077,fmask=0177").with_text("rw,uid=5,")
    assert options == MountOptions(read_only=False, fmask=0o177, dmask=0o077, uid=5)


def test_what_is_others_is_let_pass() -> None:
    text = "defaults,_netdev,nofail,x-systemd.automount,x-gvfs-show,comment=words,nodev,user=me,relatime"
    assert MountOptions().with_text(text) == MountOptions()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("defaults,relatime,nodiratime,nodev", set()),
        ("noexec,noatime,sync,allow_other", {"noexec", "noatime", "sync", "allow_other"}),
        ("user,noexec,nosuid,nodev,exec", set()),
        ("sync,noatime,async,atime,noexec", {"noexec"}),
    ],
)
def test_what_the_kernel_can_see_to_it_is_told(text: str, words: set[str]) -> None:
    assert MountOptions().with_text(text).of_kernel() == {"nodev", "nosuid"} | words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("allow_othr", "'allow_othr' is unknown.*allow_other.*there are"),
        ("ro=1", "'ro' takes no value"),
        ("uid=root", "'uid': 'root' is no id of a user"),
        ("uid=-1", "'uid'"),
        ("gid=4294967295", "'gid'"),
        ("umask=9", "'umask': '9' is no mask in octal digits"),
        ("fmask", "'fmask'"),
        ("dmask=1000", "'dmask'"),
        ("dev", "'dev' is refused: a mount is always nodev"),
        ("ro,suid", "'suid' is refused"),
        ("noexec=1", "'noexec' takes no value"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MountOptions().with_text(text)


@pytest.mark.parametrize(
    ("text", "read_only", "file", "directory"),
    [
        ("", True, "-r--r--r--", "dr-xr-xr-x"),
        ("", False, "-rw-r--r--", "drwxr-xr-x"),
        ("umask=027", True, "-r-xr-x---", "dr-xr-x---"),
        ("fmask=0777,dmask=0", False, "----------", "drwxrwxrwx"),
    ],
)
def test_modes(text: str, read_only: bool, file: str, directory: str) -> None:
    appearance = Appearance(MountOptions().with_text(text), read_only=read_only)
    assert stat.filemode(appearance.file_mode) == file
    assert stat.filemode(appearance.directory_mode) == directory
