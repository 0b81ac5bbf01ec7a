"""Chapter 2 in depth: any text, any size, any number of workers, any attack."""

import gzip
import json
import lzma
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_utils
from benches.data_bpe import chapter_functions
from llm_utils import (
    DIGIT_PATTERN,
    GPT2_PATTERN,
    SPECIAL_TOKENS,
    BPETokenizer,
    ChatFormat,
    byte_alphabet,
    every_second,
    in_batches,
    index_pairs,
    lay_out_words,
    learn_merges,
    merge_pair,
    merge_places,
    split_special,
    write_shards,
)

ROOT = Path(__file__).resolve().parent.parent
PATTERNS = (GPT2_PATTERN, DIGIT_PATTERN)
BYTE_ID = {bytes([byte]): i for i, byte in enumerate(byte_alphabet())}
TEXT = """\
The ferry was tied to the far bank. Odo the otter waited with the lantern.
"He's later than the last ferry," said Wren. Hello, they'll pay 12 pence
for 3 loaves; on 21 May it was 125. Ça coûte 7 €. Старый паром. 渡し船 🦦🦦
"""
train_slow, train_with_tokenizers = chapter_functions()
words_with_copies = st.dictionaries(
    st.text("ab", min_size=1, max_size=14).map(str.encode)
    | st.text("abcé ", min_size=1, max_size=9).map(str.encode),
    st.integers(1, 9),
    min_size=1,
    max_size=12,
)


def real_texts(real_data, name="val.jsonl.xz"):
    """The texts of one file of the real folder."""
    with lzma.open(real_data / "pretrain" / name, "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


# -- training -----------------------------------------------------------------


@settings(max_examples=150)
@given(words_with_copies)
def test_the_quick_trainer_is_the_textbook_to_the_last_merge(words):
    texts = [word.decode() for word, n in words.items() for _ in range(n)]
    counted = Counter()
    for text in texts:
        counted.update(w.encode() for w in regex.findall(GPT2_PATTERN, text))
    merges, saved = learn_merges(counted, 1000)
    assert merges == train_slow(texts, len(merges))
    left = sum(map(len, map(str.encode, texts))) - sum(saved)
    assert left == len(
        [w for text in texts for w in regex.findall(GPT2_PATTERN, text)]
    )  # in the end, every word is one token


@settings(max_examples=150)
@given(words_with_copies)
def test_no_two_merges_spell_the_same_token(words):
    merges, _ = learn_merges(words, 1000)
    made = [left + right for left, right in merges]
    assert len(set(made)) == len(made)


@settings(max_examples=60)
@given(words_with_copies)
def test_the_index_finds_every_pair_where_it_stands(words):
    ids, copies = lay_out_words(words, BYTE_ID)
    assert len(ids) == sum(len(word) + 1 for word in words)
    count, where, at = Counter(), {}, 0
    for word, n in words.items():
        row = [BYTE_ID[bytes([byte])] for byte in word]
        for i, pair in enumerate(zip(row, row[1:])):
            count[pair] += n
            where.setdefault(pair, []).append(at + i)
        at += len(word) + 1
    row = np.arange(len(ids))
    found = list(index_pairs(row, ids, np.roll(row, -1), copies))
    assert {pair: n for pair, n, _ in found} == count
    assert {pair: places.tolist() for pair, _, places in found} == where


@settings(max_examples=100)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=40))
def test_merging_places_is_merging_a_list(word):
    ids = np.array([*word, -1])
    row = np.arange(len(ids))
    before, after = np.roll(row, 1), np.roll(row, -1)
    copies = np.ones(len(ids), dtype=int)
    for pair, _, places in list(index_pairs(row, ids, after, copies)):
        now, back, on = ids.copy(), before.copy(), after.copy()
        if pair[0] == pair[1]:
            places = every_second(places, after)
        begins = merge_places(places, 9, now, back, on)
        chain, at = [], 0
        while now[at] >= 0 and len(chain) < len(word):
            chain.append(int(now[at]))
            at = on[at]
        assert chain == merge_pair(word, pair, 9)
        assert len(set(begins.tolist())) == len(begins)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_merges_of_the_valley_equal_those_of_tokenizers(pattern):
    from pocket_world import documents

    texts = [doc.text for doc in documents(1500, seed=11, split="train")]
    ours = BPETokenizer.train(texts, 256 + 4000, (), pattern).merges
    theirs = train_with_tokenizers(texts, 256 + 4000, pattern)
    assert len(ours) > 2000 and ours == theirs


