"""Changing bytes, JSON, YAML and safetensors at random, and in the ways that are known to hurt."""

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

RAW = {  # what JSON's own writer would not write
    "@nested@": "[" * 200_000,
    "@nested whole@": "[" * 500 + "]" * 500,
    "@objects@": '{"a":' * 100_000,
    "@digits@": "9" * 5000,
    "@nan@": "NaN",
    "@infinity@": "-Infinity",
    "@overflow@": "1e999",
    "@twice@": '{"a": 1, "a": 2}',
    "@surrogate@": '"\\ud800"',
}
EXTREMES: list[Any] = [
    *(-5, -1, 0, 1, 3, 1000, 10**6, 2**31 - 1, 2**31, 2**63, 2**70, 1e-320, 1e38, 1e308, 0.5, -0.0),
    *(
        True,
        None,
        "",
        "x",
        "\x1b[31mred\x07\u202e",
        "\x00",
        "a\nError: b",
        "x" * 100_000,
        "../../../etc/passwd",
        "/dev/zero",
    ),
    *([], {}, [1], {"a": 1}, [0] * 50_000, {f"k{i}": i for i in range(20_000)}),
    *RAW,
]
SNIPPETS = [  # of YAML
    "seed: &a ["
    + "x," * 30
    + "]\nmodel: &b ["
    + "*a," * 30
    + "]\ndata: &c ["
    + "*b," * 30
    + "]\noptim: ["
    + "*c," * 30
    + "]\n",
    "model: &a {x: *a}\n",
    "train: {steps: 1" + ":59" * 20_000 + "}\n",
    "train: {steps: 0x" + "f" * 50_000 + "}\n",
    "optim: {lr: 1" + ":1" * 9000 + ".5}\n",
    "model: {" + ", ".join(f"k{i}: {i}" for i in range(9000)) + "}\n",
    "seed: " + "[" * 60_000,
    "seed: " + "{a: " * 300,
    "seed: " + "- " * 20_000,
    "? [a, b]\n: c\n",
    "seed: !!python/object/apply:os.system [id]\n",
    "seed: !!binary AAAA\ndata: !!set {a, b}\nmodel: !!timestamp 2001-01-01\n",
    "<<: [" + "{a: 1}, " * 500 + "{b: 2}]\n",
    "x" * 100_000 + ": 1\n",
    "model: {kind: mlp, h_dim: 1048576, depth: 1000}\n",
    "model: {kind: hierarchical, blocks: 1000, groups: [1000, 1000, 1000, 1000]}\n",
    'data: {name: folder, root: "a\\0b"}\n',
    "%YAML 1.1\n%TAG ! tag:x,2000:\n--- !y {}\n",
]


