"""Measure one small model of every family, and check each number in another way.

Each model stands in float64, its usual piecewise linear layers smooth, on two to four random examples. At the
eigenvector v of λ₁ the Rayleigh quotient vᵀ(∇L(w + hv) − ∇L(w − hv)) / 2h takes no second derivative; of six
steps h the two that agree best count. Parameters, buffers, gradients, modes and random numbers must be the
same bits afterwards.

    python results/models/sweep.py                 # every model, resumes
    python results/models/sweep.py timm/resnet18   # one
"""

import contextlib
import itertools
import json
import math
import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORDS, TABLE = HERE / "sweep.jsonl", HERE / "README.md"
LIMIT = 300  # seconds of a core for a model
SIZES = (32, 64, 96, 128, 160, 224, 256)
LARGEST = 60_000_000  # weights; a search keeps 25 vectors of so many numbers
TOO_LARGE = f"more than {LARGEST:,} weights, which this machine's memory does not hold 25 times"
SMALL_NAMES = ("test_", "atto", "femto", "pico", "nano", "tiny", "mini", "small", "xxs", "18", "121")
# Arguments that make a family's smallest model smaller, tried in order.
REDUCTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"depth": 2, "embed_dim": 192, "num_heads": 3},
    {"depths": (1, 1, 1, 1)},
    {"num_features": 128},
)


def names() -> list[str]:
    """All models of the sweep, as source/name; those of timm by their size."""
    import timm
    import torchvision

    families = map(_smallest, filter(lambda m: timm.list_models(module=m), timm.models.list_modules()))
    smallest = [f"timm/{name}" for _, name in sorted(families)]
    vision = sorted(map("torchvision/{}".format, _smallest_classifiers()))
    detectors = torchvision.models.list_models(torchvision.models.detection)
    return [
        *map("torch/{}".format, TORCH),
        *map("transformers/{}".format, _configurations()),
        *smallest,
        *vision,
        *(f"detection/{n}" for n in detectors if "mobilenet" in n),
    ]


def _smallest(module: str) -> tuple[float, str]:
    """Number of parameters and name of the smallest of three models of a family whose names say small."""
    import timm

    def rank(name: str) -> int:
        return next((i for i, token in enumerate(SMALL_NAMES) if token in name), len(SMALL_NAMES))

    return min((_size(name), name) for name in sorted(timm.list_models(module=module), key=rank)[:3])


def _size(name: str, **settings: Any) -> float:
    """The number of parameters, counted without storage; infinite where that fails."""
    import timm
    import torch

    with torch.device("meta"), contextlib.suppress(Exception):
        return sum(p.numel() for p in timm.create_model(name, **settings).parameters())
    return math.inf


def _smallest_classifiers() -> list[str]:
    """The smallest classifier of every module of torchvision."""
    from torchvision import models

    sizes: dict[str, dict[str, int]] = {}
    for name in models.list_models(models):
        weights = models.get_model_weights(name).DEFAULT.meta["num_params"]
        sizes.setdefault(models.get_model_builder(name).__module__, {})[name] = weights
    return [min(family, key=family.__getitem__) for family in sizes.values()]


def _configurations() -> list[str]:
    return [
        *("bert", "gpt2", "llama", "mistral", "qwen2", "roberta", "distilbert", "albert", "electra", "opt"),
        *("gpt_neo", "gpt_neox", "bloom", "t5", "bart", "vit", "convnext", "mamba", "gemma", "phi"),
        *("whisper", "clip", "swin", "deberta-v2"),
    ]