@pytest.mark.parametrize("pattern", PATTERNS)
def test_merges_of_real_text_equal_those_of_tokenizers(real_data, pattern):
    texts = real_texts(real_data)[100:200]
    ours = BPETokenizer.train(texts, 3000, (), pattern).merges
    assert ours == train_with_tokenizers(texts, 3000, pattern)


@pytest.mark.full
@pytest.mark.parametrize("shard", (3, 8))
def test_merges_of_ten_megabytes_equal_those_of_tokenizers(real_data, shard):
    texts = real_texts(real_data, f"train-{shard:02d}.jsonl.xz")[:1000]
    ours = BPETokenizer.train(texts, 8192, ()).merges
    assert ours == train_with_tokenizers(texts, 8192)


def test_the_recorded_figures_meet_their_bars():
    path = ROOT / "results" / "bench-data.json"
    if not path.exists():
        pytest.skip("no figures are recorded: make bench-data")
    bench = json.loads(path.read_text())
    bpe, large, shards = bench["bpe"], bench["bpe_large"], bench["shards"]
    assert bpe["megabytes"] >= 10 and bpe["vocab_size"] == 8192
    assert bpe["merges_equal"] and bpe["over_tokenizers"] <= 1.5
    assert bpe["times_textbook"] >= 50
    assert large["megabytes"] >= 100 and large["vocab_size"] == 50_257
    assert large["merges_equal"] and large["ours_seconds"] <= 15 * 60
    assert shards["files_equal"] and shards["tiktoken_mb_per_second"] >= 3


# -- encoding -----------------------------------------------------------------

# What Python's own table assigns; letters that are newer are letters to one
# library and unknown signs to another, which then cut in other places.
HARD = (
    "Hello,", "  ", " ", "   x", "\n\n ", "\t", "\u200d", "👩‍👩‍👧‍👦", "🏴‍☠️", "👍🏽",
    "שלום", "مرحبا ", "\u202eabc", "\x00", "\x1f", "\x85", "\u00a0", "\u3000",
    "e\u0301", "\ufeff", "'s", "'LL", "1234", "٣٤", "½", "<|end|>", "<|", "|>",
    "\ufffd", "क्षि", "ไทย", "\U0001f1e9\U0001f1ea", "\u2028",
)  # fmt: skip
any_text = st.lists(
    st.sampled_from(HARD)
    | st.text(
        st.characters(exclude_categories=["Cs", "Cn"]), min_size=1, max_size=12
    ),
    max_size=8,
).map("".join)


@cache
def small_tokenizer(pattern=GPT2_PATTERN):
    return BPETokenizer.train([TEXT + "".join(HARD)] * 3, 520, pattern=pattern)


@cache
def with_tiktoken(pattern):
    ours = small_tokenizer(pattern)
    return ours, ours.to_tiktoken()


def check_ids(text, patterns=PATTERNS):
    for pattern in patterns:
        ours, tik = with_tiktoken(pattern)
        ids = ours.encode(text)
        assert ids == tik.encode_ordinary(text)
        assert ours.decode(ids) == text
        allowed = ours.encode(text, allowed_special="all")
        assert allowed == tik.encode(text, allowed_special="all")


@settings(max_examples=400)
@given(any_text)
def test_ids_of_any_text_equal_tiktoken(text):
    check_ids(text)


@pytest.mark.full
@settings(max_examples=100_000, derandomize=False, database=None)
@given(any_text)
def test_ids_of_a_hundred_thousand_texts_equal_tiktoken(text):
    check_ids(text, [PATTERNS[len(text) % 2]])


surrogates = st.text(
    st.characters(categories=["Cs"]) | st.sampled_from("ab 🦦\n"), max_size=12
)


@settings(max_examples=200)
@given(surrogates)
def test_half_a_character_is_refused_and_repaired_as_tiktoken_does(text):
    ours, tik = with_tiktoken(GPT2_PATTERN)
    repaired = text.encode("utf-16", "surrogatepass").decode(
        "utf-16", "replace"
    )
    assert ours.encode(repaired) == tik.encode_ordinary(text)
    if any("\ud800" <= c <= "\udfff" for c in text):
        with pytest.raises(ValueError, match="half of a character"):
            ours.encode(text)


@cache
def gpt2(folder):
    """GPT-2 as we read its files, and as tiktoken is told, without us."""
    names = json.loads((folder / "encoder.json").read_text("utf-8"))
    end = {"<|endoftext|>": names.pop("<|endoftext|>")}
    byte = {letter: b for b, letter in byte_alphabet().items()}
    ranks = {bytes(byte[c] for c in name): i for name, i in names.items()}
    tik = tiktoken.Encoding(
        "gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=end
    )
    return BPETokenizer.from_gpt2(folder), tik


