import math
import random

import pytest

from optim_family.analysis import study_table
from optim_family.analysis.claims import CLAIMS, Claim, evaluate_claims
from optim_family.analysis.run_selection import matches
from tests.helpers.fake_runs import make_run

NORMALISED, BARE = "frozen-affine", "none"


def made(
    *,
    ratio=1.1,
    fall=2.0,
    gain=0.05,
    decay=0.01,
    seed=0,
    fits=True,
    optimizer="gd",
    status="done",
    n=200,
    **spec,
):
    """A run whose numbers after 100 % training accuracy are these."""
    run = make_run(optimizer, {"weight_decay": decay}, seed=seed, records=11, status=status, **spec)
    run.provenance["data"] = {"train": n}
    view = "spherical" if optimizer == "gd" else "spherical-preconditioned"
    for i, record in enumerate(run.records):
        record |= {"train_accuracy": float(fits), "test_accuracy": 0.8 + gain * i / 10}
        record["views"]["spherical"]["value"] = 100 * fall ** (-i / 10)
        record["views"][view]["ratio"] = ratio
        if spec.get("norm") == BARE:
            record["views"] = {name.replace("spherical", "raw"): r for name, r in record["views"].items()}
    return run


def verdicts(name, runs):
    return {
        f.subject: f.verdict for f in evaluate_claims({name: CLAIMS[name]}, runs, study_table.run_rows(runs))
    }


def overall(name, runs):
    return next(iter(verdicts(name, runs).values()))


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([1.0, 1.1, 1.5], "holds"),
        ([0.3, 0.5, 2.0], "does not hold"),
        ([1.0, 1.1, 0.5], "cannot tell"),
        ([1.1], "holds"),
        ([math.nan, 1.0], "holds"),
        ([math.nan], "cannot tell"),
    ],
)
def test_the_edge(ratios, verdict):
    assert overall("edge", [made(ratio=r, seed=s) for s, r in enumerate(ratios)]) == verdict


def test_every_member_means_every_one():
    runs = [made(ratio=1.0), made(optimizer="rmsprop", ratio=0.2)]
    whole, gd, rmsprop = verdicts("edge", runs).values()
    assert (whole, gd, rmsprop) == ("does not hold", "holds", "does not hold")
    runs[1] = made(optimizer="rmsprop", ratio=math.nan)
    assert overall("edge", runs) == "cannot tell"


def test_a_group_without_a_threshold_says_why_it_is_undecided():
    runs = [made(ratio=1.0), made(optimizer="rmsprop")]
    for record in runs[1].records:
        record["views"] = {"spherical": {**record["views"]["spherical"], "threshold": None, "ratio": None}}
    whole, gd, rmsprop = evaluate_claims({"edge": CLAIMS["edge"]}, runs, study_table.run_rows(runs))
    assert whole.evidence == "1 of 2 hold, 1 undecided (1 has no threshold measured); 1.00 to 1.00"
    assert rmsprop.evidence.endswith("no threshold measured") and "threshold" not in gd.evidence


@pytest.mark.parametrize("aside", [{"decay": 0.0}, {"norm": BARE}, {"batch_size": 50}, {"status": "stopped"}])
def test_the_edge_is_not_claimed_of_all_runs(aside):
    (finding,) = evaluate_claims(
        {"edge": CLAIMS["edge"]}, runs := [made(ratio=0.1, **aside)], study_table.run_rows(runs)
    )
    reason = "no such run is finished" if "status" in aside else "the study has no such runs"
    assert (finding.verdict, finding.evidence) == ("cannot tell", reason)


