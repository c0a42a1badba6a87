"""The promises about GPUs, each with a check: it returns what was seen, or raises what is broken."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import NamedTuple

import torch
from benchmarking.rounds import compare
from benchmarking.settings import CONV_128, MLP_128

from gpu_checking.runs import MLP, BrokenPromiseError, Lab, figures, same_bits, tensors
from vae_dist.checkpoint import find_checkpoint

OFF = "train.capture=off"
EXACT = (*MLP, "train.reduce=exact", "optim.kind=adamax")
SGD = (*MLP, "optim={kind: sgd, lr: 0.001}")
TWO_SHAPES = (*MLP, "objective={kind: iwae, samples: 2, final_samples: 4, final_from: 0.5}")
SKIPPING = (*MLP, "optim.skip_norm=105")  # that a few early gradients have
CHILD = ("-m", "gpu_checking.child")
ROUNDING = 1e-3  # of the norm of all weights, after a whole run of SGD
FASTER = 2.0  # captured steps than others, at the very least; scripts/benchmark has the targets


class Promise(NamedTuple):
    """A promise and how it is checked."""

    text: str
    check: Callable[[Lab], str]
    needs_gpu: bool = False


def captured(lab: Lab) -> str:
    """Compare captured with eager runs: networks, optimizers, two shapes, skipped steps."""
    kinds = {"plain": lab.network, "exact": EXACT, "sgd": SGD, "shapes": TWO_SHAPES, "skipping": SKIPPING}
    seen = []
    for name, settings in kinds.items() if lab.on_gpu else [("plain", lab.network)]:
        run = lab.run(name, *settings)
        if find_checkpoint(run).state.resolved.capture is not lab.on_gpu:
            raise BrokenPromiseError(f"{name} was {'not ' if lab.on_gpu else ''}captured")
        seen.append(f"{name} {same_bits(run, lab.run(f'{name}-eager', *settings, OFF))}")
    if lab.on_gpu and not find_checkpoint(lab.folder / "skipping").state.skipped_steps:
        raise BrokenPromiseError("no step was skipped")
    return ", ".join(seen)


def compiled(lab: Lab) -> str:
    """Compare a compiled and captured run with a compiled one."""
    settings = (*lab.network, "train.compile=on")
    run = lab.run("compiled", *settings)
    if not find_checkpoint(run).state.resolved.compile:
        raise BrokenPromiseError("the run was not compiled")
    return same_bits(run, lab.run("compiled-eager", *settings, OFF))


def resumed(lab: Lab) -> str:
    """Kill a captured run and go on with it, captured and eager, and compare with an undisturbed one."""
    seen = []
    for name, settings in {"captured": (), "eager": (OFF,)}.items():
        run = lab.folder / f"killed-{name}"
        step = lab.kill_in_the_middle(run, *lab.network)
        lab.finish(run, *lab.network, *settings)
        same_bits(run, lab.run("plain", *lab.network))
        seen.append(f"from step {step:,}, {name}")
    return "; ".join(seen)


def exact(lab: Lab) -> str:
    """Compare the exact sum of gradients with the fast one, on one process."""
    fast, slow = tensors(lab.run("sgd", *SGD)), tensors(lab.run("sgd-exact", *SGD, "train.reduce=exact"))
    weights = [name for name in fast if name.startswith("model/")]
    difference = torch.cat([(fast[name] - slow[name]).flatten() for name in weights]).norm()
    relative = float(difference / torch.cat([fast[name].flatten() for name in weights]).norm())
    if not relative < ROUNDING:
        raise BrokenPromiseError(f"the weights differ by {relative:.1e} of their norm")
    return f"weights {relative:.0e} apart, of their norm"


def nccl(lab: Lab) -> str:
    """Train with NCCL's sums among one process, in the graph, and compare."""
    return same_bits(lab.run("nccl", *lab.network, launcher=(*CHILD, "nccl")), lab.run("plain", *lab.network))


def fallback(lab: Lab) -> str:
    """Train with a loss that asks the device for a number, which no graph can."""
    run = lab.folder / "fallen-back"
    printed = lab.finish(run, *SGD, launcher=(*CHILD, "fallback"))
    if "can't be captured" not in printed or find_checkpoint(run).state.resolved.capture:
        raise BrokenPromiseError("the run was captured, or didn't say that it wasn't")
    return same_bits(run, lab.run("sgd", *SGD))