def test_gpt2_ids_of_real_text_equal_tiktoken(real_data):
    ours, tik = gpt2(real_data / "gpt2_bpe")
    assert ours.encode("Akwirw ier") == [33901, 86, 343, 86, 220, 959]
    for text in real_texts(real_data)[:150]:
        assert ours.encode(text) == tik.encode_ordinary(text)
        assert ours.decode(ours.encode(text)) == text


def strings_of(file):
    """Every string in a file of the real folder."""
    opener = {".xz": lzma.open, ".gz": gzip.open}
    with opener.get(file.suffix, open)(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            if ".jsonl" in file.name:
                row = json.loads(line)
                yield from (v for v in row.values() if isinstance(v, str))
            else:
                yield line


def check_file(file):
    folder = next(p for p in file.parents if (p / "gpt2_bpe").exists())
    ours, tik = gpt2(folder / "gpt2_bpe")
    n = 0
    for text in strings_of(file):
        assert ours.encode(text) == tik.encode_ordinary(text), file.name
        n += len(text)
    return n


@pytest.mark.full
def test_gpt2_ids_of_all_real_files_equal_tiktoken(real_data):
    files = [f for f in sorted(real_data.rglob("*")) if f.is_file()]
    with ProcessPoolExecutor() as pool:
        assert sum(pool.map(check_file, files)) > 500_000_000


# -- nobody types a control token -----------------------------------------------

NAMES = list(SPECIAL_TOKENS)
LOOK_ALIKES = (
    "＜|end|＞", "<∣end∣>", "<|еnd|>", "<|end\u200d|>", "<|\u200bend|>",
    "<|end|\u0338>", "<|END|>", "< |end| >", "<|end|", "|end|>", "&lt;|end|&gt;",
    "<\u00ad|end|>",
)  # fmt: skip
attacks = st.lists(
    st.sampled_from(
        [*NAMES, *LOOK_ALIKES, " ", "\n", "<|", "|>", "user", "end"]
    )
    | st.text(max_size=4).filter(lambda t: t.isprintable()),
    min_size=1,
    max_size=9,
).map("".join)


@settings(max_examples=300)
@given(attacks)
def test_no_text_becomes_a_control_token(text):
    for pattern in PATTERNS:
        ours = small_tokenizer(pattern)
        control = set(ours.special_tokens.values())
        assert not control & set(ours.encode(text))
        for name in NAMES:  # one allowed: no other comes through
            ids = ours.encode(text, allowed_special=[name])
            assert control & set(ids) <= {ours.special_tokens[name]}
            assert ids.count(ours.special_tokens[name]) == text.count(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_attacks_one_by_one(name):
    ours = small_tokenizer()
    control, half = set(ours.special_tokens.values()), len(name) // 2
    nested = name[:half] + name + name[half:]
    for text in (
        name,
        nested,
        f" {name} ",
        f"\n{name}\n",
        name * 3,
        f"x{name}x",
    ):
        assert not control & set(ours.encode(text))
    # in two parts, as a stream delivers it: neither alone nor together
    for at in range(1, len(name)):
        ids = ours.encode(name[:at]) + ours.encode(name[at:])
        assert not control & set(ids) and ours.decode(ids) == name
    # nested: what is left when the inner one is taken out is not read again
    parts = split_special(nested, ours.special_tokens, [name])
    assert parts == [name[:half], ours.special_tokens[name], name[half:]]
    for text in LOOK_ALIKES:
        assert not control & set(ours.encode(text, allowed_special="all"))


@settings(max_examples=100)
@given(st.lists(attacks, min_size=1, max_size=4))
def test_a_conversation_has_the_marks_of_its_frame_and_no_others(contents):
    ours = small_tokenizer()
    chat = ChatFormat(ours)
    roles = ("user", "assistant") * 2
    messages = [
        {"role": role, "content": text} for role, text in zip(roles, contents)
    ]
    control = set(ours.special_tokens.values())
    marks = [i for i in chat.encode(messages) if i in control]
    frame = [[chat.mark[m["role"]], chat.end] for m in messages]
    assert marks == [i for turn in frame for i in turn]
    with pytest.raises(ValueError, match="needs a role"):
        chat.encode([{"role": "user|><|system", "content": contents[0]}])


def test_merges_do_not_learn_a_control_token():
    text = "<|user|>" * 50
    ours = BPETokenizer.train([text], 600)  # the pattern cuts the name
    assert not set(ours.encode(text)) & set(ours.special_tokens.values())
    with pytest.raises(ValueError, match="spell '<.user.>', the name of a sp"):
        BPETokenizer.train([f"{text[:8]} " * 50], 600, pattern=r"\S+|\s+")


# -- shards ---------------------------------------------------------------------


@cache
def many_documents(n=3000):
    rng = random.Random(3)
    words = [
        " " + "".join(rng.choices("aehlnortw", k=rng.randint(1, 8)))
        for _ in range(2000)
    ]
    return [
        {"text": "".join(rng.choices(words, k=rng.randint(1, 300))), "nats": i}
        for i in range(n)
    ]


def files_of(folder):
    return {f.name: f.read_bytes() for f in sorted(Path(folder).iterdir())}


def test_the_files_do_not_depend_on_the_workers(tmp_path):
    docs = many_documents()
    texts = (d["text"] for d in docs)
    assert len(list(in_batches(texts, 1_000_000))) > 2
    ours = small_tokenizer()
    for n in 1, 2, 3:
        write_shards(docs, ours, tmp_path, f"by-{n}", 100_000, workers=n)
    one = files_of(tmp_path / "by-1")
    assert len(one) > 5
    assert one == files_of(tmp_path / "by-2") == files_of(tmp_path / "by-3")


def test_few_blocks_are_under_way(tmp_path):
    """The corpus is not read far ahead of what is written."""
    handed, ahead = 0, []

    def documents():
        nonlocal handed
        for _ in range(40):
            handed += 1
            yield "x" * 1_000_000, 0.0

    rows = llm_utils.encode_documents(documents(), count_letters, workers=2)
    for done, (_, _, ids) in enumerate(rows, 1):
        assert list(ids) == [1_000_000 % 65_536]
        ahead.append(handed - done)
    assert done == 40 and max(ahead) <= 5


def count_letters(text):
    return [len(text) % 65_536]


@pytest.mark.parametrize(
    "system, method", [("linux", "fork"), ("darwin", None)]
)
def test_only_linux_forks(monkeypatch, system, method):
    """Elsewhere helpers start afresh, and the ids are the same."""
    asked, get_context = [], multiprocessing.get_context

    def context(name):
        asked.append(name)
        return get_context(name or "spawn")

    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(multiprocessing, "get_context", context)
    coder = small_tokenizer()
    docs = [(f"Odo has {n} lanterns.", 0.0) for n in range(50)]
    rows = llm_utils.encode_documents(docs, coder.encode, workers=2)
    assert [list(ids) for _, _, ids in rows] == [
        coder.encode(text) for text, _ in docs
    ]
    assert asked == [method]


def test_a_notebook_that_cannot_fork_works_alone(monkeypatch):
    def nobody(name):
        raise AssertionError("no helpers were to be started")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(multiprocessing, "get_context", nobody)
    monkeypatch.setattr(llm_utils.encode_block, "__module__", "__main__")
    rows = llm_utils.encode_documents([("ab", 0.0)], count_letters, workers=2)
    assert [list(ids) for _, _, ids in rows] == [[2]]


def test_a_bad_document_stops_all_workers(tmp_path):
    docs = [*many_documents(1500), {"text": "half \ud83e"}, *many_documents(50)]
    with pytest.raises(ValueError, match="half of a character"):
        write_shards(docs, small_tokenizer(), tmp_path, workers=2)
    assert os.listdir(tmp_path) == []


class Broken(Exception):
    """The power went out."""


def until(docs, n):
    yield from docs[:n]
    raise Broken


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=2, max_size=12),
    shard_tokens=st.integers(1, 30),
    stops=st.lists(st.integers(0, 12), min_size=1, max_size=3),
)
def test_taken_up_again_it_is_as_if_nothing_had_happened(
    tmp_path_factory, lengths, shard_tokens, stops
):
    tmp_path, ours = tmp_path_factory.mktemp("shards"), small_tokenizer()
    docs = [f"{i} {'ab' * n}" for i, n in enumerate(lengths)]
    write_shards(docs, ours, tmp_path, "whole", shard_tokens)
    part, now = tmp_path / ".part.part", {}
    for stop in stops:
        kept = now
        with pytest.raises(Broken):
            write_shards(
                until(docs, stop),
                ours,
                tmp_path,
                "part",
                shard_tokens,
                resume=True,
            )
        now = files_of(part) if part.exists() else {}
        assert kept.items() <= now.items()
    encoded = []

    def encode(text):
        encoded.append(text)
        return ours.encode(text)

    write_shards(
        docs, ours, tmp_path, "part", shard_tokens, encode, resume=True
    )
    assert files_of(tmp_path / "part") == files_of(tmp_path / "whole")
    assert not part.exists()
    # only from the document on in which the last whole shard ends
    done = shard_tokens * len([name for name in now if name.endswith(".json")])
    starts = np.load(tmp_path / "whole" / "starts.npy")
    assert encoded == docs[max(0, int((starts < done).sum()) - 1) :]


