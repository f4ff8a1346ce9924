"""The benchmark measures what it says."""

import json
import re

from nps_jax import benchmark
from nps_jax.data import records


def test_the_metrics_benchmark_evaluates_all_its_maps(tmp_path, monkeypatch):
  counts = {records.GOOD: 2, records.LOGICAL: 2, records.STRUCTURAL: 1}
  monkeypatch.setattr(benchmark, "COUNTS", counts)
  monkeypatch.setattr(benchmark, "SIDE", 200)
  said = benchmark.metrics(tmp_path)
  found = re.fullmatch(r"5 maps of 200 x 200, .*: ([\d.]+) s, peak (\d+) MiB", said)
  assert float(found[1]) > 0 and int(found[2]) > 20
  (result,) = json.loads((tmp_path / "results.json").read_text())
  assert result["n_test"] == 5 and result["n_by_kind"] == {"half": 3, "few": 1}
  assert set(result["au_spro"]["mean"]) == {"0.01", "0.05", "0.1", "0.3", "1.0"}
