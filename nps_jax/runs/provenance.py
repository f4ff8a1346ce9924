"""Which state of this package made a result."""

import importlib.metadata
import pathlib
import subprocess


def package() -> dict[str, str | None]:
  """This package's version, and the commit where it lies in a git repository."""
  root = pathlib.Path(__file__).resolve().parents[2]
  try:
    version = importlib.metadata.version("nps_jax")
  except importlib.metadata.PackageNotFoundError:
    version = None
  top = _git(root, "rev-parse", "--show-toplevel")
  if not top or pathlib.Path(top).resolve() != root:  # another project's, around ours
    return {"version": version, "commit": None}
  words = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
  return {"version": version, "commit": _git(root, *words)}


def _git(root: pathlib.Path, *words: str) -> str | None:
  try:
    done = subprocess.run(
      ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
    )
  except OSError:
    return None
  return done.stdout.strip() if done.returncode == 0 else None
