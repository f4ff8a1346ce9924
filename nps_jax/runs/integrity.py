"""Files that tell whether they are what was written: SHA-256 beside and among them.

The sums are in the form that `sha256sum --check` reads.
"""

from collections.abc import Mapping
import hashlib
import pathlib

from jaxtyping import Shaped
import numpy as np

from nps_jax.runs import files

SUFFIX = ".sha256"
SUMS = "SHA256SUMS"


def write(path: pathlib.Path, content: bytes) -> None:
  """Writes the file, and before it its sum, to the same name with SUFFIX.

  An interruption leaves the intact file that was there, or the new one.
  """
  beside, line = path.with_suffix(SUFFIX), _line(path, content)
  old = _line(path, path.read_bytes()) if intact(path) else ""
  files.write_text(beside, old + line)
  files.write_bytes(path, content)
  if old:
    files.write_text(beside, line)


def read(path: pathlib.Path, remedy: str) -> bytes:
  """The content that `write` wrote.

  Args:
    remedy: what to do where that fails, for the message.

  Raises:
    FileNotFoundError: the file or its sum is missing.
    ValueError: they do not belong together.
  """
  beside = path.with_suffix(SUFFIX)
  for file in (path, beside):
    if not file.exists():
      raise FileNotFoundError(f"{file} is missing. {remedy}")
  content = path.read_bytes()
  sums = beside.read_bytes().splitlines(keepends=True)  # two while one is replaced
  if _line(path, content).encode() not in sums:
    raise ValueError(
      f"{path} is damaged: its SHA-256 is not that in {beside.name}. {remedy}"
    )
  return content


def intact(path: pathlib.Path) -> bool:
  """Whether `read` can read the file."""
  try:
    read(path, "")
  except (FileNotFoundError, ValueError):
    return False
  return True


def _line(path: pathlib.Path, content: bytes) -> str:
  return f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"


def seal(folder: pathlib.Path) -> None:
  """Writes the sums of all the files in the folder, at any depth, to its SUMS."""
  sums = {name: _sum(folder / name) for name in _names(folder)}
  files.write_text(folder / SUMS, format_sums(sums))


def breach(folder: pathlib.Path) -> str | None:
  """What differs from the sealed folder, in words; None if nothing, or if unsealed."""
  if not (folder / SUMS).exists():
    return None
  sums = parse_sums((folder / SUMS).read_bytes())
  if sums is None:
    return f"{SUMS} is damaged"
  names = set(_names(folder))
  for name in sorted(names ^ set(sums)):
    return f"{name} is missing" if name in sums else f"{name} is not in {SUMS}"
  wrong = [name for name in sorted(names) if _sum(folder / name) != sums[name]]
  return f"the SHA-256 of {wrong[0]} is not that in {SUMS}" if wrong else None


def array_sum(array: Shaped[np.ndarray, "..."]) -> str:
  """The SHA-256 of an array's type, shape and values."""
  head = f"{array.dtype.str} {array.shape} "
  return hashlib.sha256(head.encode() + array.tobytes()).hexdigest()


def format_sums(sums: Mapping[str, str]) -> str:
  """One line for each name."""
  return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))


def parse_sums(content: bytes) -> dict[str, str] | None:
  """What `format_sums` wrote, or None if it cannot have."""
  try:
    text = content.decode()
  except UnicodeDecodeError:
    return None
  sums = {line[66:]: line[:64] for line in text.split("\n")[:-1]}
  return sums if format_sums(sums) == text else None


def _names(folder: pathlib.Path) -> list[str]:
  paths = (path for path in folder.rglob("*") if not path.is_dir())
  return sorted({path.relative_to(folder).as_posix() for path in paths} - {SUMS})


def _sum(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
