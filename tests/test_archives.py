"""Archives are unpacked whole or not at all, buckets are copied (data/archives.py)."""

import io
import tarfile

from etils.epath import backend
import fsspec
from fsspec.implementations import local
import pytest

from nps_jax.data import archives

PLAIN = {"juice/a.txt": b"apple", "juice/test/b.bin": bytes(range(256)) * 300}


def member(name, content=b"", kind=tarfile.REGTYPE, target=""):
  found = tarfile.TarInfo(name)
  found.size, found.type, found.linkname = len(content), kind, target
  return found, content


def packed(path, mode="w", members=()):
  with tarfile.open(path, mode) as tar:
    for name, content in PLAIN.items():
      tar.addfile(*with_file(*member(name, content)))
    for each in members:
      tar.addfile(*with_file(*each))
  return path


def with_file(info, content):
  return info, io.BytesIO(content)


def held(folder):
  files = (each for each in folder.rglob("*") if each.is_file())
  return {each.relative_to(folder).as_posix(): each.read_bytes() for each in files}


def assert_refused(archive, folder, message, kind=ValueError):
  """No part of the archive is left, in its place or beside it."""
  before = sorted(folder.rglob("*"))
  with pytest.raises(kind, match=message) as caught:
    archives.unpack(archive, folder / "new" / "juice")
  assert str(archive) in str(caught.value)
  assert [each for each in sorted(folder.rglob("*")) if each.name != "new"] == before
  return str(caught.value)


@pytest.mark.parametrize("form", ["", "gz", "bz2", "xz"])
def test_every_kind_is_unpacked_with_the_links_within(tmp_path, form):
  links = (
    member("juice/link", kind=tarfile.SYMTYPE, target="test/../a.txt"),
    member("juice/test/up", kind=tarfile.SYMTYPE, target="../a.txt"),
    member("juice/test/twin", kind=tarfile.LNKTYPE, target="juice/a.txt"),
  )
  archive = packed(tmp_path / "some.name", f"w:{form}", links)
  archives.unpack(archive, tmp_path / "new" / "out")
  names = ("juice/link", "juice/test/up", "juice/test/twin")
  assert held(tmp_path / "new" / "out") == PLAIN | dict.fromkeys(names, b"apple")
  assert [each.name for each in (tmp_path / "new").iterdir()] == ["out"]


@pytest.mark.parametrize(
  ("unsafe", "reason"),
  [
    (member("/tmp/evil", b"x"), r"/tmp/evil \(an absolute path\)"),
    (member("../evil", b"x"), r"\.\./evil \(a path with \.\.\)"),
    (member("juice/../../evil", b"x"), r"juice/\.\./\.\./evil \(a path with"),
    (
      member("juice/out", kind=tarfile.SYMTYPE, target="../../evil"),
      r"juice/out \(a link to \.\./\.\./evil\)",
    ),
    (member("root", kind=tarfile.SYMTYPE, target="/etc"), r"root \(a link to /etc\)"),
    (
      member("juice/hard", kind=tarfile.LNKTYPE, target="../evil"),
      r"juice/hard \(a link to \.\./evil\)",
    ),
    (member("null", kind=tarfile.CHRTYPE), r"null \(a device or a pipe\)"),
    (member("disk", kind=tarfile.BLKTYPE), r"disk \(a device or a pipe\)"),
    (member("pipe", kind=tarfile.FIFOTYPE), r"pipe \(a device or a pipe\)"),
  ],
)
def test_unsafe_members_are_refused_by_name(tmp_path, unsafe, reason):
  archive = packed(tmp_path / "bad.tar.xz", "w:xz", [unsafe])
  shown = assert_refused(archive, tmp_path, f"not safe to unpack; nothing.*: {reason}")
  assert "a.txt" not in shown


def test_ways_through_links_are_refused(tmp_path):
  """Each of these links stays within, but together they lead out."""
  chain = [
    member("here", kind=tarfile.SYMTYPE, target="."),
    member("above", kind=tarfile.SYMTYPE, target="here/../evil"),
    member("here/file", b"x"),
    member("twin", kind=tarfile.LNKTYPE, target="here/juice/a.txt"),
  ]
  archive = packed(tmp_path / "a.tar", members=chain)
  shown = assert_refused(archive, tmp_path, "not safe to unpack")
  assert "above (a link to here/../evil), here/file (a path through a link)" in shown
  assert "twin (a link to here/juice/a.txt)" in shown and "here (" not in shown


def test_many_unsafe_members_are_counted(tmp_path):
  archive = packed(tmp_path / "a.tar", members=[member(f"/{i}") for i in range(30)])
  assert_refused(archive, tmp_path, r"/9 \(an absolute path\) and 20 more")