@pytest.mark.parametrize(
    ("claim", "quantity", "values", "verdict"),
    [
        ("sharpness-falls", "fall", [1.2, 3.0], "holds"),
        ("sharpness-falls", "fall", [0.8, 0.9], "does not hold"),
        ("sharpness-falls", "fall", [1.05, 3.0], "cannot tell"),
        ("accuracy-rises", "gain", [0.02, 0.05], "holds"),
        ("accuracy-rises", "gain", [-0.02, 0.0], "does not hold"),
        ("accuracy-rises", "gain", [0.005], "cannot tell"),
    ],
)
def test_what_happens_after_the_fit(claim, quantity, values, verdict):
    runs = [made(seed=seed, **{quantity: value}) for seed, value in enumerate(values)]
    assert overall(claim, runs) == verdict
    assert overall(claim, [made(fits=False)]) == "cannot tell"


def matched_runs(seeds, better, worse, **difference):
    (key, (a, b)) = difference.popitem()
    noise = random.Random(0)
    return [
        made(seed=seed, fall=fall * math.exp(noise.gauss(0, 0.05)), gain=gain, **{key: value})
        for seed in range(seeds)
        for value, (fall, gain) in ((a, better), (b, worse))
    ]


@pytest.mark.parametrize(
    ("claim", "difference"),
    [("decay-matters", {"decay": (0.01, 0.0)}), ("norm-matters", {"norm": (NORMALISED, BARE)})],
)
def test_what_is_claimed_of_pairs(claim, difference):
    more, less = (3.0, 0.05), (1.0, 0.0)
    assert set(verdicts(claim, matched_runs(4, more, less, **difference)).values()) == {"holds"}
    assert set(verdicts(claim, matched_runs(4, less, more, **difference)).values()) == {"does not hold"}
    assert set(verdicts(claim, matched_runs(4, more, more, **difference)).values()) == {"cannot tell"}
    assert set(verdicts(claim, matched_runs(2, more, less, **difference)).values()) == {"cannot tell"}


def test_pairs_are_judged_together_and_for_each_optimizer():
    runs = [
        made(optimizer=optimizer, decay=decay, fall=fall * (1 + 0.1 * seed), seed=seed)
        for optimizer, seeds in (("gd", 3), ("rmsprop", 1))
        for seed in range(seeds)
        for decay, fall in ((0.01, 3.0), (0.0, 1.0))
    ]
    verdict_of = verdicts("decay-matters", runs)
    words = "fall of the sharpness after 100 %"
    assert next(iter(verdict_of.values())) == "cannot tell"  # test accuracies are all the same
    assert [verdict_of[f"{words}; {name}"] for name in ("all optimizers", "gd", "rmsprop")] == [
        "holds",
        "holds",
        "cannot tell",
    ]


def test_the_evidence_of_pairs_that_never_fit():
    runs = [made(decay=0.01), made(decay=0.0, fits=False)]
    evidence = [
        f.evidence
        for f in evaluate_claims({"decay-matters": CLAIMS["decay-matters"]}, runs, study_table.run_rows(runs))
    ]
    line = "no number: no pair of 1 has one for both runs"
    assert set(evidence) == {line, f"sharpness {line}; test accuracy {line}"}


def test_the_evidence_counts_the_pairs_that_go_the_claimed_way():
    runs = matched_runs(3, (3.0, 0.05), (1.0, 0.0), decay=(0.01, 0.0)) + [
        made(decay=decay, fall=fall, gain=0.0, seed=9) for decay, fall in ((0.01, 1.0), (0.0, 2.0))
    ]
    evidence = evaluate_claims({"decay-matters": CLAIMS["decay-matters"]}, runs, study_table.run_rows(runs))[
        0
    ].evidence
    assert evidence.startswith("sharpness by a factor of ") and "test accuracy by +3.8 points (" in evidence
    assert evidence.count(", more in 3 of 4 pairs") == 2


def test_a_count_of_verdicts():
    runs = [made(optimizer="gd"), made(optimizer="rmsprop", ratio=0.1), made(optimizer="sgd", ratio=math.nan)]
    whole = evaluate_claims({"edge": CLAIMS["edge"]}, runs, study_table.run_rows(runs))[0].evidence
    assert whole == "1 of 3 hold, 1 does not, 1 undecided; 0.10 to 1.10"


