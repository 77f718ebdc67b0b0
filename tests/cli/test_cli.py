import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from optim_family import cli, errors, registry
from optim_family.cli import doctor
from optim_family.cli.doctor import Diagnosis
from optim_family.networks import cards
from tests.helpers import ROOT
from tests.helpers.cli_runner import optim_family

HEAVY = ["torch", "pandas", "matplotlib", "timm", "torchvision", "sklearn", "scipy"]
QUICK = [["--help"], ["--version"], ["optimizers"], ["models"], ["data"], ["run", "--help"]]


@pytest.fixture
def run(capsys):
    return lambda *args: optim_family(capsys, *args)


def python(code, **env):
    """A new interpreter that imports the package from here."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | env, capture_output=True, text=True
    )
    return done.stdout + done.stderr


def loaded(*commands):
    """Python that runs the commands one after the other, then names the heavy modules it has met."""
    return f"""
import sys
from optim_family.cli import main
for args in {commands}:
    try:
        main(args)
    except SystemExit as exited:
        assert not exited.code, exited.code
print("LOADED", [name for name in {HEAVY} if name in sys.modules])
"""


def test_help_and_lists_import_nothing_heavy():
    assert "LOADED []" in python(loaded(*QUICK))


def test_a_command_that_loads_an_optimizer_imports_torch_so_that_the_test_above_means_something():
    assert "LOADED ['torch'" in python(loaded(["optimizers", "show", "gd"]))


@pytest.mark.parametrize(
    ("words", "completion"), [("optim-family ru", "run"), ("optim-family run --opt", "--optimizer")]
)
def test_completion_knows_commands_and_options_and_imports_nothing_heavy(words, completion):
    environment = {
        "_OPTIM_FAMILY_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    answer = python(loaded(None), **environment)
    assert f"plain,{completion}\n" in answer
    assert "LOADED []" in answer


def test_help_has_one_sentence_for_every_command(run):
    answer = run("--help")
    assert answer.code == 0
    assert all(name in answer.out and summary[:40] in answer.out for name, summary in cli.SUMMARIES.items())


@pytest.mark.parametrize("name", cli.SUMMARIES)
def test_every_command_has_help_of_its_own_and_the_common_flags(run, name):
    answer = run(name, "--help")
    assert answer.code == 0
    assert all(flag in answer.out for flag in ("--json", "--quiet", "-q", "--verbose", "-v", "--debug"))


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["rum"], "there is no command 'rum'; did you mean 'run'? Known: run, compare, "),
        (["models", "shwo"], "there is no command 'shwo'; did you mean 'show'? Known: check, show"),
        (["models", "--jsn"], "No such option '--jsn'. Did you mean '--json'?"),
        (["models", "show"], "Missing argument 'NAME'"),
        (["models", "show", "resnet81"], "there is no model 'resnet81'; did you mean 'resnet18'?"),
        (["optimizers", "show", "rmsprob"], "there is no optimizer 'rmsprob'; did you mean 'rmsprop'?"),
        (["data", "show", "digit"], "there is no data set 'digit'; did you mean 'digits'?"),
        (["data", "fetch", "digits"], "nothing to fetch"),
        (["compare"], "Missing argument 'RUNS...'"),
        (["compare", "nowhere"], "there is no folder nowhere; give a folder made by `run`"),
        (
            ["compare", "x", "--width", "3.25in"],
            "--width: it must be inches as a number from 2 to 40, such as 3.25, not 3.25in",
        ),
        (["compare", "x", "--width", "nan"], "--width: it must be inches as a number"),
        (["compare", "x", "--width", "41"], "--width: it must be inches as a number"),
        (["models", "check", "bn_mlp", "--norm", "nix"], "'nix' is not one of 'frozen-affine', 'affine'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_word_gets_one_line_and_code_2(run, args, line):
    answer = run(*args)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("optim-family: ")
    assert answer.err.count("\n") == 1
    assert line in answer.err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (errors.OptimFamilyError("no"), 1, "optim-family: no\n"),
        (errors.UsageError("no"), 2, "optim-family: no\n"),
        (errors.BusyError("no"), 4, "optim-family: no\n"),
        (errors.CorruptError("no"), 5, "optim-family: no\n"),
        (errors.PluginError("two\n  lines"), 6, "optim-family: two lines\n"),
        (errors.Stopped("no"), 75, "optim-family: no\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "optim-family: Permission denied: /x\n"),
        (
            ValueError("odd"),
            1,
            "optim-family: ValueError: odd; `optim-family doctor` may say why, --debug gives the traceback\n",
        ),
        (
            KeyError(),
            1,
            "optim-family: KeyError; `optim-family doctor` may say why, --debug gives the traceback\n",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_is_one_line_and_an_exit_code_and_a_traceback_only_for_debug(
    run, monkeypatch, error, code, line
):
    def fail():
        raise error

    monkeypatch.setattr(doctor, "diagnose", fail)
    answer = run("doctor")
    assert (answer.code, answer.out, answer.err) == (code, "", line)
    answer = run("doctor", "--debug")
    assert answer.code == code
    assert "Traceback" in answer.err
    assert answer.err.endswith(line)


def test_ctrl_c_is_130(run, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "diagnose", interrupt)
    answer = run("doctor")
    assert (answer.code, answer.err.strip()) == (130, "optim-family: interrupted")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error(unbuffered):
    command = [sys.executable, "-m", "optim_family", "models", "-q"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:
        process.stdout.close()
        stderr = process.stderr.read()
    assert (stderr, process.returncode) == (b"", 1)


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_with_a_closed_stdout_a_command_works_in_silence(closed):
    command = f"{sys.executable} -m optim_family models {closed}"
    result = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "optim-family:" not in result.stderr


@pytest.mark.parametrize("command", ["optimizers", "models", "data"])
def test_json_is_all_that_stdout_gets_wherever_the_flag_stands(run, command):
    answer = run(command, "--json")
    names = [row["name"] for row in json.loads(answer.out)]
    assert answer.err == ""
    plain = run(command).out
    assert all(re.search(rf"^{name}\b", plain, re.MULTILINE) for name in names)


def test_a_flag_of_a_group_holds_for_its_commands(run):
    assert json.loads(run("models", "--json", "show", "bn_cnn").out)["builtin"] == "bn_cnn"


def test_quiet_leaves_the_answer_only(run):
    assert "timm:NAME" in run("models").err
    assert run("models", "-q").err == ""


def test_a_pipe_gets_no_escape_sequences(run):
    assert "\x1b" not in run("--help").out + run("models").out


def test_optimizers_show_has_every_hyper_parameter_with_default_range_and_meaning(run):
    answer = run("optimizers", "show", "rmsprop")
    assert answer.code == 0
    assert "v ← β₂ v + (1 − β₂) ĝ²" in answer.out
    assert "threshold 2 (1 − ηλ) / η" in answer.out
    assert re.search(
        r"^beta2 +0\.99 +≥ 0.*, ≤ 1.* +memory of the second moment β₂$", answer.out, re.MULTILINE
    )
    fields = {
        field["name"] for field in json.loads(run("optimizers", "show", "rmsprop", "--json").out)["hyper"]
    }
    assert fields == registry.load("rmsprop").Hyper.model_fields.keys()


def test_optimizers_names_clashes_and_broken_plugins_and_imports_the_built_in_ones_with_v(run, monkeypatch):
    known = {
        "gd": registry.PluginEntry("gd", "no_such_module:GD", "optim-family", "0.1.0"),
        "good": registry.PluginEntry("good", "optim_family.optimizers.gd:GD", "good-plugin", "2.0"),
        "bad": registry.PluginEntry("bad", "no_such_module:Bad", "bad-plugin", "1.0"),
        "two": registry.PluginEntry("two", "a:B", "a", "1", ("a 1", "b 2")),
    }
    monkeypatch.setattr(registry, "entries", lambda: known)
    answer = run("optimizers")
    assert answer.code == 0
    assert "clash: registered by a 1 and by b 2" in answer.out
    reason = "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"
    bad, gd = (
        f"broken: optimizer {name} {reason}\n"
        for name in ("'bad' of bad-plugin 1.0", "'gd' of optim-family 0.1.0")
    )
    assert bad in answer.out and gd not in answer.out and "loads" not in answer.out
    answer = run("optimizers", "-v")
    assert answer.code == 0
    assert bad in answer.out and gd in answer.out
    assert re.search(r"^good .* loads$", answer.out, re.MULTILINE)


def test_models_check_proves_invariance(run):
    answer = run("models", "check", "bn_mlp", "--size", "8", "--json")
    assert answer.code == 0
    facts = json.loads(answer.out)
    assert facts["required"] == "bitwise" and facts["holds"]
    assert all(facts["verdicts"][precision]["exact"] for precision in ("float32", "float64"))


def test_models_check_exits_0_if_the_card_requires_no_invariance(run):
    answer = run("models", "check", "bn_mlp", "--norm", "none", "--size", "8")
    assert answer.code == 0
    assert "not scale-invariant" in answer.out
    assert "requires no scale invariance" in answer.err


def test_models_check_fails_and_names_the_tensor_if_the_card_requires_invariance(run, tmp_path):
    card = tmp_path / "mine.toml"
    card.write_text(
        'summary = "trains its read-out"\nbuiltin = "bn_mlp"\n'
        '[adapt]\nfreeze = []\n[expect]\ninvariant = "bitwise"\n'
    )
    assert cards.load(str(card)).expect.invariant == "bitwise"
    answer = run("models", "check", card, "--size", "8")
    assert answer.code == 1
    assert "broken by fc.weight" in answer.out
    assert "requires bitwise invariance, which does not hold" in answer.err


def test_data_show_counts_what_is_there(run):
    facts = json.loads(run("data", "show", "digits", "--json").out)
    assert facts["train images"] + facts["test images"] == 1797
    assert sum(facts["classes"].values()) == facts["train images"]
    assert re.fullmatch("[0-9a-f]{64}", facts["sha256"])
    assert "8×8×1" in run("data", "show", "digits").out


def test_what_reads_an_npz_file_says_how_it_was_read(run, tmp_path):
    x, y = np.random.default_rng(0).random((12, 8, 8, 3)), np.arange(12) % 2
    np.savez(
        tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y, x_test_more=x[:5], y_test_more=y[:5]
    )
    name, words = f"npz:{tmp_path / 'a.npz'}", "[n, h, w, c] (channels last) of 8×8×3 from "
    answer = run("data", "show", name)
    assert words in answer.out and re.search("^test images, more +5$", answer.out, re.MULTILINE)
    assert words in run("run", "--optimizer", "gd", "--model", "bn_mlp", "--data", name, "--dry-run").err
    assert words in run("measure", "--model", "bn_mlp", "--data", name, "--rtol", 0.1).err


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_doctor_exits_1_if_something_is_broken(run, monkeypatch, state, code):
    monkeypatch.setattr(doctor, "diagnose", lambda: iter([Diagnosis("torch", state, "text", "hint")]))
    answer = run("doctor")
    assert answer.code == code
    assert re.fullmatch(rf"{state} +torch +text \(hint\)\n", answer.out)
    assert json.loads(run("doctor", "--json").out)[0]["state"] == state
