import math
import random

import pytest

from optim_family.analysis import study_table
from optim_family.analysis.paired_differences import COMPARED, comparisons, difference, matched_pairs
from tests.helpers.fake_runs import make_run


def test_the_mean_of_differences_and_the_geometric_mean_of_ratios():
    paired = difference([1.0, 2.0, 6.0], [0.0, 0.0, 0.0])
    assert (paired.pairs, paired.mean, paired.neutral) == (3, pytest.approx(3.0), 0.0)
    ratio = difference([2.0, 8.0], [1.0, 1.0], ratio=True)
    assert (ratio.mean, ratio.neutral) == (pytest.approx(4.0), 1.0)


def test_the_interval_of_three_pairs_is_their_range():
    # The smallest of the 27 resamples has weight 1/27 > 2.5 %.
    paired = difference([1.0, 2.0, 4.0], [0.0, 0.0, 0.0])
    assert (paired.low, paired.high) == (pytest.approx(1.0), pytest.approx(4.0))


def test_fewer_than_three_pairs_have_no_interval_and_no_sign():
    paired = difference([5.0, 6.0], [0.0, 0.0])
    assert math.isnan(paired.low) and paired.sign == 0
    assert difference([], []).pairs == 0


def test_pairs_without_a_number_or_a_logarithm_are_left_out():
    assert difference([1.0, math.nan, 3.0], [0.0, 0.0, math.nan]).pairs == 1
    assert difference([1.0, 0.0, -1.0, 2.0], [1.0, 1.0, 1.0, math.inf], ratio=True).pairs == 1


@pytest.mark.parametrize(("shift", "sign"), [(1.0, 1), (-1.0, -1), (0.0, 0)])
@pytest.mark.parametrize("ratio", [False, True])
def test_the_sign_is_that_of_an_interval_without_nothing(shift, sign, ratio):
    noise = random.Random(0)
    x = [noise.gauss(0, 0.3) for _ in range(9)]
    a, b = [v + shift for v in x], [noise.gauss(0, 0.3) for _ in range(9)]
    if ratio:
        a, b = [math.exp(v) for v in a], [math.exp(v) for v in b]
    assert difference(a, b, ratio=ratio).sign == sign
    assert difference(b, a, ratio=ratio).sign == -sign


def test_the_interval_is_the_same_every_time():
    noise = random.Random(2)
    x = [noise.gauss(0, 1) for _ in range(12)]
    assert difference(x, [0.0] * 12) == difference(x, [0.0] * 12)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    noise, covered = random.Random(1), 0
    for _ in range(80):
        paired = difference([noise.gauss(1, 1) for _ in range(20)], [0.0] * 20)
        covered += paired.low <= 1 <= paired.high
    # 95 % of 80 is 76 with a deviation of 2; percentile intervals of 20 numbers are a little short.
    assert 67 <= covered < 80


def test_runs_are_matched_in_all_but_one_thing():
    runs = [
        make_run(hyper={"weight_decay": decay, "lr": lr}, seed=seed)
        for decay in (0.1, 0.0, 0.2)
        for lr in (0.1, 0.2)
        for seed in (0, 1)
    ]
    specs = [run.spec for run in runs]
    pairs = list(matched_pairs(specs, "weight_decay", than=0))
    assert len(pairs) == 2 * 2 * 2
    for i, j in pairs:
        a, b = runs[i].spec, runs[j].spec
        assert a["hyper"]["weight_decay"] > 0 == b["hyper"]["weight_decay"]
        assert (a["seed"], a["hyper"]["lr"]) == (b["seed"], b["hyper"]["lr"])
    assert all("weight_decay" in run.spec["hyper"] for run in runs)
    larger = list(matched_pairs(specs, "weight_decay"))
    assert len(larger) == 3 * 2 * 2
    assert all(specs[i]["hyper"]["weight_decay"] > specs[j]["hyper"]["weight_decay"] for i, j in larger)


def test_arms_are_compared_at_equal_settings_and_seeds():
    runs = [make_run(seed=seed, limit=n) for seed in range(3) for n in (100, 200)]
    runs += [make_run("rmsprop", seed=seed, limit=100) for seed in range(4)]
    runs += [make_run(hyper={"weight_decay": 0.0}, seed=0, limit=100)]
    table = comparisons(study_table.run_rows(runs))
    assert set(zip(table["a"], table["b"], strict=True)) == {(table["a"][0], table["b"][0])}
    assert "gd" in table["a"][0] and "rmsprop" in table["b"][0]
    assert table["quantity"].tolist() == [quantity.words for quantity in COMPARED]
    assert set(table["pairs"]) == {3}
    frame = study_table.run_rows(runs)
    ends = {
        arm: group.set_index("seed")["sharpness_end"]
        for arm, group in frame[frame["limit"] == 100].groupby("arm")
    }
    logs = [math.log(ends[table["a"][0]][s] / ends[table["b"][0]][s]) for s in range(3)]
    comparison = table.set_index("quantity").loc["sharpness at the end"]
    assert comparison["difference"] == pytest.approx(math.exp(sum(logs) / 3))


def test_a_study_of_one_arm_has_nothing_to_compare():
    assert comparisons(study_table.run_rows([make_run()])).empty
