"""Files that are whole or absent: written beside their place, then moved there."""

import os
import pathlib
import tempfile

RESULTS = "results.json"  # in a run; beside it .csv and .md


def write_bytes(path: pathlib.Path, content: bytes | memoryview) -> None:
  """Replaces the file at once; an interruption leaves the old one."""
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new.")  # never too long
  try:
    with os.fdopen(handle, "wb") as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(name, 0o644)
    os.replace(name, path)
  except BaseException:
    pathlib.Path(name).unlink(missing_ok=True)
    raise


def write_text(path: pathlib.Path, content: str) -> None:
  r"""Like write_bytes, in UTF-8; a file name's bytes that are none become \udc.."""
  write_bytes(path, content.encode("utf-8", "backslashreplace"))


def local(workdir: str) -> pathlib.Path:
  """The folder of the run; ValueError if it is a bucket's address, or not UTF-8."""
  if "://" in workdir:
    raise ValueError(
      f"--workdir is {workdir}; expected a folder. Where several hosts train, use one "
      "that all of them have mounted, by NFS for instance."
    )
  check_name(workdir, f"--workdir={shown(workdir)}")
  return pathlib.Path(workdir)


def check_name(name: str, what: str) -> None:
  """Makes sure that a folder's name is UTF-8, as checkpoints and arrays need it.

  Args:
    what: opens the message.

  Raises:
    ValueError: it is not.
  """
  if shown(name) != name:
    raise ValueError(f"{what} has a name that is not UTF-8. Rename the folder.")


def shown(name: str) -> str:
  r"""The name with \xNN for each byte of it that is no UTF-8."""
  return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