def change_bytes(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Return bytes with a few changes: flips, cuts, insertions, repetitions, numbers, parts of other files."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        place = rng.randrange(len(changed) + 1)
        length = rng.choice([1, 2, 4, 8, 64, 1000])
        match rng.randrange(8):
            case 0 if place < len(changed):
                changed[place] ^= 1 << rng.randrange(8)
            case 1:
                del changed[place:]
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = rng.randbytes(length)
            case 4:
                changed[place:place] = changed[place : place + length] * rng.choice([1, 2, 100])
            case 5:
                changed[place : place + 4] = rng.choice(
                    [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\1\0\0\0"]
                )
            case 6:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                changed[place : place + length] = other[start : start + length]
            case 7:
                changed[place : place + length] = bytes(length)
    return bytes(changed)


def change_json(content: bytes, rng: random.Random) -> bytes:
    """Return JSON with one to three changes of its values and keys."""
    return _written(_change_tree(json.loads(content), rng)).encode(errors="surrogatepass")


def change_yaml(content: bytes, rng: random.Random) -> bytes:
    """Return YAML with changes of its values and keys, or with something after it that is known to hurt."""
    if rng.random() < 0.3:
        return rng.choice([b"", content + b"\n"]) + rng.choice(SNIPPETS).encode()
    tree = _change_tree(yaml.safe_load(content), rng)
    if rng.random() < 0.5:
        return _written(tree).encode()  # YAML takes JSON
    return yaml.safe_dump(tree, default_flow_style=rng.random() < 0.5).encode()


def change_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Return tensors with another header, or with other numbers."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], bytearray(content[8 + length :])
    match rng.randrange(4):
        case 0:
            place = rng.randrange(0, len(data) - 3, 4)
            data[place : place + 4] = rng.choice([b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f", b"\0\0\0\0"])
        case 1:
            header = _written(rename(json.loads(header), rng)).encode()
        case _:
            header = change_json(header, rng)
    size = rng.choice([len(header)] * 6 + [0, 2**24 + 1, 2**63])
    return size.to_bytes(8, "little") + header + bytes(data)


def rename(header: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return a header in which one tensor has another's name, type or shape, and all else fits."""
    names = [name for name in header if name != "__metadata__"]
    one, other = rng.choice(names), rng.choice(names)
    match rng.randrange(3):
        case 0:
            header[one], header[other] = header[other], header[one]
        case 1:
            header[one]["dtype"] = rng.choice(["F16", "BF16", "I32", "U8", "F8_E4M3", "F64"])
        case 2:
            header[one]["shape"] = [1, *header[one]["shape"]]
    return header


def sign(folder: Path) -> None:
    """Do what an attacker can: make the manifest match whatever the files are."""
    files = {
        file.name: {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": file.stat().st_size}
        for file in folder.iterdir()
        if file.name != "manifest.json" and file.is_file()
    }
    (folder / "manifest.json").write_text(json.dumps({"format": 2, "files": files}))


def sign_pack(folder: Path) -> None:
    """Make the manifest of a packed set match whatever its shards are."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for shards in manifest["splits"].values():
        for shard in shards:
            content = (folder / shard["file"]).read_bytes()
            shard |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _written(tree: Any) -> str:
    text = json.dumps(tree, indent=1)
    for mark, raw in RAW.items():
        text = text.replace(json.dumps(mark), raw)
    return text


def _change_tree(tree: Any, rng: random.Random) -> Any:
    for _ in range(rng.randint(1, 3)):
        places = list(_places(tree))
        if not places:
            return rng.choice(EXTREMES)
        numbers = [(container, key) for container, key in places if type(container[key]) in (int, float)]
        if numbers and rng.random() < 0.4:
            _put_number(*rng.choice(numbers), rng)
        else:
            rng.choice(CHANGES)(*rng.choice(places), rng)
    return rng.choice(EXTREMES) if rng.random() < 0.02 else tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return every place of a value: what it is in, and its key or index."""
    if not isinstance(tree, dict | list) or len(tree) > 1000:
        return []
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    return [(tree, key) for key in keys] + [place for key in keys for place in _places(tree[key])]


def _put_extreme(container: Any, key: Any, rng: random.Random) -> None:
    container[key] = rng.choice(EXTREMES)


def _put_number(container: Any, key: Any, rng: random.Random) -> None:
    container[key] = rng.choice([-5, -1, 0, 7, 999, 2**20, 10**9, 10**15])


def _drop(container: Any, key: Any, rng: random.Random) -> None:
    del container[key]


def _add(container: Any, key: Any, rng: random.Random) -> None:
    if isinstance(container, list):
        container.insert(key, rng.choice(EXTREMES))
    else:
        container[rng.choice(["x", "step", "kind", "", "a.b", "\x1b]0;title\x07", "k" * 70_000])] = container[key]


def _swap(container: Any, key: Any, rng: random.Random) -> None:
    other = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
    container[key], container[other] = container[other], container[key]


CHANGES: list[Callable[[Any, Any, random.Random], None]] = [_put_extreme, _put_extreme, _put_number, _drop, _add, _swap]
