"""CPU, eight fake devices, annotations checked at run time."""

import contextlib
import fcntl
import os
import signal

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
  "--xla_force_host_platform_device_count=8"
  " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)  # the tests compile more than they compute

from absl import flags
import jaxtyping

jaxtyping.install_import_hook("nps_jax", "beartype.beartype")
flags.FLAGS.mark_as_parsed()

import jax  # noqa: E402
import pytest  # noqa: E402
import runs  # noqa: E402
import tiny_clip  # noqa: E402

from nps_jax import inference  # noqa: E402
from nps_jax import trainer  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
  """A folder that all workers of the session see; tests leave what is in it."""
  base = tmp_path_factory.getbasetemp()
  place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
  place.mkdir(exist_ok=True)
  return place


@pytest.fixture(scope="session", autouse=True)
def compiled(shared):
  """What one worker or process has compiled, the others find."""
  options = {"compilation_cache_dir": str(shared / "compiled")}
  options["persistent_cache_min_compile_time_secs"] = 0.0
  for name, value in options.items():
    jax.config.update(f"jax_{name}", value)
    os.environ[f"JAX_{name.upper()}"] = str(value)  # for what the tests start


@contextlib.contextmanager
def once(place):
  """Whether a folder is still to be made; other workers wait until it is."""
  made = place.with_suffix(".made")
  with place.with_suffix(".lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield not made.exists()
    made.touch()


@pytest.fixture(scope="session")
def root(shared):
  """A tiny drawn data set of two categories."""
  with once(shared / "data") as needed:
    if needed:
      runs.draw(shared / "data")
  return shared / "data"


@pytest.fixture(scope="session")
def run(root, shared):
  """An uninterrupted training on eight devices; tests leave its folder as it is."""
  with once(shared / "run") as needed:
    if needed:
      trainer.fit(runs.config(root), shared / "run")
  return inference.open_run(shared / "run")


@pytest.fixture(scope="session")
def clip(shared):
  """The folder of a tiny CLIP."""
  with once(shared / "clip") as needed:
    if needed:
      tiny_clip.make(shared / "clip")
  return shared / "clip"


@pytest.fixture
def heard():
  """Signals act on the test and on what it starts, though started with nohup or &."""
  kinds = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
  before = {each: signal.signal(each, action) for each, action in kinds.items()}
  yield
  for each, action in before.items():
    signal.signal(each, action)
