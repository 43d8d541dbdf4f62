import errno
import os

import pytest

from tfadv import files
from tfadv.errors import RunError


def put(path, kind, text):
    if kind == "directory":
        path.mkdir()
        path = path / "inside"
    path.write_text(text)


def content(path):
    return (path / "inside" if path.is_dir() else path).read_text()


both_kinds = pytest.mark.parametrize("kind", ["file", "directory"])


@both_kinds
@pytest.mark.parametrize("name", ["model", "old", ".hidden"])
@pytest.mark.parametrize("exists", [False, True])
def test_replacing_leaves_the_new_content_alone(tmp_path, kind, name, exists):
    path = tmp_path / name
    if exists:
        put(path, kind, "before")
    with files.replacing(path) as temporary:
        assert path.exists() == exists
        put(temporary, kind, "after")
    assert content(path) == "after"
    assert os.listdir(tmp_path) == [name]


def test_replacing_drops_what_only_the_old_directory_held(tmp_path):
    path = tmp_path / "model"
    put(path, "directory", "before")
    (path / "extra").write_text("stale")
    with files.replacing(path) as temporary:
        put(temporary, "directory", "after")
    assert os.listdir(path) == ["inside"]


def test_replacing_makes_the_parents(tmp_path):
    path = tmp_path / "a" / "b" / "c"
    with files.replacing(str(path)) as temporary:
        temporary.write_text("text")
    assert path.read_text() == "text"


@both_kinds
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_inside_the_block_changes_nothing(tmp_path, kind, error):
    path = tmp_path / "model"
    put(path, kind, "before")
    with pytest.raises(error, match="stop"), files.replacing(path) as temporary:
        put(temporary, kind, "half")
        raise error("stop")
    assert content(path) == "before"
    assert os.listdir(tmp_path) == ["model"]


def test_a_failure_leaves_nothing_where_nothing_was(tmp_path):
    with pytest.raises(ValueError), files.replacing(tmp_path / "new") as temporary:
        temporary.write_text("half")
        raise ValueError
    assert os.listdir(tmp_path) == []


@both_kinds
@pytest.mark.parametrize(
    "number, advice", [(errno.ENOSPC, "Free some space"), (errno.EIO, "")]
)
def test_an_error_of_the_disk_is_one_line(tmp_path, kind, number, advice):
    path = tmp_path / "model"
    put(path, kind, "before")
    with pytest.raises(RunError) as caught, files.replacing(path) as temporary:
        put(temporary, kind, "half")
        raise OSError(number, os.strerror(number))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message and os.strerror(number) in message
    assert ("Free some space" in message) == bool(advice)
    assert content(path) == "before"
    assert os.listdir(tmp_path) == ["model"]


@both_kinds
def test_a_block_that_writes_nothing_changes_nothing(tmp_path, kind):
    path = tmp_path / "model"
    put(path, kind, "before")
    unchanged = pytest.raises(RunError, match="Nothing that was there has been changed")
    with unchanged, files.replacing(path):
        pass
    assert content(path) == "before"
    assert os.listdir(tmp_path) == ["model"]


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(RunError, match="cannot write"):
        files.write_json(tmp_path / "file" / "a.json", {})
    assert (tmp_path / "file").read_text() == "text"


def test_json_round_trip(tmp_path):
    value = {"a": [1, 2.5, None, "é"], "b": {"c": True}}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json", "it") == value


def test_a_value_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    files.write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", {"a": object()})
    assert files.read_json(tmp_path / "a.json", "it") == 1


@pytest.mark.parametrize("damage", [b"", b'{"a": 1', b"\xff\xfe", "directory", None])
def test_json_that_cannot_be_read(tmp_path, damage):
    path = tmp_path / "a.json"
    if damage == "directory":
        path.mkdir()
    elif damage is not None:
        path.write_bytes(damage)
    with pytest.raises(RunError) as caught:
        files.read_json(path, "the thing")
    assert str(caught.value).startswith("the thing: ")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_being_written_is_no_leftover(tmp_path):
    path = tmp_path / "file"
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        files.remove_leftovers(tmp_path)
    assert path.read_text() == "new"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_directory_killed_between_its_two_renames_is_put_in_place(tmp_path, replaced):
    """Unless another was put there since."""
    holder = tmp_path / ".writing-x"
    for name, text in (("new/set", "new"), ("old", "old")):
        (holder / name).mkdir(parents=True)
        (holder / name / "file").write_text(text)
    if replaced:
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "file").write_text("later")
    files.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    expected = "later" if replaced else "new"
    assert (tmp_path / "set" / "file").read_text() == expected


def test_a_directory_that_was_never_complete_is_removed(tmp_path):
    (tmp_path / ".writing-x" / "new" / "set").mkdir(parents=True)
    files.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_does_not_take_the_place_of_a_directory(tmp_path):
    """As where somebody writes --output=runs."""
    put(tmp_path / "runs", "directory", "before")
    with pytest.raises(RunError, match="cannot write"):
        files.write_json(tmp_path / "runs", {})
    assert content(tmp_path / "runs") == "before"
    assert os.listdir(tmp_path) == ["runs"]
