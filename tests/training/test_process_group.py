"""What several processes on one run do, seen from a single one; `faults/test_fault_world.py` has several."""

import pytest
import torch

from optim_family.curvature.hessian import Hessian
from optim_family.errors import OptimFamilyError, Stopped, UsageError
from optim_family.runs.run import read_run
from optim_family.sharpness.batch_sharpness import batch_sharpness
from optim_family.space import flatten
from optim_family.training import checkpoint, process_group
from optim_family.training.experiment import build_experiment
from optim_family.training.loop import train
from optim_family.training.measurements import Measurements
from optim_family.training.stop_signal import StopSignal
from tests.helpers.environments import free_port
from tests.helpers.training_runs import StopAfter, spec


class Fake(process_group.ProcessGroup):
    """One of several processes, whose sums are doubled."""

    size = 2

    def shard(self, items):
        return items[:1]

    def all_reduce(self, *tensors):
        return [2 * tensor for tensor in tensors]

    def broadcast(self, value):
        return value

    def check(self, stop):
        stop.check()


def test_one_process_alone_has_all_shares_and_its_own_sums():
    alone, v = process_group.SingleProcess(), torch.ones(3)
    assert alone.shard(range(5)) == range(5) and alone.all_reduce(v)[0] is v and alone.is_main_process
    assert alone.broadcast({"a": 1}) == {"a": 1}
    with pytest.raises(Stopped):
        alone.check(StopAfter(1))


def test_a_record_adds_up_what_the_processes_found_in_their_mini_batches():
    wanted = spec("sgd", batch_size=20, ghost_batch=10, limit=20, batch_sharpness=3, precision="float64")
    experiment = build_experiment(wanted, Fake())
    objective = experiment.objective
    objective.gradient(0)
    value = Measurements(experiment, lambda: None, pytest.fail)(0)["spherical-batch"]["value"]
    own = batch_sharpness(objective.sample_batches(3, 0), objective.space.tensors, view="spherical")
    assert value == pytest.approx(2 * own.value, rel=1e-12)  # ĝᵀHĝ with H the sum of both


def test_more_processes_than_ghost_batches_are_refused(tmp_path):
    with pytest.raises(UsageError, match="2 processes cannot share 1 ghost batches of 40; start fewer"):
        train(spec(ghost_batch=40), tmp_path / "run", process_group=Fake())


def test_only_the_first_process_writes(tmp_path):
    other = Fake()
    other.rank = 1
    train(spec(ghost_batch=20), tmp_path / "run", process_group=other)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("batch_size", [None, 20])
