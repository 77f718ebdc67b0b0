"""Run names and paths of every kind stay inside the run root; hostile links are not followed."""

import os

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from optim_family.errors import CorruptError, UsageError
from optim_family.runs.run import read_run
from optim_family.runs.store import RunStore
from optim_family.training.spec import slug
from tests.helpers.counts import tries
from tests.helpers.subprocesses import spec

EXAMPLES = tries(200, 5000)
names = st.text(max_size=300) | st.sampled_from(
    ["..", ".", "/etc/passwd", "a/../../b", "-rf", "\0", "🙂" * 100]
)
many = settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=list(HealthCheck))


@many
@given(optimizer=names, model=names, data=names)
@example(optimizer="../..", model="/", data="\0")
@example(optimizer="-rf", model="a" * 300, data="🙂")
def test_the_folder_of_a_run_is_one_plain_name(optimizer, model, data, tmp_path_factory, held):
    title = spec(optimizer=optimizer, model=model, data=data).title
    root = tmp_path_factory.getbasetemp() / "titles"
    (root / title).mkdir(parents=True, exist_ok=True)
    assert os.listdir(root) == [title] and (root / title).parent == root
    assert (title.isascii() and title[0] not in "-.") or title.startswith("--")
    (root / title).rmdir()
    held("run names and paths", of=EXAMPLES)


@many
@given(name=names)
@example(name="..")
@example(name="")
def test_the_folder_of_a_study_is_one_plain_name(name, tmp_path_factory, held):
    root = tmp_path_factory.getbasetemp() / "studies"
    (root / slug(name)).mkdir(parents=True, exist_ok=True)
    assert os.listdir(root) == [slug(name)]
    (root / slug(name)).rmdir()
    held("run names and paths", of=EXAMPLES)


def tree(root):
    return {path.relative_to(root) for path in root.rglob("*")}


@many
@given(name=names.filter(lambda name: ".." not in name.split("/") and not name.startswith("/")))
@example(name="\0")
@example(name="x" * 300)
@example(name="-rf")
def test_a_run_directory_is_made_where_it_was_asked_for_or_not_at_all(name, tmp_path_factory, held):
    root = tmp_path_factory.mktemp("names")
    try:
        with RunStore.open(root / "runs" / name, {"optimizer": "gd"}) as store:
            store.append({"step": 0})
    except (UsageError, CorruptError) as error:
        assert len(str(error).splitlines()) == 1 and "\0" not in str(error)
    else:
        assert read_run(root / "runs" / name).records == [{"step": 0}]
    assert {path.parts[0] for path in tree(root)} <= {"runs"}
    held("run names and paths", of=EXAMPLES)


@pytest.mark.parametrize("link", ["checkpoints", "metrics.jsonl", "lock"])
def test_a_link_out_of_the_run_directory_is_not_written_through(tmp_path, link):
    run, outside = tmp_path / "run", tmp_path / "outside"
    with RunStore.open(run, {"optimizer": "gd"}):
        pass
    outside.mkdir()
    (outside / "file").write_text("mine")
    (run / link).unlink(missing_ok=True)
    (run / link).symlink_to(outside if link == "checkpoints" else outside / "file")
    with pytest.raises((UsageError, CorruptError)):
        RunStore.open(run, {"optimizer": "gd"})
    assert os.listdir(outside) == ["file"] and (outside / "file").read_text() == "mine"
