"""Files that are whole or absent: written beside their place, then moved there."""

import os
import pathlib
import tempfile

RESULTS = "results.json"  # in a run; beside it .csv and .md


def write_bytes(path: pathlib.Path, content: bytes) -> None:
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
  """The folder of the run; ValueError if it is a bucket's address."""
  if "://" in workdir:
    raise ValueError(
      f"--workdir is {workdir}; expected a folder. Where several hosts train, use one "
      "that all of them have mounted, by NFS for instance."
    )
  return pathlib.Path(workdir)
