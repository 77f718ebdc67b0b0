"""Training with CUDA graphs is training without, to the last bit; each mistake here is planted and caught."""

import pytest
import torch
from torch.nn import functional

from optim_family import registry
from optim_family.errors import Stopped, UsageError
from optim_family.optimizers.gd import GD
from optim_family.runs.run import read_run
from optim_family.training import gradient_replay
from optim_family.training.experiment import build_experiment
from optim_family.training.gradient_replay import GradientReplay
from optim_family.training.loop import train
from optim_family.training.objective import Objective
from optim_family.training.process_group import SingleProcess
from optim_family.training.progress import ProgressListener
from tests.helpers import rehearsed_graphs
from tests.helpers.cli_runner import optim_family
from tests.helpers.rehearsed_cuda import rehearsed_cuda
from tests.helpers.rehearsed_tensor import count_waits
from tests.helpers.training_runs import StopAfter, spec, untimed, weights_hash

STEPS, RECORDS = 7, (0, 5)
MINI = {"ghost_batch": 10, "batch_size": 20}


@pytest.fixture
def steps(images):
    """Train some steps, without measuring; returns losses and weights, and the objective."""

    def execute(cuda_graphs: bool, optimizer="gd", **changes):
        fields = spec(optimizer, data=images, limit=None, device="cuda", **changes)
        experiment = build_experiment(fields, cuda_graphs=cuda_graphs)
        objective, numbers = experiment.objective, []
        for step in range(STEPS):
            loss = objective.gradient(step, compare=step in RECORDS)
            experiment.optimizer_step(step, loss)
            numbers.append((loss.tolist(), objective.space.weights().tolist()))
        return numbers, objective

    return execute


@pytest.fixture
def state(steps, monkeypatch):
    """What became of the graphs, if every number is bitwise that of a run without them."""
    lines = []
    monkeypatch.setattr("builtins.print", lines.append)

    def execute(**changes):
        with rehearsed_cuda():
            expected, _ = steps(False, **changes)
            numbers, objective = steps(True, **changes)
        assert numbers == expected
        state = objective.replay.state
        assert lines == ([] if state == "on" else [f"CUDA graphs are {state}"])
        return state

    return execute


@pytest.fixture
def replays(monkeypatch):
    """The graph of every replay."""
    graphs, real = [], rehearsed_graphs.CUDAGraph.replay

    def replay(self):
        graphs.append(self)
        real(self)

    monkeypatch.setattr(rehearsed_graphs.CUDAGraph, "replay", replay)
    return graphs


@pytest.mark.parametrize(
    "changes",
    [
        {},
        MINI,
        {**MINI, "model": "bn_cnn", "norm": "affine", "loss": "cross-entropy"},
        {**MINI, "optimizer": "sam", "hyper": {"lr": 0.1}},
        {"precision": "tf32", "optimizer": "adamw"},
        {"optimizer": "torch:LBFGS", "hyper": {"lr": 0.1, "max_iter": 3}},
    ],
    ids=str,
)
def test_no_bit_differs(state, replays, changes):
    assert state(**changes) == "on"
    chunks = 2 if "batch_size" in changes else 1
    assert len(replays) >= (STEPS - 1) * chunks and len({*replays}) == 1


def test_a_replay_does_not_wait(steps):
    with rehearsed_cuda():
        _, objective = steps(True, **MINI)
        with count_waits() as waits:
            objective.gradient(STEPS)
    assert waits.total == 0


DIFFERS = "the replayed gradient differs from the computed one"


def test_a_mini_batch_that_is_not_copied_into_the_graph(state, monkeypatch):
    real = GradientReplay._record

    def record(self, example):
        capture = real(self, example)
        aside = tuple(t.clone() for t in capture.inputs)
        outputs = capture.loss, capture.gradients, capture.conditions
        return gradient_replay._Capture(capture.graph, aside, *outputs)

    monkeypatch.setattr(GradientReplay, "_record", record)
    assert state(**MINI) == f"off since step 1: {DIFFERS}"


class Moving(GD):
    """Gives every weight new memory after its update."""

    def step(self, closure=None):
        super().step(closure)
        for w in self.weights:
            w.data = w.detach().clone()


@pytest.fixture
def moving(monkeypatch):
    monkeypatch.setattr(registry, "load", lambda name: Moving)


def test_weights_in_new_memory(state, moving, replays):
    assert state() == "off since step 3: the tensors or the settings of the network change again and again"
    assert not replays


def test_weights_in_new_memory_that_nothing_looks_at(state, moving, monkeypatch):
    monkeypatch.setattr(GradientReplay, "_conditions", lambda self: [])
    assert state() == f"off since step 2: {DIFFERS}"  # in step 1 the former memory has the same numbers


@pytest.fixture
def add(monkeypatch):
    """Gives every loss another summand, a function of objective and inputs."""

    def add_term(term):
        real = Objective._loss_of
        monkeypatch.setattr(Objective, "_loss_of", lambda self, x, y: real(self, x, y) + term(self, x))

    return add_term


