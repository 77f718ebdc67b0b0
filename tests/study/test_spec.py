import math
import re

import pytest

from optim_family.analysis.claims import CLAIMS
from optim_family.analysis.study_results import QUANTITIES
from optim_family.errors import UsageError
from optim_family.resources import folder
from optim_family.study import spec

STUDY = """
question = "Does it fall?"
claims = ["edge"]
data = { name = "digits", limit = 200 }
train = { batch_size = "full", steps = 30, seeds = [0, 1] }
measure = { every = 10 }

[[grid]]
optimizer = ["gd", "rmsprop"]
model = "bn_mlp"
weight_decay = [0, 1e-3]

[[grid]]
optimizer = "gd"
model = "bn_mlp"
weight_decay = 1e-3
lr = [0.1, 0.2]
norm = ["frozen-affine", "none"]
steps = 50
"""
WRONG = """
questions = "?"
claims = ["edgy"]
data = { names = "digits" }
train = { steps = 0 }
measure = 3

[[grid]]
optimizer = "gd"
model = "bn_mlp"

[[grid]]
optimizer = "rmsprop"
model = "bn_mlp"
beta = 0.9
"""


@pytest.fixture
def write(tmp_path):
    def writer(text, name="mine"):
        path = tmp_path / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return writer


@pytest.fixture
def study(write):
    return lambda *settings: spec.load(write(STUDY), settings)


def lines(name, *settings):
    with pytest.raises(UsageError) as error:
        spec.load(name, settings)
    return str(error.value).splitlines()


def test_a_file_becomes_runs(study):
    parsed = study()
    assert (parsed.name, parsed.question, [*parsed.claims]) == ("mine", "Does it fall?", ["edge"])
    assert len(parsed.runs) == 2 * 2 * 2 + 2 * 2 * 2
    assert parsed.source == STUDY
    assert {run.limit for run in parsed.runs} == {200}
    assert {run.steps for run in parsed.runs} == {30, 50}


def test_what_two_grids_have_in_common_is_run_once(write):
    once = spec.load(write(STUDY)).runs
    twice = spec.load(write(STUDY + STUDY[STUDY.index("[[grid]]") :])).runs
    assert once == twice


def test_without_claims_those_that_apply_are_evaluated(write):
    text = STUDY.replace('claims = ["edge"]', "")
    assert [*spec.load(write(text)).claims] == [name for name in CLAIMS if name != "smaller-batch-flatter"]
    assert [*spec.load(write(text.replace("[0, 1e-3]", "0").replace("= 1e-3", "= 0"))).claims] == []
    named = text.replace("data =", 'claims = ["smaller-batch-flatter"]\ndata =')
    assert [*spec.load(write(named)).claims] == ["smaller-batch-flatter"]


def test_a_further_test_set_is_a_name(write):
    assert spec.load(write(STUDY)).test_set == ""
    assert spec.load(write('test_set = "shifted"\n' + STUDY)).test_set == "shifted"
    assert spec.load(write(STUDY), ["test_set=shifted"]).test_set == "shifted"
    path = write("test_set = 3\n" + STUDY)
    assert lines(path) == [f"{path}: test_set: the name of a further test set is needed, not 3"]


def test_all_mistakes_are_told_at_once_with_their_places(write):
    path = write(WRONG)
    known = "question, claims, claim, test_set, data, train, measure, grid"
    assert lines(path) == [
        f"{path}: there is no key 'questions'; did you mean 'question'? Known: {known}",
        f"{path}: a study has a question, a text",
        f"{path}: there is no claim 'edgy'; did you mean 'edge'? Known: {', '.join(CLAIMS)}",
        f"{path}, data: there is no key 'names'; did you mean 'name'? Known: name, limit, ghost_batch",
        f"{path}: measure: a table with {', '.join(spec.SECTIONS['measure'])} is needed, not 3",
        f"{path}, train: steps: it must be greater than or equal to 1, not 0",
        f"{path}, grid 2: rmsprop has no hyper-parameter 'beta'; did you mean 'beta2'? "
        "It has lr, weight_decay, beta2, eps, moment, rmsprop_norm, preconditioning",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('question = "?"', "a study has at least one [[grid]], with an optimizer and a model"),
        ('question = "?"\ngrid = 3', "a study has at least one [[grid]], with an optimizer and a model"),
        ('question = "?"\ngrid = [3]', "a study has at least one [[grid]], with an optimizer and a model"),
        (
            'question = "?"\nclaims = "edge"\n[[grid]]\noptimizer = "gd"\nmodel = "bn_mlp"',
            "claims: a list of names",
        ),
    ],
)
def test_what_is_no_study(write, text, line):
    (mistake,) = lines(write(text))
    assert line in mistake


def test_files_that_cannot_be_read(write, tmp_path):
    assert "No such file" in lines(str(tmp_path / "none.toml"))[0]
    assert "is not valid TOML" in lines(write("question = "))[0]
    (tmp_path / "latin.toml").write_bytes("question = 'ü'".encode("latin-1"))
    assert "is not valid TOML: 'utf-8' codec" in lines(str(tmp_path / "latin.toml"))[0]


def test_an_unknown_name_gets_the_nearest():
    (line,) = lines("digit")
    assert line.startswith("there is no study 'digit'; did you mean 'digits'?")


def test_a_setting_holds_for_every_grid(study):
    assert {run.steps for run in study("train.steps=20").runs} == {20}
    assert {run.limit for run in study("data.limit = all").runs} == {None}
    assert {run.views for run in study('measure.views=["raw"]').runs} == {("raw",)}
    assert {run.norm for run in study("train.norm=affine").runs} == {"affine"}
    assert len(study("train.seeds=[0,1,2]").runs) == 24


