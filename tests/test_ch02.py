"""Chapter 2: byte-pair encoding, its files, shards and windows."""

import json
import os
import random
import shutil
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import regex
import tiktoken
import tokenizers
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, pre_tokenizers, trainers

from llm_utils import (
    DIGIT_PATTERN,
    GPT2_PATTERN,
    SPECIAL_TOKENS,
    BPETokenizer,
    TokenDataset,
    byte_alphabet,
    learn_merges,
    merge_word,
    sha256_file,
    split_special,
    tokenizer_json,
    write_shards,
)

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
GPT2 = DATA / "gpt2_bpe"
TEXT = """\
The ferry was tied to the far bank. Odo the otter waited with the lantern.
"The ferryman is late," said Wren. "He's later than the last ferry."
They'll pay 12 pence for 3 loaves; on 21 May it was 125. Ça coûte 7 €.
Старый паром. 渡し船は向こう岸に。 🦦🦦  \t\n\n  The water had come up.
"""

# Letters added to Unicode lately are letters to one library and unassigned
# to another, so the cutting differs: test what Python's own table assigns.
known_text = st.text(
    st.characters(exclude_categories=["Cs", "Cn"]), max_size=60
)
patterns = st.sampled_from([GPT2_PATTERN, DIGIT_PATTERN])


@pytest.fixture(scope="module", params=[GPT2_PATTERN, DIGIT_PATTERN])
def tokenizer(request):
    return BPETokenizer.train([TEXT] * 3, 420, pattern=request.param)


def reference_merges(texts, n_tokens, pattern):
    """What the trainer of `tokenizers` learns, as pairs of bytes."""
    model = tokenizers.Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    model.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=256 + n_tokens,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    byte = {letter: b for b, letter in byte_alphabet().items()}
    return [
        tuple(bytes(byte[c] for c in part) for part in pair)
        for pair in json.loads(model.to_str())["model"]["merges"]
    ]


# -- training -----------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text("ab eé1\n", max_size=40) | known_text, min_size=1, max_size=8
    ),
    patterns,
)
def test_merges_equal_the_reference_trainer(texts, pattern):
    assume(any(texts))
    ours = BPETokenizer.train(texts, 256 + 30, (), pattern).merges
    assert ours == reference_merges(texts, 30, pattern)


def test_merges_equal_the_reference_trainer_on_many_words():
    rng = random.Random(0)
    words = [
        "".join(rng.choices("abcdeno", k=rng.randint(1, 9)))
        for _ in range(3000)
    ]
    text = " ".join(rng.choices(words, k=20_000))
    ours = BPETokenizer.train([text], 256 + 600, (), GPT2_PATTERN).merges
    assert ours == reference_merges([text], 600, GPT2_PATTERN)


def test_ties_go_to_the_smaller_ids():
    # every pair once: "zz" is counted first, but "ab" has the smaller ids
    merges, _ = learn_merges({b"zz": 1, b"cd": 1, b"ab": 1}, 3)
    assert merges == [(b"a", b"b"), (b"c", b"d"), (b"z", b"z")]


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=12),
        st.integers(1, 50),
        min_size=1,
        max_size=12,
    )
)
def test_saved_is_exactly_what_the_corpus_loses(words):
    merges, saved = learn_merges(words, 40)
    coder = BPETokenizer(merges, ())
    left = sum(
        n
        * len(merge_word([coder.vocab[bytes([b])] for b in word], coder._ranks))
        for word, n in words.items()
    )
    assert sum(len(w) * n for w, n in words.items()) - sum(saved) == left
    assert all(n > 0 for n in saved)


def test_special_tokens_take_the_last_ids(tokenizer):
    assert tokenizer.vocab_size == 420
    assert list(tokenizer.special_tokens) == list(SPECIAL_TOKENS)
    assert list(tokenizer.special_tokens.values()) == list(range(415, 420))
    assert tokenizer.end_of_text == 415


@pytest.mark.parametrize(
    "size, special, message",
    [
        (200, SPECIAL_TOKENS, "at least 261"),
        (260, SPECIAL_TOKENS, "at least 261"),
        (256, (), "at least 257"),
        (65_537, SPECIAL_TOKENS, "at most 65,536"),
    ],
)
def test_impossible_vocabulary_sizes(size, special, message):
    with pytest.raises(ValueError, match=message):
        BPETokenizer.train([TEXT], size, special)


