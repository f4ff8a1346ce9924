"""Files replaced whole: what an interruption leaves, what the others may read."""

import os
import pathlib
import stat

import pytest

from nps_jax.runs import files


def names(folder):
  return sorted(each.name for each in folder.iterdir())


def test_bytes_and_text_arrive_exactly_in_folders_made_for_them(tmp_path):
  files.write_bytes(tmp_path / "a" / "b" / "raw.bin", b"\x00\r\n\xff")
  assert (tmp_path / "a" / "b" / "raw.bin").read_bytes() == b"\x00\r\n\xff"
  files.write_text(tmp_path / "text.md", "5 µm\n")
  assert (tmp_path / "text.md").read_bytes() == b"5 \xc2\xb5m\n"
  assert names(tmp_path) == ["a", "text.md"]
  assert names(tmp_path / "a" / "b") == ["raw.bin"]


def test_the_longest_name_and_any_text_can_be_written(tmp_path):
  name = "x" * 255
  files.write_text(tmp_path / name, "a \udcff")  # of a file's name that is not UTF-8
  assert (tmp_path / name).read_bytes() == b"a \\udcff"
  assert names(tmp_path) == [name]


def test_a_shorter_text_replaces_a_longer_one(tmp_path):
  files.write_text(tmp_path / "file", "long and old")
  files.write_text(tmp_path / "file", "new")
  assert (tmp_path / "file").read_text() == "new"
  assert names(tmp_path) == ["file"]


def test_others_may_read_the_file(tmp_path):
  files.write_bytes(tmp_path / "file", b"")
  assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


@pytest.mark.parametrize("stage", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interruption_leaves_the_old_file_alone(tmp_path, monkeypatch, stage, error):
  def interrupt(*_):
    raise error("no space left")

  files.write_text(tmp_path / "file", "old")
  with monkeypatch.context() as patch:
    patch.setattr(files.os, stage, interrupt)
    with pytest.raises(error, match="no space left"):
      files.write_text(tmp_path / "file", "new")
    with pytest.raises(error, match="no space left"):
      files.write_text(tmp_path / "absent", "new")
  assert names(tmp_path) == ["file"]
  assert (tmp_path / "file").read_text() == "old"


def test_the_old_file_is_whole_until_the_new_one_is(tmp_path, monkeypatch):
  seen, replace = [], files.os.replace

  def watched(source, target):
    seen.append((target.read_text(), pathlib.Path(source).read_text()))
    replace(source, target)

  files.write_text(tmp_path / "file", "old")
  monkeypatch.setattr(files.os, "replace", watched)
  files.write_text(tmp_path / "file", "new")
  assert seen == [("old", "new")]


def test_a_run_in_a_folder_that_is_not_utf8_is_refused():
  name = os.fsdecode(b"runs/caf\xe9")
  with pytest.raises(ValueError, match=r"^--workdir=runs/caf\\xe9 has a name that is"):
    files.local(name)
  assert files.local("runs/caf\\xe9 é") == pathlib.Path("runs/caf\\xe9 é")
