"""Writes tiny folders of random weights and what the reference implementation makes of them.

    pip install -e '.[parity]'
    python tests/interop/make_fixtures.py            # writes tests/interop/fixtures
    python tests/interop/make_fixtures.py --check    # two sizes of each family, both directions, no file kept

The reference is the `transformers` package with torch, in float32 on the CPU. `--check` also writes each model
with our code and lets the reference read it. Prints the largest difference of each.
"""

import argparse
import io
import json
import pathlib
import sys
import tempfile

import numpy as np
import tokenizers
import torch
import transformers

transformers.utils.logging.disable_progress_bar()
ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(pathlib.Path(__file__).parent)]
FOLDER = pathlib.Path(__file__).parent / 'fixtures'

WORDS = '[PAD] [UNK] [CLS] [SEP] [MASK] the quick brown fox jump ##s ##ed over un ##afford ##able , . ! ? a ##b'.split()
CHINESE = list('我爱北京天安门今是个好日子学习机器语言模型很有用')
TEXTS = (
    'The quick brown fox jumped over, unaffordable!', '我爱北京 the天安门.', 'Qu\u00efck  FOX?\tzebra',
    'a\u0000b\u2028fox', '',
)  # fmt: skip

PIECE_TEXTS = {  # what one side's model does not know, the other's does neither
    'spiece.model': ('the rain is cold', '  das  land ist alt ', 'cold regen', 'Zebra? the kalt', ''),
    'source.spm': ('the rain is cold', ' the  land is ', 'ZZebra?', ''),
    'target.spm': ('  das  land ist alt ', 'kalt regen', 'Zer? kalt', ''),
}

SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24)
LARGE = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=2, intermediate_size=72)
BERT = dict(vocab_size=48, max_position_embeddings=16)
CAUSAL = dict(vocab_size=40, max_position_embeddings=24, rms_norm_eps=1e-6, pad_token_id=0)
LLAMA3 = dict(
    rope_type='llama3', rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=12,
)  # fmt: skip
T5 = dict(vocab_size=40, relative_attention_num_buckets=8, relative_attention_max_distance=10)
MARIAN = dict(
    vocab_size=40, max_position_embeddings=16, scale_embedding=True, pad_token_id=39, eos_token_id=0,
    forced_eos_token_id=0, decoder_start_token_id=39,
)  # fmt: skip


def gpt2(size, **more):
    names = dict(n_embd='hidden_size', n_layer='num_hidden_layers', n_head='num_attention_heads')
    given = {theirs: size[ours] for theirs, ours in names.items()}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=300, n_positions=24, **given, **more))


def t5(size, **more):
    given = dict(d_model=size['hidden_size'], num_layers=size['num_hidden_layers'], d_ff=size['intermediate_size'])
    given.update(num_heads=size['num_attention_heads'], d_kv=size['hidden_size'] // 4, num_decoder_layers=2)
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**T5, **given, **more))


def marian(size):
    given = dict(d_model=size['hidden_size'], encoder_layers=size['num_hidden_layers'], decoder_layers=1)
    for side in ('encoder', 'decoder'):
        given[f'{side}_attention_heads'] = size['num_attention_heads']
        given[f'{side}_ffn_dim'] = size['intermediate_size']
    return transformers.MarianMTModel(transformers.MarianConfig(**MARIAN, **given, activation_function='swish'))


def distilbert(size):
    given = dict(dim=size['hidden_size'], n_layers=size['num_hidden_layers'], n_heads=size['num_attention_heads'])
    config = transformers.DistilBertConfig(**BERT, **given, hidden_dim=size['intermediate_size'])
    return transformers.DistilBertForMaskedLM(config)


