"""CPU, eight fake devices, annotations checked at run time."""

import os
import signal
import tempfile

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

from nps_jax import trainer  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# Several tests compile the same training step.
jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp(prefix="nps_jax-"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="session")
def root(tmp_path_factory):
  """A tiny drawn data set of two categories."""
  return runs.draw(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def run(root, tmp_path_factory):
  """An uninterrupted training on eight devices; tests leave its folder as it is."""
  return trainer.fit(runs.config(root), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
  """The folder of a tiny CLIP."""
  return tiny_clip.make(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def heard():
  """Signals act on the test and on what it starts, though started with nohup or &."""
  kinds = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
  before = {each: signal.signal(each, action) for each, action in kinds.items()}
  yield
  for each, action in before.items():
    signal.signal(each, action)
