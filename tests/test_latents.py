"""The contract of a model, which all that trains, scores and samples relies on: shapes, and how its methods agree."""

import math

import pytest
import torch
from torch import Tensor, nn

from tests.test_models import FITTING, FITTING_WITH_SHAPES, SHAPES, levels, pairwise, scrambled
from vae_dist.data import ResidentDataset
from vae_dist.distributions.gaussian import DiagonalGaussian
from vae_dist.distributions.likelihoods import Bernoulli
from vae_dist.distributions.priors import Mixture, StandardNormal, VampPrior
from vae_dist.inference import generation
from vae_dist.inference.evaluation import evaluate
from vae_dist.losses import ELBO, IWAE
from vae_dist.models import MLPVAE, FlatModel, LogTerms, Model, VariationalAutoEncoder

BATCH = 3
each_model = pytest.mark.parametrize("names", pairwise(FITTING), ids=", ".join)
each_model_and_shape = pytest.mark.parametrize("names", FITTING_WITH_SHAPES, ids=", ".join)
Names = tuple[str, str, str]
NamesAndShape = tuple[str, str, str, str]


@each_model_and_shape
def test_the_posterior_has_the_shape_of_the_latents(names: NamesAndShape) -> None:
    shape = SHAPES[names[3]]
    model = scrambled(names[:3], shape)
    posterior = model.encode(levels(BATCH, shape))
    mu, sigma = posterior
    assert mu.shape == sigma.shape == (BATCH, *model.latent_shape)
    assert mu.dtype == sigma.dtype == torch.float32
    assert (sigma > 0).all()
    assert model.latent_size == math.prod(model.latent_shape)
    assert model.noise_size == model.latent_size


@each_model_and_shape
def test_latents_are_decoded_to_what_the_likelihood_takes(names: NamesAndShape) -> None:
    shape = SHAPES[names[3]]
    model = scrambled(names[:3], shape)
    x, z = levels(BATCH, shape), torch.randn(BATCH, *model.latent_shape)
    parameters = model.decode(z)
    channels, height, width = shape
    assert parameters.shape == (BATCH, model.likelihood.parameters_per_pixel(channels), height, width)
    log_px = model.likelihood.log_prob(x, parameters[None])
    assert log_px.shape == (1, BATCH)
    assert log_px.isfinite().all()
    means = model.decode_mean(z)
    assert means.shape == (BATCH, *shape)
    assert torch.equal(means, model.likelihood.mean(parameters))


@each_model_and_shape
def test_the_prior_is_drawn_in_the_shape_of_the_latents(names: NamesAndShape) -> None:
    shape = SHAPES[names[3]]
    model = scrambled(names[:3], shape)
    noise = torch.randn(BATCH, model.prior_noise_size)
    z = model.sample_prior(noise, 1.0)
    assert z.shape == (BATCH, *model.latent_shape)
    assert torch.equal(z, model.sample_prior(noise, 1.0))
    within = noise.clone()  # a mixture chooses its component by the last normal, at any temperature
    within[:, : model.latent_size] *= 0.5
    torch.testing.assert_close(model.sample_prior(noise, 0.5), model.sample_prior(within, 1.0))


@each_model_and_shape
def test_log_terms_have_a_value_for_each_draw_image_and_group(names: NamesAndShape) -> None:
    shape = SHAPES[names[3]]
    model = scrambled(names[:3], shape)
    terms = model.log_terms(levels(BATCH, shape), torch.randn(4, BATCH, model.noise_size))
    assert terms.log_px.shape == terms.log_weights().shape == (4, BATCH)
    assert terms.log_ratio is not None
    assert terms.log_ratio.shape == (4, BATCH, model.latent_groups)
    assert terms.rate.shape == (BATCH, model.latent_groups)
    assert terms.kl is None or torch.equal(terms.kl, terms.rate)
    expected = terms.log_px.double() - 0.5 * terms.log_ratio.double().sum(-1)
    assert torch.equal(terms.log_weights(0.5), expected)  # in float64


