"""Configs: what ships loads, a key stands only where it means something, and what is wrong is named."""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from vae_dist.config import (
    BernoulliConfig,
    BinarizedMnistConfig,
    Config,
    ConvConfig,
    FlowPriorConfig,
    GaussianConfig,
    HierarchicalConfig,
    IWAEConfig,
    Kind,
    LogisticMixtureConfig,
    MLPConfig,
    MnistConfig,
    SGDConfig,
    TrainConfig,
    VampPriorConfig,
    aliases,
    all_kinds,
    differences,
    find_config,
    flatten,
    load_config,
    parse_config,
    shipped_configs,
)
from vae_dist.config.schema import all_fields
from vae_dist.errors import UsageError

ALL_KINDS = {(section, kind): member for section, kinds in all_kinds().items() for kind, member in kinds.items()}


def quickstart(*overrides: str) -> Config:
    return load_config(find_config("quickstart"), overrides)


def complaint(*overrides: str) -> str:
    with pytest.raises(UsageError) as error:
        quickstart(*overrides)
    return str(error.value)


def file_with(folder: Path, text: str) -> Path:
    file = folder / "config.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_every_shipped_config_loads_by_its_name(name: str) -> None:
    assert load_config(find_config(name)) == load_config(shipped_configs()[name])


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_a_config_that_was_written_loads_as_an_equal_one(name: str, tmp_path: Path) -> None:
    config = load_config(find_config(name), ["data.name=mnist", "data.root=/data"] if name == "quickstart" else [])
    assert load_config(file_with(tmp_path, config.to_yaml())) == config
    assert parse_config(config.model_dump(mode="json"), "here") == config


def test_a_written_config_has_every_kind_and_value() -> None:
    written = yaml.safe_load(Config(model=ConvConfig(prior=FlowPriorConfig(couplings=3))).to_yaml())
    own = {"name": "digits", "binarize": "dynamic", "val_size": None}
    assert written["data"] == own | {"random_flip": False, "random_crop": None}
    assert written["model"]["kind"] == "conv"
    assert written["model"]["prior"] == {"kind": "flow", "couplings": 3, "width": 256}
    assert written["objective"]["kind"] == "elbo"
    sections = "seed data model objective optim perceptual adversary train tracking"
    assert list(written) == sections.split()


@pytest.mark.parametrize(("section", "kind"), ALL_KINDS)
def test_a_bare_word_is_short_for_its_kind(section: str, kind: str) -> None:
    key = "name" if section == "data" else "kind"
    binarize = "static" if kind == "binarized-mnist" else "dynamic" if kind == "bernoulli" else "none"
    others = [f"data.binarize={binarize}", *(["model.likelihood=gaussian"] if section == "adversary" else [])]
    word, mapping = (quickstart(f"{section}={value}", *others) for value in (kind, f"{{{key}: {kind}}}"))
    assert word == mapping
    assert flatten(word)[f"{section}.{key}"] == kind


def test_a_section_without_a_kind_is_of_the_default_kind(tmp_path: Path) -> None:
    text = "data: {val_size: 5}\nmodel: {z_dim: 3, prior: {}, likelihood:}\nobjective: {beta: 2}\noptim:\n"
    config = load_config(file_with(tmp_path, text))
    default = Config()
    assert type(config.data) is type(default.data)
    assert config.data.name == "digits"
    assert config.model == MLPConfig(z_dim=3)
    assert config.objective.kind == default.objective.kind == "elbo"
    assert config.optim == default.optim
    assert parse_config({section: {} for section in ("data", "model", "objective", "optim")}, "here") == default


