"""A step that is compiled as a whole does what the step of many kernels does, up to rounding, and has bits of its own.

Here it isn't compiled, but for where that is the point: its function is the same.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.test_capture import everything, settings, until
from vae_dist import train
from vae_dist.checkpoint import find_checkpoint
from vae_dist.config import AdamaxConfig, AdamWConfig, Config, OptimConfig, SGDConfig
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.errors import UsageError
from vae_dist.optim.optimizers import MOMENTS, build_optimizer
from vae_dist.optim.updates import UPDATES
from vae_dist.training.auto_settings import compiles_whole

COMPILE = "vae_dist.training.build_step.compile_or_fall_back"


@pytest.mark.parametrize(
    "optim",
    [
        AdamWConfig(lr=0.01, weight_decay=0.1, betas=(0.8, 0.9)),
        AdamaxConfig(lr=0.01, weight_decay=0.1),
        SGDConfig(lr=0.01, weight_decay=0.1),
    ],
    ids=lambda optim: optim.kind,
)
def test_an_update_is_the_optimizers_step(optim: OptimConfig) -> None:
    module = nn.Linear(3, 4)
    optimizer = build_optimizer(optim, module)
    options, update = optimizer.param_groups[0], UPDATES[type(optimizer)]
    ours = module.weight.detach().clone()
    moments = [torch.zeros_like(ours) for _ in MOMENTS[type(optimizer)]]
    for step in range(1, 6):
        module.weight.grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        optimizer.step()
        coefficients = torch.tensor(update.coefficients(optim.lr, step, options)).unbind()
        ours, *moments = update.move(ours, module.weight.grad, moments, coefficients, options)
    torch.testing.assert_close(ours, module.weight.detach(), rtol=1e-6, atol=1e-7)


def weights(run: Path) -> Tensor:
    from safetensors.torch import load_file

    files = sorted(find_checkpoint(run).path.glob("*.safetensors"))
    return torch.cat([tensor.double().flatten() for file in files for tensor in load_file(file).values()])


def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the step be taken by the function that would be compiled."""
    monkeypatch.setattr(COMPILE, lambda *_, whole=False: whole)


@pytest.mark.parametrize(
    "sections",
    [
        {"objective": {"warmup_steps": 5}, "optim": {"warmup_steps": 4, "clip_norm": 1.0}},
        {"optim": {"kind": "adamax", "ema": None, "clip_norm": None}, "train": {"precision": "bf16"}},
        {"optim": {"skip_norm": 18.0}},
    ],
    ids=["adamw", "adamax, bf16, no average", "the first step skipped"],
)
def test_a_whole_step_is_the_step_up_to_rounding(
    sections: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(settings(**sections), tmp_path / "eager")
    whole(monkeypatch)
    sections["train"] = {**sections.get("train", {}), "compile": "on"}
    train(settings(**sections), tmp_path / "whole")
    torch.testing.assert_close(weights(tmp_path / "whole"), weights(tmp_path / "eager"), rtol=1e-3, atol=1e-4)
    eager, compiled = (find_checkpoint(tmp_path / run).state for run in ("eager", "whole"))
    assert (eager.resolved.whole_step, compiled.resolved.whole_step) == (False, True)
    assert compiled.skipped_steps == eager.skipped_steps == ("skip_norm" in sections["optim"])


def test_a_run_of_whole_steps_goes_on_with_them_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole(monkeypatch)
    config = settings(train={"compile": "on"})
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        train(config, tmp_path / "parts", **until(patch, 4))
    with monkeypatch.context() as patch:
        patch.setattr(COMPILE, lambda *_, whole=False: not whole)  # the networks could still be compiled alone
        with pytest.raises(UsageError, match="The run was begun compiled"):
            train(config, tmp_path / "parts")
    train(config, tmp_path / "parts")
    assert everything(tmp_path / "parts") == everything(tmp_path / "whole")


def test_where_the_whole_step_does_not_compile_the_networks_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no backward passes here")

    def compile_networks(module: nn.Module, **options: Any) -> None:
        module._compiled_call_impl = fail if options["fullgraph"] else None

    monkeypatch.setattr(nn.Module, "compile", compile_networks)
    with pytest.warns(UserWarning, match=r"failed \(no backward passes here\); the networks may be compiled alone"):
        train(settings(train={"compile": "on"}), tmp_path / "run")
    resolved = find_checkpoint(tmp_path / "run").state.resolved
    assert (resolved.compile, resolved.whole_step) == (True, False)


@pytest.mark.parametrize(
    ("train_settings", "group", "possible"),
    [
        ({}, ProcessGroup(), True),
        ({}, ProcessGroup(size=2), False),
        ({}, ProcessGroup(device=torch.device("cuda")), False),
        ({"reduce": "exact"}, ProcessGroup(), False),
        ({"accumulate": 2}, ProcessGroup(), False),
    ],
)
def test_one_process_of_a_cpu_compiles_its_step_whole(
    train_settings: dict[str, Any], group: ProcessGroup, possible: bool
) -> None:
    assert compiles_whole(Config.model_validate({"train": train_settings}), group) is possible
