"""Measure the speed of training, against other loops, a bare loop, and the arithmetic alone."""

from dataclasses import replace

from benchmarking.rounds import Log, Rounds, compare
from benchmarking.rows import Row, measured, ratio
from benchmarking.settings import (
    CLASSIC,
    CONV_128,
    DIGITS_SHAPE,
    HIERARCHICAL_128,
    MLP_128,
    MLP_512,
    PRECISIONS,
    Setting,
    variants,
)
from vae_dist.models import build_model

OTHERS = ("tutorial, 0 workers", "tutorial, 2 workers", "pythae")
# The share of the bare loop's speed to reach, by setting.
SHARES = {MLP_128.name: 0.90, MLP_512.name: 0.93, CONV_128.name: 0.97, HIERARCHICAL_128.name: 0.97}
# Of a compiled step to the bare eager loop, in fp32.
COMPILED = {MLP_128.name: (1.15, 1.5), MLP_512.name: (1.1, 1.3)}
# Targets of the ratios to the tutorials' loop and pythae, which compute in fp32, by setting and precision of ours.
AGAINST = {
    (MLP_128.name, "fp32"): ((3.3, 5), (1.8, 2.5)),
    (MLP_512.name, "fp32"): ((3.5, 5), (2.2, 4)),
    (MLP_512.name, "bf16"): ((5, 8), (3.2, 6)),
}


def training(rounds: int, log: Log) -> list[Row]:
    """Compare all settings, in all precisions, eager and compiled."""
    settings = (MLP_128, MLP_512, CONV_128, HIERARCHICAL_128)
    return [row for setting in settings for row in _group(setting, rounds, log)]


def _group(setting: Setting, rounds: int, log: Log) -> list[Row]:
    contenders = {}
    for variant in variants(setting):
        contenders[f"ours, {variant.title}"] = ("ours", variant)
        contenders[f"bare loop, {variant.title}"] = ("bare", variant)
        if not variant.compiled:
            contenders[f"floor, {variant.title}"] = ("floor", variant)
    if setting in (MLP_128, MLP_512):
        contenders |= {f"{other}, {setting.title}": (other, setting) for other in OTHERS}
    results = compare(contenders, rounds, log)
    speeds = [measured(name, results[name], "images/s") for name in contenders if name in results]
    return [*speeds, *_shares(setting, results), *_against(setting, results), _memory(setting, results)]


def _shares(setting: Setting, results: Rounds) -> list[Row]:
    rows = []
    for variant in variants(setting):
        ours = results[f"ours, {variant.title}"]
        rows.append(
            ratio(
                f"ours / bare loop, {variant.title}",
                ours,
                results[f"bare loop, {variant.title}"],
                must=SHARES[setting.name],
                aim=1.0,
            )
        )
    if setting.name in COMPILED:
        must, aim = COMPILED[setting.name]
        compiled = results[f"ours, {replace(setting, compiled=True).title}"]
        bare = results[f"bare loop, {setting.title}"]
        rows.append(ratio(f"ours, compiled / bare eager loop, {setting.title}", compiled, bare, must=must, aim=aim))
    return rows


def _against(setting: Setting, results: Rounds) -> list[Row]:
    rows = []
    for (name, precision), targets in AGAINST.items():
        if name != setting.name or precision not in PRECISIONS:
            continue
        ours = results[f"ours, {replace(setting, precision=precision).title}"]
        tutorials = [results[f"{other}, {setting.title}"] for other in OTHERS[:2]]
        rivals = {"tutorial": [max(pair) for pair in zip(*tutorials, strict=True)]}
        if (pythae := f"pythae, {setting.title}") in results:
            rivals["pythae"] = results[pythae]
        for (must, aim), (rival, speeds) in zip(targets, rivals.items(), strict=False):
            rows.append(ratio(f"ours / {rival}, {name}, {precision} / fp32", ours, speeds, must=must, aim=aim))
    return rows


def _memory(setting: Setting, results: Rounds) -> Row:
    name = f"ours, {setting.title}, peak memory"
    return measured(name, results[name], "MiB", better="lower")


def growth(rounds: int, log: Log) -> list[Row]:
    """Measure milliseconds a step of ours, by batch size and by parameters."""
    batches = [replace(MLP_128, name=f"batch {size}", batch_size=size, steps=200) for size in (128, 256, 512, 1024)]
    widths = [
        replace(MLP_128, name=f"{width} hidden units", model={**CLASSIC, "h_dim": width}, steps=200)
        for width in (200, 400, 800, 1600)
    ]
    settings = {setting.name: setting for setting in (*batches, *widths)}
    results = compare({name: ("ours", setting) for name, setting in settings.items()}, rounds, log)
    return [
        measured(
            f"MLP, {name}, {_parameters(setting):,} parameters",
            [1e3 * setting.batch_size / speed for speed in results[name]],
            "ms a step",
            better="lower",
        )
        for name, setting in settings.items()
    ]


def _parameters(setting: Setting) -> int:
    model = build_model(setting.config(steps=1).model, DIGITS_SHAPE)
    return sum(parameter.numel() for parameter in model.parameters())