def test_sections_can_be_given_as_objects() -> None:
    config = Config(data=MnistConfig(name="fashion-mnist"), model=ConvConfig(prior="flow"), optim=SGDConfig(lr=1))
    assert config.model == ConvConfig(prior=FlowPriorConfig())
    assert parse_config(config.model_dump(mode="json"), "here") == config


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("model.kind=conv",), "unknown key model.h_dim: model.kind conv has no h_dim, but mlp has."),
        (("model.width=64",), "unknown key model.width: model.kind mlp has no width, but conv, hierarchical and patch"),
        (("model=conv", "model.h_dim=64"), "unknown key model.h_dim: model.kind conv has no h_dim, but mlp has."),
        (("model={kind: hierarchical, prior: flow}",), "model.kind hierarchical has no prior, but mlp and conv have."),
        (("model.prior.couplings=3",), "unknown key model.prior.couplings: model.prior.kind normal has no couplings"),
        (("model.prior=flow", "model.prior.pseudo_inputs=3"), "model.prior.kind flow has no pseudo_inputs, but vamp"),
        (("model.likelihood.sigma=0.1",), "model.likelihood.kind bernoulli has no sigma, but gaussian has."),
        (("model.likelihood={kind: gaussian, components: 3}",), "gaussian has no components, but logistic-mixture"),
        (("objective={kind: iwae, free_bits: 1}",), "objective.kind iwae has no free_bits, but elbo has."),
        (("objective.doubly_reparameterized=true",), "kind elbo has no doubly_reparameterized, but iwae has."),
        (("optim={kind: sgd, betas: [0.5, 0.9]}",), "unknown key optim.betas: optim.kind sgd has no betas, but adamw"),
        (("data=mnist", "data.size=28"), "unknown key data.size: data.name mnist has no size, but celeba, folder"),
        (
            ("data.root=pictures",),
            "data.name digits has no root, but mnist, fashion-mnist, binarized-mnist, cifar10, ",
        ),
        (
            ("data={name: binarized-mnist, val_size: 5}",),
            "data.name binarized-mnist has no val_size, but ",
        ),
    ],
)
def test_a_key_of_another_kind_is_refused_with_the_kinds_that_have_it(
    overrides: tuple[str, ...], expected: str
) -> None:
    assert expected in complaint(*overrides)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.h_dmi=3", "unknown key model.h_dmi; did you mean model.h_dim?"),
        ("model.z=3", "unknown key model.z; did you mean model.z_dim?"),
        ("model.prior={kind: flow, coupling: 3}", "model.prior.coupling; did you mean model.prior.couplings?"),
        ("model.couplings=3", "unknown key model.couplings; did you mean model.prior.couplings?"),
        ("optim.banana=3", "unknown key optim.banana; known here are kind, lr, weight_decay"),
        ("h_dim=3", "unknown key h_dim; did you mean model.h_dim?"),
        ("trian.steps=3", "unknown key trian; did you mean train?"),
        ("train.stesp=3", "unknown key train.stesp; did you mean train.steps?"),
        ("data.batch_size=3", "unknown key data.batch_size; did you mean train.batch_size?"),
        ("latent_dim=3", "unknown key latent_dim; did you mean model.z_dim?"),
        ("model.latent_size=3", "unknown key model.latent_size; did you mean model.z_dim?"),
        ("optim.learning_rate=3", "unknown key optim.learning_rate; did you mean optim.lr?"),
        ("train.learning_rate=3", "unknown key train.learning_rate; did you mean optim.lr?"),
        ("optimizer=adam", "unknown key optimizer; did you mean optim?"),
        ("optim.optimizer=adam", "unknown key optim.optimizer; did you mean optim.kind?"),
        ("model.type=conv", "unknown key model.type; did you mean model.kind?"),
        ("train.epochs=3", "did you mean train.steps? (an epoch is as many steps as the training images divided by"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_right_one(override: str, expected: str) -> None:
    assert expected in complaint(override)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model=cnov", "model.kind is 'cnov'; it should be {model}: did you mean conv?"),
        ("model.kind=cnov", "model.kind is 'cnov'; it should be {model}: did you mean conv?"),
        ("model.prior=flwo", "model.prior.kind is 'flwo'; it should be {model.prior}: did you mean flow?"),
        ("data=imagenet", "data.name is 'imagenet'; it should be {data}. Other sets are read as a folder of pictures"),
        ("data.name=mnsit", "data.name is 'mnsit'; it should be {data}: did you mean mnist?"),
        ("data=cifar-10", "data.name is 'cifar-10'; it should be {data}: did you mean cifar10?"),
        ("data=CelebA", "data.name is 'CelebA'; it should be {data}: did you mean celeba?"),
        ("data=hf", "data.name is 'hf'; it should be {data}: did you mean huggingface?"),
        ("data=npz", "data.name is 'npz'; it should be {data}: did you mean array?"),
        ("data=imagefolder", "data.name is 'imagefolder'; it should be {data}: did you mean folder?"),
        ("data=Fashion_MNIST", "data.name is 'Fashion_MNIST'; it should be {data}: did you mean fashion-mnist?"),
        ("optim=adam", "optim.kind is 'adam'; it should be {optim}: did you mean adamw?"),
        ("model.prior=gaussian", "model.prior.kind is 'gaussian'; it should be {model.prior}: did you mean normal?"),
        ("objective=3", "objective is 3; it should be {objective}."),
        ("optim.kind=[sgd]", "optim.kind is ['sgd']; it should be {optim}: did you mean sgd?"),
        ("optim.kind=null", "optim.kind is null; it should be {optim}."),
    ],
)
def test_an_unknown_kind_is_refused_with_those_there_are(override: str, expected: str) -> None:
    for section, kinds in all_kinds().items():
        *first, last = kinds
        expected = expected.replace(f"{{{section}}}", f"{', '.join(first)} or {last}")
    assert expected in complaint(override)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps=-1", "train.steps is -1; it should be a whole number from 1."),
        ("train.steps=many", "train.steps is 'many'; it should be a whole number from 1."),
        ("train.steps=1.5", "train.steps is 1.5; it should be a whole number from 1."),
        ("train.steps=true", "train.steps is true; it should be a whole number from 1."),
        ("train=fast", "train is 'fast'; it should have keys of its own, such as steps."),
        ("optim.lr=true", "optim.lr is true; it should be a number above 0."),
        (
            "optim.clip_norm=None",
            "optim.clip_norm is 'None'; it should be a number above 0 or null: did you mean null?",
        ),
        ("train.profile=maybe", "train.profile is 'maybe'; it should be true or false."),
        ("train.precision=bfloat16", "it should be auto, fp32, bf16 or fp16: did you mean bf16?"),
        ("data.binarize=null", "data.binarize is null; it should be dynamic, static or none: did you mean none?"),
        ("tracking.trackers=wandb", "it should be a list of tensorboard, wandb or trackio: did you mean [wandb]?"),
        ("data={name: folder, root: 2024}", "data.root is 2024; it should be a path or null: write ./ before"),
        ("optim.schedule=" + 300 * "x", "xxx...xxx"),
        ("optim.lr=.nan", "optim.lr is nan"),
        ("optim.betas=[0.9]", "optim.betas"),
        ("optim.betas=[0.9, 2]", "optim.betas has 2; it should be a list of 2, each a number from 0 and below 1."),
        ("model.h_dim=1" + 20 * "0", "; it should be a whole number from 1 to 1,048,576."),
        ("model.prior={kind: flow, couplings: 0}", "couplings is 0; it should be a whole number from 1."),
        ("model.likelihood={kind: gaussian, sigma: -1}", "sigma is -1; it should be a number from 0.000001,"),
        ("model.likelihood={kind: gaussian, sigma: 1.0e-50}", "sigma is 1e-50; it should be a number from 0.000001,"),
        ("model={kind: hierarchical, groups: []}", "model.groups is []"),
        ("data={name: binarized-mnist, binarize: dynamic}", "data.binarize is 'dynamic'; it should be static."),
    ],
)
def test_a_value_out_of_range_is_named_with_its_key(override: str, expected: str) -> None:
    assert expected in complaint(override)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("train.micro_batches=7",), "train.batch_size 128 is no multiple of train.micro_batches 7"),
        (("train.accumulate=9",), "train.accumulate 9 is more than the 8 train.micro_batches"),
        (("train.reduce=exact", "train.accumulate=2"), "leave train.accumulate out"),
        (
            ("model.likelihood=gaussian",),
            "model.likelihood gaussian models grey levels or colours, not binarized pixels",
        ),
        (("model.likelihood=logistic-mixture",), "set data.binarize to none"),
        (("model={prior: flow, z_dim: 1}",), "model.prior flow couples dimensions: set model.z_dim to 2 or more"),
        (("objective.final_from=0.5",), "objective.final_from is of objective.final_samples"),
        (
            ("objective={kind: iwae, doubly_reparameterized: true}", "model=hierarchical"),
            "objective.doubly_reparameterized holds for one flat latent: leave it out, or set model.kind to another",
        ),
        (
            ("objective={kind: iwae, doubly_reparameterized: true}", "model.prior=vamp"),
            "objective.doubly_reparameterized holds for a prior free of the encoder: leave it out, or set model.prior",
        ),
    ],
)
def test_sections_that_do_not_fit_each_other_are_refused(overrides: tuple[str, ...], expected: str) -> None:
    assert expected in complaint(*overrides)


