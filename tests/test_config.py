"""Configs: what ships loads, what is wrong is named."""

from pathlib import Path

import pytest

from vae_dist.config import Config, differences, find_config, load_config, parse_config, shipped_configs
from vae_dist.errors import UsageError


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_shipped_configs_load(name: str) -> None:
    assert load_config(find_config(name)) == load_config(shipped_configs()[name])


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("model.h_dmi=3", "unknown key model.h_dmi; did you mean model.h_dim?"),
        ("optim.learning_rate=3", "unknown key optim.learning_rate; known here are kind, lr, betas"),
        ("train.steps=-3", "quickstart.yaml with --set seed=3 --set train.steps=-3: train.steps is -3"),
        ("h_dim=3", "unknown key h_dim; did you mean model.h_dim?"),
        ("trian.steps=3", "unknown key trian; did you mean train?"),
        ("train.steps=-1", "train.steps is -1: it should be greater than 0"),
        ("train.steps=many", "train.steps is 'many'"),
        ("optim.lr=.nan", "optim.lr is nan"),
        ("optim.betas=[0.9]", "optim.betas"),
        ("optim.betas=[0.9, 2]", "optim.betas is 2: it should be less than 1"),
        ("model.gaussian_sigma=-1", "model.gaussian_sigma is -1: it should be greater than or equal to 0.000001"),
        ("data.name=imagenet", "data.name is 'imagenet'"),
        ("train.micro_batches=7", "train.batch_size 128 is no multiple of train.micro_batches 7"),
        ("train.accumulate=9", "train.accumulate 9 is more than the 8 train.micro_batches"),
        ("data.name=binarized-mnist", "set data.binarize to static"),
        ("model.likelihood=gaussian", "set data.binarize to none"),
        ("model.likelihood=logistic-mixture", "set data.binarize to none"),
        ("model.width=32", "model.width is for model.kind conv or hierarchical: leave it out"),
        ("model.flow_width=32", "model.flow_width is for model.prior flow: leave it out"),
        ("model.gaussian_sigma=0.1", "model.gaussian_sigma is for model.likelihood gaussian: leave it out"),
        ("objective.doubly_reparameterized=true", "is for objective.kind iwae: leave it out"),
        (
            "model.gaussian_sigma=1.0e-50",
            "model.gaussian_sigma is 1e-50: it should be greater than or equal to 0.000001",
        ),
        ("objective={kind: iwae, free_bits: 1}", "objective.free_bits is for objective.kind elbo"),
        ("model={prior: flow, z_dim: 1}", "set model.z_dim to 2 or more"),
        ("optim={kind: sgd, betas: [0.5, 0.9]}", "optim.betas is for optim.kind adamw or adamax"),
        ("objective.final_from=0.5", "objective.final_from is of objective.final_samples"),
        ("data.root=pictures", "data.root is for other data than the built-in digits: set data.name"),
        ("model.h_dim=1" + 20 * "0", "it should be less than 2147483648"),
        ("seed.x=1", "seed has no keys of its own"),
        ("nonsense", "write it as section.key=value"),
        ("seed=[", "the value is no YAML"),
        ("seed=!!bool maybe", "the value is no YAML"),
        ("data.name={a: 1, a: 2}", "the value is no YAML: a is there twice"),
    ],
)
def test_a_mistake_is_named(override: str, complaint: str) -> None:
    with pytest.raises(UsageError) as error:
        load_config(find_config("quickstart"), ["seed=3", override] if "." in override else [override, "train.steps=2"])
    assert complaint in str(error.value)


def test_a_config_that_is_no_mapping_is_told(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text("- 1\n")
    with pytest.raises(UsageError, match="holds no config"):
        load_config(file)
    file.write_text("train: {steps: 5}\nseed: 1\ntrain: {batch_size: 64}\n")
    with pytest.raises(UsageError, match=r"train is there twice .*line 3"):
        load_config(file)
    file.write_text("seed: 1\nmodel:\n")
    assert load_config(file, ["model.z_dim=3"]).model.z_dim == 3  # an empty section
    for content in (b"a: [", b"a: !!map [b]", b"\xff\x00\xff"):
        file.write_bytes(content)
        with pytest.raises(UsageError, match="is no YAML"):
            load_config(file)
    with pytest.raises(UsageError, match=r"no config 'nowhere'.*quickstart"):
        find_config("nowhere")


def test_yaml_reads_what_it_wrote(tmp_path: Path) -> None:
    config = parse_config({"seed": 4, "train": {"compile": False}, "data": {"name": "mnist", "root": "/data"}}, "here")
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    assert load_config(file) == config
    assert config.train.compile == "off"  # YAML's bare off


def test_differences_are_told_by_key() -> None:
    assert differences(Config(), parse_config({"optim": {"lr": 1.0}}, "here")) == {"optim.lr": (1e-3, 1.0)}