def causal(name, size, **more):
    heads = dict(num_key_value_heads=size['num_attention_heads'] // 2, **more)
    config = getattr(transformers, f'{name}Config')(**{**CAUSAL, **size, **heads})
    return getattr(transformers, f'{name}ForCausalLM')(config)


FAMILIES = {
    'bert': lambda size: transformers.BertForPreTraining(transformers.BertConfig(**BERT, **size)),
    'roberta': lambda size: transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(**{**BERT, **size, 'type_vocab_size': 1, 'max_position_embeddings': 18})
    ),
    'distilbert': distilbert,
    'gpt2': gpt2,
    't5': t5,
    't5_gated': lambda size: t5(size, feed_forward_proj='gated-gelu', tie_word_embeddings=False),
    'llama': lambda size: causal('Llama', size, rope_parameters=LLAMA3),
    'mistral': lambda size: causal('Mistral', size, sliding_window=4),
    'qwen2': lambda size: causal(
        'Qwen2', size, tie_word_embeddings=True, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    'qwen3': lambda size: causal('Qwen3', size, head_dim=8),
    'marian': marian,
    'vit': lambda size: transformers.ViTForImageClassification(
        transformers.ViTConfig(**size, image_size=12, patch_size=4, num_labels=3)
    ),
}


def randomize(model, seed):
    """Draws every parameter anew, norms and biases too: the usual start would hide what is mixed up."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, each in model.named_parameters():
            if 'embed_positions' in name:  # Marian's sinusoids
                continue
            deviation = 0.3 if each.ndim < 2 else 1.2 / each[0].numel() ** 0.5
            each.copy_(torch.randn(each.shape, generator=generator) * deviation + (each.ndim < 2) * 0.5)
    return model.eval()


def inputs_of(model, rng):
    """Returns tokens, lengths, and what else a model reads."""
    if model.config.model_type == 'vit':
        return {'images': rng.normal(size=(3, 12, 12, 3)).astype(np.float32)}
    vocabulary = model.config.vocab_size
    one = {
        'tokens': rng.integers(2, vocabulary - 1, (3, 9), dtype=np.int32),
        'length': np.array([9, 5, 2], np.int32),
    }
    if model.config.is_encoder_decoder:
        source = rng.integers(2, vocabulary - 1, (3, 12), dtype=np.int32)
        return {'source': source, 'source_length': np.array([12, 7, 1], np.int32), **one}
    if model.config.model_type == 'bert':
        one['types'] = rng.integers(0, 2, (3, 9), dtype=np.int32)
    return one


def reference(model, inputs):
    """Returns what the reference makes of inputs: logits, and BERT's pooled."""
    if 'images' in inputs:
        with torch.no_grad():
            return {'logits': model(torch.tensor(np.moveaxis(inputs['images'], 3, 1))).logits.numpy()}
    given = {name: torch.tensor(value, dtype=torch.long) for name, value in inputs.items()}

    def mask(name):
        length = given['source_length' if name == 'source' else 'length']
        return (torch.arange(given[name].shape[1]) < length[:, None]).long()

    with torch.no_grad():
        if 'source' in given:
            out = model(
                input_ids=given['source'], attention_mask=mask('source'), decoder_input_ids=given['tokens']
            )
            return {'logits': out.logits.numpy()}
        types = {'token_type_ids': given['types']} if 'types' in given else {}
        out = model(input_ids=given['tokens'], attention_mask=mask('tokens'), **types)
        if 'types' not in given:
            return {'logits': out.logits.numpy()}
        pooled = model.bert(input_ids=given['tokens'], attention_mask=mask('tokens'), **types).pooler_output
        return {'logits': out.prediction_logits.numpy(), 'pooled': pooled.numpy()}


def t5_tokenizer():
    """Returns a tokenizer as T5's: unigrams, of 40 ids the last seven are sentinels, counted from the end."""
    letters = [*'etaoinshrdlucmfwpgyb', '.', ',']
    words = ['\u2581', '\u2581the', '\u2581rain', '\u2581cold', '\u2581day', 'ing', 'ed', '\u2581a']
    pieces = ['<pad>', '</s>', '<unk>', *words]
    scored = [(piece, -2.0 - number / 8) for number, piece in enumerate(pieces + letters)]
    sentinels = [f'<extra_id_{number}>' for number in range(6, -1, -1)]
    found = tokenizers.Tokenizer(tokenizers.models.Unigram(scored + [(name, 0.0) for name in sentinels], 2))
    found.pre_tokenizer, found.decoder = tokenizers.pre_tokenizers.Metaspace(), tokenizers.decoders.Metaspace()
    found.add_special_tokens(['<pad>', '</s>', '<unk>', *reversed(sentinels)])
    return found


def learn_pieces(texts, size, **ids):
    """Returns a SentencePiece model of unigrams as bytes; without normalization, whose table is large."""
    import sentencepiece

    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 20), model_writer=file, vocab_size=size, model_type='unigram',
        normalization_rule_name='identity', hard_vocab_limit=False, minloglevel=2, num_threads=1, **ids,
    )  # fmt: skip
    return file.getvalue()


