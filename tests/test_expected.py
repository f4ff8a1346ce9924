"""What a sweep is expected to take: sums by hand, from what the estimate said."""

import json
import subprocess

import pytest
import runs

from nps_jax.study import expected

pytestmark = pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")

SECONDS = {"features": 360.0, "train": 7200.0, "calibrate": 720.0, "evaluate": 1080.0}
FLAGS = [
  *(f"--config={runs.CONFIGS / 'loco.py'}", f"--variants={runs.CONFIGS}/ablation.py"),
  *("--counts=30,6,20", "--pixels=400x300", "--config.train.steps=9"),
]


@pytest.fixture
def asked(monkeypatch):
  """The commands of the estimates, which stand-ins answer."""
  commands = []

  def run(words, **_):
    commands.append(words)
    paper = "--config.variant=paper" in words
    parts = {
      name: {"seconds": value * (2 if paper else 1)} for name, value in SECONDS.items()
    }
    answer = {
      "device": "cpu: cpu x 1",
      "runs": [{"parts": parts, "host_mib": 3072, "device_mib": 1024}],
      "machine": {"host_mib": 24 * 1024, "device_mib": 8 * 1024},
      "warnings": [],
    }
    return subprocess.CompletedProcess(words, 0, json.dumps(answer), "")

  monkeypatch.setattr(expected.subprocess, "run", run)
  return commands


def test_hours_are_summed_and_a_training_counts_once(asked, capsys):
  expected.main([*FLAGS, "--only=default,paper,no-decoders", "--runs=15"])
  assert capsys.readouterr().out.splitlines() == [
    "Expected of cpu: cpu x 1, from a measurement here:",
    "  default: 15 runs of 2.6 h (features 0.1 h, train 2.0 h, calibrate 0.2 h, "
    "evaluate 0.3 h); 3.0 GiB, of the device 1.0 GiB",
    "  no-decoders: 15 runs of 0.5 h (calibrate 0.2 h, evaluate 0.3 h; the training is "
    "default's); 3.0 GiB, of the device 1.0 GiB",
    "  paper: 15 runs of 5.2 h (features 0.2 h, train 4.0 h, calibrate 0.4 h, "
    "evaluate 0.6 h); 3.0 GiB, of the device 1.0 GiB",
    "  In all 124.5 h. There are 24 and 8 GiB.",  # 15 * (2.6 + 0.5 + 5.2)
  ]
  first, second = asked  # none of no-decoders
  assert first[2:5] == ["nps_jax.benchmark", "estimate", FLAGS[0]]
  assert first[5:] == ["--config.train.steps=9", *FLAGS[2:4], "--json"]
  assert {"--config.variant=paper", "--config.scoring.pooled=()"} <= set(second)


def test_runs_at_once_are_as_long_as_the_longest_queue(asked, capsys):
  expected.main([*FLAGS, "--only=default", "--runs=15", "--at-once=4"])
  assert "  In all 10.4 h, 4 at once." in capsys.readouterr().out  # 4 * 2.6


def test_what_the_estimate_complains_of_is_passed_on(asked, monkeypatch):
  failed = subprocess.CompletedProcess([], 1, "", "Error: no such thing\n")
  monkeypatch.setattr(expected.subprocess, "run", lambda *_, **__: failed)
  with pytest.raises(SystemExit, match=r"^Error: no such thing$"):
    expected.main([*FLAGS, "--only=default", "--runs=1"])


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--only=defalt"], "--only is 'defalt'; there are default"),
    (["--only=default", "--config.train.step=9"], "Did you mean .steps."),
    (["--only=default", "--variants=no.py"], "no.py"),
  ],
)
def test_wrong_flags_are_refused(asked, words, message):
  with pytest.raises(SystemExit, match=message):
    expected.main([*FLAGS, "--runs=1", *words])
  assert asked == []
