"""Public data sets by name, including those that no module of `research/data/sets/` reads yet.

Every SHA-256 is of the file at the pinned commit; for an archive, of the tar of its selected members.
"""

import functools

from research.data.dataset import set_module, set_names
from research.data.sets import squad
from research.data.source import File, Source, archive_url, github_files

OTHERS = {
    'ag_news': Source(
        'ag_news',
        'non-commercial (readme.txt)',
        'https://github.com/mhjabreel/CharCnn_Keras',
        github_files(
            'mhjabreel/CharCnn_Keras', '555590db4219b1243abb1918effd6a7425a2d75f',
            ('data/ag_news_csv/test.csv', 1_857_427,
             '521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699'),
            ('data/ag_news_csv/classes.txt', 31, '612dbfa932f07a6ed837295a7d5746ce7412e7bb4bc32ba919fdb3cda3a1b9b5'),
            ('data/ag_news_csv/readme.txt', 1_795, '779c2e6bbf93dd810d9c7b318006daef7a4bfc34062002461d251dc10fb9f58c'),
        ),
        about='only the test part: 7,600 rows; hashes of train.csv are not recorded',
    ),
    'conala': Source(
        'code_generation',
        'CC BY-SA (from Stack Overflow); the repository states none',
        'https://github.com/shilliscmu/TranxConalaBaseline',
        github_files(
            'shilliscmu/TranxConalaBaseline', '5520285387d946e826f4cc5a4a0a1bf7361355e5',
            ('conala-train.json', 588_310, '9e5947fc884b34887cb509c0b14014a22ed98e945652b919afe245d0d75dbbcb'),
            ('conala-test.json', 124_086, 'b3f96344efa3bb819e2fe66cfd68be289ca4e4d37f5af19c32cf4ae211e8077e'),
        ),
        about='rewritten_intent is null in 79 training and 23 test records',
    ),
    'mbpp': Source(
        'code_generation',
        'CC BY 4.0',
        'https://github.com/OckBench/OckBench',
        github_files(
            'OckBench/OckBench', 'b72752a0ba5989d3c212675ec60d3eedcd838628',
            ('data/mbpp.jsonl', 563_743, 'ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f'),
        ),
        about='task_id 1-10 are prompts, 11-510 test, 511-600 validation, 601-974 train; most code has CRLF line ends',
    ),
    'compas': Source(
        'fairness',
        'unclear: none is stated in the repository; about real people',
        'https://github.com/propublica/compas-analysis',
        github_files(
            'propublica/compas-analysis', 'bafff5da3f2e45eca6c2d5055faad269defd135a',
            ('compas-scores-two-years.csv', 2_546_489,
             'c451db85908b2f7fef1d83203bedf6b71ecda0d5af468d82ae62178f91d0cc7d'),
        ),
        about='contains names and dates of birth, which no model should read; two column names occur twice',
        prepared=('compas-two-years-anonymous.csv',),
    ),
    'dailydialog_en': Source(
        'dailydialog_en',
        'CC BY-NC-SA 4.0',
        'https://github.com/liuzeming01/XDailyDialog',
        github_files(
            'liuzeming01/XDailyDialog', '6e7ecf54c9f169215b4b8c18995c7aac74117127',
            ('data/1k_part_data/dialogues_text_En.txt', 450_730,
             '5ded32880c0c80e77bbe8dfc7d24ed0d6be1055335276791331406f2403504be'),
            ('data/1k_part_data/dialogues_action.txt', 14_796,
             'e6d08ad41cec2d161a129aa0722b39fa96a62bed1794944033dedfd6ded2f469'),
            ('data/1k_part_data/dialogues_emotion.txt', 14_796,
             '869163545b3b35d2a0ea4547c576bc6dc612eb4f4656b48253e50e483c852d0b'),
            ('data/1k_part_data/dialogues_topic.txt', 2_000,
             'a52883e069c6d642618bb956586331fd9c5ef7acaff00cbfbb982ad11bf5c2cf'),
            ('data/en_dev_human.txt', 589_452, 'cb2b86e6503e26390c99b457d886acb2c83aca504187018c602e1280eb5d43ce'),
            ('data/en_test_human.txt', 575_814, 'f5f74a02996ecc69f68ca9f3fdc07bb463f10b4b737e397bb66dca673d000bdf'),
        ),
        about='1,000 training dialogues, 15 of them copies; 9 of the validation and 17 of the test occur in them',
    ),
    'flickr8k_captions': Source(
        'flickr8k_captions',
        'non-commercial research and education only',
        'https://github.com/prakhar-dhakar/Image-Captioning',
        github_files(
            'prakhar-dhakar/Image-Captioning', '5ab3142167da9315c4287173ed24a643a0425ab8',
            ('Flickr8k.token.txt', 3_395_229, '9b8608b02da9040581f1e3d4c8738db1fb6f63314342100432adc3962f77d71a'),
            ('Flickr_8k.trainImages.txt', 154_678, 'e330ddd5156a4c2d2e2b67bc587e70e588f2d132bd8a10dc54dcb71e58115d8e'),
            ('Flickr_8k.devImages.txt', 25_801, '18ba829f47f6df1cb830bf7f0506e2ddf333818925299babbd1bbcaf50fdc504'),
            ('Flickr_8k.testImages.txt', 25_775, 'c0924146c131458ceba45da59670fe9520eadce1e5cafffa16a817672a9b1f17'),
        ),
        about='captions only; 8,092 images have captions, 8,000 are in the splits',
    ),
    'bbbp': Source(
        'moleculenet',
        'unclear: none is stated in the repository',
        'https://github.com/not-a-slacker/blood-brain-barrier-permeability-prediction',
        github_files(
            'not-a-slacker/blood-brain-barrier-permeability-prediction', '4abac437481613f4689fc08876c24c9239275482',
            ('data/BBBP.csv', 148_743, '83a605964712952eca8bd31741be7f6f16c0932462db16bd0bb944537463d8c6'),
        ),
        about='11 molecules are refused by RDKit, 64 are copies',
    ),
    'esol': Source(
        'moleculenet',
        'MIT',
        'https://github.com/deepchem/deepchem',
        github_files(
            'deepchem/deepchem', 'fbe3b911a94a6eb8c84c1a9e7ac67a472c49ea80',
            ('datasets/delaney-processed.csv', 96_699,
             '8c06a76f0c6487d29ab0f903e6a7a7139f189ab3c1178f159c8be8964602f189'),
        ),
        about="the target is 'measured log solubility in mols per litre'; the predicted one is a baseline",
    ),
    'movielens_100k': Source(
        'movielens_100k',
        'research use with acknowledgement; no redistribution, no commercial use',
        'https://github.com/yukikitayama/spark',
        github_files(
            'yukikitayama/spark', 'ff7c5dec0ab026c24a1552e787a01d1b6dc491b3',
            ('ml-100k/ml-100k/u.data', 1_979_173, '06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490'),
            ('ml-100k/ml-100k/u.item', 236_344, '553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701'),
            ('ml-100k/ml-100k/u.user', 22_628, 'f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c'),
            ('ml-100k/ml-100k/u.genre', 202, '9757e0d3e6b298159a80dd48eaf938114690e911e39af97a76949ef1663610bb'),
            ('ml-100k/ml-100k/u.info', 36, '5b0a40b2e47a729ee6203063f6dcf8790c2e63f5a18663e6ee318a72c5f3c27b'),
            ('ml-100k/ml-100k/u.occupation', 193, 'cd5fbec9afe345d993a62fc7817df1a4a9079c4feb267b3118763b8fd942137d'),
            ('ml-100k/ml-100k/README', 6_750, '4883b8cf340ed0059971b33f56ad3adc88a40792108ebca3d24aafc4c82e8b52'),
        ),
        about='u.item is Latin-1',
    ),
    'scitldr_abstract': Source(
        'scitldr_abstract',
        'Apache-2.0',
        'https://github.com/allenai/scitldr',
        github_files(
            'allenai/scitldr', '5ccad9c00a60ad75c9e04abf7f27d0f53f983b20',
            ('SciTLDR-Data/SciTLDR-A/train.jsonl', 3_155_015,
             'b222771d387be585cfdf5ae957b36757138415a352e0a3e3b23f73f87c3b1119'),
            ('SciTLDR-Data/SciTLDR-A/dev.jsonl', 1_124_865,
             '3191fa98ccc09521332b7a1cd63b1930be4e8df125a235ccd31e40329709525e'),
            ('SciTLDR-Data/SciTLDR-A/test.jsonl', 1_204_107,
             'fb42dd6cd4f4a1928ae8a01a189456fbfe994a07e938bd49f68653933f6503c9'),
        ),
        about='one target in training, one to four in the others',
    ),
    'squad_train': squad.TRAIN_SOURCE,
    'penn_fudan': Source(
        'penn_fudan_half',
        'research use; no redistribution',
        'https://github.com/gmguarino/PennFudan',
        (
            File(
                'penn_fudan.tar',
                archive_url('gmguarino/PennFudan', '4d34ade817620786f55ef379ac51534d4d6ea218'),
                '496ed3ef5e31ab702ae78edf353715240936a8e21bfc0d3ac22111ad4ce95dc3',
                54_282_240,
                members=r'(PNGImages|PedMasks|Annotation)/[^/]+\.(png|txt)$',
                transfer=53_700_000,
            ),
        ),
        about='170 pictures at full resolution; the prepared copy is downscaled by half',
        prepared=('penn_fudan_half.tar', 'boxes.csv'),
    ),
    'speech_samples': Source(
        'speech_samples',
        'BSD-2-Clause, the recordings public domain',
        'https://github.com/cmusphinx/pocketsphinx',
        github_files(
            'cmusphinx/pocketsphinx', '511126b492dcb267cf30d49d631946d7b61a9530',
            ('test/data/cards/001.wav', 35_096, '899951e768666f27c8f8b1d4090b96fe7909cae9cec01bec0a5d5d1b8a8d566e'),
            ('test/data/cards/002.wav', 62_772, 'a3f9eae6fdb69a1231989e39a14d62388a6f52fb59666c76d95005318fadafec'),
            ('test/data/cards/003.wav', 49_266, '00d283e46bc257ae479e4aa86593cadb541656eba1d19fc8abeece37f6a5a18b'),
            ('test/data/cards/004.wav', 49_772, '4c44a8177f5b128b99f078cdeb918119933155574231f1833e8840d1af09c521'),
            ('test/data/cards/005.wav', 112_124, '090f18f5f76cf8b2b43cd9e6b07823f4685a4742d9a36cd98b174a6586c18cf9'),
            ('test/data/cards/cards.transcription', 184,
             '5f11ecf64b8c45e4596d128293c66e695844854ad03cc79ffabde72dea1eba05'),
            ('test/data/librivox/sense_and_sensibility_01_austen_64kb-0870.wav', 227_244,
             'b0557cf95c974d930577e58e46b7f068c432a6e3afcc286563d88922b2a5315c'),
            ('test/data/librivox/sense_and_sensibility_01_austen_64kb-0880.wav', 95_724,
             'fbec491ef00ee734a67f0ee318e98c51c157b479e1629ff4f4426861ecac0414'),
            ('test/data/librivox/sense_and_sensibility_01_austen_64kb-0890.wav', 169_644,
             '5793ffbdee55fb8bfd284943a6866864c832d9d4accf2661cabd39915c84ee10'),
            ('test/data/librivox/sense_and_sensibility_01_austen_64kb-0920.wav', 193_644,
             '40882414ef4cc51f3ff7a63bad0c8c87e7f595ffeb8209fbf756c8ebc5c28a59'),
            ('test/data/librivox/sense_and_sensibility_01_austen_64kb-0930.wav', 105_324,
             '954adbf0b56ac8a148cbe77b39ca18d76b5f2a1e1f405565bd786ce3e68a68b7'),
            ('test/data/librivox/transcription', 634,
             '4cc29e04a6dcd29242893b3ee20470e50b6ace45f4387bb619e5218145c66f99'),
        ),
        about='10 utterances, 16,000 samples a second; the prepared copy has 21 more from two other repositories',
        prepared=('speech_samples.tar.xz', 'index.jsonl'),
    ),
}  # fmt: skip


@functools.cache
def all_sources() -> dict[str, Source]:
    """All data sets that can be fetched, by name: sets with a `SOURCE`, and `OTHERS`."""
    modules = {name: set_module(name) for name in set_names()}
    return {name: module.SOURCE for name, module in modules.items() if hasattr(module, 'SOURCE')} | OTHERS