def broken_off(tmp_path, docs, shard_tokens=200):
    with pytest.raises(Broken):
        write_shards(
            until(docs, len(docs)),
            small_tokenizer(),
            tmp_path,
            shard_tokens=shard_tokens,
            resume=True,
        )
    return tmp_path / ".train.part"


def test_other_documents_are_not_mixed_in(tmp_path):
    docs, ours = many_documents()[:20], small_tokenizer()
    before = files_of(broken_off(tmp_path, docs))
    other = BPETokenizer.train([TEXT], 300)
    changed = [docs[0] | {"nats": 0.5}, *docs[1:]]
    for corpus, tokenizer, size in (
        (docs[::-1], ours, 200),
        (changed, ours, 200),
        (docs[:3], ours, 200),
        (docs, other, 200),
        (docs, ours, 300),
    ):
        with pytest.raises(ValueError, match="begun with other documents"):
            write_shards(
                corpus, tokenizer, tmp_path, shard_tokens=size, resume=True
            )
        assert files_of(tmp_path / ".train.part") == before
    write_shards(docs, other, tmp_path, shard_tokens=300)  # without resume
    assert files_of(tmp_path / ".train.part") == before


@pytest.mark.parametrize("harm", ["cut", "lost", "note lost"])
def test_a_harmed_shard_is_written_again(tmp_path, harm):
    docs, ours = many_documents()[:20], small_tokenizer()
    part = broken_off(tmp_path, docs)
    shard = sorted(part.glob("*.bin"))[2]
    if harm == "cut":
        shard.write_bytes(shard.read_bytes()[:-2])
    else:
        (shard if harm == "lost" else shard.with_suffix(".json")).unlink()
    write_shards(docs, ours, tmp_path, shard_tokens=200, resume=True)
    write_shards(docs, ours, tmp_path, "whole", shard_tokens=200)
    assert files_of(tmp_path / "train") == files_of(tmp_path / "whole")


