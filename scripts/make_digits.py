"""Make the built-in digits from MNIST's original training file.

Usage: python scripts/make_digits.py PATH/TO/train-images-idx3-ubyte.gz
"""

import gzip
import lzma
import sys
from pathlib import Path

COUNT = 10_000
SIDE = 28
MAGIC = bytes([0, 0, 8, 3])  # unsigned bytes, three dimensions
TARGET = Path(__file__).parent.parent / "vae_dist" / "data" / "digits-idx3-ubyte.xz"


def main(source: str) -> None:
    """Write the first 10,000 images, with a header that gives their number."""
    header_size = 16
    raw = gzip.decompress(Path(source).read_bytes())
    if raw[:4] != MAGIC or len(raw) != header_size + 60_000 * SIDE * SIDE:
        sys.exit(f"{source} is not MNIST's train-images-idx3-ubyte.gz")
    header = MAGIC + b"".join(size.to_bytes(4, "big") for size in (COUNT, SIDE, SIDE))
    pixels = raw[header_size : header_size + COUNT * SIDE * SIDE]
    TARGET.write_bytes(lzma.compress(header + pixels, preset=9 | lzma.PRESET_EXTREME))
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
