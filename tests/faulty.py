"""A training in a process of its own, to be killed: imported once, forked often."""

import os
import pathlib
import resource

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import runs

from nps_jax import trainer
from nps_jax.runs import interruption

STEPS = 16
ERROR = "error.txt"  # in the cache: what went wrong


def config(root: pathlib.Path, **changes):
  """A checkpoint after every step, so that a save is under way most of the time."""
  return runs.config(
    root,
    data__category="tray",
    encoder__levels=(2,),
    encoder__deepest=2,
    context__source="none",
    codebook__parts=0,
    codebook__memory=0.0,
    codebook__groups=1,
    logical__blocks=0,
    structural__enabled=False,
    scoring__pooled=(),
    image_size=32,
    train__steps=STEPS,
    checkpoint__every=1,
    checkpoint__keep=2,
    **changes,
  )


def train(
  root: pathlib.Path,
  workdir: pathlib.Path,
  cache: pathlib.Path,
  limit: tuple[int, int] | None,
) -> None:
  """Trains to the end; exits like the command where a signal stops it.

  Args:
    cache: a folder for what is compiled.
    limit: of a file's size in bytes, once training has begun.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  os.environ["XLA_FLAGS"] = flags.replace("device_count=8", "device_count=1")
  jax.config.update("jax_compilation_cache_dir", str(cache))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  interruption.listen()
  if limit is not None:
    begin = trainer.train

    def limited(*args):
      # What is said may go to a file that is over the limit already.
      os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
      resource.setrlimit(resource.RLIMIT_FSIZE, limit)
      return begin(*args)

    trainer.train = limited
  try:
    trainer.fit(config(root), workdir)
  except KeyboardInterrupt:
    raise SystemExit(interruption.EXIT) from None
  except OSError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit[1], limit[1]))
    (cache / ERROR).write_text(str(error))
    raise SystemExit(1) from error
