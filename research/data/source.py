"""Where the files of a public data set come from: URLs pinned to a commit, sizes, hashes, licence."""

from typing import NamedTuple


class File(NamedTuple):
    """One file of a data set as it is kept.

    With `members`, `url` is a tar archive, of which the members whose names match are kept in an uncompressed tar: its
    bytes depend on the members alone, so that its hash survives another compression of the archive.
    """

    path: str  # below the folder of the set
    url: str  # pinned to a commit
    sha256: str
    size: int  # bytes
    members: str = ''  # a regular expression; a member is named by what it matches
    transfer: int = 0  # bytes of the archive at `url`, about; 0: `size`


class Source(NamedTuple):
    """Where a data set comes from."""

    name: str  # of its subfolder
    licence: str
    homepage: str
    files: tuple[File, ...]
    about: str = ''  # what else one should know before using it
    prepared: tuple[str, ...] = ()  # files that a folder may have in place of `files`

    @property
    def size(self) -> int:
        """Bytes that are transferred."""
        return sum(file.transfer or file.size for file in self.files)


def raw_url(repository: str, commit: str, path: str) -> str:
    """The URL of one file of a GitHub repository at a commit."""
    return f'https://raw.githubusercontent.com/{repository}/{commit}/{path}'


def archive_url(repository: str, commit: str) -> str:
    """The URL of a whole GitHub repository at a commit, as tar.gz."""
    return f'https://github.com/{repository}/archive/{commit}.tar.gz'


def github_files(repository: str, commit: str, *files: tuple[str, int, str]) -> tuple[File, ...]:
    """Files of a GitHub repository, each given as (path in it, bytes, SHA-256) and kept under its last name."""
    return tuple(
        File(path.rpartition('/')[2], raw_url(repository, commit, path), sha256, size) for path, size, sha256 in files
    )