def test_a_doubly_reparameterized_objective_takes_a_flow() -> None:
    objective = IWAEConfig(doubly_reparameterized=True)
    assert Config(model=ConvConfig(prior="flow"), objective=objective).objective == objective


def test_a_flat_latent_of_one_dimension_takes_any_prior_but_a_flow() -> None:
    for prior in ("normal", "vamp"):
        assert MLPConfig(z_dim=1, prior=prior).z_dim == 1


def test_every_mistake_has_a_line_and_those_of_a_file_name_it(tmp_path: Path) -> None:
    lines = complaint("seed=3", "train.steps=-3", "model.likelihood=poisson").splitlines()
    assert [line.partition(" is ")[0] for line in lines] == ["model.likelihood.kind", "train.steps"]
    file = file_with(tmp_path, "train: {epochs: 3}\n")
    with pytest.raises(UsageError) as error:
        load_config(file, ["train.steps=-3"])
    assert str(error.value).splitlines()[0].startswith("train.steps is -3")
    assert str(error.value).splitlines()[1].startswith(f"{file}: unknown key train.epochs")


def test_a_mistake_with_a_shipped_config_names_no_path() -> None:
    assert complaint("model.kind=conv").startswith("quickstart: unknown key model.h_dim")
    assert "replace the whole section: --set model=KIND" in complaint("model.kind=conv")
    assert complaint("train.micro_batches=7").startswith("train.batch_size 128 is no multiple")


