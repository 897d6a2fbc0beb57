"""``forebay://`` moving and removing: nothing is deleted that lies nowhere else and was to stay."""

from __future__ import annotations

from shutil import SameFileError
from typing import Any

import pytest

from tests._s3 import give_keys
from tests._s3_writes import WritableS3
from tests.integration._fsspec import Site, site

__all__ = ["site"]

TREE = {"a": b"bytes of a", "sub/b": b"bytes of b", "sub/deep/c": b"", "sub/x[1].txt": b"1"}


@pytest.fixture
def tree(site: Site) -> Site:
    for name, data in TREE.items():
        site.write(name, data)
    site.cache.attach("same", f"file://{site.folder}/", writable=True)
    return site


def found(tree: Site) -> dict[str, bytes]:
    """Return what is in the folder, past the cache."""
    files = (path for path in tree.folder.rglob("*") if path.is_file())
    return {str(path.relative_to(tree.folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("move", ["mv", "mv_file", "rename", "move"])
@pytest.mark.parametrize("target", ["d/a", "forebay://d/a", "same/a", "file://{folder}/a"])
def test_an_object_moved_onto_itself_stays(tree: Site, move: str, target: str) -> None:
    getattr(tree.fs, move)("d/a", target.format(folder=tree.folder))
    assert found(tree) == TREE


@pytest.mark.parametrize("target", ["linked/a", "d/hard", "linked/hard"])
def test_an_object_moved_onto_itself_by_a_link_stays(tree: Site, target: str) -> None:
    link = tree.folder.parent / "link to 100%"
    link.symlink_to(tree.folder)
    tree.cache.attach("linked", link.as_uri(), writable=True)
    (tree.folder / "hard").hardlink_to(tree.folder / "a")
    tree.fs.mv_file("d/a", target)
    assert found(tree)["hard"] == TREE["a"]


@pytest.mark.parametrize("by", ["name", "symbolic link", "hard link"])
def test_an_object_is_not_written_to_the_local_file_that_it_is(tree: Site, by: str) -> None:
    place = tree.folder / "a"
    if by != "name":
        place = tree.folder.parent / "link"
        (place.symlink_to if by == "symbolic link" else place.hardlink_to)(tree.folder / "a")
    with pytest.raises(SameFileError, match=str(place)):
        tree.fs.get("d/a", str(place))
    assert found(tree) == TREE


@pytest.mark.parametrize("target", ["d/", "d", "same/"])
def test_an_object_moved_into_the_directory_that_it_lies_in_stays(tree: Site, target: str) -> None:
    tree.fs.mv("d/a", target)
    assert found(tree) == TREE


@pytest.mark.parametrize("target", ["forebay://d/sub", "d", "same/"])
def test_a_directory_moved_onto_itself_stays(tree: Site, target: str) -> None:
    (tree.folder / "sub/empty").mkdir()
    tree.fs.mv("d/sub", target, recursive=True)
    assert found(tree) == TREE
    assert (tree.folder / "sub/empty").is_dir()


def test_a_directory_moved_into_itself_lies_there(tree: Site) -> None:
    tree.fs.mv("d/sub", "d/sub/in", recursive=True)
    moved = {name.replace("sub/", "sub/in/", 1): data for name, data in TREE.items()}
    assert found(tree) == moved
    assert tree.fs.find("d") == sorted(f"d/{name}" for name in moved)


def test_what_comes_while_a_directory_is_moved_is_not_deleted(
    tree: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tree.fs.copy

    def copied_meanwhile(*args: Any, **kwargs: Any) -> None:
        copy(*args, **kwargs)
        tree.write("sub/late", b"late")

    monkeypatch.setattr(tree.fs, "copy", copied_meanwhile)
    tree.fs.mv("d/sub", "d/moved", recursive=True)
    assert found(tree)["sub/late"] == b"late"
    assert found(tree)["moved/b"] == b"bytes of b"


def test_directories_go_with_what_was_in_them(tree: Site) -> None:
    tree.fs.mv("d/sub", "d/moved", recursive=True)
    assert not (tree.folder / "sub").exists()
    assert found(tree) == {name.replace("sub/", "moved/", 1): data for name, data in TREE.items()}


def test_objects_move_between_datasets_and_lists_of_them(tree: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    give_keys(monkeypatch)
    with WritableS3() as server:
        tree.cache.attach("s", "s3://bucket/x", endpoint_url=server.url, writable=True)
        tree.fs.mv(["d/a", "d/sub/b"], ["s/a", "s/deep/b"])
        assert server.objects == {"x/a": b"bytes of a", "x/deep/b": b"bytes of b"}
        tree.fs.mv("s/deep", "s/other", recursive=True)
        assert tree.fs.find("s") == ["s/a", "s/other/b"]
        tree.cache.attach("in", "s3://bucket/x/other", endpoint_url=server.url, writable=True)
        tree.fs.mv("in/b", "s/other/b")
        assert tree.fs.cat("s/other/b") == b"bytes of b"
    assert sorted(found(tree)) == ["sub/deep/c", "sub/x[1].txt"]


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        ("d/none", "d/x", FileNotFoundError),
        ("d/a", "none/a", FileNotFoundError),
        ("d/a", "fixed/b", PermissionError),
    ],
)
def test_what_cannot_be_moved_stays(tree: Site, source: str, target: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        tree.fs.mv(source, target)
    assert found(tree) == TREE


def test_an_object_of_a_version_is_not_moved(tree: Site) -> None:
    tree.cache.create_manifest("d", "v1")
    with pytest.raises(PermissionError, match="never changes"):
        tree.fs.mv_file("d@v1/a", "d/other")
    assert found(tree) == TREE


@pytest.mark.parametrize("paths", ["d/sub/**", ["d/sub/b", "d/sub", "d/sub/deep/c"], ["d/sub", "d/sub/*"]])
def test_what_lies_below_what_is_removed_goes_with_it(tree: Site, paths: Any) -> None:
    tree.write("sub.x/b", b"another")
    tree.fs.rm(paths, recursive=True)
    assert found(tree) == {"a": TREE["a"], "sub.x/b": b"another"}
    with pytest.raises(FileNotFoundError):
        tree.fs.rm("d/sub", recursive=True)