def test_pairs_are_of_normalised_networks_with_weight_decay():
    without = [made(decay=0.0, norm=norm, seed=s) for norm in (NORMALISED, BARE) for s in range(3)]
    assert overall("norm-matters", without) == "cannot tell"
    assert verdicts("norm-matters", without).keys() == {"no runs"}
    bare = [made(decay=decay, norm=BARE, seed=s) for decay in (0.01, 0.0) for s in range(3)]
    assert verdicts("decay-matters", bare).keys() == {"no runs"}


@pytest.mark.parametrize(("slope", "verdict"), [(1, "holds"), (-1, "does not hold")])
def test_smaller_batches_settle_lower(slope, verdict):
    sizes = [10, 20, 50, None]
    ratios = [0.2, 0.4, 0.7, 1.0][::slope]
    runs = [
        made(ratio=ratio + 0.01 * seed, batch_size=size, seed=seed)
        for size, ratio in zip(sizes, ratios, strict=True)
        for seed in range(3)
    ]
    (finding,) = evaluate_claims(
        {"smaller-batch-flatter": CLAIMS["smaller-batch-flatter"]}, runs, study_table.run_rows(runs)
    )
    assert finding.verdict == verdict
    assert "batch 10: " in finding.evidence and "batch 200: " in finding.evidence
    assert overall("smaller-batch-flatter", runs[:6]) == "cannot tell"


def test_every_claim_has_a_verdict_of_any_runs():
    for runs in ([made()], [made(status="diverged")], [made(fits=False, norm=BARE, batch_size=10)]):
        findings = evaluate_claims(CLAIMS, runs, study_table.run_rows(runs))
        assert list(dict.fromkeys(f.claim for f in findings)) == list(CLAIMS)


# --- claims of a study ------------------------------------------------------------------------------------


def judged(claim, runs):
    return next(f.verdict for f in evaluate_claims({"own": claim}, runs, study_table.run_rows(runs)))


@pytest.mark.parametrize(
    ("direction", "least", "factor", "verdict"),
    [
        ("less", None, 0.5, "holds"),
        ("less", None, 2.0, "does not hold"),
        ("less", 1.5, 0.5, "holds"),
        ("less", 3.0, 0.5, "does not hold"),
        ("more", 1.5, 2.0, "holds"),
        ("more", 3.0, 2.0, "does not hold"),
        ("more", 1.5, 0.5, "does not hold"),
    ],
)
def test_pairs_are_judged_by_direction_and_least_factor(direction, least, factor, verdict):
    claim = Claim("?", ("ratio",), by="weight_decay", direction=direction, least=least)
    runs = [
        made(ratio=ratio * (1 + seed / 100), decay=decay, seed=seed)
        for seed in range(4)
        for decay, ratio in ((0.01, 1.0), (0.02, factor))
    ]
    assert judged(claim, runs) == verdict


def test_pairs_whose_interval_contains_the_least_factor_are_undecided():
    claim = Claim("?", ("ratio",), by="weight_decay", least=1.5)
    factors = (1.2, 1.4, 1.6, 1.8)
    runs = [
        made(ratio=r, decay=d, seed=seed)
        for seed, f in enumerate(factors)
        for d, r in ((0.01, 1.0), (0.02, f))
    ]
    assert judged(claim, runs) == "cannot tell"


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ({}, 4),
        ({"weight_decay": "> 0"}, 3),
        ({"weight_decay": "<= 0.01"}, 3),
        ({"weight_decay": [0.0, 0.02]}, 2),
        ({"norm": "not none"}, 3),
        ({"norm": "none"}, 1),
        ({"batch_size": "full", "optimizer": "gd"}, 4),
        ({"batch_size": "not full"}, 0),
        ({"model": "absent"}, 0),
    ],
)
def test_conditions_select_runs(where, number):
    runs = [made(decay=0.0), made(decay=0.01), made(decay=0.02), made(decay=0.01, norm=BARE)]
    assert sum(matches(run.spec, where) for run in runs) == number
    assert Claim("?", ("ratio",), where).applies([run.spec for run in runs]) == bool(number)