def write_pieces(name, folder):
    """Writes SentencePiece models of 40 ids together, and what that library makes of texts."""
    import sentencepiece

    sides = {'source': ['the rain is cold', 'the land is old'], 'target': ['der regen ist kalt', 'das land ist alt']}
    if name == 't5_gated':
        files = {'spiece.model': learn_pieces(sides['source'], 33, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)}
    else:
        files = {f'{side}.spm': learn_pieces(texts, 24) for side, texts in sides.items()}
    cases, vocabulary = [], {'</s>': 0, '<unk>': 1}
    for file, data in files.items():
        (folder / file).write_bytes(data)
        model = sentencepiece.SentencePieceProcessor(model_proto=data)
        for number in range(model.vocab_size()):
            vocabulary.setdefault(model.id_to_piece(number), len(vocabulary))
    if name == 'marian':
        del vocabulary['<s>']
        names = [*vocabulary, *(f'<unused{number}>' for number in range(39 - len(vocabulary))), '<pad>']
        vocabulary = {piece: number for number, piece in enumerate(names)}
        (folder / 'vocab.json').write_text(json.dumps(vocabulary, ensure_ascii=False, indent=0), encoding='utf-8')
    else:
        (folder / 'tokenizer_config.json').write_text(json.dumps({'extra_ids': 40 - model.vocab_size()}))
    for file, data in files.items():
        model = sentencepiece.SentencePieceProcessor(model_proto=data)
        for text in PIECE_TEXTS[file]:
            ids = model.encode(text)
            if name == 'marian':
                ids = [vocabulary.get(piece, 1) for piece in model.encode(text, out_type=str)]
            cases.append({'file': file, 'text': text, 'ids': ids})
    (folder / 'tokens.json').write_text(json.dumps(cases, ensure_ascii=False, indent=0), encoding='utf-8')


def write_tokenizer(name, folder):
    """Writes the tokenizer of some families, and what the reference makes of texts."""
    if name == 'bert':
        tokens = WORDS + CHINESE
        tokens = (tokens + [f'[unused{number}]' for number in range(48)])[:48]
        (folder / 'vocab.txt').write_text('\n'.join(tokens) + '\n', encoding='utf-8')
        (folder / 'tokenizer_config.json').write_text(json.dumps({'do_lower_case': True}))
        tokenizer = transformers.BertTokenizer(str(folder / 'vocab.txt'), do_lower_case=True)
        cases = [{'text': text, 'ids': tokenizer(text)['input_ids']} for text in TEXTS]
        (folder / 'tokens.json').write_text(json.dumps(cases, ensure_ascii=False, indent=1), encoding='utf-8')
    if name in ('t5_gated', 'marian'):
        write_pieces(name, folder)
    if name == 't5':
        t5_tokenizer().save(str(folder / 'tokenizer.json'))
    if name == 'gpt2':
        model = tokenizers.ByteLevelBPETokenizer()
        model.train_from_iterator(['hello hello world, worlds of words'] * 3, 300, special_tokens=['<|endoftext|>'])
        model.save_model(str(folder))


def make(name, size, folder, seed):
    """Writes one model with its reference; returns the model and the reference."""
    torch.manual_seed(0)
    model, rng = randomize(FAMILIES[name](size), seed), np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    for other in folder.glob('generation_config.json'):
        other.unlink()
    if name == 't5_gated':
        untie(model, folder, seed)
    write_tokenizer(name, folder)
    inputs = inputs_of(model, rng)
    outputs = reference(model, inputs)
    np.savez_compressed(folder / 'reference.npz', **inputs, **outputs)
    return model, inputs, outputs


def untie(model, folder, seed):
    """Gives T5 1.1 an output projection of its own, in the model and in its folder."""
    from safetensors.torch import load_file, save_file

    kernel = torch.randn(model.shared.weight.shape, generator=torch.Generator().manual_seed(seed + 1)) * 0.3
    model.lm_head.weight = torch.nn.Parameter(kernel)
    tensors = {**load_file(folder / 'model.safetensors'), 'lm_head.weight': kernel}
    save_file(tensors, folder / 'model.safetensors', {'format': 'pt'})


def check(name, size, seed):
    """Prints the largest difference between ours and the reference, and of the reference on what we write."""
    import parity

    from research.interop import weights

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        model, inputs, outputs = make(name, size, folder / 'theirs', seed)
        pretrained = weights.read(folder / 'theirs')
        there = parity.largest_difference(pretrained, inputs, outputs)
        weights.write(pretrained, folder / 'ours')
        back = type(model).from_pretrained(folder / 'ours').eval()
        again = reference(back, inputs)
        parts = [np.abs(again[part] - outputs[part]).max() for part in outputs]
        scale = np.abs(outputs['logits']).max()
        print(f'{name:11} {size["hidden_size"]:3} logits to {scale:6.2f}: ours {there:.1e}, written {max(parts):.1e}')
        return there < 1e-4 and max(parts) == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true')
    parser.add_argument('--family', default='', choices=['', *FAMILIES])
    flags = parser.parse_args()
    good = True
    for seed, name in enumerate(FAMILIES):
        if flags.family not in ('', name):
            continue
        if flags.check:
            good &= all([check(name, size, seed) for size in (SMALL, LARGE)])
        else:
            make(name, SMALL, FOLDER / name, seed)
    sys.exit(not good)


if __name__ == '__main__':
    main()