@pytest.mark.parametrize("texts", [[], [""], iter(())])
def test_empty_corpus(texts):
    with pytest.raises(ValueError, match="corpus is empty"):
        BPETokenizer.train(texts, 300)


def test_corpus_that_is_not_utf8():
    with pytest.raises(ValueError, match="document 1 is not UTF-8 .*0xe9 at 3"):
        BPETokenizer.train(["fine", b"caf\xe9"], 300)
    with pytest.raises(ValueError, match="document 0 has no text"):
        BPETokenizer.train([{"body": "x"}], 300)


def test_a_small_corpus_gives_a_smaller_vocabulary():
    small = BPETokenizer.train(["abab"], 400)
    assert small.vocab_size == 256 + 2 + len(SPECIAL_TOKENS)
    assert small.decode(small.encode("abab")) == "abab"


def test_merges_out_of_order_are_refused():
    with pytest.raises(ValueError, match="merge 0 joins .*not in its order"):
        BPETokenizer([(b"th", b"e"), (b"t", b"h")])


# -- encoding and decoding ----------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=80))
def test_decode_undoes_encode(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert max(ids, default=0) < tokenizer.end_of_text
    allowed = tokenizer.encode(text, allowed_special="all")
    assert tokenizer.decode(allowed) == text


pieces = st.lists(st.sampled_from(SPECIAL_TOKENS) | known_text, max_size=6)


@settings(max_examples=150, deadline=None)
@given(parts=pieces)
def test_ids_equal_tiktoken_tokenizers_and_transformers(
    tokenizer, others, parts
):
    tik, hf, fast = others
    text = "".join(parts)
    assert tokenizer.encode(text) == tik.encode_ordinary(text)
    allowed = tokenizer.encode(text, allowed_special="all")
    assert allowed == tik.encode(text, allowed_special="all")
    assert allowed == hf.encode(text).ids
    assert allowed == fast.encode(text)
    assert fast.decode(allowed) == text == tik.decode(allowed)


@pytest.fixture(scope="module")
def others(tokenizer):
    return (
        tokenizer.to_tiktoken(),
        tokenizers.Tokenizer.from_str(tokenizer_json(tokenizer)),
        tokenizer.to_transformers(),
    )


def test_the_hard_strings(tokenizer, others):
    tik, hf, fast = others
    for text in (
        "",
        " ",
        "  ",
        "   x",
        "\n\n\n",
        " \n x",
        "'s's'S 'll",
        "it's 3's",
        "\u00a0\u3000x \u2003 y",
        "e\u0301é",
        "٣٤ ½ ²",
        "\x00\x1f\x85",
        "👩‍👩‍👧‍👦" * 3,
        "a" * 500,
        " " * 500,
        "1" * 50,
        "<|en",
        "<|end|",
        "<|",
    ):
        ids = tokenizer.encode(text)
        assert ids == tik.encode_ordinary(text) == hf.encode(text).ids, text
        assert ids == fast.encode(text)
        assert tokenizer.decode(ids) == text


def test_special_tokens_are_text_unless_allowed(tokenizer):
    text = "a<|end|>b<|user|>"
    plain = tokenizer.encode(text)
    assert not set(plain) & set(tokenizer.special_tokens.values())
    one = tokenizer.encode(text, allowed_special=["<|end|>"])
    assert tokenizer.special_tokens["<|end|>"] in one
    assert tokenizer.special_tokens["<|user|>"] not in one
    with pytest.raises(ValueError, match="not special tokens.*<.pad.>"):
        tokenizer.encode(text, allowed_special=["<|pad|>"])


def test_the_longest_special_token_wins():
    names = {"<|a|>": 1, "<|a|><|b|>": 2}
    assert split_special("<|a|><|b|>", names, "all") == ["", 2, ""]


def test_bad_input_to_encode_and_decode(tokenizer):
    with pytest.raises(TypeError, match="not bytes"):
        tokenizer.encode(b"ferry")
    with pytest.raises(ValueError, match="half of a character"):
        tokenizer.encode("ab\ud83e")
    for ids in [[420]], [[-100]], [[3, 99_999]]:
        with pytest.raises(ValueError, match="only 0 to 419"):
            tokenizer.decode(*ids)
    assert tokenizer.decode([]) == ""
    first = tokenizer.vocab[b"\xf0"]
    assert tokenizer.decode([first]) == "\ufffd"
    ids = tokenizer.encode("Odo waited")
    assert tokenizer.decode(torch.tensor(ids)) == "Odo waited"
    assert tokenizer.decode(np.array(ids, dtype=np.uint16)) == "Odo waited"


def test_a_long_word_takes_no_quadratic_time(tokenizer):
    """By the processor's own time, the best of three words of each length."""
    rng = random.Random(0)

    def cost(n):
        word = "".join(rng.choices("aehlnortw", k=n))
        start = time.process_time()
        tokenizer.encode(word)
        return time.process_time() - start

    short, long = (min(cost(n) for _ in range(3)) for n in (20_000, 80_000))
    assert long < 10 * short + 0.05  # 16 if quadratic


# -- files --------------------------------------------------------------------


def test_saved_and_loaded_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = BPETokenizer.load(tmp_path)
    assert again.merges == tokenizer.merges
    assert again.special_tokens == tokenizer.special_tokens
    assert again.pattern == tokenizer.pattern
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    assert again.sha256 == tokenizer.sha256
    assert sha256_file(tmp_path / "tokenizer.json") == again.sha256
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.get_vocab() == json.loads(
        (tmp_path / "vocab.json").read_text()
    )
    assert len(list(tmp_path.iterdir())) == 3


def test_transformers_reads_the_folder_back(tokenizer, tmp_path):
    from transformers import PreTrainedTokenizerFast

    tokenizer.to_transformers().save_pretrained(tmp_path)
    fast = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert fast.encode(TEXT) == tokenizer.encode(TEXT)
    assert fast.eos_token_id == tokenizer.end_of_text


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer.json"])
def test_files_of_another_vocabulary(tmp_path, name):
    for folder, text in ("a", TEXT), ("b", TEXT[::-1]):
        BPETokenizer.train([text] * 3, 300).save(tmp_path / folder)
    shutil.copy(tmp_path / "b" / name, tmp_path / "a" / name)
    with pytest.raises(ValueError, match="belong to different vocabularies"):
        BPETokenizer.load(tmp_path / "a")
    (tmp_path / "a" / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=f"{name} is missing.*make ch02"
    ):
        BPETokenizer.load(tmp_path / "a")


def test_damaged_files(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    merges = tmp_path / "merges.txt"
    good = merges.read_text(encoding="utf-8")
    merges.write_text(good.replace("\n", "\nabc\n", 1), encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: 'abc' is not a merge"):
        BPETokenizer.load(tmp_path)
    merges.write_text(good, encoding="utf-8")
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8")[:500], encoding="utf-8")
    with pytest.raises(ValueError, match="is not JSON"):
        BPETokenizer.load(tmp_path)
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="not one of this book's"):
        BPETokenizer.load(tmp_path)


@pytest.fixture(scope="module")
def gpt2():
    if not GPT2.exists():
        pytest.skip(f"GPT-2's files are not at {GPT2}")
    return BPETokenizer.from_gpt2(GPT2)


@pytest.fixture(scope="module")
def gpt2_others(gpt2):
    """GPT-2's files as tiktoken and as tokenizers read them, without us."""
    names = json.loads((GPT2 / "encoder.json").read_text(encoding="utf-8"))
    end = {"<|endoftext|>": names.pop("<|endoftext|>")}
    byte = {letter: b for b, letter in byte_alphabet().items()}
    ranks = {bytes(byte[c] for c in name): i for name, i in names.items()}
    tik = tiktoken.Encoding(
        "gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=end
    )
    files = str(GPT2 / "encoder.json"), str(GPT2 / "vocab.bpe")
    hf = tokenizers.Tokenizer(models.BPE.from_file(*files))
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tik, hf


def test_gpt2_known_ids(gpt2):
    assert gpt2.vocab_size == 50_257 and gpt2.end_of_text == 50_256
    assert gpt2.encode("Akwirw ier") == [33901, 86, 343, 86, 220, 959]
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.encode("a<|endoftext|>", allowed_special="all") == [64, 50256]


@settings(max_examples=150, deadline=None)
@given(text=known_text)
def test_gpt2_ids_equal_the_other_libraries(gpt2, gpt2_others, text):
    tik, hf = gpt2_others
    assert gpt2.encode(text) == tik.encode_ordinary(text)
    assert gpt2.encode(text) == hf.encode(text).ids
    assert gpt2.decode(gpt2.encode(text)) == text


def test_gpt2_files_that_do_not_belong_together(gpt2, tmp_path):
    shutil.copy(GPT2 / "vocab.bpe", tmp_path)
    names = json.loads((GPT2 / "encoder.json").read_text(encoding="utf-8"))
    names["!"], names['"'] = names['"'], names["!"]
    (tmp_path / "encoder.json").write_text(json.dumps(names))
    with pytest.raises(ValueError, match="not those that its merges give"):
        BPETokenizer.from_gpt2(tmp_path)


def test_classes_of_characters_agree_with_the_reference():
    """\\s, \\p{L} and \\p{N} mean the same to `regex` and to Rust."""
    points = [
        c
        for c in map(chr, range(0x20000))
        if unicodedata.category(c) not in ("Cs", "Cn")
    ]
    text = "".join(points)
    for name in r"\s", r"\p{L}", r"\p{N}":
        ours = set(regex.findall(name, text))
        split = pre_tokenizers.Split(Regex(name), "removed")
        rest = set("".join(p for p, _ in split.pre_tokenize_str(text)))
        assert ours == set(points) - rest, name


# -- shards and windows -------------------------------------------------------

DOCS = [
    {"text": "Odo waited at the ferry.", "nats": 4.5},
    {"text": "The water was high.", "nats": None},
    {"text": "He went home, and the lantern was lit.", "nats": 7.25},
]


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(max_size=30), min_size=1, max_size=6),
    shard_tokens=st.integers(1, 40),
    context=st.integers(1, 12),
)
def test_what_is_written_is_read_back(
    tokenizer, tmp_path_factory, texts, shard_tokens, context
):
    assume(any(texts))
    folder = tmp_path_factory.mktemp("shards")
    index = write_shards(texts, tokenizer, folder, "train", shard_tokens)
    rows = [[*tokenizer.encode(text), tokenizer.end_of_text] for text in texts]
    flat = [i for row in rows for i in row]
    assert index["tokens"] == len(flat) and index["documents"] == len(texts)
    assert index["bytes"] == sum(len(text.encode()) for text in texts)
    assert index["nats"] is None
    assume(len(flat) > context)
    data = TokenDataset(folder, "train", context, tokenizer)
    assert np.asarray(data.tokens).tolist() == flat
    ends = np.cumsum([len(row) for row in rows])
    assert data.starts.tolist() == [0, *ends[:-1]]
    for i in range(len(data)):
        x, y = data[i]
        at = i * context
        assert x.dtype == y.dtype == torch.int64
        assert x.tolist() == flat[at : at + context]
        assert y.tolist() == flat[at + 1 : at + context + 1]
    assert (len(data) + 1) * context + 1 > len(flat)
    for start in range(0, len(flat), 5):
        assert (
            data.tokens[start : start + 9].tolist() == flat[start : start + 9]
        )
    assert int(data.tokens[-1]) == flat[-1]
    at = np.array([[0, len(flat) - 1], [len(flat) // 2, 0]])
    assert np.array_equal(data.tokens[at], np.array(flat)[at])


def test_nats_stay_with_their_documents(tokenizer, tmp_path):
    index = write_shards(DOCS, tokenizer, tmp_path)
    assert index["nats"] is None
    data = TokenDataset(tmp_path, "train", 8, tokenizer)
    assert np.array_equal(data.nats, [4.5, np.nan, 7.25], equal_nan=True)
    assert write_shards(DOCS[::2], tokenizer, tmp_path)["nats"] == 11.75
    assert data.vocab_size == tokenizer.vocab_size
    last = data.tokens[int(data.starts[2]) :]
    assert tokenizer.decode(last) == DOCS[2]["text"] + "<|endoftext|>"


def test_tiktoken_may_do_the_encoding(tokenizer, tmp_path):
    write_shards(DOCS, tokenizer, tmp_path, "ours")
    encode = tokenizer.to_tiktoken().encode_ordinary
    write_shards(DOCS, tokenizer, tmp_path, "theirs", encode=encode)
    assert sha256_file(tmp_path / "ours" / "00000.bin") == sha256_file(
        tmp_path / "theirs" / "00000.bin"
    )


def test_a_cut_or_altered_file_is_named(tokenizer, tmp_path):
    write_shards(DOCS, tokenizer, tmp_path, shard_tokens=20)
    for name in "00000.bin", "00001.bin", "starts.npy", "nats.npy":
        file = tmp_path / "train" / name
        good = file.read_bytes()
        changed = bytearray(good)
        changed[-1] ^= 1
        for bad in good[:-2], bytes(changed), b"":
            file.write_bytes(bad)
            with pytest.raises(ValueError, match=f"{name} is cut short or alt"):
                TokenDataset(tmp_path, "train", 8)
        file.unlink()
        with pytest.raises(ValueError, match=f"{name} is cut short or altered"):
            TokenDataset(tmp_path, "train", 8)
        file.write_bytes(good)
    assert len(TokenDataset(tmp_path, "train", 8)) > 0


def test_faults_of_the_dataset(tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="make ch02"):
        TokenDataset(tmp_path, "train", 8)
    write_shards(DOCS, tokenizer, tmp_path)
    with pytest.raises(
        ValueError, match="one window of context 999 needs 1000"
    ):
        TokenDataset(tmp_path, "train", 999)
    other = BPETokenizer.train([TEXT], 300)
    with pytest.raises(ValueError, match="written with another tokenizer"):
        TokenDataset(tmp_path, "train", 8, other)
    data = TokenDataset(tmp_path, "train", 8)
    with pytest.raises(IndexError):
        data[len(data)]
    n = len(data.tokens)
    assert len(TokenDataset(tmp_path, "train", n - 1)) == 1
    with pytest.raises(ValueError, match="bring more text"):
        TokenDataset(tmp_path, "train", n)


@pytest.mark.parametrize(
    "docs, message",
    [
        ([], "corpus is empty"),
        (["", {"text": ""}], "corpus is empty"),
        (["good", b"\xff\xfe"], "document 1 is not UTF-8"),
        (["good", None], "document 1 has no text"),
    ],
)
def test_a_bad_corpus_leaves_nothing_behind(tokenizer, tmp_path, docs, message):
    with pytest.raises(ValueError, match=message):
        write_shards(docs, tokenizer, tmp_path)
    assert os.listdir(tmp_path) == []


def test_an_older_folder_survives_a_failure(tokenizer, tmp_path):
    write_shards(DOCS, tokenizer, tmp_path)
    before = sha256_file(tmp_path / "train" / "index.json")
    with pytest.raises(ValueError):
        write_shards(["x", b"\xff"], tokenizer, tmp_path)
    assert sha256_file(tmp_path / "train" / "index.json") == before
    assert os.listdir(tmp_path) == ["train"]


def test_vocabularies_that_shards_cannot_hold(tmp_path):
    names = ["<|endoftext|>", *(f"<{i}>" for i in range(65_280))]
    big = BPETokenizer([], names)
    assert big.vocab_size == 65_537
    with pytest.raises(ValueError, match="at most 65,536"):
        write_shards(["x"], big, tmp_path)
    with pytest.raises(ValueError, match="with <.endoftext.>"):
        write_shards(["x"], BPETokenizer([], ()), tmp_path)


def test_the_largest_id_survives(tmp_path):
    names = ["<|endoftext|>", *(f"<{i}>" for i in range(65_279))]
    full = BPETokenizer([], names)
    assert full.vocab_size == 65_536
    write_shards(["ab"], full, tmp_path, encode=lambda text: [65_535, 0])
    data = TokenDataset(tmp_path, "train", 2)
    assert np.asarray(data.tokens).tolist() == [65_535, 0, 256]


def test_batches_through_a_loader_with_workers(tokenizer, tmp_path):
    write_shards(DOCS * 5, tokenizer, tmp_path, shard_tokens=50)
    data = TokenDataset(tmp_path, "train", 8, tokenizer)
    loader = torch.utils.data.DataLoader(data, batch_size=4, num_workers=1)
    x, y = next(iter(loader))
    assert x.shape == y.shape == (4, 8) and torch.equal(x[:, 1:], y[:, :-1])


def test_ids_do_not_depend_on_the_cache(tokenizer):
    fresh = BPETokenizer(tokenizer.merges, SPECIAL_TOKENS, tokenizer.pattern)
    fresh.cache_size = 0
    assert fresh.encode(TEXT * 2) == tokenizer.encode(TEXT * 2)
