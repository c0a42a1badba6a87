"""Reading no more of a file than its header says: a small compressed file may hold terabytes."""

from io import BufferedIOBase

CHUNK = 1 << 20  # after each, a signal is heard


def read_at_most(file: BufferedIOBase, size: int) -> bytearray:
    """Read up to `size` bytes, into memory that grows with what is there and not with what was promised."""
    content = bytearray()
    while len(content) < size and (chunk := file.read(min(CHUNK, size - len(content)))):
        content += chunk
    return content
