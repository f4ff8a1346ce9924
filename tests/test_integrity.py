"""Sums of files and folders: what sha256sum says, and every change noticed."""

import hashlib
import pathlib
import subprocess

import numpy as np
import pytest

from nps_jax.runs import integrity


def folder(place: pathlib.Path) -> pathlib.Path:
  for name, content in (("a b.bin", b"\0\1\2"), ("inner/ü.txt", b"text"), ("e", b"")):
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(content)
  integrity.seal(place)
  return place


def test_a_file_comes_back_with_its_sum_beside_it(tmp_path):
  path = tmp_path / "config.json"
  integrity.write(path, b"{}")
  assert integrity.read(path, "Fix it.") == b"{}"
  want = hashlib.sha256(b"{}").hexdigest()
  assert (tmp_path / "config.sha256").read_text() == f"{want}  config.json\n"


def test_every_flip_in_a_file_or_its_sum_is_noticed(tmp_path):
  path = tmp_path / "a.bin"
  integrity.write(path, bytes(range(20)))
  for each in (path, tmp_path / "a.sha256"):
    content = each.read_bytes()
    for at in range(len(content)):
      for bit in range(8):
        changed = bytearray(content)
        changed[at] ^= 1 << bit
        each.write_bytes(changed)
        with pytest.raises(ValueError, match=r"a\.bin is damaged: .* Fix it\."):
          integrity.read(path, "Fix it.")
    each.write_bytes(content)
  assert integrity.read(path, "Fix it.") == bytes(range(20))


@pytest.mark.parametrize("name", ["a.bin", "a.sha256"])
def test_what_is_missing_is_named(tmp_path, name):
  integrity.write(tmp_path / "a.bin", b"")
  (tmp_path / name).unlink()
  with pytest.raises(FileNotFoundError, match=rf"{name} is missing\. Fix it\."):
    integrity.read(tmp_path / "a.bin", "Fix it.")


def test_an_interruption_between_sum_and_file_leaves_no_file(tmp_path, monkeypatch):
  def stop(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(integrity.files, "write_bytes", stop)
  monkeypatch.setattr(
    integrity.files, "write_text", lambda path, text: path.write_text(text)
  )
  with pytest.raises(KeyboardInterrupt):
    integrity.write(tmp_path / "a.bin", b"1")
  assert [each.name for each in tmp_path.iterdir()] == ["a.sha256"]


def test_the_sums_of_a_folder_are_those_of_sha256sum(tmp_path):
  done = subprocess.run(
    ["sha256sum", "--check", "--strict", integrity.SUMS],
    cwd=folder(tmp_path),
    capture_output=True,
    text=True,
    check=True,
  )
  assert sorted(done.stdout.splitlines()) == [
    *("a b.bin: OK", "e: OK", "inner/ü.txt: OK")
  ]


def test_a_sealed_folder_is_whole_until_something_changes(tmp_path):
  folder(tmp_path)
  assert integrity.breach(tmp_path) is None
  (tmp_path / "a b.bin").write_bytes(b"\0\1\3")
  told = "the SHA-256 of a b.bin is not that in SHA256SUMS"
  assert integrity.breach(tmp_path) == told
  (tmp_path / "a b.bin").unlink()
  assert integrity.breach(tmp_path) == "a b.bin is missing"
  folder(tmp_path)
  (tmp_path / "inner/new").touch()
  assert integrity.breach(tmp_path) == "inner/new is not in SHA256SUMS"


def test_every_flip_in_the_sums_is_noticed(tmp_path):
  path = folder(tmp_path) / integrity.SUMS
  content = path.read_bytes()
  for at in range(len(content)):
    for bit in range(8):
      changed = bytearray(content)
      changed[at] ^= 1 << bit
      path.write_bytes(changed)
      assert integrity.breach(tmp_path) is not None


def test_an_unsealed_folder_says_nothing(tmp_path):
  (tmp_path / "a").touch()
  assert integrity.breach(tmp_path) is None


def test_the_sum_of_an_array_tells_type_shape_and_value():
  base = np.arange(6, dtype=np.float32).reshape(2, 3)
  want = hashlib.sha256(b"<f4 (2, 3) " + base.tobytes()).hexdigest()
  assert integrity.array_sum(base) == want
  assert integrity.array_sum(np.asfortranarray(base)) == want
  for other in (base.reshape(3, 2), base.astype(np.int32), base + 1e-6, -base):
    assert integrity.array_sum(other) != want


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interrupted_replacement_leaves_the_old_file_or_the_new(
  tmp_path, monkeypatch, at
):
  path, writes = tmp_path / "a.bin", []
  integrity.write(path, b"old")
  put = integrity.files.write_bytes

  def stop(*given):
    writes.append(given)
    if len(writes) == at:
      raise KeyboardInterrupt
    put(*given)

  with monkeypatch.context() as patch:
    patch.setattr(integrity.files, "write_bytes", stop)
    with pytest.raises(KeyboardInterrupt):
      integrity.write(path, b"new")
  assert integrity.read(path, "") == (b"old" if at < 3 else b"new")
  integrity.write(path, b"newer")
  assert integrity.read(path, "") == b"newer"
  assert len((tmp_path / "a.sha256").read_text().splitlines()) == 1