def test_a_wrong_setting(write):
    path = write(STUDY)
    assert "there is no setting 'train.stps'; did you mean 'train.steps'?" in lines(path, "train.stps=3")[0]
    assert lines(path, "train.steps")[0].startswith("--set train.steps: write KEY=VALUE")
    assert lines(path, "train.steps=x")[0].startswith(f"{path}, train: steps: it must be a valid integer")


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        (["optimizer=gd"], 12),
        (["optimizer=gd,rmsprop"], 16),
        (["optimizer=gd", "norm=none"], 4),
        (["lr=0.20", "seeds=1"], 2),
        (["weight_decay=0"], 4),
        (["batch_size=full"], 16),
    ],
)
def test_only_some_of_the_runs(study, conditions, count):
    assert len(study().only(conditions).runs) == count


@pytest.mark.parametrize(
    ("condition", "line"),
    [
        ("optimiser=gd", "there is no key 'optimiser'; did you mean 'optimizer'?"),
        ("optimizer=gdd", "there is no run with optimizer 'gdd'; did you mean 'gd'? Known: gd, rmsprop"),
        ("lr=0.3", "there is no run with lr '0.3'; "),
    ],
)
def test_a_condition_that_no_run_meets(study, condition, line):
    with pytest.raises(UsageError, match=r"--only ") as error:
        study().only([condition])
    assert line in str(error.value)


def test_the_packaged_studies_are_listed_with_their_questions():
    assert list(spec.questions()) == spec.names()
    assert "digits" in spec.names()
    assert all(spec.questions().values())


# --- claims of its own ------------------------------------------------------------------------------------

CLAIM = """
[[claim]]
name = "rate-moves-the-edge"
statement = "With the larger rate the ratio is lower."
quantity = "ratio"
by = "lr"
direction = "less"
least = 1.05
where = { optimizer = "gd", weight_decay = "> 0" }

[[claim]]
name = "fits-soon"
statement = "gd fits within 20 steps."
quantity = "fit_step"
highest = 20
where = { optimizer = "gd" }
"""


def test_a_study_states_claims_of_its_own(write):
    claims = spec.load(write(STUDY + CLAIM)).claims
    assert [*claims] == ["edge", "rate-moves-the-edge", "fits-soon"]
    pairs, single = claims["rate-moves-the-edge"], claims["fits-soon"]
    assert (pairs.by, pairs.direction, pairs.least, pairs.quantities) == ("lr", "less", 1.05, ("ratio",))
    assert single.between == (-math.inf, 20) and single.where == {"optimizer": "gd"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('quantity = "ratio"', 'quantity = "ratoi"', "there is no quantity 'ratoi'; did you mean 'ratio'?"),
        ('by = "lr"', 'by = "lrr"', "there is no field 'lrr'; did you mean 'lr'?"),
        ('by = "lr"', "", "give either `by`, for pairs of runs, or `lowest` or `highest`"),
        (
            'by = "lr"',
            'by = "lr"\nhighest = 3',
            "give either `by`, for pairs of runs, or `lowest` or `highest`",
        ),
        ('by = "lr"', 'by = "momentum"', "the study has no runs that could decide it"),
        (
            'optimizer = "gd", weight',
            'optimizer = "sgd", weight',
            "the study has no runs that could decide it",
        ),
        ("least = 1.05", "least = -1", "least: it must be greater than 0, not -1"),
        ("least = 1.05", "most = 2", "there is no key 'most'"),
        ('direction = "less"', 'direction = "lower"', "there is no direction 'lower'"),
        ('name = "fits-soon"', 'name = "edge"', "claim edge: the name is in use"),
        ("highest = 20", "highest = 20\nlowest = 30", "no number lies between 30.0 and 20.0"),
        ("highest = 20", "highest = 20\nleast = 2", "`than`, `least`, `direction` and `trend` need `by`"),
        ('statement = "gd fits within 20 steps."', "", "claim fits-soon: statement: field required"),
    ],
)
def test_a_claim_with_a_mistake_is_refused_when_the_file_is_read(write, old, new, says):
    assert old in CLAIM
    with pytest.raises(UsageError) as refusal:
        spec.load(write(STUDY + CLAIM.replace(old, new, 1)))
    assert says in str(refusal.value).splitlines()[0]
    assert len(str(refusal.value).splitlines()) == 1


def test_the_claims_of_the_readme_are_read_and_its_quantities_exist(write):
    page = (folder("studies") / "README.md").read_text(encoding="utf-8")
    study, claims = (block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL))
    assert [*spec.load(write(study + claims)).claims][2:] == ["momentum-lowers-the-ratio", "fits-soon"]
    rows = re.findall(r"^\| (`.*?) \|", page.partition("| quantity |")[2], re.MULTILINE)
    names = re.findall(r"`([\w-]+)`", " ".join(rows))
    assert {*names} <= {*QUANTITIES, *CLAIMS} and {*CLAIMS} <= {*names}


def test_measurements_along_updates_and_the_budget_of_a_norm_are_of_the_section_measure(write):
    text = STUDY.replace("every = 10", "every = 10, along = true, budget = 7")
    assert {(run.along, run.budget) for run in spec.load(write(text)).runs} == {(True, 7)}


def test_a_budget_of_no_products_is_refused_in_one_line(write):
    path = write(STUDY.replace("every = 10", "every = 10, budget = 0"))
    with pytest.raises(UsageError) as refusal:
        spec.load(path)
    assert str(refusal.value) == f"{path}, measure: budget: it must be greater than or equal to 2, not 0"