def no_waiting(lab: Lab) -> str:
    """Train while every wait for the device is an error."""
    for name, settings in {"plain": lab.network, "exact": EXACT, "sgd": SGD}.items():
        run = lab.run(f"{name}-not-waiting", *settings, OFF, launcher=(*CHILD, "no_waiting"))
        same_bits(run, lab.run(name, *settings))
    return "AdamW, Adamax and SGD, not captured"


def fp16(lab: Lab) -> str:
    """Train in fp16, whose loss scale is decided on the host."""
    settings = (*MLP, "train.precision=fp16")
    run = lab.folder / "killed-fp16"
    step = lab.kill_in_the_middle(run, *settings)
    lab.finish(run, *settings)
    if find_checkpoint(run).state.resolved.capture:
        raise BrokenPromiseError("fp16 was captured")
    same_bits(run, lab.run("fp16", *settings))
    return f"from step {step:,}, eager"


def launchers(lab: Lab) -> str:
    """Train one process with each launcher, and compare."""
    ways = {
        "torchrun": ("-m", "torch.distributed.run", "--nproc-per-node", "1", "-m", "vae_dist"),
        "accelerate": ("-m", "accelerate.commands.launch", "--num_processes", "1", "-m", "vae_dist"),
    }
    for name, launcher in ways.items():
        same_bits(lab.run(name, *lab.network, launcher=launcher), lab.run("plain", *lab.network))
    ours = lab.run("num-processes", *lab.network, options=("--num-processes", "1"))
    same_bits(ours, lab.run("plain", *lab.network))
    return ", ".join([*ways, "--num-processes 1"])


def scoring(lab: Lab) -> str:
    """Score a run twice, and on the CPU."""
    run = str(lab.run("plain", *lab.network))
    score = ("-m", "vae_dist", "evaluate", run, "--split", "val", "--k", "100", "--json")
    here, again = (figures(lab.call(*score)) for _ in range(2))
    there = figures(lab.call(*CHILD, "on_cpu", *score[2:]))
    if here != again:
        raise BrokenPromiseError("a second scoring gave other figures")
    if (here["noise"], there["noise"]) != ("cuda" if lab.on_gpu else "cpu", "cpu"):
        raise BrokenPromiseError(f"noise was drawn on {here['noise']} and {there['noise']}")
    if not abs(here["nll"] - there["nll"]) < here["nll_se"]:
        raise BrokenPromiseError(f"NLL {here['nll']:.3f} here and {there['nll']:.3f} on the CPU")
    return f"NLL {here['nll']:.3f} ± {here['nll_se']:.3f}, on the CPU {there['nll']:.3f}"


def throughput(lab: Lab) -> str:
    """Measure how many times as fast captured steps are."""
    seen = []
    for setting in (CONV_128, MLP_128):
        on_gpu = replace(setting, device="cuda", steps=400, precision="bf16")
        contenders = {capture: ("ours", replace(on_gpu, train={"capture": capture})) for capture in ("on", "off")}
        speeds = compare(contenders, 3, lambda _: None)
        ratio = median(a / b for a, b in zip(speeds["on"], speeds["off"], strict=True))
        seen.append(f"{setting.name}: {median(speeds['on']):,.0f} images/s, {ratio:.1f} × as fast")
        if ratio < FASTER:
            raise BrokenPromiseError(f"{seen[-1]}, where {FASTER:g} × is the least")
    return "; ".join(seen)


PROMISES = {
    "captured": Promise("a captured run has the bits of an eager one", captured),
    "compiled": Promise("so has a compiled one", compiled, needs_gpu=True),
    "resumed": Promise("a killed run ends in the bits of an undisturbed one", resumed),
    "exact": Promise("exact and ddp differ by rounding", exact),
    "nccl": Promise("NCCL's sums can be captured", nccl, needs_gpu=True),
    "fallback": Promise("what can't be captured is trained without", fallback, needs_gpu=True),
    "no-waiting": Promise("a step asks the device for nothing", no_waiting, needs_gpu=True),
    "fp16": Promise("fp16 resumes bit for bit", fp16, needs_gpu=True),
    "launchers": Promise("all launchers make the same run", launchers),
    "scoring": Promise("scoring agrees with the CPU", scoring),
    "throughput": Promise("captured steps are faster", throughput, needs_gpu=True),
}