@pytest.mark.parametrize("form", ["", "gz", "bz2", "xz"])
def test_damaged_and_cut_archives_are_refused(tmp_path, form):
  noise = member("juice/noise", bytes(i * i % 251 for i in range(60000)))
  whole = packed(tmp_path / "whole", f"w:{form}", [noise]).read_bytes()
  for cut in (1, 300, len(whole) // 2, len(whole) - 5):
    if not form and cut == len(whole) - 5:
      continue  # only zeros behind the end are lost
    archive = tmp_path / "cut.tar"
    archive.write_bytes(whole[:cut])
    assert_refused(archive, tmp_path, r"is damaged, cut short, or no tar archive \(")
  flipped = bytearray(whole)
  flipped[len(whole) // 2 if form else 1024 + 100] ^= 255  # or the second header
  (tmp_path / "flipped.tar").write_bytes(flipped)
  assert_refused(tmp_path / "flipped.tar", tmp_path, "bring an intact copy")


def test_an_archive_cut_between_members_is_refused(tmp_path):
  whole = packed(tmp_path / "whole.tar").read_bytes()
  (tmp_path / "cut.tar").write_bytes(whole[:1024])  # the first member alone
  assert_refused(tmp_path / "cut.tar", tmp_path, "it ends without the mark of an end")


def test_what_is_no_archive_is_refused(tmp_path):
  for name, content in (("empty.tar", b""), ("words.tar.xz", b"no archive" * 200)):
    (tmp_path / name).write_bytes(content)
    assert_refused(tmp_path / name, tmp_path, "no tar archive")
  with tarfile.open(tmp_path / "none.tar", "w"):
    pass
  assert_refused(tmp_path / "none.tar", tmp_path, "holds nothing")
  assert_refused(tmp_path / "lost.tar", tmp_path, "no file", FileNotFoundError)
  with pytest.raises(ValueError, match="exists already"):
    archives.unpack(packed(tmp_path / "a.tar"), tmp_path)


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
  archive = packed(tmp_path / "a.tar")

  def fail(self, source, *_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(tarfile.TarFile, "makefile", fail)
  with pytest.raises(OSError, match="No space left on device"):
    archives.unpack(archive, tmp_path / "new" / "juice")
  assert not list((tmp_path / "new").iterdir())


def test_a_folder_is_itself_and_an_archive_is_gone_afterwards(tmp_path):
  with archives.as_folder(str(tmp_path), tmp_path / "out") as found:
    assert found == tmp_path
  for name in ("few.tar.xz", "few.tgz", "few.tar"):
    archive = packed(tmp_path / name, "w:xz")
    with archives.as_folder(str(archive), tmp_path / "deep" / "out") as found:
      assert held(found) == PLAIN and found.name == "few"
      assert found.parent.parent == tmp_path / "deep"
    assert not list((tmp_path / "deep").iterdir())
  with pytest.raises(FileNotFoundError, match=r"lost does not exist; .* holds .*few"):
    archives.as_folder(str(tmp_path / "lost"), tmp_path / "out").__enter__()


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """The folder that stands for gs://bucket."""
  place = tmp_path / "remote"

  class Bucket(local.LocalFileSystem):
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
      path = str(path).rstrip("/")
      return path.replace("gs://bucket", str(place))

  systems = {"gcs": Bucket, "file": local.LocalFileSystem}
  monkeypatch.setattr(fsspec, "filesystem", lambda name, **_: systems[name]())
  forget = backend.fsspec_backend._get_filesystem.cache_clear
  forget()
  yield place
  forget()


def test_a_bucket_is_copied_and_its_archives_unpacked(tmp_path, bucket):
  for name, content in PLAIN.items():
    path = bucket / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  packed(bucket / "few.tar.gz", "w:gz")
  for source, name in (("data/", "data"), ("data", "data"), ("few.tar.gz", "few")):
    with archives.as_folder(f"gs://bucket/{source}", tmp_path / "in" / "out") as found:
      assert held(found) == PLAIN and found.name == name
    assert not list((tmp_path / "in").iterdir())
  with pytest.raises(FileNotFoundError, match="gs://bucket/lost does not exist"):
    archives.as_folder("gs://bucket/lost", tmp_path / "out").__enter__()


def test_a_bucket_without_its_client_says_what_to_install(tmp_path, monkeypatch):
  def fail(*_, **__):
    raise ImportError("no module")

  monkeypatch.setattr(fsspec, "filesystem", fail)
  backend.fsspec_backend._get_filesystem.cache_clear()
  with pytest.raises(ValueError, match=r"gs://bucket/a needs .*: pip install gcsfs"):
    archives.as_folder("gs://bucket/a", tmp_path / "out").__enter__()
  with pytest.raises(
    ValueError, match=r"in no bucket .*; expected gs://, s3://, az://"
  ):
    archives.as_folder("ftp://host/a", tmp_path / "out").__enter__()
  assert not list(tmp_path.iterdir())