def measure_one(label: str) -> dict[str, Any]:
    """One row: the number, the other number, what changed, and the words where it is refused."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    source, _, name = label.partition("/")
    row: dict[str, Any] = {"model": label}
    begin = time.process_time()
    try:
        model, loss_fn, chunk = SOURCES[source](name)
        row["parameters"] = sum(p.numel() for p in model.parameters())
        row |= _measured(model.double(), loss_fn, chunk)
    except Exception as error:
        row["refused"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return {**row, "seconds": round(time.process_time() - begin, 1)}


def _measured(model: Any, loss_fn: Callable[..., Any], chunk: Any) -> dict[str, Any]:
    import torch

    from optim_family import Hessian, Probe, chunk_losses, measure
    from optim_family.curvature.double_backward import replace_functions
    from optim_family.curvature.hessian import chunk_gradient
    from optim_family.sharpness.self_check import SMOOTH
    from optim_family.space import ParameterSpace, unflatten

    before, streams = _state(model), torch.get_rng_state()
    with replace_functions(**SMOOTH):
        reading = measure(model, loss_fn, [chunk], views=("raw",), rtol=1e-5, check="full")["raw"]
        space, losses = ParameterSpace.of(model), chunk_losses(model, loss_fn, [chunk])
        hessian = Hessian(losses, space.tensors)
        v = Probe("raw", rtol=1e-5).eigenpairs(hessian, space.weights(), None).vectors[0]
        held, length = [p.data for p in space.tensors], float(space.weights().norm())
        quotients = []
        for h in (length * 10.0**-k for k in range(5, 11)):
            ends = []
            for step in (h, -h):
                for p, data, part in zip(space.tensors, held, unflatten(v, held), strict=True):
                    p.data = data + step * part
                ends.append(float(chunk_gradient(losses[0], space.tensors)[1] @ v))
            quotients.append((ends[0] - ends[1]) / (2 * h))
        for p, data in zip(space.tensors, held, strict=True):
            p.data = data
    changed = [key for key, value in _state(model).items() if not torch.equal(value, before[key])]
    if not torch.equal(torch.get_rng_state(), streams):
        changed.append("random numbers")
    return {
        "value": reading.value,
        "by differences": min(pairwise(quotients), key=_disagreement)[1],
        "check": reading.check,
        "converged": reading.converged,
        "products": reading.products,
        "changed": changed,
    }


def _disagreement(pair: tuple[float, float]) -> float:
    """The relative difference: where the loss bends much, wrong numbers are close to each other too."""
    a, b = pair
    return abs(a - b) / (max(abs(a), abs(b)) or 1.0)


def _state(model: Any) -> dict[str, Any]:
    import torch

    state = {
        key: value.detach().clone() for key, value in model.state_dict().items() if torch.is_tensor(value)
    }
    state |= {f"mode of {key}": torch.tensor(module.training) for key, module in model.named_modules()}
    return state | {f"gradient of {k}": torch.tensor(p.grad is None) for k, p in model.named_parameters()}


# --- where models come from ---------------------------------------------------------------------------------


def _from_timm(name: str) -> tuple[Any, Any, Any]:
    import timm
    import torch

    for reduction in REDUCTIONS:
        settings: dict[str, Any] = {"num_classes": 10, **reduction}
        if _size(name, **settings) <= LARGEST:
            break
    else:
        raise ValueError(TOO_LARGE)
    for size, sized in itertools.product(SIZES, (True, False)):
        try:
            model = timm.create_model(name, **settings, **({"img_size": size} if sized else {}))
            channels = model.pretrained_cfg["input_size"][0]
            with torch.no_grad():
                model.eval()(torch.zeros(2, channels, size, size))
        except Exception:  # another size
            continue
        x = torch.randn(4, channels, size, size, dtype=torch.float64)
        return model.train(), _classify, (x, torch.arange(4))
    raise ValueError("no image size from 32 to 256 fits")


def _classify(outputs: Any, y: Any) -> Any:
    from torch.nn import functional

    outputs = getattr(outputs, "logits", outputs)
    return functional.cross_entropy(outputs[0] if isinstance(outputs, tuple | list) else outputs, y)


def _from_torchvision(name: str) -> tuple[Any, Any, Any]:
    import torch
    import torchvision

    size = 299 if "inception" in name else 224 if "vit" in name or "maxvit" in name else 64
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, num_classes=10, **extra)
    if sum(p.numel() for p in model.parameters()) > LARGEST:
        raise ValueError(TOO_LARGE)
    return model, _classify, (torch.randn(4, 3, size, size, dtype=torch.float64), torch.arange(4))


def _from_detection(name: str) -> tuple[Any, Any, Any]:
    """The head's losses on two images."""
    import torch
    import torchvision

    model = torchvision.models.get_model(name, num_classes=3, weights=None, weights_backbone=None)
    images = [torch.rand(3, 96, 96, dtype=torch.float64) for _ in range(2)]
    boxes = torch.tensor([[10.0, 10.0, 60.0, 60.0]], dtype=torch.float64)
    targets = [{"boxes": boxes, "labels": torch.tensor([1])} for _ in range(2)]
    return model, lambda losses, _: sum(losses.values()), ((images, targets), None)