CANNOT = "off since step 0: the gradient cannot be captured"


def test_the_host_waits_inside_the_capture(state, add):
    add(lambda self, x: 0.0 * float(x.sum()))
    reason = state(**MINI)
    assert reason.startswith(CANNOT) and "operation not permitted when stream is capturing" in reason


def test_a_tensor_is_made_on_the_cpu_inside_the_capture(state, add):
    add(lambda self, x: x.sum() * torch.zeros(()))
    reason = state(**MINI)
    assert reason.startswith(CANNOT) and "a tensor of the CPU is made inside a capture" in reason


def dropout(self, x):
    return 0.0 * functional.dropout(x, 0.5).sum()


def touch_a_buffer(self, x):
    next(self.model.buffers()).mul_(1.0)
    return 0.0


@pytest.mark.parametrize("term", [dropout, touch_a_buffer])
def test_random_numbers_and_changed_buffers(state, add, term):
    add(term)
    reason = "the loss draws random numbers or changes buffers of the network"
    assert state(norm="affine", **MINI) == f"off since step 0: {reason}"


def test_a_number_of_the_host_that_changes_later_is_noticed_at_a_record(steps, monkeypatch):
    real, factor, lines = Objective._loss_of, [1.0], []
    monkeypatch.setattr(Objective, "_loss_of", lambda self, x, y: real(self, x, y) * factor[0])
    with rehearsed_cuda():
        _, objective = steps(True, **MINI)
        objective.replay.on_stop = lines.append
        factor[0] = 2.0
        wrong, right = objective.gradient(STEPS), objective.gradient(STEPS, compare=True)
        assert right.tolist() == 2 * wrong.tolist()
    assert lines == [
        f"CUDA graphs are off since step {STEPS}: {DIFFERS}; steps after 5 may have used such a gradient"
    ]


def test_another_shape_is_computed(steps):
    with rehearsed_cuda():
        _, objective = steps(True, **MINI)
        x, y = torch.ones(3, 3, 8, 8, device="cuda"), torch.zeros(3, dtype=torch.int64, device="cuda")
        assert objective.replay(3, [lambda: (x, y)], lambda: "computed", False) == "computed"
        assert objective.replay.state == "on"


@pytest.mark.parametrize("change", ["mode", "tf32"])
def test_other_settings_are_captured_again(steps, change, replays):
    with rehearsed_cuda():
        _, objective = steps(True)
        if change == "mode":
            objective.model.eval()
        else:
            objective.tf32 = True
        for step in range(2):
            objective.gradient(step)
    assert objective.replay.state == "on" and len({*replays}) == 2


def execute(folder, images, **options):
    fields = spec(data=images, limit=None, steps=4, rtol=0.9, views=("raw",), device="cuda", **MINI)
    with rehearsed_cuda():
        train(fields, folder, **options)
    return [untimed(record) for record in read_run(folder).records], weights_hash(folder)


def test_an_interrupted_run_captures_again(images, tmp_path, replays, monkeypatch):
    eager = execute(tmp_path / "eager", images)
    messages = []
    monkeypatch.setattr(ProgressListener, "on_message", lambda self, text: messages.append(text))
    for cuda_graphs, checks in ((True, 18), (False, 2)):
        with pytest.raises(Stopped):
            stop = StopAfter(checks)
            execute(tmp_path / "graphs", images, cuda_graphs=cuda_graphs, resume=True, stop=stop)
        assert len({*replays}) == 1
    assert execute(tmp_path / "graphs", images, cuda_graphs=True, resume=True) == eager
    assert len({*replays}) == 2 and "resumed under" not in "".join(messages)
    assert read_run(tmp_path / "graphs").provenance["cuda_graphs"] == "on"
    assert "cuda_graphs" not in read_run(tmp_path / "eager").provenance


def test_a_run_says_that_its_graphs_stopped(images, tmp_path, add, monkeypatch):
    add(dropout)
    messages = []
    monkeypatch.setattr(ProgressListener, "on_message", lambda self, text: messages.append(text))
    execute(tmp_path / "run", images, cuda_graphs=True)
    state = read_run(tmp_path / "run").provenance["cuda_graphs"]
    assert state.startswith("off since step 0: ") and f"CUDA graphs are {state}" in messages


def test_a_cpu_and_several_processes_are_refused(images, tmp_path, capsys, monkeypatch):
    options = ("--model", "bn_mlp", "--data", images, "--cuda-graphs", "--out", tmp_path / "run")
    for more in ((), ("--dry-run",)):
        run = optim_family(capsys, "run", "--optimizer", "gd", "--device", "cpu", *options, *more)
        assert run.code == 2 and not (tmp_path / "run").exists()
        assert "CUDA graphs need one process on a GPU; got the device cpu: leave out --cuda-graphs" in run.err
    with rehearsed_cuda():
        objective = build_experiment(spec(data=images, limit=None, device="cuda")).objective
        monkeypatch.setattr(SingleProcess, "size", 2)
        with pytest.raises(UsageError, match="got several processes"):
            objective.use_cuda_graphs()
