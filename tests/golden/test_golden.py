"""The evaluation command on small stored cases, against brute force in float64."""

import json

import golden_cases
import pytest

from nps_jax import evaluate


def look_up(values, path):
  """The value at a dotted path whose last part may be a limit such as 0.05."""
  while path:
    key = next(k for k in values if path == k or path.startswith(f"{k}."))
    values, path = values[key], path[len(key) + 1 :]
  return values


@pytest.mark.parametrize("name", golden_cases.CASES)
def test_the_command_gives_the_brute_force_figures(name, tmp_path, capsys):
  folder = golden_cases.HERE / name
  out = tmp_path / "found.json"
  evaluate.main(
    [
      *(f"--maps={folder / 'maps'}", f"--dataset={folder / 'dataset'}"),
      *("--category=part", f"--out={out}"),
    ]
  )
  (found,) = json.loads(out.read_text())
  wanted = json.loads((folder / "expected.json").read_text())
  assert len(wanted) >= 8
  got = {path: look_up(found, path) for path in wanted}
  assert got == pytest.approx(wanted, abs=1e-12)
  assert "| part |" in capsys.readouterr().out


@pytest.mark.parametrize("name", golden_cases.CASES)
def test_the_stored_figures_are_those_of_the_stored_files(name):
  folder, layout = golden_cases.HERE / name, golden_cases.CASES[name][0]
  wanted = json.loads((folder / "expected.json").read_text())
  assert golden_cases.expected(folder, layout) == pytest.approx(wanted, abs=1e-14)
