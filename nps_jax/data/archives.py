"""Data sets that are no local folder yet: archives, and what lies in a bucket."""

from collections.abc import Collection, Iterable, Iterator
from concurrent import futures
import contextlib
import lzma
import pathlib
import tarfile
import tempfile
import zlib

from absl import logging
from etils import epath

from nps_jax.data import listing
from nps_jax.data import zips

PIECE = 2**20  # bytes read at a time
COPY_THREADS = 8  # they wait for the network
CLIENTS = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}  # packages, by a bucket's scheme


@contextlib.contextmanager
def as_folder(source: str, beside: pathlib.Path) -> Iterator[pathlib.Path]:
  """The source as a local folder: an archive is unpacked, a bucket's files are copied.

  These lie in a temporary folder next to `beside`, which is gone afterwards.

  Args:
    source: a folder or a tar or zip archive, here or in a bucket (gs://, s3:// or az://).

  Raises:
    FileNotFoundError: there is no such source.
    ValueError: as `unpack` does; the bucket cannot be read.
  """
  scheme, bucket, _ = source.partition("://")
  place = pathlib.Path(source).expanduser()
  if not bucket and not place.exists():
    near = next(parent for parent in place.absolute().parents if parent.exists())
    raise FileNotFoundError(
      f"{source} does not exist; {near} holds {listing.contents(near)}."
    )
  if not bucket and place.is_dir():
    yield place
    return
  beside.absolute().parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(
    dir=beside.absolute().parent, prefix=f".{beside.name}."
  ) as temporary:
    if bucket:
      place = pathlib.Path(temporary) / "copied" / pathlib.PurePosixPath(source).name
      fetch(source, scheme, place)
    if not place.is_dir():
      name = place.with_suffix("").name.removesuffix(".tar")
      unpack(place, pathlib.Path(temporary) / name)
      place = pathlib.Path(temporary) / name
    yield place


def fetch(source: str, scheme: str, into: pathlib.Path) -> None:
  """Copies a file or a folder out of a bucket.

  Raises:
    FileNotFoundError: the bucket has nothing there.
    ValueError: the bucket cannot be read, or its kind is unknown.
  """
  if scheme not in CLIENTS:
    schemes = ", ".join(f"{name}://" for name in CLIENTS)
    raise ValueError(f"{source} is in no bucket that can be read; expected {schemes}.")
  try:
    remote = epath.Path(source)
    if not remote.exists():
      raise FileNotFoundError(f"{source} does not exist, or you may not see it.")
    logging.info("Copying %s.", source)
    pairs = list(_pairs(remote, into))
    for _, target in pairs:
      target.parent.mkdir(parents=True, exist_ok=True)
    with futures.ThreadPoolExecutor(COPY_THREADS) as pool:
      list(pool.map(lambda pair: pair[0].copy(pair[1], overwrite=True), pairs))
  except ImportError as error:
    raise ValueError(
      f"{source} needs another package: pip install {CLIENTS[scheme]} ({error})"
    ) from error


def _pairs(
  remote: epath.Path, local: pathlib.Path
) -> Iterator[tuple[epath.Path, pathlib.Path]]:
  """Each file below a place in a bucket, and where its copy goes."""
  if not remote.is_dir():
    yield remote, local
    return
  for child in remote.iterdir():
    if child != remote:  # some buckets list a folder within itself
      yield from _pairs(child, local / child.name)


def unpack(archive: pathlib.Path, into: pathlib.Path) -> None:
  """Unpacks a zip, or a tar archive, plain or compressed, as the new folder `into`.

  All of it is read and checked before the first file is written, beside `into`.

  Raises:
    FileNotFoundError: there is no such archive.
    ValueError: it is damaged, cut short or no archive; a member would lie or lead
      outside of `into`, or is a device; `into` exists.
    OSError: the disk is full, or the like.
  """
  if into.exists():
    raise ValueError(f"{into} exists already. Remove it, or choose another folder.")
  if not archive.is_file():
    raise FileNotFoundError(f"There is no file {archive} to unpack.")
  if zips.is_zip(archive):
    zips.unpack(archive, into)
    return
  try:
    with tarfile.open(archive) as tar:
      logging.info("Checking %s.", archive)
      members = tar.getmembers()
      _read_to_the_end(tar)
  except (tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
    reason = str(error).partition("\n")[0]  # tarfile adds a line for each compression
    raise ValueError(
      f"{archive} is damaged, cut short, or no tar archive ({reason}). Expected .tar, "
      ".tar.gz, .tar.bz2, .tar.xz or .zip; bring an intact copy."
    ) from error
  if not members:
    raise ValueError(f"{archive} holds nothing.")
  if unsafe := faults(members):
    raise ValueError(
      f"{archive} is not safe to unpack; nothing was. Members: {listing.some(unsafe)}."
    )
  into.parent.mkdir(parents=True, exist_ok=True)
  with (
    tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}.") as temporary,
    tarfile.open(archive) as tar,
  ):
    logging.info("Unpacking %s.", archive)
    unpacked = pathlib.Path(temporary) / into.name
    unpacked.mkdir()
    try:
      tar.extractall(unpacked, filter="data")  # which checks once more
    except tarfile.FilterError as error:
      raise ValueError(f"{archive} is not safe to unpack: {error}") from error
    unpacked.rename(into)


def faults(members: Iterable[tarfile.TarInfo]) -> list[str]:
  """The members that must not be unpacked, each with the reason."""
  members = list(members)
  links = {
    pathlib.PurePosixPath(member.name)
    for member in members
    if member.issym() or member.islnk()
  }
  reasons = [(member.name, _fault(member, links)) for member in members]
  return [f"{name} ({reason})" for name, reason in reasons if reason]


def _fault(
  member: tarfile.TarInfo, links: Collection[pathlib.PurePosixPath]
) -> str | None:
  name = pathlib.PurePosixPath(member.name)
  if name.is_absolute():
    return "an absolute path"
  if ".." in name.parts:
    return "a path with .."
  if any(parent in links for parent in name.parents):
    return "a path through a link"
  if member.issym() or member.islnk():
    start = name.parent.parts if member.issym() else ()
    target = pathlib.PurePosixPath(member.linkname)
    if target.is_absolute() or _leads_out((*start, *target.parts), links):
      return f"a link to {target}"
  elif not (member.isreg() or member.isdir()):
    return "a device or a pipe"
  return None


def _leads_out(steps: Iterable[str], links: Collection[pathlib.PurePosixPath]) -> bool:
  """Whether a way through the archive leads out of it, or through another link."""
  place = top = pathlib.PurePosixPath()
  for step in steps:
    if place in links or (step == ".." and place == top):
      return True
    place = place.parent if step == ".." else place / step
  return False


def _read_to_the_end(tar: tarfile.TarFile) -> None:
  """Has checksums compared, and finds what tarfile takes for an early end."""
  tar.fileobj.seek(tar.offset)
  if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
    raise tarfile.ReadError("it ends without the mark of an end")
  while tar.fileobj.read(PIECE):
    pass