def test_the_mini_batches_of_a_reading_are_sharded(batch_size):
    """A process with half of every batch receives what the other half adds to gradient and product."""
    wanted = spec("sgd", batch_size=batch_size, ghost_batch=10, limit=20, precision="float64")
    whole, halved = (
        build_experiment(wanted, each).objective for each in (process_group.SingleProcess(), Fake())
    )
    batches, params, sums = whole.sample_batches(3, 0), whole.space.tensors, []

    def total(own):
        _, other = batches[len(sums) // 2]
        gradient = flatten(torch.autograd.grad(other(), params))
        along = sums[-1] / sums[-1].norm() if len(sums) % 2 else None
        sums.append(own + (gradient if along is None else Hessian([other], params) @ along))
        return sums[-1]

    dealt = batch_sharpness(halved.sample_batches(3, 0), halved.space.tensors, all_reduce=total)
    assert dealt.quotients == pytest.approx(batch_sharpness(batches, params).quotients, rel=1e-12)


def test_without_torchrun_a_process_is_alone():
    with process_group.process_group() as here:
        assert isinstance(here, process_group.SingleProcess)


@pytest.fixture
def single(monkeypatch):
    """A process group of one process that really sends, to itself."""
    for name, value in {
        "RANK": 0,
        "WORLD_SIZE": 1,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    with process_group.process_group() as here:
        yield here
    if process_group.dist.is_initialized():  # a lost group is not taken down
        process_group.dist.destroy_process_group()


def test_a_sum_keeps_shapes_and_types_and_counts_its_bytes(single):
    before = single.all_reduce_count, single.bytes_sent
    a, b = torch.randn(2, 3), torch.randn((), dtype=torch.float64)
    c, d = single.all_reduce(a, b)
    assert torch.equal(a, c) and torch.equal(b, d) and (c.dtype, d.dtype) == (a.dtype, b.dtype)
    assert (single.all_reduce_count, single.bytes_sent) == (before[0] + 1, before[1] + 8 * (6 + 1 + 1))


@pytest.mark.parametrize("value", [None, {"a": torch.arange(3.0), "b": [1, (2.5, "x")], "c": None}])
def test_what_the_first_process_tells_arrives(single, value):
    assert single.broadcast(value) == value
    packed = checkpoint.unpack(checkpoint.pack({"value": value}))["value"]
    assert repr(packed) == repr(value)


def test_a_wrong_sum_is_noticed_before_anything_is_computed(single, monkeypatch):
    monkeypatch.setattr(process_group.dist, "all_reduce", lambda packed: packed.mul_(1.0 + 1e-6))
    with pytest.raises(OptimFamilyError, match=r"the all-reduce of 1 processes gave .* where .* is right"):
        single.self_test(torch.device("cpu"))


def test_a_lost_process_is_a_reason_to_stop_with_a_checkpoint(single, monkeypatch, tmp_path):
    real, left = process_group.dist.all_reduce, [30]

    def fail(packed):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("Connection closed by peer")
        real(packed)

    monkeypatch.setattr(process_group.dist, "all_reduce", fail)
    with pytest.raises(
        Stopped, match=r"has ended or hangs \(Connection closed by peer\); repeat the command"
    ):
        train(spec(), tmp_path / "run", process_group=single)
    assert read_run(tmp_path / "run").status["status"] == "stopped"
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints", print)[0] > 0
    train(spec(), tmp_path / "run", resume=True)


def test_a_wish_to_stop_is_obeyed_after_the_next_sum(single):
    stop = StopSignal()
    stop.signal = 15
    single.check(stop)
    single.all_reduce_vector(torch.zeros(1))
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        single.check(stop)


def test_processes_that_drift_apart_are_noticed(single, monkeypatch):
    monkeypatch.setattr(type(single), "broadcast", lambda self, value: value + 1)
    with pytest.raises(OptimFamilyError, match="process 0 of 1 has other weights than the first"):
        single.require_equal("weights", 7)


@pytest.mark.parametrize("cards", [0, 1, 2])
def test_a_process_with_a_card_of_its_own_binds_the_group_to_it(cards, monkeypatch):
    arguments = {}

    def init(backend, **options):
        arguments.update(options, backend=backend)
        raise RuntimeError("far enough")

    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("TORCH_NCCL_BLOCKING_WAIT", "")
    monkeypatch.delenv("TORCH_NCCL_BLOCKING_WAIT")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.cuda, "set_device", lambda card: None)
    monkeypatch.setattr(process_group.dist, "init_process_group", init)
    with pytest.raises(RuntimeError, match="far enough"):
        process_group.TorchrunGroup()
    own = cards == 2
    assert arguments["device_id"] == (torch.device("cuda", 1) if own else None)
    assert arguments["backend"] == ("cpu:gloo,cuda:nccl" if own else "gloo")
    assert process_group.os.environ["TORCH_NCCL_BLOCKING_WAIT"] == "1"


def test_processes_that_would_share_one_card_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="use --device cuda, which gives each process a GPU of its own"):
        build_experiment(spec(device="cuda:0", ghost_batch=20), Fake())


def test_tf32_is_for_gpus():
    with pytest.raises(UsageError, match="use --precision float32 on a CPU"):
        build_experiment(spec(precision="tf32"))
