"""Set5 and Set14: 5 and 14 colour photographs, the customary tests of super-resolution.

Source: M. Bevilacqua et al., BMVC 2012 (Set5); R. Zeyde et al., Curves and Surfaces 2010 (Set14). Licence: unclear,
customary test images of research. Splits: test only. Oddities: sizes differ and some are odd; Set14/bridge.png has one
channel, and the channels of man.png are equal.
"""

import functools
from typing import Literal

from research.data.dataset import DataSet
from research.data.fetch import folder_of
from research.data.image.images import read_image
from research.data.readers.archives import find, read_bytes
from research.data.readers.rows import Rows
from research.data.source import File, Source, raw_url
from research.errors import UserError, choose

NAMES = {'set5': 'Set5', 'set14': 'Set14'}
DENOISING = raw_url('majedelhelou/denoising_datasets', '58234876fef6f1b56306705c78dfd40cdb837b86', '').rstrip('/')
SOURCE = Source(
    'set5_set14',
    'unclear: customary test images of research',
    'https://github.com/majedelhelou/denoising_datasets',
    tuple(
        File(path, f'{DENOISING}/C{path}', sha256, size)
        for path, size, sha256 in (
            ('Set5/baby.png', 371_264, 'cb85956d68f708a1030c790d143cbcd108f5ac5988d3349180cdcb54dd80597d'),
            ('Set5/bird.png', 120_453, '5dcf863f7c3802e68fbb0fca2ec351052a1f97a4db613e510dbd105cee9a6a32'),
            ('Set5/butterfly.png', 127_529, '487d841c9dbc46c7ab496c319ec1f13268de7ea7e02f94ae18781ca86a5abd0d'),
            ('Set5/head.png', 113_787, 'f524c1ce41641c1cf269a20c4dfbe965e07e471d609abc19dfadfb71037cc873'),
            ('Set5/woman.png', 118_848, 'f276625a222b9ce18d18d86e1ec603fea50427b7c0a2927b3750b1bb86a07b83'),
            ('Set14/baboon.png', 531_037, 'bf6fb300762bcbe1340098b4309c179b2007c3bb81b7afde18c38a3ae70ac8a9'),
            ('Set14/barbara.png', 821_015, '1ea77fe82564b55230d7c2439bef5738d18a4624280e263be48484c002b6280b'),
            ('Set14/bridge.png', 162_038, 'c0eb089ad3dacfa96ee79d9c112216265b36aaba205e06f80846b03b21884a53'),
            ('Set14/coastguard.png', 154_469, 'fc6c2acd5ca2116f37b1b38c0c2908ce64e2e414086fb43349c246d410669da6'),
            ('Set14/comic.png', 192_855, '49ccc5e33deff33992b929b07549d803f176e01bf9f41b73de6b15437bc2280d'),
            ('Set14/face.png', 110_826, '5cc7a1c5c013b46a7ab4850cb709974d26971550106375a36fd641c725bce9aa'),
            ('Set14/flowers.png', 348_592, '609e9fc9ffd6c9689c6200a11e057c19e6e4ec5d385fe0d6eb59a7b24f327894'),
            ('Set14/foreman.png', 130_720, 'af4ad4771fd2def0a09ba0011e67225f10ad1590e85b48aab4f6820fa932b1ed'),
            ('Set14/lenna.png', 374_782, '72d70a7a5051c6193f02b03decb6c7b1d336abe2d024f441a2384acaee84af55'),
            ('Set14/man.png', 318_631, 'ba7a7e45f690a542fc32fdefe1e04e0128d1cdf8c3817c1ee7b0300961636bfe'),
            ('Set14/monarch.png', 618_686, 'ed96187293a37c931250d137553928e1a9a63e31296b82a4968dde63683bb101'),
            ('Set14/pepper.png', 507_582, '46339a09e2ae31d2f0513642607586a00d82feaf48dc3cc770e42be5684a11a9'),
            ('Set14/ppt3.png', 269_159, 'a9276fa3f7fbd4257ccede14d1004f836c10fcc2bac174b2428f43fe899b8f9d'),
            ('Set14/zebra.png', 442_990, 'af146347f19b1ab9f1da26113a88505d600e2dcb84bf91bb8e2013691e79bcc7'),
        )
    ),
    about='sizes differ and some are odd; Set14/bridge.png has one channel',
)


def open(folder: str = '', test: Literal['set5', 'set14'] = 'set5') -> DataSet:
    """Opens the set, which has a test split only; a row is {'image': uint8 [height, width, 1 or 3]}.

    Args:
      folder: with the folders Set5 and Set14.
      test: which of them.

    Raises:
      UserError: for an unknown name.
    """
    name = choose(test, NAMES, 'config.data.test')

    @functools.cache
    def source(split: str) -> Rows:
        if split != 'test':
            raise UserError(f'{name} has no {split} split: it is for testing only')
        return pictures(f'{folder_of(SOURCE, folder)}/{name}/*.png')

    return DataSet(source, f'{name}, photographs', ('test',), ('image',))


def pictures(pattern: str) -> Rows:
    """The picture files of a pattern, sorted by name; decoded on first access and kept."""
    entries = sorted(find(pattern, 'config.data.folder'), key=lambda entry: entry.name)
    read = functools.cache(lambda number: read_image(read_bytes(entries[number])))
    return Rows(len(entries), lambda number: {'image': read(number)}, lambda number: entries[number].name)
