"""How programs are compiled: fast on a CPU, and once for many commands."""

import hashlib
import importlib.util
import os
import pathlib

import jax

CACHE = "~/.cache/nps_jax/compiled"  # else JAX_COMPILATION_CACHE_DIR
LEAST = 0.5  # seconds of compiling from which on a program is kept
YNNPACK = "--xla_cpu_experimental_ynn_fusion_type"  # of jaxlib 0.10; empty: not used


def prepare() -> None:
  """Sets what JAX does not set itself; to be called before its first computation.

  On CPUs XLA uses YNNPACK, with which these convolutions, and most of all their
  gradients, take up to twice the time; it is turned off where XLA knows the flag and
  XLA_FLAGS does not name it. Compiled programs are kept in CACHE, or where
  JAX_COMPILATION_CACHE_DIR says; JAX_ENABLE_COMPILATION_CACHE=false keeps none.
  """
  xla = os.environ.get("XLA_FLAGS", "")
  knows = jax.__version_info__[:2] == (0, 10) and not importlib.util.find_spec("libtpu")
  if knows and YNNPACK not in xla:
    os.environ["XLA_FLAGS"] = f"{xla} {YNNPACK}=".strip()
  if jax.config.jax_compilation_cache_dir is None:
    place = pathlib.Path(CACHE).expanduser() / _processor()
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST)


def place() -> pathlib.Path | None:
  """Where compiled programs are kept, if they are."""
  folder = jax.config.jax_compilation_cache_dir
  if not folder or not jax.config.jax_enable_compilation_cache:
    return None
  return None if "://" in folder else pathlib.Path(folder)


def _processor() -> str:
  """Stands for this processor's instructions: another's programs may not run here."""
  try:
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
  except OSError:
    return "any"
  flags = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
  return hashlib.sha256("".join(flags[:1]).encode()).hexdigest()[:12]