@pytest.mark.parametrize(("written", "steps"), [("1e4", 10_000), ("1.0e4", 10_000), ("'20'", 20), ("2E3", 2000)])
def test_a_whole_number_can_have_an_exponent(written: str, steps: int, tmp_path: Path) -> None:
    assert quickstart(f"train.steps={written}").train.steps == steps
    assert load_config(file_with(tmp_path, f"train: {{steps: {written}}}")).train.steps == steps


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("minst", "did you mean mnist-10min, mnist-1h, mnist-1min, mnist-gpu, mnist-mlp or mnist-static?"),
        ("mnist_1min", "did you mean mnist-1min?"),
        ("fashion", "did you mean fashion-10min or fashion-8bit-10min?"),
        ("quickstart.yaml", "did you mean quickstart?"),
        ("config.yml", "did you mean config.yaml?"),
        ("conv", "did you mean --set model=conv?"),
        ("cifar10", "did you mean --set data=cifar10?"),
        ("lsun", "For pictures of your own, vae-dist train folder-10min --set data.root=FOLDER."),
        ("seed=3", "did you mean --set seed=3?"),
        ("run", "it is a run, and `train run/config.yaml --out run` goes on with it"),
    ],
)
def test_the_name_of_no_config_is_refused_with_the_nearest_right_ones(
    name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    file_with(tmp_path, "seed: 1")
    file_with(tmp_path / "run", "seed: 1")
    with pytest.raises(UsageError) as error:
        find_config(name)
    assert expected in str(error.value)


def test_every_alias_is_of_something_that_there_is() -> None:
    sections = set(Config.model_fields)
    assert set(aliases.KEYS) <= {key for key, _ in all_fields()} | sections
    known = {key for key, _ in all_fields()}
    assert [name for names in aliases.KEYS.values() for name in names.split() if name in known - sections] == []


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed.x=1", "seed has no keys of its own"),
        ("train.steps.x=1", "steps has no keys of its own"),
        ("nonsense", "write it as section.key=value"),
        ("=3", "write it as section.key=value"),
        ("seed=[", "the value is no YAML"),
        ("seed=!!bool maybe", "the value is no YAML"),
        ("data.name={a: 1, a: 2}", "the value is no YAML: a is there twice"),
    ],
)
def test_an_override_that_is_none_is_refused(override: str, expected: str) -> None:
    assert expected in complaint("seed=3", "train.steps=2", override)


def test_overrides_reach_nested_sections_and_later_ones_win() -> None:
    config = quickstart("model.likelihood={kind: gaussian}", "data.binarize=none", "model.likelihood.sigma=pixel")
    assert config.model.likelihood == GaussianConfig(sigma="pixel")
    again = quickstart("data.binarize=none", "model.likelihood={kind: gaussian, sigma: 1}", "model.likelihood=gaussian")
    assert again.model.likelihood == GaussianConfig()


@pytest.mark.parametrize("section", ["prior: flow", "prior: {kind: flow}", "prior: {kind: flow, couplings: 8}"])
def test_an_override_below_a_bare_word_keeps_its_kind(section: str, tmp_path: Path) -> None:
    file = file_with(tmp_path, f"data: mnist\nmodel:\n  {section}\noptim: sgd\n")
    config = load_config(file, ["model.prior.couplings=3", "data.root=/data", "optim.lr=0.5"])
    assert config.model == MLPConfig(prior=FlowPriorConfig(couplings=3))
    assert config.data == MnistConfig(root=Path("/data"))
    assert config.optim == SGDConfig(lr=0.5)