@each_model
def test_without_noise_the_latents_are_those_of_encode(names: Names) -> None:
    model = scrambled(names, SHAPES["grey"])
    x = levels(BATCH, SHAPES["grey"])
    terms = model.log_terms(x, torch.zeros(1, BATCH, model.noise_size))
    expected = model.likelihood.log_prob(x, model.decode(model.encode(x).mu)[None])
    torch.testing.assert_close(terms.log_px, expected)


@each_model
def test_drawn_latents_are_those_that_the_log_terms_are_of(names: Names) -> None:
    model = scrambled(names, SHAPES["grey"])
    x, eps = levels(BATCH, SHAPES["grey"]), torch.randn(1, BATCH, model.noise_size)
    z = model.sample_posterior(x, eps[0].unflatten(1, model.latent_shape))
    terms = model.log_terms(x, eps)
    torch.testing.assert_close(model.likelihood.log_prob(x, model.decode(z)[None]), terms.log_px)


@each_model
def test_a_frozen_model_gives_the_same_values(names: Names) -> None:
    model = scrambled(names, SHAPES["grey"])
    x, eps = levels(BATCH, SHAPES["grey"]), torch.randn(2, BATCH, model.noise_size)
    noise = torch.randn(BATCH, model.prior_noise_size)
    terms, drawn = model.log_terms(x, eps), model.sample_prior(noise, 1.0)
    with model.frozen():
        for _ in range(2):
            assert_equal(model.log_terms(x, eps), terms)
            assert torch.equal(model.sample_prior(noise, 1.0), drawn)


