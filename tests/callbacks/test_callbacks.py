"""The callbacks by their hooks; `test_examples` has them in the loops that call these."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from optim_family.runs.run import read_run

X, Y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


@pytest.fixture
def lightning(tmp_path):
    """A module, its trainer, and a callback that records it at every step of its optimizer."""
    pytest.importorskip("lightning", reason="lightning is not installed")
    from optim_family.callbacks.lightning import RecorderCallback

    model = nn.Linear(4, 3)
    trainer = SimpleNamespace(optimizers=[torch.optim.SGD(model.parameters(), lr=0.1)], global_step=0)
    made = RecorderCallback(nn.functional.cross_entropy, [(X, Y)], every=1, out=tmp_path / "a")
    return trainer, model, made


def test_lightning_steps_are_those_of_the_optimizer(lightning, tmp_path):
    trainer, model, callback = lightning
    callback.on_train_start(trainer, model)
    for steps, outputs in ((0, None), (1, {"loss": torch.tensor(7.0)}), (1, torch.tensor(9.0)), (2, None)):
        trainer.global_step = steps  # gradients are accumulated where it stands still
        callback.on_train_batch_end(trainer, model, outputs, None, 0)
    callback.on_train_end(trainer, model)
    run = read_run(tmp_path / "a")
    assert [record["step"] for record in run.records] == [0, 1, 2] and run.status["status"] == "done"
    assert run.records[1]["peak_loss"] == 7.0 > run.records[2]["peak_loss"]


def test_lightning_notes_an_exception_and_refuses_two_optimizers(lightning, tmp_path):
    trainer, model, callback = lightning
    callback.on_train_start(trainer, model)
    callback.on_exception(trainer, model, KeyboardInterrupt())
    assert read_run(tmp_path / "a").status["status"] == "failed"
    trainer.optimizers *= 2
    with pytest.raises(ValueError, match="a recorder follows one optimizer; the module has 2"):
        callback.on_train_start(trainer, model)


def test_fused_attention_of_transformers_is_measured_as_the_plain_one(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from optim_family.callbacks.transformers import RecorderCallback

    tokens = torch.randint(0, 17, (9, 6), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": tokens, "labels": torch.arange(9) % 3}
    readings = []
    for attention in ("sdpa", "eager"):
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            **{
                "vocab_size": 18,
                "pad_token_id": 17,
                "n_positions": 6,
                "n_embd": 8,
                "n_layer": 1,
                "n_head": 2,
            },
            **{"num_labels": 3, "use_cache": False, "attn_implementation": attention},
        )
        model = transformers.GPT2ForSequenceClassification(config)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        callback = RecorderCallback([batch], out=tmp_path / attention)
        callback.on_train_begin(None, None, None, model=model, optimizer=optimizer)
        callback.on_train_end(None, None, None)
        assert model.config._attn_implementation == attention
        (record,) = read_run(tmp_path / attention).records
        readings.append(record["views"]["raw"])
    assert readings[0]["check"] == "passed"
    assert readings[0]["value"] == pytest.approx(readings[1]["value"], rel=1e-3)


class Labelled(nn.Module):
    """Answers as a model of transformers does."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)

    def forward(self, x, labels):
        logits = self.net(x)
        return SimpleNamespace(logits=logits, loss=nn.functional.cross_entropy(logits, labels))


def test_transformers_trains_with_the_wrapped_optimizer_and_the_loss_of_the_model(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from optim_family.callbacks.transformers import RecorderCallback

    model = Labelled().eval()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    callback = RecorderCallback([{"x": X, "labels": Y}], every=2, out=tmp_path / "a")
    trained = {"model": model, "optimizer": SimpleNamespace(optimizer=inner)}
    callback.on_train_begin(None, None, None, **trained)
    for _ in range(2):
        callback.on_step_end(None, None, None, **trained)
    callback.on_train_end(None, None, None, **trained)
    run = read_run(tmp_path / "a")
    assert [record["step"] for record in run.records] == [0, 2] and run.spec["optimizer"] == "torch:SGD"
    assert run.records[0]["train_loss"] == pytest.approx(model(X, Y).loss.item(), rel=1e-6)
    with pytest.raises(KeyError, match="labels"):
        RecorderCallback([{"x": X}])
