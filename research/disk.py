"""Full disks: detection and free space."""

import errno
import os
import shutil


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error or one of its causes comes from a full file system or a quota.

    C++ libraries pass on only the text of the system error.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT)):
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_text(folder: str, needed: int = 0) -> str:
    """Free space on the file system of a folder or its nearest existing parent, as text.

    `needed` is the size in bytes of the failed write, 0 if unknown.
    """
    folder = os.path.abspath(folder)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    usage = shutil.disk_usage(folder)
    size = f', {size_text(needed)} are needed' if needed else ''
    quota = '' if usage.free < max(needed, 2**20) else ' (a quota may allow less)'
    return f'the file system of {folder} has {size_text(usage.free)} free of {size_text(usage.total)}{quota}{size}'


def size_text(size: int) -> str:
    """A number of bytes in KiB, MiB or GiB."""
    power = 10 if size < 2**20 else 20 if size < 2**30 else 30
    return f'{size / 2**power:,.1f} {({10: "KiB", 20: "MiB", 30: "GiB"})[power]}'
