"""`dir(optim_family)` shows the API and nothing else."""

import optim_family
import optim_family.sharpness.probe  # which sets the attribute `sharpness`, and must not show it

FORMER = {"Member", "Trail"}


def test_the_package_lists_its_public_names_alone():
    assert dir(optim_family) == sorted(optim_family.__all__) and not FORMER & set(dir(optim_family))
    assert {"measure", "Reading", "Recorder", "load_runs", "FamilyOptimizer", "__version__"} <= set(
        dir(optim_family)
    )


def test_every_public_name_has_a_docstring_of_its_own():
    for name in set(optim_family.__all__) - {"__version__"}:
        assert getattr(optim_family, name).__doc__, name


def test_former_names_work_unlisted():
    assert all(getattr(optim_family, name) for name in FORMER)
