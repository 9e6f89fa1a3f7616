"""Where the files of a public data set come from: pinned URLs, sizes, hashes, licence."""

from typing import NamedTuple


class File(NamedTuple):
    """One file of a data set as it is stored.

    With `members`, `url` is a tar archive whose matching members are stored in an uncompressed tar. Its bytes depend
    only on the members, so its hash does not change if the archive is compressed differently.
    """

    path: str  # below the folder of the set
    url: str  # pinned to a commit
    sha256: str
    size: int  # bytes
    members: str = ''  # a regular expression; the match becomes the member's name
    transfer: int = 0  # approximate size of the archive at `url` in bytes; 0: `size`


class Source(NamedTuple):
    """Origin and licence of a data set."""

    name: str  # of its subfolder
    licence: str
    homepage: str
    files: tuple[File, ...]
    about: str = ''  # other things to know before using it
    prepared: tuple[str, ...] = ()  # files that may replace `files`

    @property
    def size(self) -> int:
        """Number of bytes to transfer."""
        return sum(file.transfer or file.size for file in self.files)


def raw_url(repository: str, commit: str, path: str) -> str:
    """URL of one file of a GitHub repository at a commit."""
    return f'https://raw.githubusercontent.com/{repository}/{commit}/{path}'


def archive_url(repository: str, commit: str) -> str:
    """URL of a GitHub repository at a commit, as tar.gz."""
    return f'https://github.com/{repository}/archive/{commit}.tar.gz'


def github_files(repository: str, commit: str, *files: tuple[str, int, str]) -> tuple[File, ...]:
    """Files of a GitHub repository, given as (path, bytes, SHA-256) and stored under their base names."""
    return tuple(
        File(path.rpartition('/')[2], raw_url(repository, commit, path), sha256, size) for path, size, sha256 in files
    )
