"""Statistics of the study: ranks, picks and intervals."""

import pytest
import torch

from minicf.lab.statistics import bootstrap_interval, pick_share, rank_correlation, ranking


def test_rank_correlation_by_hand_and_with_ties():
    x = torch.tensor([1.0, 2, 3, 4, 5])
    assert rank_correlation(x, x**3) == pytest.approx(1)
    assert rank_correlation(x, -x) == pytest.approx(-1)
    y = torch.tensor([2.0, 1, 4, 3, 5])
    assert rank_correlation(x, y) == pytest.approx(1 - 6 * 4 / (5 * 24))  # 1 − 6Σd²/(n(n²−1))
    tied = torch.tensor([1.0, 2, 2, 3])  # ranks 1, 2.5, 2.5, 4
    ranks = torch.tensor([1.0, 2.5, 2.5, 4])
    other = torch.tensor([1.0, 2, 3, 4])
    expected = torch.corrcoef(torch.stack([ranks, other]))[0, 1].item()
    assert rank_correlation(tied, other) == pytest.approx(expected)
    assert rank_correlation(torch.ones(4), other) == 0


def test_pick_share():
    gain = torch.tensor([0.1, 0.4, 0.3])
    assert pick_share(torch.tensor([1.0, 2, 3]), gain) == pytest.approx(0.75)


def test_ranking_by_pool():
    """Readiness orders both corpora; the parabola is misled by the stuck one."""
    rows = [("clean", 0.2, 1.0, 0.1), ("clean", 0.5, 3.0, 0.3), ("clean", 0.9, 2.0, 0.2)]
    rows += [("narrow", 0.4, 0.2, 0.02), ("narrow", 0.5, 0.1, 0.0)]
    entries = [
        {"corpus": c, "success": p, "readiness": r, "gain": g, "signal": r, "headroom": r}
        | {"reward_std": 1.0, "loss": 1.0}
        for c, p, r, g in rows
    ]
    result = ranking(entries)
    assert list(result) == ["clean", "narrow", "pooled"]
    assert result["pooled"]["readiness"] == {"rank": pytest.approx(1), "pick": pytest.approx(1)}
    assert result["narrow"]["p(1 − p)"]["rank"] == pytest.approx(-1)
    assert result["pooled"]["reward std"]["rank"] == 0
    assert result["clean"]["1 − p"]["pick"] == pytest.approx(1 / 3)


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says(generator):
    """300 intervals of level .9 from 30 normal values: coverage .87 ± .02 is known for n = 30."""
    hits = 0
    for _ in range(300):
        values = torch.randn(30, generator=generator)
        low, high = bootstrap_interval(values, generator, level=0.9, draws=400)
        hits += low < 0 < high
    assert 0.80 < hits / 300 < 0.95


def test_bad_input_is_refused(generator):
    with pytest.raises(ValueError, match="x and y must be"):
        rank_correlation(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="x and y must be"):
        rank_correlation(torch.ones(1), torch.ones(1))
    with pytest.raises(ValueError, match="level in"):
        bootstrap_interval(torch.ones(3), generator, level=1.0)