# Small values of a configuration's fields.
SMALL: dict[Any, str] = {
    2: "num_hidden_layers num_attention_heads n_layer n_head n_layers n_heads num_layers num_heads "
    "encoder_layers decoder_layers encoder_attention_heads decoder_attention_heads num_key_value_heads "
    "eos_token_id window_size",
    8: "d_kv patch_size head_dim num_mel_bins",
    16: "hidden_size n_embd dim d_model embedding_size word_embed_proj_dim embed_dim",
    24: "intermediate_size hidden_dim d_ff encoder_ffn_dim decoder_ffn_dim ffn_dim",
    32: "image_size max_source_positions max_target_positions",
    50: "vocab_size",
    64: "max_position_embeddings",
    0: "pad_token_id",
    1: "bos_token_id decoder_start_token_id",
}
IMAGES = ("vit", "convnext", "swin")
MASKED = ("bert", "roberta", "distilbert", "albert", "electra", "deberta-v2")


def _from_transformers(name: str) -> tuple[Any, Any, Any]:
    import torch
    import transformers

    small = {field: value for value, fields in SMALL.items() for field in fields.split()}
    config_class = transformers.CONFIG_MAPPING[name]
    fields = config_class().to_dict().keys()
    if name == "clip":
        return _clip(transformers, small)
    values = {key: value for key, value in small.items() if key in fields}
    if name == "gpt_neo":
        values["attention_types"] = [[["global", "local"], 1]]
    if name == "vit":
        values["image_size"] = 64
    if name == "convnext":
        values |= {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16]}
    if name == "swin":
        values |= {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "patch_size": 2}
        del values["hidden_size"]
    if name in IMAGES:
        values["num_labels"] = 4
    config, ids = config_class(**values), torch.randint(3, 50, (2, 8))
    if name == "t5":
        config.decoder_start_token_id = 0
    if name in IMAGES:
        model = transformers.AutoModelForImageClassification.from_config(config)
        return model.train(), _classify, (torch.randn(2, 3, 64, 64, dtype=torch.float64), torch.arange(2))
    batch = {"input_ids": ids, "labels": ids}
    if name == "whisper":
        kind = "SpeechSeq2Seq"
        batch = {"input_features": torch.randn(2, 8, 64, dtype=torch.float64), "labels": ids}
    else:
        kind = "Seq2SeqLM" if name in ("t5", "bart") else "MaskedLM" if name in MASKED else "CausalLM"
    model = getattr(transformers, f"AutoModelFor{kind}").from_config(config)
    return model.train(), lambda out, _: out, (batch, None)


