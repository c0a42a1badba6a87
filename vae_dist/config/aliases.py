"""List the names that other tools have for our keys, values, options and commands, and find the nearest of ours."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

KIND = "kind name type"  # says which kind a section is of
KEYS = {
    "seed": "random_seed manual_seed random_state rng_seed",
    "data": "dataset datasets",
    "data.name": "kind type dataset dataset_name",
    "data.root": "data_dir data_path data_root dataset_path image_dir image_folder folder dir path train_dir",
    "data.column": "image_column image_key img_column img_key",
    "data.size": "image_size img_size input_size resolution crop_size",
    "data.fit": "resize_mode fit_mode pad padding letterbox",
    "data.background": "background_color background_colour bg bg_color fill fill_color",
    "data.random_flip": "flip hflip horizontal_flip random_horizontal_flip",
    "data.random_crop": "crop random_crop_size",
    "data.val_size": "val_split validation_split validation_size valid_size val_fraction",
    "data.binarize": "binarization binarized dynamic_binarization",
    "model": "network net arch architecture backbone encoder decoder",
    "model.kind": f"{KIND} arch architecture backbone network model_name model_type",
    "model.z_dim": "latent_dim latent_dims latent_size latent_channels latents n_latent n_latents num_latents nz n_z "
    "dim_z z_size z_channels zdim code_dim code_size embedding_dim embed_dim bottleneck bottleneck_dim",
    "model.h_dim": "hidden hidden_dim hidden_dims hidden_size hidden_units n_hidden num_hidden hdim",
    "model.depth": "layers n_layers num_layers hidden_layers num_hidden_layers",
    "model.activation": "act activation_fn nonlinearity non_linearity",
    "model.width": "channels num_channels base_channels hidden_channels filters n_filters num_filters ch",
    "model.blocks": "n_blocks num_blocks res_blocks num_res_blocks residual_blocks",
    "model.patch": "patch_size",
    "model.prior.kind": f"{KIND} prior_type",
    "model.prior.pseudo_inputs": "pseudoinputs num_pseudo_inputs n_pseudo_inputs number_components",
    "model.prior.couplings": "n_flows num_flows flow_steps num_couplings n_couplings coupling_layers",
    "model.likelihood.kind": f"{KIND} reconstruction_loss recon_loss output_distribution decoder_distribution",
    "model.likelihood.sigma": "std stddev noise_std decoder_std",
    "model.likelihood.scale": "laplace_scale diversity",
    "model.channels": "block_out_channels ch_mult channel_multipliers dims",
    "model.layers": "layers_per_block",
    "model.norm_groups": "norm_num_groups num_groups",
    "model.attention": "mid_block_add_attention use_attention",
    "model.quant_conv": "use_quant_conv use_post_quant_conv",
    "model.gradient_checkpointing": "checkpointing activation_checkpointing use_checkpoint",
    "model.freeze": "frozen freeze_encoder train_decoder_only",
    "model.likelihood.components": "n_mixtures num_mixtures nr_mix n_components",
    "objective": "loss criterion",
    "objective.kind": f"{KIND} loss loss_fn loss_type criterion",
    "objective.beta": "kl_weight kl_coeff kl_coef kld_weight kl_beta kl_lambda kl",
    "objective.warmup_steps": "kl_warmup kl_warmup_steps kl_annealing kl_anneal_steps beta_warmup annealing_steps",
    "objective.samples": "k importance_samples num_importance_samples iw_samples mc_samples n_samples num_samples",
    "objective.doubly_reparameterized": "dreg doubly_reparametrized",
    "optim": "optimizer optimiser optimizers opt",
    "optim.kind": f"{KIND} optimizer optimiser optimizer_name optimizer_type",
    "optim.lr": "learning_rate base_lr max_lr peak_lr init_lr alpha eta",
    "optim.weight_decay": "wd l2 decay",
    "optim.warmup_steps": "warmup lr_warmup lr_warmup_steps num_warmup_steps warmup_iters warmup_iterations",
    "optim.schedule": "scheduler lr_scheduler lr_schedule lr_scheduler_type lr_decay",
    "optim.clip_norm": "clip clip_grad clip_grad_norm grad_clip gradient_clip gradient_clip_val grad_clip_norm "
    "grad_norm max_grad_norm",
    "optim.ema": "ema_decay ema_rate ema_momentum",
    "perceptual": "lpips perceptual_loss",
    "perceptual.kind": f"{KIND} perceptual_loss",
    "perceptual.weight": "perceptual_weight perceptual_loss_weight lpips_weight lpips_scale",
    "adversary": "discriminator disc gan",
    "adversary.weight": "disc_weight discriminator_weight adversarial_weight gan_weight disc_factor",
    "adversary.loss": "disc_loss gan_loss",
    "adversary.start_step": "disc_start discriminator_start discriminator_iter_start",
    "adversary.width": "ndf disc_channels",
    "adversary.layers": "disc_num_layers disc_layers",
    "adversary.lr": "disc_lr discriminator_lr d_lr",
    "train": "trainer training",
    "train.steps": "epochs epoch n_epochs num_epochs nb_epochs max_epochs num_train_epochs iters iterations n_iter "
    "n_iters num_iters num_iterations max_iter max_iters max_steps n_steps num_steps total_steps train_steps "
    "training_steps",
    "train.batch_size": "batch batches batchsize bs bsz train_batch_size per_device_train_batch_size minibatch_size",
    "train.accumulate": "accumulation_steps grad_accum grad_accumulation gradient_accumulation_steps "
    "accumulate_grad_batches",
    "train.precision": "mixed_precision dtype amp fp16 bf16 half",
    "train.compile": "torch_compile jit",
    "train.threads": "num_threads n_threads cpu_threads",
    "train.log_every": "log_interval log_freq log_steps logging_steps log_every_n_steps print_every print_freq",
    "train.eval_every": "eval_interval eval_freq eval_steps val_every val_interval val_check_interval validate_every",
    "train.checkpoint_every": "save_every save_interval save_freq save_steps checkpoint_interval checkpoint_steps",
    "train.keep_last": "save_total_limit save_top_k max_checkpoints keep max_to_keep",
    "tracking": "logging",
    "tracking.trackers": "tracker logger loggers log_with report_to tensorboard wandb trackio",
}
EPOCH = (
    "an epoch is as many steps as the training images divided by train.batch_size: "
    "469 for MNIST's 60,000 in batches of 128"
)
VALUES = {
    "null": "none nil nan na n/a off no false",
    "folder": "imagefolder image-folder images pictures photos directory custom",
    "huggingface": "hf hugging-face hf-dataset hf-datasets datasets hub",
    "array": "arrays numpy ndarray npy npz safetensors tensor",
    "cifar10": "cifar cifar-10",
    "cifar100": "cifar-100",
    "celeba": "celeb-a celeb faces",
    "svhn": "house-numbers street-view-house-numbers",
    "fashion-mnist": "fashion fmnist fashionmnist",
    "binarized-mnist": "static-mnist mnist-static larochelle bmnist",
    "crop": "center-crop centre-crop cover",
    "pad": "letterbox contain",
    "full": "true yes on random",
    "dynamic": "true yes on stochastic",
    "static": "fixed",
    "none": "null false no off raw grey gray greyscale grayscale",
    "mlp": "vae vanilla dense fc linear fully-connected feedforward",
    "conv": "cnn convnet convolutional convolution resnet unet",
    "hierarchical": "ladder hvae lvae nvae vdvae",
    "autoencoder-kl": "autoencoderkl autoencoder kl-vae sd-vae ldm",
    "normal": "gaussian standard standard-normal none null",
    "vamp": "vampprior vamp-prior mixture gmm mog",
    "flow": "realnvp real-nvp nf iaf maf glow normalizing-flow",
    "bernoulli": "bce binary binary-cross-entropy cross-entropy",
    "gaussian": "normal mse l2",
    "laplace": "l1 mae laplacian",
    "logistic-mixture": "logistic dmol mol discretized-logistic discretized-logistic-mixture",
    "on": "true yes always",
    "off": "false no never none null",
    "exact": "deterministic bitwise",
    "elbo": "vae kl beta-vae",
    "iwae": "iw importance importance-weighted miwae",
    "adamw": "adam",
    "sgd": "momentum gd",
    "cosine": "cos cosine-annealing",
    "constant": "none null flat fixed",
    "fp32": "float32 float single full 32 no",
    "bf16": "bfloat16 bfloat",
    "fp16": "float16 half 16 amp",
    "tensorboard": "tb tensorboardx",
    "wandb": "wb w&b weights-and-biases",
    "val": "validation valid dev",
    "test": "testing",
    "train": "training",
    "slerp": "spherical",
    "linear": "lerp straight",
}
RESUMING = "resuming is automatic: the same command goes on with its run, and --fresh begins a new one"
DEVICE = "a GPU is used where there is one, and ACCELERATE_USE_CPU=true in the environment leaves it alone"
OPTIONS = {
    "--n": "num num-samples n-samples num-images samples images count number",
    "--k": "importance-samples num-importance-samples num-samples samples",
    "--checkpoint": "ckpt ckpt-path checkpoint-path load load-from model model-path run weights resume",
    "--input": "image images picture pictures file files in",
    "--out": "output output-dir output-path out-dir outdir save save-dir save-path log-dir logdir run-dir name",
    "--num-processes": "nproc nproc-per-node num-proc processes gpus num-gpus devices world-size ranks",
    "--precision fp16": "fp16 half",
    "--precision bf16": "bf16 bfloat16",
    "--precision": "amp dtype mixed-precision",
    "--init": "init-from pretrained pretrained-path pretrained-model-name-or-path from-pretrained finetune "
    "finetune-from init-weights",
    "--fresh": "overwrite restart new force from-scratch",
    "--steps": "frames n num",
}
NOT_OPTIONS = {
    RESUMING: "resume auto-resume continue ckpt checkpoint load load-from restore resume-from resume-from-checkpoint",
    DEVICE: "device cpu gpu cuda no-cuda use-cuda accelerator",
    "give the config's name or path without an option": "config config-file config-path config-name cfg",
}
COMMANDS = {
    "train": "fit run resume",
    "sample": "generate draw samples",
    "reconstruct": "reconstruction recon encode",
    "interpolate": "interpolation walk",
    "evaluate": "eval test validate",
    "export": "convert save save-pretrained to-diffusers to-onnx",
    "push": "upload publish hub push-to-hub share",
    "info": "env status version",
    "configs": "config list ls presets",
    "score": "scores anomaly anomalies outliers",
    "traverse": "traversal traversals latents",
    "map": "pca umap tsne embed embedding project projector",
    "runs": "run-list list-runs experiments history",
    "compare": "diff comparison",
    "report": "html dashboard plot plots curves",
}


def keys_called(name: str) -> list[str]:
    """Return our keys for what another tool calls `name`."""
    name = name.lower().replace("-", "_")
    return [key for key, names in KEYS.items() if name in names.split()]


def called(name: str, names: Mapping[str, str]) -> str | None:
    """Return what of ours another tool calls `name`, by one of the tables."""
    return next((ours for ours, theirs in names.items() if name in theirs.split()), None)


def is_in_epochs(name: str) -> bool:
    """Return whether a name counts epochs, where ours counts steps."""
    return "epoch" in name.lower()


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return the known word that is meant by another: spelt otherwise, another tool's, or similar."""
    text = _plain(word)
    same = [name for name in known if _plain(name) == text]
    called = [name for name in known if text in VALUES.get(name, "").split()]
    by_letters = difflib.get_close_matches(text, known, n=1)
    return next(iter([*same, *called, *by_letters]), None)


def listed(names: Iterable[str], conjunction: str = "or") -> str:
    """Write "a", "a or b" or "a, b or c"."""
    *first, last = names
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def _plain(word: str) -> str:
    return word.strip().lower().replace("_", "-").replace(" ", "-")[:100]