def test_an_override_below_nested_bare_words_keeps_their_kinds(tmp_path: Path) -> None:
    config = load_config(file_with(tmp_path, "model: conv\n"), ["model.prior=flow", "model.prior.width=32"])
    assert config.model == ConvConfig(prior=FlowPriorConfig(width=32))


def test_an_override_below_a_missing_or_empty_section_is_of_the_default_kind(tmp_path: Path) -> None:
    assert load_config(file_with(tmp_path, "seed: 1\n"), ["model.z_dim=3"]).model == MLPConfig(z_dim=3)
    assert load_config(file_with(tmp_path, "seed: 1\nmodel:\n"), ["model.z_dim=3"]).model == MLPConfig(z_dim=3)
    nested = load_config(file_with(tmp_path, "model: {prior:}\n"), ["model.prior.kind=vamp", "train.steps=3"])
    assert nested.model == MLPConfig(prior=VampPriorConfig())


def test_an_override_changes_one_of_two_sections_that_share_a_yaml_anchor(tmp_path: Path) -> None:
    file = file_with(tmp_path, "objective: &shared {warmup_steps: 3}\noptim: *shared\n")
    config = load_config(file, ["optim.warmup_steps=4"])
    assert (config.objective.warmup_steps, config.optim.warmup_steps) == (3, 4)


def test_a_file_that_holds_no_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no config"):
        load_config(file_with(tmp_path, "- 1\n"))
    with pytest.raises(UsageError, match=r"train is there twice .*line 3"):
        load_config(file_with(tmp_path, "train: {steps: 5}\nseed: 1\ntrain: {batch_size: 64}\n"))
    file = tmp_path / "broken.yaml"
    for content in (b"a: [", b"a: !!map [b]", b"\xff\x00\xff"):
        file.write_bytes(content)
        with pytest.raises(UsageError, match="is no YAML"):
            load_config(file)
    with pytest.raises(UsageError, match=r"no config 'nowhere'.*quickstart"):
        find_config("nowhere")
    with pytest.raises(UsageError, match="here: config is 3"):
        parse_config(3, "here")


