"""Advice about a file or folder of another kind than `data.name` is for."""

from pathlib import Path

from vae_dist.data.pictures import SUFFIXES as PICTURES

SAVED_BY_DATASETS = ("dataset_dict.json", "dataset_info.json")
PICKLED = (
    "it is read by pickle, which may run code. Save the images as bytes: np.save('images.npy', images), "
    "or safetensors.torch.save_file({'train': images}, 'images.safetensors')"
)
TABLES = "save it with datasets.Dataset.from_parquet(FILE).save_to_disk(FOLDER), and set data.name=huggingface"
REMEDIES = {
    **dict.fromkeys((".npy", ".npz", ".safetensors"), "set data.name=array"),
    **dict.fromkeys((".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt"), PICKLED),
    **dict.fromkeys((".h5", ".hdf5"), "save its images with np.save('images.npy', h5py.File(FILE)['images'][:])"),
    ".mat": "save its images with np.save('images.npy', scipy.io.loadmat(FILE)['images'])",
    **dict.fromkeys((".parquet", ".arrow"), TABLES),
    **dict.fromkeys((".zip", ".tar"), "set data.name=folder"),
    **dict.fromkeys(PICTURES, "set data.name=folder, and data.root to the folder that it is in"),
}


def advice_for(path: Path, needed: str) -> str:
    """Say that a path is no `needed`, and what to do about what is there."""
    if path.is_file():
        remedy = REMEDIES.get(path.suffix.lower())
        return f"{path} is no {needed.removeprefix('a ')}{f': {remedy}' if remedy else ''}."
    if (path / "manifest.json").is_file():
        return f"{path} is a packed set: set data.name=packed."
    if any((path / name).is_file() for name in SAVED_BY_DATASETS):
        return f"{path} is a data set of Hugging Face: set data.name=huggingface."
    if path.is_dir():
        return f"{path} is a folder: set data.name=folder for the pictures in it."
    return f"There is no {path} (seen from {Path.cwd()}): give {needed}."
