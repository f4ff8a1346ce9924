"""Public data sets in one command: downloaded, checked, unpacked.

python -m nps_jax.data.fetch --name=mvtec_loco --out=DATA --accept-licence

Without --accept-licence it says what the licence is and how much there is to download,
and does nothing. The same command goes on with what was broken off, and does nothing
where DATA is complete. Until then all lies beside it, in DATA.download. An archive that
was fetched by hand is taken by --from=FILE (once for each, where there are several).
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import hashlib
import json
import pathlib
import shutil
import tempfile

from absl import logging
import filelock

from nps_jax import console
from nps_jax.data import archives
from nps_jax.data import catalogue
from nps_jax.data import download
from nps_jax.data import folder
from nps_jax.data import listing
from nps_jax.data import naming
from nps_jax.runs import files

MARK = ".fetched.json"  # in a complete folder: of what it was made
LOCK = ".running"


def fetch(
  data: catalogue.DataSet,
  out: pathlib.Path,
  by_hand: Sequence[pathlib.Path] = (),
  patience: download.Patience = download.PATIENCE,
) -> dict[str, int]:
  """Makes the folder `out`, whole or not at all; returns its images by split.

  Args:
    by_hand: archives that are here already.

  Raises:
    FileNotFoundError: one of these does not exist.
    ValueError: `out` holds something else; an archive is not the one that was expected,
      is damaged or unsafe; there is no room; as `download.fetch` does.
    ConnectionError: as `download.fetch` does.
  """
  out = out.expanduser().absolute()
  if (images := _complete(data, out)) is not None:
    return images
  work = out.with_name(f"{out.name}.download")
  with _alone(work):
    wanted = data.archives or _read_record(data.record, work, patience)
    paths = _match(wanted, by_hand)
    _check_room(work, sum(one.size for one in wanted), bool(by_hand))
    for archive in wanted:
      if archive.file not in paths:
        paths[archive.file] = work / archive.file
        if not paths[archive.file].exists():
          logging.info("Downloading %s.", archive.url)
          download.fetch(archive.url, paths[archive.file], patience, archive.size)
      _check_sum(paths[archive.file], archive, data.page, work)
    unpacked = _unpack(paths, work / "unpacked")
    _arrange(data, unpacked)
    images = count(unpacked)
    _compare(data, images)
    mark = {"title": data.title, "sums": {one.file: one.sum for one in wanted}}
    files.write_text(unpacked / MARK, json.dumps(mark | {"images": images}, indent=2))
    unpacked.rename(out)
    shutil.rmtree(work)
  return images


def describe(data: catalogue.DataSet) -> str:
  """What to know before a download."""
  source = data.record or data.archives[0].url
  return (
    f"{data.title}: {_amount(data.size)} to download, and about as much unpacked.\n"
    f"Licence: {data.licence}\n  ({data.terms}). More: {data.page}\nFrom: {source}"
  )


def count(root: pathlib.Path) -> dict[str, int]:
  """The images of all categories by split, without masks."""
  places = [root] if folder.is_category(root) else listing.folders(root)
  images = dict.fromkeys(naming.SPLITS, 0)
  for category in places:
    for split in naming.SPLITS:
      if place := naming.find_split(category, split):
        images[split] += sum(
          listing.is_image(path)
          for path in listing.walk(place)
          if naming.TRUTH not in path.relative_to(place).parts
        )
  return {split: number for split, number in images.items() if number}


def _complete(data: catalogue.DataSet, out: pathlib.Path) -> dict[str, int] | None:
  """The images of a folder that is there already; None if it is still to be made.

  Raises:
    ValueError: something else is there.
  """
  try:
    mark = json.loads((out / MARK).read_text(encoding="utf-8"))
    if mark["title"] == data.title:
      return mark["images"]
  except (OSError, ValueError, KeyError, TypeError):
    pass
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise ValueError(
      f"{out} exists and is not {data.title} as this command makes it; it holds "
      f"{listing.contents(out)}. Remove it, or give another --out."
    )
  return None


@contextlib.contextmanager
def _alone(work: pathlib.Path) -> Iterator[None]:
  """The folder of a download in progress, for this process; empty it does not stay.

  Raises:
    ValueError: another process is at work there.
  """
  work.mkdir(parents=True, exist_ok=True)
  lock = filelock.FileLock(work / LOCK)
  try:
    lock.acquire(timeout=0)
  except filelock.Timeout as error:
    raise ValueError(f"Another process is downloading into {work}.") from error
  try:
    yield
  finally:
    if work.exists():
      shutil.rmtree(work / "unpacked", ignore_errors=True)
      if {path.name for path in work.iterdir()} <= {LOCK}:
        shutil.rmtree(work)
    lock.release()


def _read_record(
  url: str, work: pathlib.Path, patience: download.Patience
) -> tuple[catalogue.Archive, ...]:
  """The zip archives of a Zenodo record, with sizes and sums as it has them now.

  Raises:
    ValueError: it is not in the form that Zenodo's API has.
  """
  with tempfile.TemporaryDirectory(dir=work) as temporary:
    path = pathlib.Path(temporary) / "record.json"
    download.fetch(url, path, patience)
    content = path.read_bytes()
  try:
    listed = tuple(
      catalogue.Archive(
        pathlib.PurePosixPath(entry["key"]).name,
        entry["links"]["self"],
        entry["checksum"],
        entry["size"],
      )
      for entry in json.loads(content)["files"]
      if entry["key"].endswith(".zip")
    )
    if not listed:
      raise ValueError("no zip archives")
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f"{url} is not what Zenodo's records were ({error!r}): expected files with key, "
      "size, checksum and links. Fetch and unpack the archives by hand."
    ) from error
  return listed


def _match(
  wanted: Sequence[catalogue.Archive], by_hand: Sequence[pathlib.Path]
) -> dict[str, pathlib.Path]:
  """The files that are here, by the name of the archive that each is to be.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: one has the name of none, and there are several.
  """
  names = [archive.file for archive in wanted]
  for path in by_hand:
    if not path.is_file():
      raise FileNotFoundError(f"--from={path}: there is no such file.")
    if path.name not in names and (len(names) > 1 or len(by_hand) > 1):
      raise ValueError(f"--from={path}: expected the name of {listing.some(names)}.")
  if len(names) == 1:
    return dict(zip(names, by_hand[-1:], strict=False))
  return {path.name: path for path in by_hand}


def _check_room(work: pathlib.Path, size: int, by_hand: bool) -> None:
  """Makes sure that the archives and what they unpack to will fit.

  Raises:
    ValueError: they will not.
  """
  there = sum(path.stat().st_size for path in work.iterdir())
  needed = max(size if by_hand else 2 * size - there, 0)
  free = shutil.disk_usage(work).free
  if free < needed:
    raise ValueError(
      f"{work.parent} has {_amount(free)} free; about {_amount(needed)} are needed, "
      "for what is downloaded and unpacked. Make room, or give --out on another disk."
    )


def _check_sum(
  path: pathlib.Path, archive: catalogue.Archive, page: str, work: pathlib.Path
) -> None:
  """Makes sure that the file is the archive; a download that is not is removed.

  Raises:
    ValueError: it is another file.
  """
  logging.info("Checking the sum of %s.", path)
  kind, _, wanted = archive.sum.partition(":")
  with path.open("rb") as file:
    web = download.is_page(file.read(64))
    file.seek(0)
    actual = hashlib.file_digest(file, kind).hexdigest()
  if actual == wanted.lower():
    return
  what = "is a web page" if web else "is not the archive that was expected"
  end = "It was left as it is."
  if path.parent == work:
    path.unlink()
    end = "It was removed, so that the same command tries again."
  raise ValueError(
    f"{path} {what}: its {kind} is {actual}, expected {wanted}. The publisher's "
    f"address or archive may have changed: see {page}. {end} An archive that you "
    "fetched by hand is taken by --from=FILE; one with another sum, if you trust it, "
    "unpack yourself."
  )


def _unpack(paths: Mapping[str, pathlib.Path], into: pathlib.Path) -> pathlib.Path:
  """The folder of the categories, unpacked within `into`."""
  shutil.rmtree(into, ignore_errors=True)
  whole = into / "whole"
  for name, path in paths.items():
    part = into / name
    archives.unpack(path, part)
    if len(paths) == 1:
      return _inner(part)
    whole.mkdir(exist_ok=True)
    top = _inner(part)
    inside = [place for place in listing.folders(top) if folder.is_category(place)]
    category = inside[0] if len(inside) == 1 else top
    category.rename(whole / pathlib.PurePosixPath(name).stem)
  return whole


def _inner(place: pathlib.Path) -> pathlib.Path:
  """The categories' folder, within folders that hold nothing but a folder."""
  while True:
    inside = [path for path in place.iterdir() if path.name != "__MACOSX"]
    if len(inside) != 1 or not inside[0].is_dir() or folder.is_category(place):
      return place
    if folder.is_category(inside[0]):
      return place
    place = inside[0]