BOMBS = {
    "aliases": "seed: &a [" + "x," * 99 + "]\nmodel: &b [" + "*a," * 99 + "]\ndata: [" + "*b," * 99 + "]\n",
    "aliases of a long text": "seed: &a " + "x" * 60_000 + "\nmodel: [" + "*a," * 100 + "]\n",
    "merges": "seed: &a {x: 1}\nmodel: &b {<<: ["
    + "*a," * 99
    + "]}\ndata: &c {<<: ["
    + "*b," * 99
    + "]}\noptim: [*c,*c,*c]",
    "circle": "model: &a {prior: *a}\n",
    "sexagesimal": "train: {steps: 1" + ":59" * 200_000 + "}\n",
    "short sexagesimal": "train: {steps: 1" + ":59" * 20_000 + "}\n",
    "fraction": "optim: {lr: 1" + ":59" * 20_000 + ".5}\n",
    "hexadecimal": "train: {steps: 0x" + "f" * 60_000 + "}\n",
    "digits": "train: {steps: " + "9" * 5000 + "}\n",
    "entries": "model: {" + ", ".join(f"k{number}: {number}" for number in range(200_000)) + "}\n",
    "fewer entries": "\n".join(f"k{number}:" for number in range(9000)),
    "lists": "seed: " + "[" * 60_000,
    "mappings": "seed: " + "{a: " * 10_000,
    "dashes": "- " * 30_000,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_yaml_that_grows_is_refused_within_a_second(text: str, tmp_path: Path) -> None:
    file = file_with(tmp_path, text)
    for load in (partial(load_config, file), partial(quickstart, f"model={text}")):
        began = time.process_time()
        with pytest.raises(UsageError) as refusal:
            load()
        assert time.process_time() - began < 1
        assert "is no YAML" in str(refusal.value) or "can't be read" in str(refusal.value)


def test_what_is_quoted_is_cut_and_so_is_the_number_of_mistakes(tmp_path: Path) -> None:
    long = "x" * 50_000
    for text in (
        f"train: {{steps: {long}}}",
        f"model: {long}",
        f"{long}: 1",
        f"model: {{{long}: 1}}",
        f"data: [[{long}]]",
    ):
        with pytest.raises(UsageError) as refusal:
            load_config(file_with(tmp_path, text))
        assert len(str(refusal.value)) < 600
    with pytest.raises(UsageError) as refusal:
        load_config(file_with(tmp_path, "model: {" + ", ".join(f"k{number}: 1" for number in range(500)) + "}"))
    assert len(str(refusal.value).splitlines()) == 11
    assert str(refusal.value).endswith("\n490 more mistakes.")
    with pytest.raises(UsageError, match="a number of 33,220 bits"):
        Config(train={"steps": 10**10_000})


def test_keys_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown key model\.3; known here are kind"):
        load_config(file_with(tmp_path, "model: {3: 4}\n"))


def test_a_bare_off_of_yaml_is_the_word_off() -> None:
    assert parse_config({"train": {"compile": False}}, "here").train.compile == "off"
    assert quickstart("train.compile=on").train.compile == "on"


def test_flatten_gives_dotted_keys_at_every_depth_and_leaves_tuples_whole() -> None:
    flat = flatten(Config(model=HierarchicalConfig(), data=BinarizedMnistConfig()))
    assert flat["seed"] == 0
    assert flat["data.name"] == "binarized-mnist"
    assert flat["model.groups"] == (2, 3)
    assert flat["model.likelihood.kind"] == "bernoulli"
    assert flat["optim.betas"] == (0.9, 0.999)
    assert not any(key.startswith("model.prior") for key in flat)


def test_differences_are_given_by_key() -> None:
    assert differences(Config(), parse_config({"optim": {"lr": 1.0}}, "here")) == {"optim.lr": (1e-3, 1.0)}
    assert differences(Config(), Config()) == {}


def test_a_key_that_only_one_of_two_kinds_has_differs_from_none() -> None:
    old, new = Config(), Config(model=MLPConfig(prior="flow"), optim=SGDConfig())
    assert differences(old, new) == {
        "model.prior.kind": ("normal", "flow"),
        "model.prior.couplings": (None, 6),
        "model.prior.width": (None, 256),
        "optim.kind": ("adamw", "sgd"),
        "optim.betas": ((0.9, 0.999), None),
    }
    assert differences(new, old) == {key: (here, there) for key, (there, here) in differences(old, new).items()}


def test_a_section_names_its_distributions() -> None:
    flow = ConvConfig(prior="flow", likelihood=LogisticMixtureConfig())
    assert flow.distributions == "logistic-mixture likelihood, flow prior"
    assert HierarchicalConfig().distributions == "bernoulli likelihood, priors of its own"


@pytest.mark.parametrize(
    ("likelihood", "binarize", "bounds"),
    [("bernoulli", "dynamic", True), ("bernoulli", "none", False), ("gaussian", "none", True)],
)
def test_a_bernoulli_of_grey_levels_is_no_likelihood(likelihood: str, binarize: str, bounds: bool) -> None:
    assert quickstart(f"data.binarize={binarize}", f"model.likelihood={likelihood}").has_likelihood is bounds


def test_more_processes_than_micro_batches_are_refused() -> None:
    TrainConfig(micro_batches=4).check_processes(4)
    with pytest.raises(UsageError, match="5 processes can't share 4 micro-batches"):
        TrainConfig(micro_batches=4).check_processes(5)


def test_configs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3  # type: ignore[misc]


def test_all_kinds_are_listed_by_section() -> None:
    sections = "data model model.likelihood model.prior objective optim perceptual adversary"
    assert set(all_kinds()) == set(sections.split())
    assert list(all_kinds()["model.prior"]) == ["normal", "vamp", "flow"]
    assert all_kinds()["model.likelihood"]["bernoulli"] is BernoulliConfig


class Shout(Kind):
    """A kind with a builder of its own."""

    builder: ClassVar[str] = f"{__name__}:shout"
    mark: str = "!"


def shout(config: Shout, first: str, second: str) -> str:
    return f"{first} {second}{config.mark}"


def test_a_kind_is_built_by_the_function_it_names() -> None:
    assert Shout(mark="?").build("who", "there") == "who there?"


def test_every_kind_names_a_builder_of_its_own() -> None:
    builders = {member.builder for member in ALL_KINDS.values()}
    assert len(builders) == len(set(ALL_KINDS.values()))
    assert all(builder.startswith("vae_dist.") and builder.count(":") == 1 for builder in builders)


def test_reading_a_config_imports_no_torch() -> None:
    program = (
        "import sys; from vae_dist.config import find_config, load_config; load_config(find_config('mnist-10min'));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_config_that_is_a_device_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no config '/dev/null': it is a pipe or a device"):
        find_config("/dev/null")
