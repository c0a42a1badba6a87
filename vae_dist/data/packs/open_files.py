"""Raise the limit of open files: every shard that is read picture by picture stays open."""

from pathlib import Path

from vae_dist.errors import UserError

OTHERS = 256  # files, sockets and pipes


def allow_open_files(count: int, folder: Path) -> None:
    """Let this process have `count` more files open.

    Raises:
        UserError: the system doesn't allow it.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or count + OTHERS <= soft:
        return
    if hard != resource.RLIM_INFINITY and count + OTHERS > hard:
        raise UserError(
            f"{folder} has {count:,} files, and a process may have {hard:,} open here: "
            "pack the pictures again with a larger --shard-size."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + OTHERS, hard))
