"""Write docs/configuration.md from the classes in vae_dist/config: every key with its type, default and meaning."""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from vae_dist.config import Config, Kind, Section, all_kinds
from vae_dist.config.aliases import listed
from vae_dist.config.section import Kinds, sections_in
from vae_dist.config.words import in_words

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
INTRODUCTION = """\
# Configuration

<!-- Written by scripts/configuration from the classes in vae_dist/config: change those, and run it again. -->

A config is a YAML file. A key or a section that is left out has its default, given below. `vae-dist train NAME` takes
a shipped config (a file in [`vae_dist/configs/`](../vae_dist/configs), linked as `configs/`; `vae-dist configs` lists
them), and `vae-dist train my.yaml` one of your own; without a name it takes `quickstart`. The `config.yaml` in a run
folder has every value written out, and so has what `vae-dist train NAME --print-config` prints.

```yaml
seed: 1
data: {name: mnist, binarize: dynamic}
model: {kind: conv, width: 64, z_dim: 40, prior: {kind: flow, couplings: 6}}
objective: {kind: elbo, warmup_steps: 1000}
optim: {kind: adamw, lr: 2.0e-3}
train: {steps: 20000, batch_size: 128}
```

**Kinds.** Some sections come in kinds, each with keys of its own: `data` (chosen by `name`), and `model`,
`model.prior`, `model.likelihood`, `objective`, `optim`, `perceptual` and `adversary` (chosen by `kind`). Without a
choice, a section is of its default kind. A bare word is short for a kind: `model: conv` is `model: {kind: conv}`.
Which kinds fit each other is in [models.md](models.md).

**Overrides.** `--set section.key=value` changes one value, and can be given many times; later ones win. The value is
read as YAML, so quote braces, brackets and spaces for the shell. `--set section=value` replaces a whole section. To
change the kind of a section whose keys are set in the file, replace the section: keys of the old kind would be refused.

```bash
vae-dist train mnist-mlp --set seed=1 --set optim.lr=2e-3
vae-dist train --set "model={kind: conv, prior: {kind: flow, couplings: 4}}"
vae-dist train --set model=conv --set model.width=32
```

**Mistakes.** An unknown key is an error that names the nearest known one, also where another tool calls it so
(`latent_dim`, `learning_rate`, `epochs`), and a key of another kind is an error that names the kinds that have it. A
key that stands twice in one mapping and a value out of range are errors, too, which say what is expected. The exit code
is 2. A whole number may be written as `1e4`; `null`, and not `None`, is no value.

## Values chosen for you

`auto` and `null` are resolved once, at the start of a run, by rules about the machine. What was chosen is printed and
kept in the checkpoints, and a resumed run uses it.

- **Precision.** `auto` is bf16 on GPUs that have it and on CPUs with AMX, else fp32. `fp16`, with a loss
  scale, is for CUDA only. `--precision bf16` is short for `--set train.precision=bf16`. Both win over accelerate's
  setting, which is used where they say `auto`. Densities are computed in fp32 in every precision.
- **Compilation.** `train.compile: auto` compiles runs of 50,000 steps and more. Compiling takes half a minute to a
  minute and a half. It saves 4 to 23 % of every step on a Xeon with AMX, and nothing to 21 % on an AMD EPYC. The step
  of an MLP on one process of a CPU is compiled as a whole, with backward pass, optimizer and average; where that fails,
  and otherwise, the networks are compiled alone. A run keeps to what it was begun with.
- **Capture.** `train.capture: auto` takes each step as one CUDA graph on GPUs, but not in fp16, whose loss scale is
  decided on the host. It changes no bit under `train.deterministic`, so a run may go on with another value. A step that
  can't be recorded on one process, such as one of a model of your own that asks the device for a number, is taken
  without a graph on all, with a warning.
- **Threads.** `train.threads: null` shares the cores evenly among the processes; with `train.reduce: exact` it is 1. On
  a machine with other work begin with `--set train.threads=1`: threads of a small network wait for each other at every
  operation, and two threads that shared their cores with other programs have been six times slower than one.
- **Device.** A GPU is used where there is one. `ACCELERATE_USE_CPU=true` in the environment leaves it alone.

`tracking.trackers` needs a package for each: `pip install "vae-dist[tensorboard]"`, `"vae-dist[wandb]"` or
`"vae-dist[trackio]"`; [what they receive](runs.md#trackers).

In the tables below, keys are written as `--set` takes them. `null` is YAML's word for no value.
"""


def render() -> str:
    """Return the page."""
    lines = [INTRODUCTION]
    lines += _sections(Config)
    return "\n".join(lines).rstrip() + "\n"


def _sections(config: type[Config]) -> Iterator[str]:
    """Yield the page's lines: the keys at the top of a config, then every section."""
    plain = [name for name, field in config.model_fields.items() if not sections_in(field)]
    yield from ("## Top level", "", *_table(config, "", plain), "")
    for name, field in config.model_fields.items():
        if sections_in(field):
            yield from _section(name, field)


def _section(key: str, field: FieldInfo) -> Iterator[str]:
    """Yield a section's lines; of one that comes in kinds, a part for each kind, then the sections within them."""
    yield from (f"## {key}", "")
    mark = Kinds.of(field)
    if mark is None:
        (section,) = sections_in(field)
        yield from (_summary(section), "", *_table(section, f"{key}.", section.model_fields), "")
        return
    yield from (f"Kinds, chosen by `{key}.{mark.key}`; the default is `{mark.default}`.", "")
    kinds = mark.members(field)
    for kind in sections_in(field):
        names = " or ".join(f"`{name}`" for name, member in kinds.items() if member is kind)
        yield from (f"### {key}: {names}", "", _summary(kind), "")
        choice = [mark.key] if names.count("`") == 2 else []  # of the only name, the heading says all
        if keys := [name for name in kind.model_fields if name not in choice]:
            yield from (*_table(kind, f"{key}.", keys), "")
    for name, inner in _inner_sections(kinds.values()).items():
        yield from _section(f"{key}.{name}", inner)


def _inner_sections(kinds: Iterable[type[Kind]]) -> dict[str, FieldInfo]:
    """Return the sections that any of some kinds has within it."""
    return {name: field for kind in kinds for name, field in kind.model_fields.items() if sections_in(field)}


def _table(section: type[Section], prefix: str, names: Iterable[str]) -> Iterator[str]:
    """Yield the table of some keys of a section."""
    schema = section.model_json_schema()["properties"]
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for name in names:
        field = section.model_fields[name]
        key = f"{prefix}{name}"
        if mark := Kinds.of(field):
            default = getattr(field.default, mark.key)
            kinds = [f"`{kind}`" for kind in all_kinds()[key]]
            cells = [
                f"section of kind {listed(kinds)}",
                f"`{default}`",
                field.description or f"see [{key}](#{_anchor(key)})",
            ]
        else:
            words = in_words(schema[name])
            cells = [words, f"`{_value(schema[name]['default'])}`", field.description or words]
        row = " | ".join(cell.replace("|", r"\|") for cell in cells)
        yield f"| `{key}` | {row} |"


def _value(default: Any) -> str:
    """Write a default as YAML has it, in one line."""
    return json.dumps(default) if not isinstance(default, str) else default


def _summary(section: type[Section]) -> str:
    return (section.__doc__ or "").split("\n\n")[0]


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading of letters and dots."""
    return heading.replace(".", "")


def main() -> None:
    """Write the page."""
    argparse.ArgumentParser(prog="scripts/configuration", description=__doc__).parse_args()
    PAGE.write_text(render())
    print(PAGE)


if __name__ == "__main__":
    main()
