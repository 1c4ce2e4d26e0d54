"""bench.tiny measures every tiny model or says why it cannot."""

import sys

import pytest

from bench import tiny


def test_a_module_that_is_missing_ends_the_bench_before_it_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["bench.tiny"])
    monkeypatch.setitem(sys.modules, "blip2_scores", None)
    with pytest.raises(ImportError, match="blip2_scores"):
        tiny.main()