SLOWLY = """
import sys, time
from llm_utils import BPETokenizer, write_shards
folder, workers = sys.argv[1], int(sys.argv[2])
tokenizer = BPETokenizer.load(folder + "/tokenizer")
docs = ["Odo waited at the ferry. %d " % i * 2000 for i in range(400)]
def encode(text):
    time.sleep(0.02)
    return tokenizer.encode(text)
write_shards(docs, tokenizer, folder, "train", 400_000, encode, workers,
             resume=True)
"""


def children(pid):
    """Processes that this one has started (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_kill_in_the_middle_loses_no_whole_shard(tmp_path, workers):
    small_tokenizer().save(tmp_path / "tokenizer")
    command = [sys.executable, "-c", SLOWLY, str(tmp_path), str(workers)]
    run = subprocess.Popen(command, cwd=ROOT)
    part = tmp_path / ".train.part"
    while len(list(part.glob("*.json"))) < 3:
        assert run.poll() is None, "it was over before it could be killed"
        time.sleep(0.02)
    helpers = children(run.pid)
    assert len(helpers) == (workers if workers > 1 else 0)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (tmp_path / "train").exists()
    kept = {f: f.stat().st_mtime_ns for f in part.glob("*.bin")
            if f.with_suffix(".json").exists()}  # fmt: skip
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in helpers):
        assert time.monotonic() < deadline, "helpers outlive their parent"
        time.sleep(0.05)
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    for file, when in kept.items():
        assert (tmp_path / "train" / file.name).stat().st_mtime_ns == when
    undisturbed = tmp_path / "undisturbed"
    small_tokenizer().save(undisturbed / "tokenizer")
    command[3:] = [str(undisturbed), "1"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    assert files_of(tmp_path / "train") == files_of(undisturbed / "train")


def test_half_a_character_is_named_wherever_it_comes_in(tmp_path):
    ours, text = small_tokenizer(), "half \ud83e"
    with pytest.raises(ValueError, match="half of a character"):
        BPETokenizer.train([text], 300)
    quick = ours.to_tiktoken().encode_ordinary  # would replace it
    with pytest.raises(ValueError, match="half of a character"):
        write_shards([text], ours, tmp_path, encode=quick)
    assert os.listdir(tmp_path) == []