def _clip(transformers: Any, small: dict[str, Any]) -> tuple[Any, Any, Any]:
    import torch

    towers = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    shared = {key: small[key] for key in towers}
    config = transformers.CLIPConfig(
        text_config={**shared, "vocab_size": 50, "eos_token_id": 2},
        vision_config={**shared, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    batch = {
        "input_ids": torch.randint(3, 50, (2, 8)),
        "pixel_values": torch.randn(2, 3, 32, 32, dtype=torch.float64),
        "return_loss": True,
    }
    return transformers.CLIPModel(config), lambda out, _: out, (batch, None)


def _from_torch(name: str) -> tuple[Any, Any, Any]:
    import torch
    from torch import nn
    from torch.nn import functional

    model = TORCH[name](nn)
    x, y = torch.randn(3, 5, 6, dtype=torch.float64), torch.randn(3, 5, 6, dtype=torch.float64)

    def loss(out: Any, target: Any) -> Any:
        return functional.mse_loss(out[0] if isinstance(out, tuple) else out, target)

    if name in ("transformer", "decoder layer"):
        return model, loss, ((x, y), y)
    if name == "attention":
        return model, loss, ((x, x, x), y)
    if name == "message passing":
        return model, loss, ((x[0], torch.randint(0, 5, (2, 12))), y[0])
    return model, loss, (x, y)


def _message_passing(nn: Any) -> Any:
    """Two rounds of gather, transform, scatter-add over the edges [2, m] of a graph."""
    import torch

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.message, self.update = nn.Linear(12, 6), nn.GRUCell(6, 6)

        def forward(self, x: Any, edges: Any) -> Any:
            for _ in range(2):
                sender, receiver = edges
                messages = torch.tanh(self.message(torch.cat([x[sender], x[receiver]], 1)))
                x = self.update(torch.zeros_like(x).index_add(0, receiver, messages), x)
            return x

    return Graph()


TORCH: dict[str, Callable[[Any], Any]] = {
    "rnn": lambda nn: nn.RNN(6, 6, batch_first=True),
    "gru": lambda nn: nn.GRU(6, 6, 2, batch_first=True),
    "lstm": lambda nn: nn.LSTM(6, 6, batch_first=True),
    "bidirectional lstm": lambda nn: nn.LSTM(6, 3, bidirectional=True, batch_first=True),
    "projected lstm": lambda nn: nn.LSTM(6, 8, proj_size=6, batch_first=True),
    "encoder layer": lambda nn: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True),
    "decoder layer": lambda nn: nn.TransformerDecoderLayer(6, 2, 8, batch_first=True),
    "transformer": lambda nn: nn.Transformer(6, 2, 1, 1, 8, batch_first=True),
    "attention": lambda nn: nn.MultiheadAttention(6, 2, batch_first=True),
    "message passing": _message_passing,
}
SOURCES: dict[str, Callable[[str], tuple[Any, Any, Any]]] = {
    "timm": _from_timm,
    "torchvision": _from_torchvision,
    "detection": _from_detection,
    "transformers": _from_transformers,
    "torch": _from_torch,
}


def write_table(remaining: int) -> None:
    """README.md from the records.

    Args:
        remaining: models of the sweep without a record.
    """
    rows = [json.loads(line) for line in RECORDS.read_text().splitlines()]
    right = [r for r in rows if "value" in r]
    refused = [r for r in rows if "refused" in r]
    off = [abs(r["value"] - r["by differences"]) / abs(r["value"]) for r in right if r["value"]]
    lines = [
        "# One small model of every family",
        "",
        (__doc__ or "").split("\n\n")[1],
        "",
        f"{len(right)} of {len(rows)} models are measured; the two numbers differ by "
        f"{sorted(off)[len(off) // 2]:.0e} in the median, {max(off):.0e} at most. "
        f"{sum(bool(r['changed']) for r in right)} left something changed. {len(refused)} are refused."
        + f" {remaining} more are still to be measured: the command resumes."
        * (remaining > 0),
        "",
        "| model | weights | λ₁ | by differences | check | changed |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['model']} | {r['parameters']:,} | {r['value']:.7g} | {r['by differences']:.7g} "
        f"| {r['check']} | {', '.join(r['changed']) or '–'} |"
        for r in right
    ]
    lines += ["", "| not measured | why |", "|---|---|"]
    lines += [f"| {r['model']} | {r['refused'].replace('|', '/')} |" for r in refused]
    TABLE.write_text("\n".join(lines) + "\n")


def _in_a_process(label: str) -> dict[str, Any]:
    """The row, from a forked process, so that a crash or a slow model costs one row."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def measure() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 5))
        sender.send(measure_one(label))

    process = context.Process(target=measure)
    process.start()
    sender.close()  # an end without a row is noticed
    with contextlib.suppress(EOFError):
        return receiver.recv()
    process.join()
    too_slow = process.exitcode == -signal.SIGXCPU
    return {"model": label, "refused": f"more than {LIMIT} s of a core" if too_slow else "its process ended"}


def main(labels: list[str]) -> None:
    """All models, or some of them."""
    if labels:
        for label in labels:
            print(json.dumps(measure_one(label)))
        return
    done = (
        {json.loads(line)["model"] for line in RECORDS.read_text().splitlines()}
        if RECORDS.exists()
        else set()
    )
    waiting = [label for label in names() if label not in done]
    for number, label in enumerate(waiting, 1):
        row = _in_a_process(label)
        with RECORDS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{number}/{len(waiting)} {label}: {row.get('refused') or row['check']}", flush=True)
        write_table(len(waiting) - number)


if __name__ == "__main__":
    main(sys.argv[1:])