def _arrange(data: catalogue.DataSet, unpacked: pathlib.Path) -> None:
  """Makes the folders that are read, where the publisher has others.

  Raises:
    ValueError: the publisher's are not as they were known.
  """
  if data.arrange is None:
    return
  try:
    data.arrange(unpacked)
  except ValueError as error:
    raise ValueError(
      f"{data.title} cannot be arranged in train and test folders: {error} It may have "
      f"changed: see {data.page}. Unpack it yourself, and arrange it by hand."
    ) from error


def _compare(data: catalogue.DataSet, images: Mapping[str, int]) -> None:
  """Warns of numbers of images that others did not find."""
  for split, numbers in data.counts:
    if images.get(split, 0) not in numbers:
      logging.warning(
        "%s has %d images in %s, expected %s: published figures are of other images.",
        data.title,
        images.get(split, 0),
        split,
        " or ".join(map(str, numbers)),
      )


def _amount(size: int) -> str:
  return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def main(arguments: Sequence[str] | None = None) -> None:
  """Downloads a public data set, checks it and unpacks it."""
  console.listen()
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument("--name", required=True, choices=sorted(catalogue.DATA_SETS))
  parser.add_argument("--out", required=True, type=pathlib.Path, help="a new folder")
  parser.add_argument("--accept-licence", action="store_true")
  parser.add_argument(
    "--from",
    dest="by_hand",
    action="append",
    default=[],
    type=pathlib.Path,
    metavar="FILE",
    help="an archive that was fetched by hand",
  )
  flags = parser.parse_args(arguments)
  data = catalogue.DATA_SETS[flags.name]
  print(describe(data))
  if not flags.accept_licence:
    raise SystemExit("Nothing was done. If you accept this, add --accept-licence.")
  try:
    images = fetch(data, flags.out, flags.by_hand)
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  except KeyboardInterrupt as error:
    raise SystemExit("Stopped. The same command goes on from here.") from error
  numbers = ", ".join(f"{split} {number}" for split, number in images.items())
  print(f"{data.title} is in {flags.out}" + f": {numbers} images." * bool(numbers))
  if data.note:
    print(data.note)


if __name__ == "__main__":
  main()