def assert_equal(terms: LogTerms, others: LogTerms) -> None:
    for part, other in zip(terms, others, strict=True):
        if part is None or other is None:
            assert part is other
        else:
            assert torch.equal(part, other)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_a_vamp_prior_is_computed_once_while_frozen(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = scrambled((kind, "bernoulli", "vamp"), SHAPES["grey"])
    assert isinstance(model, FlatModel)
    assert isinstance(model.prior, VampPrior)
    x, eps = levels(BATCH, SHAPES["grey"]), torch.randn(2, BATCH, model.noise_size)
    computed: list[Mixture] = []
    density = model.prior.density

    def counted(*arguments: object) -> Mixture:
        computed.append(density(model.encode))
        return computed[-1]

    monkeypatch.setattr(model.prior, "density", counted)
    with model.frozen():
        model.log_terms(x, eps)
        model.log_terms(x, eps)
        model.sample_prior(torch.randn(BATCH, model.prior_noise_size), 1.0)
    assert len(computed) == 1
    before = model.log_terms(x, eps)
    with torch.no_grad():
        model.prior.pixel_logits.add_(1)
    after = model.log_terms(x, eps)
    assert len(computed) == 3  # no longer kept
    assert not torch.equal(before.rate, after.rate)


def test_a_model_is_not_frozen_after_an_error() -> None:
    model = scrambled(("mlp", "bernoulli", "vamp"), SHAPES["grey"])
    assert isinstance(model, FlatModel)

    def fail_while_frozen() -> None:
        with model.frozen():
            assert model.prior_density() is model.prior_density()
            raise KeyError

    with pytest.raises(KeyError):
        fail_while_frozen()
    assert model.prior_density() is not model.prior_density()


class SpatialVAE(Model):
    """A model whose latents are a grid, as those of a convolutional autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        self.image_shape, self.latent_shape, self.likelihood = (1, 4, 6), (2, 2, 3), Bernoulli()
        self.noise_size = self.prior_noise_size = 12
        self.encoder, self.decoder = nn.Conv2d(1, 4, 2, stride=2), nn.ConvTranspose2d(2, 1, 2, stride=2)

    def log_terms(self, x: Tensor, eps: Tensor, *, elbo_only: bool = False) -> LogTerms:
        posterior = self.encode(x)
        z = posterior.rsample(eps.unflatten(-1, self.latent_shape))
        log_px = self.likelihood.log_prob(x, self.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2]))
        standard = DiagonalGaussian(torch.zeros(()), torch.ones(()))
        log_ratio = (posterior.log_prob(z) - standard.log_prob(z)).flatten(2).sum(-1, keepdim=True)
        return LogTerms(log_px, log_ratio, posterior.kl_to_standard_normal().flatten(1).sum(-1, keepdim=True))

    def encode(self, x: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian.from_raw(*self.encoder(x).chunk(2, dim=1))

    def decode(self, z: Tensor) -> Tensor:
        parameters: Tensor = self.decoder(z)
        return parameters

    def sample_prior(self, noise: Tensor, temperature: float) -> Tensor:
        z: Tensor = temperature * noise.unflatten(1, self.latent_shape)
        return z


def test_a_model_with_spatial_latents_is_trained_scored_and_sampled() -> None:
    torch.manual_seed(0)
    model = SpatialVAE()
    x, eps = levels(5, model.image_shape), torch.randn(3, 5, model.noise_size)
    for objective in (ELBO(model), IWAE(model)):
        objective(x, eps).loss.mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    latents = generation.encode(model, x)
    assert latents.shape == generation.sample_latents(model, 5, seed=0).shape == (5, 2, 2, 3)
    assert torch.equal(latents, generation.encode(model, x))
    assert generation.sample(model, 5, seed=0).shape == generation.reconstruct(model, x).shape == (5, 1, 4, 6)
    way = generation.interpolate(latents[0], latents[1], 4, "slerp")
    torch.testing.assert_close(way[[0, -1]], latents[:2])
    dataset = ResidentDataset("noise", "made here", {"train": (x * 255).byte()}, binarization="dynamic")
    result = evaluate(model, dataset, "train", k=200)
    assert result is not None
    assert result.nll is not None
    assert result.nll <= result.neg_elbo
    assert result.latent_units == 12


@pytest.fixture(scope="module")
def tutorial() -> VariationalAutoEncoder:
    torch.manual_seed(0)
    return VariationalAutoEncoder(784)


@pytest.mark.parametrize(
    "batch", [(5,), (), (2, 3), (1,)], ids=["a batch", "one image", "a batch of batches", "of one"]
)
def test_the_tutorials_model_takes_flat_images(tutorial: VariationalAutoEncoder, batch: tuple[int, ...]) -> None:
    x = torch.rand(*batch, 784)
    mu, sigma = tutorial.encode(x)
    assert mu.shape == sigma.shape == (*batch, 20)
    assert (sigma > 0).all()
    means = tutorial.decode(mu)
    assert means.shape == x.shape
    assert ((means >= 0) & (means <= 1)).all()
    reconstruction, *rest = tutorial(x)
    assert reconstruction.shape == x.shape
    assert all(torch.equal(part, other) for part, other in zip(rest, (mu, sigma), strict=True))


def test_the_tutorials_model_is_the_perceptron_with_the_same_weights(tutorial: VariationalAutoEncoder) -> None:
    shape = (1, 28, 28)
    perceptron = MLPVAE(
        shape, 20, h_dim=200, depth=1, activation="relu", likelihood=Bernoulli(), prior=StandardNormal(20)
    )
    perceptron.load_state_dict(tutorial.model.state_dict())
    x = levels(5, shape)
    posterior = perceptron.encode(x)
    torch.manual_seed(1)
    reconstruction, mu, sigma = tutorial(x.flatten(1))
    torch.manual_seed(1)
    z = posterior.rsample(torch.randn(5, 20))
    torch.testing.assert_close((mu, sigma), (posterior.mu, posterior.sigma))
    torch.testing.assert_close(tutorial.decode(mu), perceptron.decode_mean(posterior.mu).flatten(1))
    torch.testing.assert_close(reconstruction, perceptron.decode_mean(z).flatten(1))
    single, mu_of_one, _ = tutorial(x[0].flatten())
    torch.testing.assert_close(mu_of_one, posterior.mu[0])
    assert single.shape == (784,)


def test_the_tutorials_loss_trains_every_parameter() -> None:
    torch.manual_seed(0)
    model, x = VariationalAutoEncoder(12, h_dim=5, z_dim=2), torch.rand(4, 12)
    reconstruction, mu, sigma = model(x)
    cross_entropy = nn.functional.binary_cross_entropy(reconstruction, x, reduction="sum")
    (cross_entropy - 0.5 * (1 + 2 * sigma.log() - mu.square() - sigma.square()).sum()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
