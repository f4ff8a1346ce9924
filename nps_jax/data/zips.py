"""Zip archives, which are unpacked whole or not at all."""

import lzma
import pathlib
import stat
import tempfile
import zipfile
import zlib

from absl import logging

from nps_jax.data import listing

MAGIC = b"PK\x03\x04"  # begins one that holds something
ENCRYPTED = 0x1  # in a member's flags


def is_zip(path: pathlib.Path) -> bool:
  with path.open("rb") as file:
    return file.read(len(MAGIC)) == MAGIC


def unpack(archive: pathlib.Path, into: pathlib.Path) -> None:
  """Unpacks a zip as the new folder `into`.

  All of it is read and checked before the first file is written, beside `into`.

  Raises:
    ValueError: it is damaged or cut short; a member would lie outside of `into`, is no
      file or folder, or is encrypted.
    OSError: the disk is full, or the like.
  """
  try:
    with zipfile.ZipFile(archive) as file:
      logging.info("Checking %s.", archive)
      reasons = [(member.filename, _fault(member)) for member in file.infolist()]
      unsafe = [f"{name} ({reason})" for name, reason in reasons if reason]
      damaged = None if unsafe else file.testzip()
  except (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,  # an unusual compression
  ) as error:
    raise ValueError(_damage(archive, str(error))) from error
  if unsafe:
    raise ValueError(
      f"{archive} is not safe to unpack; nothing was. Members: {listing.some(unsafe)}."
    )
  if damaged:
    raise ValueError(_damage(archive, f"the checksum of {damaged} is wrong"))
  into.parent.mkdir(parents=True, exist_ok=True)
  with (
    tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}.") as temporary,
    zipfile.ZipFile(archive) as file,
  ):
    logging.info("Unpacking %s.", archive)
    unpacked = pathlib.Path(temporary) / into.name
    unpacked.mkdir()
    file.extractall(unpacked)
    unpacked.rename(into)


def _fault(member: zipfile.ZipInfo) -> str | None:
  """Why the member must not be unpacked."""
  name = pathlib.PurePosixPath(member.filename.replace("\\", "/"))
  kind = stat.S_IFMT(member.external_attr >> 16)
  if name.is_absolute():
    return "an absolute path"
  if ".." in name.parts:
    return "a path with .."
  if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
    return "a link, a device or a pipe"
  if member.flag_bits & ENCRYPTED:
    return "encrypted"
  return None


def _damage(archive: pathlib.Path, reason: str) -> str:
  return f"{archive} is damaged or cut short ({reason}). Bring an intact copy."
