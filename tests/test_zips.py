"""Zips are unpacked whole or not at all (data/zips.py), by archives.unpack."""

import stat
import zipfile

import pytest

from nps_jax.data import archives
from nps_jax.data import zips

PLAIN = {"nuts/a.txt": b"apple", "nuts/test/b.bin": bytes(range(256)) * 300}


def packed(path, *members):
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
    for name, content in (*PLAIN.items(), *members):
      file.writestr(name, content)
  return path


def linked(name):
  member = zipfile.ZipInfo(name)
  member.external_attr = (stat.S_IFLNK | 0o777) << 16
  return member


def assert_refused(archive, folder, message):
  with pytest.raises(ValueError, match=message) as caught:
    archives.unpack(archive, folder / "new" / "out")
  assert str(archive) in str(caught.value)
  assert not (folder / "new").exists()


def test_a_zip_is_unpacked_whatever_its_name(tmp_path):
  archive = packed(tmp_path / "some.name", ("nuts/empty/", b""))
  archives.unpack(archive, tmp_path / "new" / "out")
  out = tmp_path / "new" / "out"
  for name, content in PLAIN.items():
    assert (out / name).read_bytes() == content
  assert (out / "nuts" / "empty").is_dir() and len(
    list((tmp_path / "new").iterdir())
  ) == 1
  with pytest.raises(ValueError, match="exists already"):
    archives.unpack(archive, out)
  with archives.as_folder(str(archive), tmp_path / "deep" / "out") as folder:
    assert (folder / "nuts" / "a.txt").read_bytes() == b"apple"


@pytest.mark.parametrize(
  ("member", "reason"),
  [
    ("/tmp/evil", r"/tmp/evil \(an absolute path\)"),
    ("nuts/../../evil", r"nuts/\.\./\.\./evil \(a path with \.\.\)"),
    ("..\\evil", r"\.\.\\evil \(a path with \.\.\)"),
    (linked("nuts/out"), r"nuts/out \(a link, a device or a pipe\)"),
  ],
)
def test_unsafe_members_are_refused_by_name(tmp_path, member, reason):
  archive = packed(tmp_path / "a.zip", (member, b"x"))
  assert_refused(archive, tmp_path, f"not safe to unpack; nothing.*: {reason}")


def test_an_encrypted_member_is_refused(tmp_path):
  content = bytearray(packed(tmp_path / "a.zip").read_bytes())
  for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
    content[content.index(mark) + at] |= zips.ENCRYPTED
  (tmp_path / "a.zip").write_bytes(content)
  assert_refused(tmp_path / "a.zip", tmp_path, r"nuts/a\.txt \(encrypted\)")


def test_damaged_and_cut_zips_are_refused(tmp_path):
  whole = packed(tmp_path / "whole.zip").read_bytes()
  for cut in (5, len(whole) // 2, len(whole) - 5):
    (tmp_path / "a.zip").write_bytes(whole[:cut])
    assert_refused(tmp_path / "a.zip", tmp_path, r"is damaged or cut short \(.*intact")
  for at in (45, whole.index(b"b.bin") + 20):
    flipped = bytearray(whole)
    flipped[at] ^= 255
    (tmp_path / "a.zip").write_bytes(flipped)
    assert_refused(tmp_path / "a.zip", tmp_path, r"is damaged or cut short \(")


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
  archive = packed(tmp_path / "a.zip")

  def fail(*_, **__):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(zipfile.ZipFile, "extractall", fail)
  with pytest.raises(OSError, match="No space left on device"):
    archives.unpack(archive, tmp_path / "new" / "out")
  assert not list((tmp_path / "new").iterdir())
