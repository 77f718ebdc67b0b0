"""Restore the modules of a model after an evaluation: buffers, attributes, flags, gradients and hooks."""

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as hooks_of_every_module

from optim_family.curvature.shared_context import SharedContext


@contextmanager
def restore_modules(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Copy the buffers and remove backward hooks inside; restore the attributes of each module."""
    states = [(m.__dict__, dict(m.__dict__)) for m in modules]
    containers = [
        (c, c.copy())
        for _, before in states
        for c in before.values()
        if type(c) in (list, dict, set, OrderedDict)
    ]
    clones: dict[int, Tensor] = {}
    try:
        for attributes, before in states:
            buffers: Mapping[str, Tensor | None] = before["_buffers"]
            attributes["_buffers"] = {
                key: None if b is None else clones.setdefault(id(b), b.detach().clone())
                for key, b in buffers.items()
            }
            attributes["_parameters"] = dict(before["_parameters"])
            attributes["_backward_hooks"], attributes["_backward_pre_hooks"] = OrderedDict(), OrderedDict()
        yield
    finally:
        for attributes, before in states:
            for key in attributes.keys() - before.keys():
                del attributes[key]
            attributes.update(before)
        for container, content in containers:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)


@contextmanager
def restore_parameters(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Remove gradients and their hooks inside; restore tensors, flags, gradients and hooks."""
    before = [(p, p.data, p.requires_grad, p.grad) for p in parameters]
    hooks = [h for p in parameters for h in (p._backward_hooks, p._post_accumulate_grad_hooks) if h]
    try:
        with _emptied(hooks):
            for p in parameters:
                p.grad = None  # a backward pass within the loss writes here
            yield
    finally:
        for p, data, trained, gradient in before:
            p.data = data
            if p.requires_grad != trained:
                p.requires_grad_(trained)
            p.grad = gradient


@contextmanager
def _emptied(registries: Sequence[Any]) -> Iterator[None]:
    """Remove the entries of hook registries inside; restore them."""
    entries = [dict(registry) for registry in registries]
    try:
        for registry in registries:
            registry.clear()
        yield
    finally:
        for registry, before in zip(registries, entries, strict=True):
            registry.update(before)


def parameters_of(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    """The parameters of all modules that have a shape, each once."""
    parameters = {id(p): p for m in modules for p in m.parameters(recurse=False)}.values()
    return [p for p in parameters if not isinstance(p, nn.parameter.UninitializedParameter)]


@contextmanager
def _without_global_hooks() -> Iterator[None]:
    """Remove the backward hooks of the process inside; restore them."""
    hooks: list[Any] = [
        hooks_of_every_module._global_backward_pre_hooks,
        hooks_of_every_module._global_backward_hooks,
    ]
    with _emptied(hooks):
        yield


no_global_hooks = SharedContext(_without_global_hooks)


def all_modules(model: nn.Module, loss_fn: Callable[..., Any] | None = None) -> list[nn.Module]:
    """The modules of the model, and those that its modules or the loss refer to, as a teacher in a list."""
    references: list[Any] = [model, loss_fn, getattr(loss_fn, "__self__", None)]
    if isinstance(loss_fn, functools.partial):
        references += [loss_fn.func, *loss_fn.args, *loss_fn.keywords.values()]
    if inspect.isfunction(loss_fn):
        names = inspect.getclosurevars(loss_fn)
        references += [*names.nonlocals.values(), *names.globals.values(), *(loss_fn.__defaults__ or ())]
    modules: dict[int, nn.Module] = {}
    while references:
        reference = references.pop()
        if isinstance(reference, nn.Module) and id(reference) not in modules:
            for module in reference.modules():
                modules[id(module)] = module
                references += [c for c in vars(module).values() if type(c) in (list, tuple, dict)]
        elif type(reference) in (list, tuple):
            references += [r for r in reference if isinstance(r, nn.Module)]
        elif type(reference) is dict:
            references += [r for r in reference.values() if isinstance(r, nn.Module)]
    return [*modules.values()]
