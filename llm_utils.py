"""What the chapters of the book export, in one module.

Generated from the notebooks by `python book/export.py`. Do not edit: change
the notebook cell named above each piece, then export again.
"""

import ast
import asyncio
import atexit
import bisect
import codecs
import collections
import contextlib
import copy
import ctypes
import functools
import glob
import gzip
import hashlib
import heapq
import hmac
import importlib.util
import io
import itertools
import json
import logging
import lzma
import math
import mmap
import multiprocessing
import operator
import os
import platform
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
import warnings
import weakref
import zlib
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from itertools import chain, islice
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import regex
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset

__all__ = [
    "project_root",
    "preset",
    "artifact",
    "atomic_file",
    "atomic_folder",
    "write_json",
    "read_json",
    "write_lines",
    "read_lines",
    "sha256_file",
    "seed_everything",
    "record_measures",
    "precision_recall",
    "token_f1",
    "decode_bytes",
    "repair_mojibake",
    "clean_text",
    "parse_html",
    "BLOCK_TAGS",
    "SILENT_TAGS",
    "is_furniture",
    "PageBlock",
    "page_blocks",
    "block_score",
    "main_run",
    "extract_text",
    "drop_shared_paragraphs",
    "STOP_WORDS",
    "quality_signals",
    "split_words",
    "split_sentences",
    "c4_lines",
    "c4_rules",
    "GOPHER_WORDS",
    "gopher_rules",
    "GOPHER_TOP",
    "GOPHER_AGAIN",
    "repeated",
    "gopher_repetition_rules",
    "fineweb_rules",
    "hashed_ngrams",
    "QualityClassifier",
    "letter_ngrams",
    "LanguageIdentifier",
    "word_hashes",
    "shingle_hashes",
    "jaccard_similarity",
    "in_batches",
    "minhash_signatures",
    "candidate_probability",
    "choose_bands",
    "candidate_pairs",
    "near_duplicates",
    "deduplicate",
    "datatrove_deduplicate",
    "redact_pii",
    "corpus_split",
    "contamination",
    "decontaminate",
    "open_compressed",
    "CODE_LANGUAGES",
    "CORPUS_SUFFIXES",
    "LONGEST_RECORD",
    "page_title",
    "corpus_files",
    "read_corpus",
    "load_corpus",
    "mix_corpora",
    "count_texts",
    "count_sources",
    "contamination_summary",
    "data_card",
    "card_markdown",
    "write_data_card",
    "byte_alphabet",
    "merge_pair",
    "GPT2_PATTERN",
    "DIGIT_PATTERN",
    "lay_out_words",
    "index_pairs",
    "merge_places",
    "every_second",
    "learn_merges",
    "merge_word",
    "SPECIAL_TOKENS",
    "split_special",
    "BPEVocabulary",
    "to_utf8",
    "BPECoder",
    "LETTERS",
    "spell_token",
    "vocabulary_names",
    "tokenizer_json",
    "read_merges",
    "read_special_and_pattern",
    "BPEFiles",
    "document_text",
    "BPETokenizer",
    "read_documents",
    "start_encoder",
    "encode_block",
    "encode_documents",
    "ShardWriter",
    "CorpusWriter",
    "resumable_folder",
    "write_index",
    "write_shards",
    "TokenArray",
    "TokenDataset",
    "scaled_dot_product_attention",
    "causal_mask",
    "rope_frequencies",
    "rope_table",
    "rotate",
    "apply_rope",
    "KVCache",
    "flash_attention",
    "dense_attention",
    "window_attention",
    "MultiHeadAttention",
    "attention_weights",
    "ModelConfig",
    "LayerNorm",
    "RMSNorm",
    "gelu_tanh",
    "FeedForward",
    "make_norm",
    "Block",
    "initialise",
    "segment_mask",
    "GPT",
    "count_parameters",
    "parameter_table",
    "linear_cross_entropy",
    "to_transformers",
    "from_transformers",
    "flops_per_token",
    "memory_bytes",
    "save_model",
    "load_model",
    "pack_documents",
    "Batches",
    "Prefetch",
    "fast_dtype",
    "mixed_precision",
    "keep_freed_memory",
    "document_nats",
    "evaluate",
    "newton_schulz",
    "Muon",
    "quantize_blocks",
    "dequantize_blocks",
    "Adam8bit",
    "TrainConfig",
    "learning_rate",
    "make_optimizers",
    "optimizer_step",
    "can_compile",
    "Compiled",
    "workers",
    "batch_loss",
    "save_checkpoint",
    "latest_checkpoint",
    "load_checkpoint",
    "History",
    "plot_history",
    "peak_flops",
    "train",
    "RECIPES",
    "sample",
    "generate",
    "generate_batch",
    "fact_accuracy",
    "continuation_logprobs",
    "knowledge_bits",
    "start_workers",
    "stop_workers",
    "prepare_shards",
    "pretrain",
    "SequenceClassifier",
    "LoRALinear",
    "add_lora",
    "merge_lora",
    "save_lora",
    "load_lora",
    "length_batches",
    "pad_rows",
    "collate",
    "finetune",
    "wilson_interval",
    "ChatFormat",
    "SPEAKERS",
    "ANSWERS",
    "as_messages",
    "check_messages",
    "read_conversations",
    "InstructionDataset",
    "answer_tasks",
    "share",
    "mark_answers",
    "score_answers",
    "answer_loss",
    "PackedDataset",
    "collate_packed",
    "token_logprobs",
    "answer_token_logprobs",
    "sequence_logprob",
    "PreferenceDataset",
    "collate_pairs",
    "pair_logprobs",
    "dpo_loss",
    "simpo_loss",
    "orpo_loss",
    "kto_loss",
    "mismatched",
    "preference_loss",
    "train_dpo",
    "policy_kl",
    "RewardModel",
    "train_reward_model",
    "reward_accuracy",
    "group_advantages",
    "grpo_loss",
    "train_grpo",
    "cache_bytes",
    "SamplingParams",
    "process_logits",
    "choose_token",
    "one_of",
    "TextStream",
    "stream",
    "FastLinear",
    "FastBlock",
    "FastGPT",
    "BlockPool",
    "PagedCache",
    "SharedPool",
    "GenerationRequest",
    "Scheduler",
    "PagedScheduler",
    "EngineCore",
    "Busy",
    "Engine",
    "prompt_lookup",
    "keep_or_replace",
    "speculative_generate",
    "DraftModel",
    "pack_bits",
    "unpack_bits",
    "QuantizedLinear",
    "QuantizedEmbedding",
    "quantize",
    "model_bytes",
    "Int8Linear",
    "dequantize",
    "save_quantized",
    "load_quantized",
    "APIError",
    "parse_messages",
    "parse_prompt",
    "parse_params",
    "answer_events",
    "Answer",
    "as_events",
    "as_whole",
    "Limits",
    "read_json_body",
    "hung_up",
    "ChatOrText",
    "check_length",
    "Histogram",
    "prometheus_text",
    "ServerMetrics",
    "doorkeeper",
    "tell_faults",
    "known_model",
    "parse_request",
    "add_answers",
    "PAGE_HEADERS",
    "add_views",
    "create_app",
    "chat_in_terminal",
    "load_pretrained",
    "PlainText",
    "export_transformers",
    "gguf_settings",
    "q8_0",
    "export_gguf",
    "has_tiles",
    "report_card",
    "REPORT_LINES",
    "report_rows",
    "report_intervals",
    "report_number",
    "report_aim",
    "print_report",
    "Value",
    "look_up",
    "letter_loss",
    "MixtureOfExperts",
    "SparseGPT",
    "fold_mup",
    "coordinate_check",
    "encode_pair",
    "rolling_windows",
    "harness_lm",
    "local_task",
    "run_tasks",
    "fact_choices",
    "BENCHMARKS",
    "benchmark_rows",
    "CLOZES",
    "cloze_tasks",
    "LiveMemory",
    "Plan",
    "shard",
    "tensor_parallel",
    "Stage",
    "spread_newton_schulz",
    "SpreadMuon",
    "SpreadGPT",
    "launch",
    "Traffic",
    "try_plans",
    "trial_batch",
    "ZeroPlan",
    "ZeroGPT",
    "training_template",
    "lora_to_peft",
    "axolotl_config",
    "trl_script",
    "unknown_keys",
    "rloo_advantages",
    "batch_advantages",
    "reinforce_loss",
    "pass_at_k",
    "best_of",
    "parse_regex",
    "utf8_ranges",
    "ByteAutomaton",
    "StateTable",
    "token_trie",
    "TokenGrammar",
    "regex_grammar",
    "JsonRules",
    "json_grammar",
    "calculate",
    "read_call",
    "use_tool",
    "answer_with_tools",
]


# ch01_data/data.ipynb [workshop-paths]
def project_root() -> Path:
    """The folder that holds the chapters, wherever the kernel stands.

    Raises FileNotFoundError outside the book's folder. Built in chapter 1.
    """
    here = Path(globals().get("__file__", Path.cwd() / "notebook")).resolve()
    for folder in here.parents:
        if (folder / "ch01_data" / "pocket_world").is_dir():
            return folder
    raise FileNotFoundError(
        f"{here.parent} is not inside the book: start from its folder"
    )


def preset() -> str:
    """The size of this run: "smoke", "pocket" (the default) or "gpt2-124m".

    Read from LLM_PRESET; any other value raises ValueError.
    Built in chapter 1.
    """
    name = os.environ.get("LLM_PRESET", "pocket")
    if name not in ("smoke", "pocket", "gpt2-124m"):
        raise ValueError(
            f"LLM_PRESET is {name!r}: choose smoke, pocket or gpt2-124m"
        )
    return name


# ch01_data/data.ipynb [workshop-artifact-code]
def artifact(*parts: str, made_by: str | None = None) -> Path:
    """The path artifacts/<preset>/<parts> of this run.

    With `made_by` (a chapter, "ch05") it must exist: FileNotFoundError names
    the command that makes it. Built in chapter 1.
    """
    path = project_root() / "artifacts" / preset() / Path(*parts)
    if made_by is not None and not path.exists():
        shown = path.relative_to(project_root())
        raise FileNotFoundError(
            f"{shown} is missing: run `make {made_by}` first"
        )
    return path


# ch01_data/data.ipynb [workshop-atomic-code]
@contextlib.contextmanager
def atomic_file(path):
    """Yield a temporary path beside `path`, renamed over it if all goes well.

    On an exception the temporary file is removed and `path` stays as it was.
    Built in chapter 1.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=".part"
    )
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


# ch01_data/data.ipynb [workshop-folder-code]
@contextlib.contextmanager
def atomic_folder(path):
    """Yield an empty folder beside `path`, renamed over it if all goes well.

    An older folder at `path` is replaced as a whole; on an exception it stays
    as it was and the new one is removed. Built in chapter 1.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    old = part.with_name(part.name + ".old")
    try:
        yield part
        os.chmod(part, 0o755)
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(part, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


# ch01_data/data.ipynb [workshop-json-code]
def write_json(path, obj) -> None:
    """Write `obj` as JSON to `path`, whole or not at all.

    A number that is not finite raises ValueError. Built in chapter 1.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def read_json(path):
    """What `write_json` wrote; ValueError names a file that is not JSON.

    Built in chapter 1.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def write_lines(path, rows) -> int:
    """Write an iterable of dicts to `path` as JSON Lines; return their number.

    Whole or not at all. Built in chapter 1.
    """
    count = 0
    with atomic_file(path) as part:
        with open(part, "w", encoding="utf-8", newline="\n") as file:
            for count, row in enumerate(rows, 1):
                line = json.dumps(row, ensure_ascii=False, allow_nan=False)
                file.write(line + "\n")
    return count


def read_lines(path):
    """Iterate over the dicts of a JSON Lines file.

    ValueError names the file and the line that cannot be read. Built in
    chapter 1.
    """
    def rows(file):
        with file:
            for number, line in enumerate(file, 1):
                try:
                    yield json.loads(line.decode("utf-8"))
                except ValueError as error:
                    raise ValueError(
                        f"{path}, line {number}: {error}"
                    ) from None

    return rows(open(path, "rb"))


# ch01_data/data.ipynb [workshop-rest-code]
def sha256_file(path) -> str:
    """The SHA-256 of a file's bytes, as 64 hex digits. Built in chapter 1."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators.

    Built in chapter 1.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def record_measures(chapter: str, measures: dict) -> None:
    """Add `measures` to artifacts/<preset>/measured/<chapter>.json.

    Keys are those of the report card ("data.extract_f1"); a key recorded
    before takes the new value. Built in chapter 1.
    """
    path = artifact("measured", f"{chapter}.json")
    known = read_json(path) if path.exists() else {}
    write_json(path, known | measures)


# ch01_data/data.ipynb [score-export]
def precision_recall(found, truth) -> tuple[float, float]:
    """Precision and recall of a set found against the true set.

    Both 1.0 where there was nothing to be wrong about. Built in chapter 1.
    """
    found, truth = set(found), set(truth)
    right = len(found & truth)
    precision = right / len(found) if found else 1.0
    return precision, right / len(truth) if truth else 1.0


def token_f1(found: str, truth: str) -> float:
    """F1 of the words of a text against the true text, order aside.

    Between 0 and 1; 1.0 for two empty texts. Built in chapter 1.
    """
    a, b = Counter(found.split()), Counter(truth.split())
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 1.0


# ch01_data/data.ipynb [export-decode]
def decode_bytes(data: bytes) -> str:
    """The characters of a page of unknown encoding. Never raises.

    A byte order mark is believed; then UTF-8, if there is at most one broken
    character to ten whole ones outside ASCII; then the charset the page
    declares, if it fits; then Windows-1252, which browsers take for all
    Western pages. Built in chapter 1.
    """
    for mark, codec in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(mark):
            return data[len(mark) :].decode(codec, "replace")
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    foreign = sum(map(len, re.findall(r"[^\x00-\x7f\ufffd]+", text)))
    if broken <= foreign / 10:
        return text
    found = re.search(rb"charset\s*=\s*[\"']?([\w.:-]{2,30})", data[:4096])
    declared = found[1].decode("ascii", "replace") if found else ""
    if declared.lower() not in ("", "iso-8859-1", "latin1", "utf-8", "utf8"):
        with contextlib.suppress(LookupError, ValueError):
            if b"<html>".decode(declared) == "<html>":
                return data.decode(declared)
    return "".join(map(chr, data)).translate(_WINDOWS_1252)


# Windows-1252 is Latin-1 with printing marks where Latin-1 has control codes;
# five bytes it leaves out stay what they are in Latin-1.
_WINDOWS_1252 = {
    byte: bytes([byte]).decode("cp1252")
    for byte in range(0x80, 0xA0)
    if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}


# ch01_data/data.ipynb [export-mojibake]
_BYTE_OF = {chr(b): b for b in range(0x80, 0x100)}
_BYTE_OF |= {c: b for b, c in _WINDOWS_1252.items()}
_LATER = "".join(c for c, byte in _BYTE_OF.items() if byte < 0xC0)
_TAIL = f"[{re.escape(_LATER)}]"
_MOJIBAKE = re.compile(
    f"[\u00c2-\u00c5]{_TAIL}"  # two bytes: é, ü, œ, £
    "|\u00c6\u2019|\u00cb[\u2020\u0153]"  # what a second reading makes: ƒ ˆ ˜
    "|\u00cc[\u20ac\x81\u201a\u0192\u201e\u02c6\u0160\u00a7]"  # loose accents
    f"|\u00e2{_TAIL}{_TAIL}"  # three bytes: dashes, curly quotes, €
    f"|\u00ef[\u00ac\u00bb]{_TAIL}"  # ligatures, a lost byte order mark
    f"|\u00e1[\u00b8\u00b9]{_TAIL}"  # a dot or bar below: Ḥ, ṣ, ḷ
    f"|\u00f0\u0178{_TAIL}{_TAIL}"  # four bytes: little pictures
    f"|[\u00ce\u00cf]{_TAIL}(?: ?[\u00ce\u00cf]{_TAIL})+"  # Greek, at least two
    f"|[\u00d0\u00d1]{_TAIL}(?: ?[\u00d0\u00d1]{_TAIL})+"  # Cyrillic, likewise
)


def _undo(match) -> str:
    seen = match[0]
    try:
        return bytes(_BYTE_OF.get(c, ord(" ")) for c in seen).decode("utf-8")
    except ValueError:
        return seen


def repair_mojibake(text: str) -> str:
    """Undo UTF-8 that was read as Windows-1252, once or more often.

    Only sequences that spell a European letter or a punctuation mark are
    touched, one by one, so that a text may be broken in part.
    Built in chapter 1.
    """
    while (repaired := _MOJIBAKE.sub(_undo, text)) != text:
        text = repaired
    return text


# ch01_data/data.ipynb [export-clean]
_INVISIBLE = re.compile(
    "[\u00ad\u200b\u200e\u200f\u2060\ufeff\ufff9-\ufffb"
    "\x00-\x08\x0e-\x1f\x7f-\x9f]"
)
_SAME = str.maketrans({
    "\u2018": "'", "\u2019": "'", "\u201b": "'", "\u02bc": "'",
    "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u201f": '"',
    "\u2026": "...", "\r": "\n", "\x0b": "\n", "\x0c": "\n",
    "\u2028": "\n", "\u2029": "\n\n",
})  # fmt: skip
_SPACES = re.compile(r"[^\S\n]")
_GAP = re.compile(r"(?<=\S)  +")
_LINE_END = re.compile(r" +$", re.M)
_BLANK = re.compile(r"\n{3,}")


def clean_text(text: str) -> str:
    """One spelling for what reads the same.

    Repairs mojibake, composes accents (NFC), takes out soft hyphens and other
    invisible characters, makes quotes straight and spaces single; keeps the
    indentation of lines and empty lines between paragraphs. Applying it twice
    changes nothing more. Built in chapter 1.
    """
    before = None
    while text != before:
        before = text
        text = repair_mojibake(text.replace("\r\n", "\n")).translate(_SAME)
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
        text = _GAP.sub(" ", _SPACES.sub(" ", text))
        text = _BLANK.sub("\n\n", _LINE_END.sub("", text)).strip("\n")
    return text


# ch01_data/data.ipynb [export-parse]
# A script that is none: a template, which a browser fills in and shows.
_TEMPLATE = re.compile(
    r"<script\b[^>]{0,200}?\btype\s*=\s*[\"']?text/(?:html|x-[a-z]+-template)"
    r"\b[^>]{0,200}>(.*?)</script\s*>",
    re.I | re.S,
)


def parse_html(html: str | bytes):
    """The tree of a page as lxml builds it, without comments; None if empty.

    Bytes are decoded by `decode_bytes`; a template inside a script is read as
    part of the page. Never raises. Built in chapter 1.
    """
    from lxml import etree

    if isinstance(html, bytes):
        html = decode_bytes(html)
    html = _TEMPLATE.sub(r"<div>\1</div>", html.replace("\0", ""))
    data = html.encode("utf-8", "replace")
    parser = etree.HTMLParser(
        encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True
    )
    try:
        return etree.fromstring(data, parser)
    except etree.LxmlError:
        return None


# ch01_data/data.ipynb [export-tags]
BLOCK_TAGS = frozenset(
    "address article aside blockquote body center dd details div dl dt "
    "fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup "
    "hr html legend li main nav ol p pre section summary table tbody tfoot "
    "thead tr ul".split()
)
SILENT_TAGS = tuple(
    "applet audio button canvas head iframe input noscript object option "
    "script select style svg template textarea title video".split()
)


# ch01_data/data.ipynb [export-furniture]
_FURNITURE_TAGS = frozenset(("nav", "footer", "aside", "menu", "small"))
_FURNITURE_NAMES = re.compile(
    r"(?<![a-z])(?:ads?|advert|advertisement|also|author|banner|breadcrumbs?"
    r"|buttons?|byline|comments?|consent|cookies?|footer|header|login|logo"
    r"|masthead|menu|modal|nav|navbar|navigation|overlay|pager|pagination"
    r"|popup|price|promo|related|share|sharing|sidebar|signature|skip|social"
    r"|sponsor|subscribe|toc|toolbar)(?![a-z])"
)


_AGO = re.compile(r"\b\d+ (?:minute|hour|day|week|month|year)s? ago\b")


def _is_teaser(node) -> bool:
    """Whether an element is headed by a link: it tells of another page."""
    for child in node:
        if child.tag in ("h2", "h3", "h4", "h5", "h6"):
            link = child.find("a[@href]")
            return link is not None and (
                not link.get("href").startswith("#")
                and len("".join(link.itertext()).split()) > 1
                and len("".join(node.itertext()).split()) < 60
            )
    return False


def _is_reply(node) -> bool:
    """Whether an element's own words say how long ago, and hardly more."""
    own = [node.text or "", *(child.tail or "" for child in node)]
    said = any(_AGO.search(piece) for piece in own)
    return said and len(" ".join(own).split()) <= 6


def is_furniture(node, page_length: int) -> bool:
    """Whether the markup of an element says that it is not the text.

    `page_length` is the page's length in characters: a name such as "header"
    is not believed on an element that holds more than half of the page.
    Built in chapter 1.
    """
    style = (node.get("style") or "").replace(" ", "").lower()
    if "display:none" in style or node.get("hidden") is not None:
        return True
    names = " ".join(filter(None, map(node.get, ("class", "id", "role"))))
    named = bool(names) and _FURNITURE_NAMES.search(names.lower())
    small = node.tag == "font" and node.get("size") in ("1", "-1", "-2")
    banner = node.tag == "header" and not any(
        a.tag in ("article", "main", "section") for a in node.iterancestors()
    )
    panel = node.tag in ("div", "p") and node.find("button") is not None
    boxed = node.tag in ("div", "li", "article", "section")
    other = boxed and (_is_teaser(node) or _is_reply(node))
    marks = (named, small, banner, panel, other)
    if node.tag in _FURNITURE_TAGS or any(marks):
        return len("".join(node.itertext())) <= page_length / 2
    return False


# ch01_data/data.ipynb [export-block]
@dataclass(frozen=True)
class PageBlock:
    """A stretch of a page that is seen as one piece. Built in chapter 1.

    `words` of its text, `linked` of them inside links; `tag` and `parent` of
    the element that holds it; `furniture` if the markup says it is a menu, a
    banner, small print.
    """

    text: str
    words: int
    linked: int
    tag: str
    parent: object
    furniture: bool


# ch01_data/data.ipynb [export-writer]
class _BlockWriter:
    """Gathers pieces of text and closes them into blocks."""

    def __init__(self, root):
        self.blocks, self.pieces = [], []
        self.owners, self.links, self.furniture = [root], 0, 0

    def take(self, text, verbatim=False):
        if text and verbatim:
            # In <pre> spaces and line ends are meant: under these names
            # they pass `close`, which makes one space of all others.
            text = text.replace(" ", "\xa0").replace("\n", "\v")
        if text:
            self.pieces.append((text, self.links > 0))

    def close(self):
        text = "".join(piece for piece, _ in self.pieces)
        text = re.sub(r" ?\v ?", "\n", re.sub(r"[ \t\r\n\f]+", " ", text))
        text = re.sub(r"\n{3,}", "\n\n", text).strip(" \n")
        if text:
            words = len(text.split())
            linked = sum(len(p.split()) for p, link in self.pieces if link)
            owner = self.owners[-1]
            parent = owner.getparent()
            self.blocks.append(PageBlock(
                text, words, linked, owner.tag, parent, self.furniture > 0
            ))  # fmt: skip
        self.pieces.clear()


# ch01_data/data.ipynb [export-walk]
def page_blocks(html: str | bytes) -> list[PageBlock]:
    """Cut a page into `PageBlock`s, in reading order. Built in chapter 1."""
    from lxml import etree

    root = parse_html(html)
    if root is None:
        return []
    length = len("".join(root.itertext()))
    furniture = {n for n in root.iter() if is_furniture(n, length)}
    etree.strip_elements(root, *SILENT_TAGS, with_tail=False)
    cuts, writer = set(), _BlockWriter(root)
    for event, node in etree.iterwalk(root, events=("start", "end")):
        if event == "start":
            is_cell = node.tag in ("td", "th")
            # A cell that holds no block is part of its row's line.
            inline_cell = is_cell and next(
                node.iterdescendants(*BLOCK_TAGS), None) is None
            if node in furniture or node.tag in BLOCK_TAGS or (
                is_cell and not inline_cell
            ):
                writer.close()
                cuts.add(node)
                writer.owners.append(node)
            writer.furniture += node in furniture
            writer.links += node.tag == "a"
            if node.tag == "br":
                writer.take("\v")  # a line end that is meant
            elif inline_cell:
                writer.take(" ")
            writer.take(node.text, verbatim=node.tag == "pre")
        else:
            if node in cuts:
                writer.close()
                writer.owners.pop()
            writer.furniture -= node in furniture
            writer.links -= node.tag == "a"
            if node is not root:
                writer.take(node.tail)
    return writer.blocks


# ch01_data/data.ipynb [export-score]
def block_score(block: PageBlock) -> float:
    """How much a block speaks for lying in the main text; may be negative.

    Words count for it, words in links twice against it, and a scrap of fewer
    than five words outside a paragraph, an item, a quotation or <pre> a little
    against it (a short heading, too). Built in chapter 1.
    """
    if block.furniture:
        return -3.0
    score = block.words - 2.0 * block.linked
    prose = block.tag in ("p", "li", "pre", "blockquote", "dd")
    if not prose and block.words < 5:
        score = min(score, -2.0)
    return max(score, -15.0)


def main_run(blocks: list[PageBlock]) -> tuple[int, int]:
    """Start and end of the run of blocks whose scores add up to the most.

    Kadane's algorithm: one pass. (0, 0) if no score is above zero.
    Built in chapter 1.
    """
    best, found, total, start = 0.0, (0, 0), 0.0, 0
    for i, block in enumerate(blocks):
        if total <= 0:
            total, start = 0.0, i
        total += block_score(block)
        if total > best:
            best, found = total, (start, i + 1)
    return found


# ch01_data/data.ipynb [export-extract]
def extract_text(html: str | bytes) -> str:
    """The main text of a page, cleaned: no menus, adverts, scripts, footers.

    Finds the best run of blocks (after Finn et al., 2001), takes in what
    stands beside it in the same element, and leaves out furniture and lists
    of links. Paragraphs are parted by an empty line. Never raises; a page
    without text gives "". Built in chapter 1.
    """
    blocks = page_blocks(html)
    start, end = main_run(blocks)
    if start == end:
        start, end = 0, len(blocks)
    homes = [b.parent for b in blocks[start:end]]
    while start > 0 and blocks[start - 1].parent in homes:
        start -= 1
    while end < len(blocks) and blocks[end].parent in homes:
        end += 1
    pieces: list[str] = []
    last = ""
    for block in blocks[start:end]:
        if block.furniture or 2 * block.linked > block.words:
            continue
        item = block.tag == "li"
        pieces += ["\n" if item and last == "li" else "\n\n"] * bool(pieces)
        pieces.append("- " * item + block.text)
        last = block.tag
    return clean_text("".join(pieces))


# ch01_data/data.ipynb [export-shared]
def drop_shared_paragraphs(texts, sites, most: int = 4) -> list[str]:
    """Take out the paragraphs that many pages of one site have in common.

    texts and sites: one each per page. A paragraph goes if it stands on more
    than `most` pages of its site; a text that would lose everything stays as
    it is. After the paragraph deduplication of Wenzek et al. (2020).
    Built in chapter 1.
    """
    split = [text.split("\n\n") for text in texts]
    pages_with = Counter(
        (site, paragraph)
        for site, paragraphs in zip(sites, split)
        for paragraph in set(paragraphs)
    )
    out = []
    for text, site, paragraphs in zip(texts, sites, split):
        kept = [p for p in paragraphs if pages_with[site, p] <= most]
        out.append("\n\n".join(kept) or text)
    return out


# ch01_data/data.ipynb [export-signals]
STOP_WORDS = frozenset(
    "the a an and or but of to in on at for with from by is are was were be "
    "has had have it its he she his her they their that this not as".split()
)


def quality_signals(text: str) -> dict[str, float]:
    """What can be counted about a text without knowing what it says.

    "words", "mean_word_length" (characters); the rest are shares of words, or
    of lines, or of characters, between 0 and 1. After the rules of Rae et al.
    (2021), section A1.1. Built in chapter 1.
    """
    words = re.findall(r"[^\W\d_]+|\d+", text.lower())
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    n, n_lines = max(len(words), 1), max(len(lines), 1)
    counts = Counter(words)
    top = max((c for w, c in counts.items() if w not in STOP_WORDS), default=0)
    marks = sum(not (c.isalnum() or c.isspace()) for c in text)
    return {
        "words": float(len(words)),
        "mean_word_length": sum(map(len, words)) / n,
        "stop_words": sum(counts[w] for w in STOP_WORDS) / n,
        "different_words": len(counts) / n,
        "commonest_word": top / n,
        "numbers": sum(w.isdigit() for w in words) / n,
        "symbols": marks / max(len(text), 1),
        "repeated_lines": 1 - len(set(lines)) / n_lines,
        "ended_lines": sum(x[-1] in ".!?:;\"')" for x in lines) / n_lines,
    }


# ch01_data/data.ipynb [export-split-words]
def split_words(text: str) -> list[str]:
    """Words, and runs of other marks, in order. Built in chapter 1."""
    return re.findall(r"\w+(?:['\u2019]\w+)*|[^\w\s]+", text)


def split_sentences(text: str) -> list[str]:
    """The pieces that end in one of . ? ! and a space. Built in chapter 1."""
    parts = re.split(r"(?<=[.!?])\s+|(?<=[.!?][\"')])\s+", text)
    return [part for part in parts if part.strip()]


# ch01_data/data.ipynb [export-c4-lines]
_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_POLICY = re.compile(
    r"terms of use|privacy policy|cookie policy|uses? cookies|use of cookies"
)


def c4_lines(text: str, min_words: int = 3) -> list[tuple[str, str]]:
    """Each line of a text with the rule of C4 by which it goes; "" if none.

    A line needs `min_words` words: 3 in the first preprint and in datatrove,
    5 in the published paper and in C4's own program. A brace condemns the
    page only on a line that would have stayed, as in both programs; that a
    line may end in ' is datatrove's. Source: Raffel et al. (2020), section
    2.2. Built in chapter 1.
    """
    out = []
    for line in text.splitlines():
        words = line.split()
        line = _CITATION.sub("", line.strip())
        low = line.lower()
        checks = {
            "long_word": any(len(word) > 1000 for word in words),
            "no_end_mark": not line.endswith((".", "?", "!", '"', "'")),
            "ellipsis": line.endswith("..."),
            "few_words": len(words) < min_words,
            "lorem_ipsum": "lorem ipsum" in low,
            "javascript": "javascript" in low,
            "curly_bracket": "{" in line,
            "policy": bool(_POLICY.search(low)),
        }
        broken = [rule for rule, holds in checks.items() if holds]
        out.append((line, broken[0] if broken else ""))
    return out


# ch01_data/data.ipynb [export-c4]
def c4_rules(
    text: str, min_sentences: int = 5, min_words: int = 3
) -> list[str]:
    """The rules of C4 for which a whole page would go; [] if it stays.

    "lorem_ipsum", "curly_bracket"; "few_sentences" if the lines that stay
    (those of `min_words` words, see `c4_lines`) hold fewer than
    `min_sentences`. The defaults are those of the first preprint and of
    datatrove; the published paper and C4's own program ask for 3 sentences
    and 5 words. C4's list of bad words is left out. Source: Raffel et al.
    (2020), section 2.2. Built in chapter 1.
    """
    lines = c4_lines(text, min_words)
    rules = {rule for _, rule in lines}
    kept = sum(len(split_sentences(line)) for line, rule in lines if not rule)
    broken = [r for r in ("lorem_ipsum", "curly_bracket") if r in rules]
    return broken + ["few_sentences"] * (kept < min_sentences)


# ch01_data/data.ipynb [export-gopher]
GOPHER_WORDS = frozenset("the be to of and that have with".split())


def gopher_rules(
    text: str, words=(50, 100_000), length=(3, 10), symbols=0.1, bullets=0.9,
    ellipses=0.3, letters=0.8, stop_words=2, split=split_words,
) -> list[str]:
    """Gopher's rules of quality that a text breaks; [] if it stays.

    Bounds on the number of words and their mean `length` (characters); at
    most so many hashes and so many ellipses a word (`symbols`), so large a
    share of lines that begin with a bullet or end in an ellipsis; at least a
    share of words with `letters` and so many different stop words. `split`
    cuts a text into words. Source: Rae et al. (2021), section A1.1.
    Built in chapter 1.
    """
    found = split(text)
    real = [w for w in found if any(map(str.isalnum, w))]
    lines = [line.strip() for line in text.splitlines()]
    n, n_lines = max(len(found), 1), max(len(lines), 1)
    mean = sum(map(len, real)) / max(len(real), 1)
    marked = sum(line.startswith(("-", "\u2022")) for line in lines)
    open_ = sum(line.endswith(("...", "\u2026")) for line in lines)
    spelled = sum(any(map(str.isalpha, w)) for w in found)
    checks = {
        "few_words": len(real) < words[0],
        "many_words": len(real) > words[1],
        "short_words": mean < length[0],
        "long_words": mean > length[1],
        "hashes": text.count("#") / n > symbols,
        "ellipses": text.count("...") + text.count("\u2026") > symbols * n,
        "bullets": marked / n_lines > bullets,
        "open_lines": open_ / n_lines > ellipses,
        "letters": spelled / n < letters,
        "stop_words": len(GOPHER_WORDS & set(found)) < stop_words,
    }
    return [rule for rule, broken in checks.items() if broken]


# ch01_data/data.ipynb [export-repetition]
GOPHER_TOP = {2: 0.20, 3: 0.18, 4: 0.16}  # share of a text's characters
GOPHER_AGAIN = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def repeated(pieces) -> tuple[int, int]:
    """Pieces that came before, and their characters. Built in chapter 1."""
    seen, again = set(), []
    for piece in pieces:
        again += [piece] if piece in seen else []
        seen.add(piece)
    return len(again), sum(map(len, again))


def _commonest_run(words, n):
    """Characters that the commonest run of n words takes up in all."""
    runs = Counter(zip(*(words[k:] for k in range(n)))).most_common(1)
    return sum((sum(map(len, run)) + n - 1) * count for run, count in runs)


def _runs_again(words, n):
    """Characters in runs of n words that came before, no word twice."""
    seen, characters, i = set(), 0, 0
    while i <= len(words) - n:
        run = tuple(words[i : i + n])
        again = run in seen
        characters += sum(map(len, run)) if again else 0
        seen.add(run)
        i += n if again else 1
    return characters


# ch01_data/data.ipynb [export-gopher-repetition]
def gopher_repetition_rules(
    text: str, pieces=0.30, characters=0.20, top=GOPHER_TOP, again=GOPHER_AGAIN
) -> list[str]:
    """Gopher's rules of repetition that a text breaks; [] if it stays.

    At most a share of `pieces` of its lines and of its paragraphs, and of
    `characters` in them, that came before; `top` and `again`: shares of
    characters for runs of n words. Source: Rae et al. (2021), table A1.
    Built in chapter 1.
    """
    if not text.strip():
        return ["empty"]
    cut = {"paragraphs": re.split(r"\n{2,}", text.strip()),
           "lines": re.split(r"\n+", text)}
    broken = []
    for name, parts in cut.items():
        number, length = repeated(parts)
        if number > pieces * len(parts):
            broken.append(f"repeated_{name}")
        if length > characters * len(text):
            broken.append(f"repeated_{name}_characters")
    words = split_words(text)
    broken += [f"top_{n}_words" for n, share in top.items()
               if _commonest_run(words, n) > share * len(text)]
    return broken + [f"again_{n}_words" for n, share in again.items()
                     if _runs_again(words, n) > share * len(text)]


# ch01_data/data.ipynb [export-fineweb]
def fineweb_rules(
    text: str, ended=0.12, short_lines=0.67, short=30, repeats=0.1,
    newlines=0.3,
) -> list[str]:
    """FineWeb's own rules that a text breaks; [] if it stays.

    Too few lines that end a sentence (share `ended`), too many of at most
    `short` characters (`short_lines`), too many characters in lines that came
    before (`repeats`), too many line ends a word (`newlines`). Source: Penedo
    et al. (2024), section 3.5; `newlines` stands in their program alone.
    Built in chapter 1.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return ["empty"]
    n = len(lines)
    letters = len(text.replace("\n", ""))
    ends = sum(line.endswith((".", "?", "!")) for line in lines)
    few = sum(len(line) <= short for line in lines)
    checks = {
        "ended_lines": ends / n < ended,
        "short_lines": few / n > short_lines,
        "repeated_lines": repeated(lines)[1] / letters > repeats,
        "line_ends": text.count("\n") / len(split_words(text)) > newlines,
    }
    return [rule for rule, broken in checks.items() if broken]


# ch01_data/data.ipynb [export-features]
def hashed_ngrams(text: str, n_buckets: int = 2**15) -> list[int]:
    """Bucket numbers of a text's n words, then of its n - 1 pairs of words.

    CRC-32 modulo `n_buckets`: the same on every machine, unlike `hash`.
    Built in chapter 1.
    """
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    pairs = (f"{a} {b}" for a, b in zip(words, words[1:]))
    return [
        zlib.crc32(gram.encode("utf-8", "replace")) % n_buckets
        for gram in (*words, *pairs)
    ]


# ch01_data/data.ipynb [export-classifier]
class QualityClassifier:
    """After fastText's: mean vector of hashed n-grams, one linear layer.

    Words are hashed like pairs, where fastText has a dictionary of the words
    it was taught. Source: Joulin et al. (2017). `fit(texts, labels)` takes
    labels of any kind that sorts; `classes_` lists them. `eps` is Adam's: a
    larger one moves little what has small gradients. Built in chapter 1.
    """

    def __init__(self, n_buckets=2**15, dim=16, epochs=8, seed=0, eps=1e-8):
        self.n_buckets, self.dim = n_buckets, dim
        self.epochs, self.seed, self.eps = epochs, seed, eps

    def _bags(self, texts):
        """Bucket numbers of all texts in a row, and where each text begins."""
        bags = [hashed_ngrams(t, self.n_buckets) or [0] for t in texts]
        starts = np.cumsum([0] + [len(bag) for bag in bags[:-1]])
        flat = [bucket for bag in bags for bucket in bag]
        return torch.tensor(flat), torch.from_numpy(starts)

    def fit(self, texts, labels):
        """Learn from texts and their labels; returns itself.

        ValueError if they differ in number or there are fewer than two kinds
        of label.
        """
        texts, labels = list(texts), list(labels)
        if len(texts) != len(labels):
            raise ValueError(f"{len(texts)} texts, {len(labels)} labels")
        self.classes_ = sorted(set(labels))
        if len(self.classes_) < 2:
            raise ValueError("fit needs texts of at least two labels")
        gen = torch.Generator().manual_seed(self.seed)
        k = len(self.classes_)
        self.embedding = torch.empty(self.n_buckets, self.dim)
        self.embedding.uniform_(-1, 1, generator=gen).div_(self.dim)
        self.weight, self.bias = torch.zeros(k, self.dim), torch.zeros(k)
        parts = [self.embedding, self.weight, self.bias]
        for part in parts:
            part.requires_grad_()
        optimizer = torch.optim.Adam(parts, lr=0.05, eps=self.eps)
        y = torch.tensor([self.classes_.index(label) for label in labels])
        bags = [self._bags([text])[0] for text in texts]
        self.known = torch.zeros(self.n_buckets, dtype=torch.bool)
        for bag in bags:
            self.known[bag[: (len(bag) + 1) // 2]] = True
        for _ in range(self.epochs):
            order = torch.randperm(len(texts), generator=gen)
            for batch in order.split(64):
                chosen = [bags[i] for i in batch]
                sizes = torch.tensor([0] + [len(b) for b in chosen[:-1]])
                logits = self._logits(torch.cat(chosen), sizes.cumsum(0))
                loss = torch.nn.functional.cross_entropy(logits, y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        for part in parts:
            part.requires_grad_(False)
        return self

    def _logits(self, flat, starts):
        mean = torch.nn.functional.embedding_bag(
            flat, self.embedding, starts, mode="mean"
        )  # (B, dim)
        return mean @ self.weight.T + self.bias  # (B, classes)

    def predict_proba(self, texts):
        """Probabilities (len(texts), classes), float64, rows adding to 1."""
        texts = list(texts)
        if not texts:
            return np.zeros((0, len(self.classes_)))
        logits = self._logits(*self._bags(texts))
        return logits.double().softmax(-1).numpy()

    def known_share(self, texts):
        """Share of each text's words that `fit` has seen, (len(texts),).

        By bucket, so a stranger counts as known now and then. Where it is
        low, `predict_proba` has little to go by.
        """
        bags = [self._bags([text])[0] for text in texts]
        words = [self.known[bag[: (len(bag) + 1) // 2]] for bag in bags]
        return np.array([float(w.float().mean()) for w in words])


# ch01_data/data.ipynb [export-letter-ngrams]
def letter_ngrams(text: str, longest: int = 3, most: int = 3000) -> Counter:
    """How often each run of up to `longest` letters stands in a text.

    In lower case, of its first `most` characters; the edge of a word is a
    blank, figures and marks do not count, and no run reaches from one word
    into the next. Built in chapter 1.
    """
    out = Counter()
    words = Counter(re.findall(r"[^\W\d_]+", text[:most].lower()))
    for word, count in words.items():
        row = f" {word} "
        for n in range(1, longest + 1):
            for i in range(len(row) - n + 1):
                out[row[i : i + n]] += count
    return out


# ch01_data/data.ipynb [export-language]
class LanguageIdentifier:
    """Tells languages apart by their commonest runs of letters.

    It knows the languages it was taught, `languages_`, and no other; a text
    farther from all of them than any that it was taught is none of these.
    Source: Cavnar and Trenkle (1994). Built in chapter 1.
    """

    def __init__(self, size: int = 300, longest: int = 3):
        self.size, self.longest = size, longest

    def fit(self, texts, languages):
        """Learn from texts and their languages; returns itself.

        ValueError if they differ in number or there is no text.
        """
        texts, languages = list(texts), list(languages)
        if len(texts) != len(languages) or not texts:
            raise ValueError(f"{len(texts)} texts, {len(languages)} languages")
        counts = {name: Counter() for name in sorted(set(languages))}
        for text, name in zip(texts, languages):
            counts[name].update(letter_ngrams(text, self.longest))
        self.languages_ = list(counts)
        self.ranks = [self._ranks(counts[name]) for name in self.languages_]
        own = [self.languages_.index(name) for name in languages]
        rows = self.distances(texts)[np.arange(len(texts)), own]
        self.limit = float(rows[rows < 1].max(initial=0.0))
        return self

    def _ranks(self, counts):
        order = sorted(counts, key=lambda run: (-counts[run], run))
        return {run: rank for rank, run in enumerate(order[: self.size])}

    def distances(self, texts) -> np.ndarray:
        """How far the runs are out of place, (len(texts), languages).

        From 0, the same order, to 1, nothing in common or no letters at all.
        """
        out = np.ones((len(texts := list(texts)), len(self.ranks)))
        for row, text in zip(out, texts):
            own = self._ranks(letter_ngrams(text, self.longest))
            for k, ranks in enumerate(self.ranks if own else ()):
                off = (abs(rank - ranks.get(run, 2 * self.size))
                       for run, rank in own.items())
                row[k] = sum(min(x, self.size) for x in off)
                row[k] /= self.size * len(own)
        return out

    def predict(self, texts) -> list[str | None]:
        """The nearest language of each text; None for none of these."""
        rows = self.distances(texts)
        return [self.languages_[row.argmin()]
                if row.min() <= self.limit else None for row in rows]


# ch01_data/data.ipynb [export-shingles]
_BASE = 0x9E3779B97F4A7C15  # odd; its bits look like chance


def _mix(x: np.ndarray) -> np.ndarray:
    """Scramble 64-bit integers so that all bits depend on all (SplitMix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@functools.cache
def _letter_numbers() -> np.ndarray:
    r"""A number for each code point that \w matches, 0 for all others."""
    every = "".join(map(chr, range(0x110000)))
    at = np.array([m.start() for m in re.finditer(r"\w", every)], np.uint64)
    numbers = np.zeros(len(every), np.uint64)
    numbers[at] = _mix(at + np.uint64(1))
    return numbers


# ch01_data/data.ipynb [export-words]
def word_hashes(texts) -> tuple[np.ndarray, np.ndarray]:
    r"""A 64-bit hash for every word (\w+, in lower case) of some texts.

    Returns (hashes (N,) uint64, starts (len(texts) + 1,) int64): the words of
    text i are hashes[starts[i] : starts[i + 1]]. The same word has the same
    hash everywhere. Built in chapter 1.
    """
    lower = [text.lower() for text in texts]
    ends = np.cumsum([len(text) + 1 for text in lower], dtype=np.int64)
    data = "\n".join(["", *lower, ""]).encode("utf-32-le", "surrogatepass")
    letters = _letter_numbers()[np.frombuffer(data, "<u4")]
    inside = letters != 0
    first = np.flatnonzero(inside[1:] > inside[:-1]) + 1
    starts = np.concatenate([[0], np.searchsorted(first, ends)])
    if not len(first):
        return np.zeros(0, np.uint64), starts
    power = np.cumprod(np.full(len(letters), _BASE, np.uint64))
    divide = np.full(len(letters), pow(_BASE, -1, 2**64), np.uint64)
    sums = np.add.reduceat(letters * power, first)
    return _mix(sums * np.cumprod(divide)[first]), starts


# ch01_data/data.ipynb [export-shingle-hashes]
def shingle_hashes(texts, ngram: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """The hashed word n-grams of all texts in a row, and where each begins.

    Returns (hashes (N,) uint64, starts (len(texts) + 1,) int64). A text with
    fewer than `ngram` words is one shingle, of all its words; one without
    words, none. Built in chapter 1.
    """
    words, begins = word_hashes(texts)
    lengths = np.diff(begins)
    filled = np.where(lengths == 0, 0, np.maximum(lengths, ngram))
    ends = np.cumsum(filled, dtype=np.int64)
    flat = np.zeros(filled.sum(), np.uint64)
    shift = ends - filled - begins[:-1]
    flat[np.arange(len(words)) + np.repeat(shift, lengths)] = words
    n = max(len(flat) - ngram + 1, 0)
    hashes = np.zeros(n, np.uint64)
    for k in range(ngram):
        hashes = hashes * np.uint64(_BASE) + flat[k : k + n]
    whole = np.arange(n) + ngram <= np.repeat(ends, filled)[:n]
    counts = np.maximum(filled - ngram + 1, 0)
    return _mix(hashes[whole]), np.concatenate([[0], np.cumsum(counts)])


# ch01_data/data.ipynb [export-jaccard]
def jaccard_similarity(a: str, b: str, ngram: int = 5) -> float:
    """Shared word n-grams of two texts as a share of all they have.

    1.0 for two texts without words. Built in chapter 1.
    """
    hashes, starts = shingle_hashes([a, b], ngram)
    x, y = (set(hashes[s:e].tolist()) for s, e in zip(starts, starts[1:]))
    return len(x & y) / len(x | y) if x | y else 1.0


# ch01_data/data.ipynb [export-minhash]
def in_batches(items, limit: int, size=len):
    """Lists of items, each closed when its sizes add up to `limit`.

    Built in chapter 1.
    """
    batch, total = [], 0
    for item in items:
        batch.append(item)
        total += size(item)
        if total >= limit:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _shingled(texts, ngram: int, n_letters: int = 2**18):
    """`shingle_hashes` of as many texts at a time as fit in a cache."""
    for batch in in_batches(texts, n_letters):
        yield shingle_hashes(batch, ngram)


def _smallest(hashes, starts, num_perm: int, seed: int) -> np.ndarray:
    """Of each text, the smallest of its hashes in num_perm random orders."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2**32, (2, num_perm), dtype=np.uint32)
    short = (hashes >> np.uint64(32)).astype(np.uint32)
    out = np.full((len(starts) - 1, num_perm), 2**32 - 1, np.uint32)
    full = np.flatnonzero(np.diff(starts))  # the texts that have words
    if len(full):
        for j in range(num_perm):
            places = short * (a[j] | np.uint32(1)) + b[j]
            out[full, j] = np.minimum.reduceat(places, starts[full])
    return out


# ch01_data/data.ipynb [export-signatures]
def minhash_signatures(
    texts, num_perm: int = 128, ngram: int = 5, seed: int = 0
) -> np.ndarray:
    """MinHash signatures of texts over their word n-grams.

    Returns (len(texts), num_perm) uint32. The share of equal places in two
    rows estimates the Jaccard similarity of the two texts' shingles, with
    standard deviation sqrt(s (1 - s) / num_perm). A text without words gets
    the largest number everywhere. Source: Broder (1997). Built in chapter 1.
    """
    blocks = [
        _smallest(*block, num_perm, seed) for block in _shingled(texts, ngram)
    ]
    return np.concatenate([np.zeros((0, num_perm), np.uint32), *blocks])


# ch01_data/data.ipynb [export-scurve]
def candidate_probability(similarity, bands: int, rows: int):
    """Chance that two texts agree in all rows of at least one band.

    1 - (1 - s^rows)^bands: Leskovec et al. (2020), section 3.4.
    Built in chapter 1.
    """
    return 1 - (1 - np.asarray(similarity) ** rows) ** bands


def choose_bands(threshold: float, num_perm: int = 128) -> tuple[int, int]:
    """(bands, rows): the longest bands that miss at most 1 in 200 at threshold.

    Built in chapter 1.
    """
    for rows in range(num_perm, 1, -1):
        bands = num_perm // rows
        if candidate_probability(threshold, bands, rows) >= 0.995:
            return bands, rows
    return num_perm, 1


# ch01_data/data.ipynb [export-candidates]
def _band_keys(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """One number for each band of each signature: (N, bands) uint64."""
    keys = np.zeros((len(signatures), bands), np.uint64)
    for row in range(rows):
        keys = _mix(keys + signatures[:, row : bands * rows : rows])
    return keys


def candidate_pairs(
    signatures: np.ndarray, bands: int, rows: int, limit: int = 20_000_000
) -> np.ndarray:
    """Pairs (i, j), i < j, whose signatures agree in all of some band.

    Returns (P, 2) int64, sorted, without repeats. ValueError where the bands
    hold more than `limit` pairs, as 7,000 copies of one text would do.
    Built in chapter 1.
    """
    n, found, count = len(signatures), [np.zeros(0, np.int64)], 0
    for keys in _band_keys(signatures, bands, rows).T:
        order = np.argsort(keys, kind="stable")
        keys, at, step = keys[order], np.arange(n), 1
        while len(at := at[: np.searchsorted(at, n - step)]):
            at = at[keys[at] == keys[at + step]]
            found.append(order[at] * n + order[at + step])
            count, step = count + len(at), step + 1
            if count > limit:
                raise ValueError(
                    f"more than {limit:,} candidate pairs: some texts have "
                    "thousands of copies; deduplicate lists no pairs"
                )
    return np.stack(np.divmod(np.unique(np.concatenate(found)), max(n, 1)), 1)


# ch01_data/data.ipynb [export-duplicates]
def _distinct(hashes: np.ndarray) -> np.ndarray:
    """The set of some hashes, as a sorted array."""
    hashes = np.sort(hashes)
    return hashes[np.diff(hashes, prepend=~hashes[:1]) != 0]


def _jaccard(x: np.ndarray, y: np.ndarray) -> float:
    """Similarity of two sets, as sorted arrays; 0.0 for two empty ones."""
    both = np.sort(np.concatenate([x, y]))
    shared = int((both[1:] == both[:-1]).sum())
    return shared / max(len(both) - shared, 1)


def _bands(threshold: float, num_perm: int, bands: int | None = None):
    """(bands, rows), chosen or as asked; ValueError on a bad threshold."""
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}")
    if bands is None:
        return choose_bands(threshold, num_perm)
    return bands, num_perm // bands


# ch01_data/data.ipynb [export-near]
def near_duplicates(
    texts,
    threshold: float = 0.8,
    num_perm: int = 128,
    ngram: int = 5,
    seed: int = 0,
    bands: int | None = None,
) -> list[tuple[int, int]]:
    """All pairs (i, j), i < j, of texts at least `threshold` similar.

    Candidates come from MinHash bands, and each is checked with its exact
    Jaccard similarity over word n-grams: what is returned is right, and a
    pair at the threshold is missed with probability below 0.005. Pairs of
    texts without words are left out. ValueError unless 0 < threshold <= 1,
    or where there are too many pairs to list. Built in chapter 1.
    """
    bands, rows = _bands(threshold, num_perm, bands)
    shingles, signatures = [], [np.zeros((0, num_perm), np.uint32)]
    for hashes, starts in _shingled(texts, ngram):
        shingles += np.split(hashes, starts[1:-1])
        signatures.append(_smallest(hashes, starts, num_perm, seed))
    pairs = candidate_pairs(np.concatenate(signatures), bands, rows)
    sets = {i: _distinct(shingles[i]) for i in np.unique(pairs).tolist()}
    return [(i, j) for i, j in pairs.tolist()
            if _jaccard(sets[i], sets[j]) >= threshold]


# ch01_data/data.ipynb [export-dedup]
def _buckets(keys: np.ndarray) -> np.ndarray:
    """Number the buckets of (N, bands) keys, each band's own; -1: alone."""
    out = np.empty(keys.shape, np.int64)
    for band, column in enumerate(keys.T):
        order = np.argsort(column, kind="stable")
        new = np.diff(column[order], prepend=np.uint64(0)) != 0
        new[:1] = True
        alone = new & np.append(new[1:], True)
        number = np.cumsum(new) + band * len(keys)
        out[order, band] = np.where(alone, -1, number)
    return out


def _first_pass(texts, bands, rows, num_perm, ngram, seed):
    """Numbers of the texts that repeat none before, and their band keys."""
    seen, different, at = set(), [], 0
    keys = [np.zeros((0, bands), np.uint64)]
    for hashes, starts in _shingled(texts, ngram):
        new = []
        for i, (start, end) in enumerate(itertools.pairwise(starts.tolist())):
            text = hashlib.blake2b(hashes[start:end], digest_size=16).digest()
            if text not in seen:
                seen.add(text)
                new.append(i)
        signatures = _smallest(hashes, starts, num_perm, seed)
        keys.append(_band_keys(signatures[new], bands, rows))
        different += [at + i for i in new]
        at += len(starts) - 1
    return np.array(different, np.int64), np.concatenate(keys)


# ch01_data/data.ipynb [export-deduplicate]
def deduplicate(
    texts, threshold: float = 0.8, num_perm: int = 128, ngram: int = 5,
    seed: int = 0,
) -> list[int]:  # fmt: skip
    """Indices of the texts to keep, in order.

    A text goes if one that is kept before it is at least `threshold` similar;
    so the first of a family always stays, and nothing goes because it is like
    something that went. `texts` is any sequence, and may lie on disk: of each
    text a few hundred bytes are held, and of those with a bucket in common
    the shingles. ValueError unless 0 < threshold <= 1. Built in chapter 1.
    """
    bands, rows = _bands(threshold, num_perm)
    if not hasattr(texts, "__getitem__"):
        texts = list(texts)
    different, keys = _first_pass(texts, bands, rows, num_perm, ngram, seed)
    buckets = _buckets(keys)
    together = np.flatnonzero((buckets >= 0).any(1))
    read = (texts[i] for i in different[together].tolist())
    shingles = itertools.chain.from_iterable(
        np.split(hashes, starts[1:-1])
        for hashes, starts in _shingled(read, ngram)
    )
    kept, sets, gone = defaultdict(list), {}, []
    for i, hashes in zip(together.tolist(), shingles):
        own, mine = _distinct(hashes), set(buckets[i].tolist()) - {-1}
        rivals = {j for bucket in mine for j in kept[bucket]}
        if any(_jaccard(own, sets[j]) >= threshold for j in rivals):
            gone.append(i)
            continue
        sets[i] = own
        for bucket in mine:
            kept[bucket].append(i)
    return np.delete(different, gone).tolist()


# ch01_data/data.ipynb [export-datatrove-config]
def _datatrove_config(threshold: float, num_perm: int, ngram: int):
    """Our words, bands and rows, for datatrove's MinHash."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.text import TextNormConfig
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):
        def word_tokenize(self, text):
            return re.findall(r"\w+", text)

        def sent_tokenize(self, text):
            return [text]

        def span_tokenize(self, text):
            return [(0, len(text))]

    bands, rows = _bands(threshold, num_perm)
    as_it_is = TextNormConfig(
        remove_punctuation=False,
        norm_unicode_diacritics=False,
        norm_numbers=False,
    )
    return Words(), MinhashConfig(
        n_grams=ngram,
        num_buckets=bands,  # datatrove calls a band a bucket
        hashes_per_bucket=rows,
        norm_config=as_it_is,
        hash_config=HashConfig(hash_fc="sha1"),
    )


# ch01_data/data.ipynb [export-datatrove]
def datatrove_deduplicate(
    source, target, threshold: float = 0.8, num_perm: int = 128,
    ngram: int = 5, tasks: int = 1,
) -> None:  # fmt: skip
    """Write the texts of the folder `source` to `target`, without copies.

    Both hold Parquet files with the columns `id` and `text`; `tasks` shares
    of the files are worked through one by one. Texts that agree in a band
    are joined, without a check, and of each cluster one stays. Source:
    datatrove (Penedo et al. 2024). Built in chapter 1.
    """
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline import dedup
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    words, config = _datatrove_config(threshold, num_perm, ngram)
    read = ParquetReader(str(source), glob_pattern="*.parquet")
    write = ParquetWriter(str(target), "${rank}.parquet")
    with tempfile.TemporaryDirectory() as place:
        bands, pairs = f"{place}/bands", f"{place}/pairs"
        drop = f"{place}/drop"
        steps = (
            (tasks, [read, dedup.MinhashDedupSignature(
                bands, config=config, language=words)]),
            (config.num_buckets, [dedup.MinhashDedupBuckets(
                bands, pairs, config=config)]),
            (1, [dedup.MinhashDedupCluster(pairs, drop, config=config)]),
            (tasks, [read, dedup.MinhashDedupFilter(drop), write]),
        )
        for i, (n, step) in enumerate(steps):
            with contextlib.redirect_stderr(io.StringIO()):  # a long log
                LocalPipelineExecutor(
                    step, tasks=n, workers=1, logging_dir=f"{place}/log{i}"
                ).run()


# ch01_data/data.ipynb [export-pii]
_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]+\s?(?:@|[(\[]\s?at\s?[)\]])\s?"
    r"(?:[a-z0-9-]+\.)+[a-z]{2,}(?![\w-])",
    re.I,
)
# +44 1632 960 123, (01632) 960123, 01632-960-123: a leading plus or nought,
# nine to fifteen digits in groups of at least two. Behind a sign of equality
# stands a number of a program's.
_PHONE = re.compile(
    r"(?<![\w.,+/=-])(?<!= )"
    r"(?:\+\d{1,3}[ .-]?(?:\(\d{1,5}\)|\d)|\(0\d{1,5}\)|0\d)"
    r"(?:[ .-]?\d){5,12}(?![\w/-]|[.,]\d)"
)
# (555) 555-0123, 555-555-0123, 1-800-555-0199: the ten digits of North
# America. With nothing but blanks between they might be any three numbers.
_NANP = re.compile(
    r"(?<![\w.,+/=-])(?<!= )(?:1[ .-]?)?"
    r"(?:\([2-9]\d\d\)[ .-]?|[2-9]\d\d[.-])"
    r"\d{3}[.-]\d{4}(?![\w/-]|[.,]\d)"
)
# 93.184.216.34, but not 2.4.1.3, which is rather a version or a section.
_IPV4 = re.compile(
    r"(?<![\w.,+-])(?!(?:\d\.){3}\d\b)\d{1,3}(?:\.\d{1,3}){3}"
    r"(?![\w-]|[.,]\d)"
)


def _redact_phone(match) -> str:
    digits = sum(c.isdigit() for c in match[0])
    return "[phone]" if 9 <= digits <= 15 else match[0]


def _redact_ip(match) -> str:
    fits = all(int(part) < 256 for part in match[0].split("."))
    return "[ip]" if fits else match[0]


def redact_pii(text: str) -> str:
    """Put [email], [phone] and [ip] where a text gives somebody away.

    Finds addresses written with @ or (at); telephone numbers that begin with
    + or 0, and those of North America with brackets, hyphens or dots; IPv4
    addresses. Names and street addresses it does not find. Applying it twice
    changes nothing more. Built in chapter 1.
    """
    text = _PHONE.sub(_redact_phone, _EMAIL.sub("[email]", text))
    return _IPV4.sub(_redact_ip, _NANP.sub("[phone]", text))


# ch01_data/data.ipynb [export-split]
def corpus_split(text: str, held_out: float = 1 / 16) -> str:
    """"train", "validation" or "test", decided by the text itself.

    Texts with the same words go to the same side, wherever and whenever they
    turn up; `held_out` is the share of validation, and of test. Near-copies
    can be parted: deduplicate first. Built in chapter 1.
    """
    data = " ".join(re.findall(r"\w+", text.lower()))
    digest = hashlib.blake2b(data.encode("utf-8", "replace"), digest_size=8)
    place = int.from_bytes(digest.digest(), "big") / 2**64
    if place < held_out:
        return "validation"
    return "test" if place < 2 * held_out else "train"


# ch01_data/data.ipynb [export-seen]
def _collisions(train_texts, known, ngram):
    """Yield, for each batch of texts, where `known` n-grams stand in it.

    (the batch's texts as a range, the text of each hit, its place in `known`)
    """
    first = 0
    if not len(known):
        known = np.zeros(1, np.uint64)  # nothing to be found
    for hashes, starts in _shingled(train_texts, ngram, 2**20):
        place = np.searchsorted(known, hashes)
        place[place == len(known)] = 0
        hits = np.flatnonzero(known[place] == hashes)
        owner = np.searchsorted(starts, hits, side="right") - 1
        numbers = range(first, first + len(starts) - 1)
        yield numbers, first + owner, place[hits]
        first = numbers.stop


# ch01_data/data.ipynb [export-contamination]
def contamination(train_texts, eval_texts, ngram: int = 13) -> np.ndarray:
    """The share of each evaluation text's n-grams that stand in training.

    Returns (len(eval_texts),) float64 between 0 and 1. n-grams are runs of
    words, without case and punctuation, so nothing but words counts; a text
    of fewer words is one n-gram, which only a text of the same words has.
    Training texts may be any iterable, and are not held. Source: Brown et al.
    (2020), appendix C. Built in chapter 1.
    """
    hashes, starts = shingle_hashes(list(eval_texts), ngram)
    known, place = np.unique(hashes, return_inverse=True)
    seen = np.zeros(len(known), bool)
    for _, _, hits in _collisions(train_texts, known, ngram):
        seen[hits] = True
    total = np.concatenate([[0], np.cumsum(seen[place])])
    return np.diff(total[starts]) / np.maximum(np.diff(starts), 1)


# ch01_data/data.ipynb [export-decontaminate]
def decontaminate(
    train_texts, eval_texts, ngram: int = 13, threshold: float = 0.0
) -> list[int]:
    """Indices of the training texts to keep, in order.

    A text goes if it holds more than the share `threshold` of the n-grams of
    any one evaluation text; at 0 a single n-gram is enough, and then the
    `contamination` of what is left is 0. ValueError unless
    0 <= threshold < 1. Source: Brown et al. (2020). Built in chapter 1.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be in [0, 1), got {threshold}")
    hashes, starts = shingle_hashes(list(eval_texts), ngram)
    sizes = np.diff(starts)
    known, place = np.unique(hashes, return_inverse=True)
    text_of = np.repeat(np.arange(len(sizes)), sizes)[np.argsort(place)]
    begins = np.searchsorted(np.sort(place), np.arange(len(known) + 1))
    kept = []
    for numbers, owner, hits in _collisions(train_texts, known, ngram):
        gone = set()
        for i in np.unique(owner):
            # The evaluation text of each n-gram found, as often as it has it.
            texts, counts = np.unique(np.concatenate([
                text_of[begins[k] : begins[k + 1]]
                for k in np.unique(hits[owner == i])
            ]), return_counts=True)  # fmt: skip
            if (counts > threshold * sizes[texts]).any():
                gone.add(int(i))
        kept += [i for i in numbers if i not in gone]
    return kept


# ch01_data/data.ipynb [export-open]
class _ZstdFile(io.RawIOBase):
    """The bytes inside a .zst file; OSError where it was cut short."""

    def __init__(self, path):
        from fastwarc.stream_io import ZstdReader

        self._reader = ZstdReader(str(path))

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self._reader.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def open_compressed(path):
    """Open a plain, .gz, .xz or .zst file for reading bytes.

    A file that was cut short raises OSError or EOFError when reading comes
    to its end. Built in chapter 1.
    """
    suffix = Path(path).suffix
    if suffix == ".zst":
        return io.BufferedReader(_ZstdFile(path), 2**16)
    return {".gz": gzip.open, ".xz": lzma.open}.get(suffix, open)(path, "rb")


# ch01_data/data.ipynb [export-kinds]
CODE_LANGUAGES = {
    ".c": "C", ".h": "C", ".cc": "C++", ".cpp": "C++", ".hpp": "C++",
    ".cs": "C#", ".go": "Go", ".hs": "Haskell", ".java": "Java",
    ".js": "JavaScript", ".jl": "Julia", ".kt": "Kotlin", ".lua": "Lua",
    ".php": "PHP", ".pl": "Perl", ".py": "Python", ".r": "R", ".rb": "Ruby",
    ".rs": "Rust", ".scala": "Scala", ".sh": "Shell", ".sql": "SQL",
    ".swift": "Swift", ".ts": "TypeScript",
}  # fmt: skip
CORPUS_SUFFIXES = (
    ".txt", ".md", ".html", ".htm", ".jsonl", ".parquet", ".warc", ".wet",
    *CODE_LANGUAGES,
)  # fmt: skip
# Of a file of text so many characters are read at a time, and of anything
# else nothing longer is taken for one record: memory has to have a bound.
LONGEST_RECORD = 2**25


def _kind(path) -> str:
    """The suffix of a file's name, before that of its compression."""
    suffixes = [s.lower() for s in Path(path).suffixes]
    while suffixes and suffixes[-1] in (".gz", ".xz", ".zst"):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


# ch01_data/data.ipynb [export-records]
_TEXT_COLUMNS = ("text", "content", "document", "body", "story", "html")


class _NotText(Exception):
    """Says why a record is nothing to read, though nothing is wrong."""


def _attempt(read, *args):
    """What `read` gives, or the error that says why it cannot."""
    try:
        return read(*args)
    except (ValueError, RecursionError, OSError, _NotText) as error:
        return error


def page_title(html: str | bytes) -> str:
    """The title of a page, or else its first heading, or else "".

    Built in chapter 1.
    """
    root = parse_html(html)
    for path in (".//title", ".//h1") if root is not None else ():
        node = root.find(path)
        words = [] if node is None else "".join(node.itertext()).split()
        if words:
            return clean_text(" ".join(words))
    return ""


def _page_row(html):
    """The row of a web page."""
    return {"text": extract_text(html), "title": page_title(html)}


# ch01_data/data.ipynb [export-json]
def _json_row(record, column):
    """The row of an object, or an error that says what it has instead."""
    if not isinstance(record, dict):
        raise ValueError("not an object")
    names = (column,) if column else _TEXT_COLUMNS
    have = {k: v for k, v in record.items() if isinstance(v, str)}
    name = next((name for name in names if name in have), None)
    if name is None:
        raise ValueError(f"no text in {' or '.join(names)}; it has {[*record]}")
    row = {"source": have["url"]} if "url" in have else {}
    keep = ("source", "title", "language")
    row |= {key: have[key] for key in keep if key in have}
    found = {"text": have[name]} if name != "html" else _page_row(have[name])
    return found | row


def _json_rows(file, path, column):
    """Yield (place, row or error) for each line of JSON Lines."""
    number = 0
    while line := file.readline(LONGEST_RECORD + 1):
        number += 1
        where = f"{path}, line {number}"
        if len(line) > LONGEST_RECORD:
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST_RECORD)
            yield where, ValueError(f"longer than {LONGEST_RECORD:,} bytes")
        elif line.strip():
            yield where, _attempt(
                lambda: _json_row(json.loads(line.decode("utf-8-sig")), column)
            )


# ch01_data/data.ipynb [export-parquet]
def _parquet_rows(path, column):
    """Yield (place, row or error) for each row of a Parquet file."""
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path, buffer_size=2**20) as file:
        names = (column,) if column else _TEXT_COLUMNS
        have = file.schema_arrow.names
        if not set(names) & set(have):
            raise ValueError(f"no text in {' or '.join(names)}; it has {have}")
        wanted = {*names, "source", "url", "title", "language"}
        columns = [name for name in have if name in wanted]
        done = end = 0
        for group in range(file.num_row_groups):
            end += file.metadata.row_group(group).num_rows
            try:
                for batch in file.iter_batches(
                    64, row_groups=[group], columns=columns
                ):
                    for record in _batch_records(batch):
                        done += 1
                        yield f"{path}, row {done}", (
                            record if isinstance(record, Exception)
                            else _attempt(_json_row, record, column)
                        )  # fmt: skip
            except (OSError, ValueError) as error:
                for lost in range(done + 1, end + 1):
                    yield f"{path}, row {lost}", error
                done = end


def _batch_records(batch):
    """The records of a batch; for one that is not UTF-8, the error."""
    records = _attempt(batch.to_pylist)
    if isinstance(records, Exception):
        ones = [batch.slice(i, 1) for i in range(len(batch))]
        return [_attempt(lambda one=one: one.to_pylist()[0]) for one in ones]
    return records


# ch01_data/data.ipynb [export-text]
def _text_rows(file, path):
    """Yield (place, row or error) for a file of text, in pieces if long."""
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as stream:
        number = 0
        while text := stream.read(LONGEST_RECORD):
            text += stream.readline(LONGEST_RECORD)
            number += 1
            where = f"{path}, part {number}" if number > 1 else str(path)
            yield where, _attempt(_text_row, text, _kind(path), number)


def _text_row(text, kind, number):
    """The row of a piece of text, Markdown or code."""
    if "\0" in text:
        raise ValueError("it holds zero bytes: not text, or UTF-16")
    heading = re.search(r"^#{1,6} +(.+?)[ #\r]*$", text, re.M)
    title = heading[1] if kind == ".md" and number == 1 and heading else ""
    return {
        "text": text, "title": title, "language": CODE_LANGUAGES.get(kind, "")
    }  # fmt: skip


# ch01_data/data.ipynb [export-archived]
_PAGE_TYPES = ("text/html", "application/xhtml+xml")


def _archived_row(record):
    """The row of a WARC record; _NotText if it holds no page."""
    length = record.content_length
    if length > LONGEST_RECORD:
        raise ValueError(f"longer than {LONGEST_RECORD:,} bytes")
    source = record.headers.get("WARC-Target-URI")
    record.freeze()  # reads it whole: errors from here on are its own
    if not record.headers.get("Content-Length", "").strip().isdigit():
        raise ValueError("the record does not say how long it is")
    if source is None or record.content_length < length:
        raise ValueError("the record was cut short")
    if record.headers.get("WARC-Type") == "conversion":
        text = record.reader.read().decode("utf-8")
        return {"text": text, "source": source, "title": ""}
    record.parse_http(auto_decode="all")
    status = record.http_headers.status_code if record.http_headers else None
    if status != 200:
        raise _NotText(f"HTTP status {status}")
    if record.http_content_type not in _PAGE_TYPES:
        raise _NotText(f"content type {record.http_content_type}")
    html = record.reader.read(LONGEST_RECORD + 1)  # it may grow, unpacked
    charset = record.http_charset
    if len(html) > LONGEST_RECORD:
        raise ValueError(f"longer than {LONGEST_RECORD:,} bytes")
    if charset and html[:1] == b"<" and b"charset" not in html[:4096]:
        html = f"<meta charset={charset}>".encode() + html
    return _page_row(html) | {"source": source}


# ch01_data/data.ipynb [export-archive]
_RECORD_MARKS = {".gz": b"\x1f\x8b\x08", ".zst": b"\x28\xb5\x2f\xfd"}


def _find_mark(path, mark: bytes, start: int) -> int:
    """The first place of `mark` in a file from `start` on, or -1."""
    with open(path, "rb") as file:
        if start >= os.fstat(file.fileno()).st_size:
            return -1
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(mark, start)


def _archive_rows(path):
    """Yield (place, row or error) for the records of a WARC or WET file.

    After an error the reading is taken up again at the place of the error,
    and if that is in vain, at the next mark behind it.
    """
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    wanted = int(WarcRecordType.response) | int(WarcRecordType.conversion)
    mark = _RECORD_MARKS.get(path.suffix, b"WARC/1.")
    at, told = 0, -1  # where to read on; the mark of the last error
    while at >= 0:
        try:
            with open(path, "rb") as file:
                file.seek(at)
                for record in ArchiveIterator(file, wanted, parse_http=False):
                    at = record.stream_pos
                    try:
                        row = _archived_row(record)
                    except _NotText as reason:
                        row = reason
                    yield f"{path}, byte {at}", row
                    at += 1  # past its mark: an error now is the next one's
            return
        except (OSError, ValueError) as error:
            bad = _find_mark(path, mark, at)
            if bad < 0 or bad != told:  # each is reported once
                yield f"{path}, byte {max(at - 1, bad, 0)}", error
            if bad < 0:
                return
            # first try the bad place itself, then the next mark
            at = _find_mark(path, mark, bad + 1) if bad == told else bad
            told = bad


# ch01_data/data.ipynb [export-local]
def corpus_files(source) -> list[Path]:
    """The files that a path, a folder or a glob stands for, in order.

    Of a folder those whose suffix is in CORPUS_SUFFIXES, plain or compressed;
    hidden ones are left out. Built in chapter 1.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    found = path.rglob("*") if path.is_dir() else map(
        Path, glob.glob(str(path), recursive=True)
    )
    return sorted(
        f
        for f in found
        if f.is_file()
        and not any(part.startswith(".") for part in f.relative_to(
            path if path.is_dir() else f.parent
        ).parts)
        and _kind(f) in CORPUS_SUFFIXES
    )


# ch01_data/data.ipynb [export-file]
def _file_rows(path, column):
    """Yield (place, row or error) for each record of one file."""
    kind = _kind(path)
    if kind == ".parquet":
        yield from _parquet_rows(path, column)
    elif kind in (".warc", ".wet"):
        yield from _archive_rows(path)
    else:
        with open_compressed(path) as file:
            if kind in (".html", ".htm"):
                data = file.read(LONGEST_RECORD + 1)
                if len(data) > LONGEST_RECORD:
                    raise ValueError(f"longer than {LONGEST_RECORD:,} bytes")
                yield str(path), _attempt(_page_row, data)
            elif kind in (".txt", ".md", *CODE_LANGUAGES):
                yield from _text_rows(file, path)
            else:
                yield from _json_rows(file, path, column)


def _whole_file_rows(path, column):
    """As `_file_rows`, with an error of the file itself as the last of all."""
    try:
        yield from _file_rows(path, column)
    except Exception as error:  # the rest of the file is lost
        yield str(path), error


# ch01_data/data.ipynb [export-read]
def _checked(row, path):
    """A row with all its fields; ValueError if one cannot be written."""
    row = {"text": row["text"], "source": row.get("source") or str(path),
           "title": row.get("title", ""), "language": row.get("language", "")}
    for value in row.values():
        if not value.isascii():
            value.encode()
    return row


def read_corpus(files, column: str | None = None, log: dict | None = None):
    """Yield {"text", "source", "title", "language"} for each readable record.

    What cannot be read (not UTF-8, not JSON, no text, cut short) is skipped,
    and a warning at the end of each file says how much and names the first.
    `log` is emptied and then counts `files`, `texts`, `empty` texts, records
    `passed_over` by reason (no page in them), and `unreadable` by file:
    {"records": how many, "first": where and why}. Built in chapter 1.
    """
    log = {} if log is None else log
    log.clear()
    log |= {"files": 0, "texts": 0, "empty": 0, "passed_over": {},
            "unreadable": {}}
    for path in map(Path, files):
        log["files"] += 1
        bad = {"records": 0, "first": ""}
        for where, row in _whole_file_rows(path, column):
            if isinstance(row, dict):
                row = _attempt(_checked, row, path)
            if isinstance(row, _NotText):
                passed = log["passed_over"]
                passed[str(row)] = passed.get(str(row), 0) + 1
            elif isinstance(row, Exception):
                log["unreadable"][str(path)] = bad
                bad["records"] += 1
                bad["first"] = bad["first"] or f"{where}: {row}"
            elif not row["text"].strip():
                log["empty"] += 1
            else:
                log["texts"] += 1
                yield row
        if bad["records"]:
            warnings.warn(
                f"{path.name}: {bad['records']} unreadable, skipped; "
                f"first {bad['first']}",
                stacklevel=2,
            )


# ch01_data/data.ipynb [export-source]
def _is_local(source) -> bool:
    """A path, and not the id of a data set; raises if it looks like one."""
    name = os.fspath(source)
    if Path(name).expanduser().exists():
        return True
    if any(c in name for c in "*?["):
        if not corpus_files(name):
            raise FileNotFoundError(f"no file matches {name}")
        return True
    suffixed = _kind(name) in CORPUS_SUFFIXES
    if suffixed or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"there is no {name}")
    return False


def _with_text_column(data, column, source):
    """Rename the column that holds the text to `text`."""
    names = data.column_names or list(next(iter(data)))
    wanted = (column,) if column else _TEXT_COLUMNS
    found = next((name for name in wanted if name in names), None)
    if found is None:
        raise ValueError(
            f"{source} has the columns {names}: name the text with column="
        )
    return data if found == "text" else data.rename_column(found, "text")


# ch01_data/data.ipynb [export-scratch]
def _scratch_folder() -> Path:
    """A new folder that is removed when Python ends."""
    try:
        place = artifact()
        place.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(dir=place, prefix=".corpus.")
    except OSError:  # outside the book, or it may not be written to
        folder = tempfile.mkdtemp(prefix="corpus.")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


# ch01_data/data.ipynb [export-disk]
def _on_disk(rows):
    """A `datasets.Dataset` of rows in a file; None if there are none."""
    import datasets
    import pyarrow as pa

    file, writer, schema = _scratch_folder() / "rows.arrow", None, None
    bounded = in_batches(  # 32 MB of text, and no more than 1,024 rows
        rows, 2**25, lambda row: max(len(row["text"]), 2**15))
    with contextlib.ExitStack() as stack:
        for batch in bounded:
            table = pa.RecordBatch.from_pylist(batch, schema)
            if writer is None:
                schema = table.schema
                sink = stack.enter_context(pa.OSFile(str(file), "wb"))
                writer = stack.enter_context(pa.ipc.new_stream(sink, schema))
            writer.write_batch(table)
    return writer and datasets.Dataset.from_file(str(file))


# ch01_data/data.ipynb [export-load-rows]
def _valley_rows(split, n, seed):
    """Rows of Pocket World, with their nats and genre."""
    from pocket_world.documents import documents

    n = {"smoke": 1000}.get(preset(), 20000) if n is None else n
    for d in documents(n, seed, split):
        yield {"text": d.text, "source": "pocket_world", "title": "",
               "language": "", "nats": d.nats, "genre": d.genre}


def _local_rows(source, split, column, held_out, log):
    """A function that iterates over the rows of a split of local files."""
    files = corpus_files(source)
    named = [f for f in files if f.name.split(".")[0] == split]
    if not named and not held_out and split != "train":
        raise ValueError(
            f"{source} has no file named {split}.*: "
            "give held_out, the share to set aside"
        )

    def rows():
        whole = named or not held_out
        for row in read_corpus(named or files, column, log):
            if whole or corpus_split(row["text"], held_out) == split:
                yield row

    return rows


# ch01_data/data.ipynb [export-load]
def load_corpus(
    source="pocket_world",
    split: str = "train",
    column: str | None = None,
    streaming: bool = False,
    held_out: float = 0.0,
    n: int | None = None,
    seed: int = 1,
    log: dict | None = None,
    **options,
):
    """A corpus as a `datasets` data set with a `text` column.

    source: "pocket_world" (then `n` documents of the `seed`); a file, folder
    or glob of .txt, .md, .html, source code, .jsonl (these plain, .gz, .xz
    or .zst), .parquet, .warc or .wet (plain, .gz, .zst), with the columns of
    `read_corpus`; or the id of a data set on the Hub (`options` go to
    `load_dataset`). split: a folder may hold files named after it
    ("train.jsonl"); otherwise `held_out` is the share of texts set aside for
    "validation", and for "test". column: the field that holds the text.
    streaming: an IterableDataset; else a Dataset, whose rows lie on disk.
    Unreadable records are skipped with a warning, and `log` tells of them as
    in `read_corpus`, after each pass anew. Raises ValueError if there is no
    text, FileNotFoundError if there is no such path. Built in chapter 1.
    """
    import datasets

    log = {} if log is None else log
    if str(source) == "pocket_world":
        rows = functools.partial(_valley_rows, split, n, seed)
    elif not _is_local(source):
        data = datasets.load_dataset(
            str(source), split=split, streaming=streaming, **options
        )
        return _with_text_column(data, column, source)
    else:
        rows = _local_rows(source, split, column, held_out, log)
    if streaming:
        found = next(rows(), None) and datasets.IterableDataset.from_generator(
            rows
        )
    else:
        found = _on_disk(rows())
    if found is None:
        raise ValueError(f"no text for {split!r} in {source}")
    return found


# ch01_data/data.ipynb [export-mix-weights]
def _whole_weights(weights: dict) -> dict[object, int]:
    """Weights as whole numbers in the same proportion, exactly."""
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(
                f"the weight of {name!r} is {weight}: it must be above zero"
            )
    parts = {name: Fraction(weight) for name, weight in weights.items()}
    scale = math.lcm(*(part.denominator for part in parts.values()))
    return {name: int(part * scale) for name, part in parts.items()}


def _passes(source, repeat):
    """Yield (row, pass), again and again if asked; then (None, passes)."""
    number = 1
    while True:
        row = None
        for row in source:
            yield row if isinstance(row, dict) else {"text": row}, number
        if row is None or not repeat:
            break
        number += 1
    while True:
        yield None, number


# ch01_data/data.ipynb [export-mix-draw]
def _drawn(sources, weights, unit, repeat, limit, log):
    """Yield rows of all sources by weight (Bennett and Zhang, 1996)."""
    def size(name):
        row = heads[name][0]
        return len(row["text"].encode()) if unit == "bytes" else 1

    total_weight = sum(weights.values())
    streams = {name: _passes(rows, repeat) for name, rows in sources.items()}
    heads = {name: next(stream) for name, stream in streams.items()}
    used, ended, total = dict.fromkeys(sources, 0), set(), 0
    log.clear()
    log |= {str(name): {
        "weight": weights[name] / total_weight, "share": 0.0,
        "documents": 0, "bytes": 0, "passes": 1,
    } for name in sources}  # fmt: skip
    while total < limit and len(ended) < (len(sources) if repeat else 1):
        name = min(
            (n for n in sources  # those that are not ahead of their share
             if used[n] * total_weight <= weights[n] * total),
            key=lambda n: Fraction(used[n] + size(n), weights[n]),
        )
        (row, number), told = heads[name], log[str(name)]
        used[name], total = used[name] + size(name), total + size(name)
        told["documents"] += 1
        told["bytes"] += len(row["text"].encode())
        told["passes"] = number
        heads[name] = next(streams[name])
        if heads[name][0] is None or heads[name][1] > number:
            ended.add(name)
        for n in sources:
            log[str(n)]["share"] = used[n] / total
        yield {key: row.get(key, "") for key in _FIELDS} | {"part": str(name)}


_FIELDS = ("text", "source", "title", "language")


# ch01_data/data.ipynb [export-mix]
def mix_corpora(
    sources,
    weights,
    unit: str = "bytes",
    at_end: str = "stop",
    limit: float = float("inf"),
    log: dict | None = None,
):
    """Draw from several corpora by weight, as an IterableDataset.

    sources and weights: two dicts with the same names, or two lists; each
    source is a data set, or a list of rows or texts, that can be iterated
    over more than once. unit: "bytes" of UTF-8 or "documents", which is what
    the weights divide. At any moment no source has had more than its share by
    more than its own longest document, nor less by more than the longest of
    all (Bennett and Zhang, 1996); nothing is left to chance. at_end: "stop"
    when a source ends, or "repeat" it until each has been read once; at
    `limit` units it ends in any case. `log` tells of each source its weight,
    share, documents, bytes and passes begun. The rows have the columns of
    `read_corpus` and `part`, the source's name. ValueError if names differ, a
    weight is not above zero or a source is empty. Built in chapter 1.
    """
    import datasets

    if not isinstance(sources, dict):
        sources, weights = dict(enumerate(sources)), dict(enumerate(weights))
    if not sources or set(sources) != set(weights):
        raise ValueError(
            f"sources {list(sources)} and weights {list(weights)} must have "
            "the same names"
        )
    for word, known in ((unit, ("bytes", "documents")),
                        (at_end, ("stop", "repeat"))):
        if word not in known:
            raise ValueError(f"{word!r} is none of {known}")
    for name, source in sources.items():
        if iter(source) is source:
            raise ValueError(f"{name!r} can be read only once: give a list")
        if next(iter(source), None) is None:
            raise ValueError(f"there is nothing in the part {name!r}")
    whole = _whole_weights(weights)
    return datasets.IterableDataset.from_generator(functools.partial(
        _drawn, sources, whole, unit, at_end == "repeat", limit,
        {} if log is None else log,
    ))  # fmt: skip


# ch01_data/data.ipynb [export-count]
def count_texts(rows) -> dict:
    """Documents, bytes of UTF-8 and words of rows or texts.

    Built in chapter 1.
    """
    count = {"documents": 0, "bytes": 0, "words": 0}
    for row in rows:
        text = row if isinstance(row, str) else row["text"]
        count["documents"] += 1
        count["bytes"] += len(text.encode())
        count["words"] += len(text.split())
    return count


def _source_name(source: str) -> str:
    """The host of a URL, the folder of a file, else the name itself."""
    if found := re.match(r"https?://([^/?#]+)", source):
        return found[1].lower()
    path = Path(source)
    return str(path.parent) if _kind(path) in CORPUS_SUFFIXES else source


def count_sources(rows, licences: dict | None = None, most: int = 50) -> dict:
    """What rows come from: {source: licence, documents, bytes, words, share}.

    The largest first, by bytes; those beyond the first `most` are added up as
    "(others)". licences: what is known, by source. Built in chapter 1.
    """
    by_source = defaultdict(Counter)
    for row in rows:
        by_source[_source_name(row["source"])].update(count_texts([row]))
    order = sorted(by_source, key=lambda s: (-by_source[s]["bytes"], s))
    for name in order[most:]:
        by_source["(others)"].update(by_source[name])
    total = sum(by_source[name]["bytes"] for name in order)
    names = order[:most] + ["(others)"] * (len(order) > most)
    return {
        name: {"licence": (licences or {}).get(name, "unknown")}
        | dict(by_source[name])
        | {"share": round(by_source[name]["bytes"] / total, 4)}
        for name in names
    }


# ch01_data/data.ipynb [export-card-summary]
def contamination_summary(shares, ngram: int = 13) -> dict:
    """What a card says of the shares that `contamination` found.

    Built in chapter 1.
    """
    shares = np.asarray(shares)
    return {
        "ngram": ngram, "texts": len(shares),
        "mean_share": round(float(shares.mean()), 4),
        "with_any": int((shares > 0).sum()),
        "with_half": int((shares >= 0.5).sum()),
    }  # fmt: skip


# ch01_data/data.ipynb [export-card]
def data_card(
    about: dict, splits: dict, sources: dict, steps=(), reading=None,
    mixture=None, contamination=None, seeds=None,
    packages=("datasets", "FastWARC", "lxml", "numpy", "pyarrow"),
) -> dict:  # fmt: skip
    """The card of a corpus, as a dict that JSON can hold (Gebru et al., 2021).

    about: what it is, in whose language, for what. splits: counts by split
    (`count_texts`). sources: `count_sources`. steps: (name, documents, bytes,
    why) of what came in and of what each step left. reading: the log of
    `read_corpus`. mixture: the log of `mix_corpora`. contamination: by split,
    what `contamination_summary` says. seeds: by name. The versions of
    `packages` are added. Built in chapter 1.
    """
    import importlib.metadata

    steps = list(steps)
    left = [
        {"step": name, "documents": documents, "bytes": size,
         "removed_documents": before[1] - documents,
         "removed_bytes": before[2] - size, "why": why}
        for before, (name, documents, size, why)
        in zip(steps[:1] + steps, steps)
    ]  # fmt: skip
    reading = dict(reading or {})
    return about | {
        "splits": splits,
        "sources": {
            name: {"licence": "unknown"} | told
            for name, told in sources.items()
        },
        "steps": left,
        "passed_over": reading.pop("passed_over", {}),
        "unreadable": reading.pop("unreadable", {}),
        "reading": reading,
        "mixture": mixture or {},
        "contamination": contamination or {},
        "seeds": seeds or {},
        "versions": {p: importlib.metadata.version(p) for p in packages},
    }


# ch01_data/data.ipynb [export-card-write]
def _cell(value) -> str:
    """A value as it stands in a table of Markdown."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", r"\|").replace("\n", " ")


def card_markdown(card: dict) -> str:
    """A data card as Markdown. Built in chapter 1."""
    lines = ["# Data card"]
    for name, value in card.items():
        title = name.replace("_", " ").capitalize()
        if not isinstance(value, (dict, list)):
            lines += ["", f"**{title}.** {_cell(value)}"]
            continue
        if isinstance(value, dict):
            value = [{"": key} | (told if isinstance(told, dict) else
                                  {"value": told})
                     for key, told in value.items()]
        lines += ["", f"## {title}", ""]
        if not value:
            lines.append("None.")
            continue
        heads = list(dict.fromkeys(key for row in value for key in row))
        table = [[head.replace("_", " ") for head in heads],
                 ["---"] * len(heads)]
        table += [[_cell(row.get(h, "")) for h in heads] for row in value]
        lines += ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join(lines) + "\n"


def write_data_card(folder, card: dict) -> None:
    """Write card.json and card.md into a folder. Built in chapter 1."""
    write_json(Path(folder) / "card.json", card)
    with atomic_file(Path(folder) / "card.md") as part:
        part.write_text(card_markdown(card), encoding="utf-8")


# ch02_tokenizer/tokenizer.ipynb [alphabet-code]
def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable character for each byte, {byte: character}.

    In the order of GPT-2's ids: the bytes printable in Latin-1 first, then
    the other 68, which take the characters from U+0100 on. Source: Radford
    et al. 2019, `encoder.py`. Built in chapter 2.
    """
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = shown + [256 + i for i in range(len(hidden))]
    return {byte: chr(c) for byte, c in zip(shown + hidden, letters)}


# ch02_tokenizer/tokenizer.ipynb [merge-pair]
def merge_pair(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """`ids` with each occurrence of `pair`, from the left, replaced by `new`.

    Built in chapter 2.
    """
    merged, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


# ch02_tokenizer/tokenizer.ipynb [patterns]
GPT2_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+"
    r"| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
DIGIT_PATTERN = GPT2_PATTERN.replace(r"?\p{N}+", r"?\p{N}")


# ch02_tokenizer/tokenizer.ipynb [lay-out-words]
def lay_out_words(word_counts, byte_ids):
    """Distinct words in one row: the ids of their bytes, −1 behind each word.

    word_counts: {word as bytes: how often it occurs}. byte_ids: {byte: id}.
    Returns (ids, copies), int64 arrays of one length: what stands at each
    place, and how often its word occurs. Built in chapter 2.
    """
    row = b"".join([word + b"\0" for word in word_counts])
    lengths = np.fromiter(map(len, word_counts), int) + 1
    table = np.array([byte_ids[bytes([byte])] for byte in range(256)])
    ids = table[np.frombuffer(row, dtype=np.uint8)]
    ids[np.cumsum(lengths) - 1] = -1
    return ids, np.repeat(np.fromiter(word_counts.values(), int), lengths)


# ch02_tokenizer/tokenizer.ipynb [index-pairs]
def index_pairs(at, ids, after, copies):
    """The pairs that begin at the places `at`: pair, count, places of each.

    at: int64 array, increasing for each pair. ids, copies: as
    `lay_out_words` gives them; after: the place behind each. Yields
    ((left id, right id), copies in all, array of places). Built in chapter 2.
    """
    left, right = ids[at], ids[after[at]]
    inside = (left >= 0) & (right >= 0)
    at, keys = at[inside], (left[inside] << 32) + right[inside]
    if len(at) == 0:
        return
    order = np.argsort(keys, kind="stable")
    at, keys = at[order], keys[order]
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    counts = np.add.reduceat(copies[at], first).tolist()
    left, right = keys[first] >> 32, keys[first] & 0xFFFFFFFF
    edges = [*first.tolist(), len(at)]
    pairs = zip(left.tolist(), right.tolist())
    for pair, count, i, j in zip(pairs, counts, edges, edges[1:]):
        yield pair, count, at[i:j]


# ch02_tokenizer/tokenizer.ipynb [merge-places]
def merge_places(places, new, ids, before, after):
    """Put `new` for the pairs that begin at `places`, which do not overlap.

    ids, before, after: changed in place. Returns the places at which a new
    pair begins now. Built in chapter 2.
    """
    second = after[places]
    beyond = after[second]
    ids[places], ids[second] = new, -1
    after[places], before[beyond] = beyond, places
    ahead = before[places]
    return np.concatenate([ahead[ids[ahead] != new], places])


def every_second(places, after):
    """Of each run of `places` that touch, the first, the third, and so on.

    Built in chapter 2.
    """
    number = np.arange(len(places))
    begins = np.append(True, places[1:] != after[places[:-1]])
    run = np.maximum.accumulate(np.where(begins, number, 0))
    return places[(number - run) % 2 == 0]


# ch02_tokenizer/tokenizer.ipynb [learn-merges]
def learn_merges(word_counts, n_tokens):
    """Byte-pair encoding: the merges that a table of words asks for.

    word_counts: {word as bytes: how often it occurs}. n_tokens: new tokens
    wanted; fewer come back when no pair is left. Returns (merges, saved):
    pairs of bytes in the order learned, and for each the tokens it takes off
    the corpus. Of equally frequent pairs the one with the smaller ids wins.
    Source: Sennrich et al. 2016, algorithm 1. Built in chapter 2.
    """
    tokens = [bytes([byte]) for byte in byte_alphabet()]
    byte_ids = {token: i for i, token in enumerate(tokens)}
    ids, copies = lay_out_words(word_counts, byte_ids)
    row = np.arange(len(ids))
    before, after = np.roll(row, 1), np.roll(row, -1)    # a ring: no ends
    heap, where, merges, saved = [], {}, [], []

    def file(at):
        for pair, count, places in index_pairs(at, ids, after, copies):
            where[pair] = places
            heapq.heappush(heap, (-count, pair))

    file(row)
    while heap and len(merges) < n_tokens:
        promised, pair = heapq.heappop(heap)
        places = where.pop(pair)
        fits = (ids[places] == pair[0]) & (ids[after[places]] == pair[1])
        places = places[fits]
        count = int(copies[places].sum())
        if count < -promised:                    # out of date: file again
            if count > 0:
                where[pair] = places
                heapq.heappush(heap, (-count, pair))
            continue
        if pair[0] == pair[1]:
            places = every_second(places, after)
        merges.append((tokens[pair[0]], tokens[pair[1]]))
        saved.append(int(copies[places].sum()))
        tokens.append(b"".join(merges[-1]))
        file(merge_places(places, len(tokens) - 1, ids, before, after))
    return merges, saved


# ch02_tokenizer/tokenizer.ipynb [merge-word]
def merge_word(ids, merge_table):
    """Byte ids of one word to token ids, in O(n log n).

    ids: list of int. merge_table: {(left id, right id): (rank, new id)}; the
    lowest rank is merged first, from the left. Built in chapter 2.
    """
    ids, n = list(ids), len(ids)
    before, after = list(range(-1, n - 1)), list(range(1, n + 1))
    heap = [
        (merge_table[pair][0], i, pair)
        for i, pair in enumerate(zip(ids, ids[1:])) if pair in merge_table
    ]
    heapq.heapify(heap)
    while heap:
        _, i, pair = heapq.heappop(heap)
        j = after[i]
        if ids[i] != pair[0] or j == n or ids[j] != pair[1]:
            continue                                # merged away meanwhile
        ids[i], ids[j] = merge_table[pair][1], -1
        after[i] = k = after[j]
        if k < n:
            before[k] = i
        for a, b in (before[i], i), (i, k):
            if a >= 0 and b < n and (ids[a], ids[b]) in merge_table:
                pair = (ids[a], ids[b])
                heapq.heappush(heap, (merge_table[pair][0], a, pair))
    return [token for token in ids if token >= 0]


# ch02_tokenizer/tokenizer.ipynb [special-code]
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
)


# ch02_tokenizer/tokenizer.ipynb [split-special]
def split_special(text: str, special_tokens: dict, allowed=()) -> list:
    """`text` cut at the special tokens allowed: strings and ids in turn.

    special_tokens: {name: id}. allowed: a collection of names, or "all";
    ValueError on a name that is not special. Built in chapter 2.
    """
    names = set(special_tokens) if allowed == "all" else set(allowed)
    if unknown := sorted(names - set(special_tokens)):
        raise ValueError(f"not special tokens of this vocabulary: {unknown}")
    if not names:
        return [text]
    cut = "|".join(map(regex.escape, sorted(names, key=len, reverse=True)))
    parts = regex.split(f"({cut})", text)
    parts[1::2] = [special_tokens[name] for name in parts[1::2]]
    return parts


# ch02_tokenizer/tokenizer.ipynb [vocabulary-code]
class BPEVocabulary:
    """Which bytes belong to which id; ids to text. Built in chapter 2.

    merges: pairs of bytes in the order learned. special_tokens: names, which
    take the last ids. pattern: how a text is cut before merging; it must
    cover every character and have no capturing group. ValueError if the
    merges are out of order or spell a special token. Attributes: `vocab`
    {bytes: id}, `special_tokens` {name: id}, `token_bytes[id]`,
    `vocab_size`, `end_of_text` (the id of <|endoftext|>, or None).
    """

    def __init__(
        self, merges, special_tokens=SPECIAL_TOKENS, pattern=GPT2_PATTERN
    ):
        self.merges, self.pattern = [tuple(pair) for pair in merges], pattern
        self.vocab = {bytes([b]): i for i, b in enumerate(byte_alphabet())}
        self._ranks = {}
        for rank, (left, right) in enumerate(self.merges):
            if left not in self.vocab or right not in self.vocab:
                raise ValueError(
                    f"merge {rank} joins {left!r} and {right!r}, and no merge "
                    "before it makes both: the list is not in its order"
                )
            # Only a foreign list spells bytes twice; they keep the first id.
            new = self.vocab.setdefault(left + right, len(self.vocab))
            pair = (self.vocab[left], self.vocab[right])
            self._ranks.setdefault(pair, (rank, new))
        names = list(special_tokens)
        if spelled := [n for n in names if n.encode("utf-8") in self.vocab]:
            raise ValueError(
                f"the merges spell {spelled[0]!r}, the name of a special "
                "token: give that token a name that no text contains"
            )
        self.token_bytes = [*self.vocab, *(n.encode("utf-8") for n in names)]
        self.vocab_size = len(self.token_bytes)
        self.special_tokens = dict(
            zip(names, range(len(self.vocab), self.vocab_size))
        )
        self.end_of_text = self.special_tokens.get("<|endoftext|>")

    def decode_bytes(self, ids) -> bytes:
        """The bytes of `ids`, a list, array or tensor of one dimension.

        ValueError on an id that is not in the vocabulary.
        """
        ids = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            raise ValueError(
                f"ids run from {min(ids)} to {max(ids)}, but this vocabulary "
                f"has only 0 to {self.vocab_size - 1}"
            )
        return b"".join([self.token_bytes[i] for i in ids])

    def decode(self, ids, errors: str = "replace") -> str:
        """The text of `ids`; bytes that are no character become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors)


# ch02_tokenizer/tokenizer.ipynb [to-utf8]
def to_utf8(text: str) -> bytes:
    """`text` in UTF-8; ValueError on half a character (a surrogate).

    Built in chapter 2.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text holds {text[error.start]!a}, half of a character: "
            "read its file again as UTF-8, or replace the half by a '?'"
        ) from None


# ch02_tokenizer/tokenizer.ipynb [coder-code]
class BPECoder(BPEVocabulary):
    """A vocabulary that also turns text into ids. Built in chapter 2."""

    cache_size = 100_000                             # words remembered

    def __init__(self, merges, special_tokens=SPECIAL_TOKENS,
                 pattern=GPT2_PATTERN):
        super().__init__(merges, special_tokens, pattern)
        self._split, self._cache = regex.compile(pattern).findall, {}

    def encode(self, text: str, allowed_special=()) -> list[int]:
        """The ids of `text`.

        Names of special tokens in it are plain text unless they are in
        `allowed_special` ("all", or a collection of names). TypeError if
        `text` is not a str, ValueError on half a character (a surrogate).
        """
        if not isinstance(text, str):
            raise TypeError(f"encode takes a str, not {type(text).__name__}")
        ids, known = [], self._cache
        for part in split_special(text, self.special_tokens, allowed_special):
            if isinstance(part, int):
                ids.append(part)
                continue
            for word in self._split(part):
                found = known.get(word)
                ids += self._encode_word(word) if found is None else found
        return ids

    def _encode_word(self, word: str) -> list[int]:
        ids = [self.vocab[bytes([byte])] for byte in to_utf8(word)]
        ids = merge_word(ids, self._ranks)
        if len(self._cache) < self.cache_size:
            self._cache[word] = ids
        return ids


# ch02_tokenizer/tokenizer.ipynb [tokenizer-json]
LETTERS = byte_alphabet()


def spell_token(token: bytes) -> str:
    """A token in GPT-2's printable alphabet. Built in chapter 2."""
    return token.decode("latin-1").translate(LETTERS)


def vocabulary_names(vocabulary) -> dict[str, int]:
    """{printable name: id}, as `vocab.json` has it. Built in chapter 2."""
    names = {spell_token(t): i for t, i in vocabulary.vocab.items()}
    return names | vocabulary.special_tokens


def tokenizer_json(vocabulary) -> str:
    """The text of `tokenizer.json`, for Hugging Face's `tokenizers`.

    Built in chapter 2.
    """
    plain = {"single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
    split = {"type": "Split", "pattern": {"Regex": vocabulary.pattern},
             "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False,
             "trim_offsets": True, "use_regex": False}
    names = vocabulary_names(vocabulary)
    ordinary = {n: i for n, i in names.items()
                if n not in vocabulary.special_tokens}
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": name, **plain}
                         for name, i in vocabulary.special_tokens.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": None, "decoder": level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None,
            "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False, "vocab": ordinary,
            "merges": [[spell_token(a), spell_token(b)]
                       for a, b in vocabulary.merges],
        },
    }, ensure_ascii=False, indent=1) + "\n"


# ch02_tokenizer/tokenizer.ipynb [read-merges]
def read_merges(path) -> list[tuple[bytes, bytes]]:
    """The merges of a `merges.txt` or `vocab.bpe`, as pairs of bytes.

    ValueError names the line that is not two printable tokens. Built in
    chapter 2.
    """
    byte = {letter: bytes([b]) for b, letter in byte_alphabet().items()}
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    first = 1 if lines[0].startswith("#version") else 0
    merges = []
    for number, line in enumerate(lines[first:], first + 1):
        parts = line.split(" ")
        if line == "":
            continue
        if len(parts) != 2 or not all(c in byte for p in parts for c in p):
            raise ValueError(f"{path}, line {number}: {line!r} is not a merge")
        merges.append(tuple(b"".join(byte[c] for c in p) for p in parts))
    return merges


# ch02_tokenizer/tokenizer.ipynb [read-pattern]
def read_special_and_pattern(path) -> tuple[list[str], str]:
    """Names of the special tokens and the pattern in a `tokenizer.json`.

    ValueError if they are not where this book's files have them. Built in
    chapter 2.
    """
    whole = read_json(path)
    try:
        names = [token["content"] for token in whole["added_tokens"]]
        split = whole["pre_tokenizer"]["pretokenizers"][0]
        return names, split["pattern"]["Regex"]
    except (KeyError, TypeError, IndexError):
        raise ValueError(
            f"{path} is not one of this book's: its pattern and special "
            "tokens are not where `BPETokenizer.save` puts them"
        ) from None


# ch02_tokenizer/tokenizer.ipynb [files-code]
class BPEFiles(BPECoder):
    """A coder that is saved and loaded. Built in chapter 2."""

    def save(self, folder) -> None:
        """Write vocab.json, merges.txt and tokenizer.json into `folder`."""
        names = json.dumps(vocabulary_names(self), ensure_ascii=False)
        lines = [f"{spell_token(a)} {spell_token(b)}" for a, b in self.merges]
        for name, text in (
            ("vocab.json", names + "\n"),
            ("merges.txt", "\n".join(["#version: 0.2", *lines, ""])),
            ("tokenizer.json", tokenizer_json(self)),
        ):
            with atomic_file(Path(folder) / name) as part:
                part.write_text(text, encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, folder):
        """The tokenizer that `save` wrote into `folder`.

        FileNotFoundError if a file is missing; ValueError if the three
        files do not describe one and the same vocabulary.
        """
        files = ("vocab.json", "merges.txt", "tokenizer.json")
        vocab, merges, whole = (Path(folder) / name for name in files)
        for file in vocab, merges, whole:
            if not file.exists():
                raise FileNotFoundError(
                    f"{file} is missing: `make ch02` makes a tokenizer"
                )
        found = cls(read_merges(merges), *read_special_and_pattern(whole))
        expected = json.loads(tokenizer_json(found)), vocabulary_names(found)
        if expected != (read_json(whole), read_json(vocab)):
            raise ValueError(
                f"vocab.json, merges.txt and tokenizer.json in {folder} belong "
                "to different vocabularies: copy all three from one place"
            )
        return found

    @classmethod
    def from_gpt2(cls, folder):
        """GPT-2's tokenizer: encoder.json and vocab.bpe in `folder`.

        The names vocab.json and merges.txt serve too. ValueError if the two
        do not belong together. Source: Radford et al. 2019.
        """
        folder = Path(folder)
        old = (folder / "encoder.json").exists()
        names = read_json(folder / ("encoder.json" if old else "vocab.json"))
        merges = read_merges(folder / ("vocab.bpe" if old else "merges.txt"))
        found = cls(merges, ("<|endoftext|>",), GPT2_PATTERN)
        if vocabulary_names(found) != names:
            raise ValueError(
                f"the ids in {folder} are not those that its merges give"
            )
        return found


# ch02_tokenizer/tokenizer.ipynb [document-text]
def document_text(document, number: int = 0) -> str:
    """The text of a str, of UTF-8 bytes, or of a dict with a "text".

    ValueError names the document by its number if it is none of these.
    Built in chapter 2.
    """
    text = document.get("text") if isinstance(document, dict) else document
    if isinstance(text, bytes):
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"document {number} is not UTF-8 (byte {text[error.start]:#x} "
                f"at {error.start}): repair it first, as chapter 1 does"
            ) from None
    if not isinstance(text, str):
        raise ValueError(
            f"document {number} has no text: expected a str or a dict with "
            f'"text", got {type(text).__name__}'
        )
    return text


# ch02_tokenizer/tokenizer.ipynb [tokenizer-code]
class BPETokenizer(BPEFiles):
    """Byte-level byte-pair encoding: train, encode, save, hand on.

    Attributes as in `BPEVocabulary`; `sha256` is the fingerprint of its
    `tokenizer.json`. Built in chapter 2.
    """

    @classmethod
    def train(cls, texts, vocab_size, special_tokens=SPECIAL_TOKENS,
              pattern=GPT2_PATTERN):
        """Learn a vocabulary of `vocab_size` ids, special tokens included.

        texts: iterable of str. It is smaller when no pair is left to merge.
        ValueError if there is no text or half a character, or if `vocab_size`
        has no room for bytes and special tokens, or is more than 16-bit ids
        can tell apart.
        """
        least = max(257, 256 + len(special_tokens))
        if not least <= vocab_size <= 65_536:
            raise ValueError(
                f"vocab_size is {vocab_size}: it must be at least {least} (256 "
                f"bytes and {len(special_tokens)} special tokens) and at most "
                "65,536 (ids are kept in 16 bits)"
            )
        split, counts = regex.compile(pattern).findall, Counter()
        for number, text in enumerate(texts):
            counts.update(split(document_text(text, number)))
        if not counts:
            raise ValueError("the corpus is empty: there is no text to learn")
        words = {to_utf8(word): n for word, n in counts.items()}
        room = vocab_size - 256 - len(special_tokens)
        return cls(learn_merges(words, room)[0], special_tokens, pattern)

    @property
    def sha256(self) -> str:
        """The SHA-256 of this tokenizer's `tokenizer.json`."""
        return hashlib.sha256(tokenizer_json(self).encode()).hexdigest()

    def to_tiktoken(self):
        """A `tiktoken.Encoding` with the same ids."""
        import tiktoken

        return tiktoken.Encoding(
            name=f"bpe-{self.vocab_size}", pat_str=self.pattern,
            mergeable_ranks=self.vocab, special_tokens=self.special_tokens,
        )

    def to_transformers(self):
        """A `transformers.PreTrainedTokenizerFast` with the same ids.

        It reads the names of special tokens in a text as control tokens,
        as `encode(text, allowed_special="all")` does here.
        """
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        end = "<|endoftext|>" if self.end_of_text is not None else None
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(tokenizer_json(self)),
            eos_token=end, pad_token=end, clean_up_tokenization_spaces=False,
        )


# ch02_tokenizer/tokenizer.ipynb [read-documents]
def read_documents(docs):
    """(text, nats) of each document, checked; nats are NaN where unknown.

    docs: iterable of str, of UTF-8 bytes or of dicts with "text" and maybe
    "nats". ValueError as from `document_text`. Built in chapter 2.
    """
    for number, document in enumerate(docs):
        text = document_text(document, number)
        nats = document.get("nats") if isinstance(document, dict) else None
        yield text, np.nan if nats is None else nats


# ch02_tokenizer/tokenizer.ipynb [encode-workers]
def start_encoder(encode):
    """What a helper does first: keep `encode`, and watch over its parent.

    Built in chapter 2.
    """
    def leave_with_parent():
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)  # the sentinel is ready once the parent is gone

    encode_block.encode = encode  # a global: blocks come without it
    threading.Thread(target=leave_with_parent, daemon=True).start()


def encode_block(texts):
    """Ids of each text, by a helper's encoder. Built in chapter 2."""
    return [array("H", encode_block.encode(text)) for text in texts]


# ch02_tokenizer/tokenizer.ipynb [encode-documents]
def encode_documents(documents, encode, workers=1):
    """(text, nats, ids) for each (text, nats), in order.

    encode: text to ids below 65,536. workers: processes that encode; with
    one it is done here, and so it is where helpers could not find these
    functions: in a notebook, on a system where forking is not safe. Built in
    chapter 2.
    """
    fork = sys.platform == "linux"
    if workers == 1 or not fork and encode_block.__module__ == "__main__":
        yield from ((text, nats, encode(text)) for text, nats in documents)
        return
    context = multiprocessing.get_context("fork" if fork else None)
    under_way = deque()
    with ProcessPoolExecutor(workers, context, start_encoder, [encode]) as pool:
        blocks = in_batches(documents, 1_000_000, lambda pair: len(pair[0]))
        for block in chain(blocks, [[]] * 2 * workers):
            work = pool.submit(encode_block, [text for text, _ in block])
            under_way.append((block, work))
            if len(under_way) > 2 * workers:
                block, work = under_way.popleft()
                for (text, nats), ids in zip(block, work.result()):
                    yield text, nats, ids


# ch02_tokenizer/tokenizer.ipynb [shard-writer]
class ShardWriter:
    """Ids in, files of `shard_tokens` ids out (uint16, little-endian).

    `shards` lists what was written: file, tokens, sha256. `tokens` counts
    all ids added. Built in chapter 2.
    """

    def __init__(self, folder, shard_tokens):
        self.folder, self.shard_tokens = Path(folder), shard_tokens
        self.shards, self.tokens, self._waiting = [], 0, array("H")

    def add(self, ids) -> None:
        """Append ids below 65,536; full shards go to disk."""
        self._waiting.extend(ids)
        self.tokens += len(ids)
        while len(self._waiting) >= self.shard_tokens:
            self._write(self._waiting[: self.shard_tokens])
            del self._waiting[: self.shard_tokens]

    def close(self) -> None:
        """Write what is left as the last, shorter shard."""
        if self._waiting:
            self._write(self._waiting)

    def _write(self, ids):
        file = self.folder / f"{len(self.shards):05d}.bin"
        np.array(ids, dtype="<u2").tofile(file)
        self.shards.append({"file": file.name, "tokens": len(ids),
                            "sha256": sha256_file(file)})


# ch02_tokenizer/tokenizer.ipynb [corpus-writer]
class CorpusWriter(ShardWriter):
    """Writes documents, and can take up the work of one that was stopped.

    stamp: what the ids depend on beside the texts, as a str. Attributes, as
    well as those of `ShardWriter`: `bytes`, and for each document `starts`
    (its first token) and `nats`. Built in chapter 2.
    """

    def __init__(self, folder, shard_tokens, stamp):
        super().__init__(folder, shard_tokens)
        self.starts, self.nats, self.bytes, self._noted = [], [], 0, 0
        self._digest = hashlib.sha256(f"{stamp} {shard_tokens}".encode())

    def write(self, text, nats, ids) -> None:
        """Append a document."""
        self._read(text, nats)
        self.starts.append(self.tokens)
        self.add(ids)

    def take_up(self, documents, encode) -> None:
        """Go on after the shards that have notes, if there are any.

        documents: iterator of (text, nats), read as far as shards are done.
        ValueError if they are not those of the notes.
        """
        expected = None
        while about := self._next_note():
            self.starts += about.pop("starts")
            expected = about.pop("digest")
            self.shards.append(about)
            self.tokens += about["tokens"]
        self._noted = len(self.starts)
        for text, nats in islice(documents, len(self.starts)):
            self._read(text, nats)
        if expected not in (None, self._digest.hexdigest()):
            raise ValueError(
                f"the shards in {self.folder} were begun with other documents, "
                "another tokenizer or another shard size: remove that folder"
            )
        if self.starts:  # the last document read may go on
            self.add(encode(text)[self.tokens - self.starts[-1] :])

    def _next_note(self):
        note = self.folder / f"{len(self.shards):05d}.json"
        about = read_json(note) if note.exists() else None
        file = note.with_suffix(".bin")
        whole = about and file.exists() and sha256_file(file) == about["sha256"]
        return about if whole else None

    def _read(self, text, nats):
        text = to_utf8(text)
        self.nats.append(nats)
        self.bytes += len(text)
        self._digest.update(b"%d %a " % (len(text), nats) + text)

    def _write(self, ids):
        super()._write(ids)
        if len(ids) == self.shard_tokens:
            note = self.folder / f"{len(self.shards) - 1:05d}.json"
            begun, self._noted = self.starts[self._noted :], len(self.starts)
            write_json(note, self.shards[-1] | {
                "starts": begun, "digest": self._digest.hexdigest()})


# ch02_tokenizer/tokenizer.ipynb [resumable-folder]
@contextlib.contextmanager
def resumable_folder(path):
    """Yield a hidden folder beside `path`, as an earlier attempt left it.

    If all goes well it is renamed over `path`; if not, it stays for the next
    attempt, unless no shard in it is whole. Built in chapter 2.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    try:
        yield part
    except BaseException:
        if not any(part.glob("[0-9]*.json")):
            shutil.rmtree(part)
        raise
    with atomic_folder(path) as whole:
        whole.rmdir()  # ours takes the place of the empty one
        os.replace(part, whole)


# ch02_tokenizer/tokenizer.ipynb [write-index]
def write_index(folder, writer, tokenizer) -> dict:
    """Write what a `CorpusWriter` knows beside its shards; return the index.

    Files that the index does not name are removed. Built in chapter 2.
    """
    np.save(folder / "starts.npy", np.array(writer.starts, dtype=np.uint64))
    np.save(folder / "nats.npy", np.array(writer.nats, dtype=np.float64))
    total = float(np.sum(writer.nats))
    index = {
        "tokenizer_sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size, "tokens": writer.tokens,
        "bytes": writer.bytes, "nats": None if np.isnan(total) else total,
        "documents": len(writer.starts), "shards": writer.shards,
        "sha256": {name: sha256_file(folder / name)
                   for name in ("starts.npy", "nats.npy")},
    }
    write_json(folder / "index.json", index)
    named = {"index.json", *index["sha256"]}
    named |= {shard["file"] for shard in writer.shards}
    for file in Path(folder).iterdir():
        if file.name not in named:
            file.unlink()
    return index


# ch02_tokenizer/tokenizer.ipynb [write-shards]
def write_shards(docs, tokenizer, folder, split="train",
                 shard_tokens=100_000_000, encode=None, workers=1,
                 resume=False) -> dict:
    """Write documents as token ids into folder/split; return the index.

    docs: iterable of str or dicts with "text" and maybe "nats"; each one's
    ids are followed by <|endoftext|>. shard_tokens: ids a file, 2 bytes each.
    encode: text to ids, if not `tokenizer.encode`; for a large corpus take
    `tokenizer.to_tiktoken().encode_ordinary`. workers: processes that
    encode; the files do not depend on it (except on Linux, `encode` must be
    picklable). resume: keep whole shards when stopped, and go on from those
    that an earlier attempt kept.
    Written: the shards, `starts.npy` (uint64, first token of each document),
    `nats.npy` (float64, NaN if unknown), `index.json`. ValueError if the
    vocabulary does not fit 16 bits or has no <|endoftext|>, if there is no
    text (then nothing is left behind), or if an earlier attempt had other
    documents. Built in chapter 2.
    """
    end, encode = tokenizer.end_of_text, encode or tokenizer.encode
    if tokenizer.vocab_size > 65_536 or end is None:
        raise ValueError(
            "shards need a vocabulary with <|endoftext|> and at most 65,536 "
            f"ids; this one has {tokenizer.vocab_size} ids, {end=}"
        )
    place = resumable_folder if resume else atomic_folder
    with place(Path(folder) / split) as part:
        documents = read_documents(docs)
        writer = CorpusWriter(part, shard_tokens, tokenizer.sha256)
        writer.take_up(documents, lambda text: [*encode(text), end])
        for text, nats, ids in encode_documents(documents, encode, workers):
            writer.write(text, nats, [*ids, end])
        if writer.bytes == 0:
            raise ValueError(f"the {split} corpus is empty: nothing to write")
        writer.close()
        return write_index(part, writer, tokenizer)


# ch02_tokenizer/tokenizer.ipynb [token-array]
class TokenArray:
    """Several memory-mapped shards as one array of ids, read by slices.

    Built in chapter 2.
    """

    dtype, ndim = np.dtype("<u2"), 1

    def __init__(self, shards):
        self._shards = shards
        self._ends = np.cumsum([len(shard) for shard in shards])
        self.shape = (int(self._ends[-1]),)

    def __len__(self):
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        return np.concatenate(self._shards).astype(dtype or self.dtype)

    def __getitem__(self, key):
        """Ids at an int, a slice, or an array of positions."""
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                return self[np.arange(start, stop, step)]
            first = np.searchsorted(self._ends, start, side="right")
            parts = []
            for shard, end in zip(self._shards[first:], self._ends[first:]):
                begin = end - len(shard)
                if begin >= stop:
                    break
                parts.append(shard[max(0, start - begin) : stop - begin])
            return np.concatenate(parts or [np.empty(0, self.dtype)])
        at = np.asarray(key)
        if at.size and not -len(self) <= at.min() <= at.max() < len(self):
            raise IndexError(f"position outside of {len(self)} tokens")
        at = at % len(self)
        which = np.searchsorted(self._ends, at, side="right")
        ids = np.empty(at.shape, self.dtype)
        for number in np.unique(which):
            shard, here = self._shards[number], which == number
            ids[here] = shard[at[here] - (self._ends[number] - len(shard))]
        return ids[()]


# ch02_tokenizer/tokenizer.ipynb [token-dataset]
class TokenDataset(Dataset):
    """Windows of `context` ids and the same, one place on.

    folder, split: where `write_shards` wrote. tokenizer: if given, it must be
    the one that wrote them. `dataset[i]` is (x, y), two int64 tensors of
    shape (context,). Attributes: `tokens` (all ids, a 1-D array), `index`,
    `starts`, `nats`, `vocab_size`. FileNotFoundError if there are no shards;
    ValueError if a file is cut short or altered (SHA-256), if they come from
    another tokenizer, or if there are too few tokens for one window.
    Built in chapter 2.
    """

    def __init__(self, folder, split, context, tokenizer=None):
        folder = Path(folder) / split
        if not (folder / "index.json").exists():
            raise FileNotFoundError(
                f"{folder} holds no shards: run `make ch02` first"
            )
        self.index, self.context = read_json(folder / "index.json"), context
        files = {s["file"]: s["sha256"] for s in self.index["shards"]}
        for name, expected in (files | self.index["sha256"]).items():
            file = folder / name
            if not file.exists() or sha256_file(file) != expected:
                raise ValueError(
                    f"{file} is cut short or altered (its SHA-256 is not the "
                    "one in index.json): write the shards again, `make ch02`"
                )
        sha256 = self.index["tokenizer_sha256"]
        if tokenizer is not None and tokenizer.sha256 != sha256:
            raise ValueError(
                f"the shards in {folder} were written with another tokenizer: "
                "use the one beside them, or run `make ch02` again"
            )
        shards = [np.memmap(folder / n, dtype="<u2", mode="r") for n in files]
        self.tokens = shards[0] if len(shards) == 1 else TokenArray(shards)
        self.starts = np.load(folder / "starts.npy", allow_pickle=False)
        self.nats = np.load(folder / "nats.npy", allow_pickle=False)
        self.vocab_size = self.index["vocab_size"]
        if len(self) < 1:
            raise ValueError(
                f"{folder} has {len(self.tokens)} tokens, and one window of "
                f"context {context} needs {context + 1}: bring more text, or "
                "choose a shorter context"
            )

    def __len__(self):
        return (len(self.tokens) - 1) // self.context

    def __getitem__(self, i):
        if not -len(self) <= i < len(self):
            raise IndexError(f"window {i} of {len(self)}")
        start = (i % len(self)) * self.context
        ids = self.tokens[start : start + self.context + 1].astype(np.int64)
        return torch.from_numpy(ids[:-1]), torch.from_numpy(ids[1:])


# ch03_attention/attention.ipynb [ch03-sdpa]
def scaled_dot_product_attention(q, k, v, mask=None):
    """Attention as the equation has it: softmax(q kᵀ / √D) v.

    q: (..., T, D) queries; k: (..., S, D) keys; v: (..., S, D) values.
    mask: bool, broadcastable to (..., T, S), True where a query may look;
    every query must be allowed at least one key, or its output is NaN.
    Returns (..., T, D). Keeps a (..., T, S) tensor of weights in memory.
    Source: Vaswani et al. 2017, equation 1. Built in chapter 3.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., T, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return torch.softmax(scores, dim=-1) @ v


# ch03_attention/attention.ipynb [ch03-causal-mask]
def causal_mask(t, s=None, device=None, window=None):
    """Who may look at whom: bool (T, S), True where key j ≤ query i.

    t: number of queries; s: number of keys (default t). With s > t the
    queries are the last t of the s positions, as they are behind a cache.
    window: how many positions a query sees, itself included (default: all).
    Raises ValueError when s < t or window < 1. Built in chapter 3.
    """
    s = t if s is None else s
    if s < t:
        raise ValueError(f"{t} queries cannot stand at the end of {s} keys")
    every = torch.ones(t, s, dtype=torch.bool, device=device)
    mask = every.tril(diagonal=s - t)
    if window is None:
        return mask
    if window < 1:
        raise ValueError(f"a window holds at least 1 position, not {window}")
    return mask.triu(diagonal=s - t - window + 1)


# ch03_attention/attention.ipynb [ch03-rope-frequencies]
def rope_frequencies(d_head, theta=10000.0, device=None):
    """Angle in radians by which each pair turns per position: (D/2,).

    d_head: width of a head, even; theta: base, the slowest pair turns
    theta^(2/D) / theta of a radian a position. Raises ValueError if d_head is
    odd. Source: Su et al. 2021, section 3.2.2. Built in chapter 3.
    """
    if d_head % 2:
        raise ValueError(f"RoPE turns pairs: d_head must be even, not {d_head}")
    pair = torch.arange(0, d_head, 2, dtype=torch.float32, device=device)
    return theta ** (-pair / d_head)


# ch03_attention/attention.ipynb [ch03-rope-table]
def rope_table(positions, frequencies):
    """Cosine and sine of every angle: two float32 tensors (..., T, D/2).

    positions: (..., T) integers; frequencies: (D/2,). Built in chapter 3.
    """
    angles = positions[..., None].float() * frequencies  # (..., T, D/2)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """Turn each pair (x[i], x[i + D/2]) by its angle: (..., T, D).

    x: (..., T, D); cos, sin: broadcastable to (..., T, D/2). The first half
    is paired with the second, as in the `transformers` layout of Llama (the
    paper and Meta's own weights pair neighbours). The product is taken in
    x's own dtype. Built in chapter 3.
    """
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    a, b = x.unflatten(-1, (2, -1)).unbind(-2)  # the two halves
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def apply_rope(x, positions, theta=10000.0):
    """Rotary position embedding: x (..., T, D) turned by its positions.

    positions: (T,) or broadcastable to x's (..., T); theta: the base, or the
    (D/2,) tensor that `rope_frequencies` returns.
    Raises ValueError if D is odd. Source: Su et al. 2021, equation 34, but
    paired as `rotate` says. Built in chapter 3.
    """
    if not torch.is_tensor(theta):
        theta = rope_frequencies(x.shape[-1], theta, x.device)
    return rotate(x, *rope_table(positions, theta))


# ch03_attention/attention.ipynb [ch03-kvcache]
class KVCache:
    """The keys and values of one attention layer, for positions already read.

    `length` is the number of positions held. What is kept carries no
    gradient: a cache serves generation. Built in chapter 3.
    """

    def __init__(self):
        self.length = 0
        self.kept = None  # (2, B, G, room, D): keys, then values

    def update(self, k, v):
        """Append k, v (B, G, T, D); return all (B, G, length, D) so far.

        Raises ValueError if batch, heads or width differ from what is held.
        """
        B, G, T, D = k.shape
        start, end = self.length, self.length + T
        if self.kept is None:
            self.kept = k.new_empty(2, B, G, max(64, end), D)
        room = self.kept.shape[3]
        if self.kept.shape != (2, B, G, room, D):
            held = self.kept.shape[1], self.kept.shape[2], self.kept.shape[4]
            raise ValueError(f"the cache holds (B, G, D) = {held}, but "
                             f"{B, G, D} came: use a new cache")
        if end > room:
            more = self.kept.new_empty(2, B, G, max(room, end - room), D)
            self.kept = torch.cat((self.kept, more), dim=3)
        keys, values = self.kept.narrow(3, 0, end).unbind(0)
        keys.narrow(2, start, T).copy_(k.detach())
        values.narrow(2, start, T).copy_(v.detach())
        self.length = end
        return keys, values

    def trim(self, n):
        """Forget all but the first n positions (0 ≤ n ≤ length)."""
        if not 0 <= n <= self.length:
            raise ValueError(f"cannot keep {n} of {self.length} positions")
        self.length = n


# ch03_attention/attention.ipynb [ch03-flash-tile]
def _tiles(T, S, block, causal):
    """Pairs of (rows, list of columns), as slices; none beyond the mask."""
    for i in range(0, T, block):
        rows = slice(i, min(i + block, T))
        end = min(S, rows.stop + S - T) if causal else S
        yield rows, [slice(j, min(j + block, end))
                     for j in range(0, end, block)]


def _tile_scores(q, k, rows, cols, causal):
    """Scores of one tile, (..., rows, cols), with the future at -inf."""
    s = q[..., rows, :] @ k[..., cols, :].mT / math.sqrt(q.shape[-1])
    ahead = k.shape[-2] - q.shape[-2]  # keys before the first query's own
    if causal and cols.stop - 1 > rows.start + ahead:
        i = torch.arange(rows.start, rows.stop, device=q.device) + ahead
        j = torch.arange(cols.start, cols.stop, device=q.device)
        s = s.masked_fill(j > i[:, None], float("-inf"))
    return s


# ch03_attention/attention.ipynb [ch03-flash-forward]
def _flash_forward(q, k, v, block, causal):
    """Output (..., T, D) and log-sum-exp (..., T), tile by tile."""
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:-1])
    for rows, blocks in _tiles(q.shape[-2], k.shape[-2], block, causal):
        top = q.new_full(q[..., rows, 0].shape, float("-inf"))
        total = torch.zeros_like(top)
        acc = torch.zeros_like(q[..., rows, :])
        for cols in blocks:
            s = _tile_scores(q, k, rows, cols, causal)
            new_top = torch.maximum(top, s.amax(-1))
            p = torch.exp(s - new_top[..., None])
            shrink = torch.exp(top - new_top)
            total = shrink * total + p.sum(-1)
            acc = shrink[..., None] * acc + p @ v[..., cols, :]
            top = new_top
        out[..., rows, :] = acc / total[..., None]  # the one division
        lse[..., rows] = top + total.log()
    return out, lse


# ch03_attention/attention.ipynb [ch03-flash-backward]
def _flash_backward(q, k, v, out, lse, d_out, block, causal):
    """Gradients of q, k and v; every tile is computed a second time."""
    dq, dk, dv = (torch.zeros_like(z) for z in (q, k, v))
    delta = (d_out * out).sum(-1, keepdim=True)  # (..., T, 1)
    scale = 1 / math.sqrt(q.shape[-1])
    for rows, blocks in _tiles(q.shape[-2], k.shape[-2], block, causal):
        do = d_out[..., rows, :]
        for cols in blocks:
            s = _tile_scores(q, k, rows, cols, causal)
            p = torch.exp(s - lse[..., rows, None])
            ds = p * (do @ v[..., cols, :].mT - delta[..., rows, :]) * scale
            dv[..., cols, :] += p.mT @ do
            dk[..., cols, :] += ds.mT @ q[..., rows, :]
            dq[..., rows, :] += ds @ k[..., cols, :]
    return dq, dk, dv


# ch03_attention/attention.ipynb [ch03-flash-public]
class _FlashAttention(torch.autograd.Function):
    """Tells autograd which backward belongs to which forward."""

    @staticmethod
    def forward(ctx, q, k, v, block, causal):
        out, lse = _flash_forward(q, k, v, block, causal)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.rest = block, causal
        return out

    @staticmethod
    def backward(ctx, d_out):
        return *_flash_backward(
            *ctx.saved_tensors, d_out, *ctx.rest), None, None


def flash_attention(q, k, v, block=64, causal=True):
    """Attention in tiles of block × block: no tensor of T × S is ever made.

    q: (B, H, T, D); k, v: (B, G, S, D) with G dividing H and, if causal,
    S ≥ T (the queries are the last T positions). Returns (B, H, T, D),
    differentiable; equal to `scaled_dot_product_attention` up to rounding.
    Raises ValueError on block < 1 or shapes that do not fit.
    Source: Dao 2023, algorithm 1, and 2 with its two loops exchanged. Built
    in chapter 3.
    """
    T, S = q.shape[-2], k.shape[-2]
    repeats, rest = divmod(q.shape[1], k.shape[1])
    if block < 1 or rest or (causal and S < T):
        raise ValueError(
            f"block {block} must be positive, {k.shape[1]} key heads must "
            f"divide {q.shape[1]} query heads, and {T} causal queries need "
            f"as many keys, not {S}"
        )
    k, v = (z.repeat_interleave(repeats, dim=1) for z in (k, v))
    return _FlashAttention.apply(q, k, v, block, causal)


# ch03_attention/attention.ipynb [ch03-attend]
def dense_attention(q, k, v):
    """Causal attention as two batched products; q, k, v: (B, H, T, D).

    The equation again, with scale, mask and product in one call: quicker than
    the kernel on CPUs with bfloat16 instructions. Holds (B, H, T, T). Built
    in chapter 3.
    """
    B, H, T, D = q.shape
    never = q.new_full((T, T), float("-inf")).triu(1)
    q, k, v = (z.reshape(B * H, T, D) for z in (q, k, v))
    scores = torch.baddbmm(never, q, k.mT, alpha=1 / math.sqrt(D))
    return (scores.softmax(-1) @ v).view(B, H, T, D)


# ch03_attention/attention.ipynb [ch03-window-code]
def window_attention(q, k, v, window, dropout=0.0):
    """Causal attention to the last `window` positions, block by block.

    q, k, v: (B, H, T, D); dropout: on the weights. Returns (B, H, T, D).
    A query sees itself and the `window` - 1 positions before it, as under
    `causal_mask(T, window=window)`; time and memory grow with T · window.
    Raises ValueError if window < 1. Source: Beltagy et al. 2020, section
    3.1, with blocks of keys that overlap. Built in chapter 3.
    """
    B, T, size = q.shape[0], q.shape[2], max(window, 64)
    n = -(-T // size)  # blocks, the last one filled up
    q, k, v = (F.pad(z, (0, 0, 0, n * size - T)).unflatten(2, (n, size))
               for z in (q, k, v))  # (B, H, n, size, D)
    k, v = (torch.cat((z.roll(1, dims=2), z), dim=3) for z in (k, v))
    near = causal_mask(size, 2 * size, q.device, window)
    near = near.repeat(n, 1, 1)  # (n, size, 2 size)
    near[0, :, :size] = False  # nothing is before the first block
    q, k, v = (z.transpose(1, 2).flatten(0, 1) for z in (q, k, v))
    y = F.scaled_dot_product_attention(
        q, k, v, near.repeat(B, 1, 1)[:, None], dropout)  # (B n, H, size, D)
    return y.unflatten(0, (B, n)).transpose(1, 2).flatten(2, 3)[:, :, :T]


# ch03_attention/attention.ipynb [ch03-projections]
class _Projections(nn.Module):
    """From x (B, T, C) to queries, keys and values by heads, and back."""

    def __init__(self, d_model, n_head, n_kv_head, bias, qk_norm, norm_eps):
        super().__init__()
        if n_head < 1 or d_model % n_head:
            raise ValueError(
                f"d_model {d_model} does not divide among {n_head} heads")
        if n_kv_head < 1 or n_head % n_kv_head:
            raise ValueError(f"{n_head} query heads cannot share {n_kv_head} "
                             "key-value heads evenly")
        self.n_head, self.n_kv_head = n_head, n_kv_head
        self.d_head = d_model // n_head
        width = n_kv_head * self.d_head
        self.q_proj = nn.Linear(d_model, d_model, bias=bias)
        self.k_proj = nn.Linear(d_model, width, bias=bias)
        self.v_proj = nn.Linear(d_model, width, bias=bias)
        self.o_proj = nn.Linear(d_model, d_model, bias=bias)
        self.q_norm = self.k_norm = None
        if qk_norm:
            self.q_norm = nn.RMSNorm(self.d_head, eps=norm_eps)
            self.k_norm = nn.RMSNorm(self.d_head, eps=norm_eps)


def _head_norm(x, norm):
    """RMS norm over the head width, in x's dtype (so the kernel is fused)."""
    weight = norm.weight.to(x.dtype)
    return F.rms_norm(x, weight.shape, weight, norm.eps)


# ch03_attention/attention.ipynb [ch03-choose]
def _attend(q, k, v, mask, window, dropout):
    """Attention of T queries at the end of S keys, in the quickest way.

    q: (B, H, T, D); k, v: (B, G, S, D). Without a mask: causal, within the
    window, if there is one.
    """
    H, G = q.shape[1], k.shape[1]
    k, v = k.to(q.dtype), v.to(q.dtype)
    heads_alike = mask is None or mask.dim() < 3 or mask.shape[-3] == 1
    if G < H and q.shape[2] == 1 and heads_alike:
        rows = q.reshape(len(q), G, H // G, -1)  # a group's queries as rows
        return F.scaled_dot_product_attention(
            rows, k, v, attn_mask=mask, dropout_p=dropout).view(q.shape)
    if G < H:
        k, v = (z.repeat_interleave(H // G, dim=1) for z in (k, v))
    T, S = q.shape[-2], k.shape[-2]
    if window is not None and window >= S:
        window = None  # it holds them all
    if mask is None and T == S and window and T > 2 * max(window, 64):
        return window_attention(q, k, v, window, dropout)
    if mask is None and T > 1 and (T < S or window):
        mask = causal_mask(T, S, q.device, window)
    causal = mask is None and T == S
    if (q.dtype == torch.bfloat16 and q.device.type == "cpu"
            and causal and not dropout and 1 < T <= 1024):
        return dense_attention(q, k, v)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, dropout_p=dropout)


def _recent(k, v, mask, T, window):
    """k, v (B, G, S, D) and mask, without what no query's window holds."""
    S = k.shape[-2]
    start = max(0, S - T - window + 1)
    if mask is not None:
        mask = (mask & causal_mask(T, S, k.device, window))[..., start:]
    return k[..., start:, :], v[..., start:, :], mask


# ch03_attention/attention.ipynb [ch03-mha]
class MultiHeadAttention(_Projections):
    """Causal self-attention with H query heads sharing G key-value heads.

    d_model: width C; n_head: H; n_kv_head: G (default H: multi-head;
    1: multi-query; between: grouped-query). bias: on all four projections.
    rope_theta: base of RoPE, None for no rotation. qk_norm: RMS-normalise
    queries and keys per head, before RoPE. dropout: on the weights. window:
    positions that one sees, itself included (None: all that came before).
    Raises ValueError if H does not divide C, G not H, or window < 1.
    Sources: Vaswani et al. 2017; Ainslie et al. 2023. Built in chapter 3.
    """

    def __init__(self, d_model, n_head, n_kv_head=None, bias=False,
                 rope_theta=None, qk_norm=False, dropout=0.0, norm_eps=1e-6,
                 window=None):
        super().__init__(d_model, n_head, n_head if n_kv_head is None
                         else n_kv_head, bias, qk_norm, norm_eps)
        if rope_theta is not None and self.d_head % 2:
            raise ValueError(f"RoPE needs an even d_head, not {self.d_head}")
        if window is not None and window < 1:
            raise ValueError(f"a window holds at least 1 position: {window}")
        self.rope_theta, self.dropout = rope_theta, dropout
        self.window = window

    def project(self, x, past=0, rope=None):
        """x (B, T, C) to q (B, H, T, D) and k, v (B, G, T, D), turned."""
        q, k, v = (
            p(x).unflatten(-1, (-1, self.d_head)).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj))
        if self.q_norm is not None:
            q, k = _head_norm(q, self.q_norm), _head_norm(k, self.k_norm)
        if self.rope_theta is not None:
            if rope is None:
                at = torch.arange(past, past + x.shape[1], device=x.device)
                rope = rope_table(at, rope_frequencies(
                    self.d_head, self.rope_theta, x.device))
            q, k = rotate(q, *rope), rotate(k, *rope)
        return q, k, v

    def forward(self, x, cache=None, mask=None, rope=None):
        """x (B, T, C) to (B, T, C); each position sees itself and the past.

        cache: a KVCache of earlier positions, extended in place; mask: bool,
        broadcastable to (B, H, T, S), instead of the causal one (a window
        narrows it); rope: the (cos, sin) of `rope_table`, to share one table
        among layers.
        """
        T, past = x.shape[1], 0 if cache is None else cache.length
        q, k, v = self.project(x, past, rope)
        if cache is not None:
            k, v = cache.update(k, v)
        if self.window and (past or mask is not None):
            k, v, mask = _recent(k, v, mask, T, self.window)
        y = _attend(q, k, v, mask, self.window,
                    self.dropout if self.training else 0.0)
        return self.o_proj(y.transpose(1, 2).flatten(2))


# ch03_attention/attention.ipynb [ch03-weights]
@torch.no_grad()
def attention_weights(layer, x):
    """The weights (B, H, T, T) that a MultiHeadAttention gives x (B, T, C).

    For looking at; the layer itself never keeps them. Built in chapter 3.
    """
    q, k, _ = layer.project(x)
    k = k.repeat_interleave(layer.n_head // layer.n_kv_head, dim=1)
    scores = q @ k.mT / math.sqrt(layer.d_head)
    seen = causal_mask(x.shape[1], device=x.device, window=layer.window)
    return scores.masked_fill(~seen, float("-inf")).softmax(-1)


# ch04_model/model.ipynb [ch04-presets]
_SIZES = ("vocab_size", "context_length", "n_layer", "n_head", "n_kv_head",
          "d_model", "d_ff")
_CHOICES = {
    "norm": ("layernorm", "rmsnorm"),
    "norm_position": ("pre", "post"),
    "activation": ("gelu", "gelu_tanh", "swiglu", "relu2"),
    "position": ("learned", "rope", "none"),
    "init": ("scaled", "plain", "zero"),
}
_PRESETS = {
    "smoke": dict(vocab_size=768, context_length=256, n_layer=3, n_head=3,
                  n_kv_head=1, d_model=96, d_ff=256, tie_embeddings=False),
    "pocket": dict(vocab_size=2048, context_length=512, n_layer=4, n_head=3,
                   n_kv_head=1, d_model=192, d_ff=512, tie_embeddings=False),
    "gpt2-124m": dict(n_head=6, d_ff=2048, pad_vocab_to=64),
    "gpt2-124m-classic": dict(
        norm="layernorm", norm_eps=1e-5, activation="gelu_tanh",
        position="learned", bias=True, qk_norm=False),
}


def _check_config(c):
    """Raise ValueError where the fields of a ModelConfig do not fit."""
    for name, allowed in _CHOICES.items():
        if getattr(c, name) not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, "
                             f"not {getattr(c, name)!r}")
    window = [] if c.window is None else ["window"]
    for name in (*_SIZES, "pad_vocab_to", *window):
        value = getattr(c, name)
        if not isinstance(value, int) or value < 1:
            raise ValueError(
                f"{name} must be a whole number from 1, not {value!r}")
    if c.d_model % c.n_head or c.n_head % c.n_kv_head:
        raise ValueError(
            f"n_head {c.n_head} must divide d_model {c.d_model}, and "
            f"n_kv_head {c.n_kv_head} must divide n_head")
    if c.logit_softcap is not None and c.logit_softcap <= 0:
        raise ValueError(
            f"logit_softcap must be above 0, not {c.logit_softcap}")
    if c.mup_base_width is not None and not c.mup_base_width > 0:
        raise ValueError("mup_base_width must be a width above 0, or None, "
                         f"not {c.mup_base_width!r}")
    if c.position == "rope" and c.d_head % 2:
        raise ValueError(f"RoPE needs an even d_head, not {c.d_head}")


# ch04_model/model.ipynb [ch04-config-code]
@dataclass
class ModelConfig:
    """Everything that decides a model's shape. Built in chapter 4.

    vocab_size V, context_length (largest T), n_layer L, n_head H,
    n_kv_head G (None: H), d_model C, d_ff: width of the feed-forward layer
    (None: 4 C). norm: "layernorm" or "rmsnorm", with norm_eps and
    norm_position "pre" or "post". activation: "gelu", "gelu_tanh",
    "swiglu" or "relu2". position: "learned", "rope" or "none".
    rope_theta: RoPE's base. window: words that attention sees (None: all).
    qk_norm: queries and keys are normed. tie_embeddings: the head is the
    embedding's table. bias: in matrices and in LayerNorm. dropout: share of
    numbers set to 0 in training. init_std: deviation of first weights.
    init: "scaled" (writers into the residual smaller by 1/√(2L)), "plain" or
    "zero".
    logit_softcap: logits z become cap · tanh(z / cap). pad_vocab_to: rows
    of embedding and head are rounded up to a multiple of this.
    mup_base_width: the width that the learning rates were found at (µP, in
    the lab on ablations; None: without).
    Raises ValueError on values that do not fit together.
    """

    vocab_size: int = 50257
    context_length: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_kv_head: int | None = None
    d_model: int = 768
    d_ff: int | None = None
    norm: str = "rmsnorm"
    norm_eps: float = 1e-6
    norm_position: str = "pre"
    activation: str = "swiglu"
    position: str = "rope"
    rope_theta: float = 10000.0
    window: int | None = None
    tie_embeddings: bool = True
    bias: bool = False
    qk_norm: bool = True
    dropout: float = 0.0
    init: str = "scaled"
    init_std: float = 0.02
    logit_softcap: float | None = None
    pad_vocab_to: int = 1
    mup_base_width: int | None = None

    def __post_init__(self):
        if self.n_kv_head is None:
            self.n_kv_head = self.n_head
        if self.d_ff is None:
            self.d_ff = 4 * self.d_model
        _check_config(self)

    @property
    def d_head(self):
        """Width D of one head."""
        return self.d_model // self.n_head

    @property
    def vocab_rows(self):
        """Rows of the embedding: vocab_size, rounded up."""
        return -(-self.vocab_size // self.pad_vocab_to) * self.pad_vocab_to

    @property
    def mup_scale(self):
        """Base width over width, µP's one factor; 1 without µP."""
        return (self.mup_base_width or self.d_model) / self.d_model

    def to_dict(self):
        """All fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values):
        """The inverse of `to_dict`; ValueError names an unknown field."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(
                f"unknown in a ModelConfig: {', '.join(sorted(unknown))}"
            )
        return cls(**values)

    @classmethod
    def preset(cls, name, **changes):
        """"smoke", "pocket", "gpt2-124m" or "gpt2-124m-classic".

        changes: fields to set otherwise, for example vocab_size.
        """
        if name not in _PRESETS:
            raise ValueError(
                f"no preset {name!r}: there are {', '.join(_PRESETS)}"
            )
        return cls(**{**_PRESETS[name], **changes})


# ch04_model/model.ipynb [ch04-layernorm]
class LayerNorm(nn.Module):
    """Each vector minus its mean, over its standard deviation, times a
    learned weight, plus a learned bias (unless bias=False).

    x (..., C) to (..., C). eps is added to the variance, so that a vector
    without any spread gives zeros and not 0/0.
    Source: Ba et al. 2016. Built in chapter 4.
    """

    def __init__(self, d_model, eps=1e-5, bias=True):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None

    def forward(self, x):
        """x (..., C) to (..., C), by PyTorch's fused kernel."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        weight = self.weight.to(x.dtype)
        return F.layer_norm(x, weight.shape, weight, bias, self.eps)


# ch04_model/model.ipynb [ch04-rmsnorm]
class RMSNorm(nn.Module):
    """Each vector over its root mean square, times a learned weight.

    x (..., C) to (..., C). Nothing is subtracted and there is no bias.
    Source: Zhang and Sennrich 2019. Built in chapter 4.
    """

    def __init__(self, d_model, eps=1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x):
        """x (..., C) to (..., C), by PyTorch's fused kernel."""
        weight = self.weight.to(x.dtype)  # else the kernel is not fused
        return F.rms_norm(x, weight.shape, weight, self.eps)


# ch04_model/model.ipynb [ch04-feed-code]
def gelu_tanh(z):
    """GELU as GPT-2 computes it, of any shape.

    ½ z (1 + tanh u) with u = √(2/π) (z + 0.044715 z³). Where
    `torch.compile` makes the loop, as z σ(2u), the same number by one
    exponential. Source: Hendrycks and Gimpel 2016. Built in chapter 4.
    """
    if not torch.compiler.is_compiling():
        return F.gelu(z, approximate="tanh")
    u = math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)
    return z * torch.sigmoid(2 * u)


class FeedForward(nn.Module):
    """Two matrices with a bend between them, at each position alone.

    activation: "gelu", "gelu_tanh" (GPT-2's), "relu2" (the square of the
    ReLU) or "swiglu" (a third matrix whose output gates the second).
    x (B, T, C) to (B, T, C). Sources: Hendrycks and Gimpel 2016; Shazeer
    2020; So et al. 2021. Built in chapter 4.
    """

    def __init__(self, d_model, d_ff, activation="swiglu", bias=False):
        super().__init__()
        self.activation = activation
        if activation == "swiglu":
            self.gate_proj = nn.Linear(d_model, d_ff, bias=bias)
        self.up_proj = nn.Linear(d_model, d_ff, bias=bias)
        self.down_proj = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x):
        """x (B, T, C) to (B, T, C)."""
        if self.activation == "swiglu":
            h = F.silu(self.gate_proj(x)) * self.up_proj(x)
        else:
            h = self.bend(self.up_proj(x))
        return self.down_proj(h)

    def bend(self, h):
        """The curve between two matrices, without a gate; h of any shape."""
        if self.activation == "relu2":
            return F.relu(h).square()
        return gelu_tanh(h) if self.activation == "gelu_tanh" else F.gelu(h)


# ch04_model/model.ipynb [ch04-make-norm]
def make_norm(config, width=None):
    """The norm that `config` asks for, over `width` (default d_model).

    Built in chapter 4.
    """
    width = config.d_model if width is None else width
    if config.norm == "layernorm":
        return LayerNorm(width, config.norm_eps, config.bias)
    return RMSNorm(width, config.norm_eps)


# ch04_model/model.ipynb [ch04-block-code]
class Block(nn.Module):
    """One layer: attention, then feed-forward, each added to the stream.

    Pre-norm: x + f(norm(x)). Post-norm: norm(x + f(x)), as in 2017.
    Source: Xiong et al. 2020, figure 1. Built in chapter 4.
    """

    def __init__(self, config):
        super().__init__()
        self.post_norm = config.norm_position == "post"
        self.attention_norm = make_norm(config)
        self.attention = MultiHeadAttention(
            config.d_model, config.n_head, config.n_kv_head, config.bias,
            config.rope_theta if config.position == "rope" else None,
            config.qk_norm, config.dropout, config.norm_eps, config.window,
        )
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = FeedForward(
            config.d_model, config.d_ff, config.activation, config.bias
        )
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x, cache=None, mask=None, rope=None):
        """x (B, T, C) to (B, T, C); the rest as in MultiHeadAttention."""
        if self.post_norm:
            y = self.attention(x, cache, mask, rope)
            x = self.attention_norm(x + self.drop(y))
            return self.feed_forward_norm(x + self.drop(self.feed_forward(x)))
        y = self.attention(self.attention_norm(x), cache, mask, rope)
        x = x + self.drop(y)
        return x + self.drop(self.feed_forward(self.feed_forward_norm(x)))


# ch04_model/model.ipynb [ch04-init-code]
def initialise(model, generator=None):
    """Fill a GPT's weights from a local generator; biases 0, norms 1.

    Matrices and embeddings are drawn with deviation `init_std`. The two that
    write into the residual stream are smaller by 1/√(2 n_layer) if
    config.init is "scaled", and 0 if it is "zero"; under µP those of the
    blocks are smaller by the root of base width over width. The numbers are
    drawn on the CPU, so that every device starts from the same weights. On
    the meta device nothing is done. generator: torch.Generator (default:
    seed 0). Returns the model. Source: Radford et al. 2019, section 2.3.
    Built in chapter 4.
    """
    config = model.config
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    factors = {"plain": 1.0, "zero": 0.0,
               "scaled": 1 / math.sqrt(2 * config.n_layer)}
    for name, p in model.named_parameters():
        if p.is_meta:
            continue
        with torch.no_grad():
            if p.dim() == 1:
                p.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            std = config.init_std
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std *= factors[config.init]
            if name.startswith("blocks."):
                std *= math.sqrt(config.mup_scale)
            p.copy_(std * torch.randn(
                p.shape, generator=generator, device="cpu"))
    return model


# ch04_model/model.ipynb [ch04-positions]
def _padding_mask(left_pad, past, T):
    """(B, 1, T, S): who may look at whom when rows begin with padding."""
    mask = causal_mask(T, past + T, left_pad.device)
    key = torch.arange(past + T, device=left_pad.device)
    real = (key >= left_pad[:, None])[:, None]  # (B, 1, S)
    itself = key == key[past:, None]  # (T, S): a padding id sees itself
    return (mask & (real | itself))[:, None]


def _padded_logits(head, x, config):
    """Logits of states x (..., C) with those of the padding: (..., V')."""
    z, cap = head(x), config.logit_softcap
    if cap is not None:
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        z = cap * torch.tanh(z / cap)
    return z


def _hide_padding(z, config):
    """Logits (..., V') with −∞ beyond the vocabulary, for the loss.

    A compiler fuses a mask with the loss; to cut the rows off is a copy.
    """
    if config.vocab_rows > config.vocab_size:
        at = torch.arange(config.vocab_rows, device=z.device)
        z = z.masked_fill(at >= config.vocab_size, float("-inf"))
    return z


# ch04_model/model.ipynb [ch04-segments]
def segment_mask(segments):
    """Attention within the texts of packed rows: (mask, positions).

    segments: (B, T) integers; wherever the number changes along a row, a
    new text begins. mask: bool (B, 1, T, T), True where key j ≤ query i
    and both are of one text; positions: (B, T), from 0 in each text.
    Source: Krell et al. 2021. Built in chapter 4.
    """
    T = segments.shape[1]
    at = torch.arange(T, device=segments.device)
    begins = F.pad(segments[:, 1:] != segments[:, :-1], (1, 0), value=True)
    start = (at * begins).cummax(dim=1).values  # (B, T)
    same = start[:, :, None] == start[:, None]  # (B, T, T)
    mask = causal_mask(T, device=segments.device) & same
    return mask[:, None], at - start


# ch04_model/model.ipynb [ch04-gpt-code]
class GPT(nn.Module):
    """A decoder-only transformer, from ids to the next id's logits.

    config: ModelConfig; generator: torch.Generator for the first weights
    (default: seed 0). Sources: Radford et al. 2019; Touvron et al. 2023.
    Built in chapter 4.
    """

    loss_rows = 0  # positions whose logits are held at a time; 0: all
    checkpointing = False  # blocks calculated again in the backward pass

    def __init__(self, config, generator=None):
        super().__init__()
        self.config = c = config
        self.token_embedding = nn.Embedding(c.vocab_rows, c.d_model)
        self.position_embedding = None
        if c.position == "learned":
            self.position_embedding = nn.Embedding(
                c.context_length, c.d_model)
        self.drop = nn.Dropout(c.dropout)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.n_layer))
        self.norm = make_norm(c)
        self.head = nn.Linear(c.d_model, c.vocab_rows, bias=False)
        if c.tie_embeddings:
            self.head.weight = self.token_embedding.weight
        initialise(self, generator)

    def new_cache(self):
        """An empty cache: one KVCache for each layer."""
        return [KVCache() for _ in self.blocks]

    def forward(self, ids, targets=None, cache=None, hidden=False,
                left_pad=None, segments=None):
        """(logits, loss) for ids (B, T) of int64.

        Without targets: logits (B, T, V), loss None. With targets (B, T):
        the mean loss in nats over the targets that are not -100; with
        `loss_rows` the logits are then None.
        hidden=True: only the final, normed states (B, T, C).
        cache: from `new_cache()`, extended in place; ids are then the
        positions that follow it. left_pad: (B,) number of padding ids at
        the start of each row (of the cache and ids together): they are
        looked at by nobody, and positions count from the first real one.
        segments: (B, T) which text an id belongs to, in rows that hold
        several: none sees another, see `segment_mask`.
        Raises ValueError if cache and ids are longer than the context, or
        if segments come with a cache or left_pad.
        """
        lookup = head = None
        if targets is not None and self.loss_rows:
            lookup, head = _tables(self)
        x, mask, rope = self._embed(ids, cache, left_pad, segments, lookup)
        for i, block in enumerate(self.blocks):
            if self.checkpointing and self.training and cache is None:
                x = checkpoint(block, x, None, mask, rope,
                               use_reentrant=False)
            else:
                x = block(x, None if cache is None else cache[i], mask, rope)
        x = self.norm(x)
        if self.config.mup_base_width:
            x = x * self.config.mup_scale
        if hidden:
            return x
        if head is not None:
            return None, linear_cross_entropy(
                x.flatten(0, 1), head, targets.flatten(),
                self.loss_rows, self.config.vocab_size,
                self.config.logit_softcap)
        if targets is None:
            return self.logits(x), None
        z = _hide_padding(
            _padded_logits(self.head, x, self.config), self.config)
        loss = F.cross_entropy(z.flatten(0, 1), targets.flatten())
        return z[..., :self.config.vocab_size], loss

    def logits(self, x):
        """The final states (..., C) to logits (..., V)."""
        c = self.config
        return _padded_logits(self.head, x, c)[..., :c.vocab_size]

    def _embed(self, ids, cache, left_pad, segments=None, lookup=None):
        """The first x (B, T, C), the mask and the table of angles."""
        c, past = self.config, cache[0].length if cache else 0
        if ids.dim() != 2:
            raise ValueError(f"ids must be (B, T), not {tuple(ids.shape)}")
        end = past + ids.shape[1]
        if end > c.context_length:
            raise ValueError(f"{end} ids are longer than the model's context "
                             f"of {c.context_length}: shorten them")
        at, mask, rope = torch.arange(past, end, device=ids.device), None, None
        if left_pad is not None:
            mask = _padding_mask(left_pad, past, ids.shape[1])
            at = (at - left_pad[:, None]).clamp_min(0)  # (B, T)
        if segments is not None:
            if cache is not None or left_pad is not None:
                raise ValueError("packed rows are read whole: segments go "
                                 "with neither cache nor left_pad")
            mask, at = segment_mask(segments)
        x = (self.token_embedding(ids) if lookup is None
             else F.embedding(ids, lookup, sparse=True))
        if c.position == "learned":
            x = x + self.position_embedding(at)
        if c.position == "rope":
            rope = rope_table(at, rope_frequencies(
                c.d_head, c.rope_theta, ids.device))
            if at.dim() == 2:
                rope = [z[:, None] for z in rope]  # the same for all heads
        return self.drop(x), mask, rope


# ch04_model/model.ipynb [ch04-count-code]
def count_parameters(model, trainable=False):
    """Number of parameters, shared ones once; trainable=True: only those
    that learn. model: any nn.Module. Built in chapter 4.
    """
    return sum(p.numel() for p in model.parameters()
               if p.requires_grad or not trainable)


def parameter_table(config):
    """Parameters by part, counted from the configuration alone: a dict.

    Built in chapter 4.
    """
    C, D, L = config.d_model, config.d_head, config.n_layer
    kv, bias = config.n_kv_head * D, config.bias
    matrices = 3 if config.activation == "swiglu" else 2
    norm = C * (2 if config.norm == "layernorm" and bias else 1)
    feed_bias = (matrices - 1) * config.d_ff + C if bias else 0
    table = {
        "token embedding": config.vocab_rows * C,
        "position embedding":
            config.context_length * C if config.position == "learned" else 0,
        "attention": L * (2 * C * C + 2 * C * kv
                          + (2 * C + 2 * kv if bias else 0)
                          + (2 * D if config.qk_norm else 0)),
        "feed-forward": L * (matrices * C * config.d_ff + feed_bias),
        "norms": (2 * L + 1) * norm,
        "head": 0 if config.tie_embeddings else config.vocab_rows * C,
    }
    return table


# ch04_model/model.ipynb [ch04-lossrows-slice]
def _to_slopes(z, y, share, vocab_size, softcap):
    """The losses (n, 1) of logits z (n, V'), which become their slopes."""
    counts, at = (y != -100)[:, None], y.clamp_min(0)[:, None]
    logits = z.to(torch.promote_types(z.dtype, torch.float32))
    if softcap is not None:
        bent = torch.tanh(logits / softcap)
        logits = bent * softcap
    logits[:, vocab_size:] = -math.inf  # the padding
    p = logits.softmax(-1)
    log_total = logits.amax(-1, True) - p.amax(-1, True).log()
    loss = (log_total - logits.gather(1, at)) * counts
    p.scatter_(1, at, torch.expm1(-loss))  # p - 1, exact also near p = 1
    if softcap is not None:
        p *= 1 - bent.square()
    z.copy_(p.mul_(counts * share))
    return loss


def _slice_loss(x, weight, y, share, vocab_size, softcap):
    """Loss of some positions, summed, and its slope by their logits.

    x: (n, C); weight: (V', C) with its padding; y: (n,), -100 counts
    nothing; share: 1/N, a tensor (). The slopes (n, V') stand where the
    logits stood.
    """
    logits = x @ weight.T
    few = len(y) if x.is_cuda else max(1, 2**19 // len(weight))
    losses = [_to_slopes(z, t, share, vocab_size, softcap)
              for z, t in zip(logits.split(few), y.split(few))]
    return torch.cat(losses).sum(), logits


# ch04_model/model.ipynb [ch04-lossrows-kernel]
@functools.cache
def _cross_entropy_kernel():
    """A Triton program: the loss of one position, logits to their slope."""
    import triton
    import triton.language as tl

    @triton.jit
    def kernel(logits, targets, losses, share, V, width,
               BLOCK: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        logits += row * width
        y = tl.load(targets + row)
        counts = y != -100
        there = tl.load(logits + tl.where(counts, y, 0)).to(tl.float32)
        top, total = float("-inf"), 0.0
        for first in range(0, width, BLOCK):
            at = first + tl.arange(0, BLOCK)
            z = tl.load(logits + at, mask=at < width, other=0.0)
            z = tl.where(at < V, z.to(tl.float32), float("-inf"))
            new_top = tl.maximum(top, tl.max(z, 0))
            total = (total * tl.exp(top - new_top)
                     + tl.sum(tl.exp(z - new_top), 0))
            top = new_top
        log_total = top + tl.log(total)
        tl.store(losses + row, tl.where(counts, log_total - there, 0.0))
        weight = tl.where(counts, tl.load(share), 0.0)
        for first in range(0, width, BLOCK):
            at = first + tl.arange(0, BLOCK)
            z = tl.load(logits + at, mask=at < width, other=0.0)
            z = tl.where(at < V, z.to(tl.float32), float("-inf"))
            slope = tl.exp(z - log_total) - tl.where(at == y, 1.0, 0.0)
            slope = (weight * slope).to(logits.dtype.element_ty)
            tl.store(logits + at, slope, mask=at < width)

    return kernel


# ch04_model/model.ipynb [ch04-lossrows-fused]
def _fused_slice_loss(x, weight, y, share, vocab_size):
    """As `_slice_loss`, by one kernel, without a soft-cap."""
    logits = x @ weight.T
    losses = torch.empty(len(y), device=x.device, dtype=torch.float32)
    _cross_entropy_kernel()[len(y),](
        logits, y, losses, share, vocab_size, len(weight), BLOCK=4096,
        num_warps=8)
    return losses.sum(), logits


def _can_fuse(x, softcap):
    return (x.is_cuda and softcap is None
            and importlib.util.find_spec("triton") is not None)


# ch04_model/model.ipynb [ch04-lossrows-code]
class _LinearCrossEntropy(torch.autograd.Function):
    """A head and its loss, with the gradients made on the way forward."""

    @staticmethod
    def forward(ctx, x, weight, targets, rows, vocab_size, softcap):
        kind = x.device.type
        dtype = (torch.get_autocast_dtype(kind)
                 if torch.is_autocast_enabled(kind) else x.dtype)
        fused = _can_fuse(x, softcap)
        w, dx, dw = weight.to(dtype), torch.empty_like(x), None
        wide = torch.promote_types(weight.dtype, torch.float32)
        total = torch.zeros((), device=x.device, dtype=wide)
        share = 1 / (targets != -100).sum().to(wide)
        for xs, ys, dxs in zip(x.split(rows), targets.split(rows),
                               dx.split(rows)):
            xs = xs.to(dtype)
            loss, slope = (
                _fused_slice_loss(xs, w, ys, share, vocab_size) if fused
                else _slice_loss(xs, w, ys, share, vocab_size, softcap))
            total += loss
            dxs.copy_(slope @ w)
            part = slope.T @ xs
            dw = part.to(weight.dtype) if dw is None else dw.add_(part)
        ctx.made = dx, dw
        return total * share

    @staticmethod
    def backward(ctx, upstream):
        if ctx.made is None:
            raise RuntimeError("linear_cross_entropy keeps its gradients for "
                               "one backward pass, and this is a second")
        (dx, dw), ctx.made = ctx.made, None
        if upstream.is_cuda or upstream != 1:  # to ask would hold up a GPU
            dx, dw = dx.mul_(upstream), dw.mul_(upstream)
        return dx, dw, None, None, None, None


def linear_cross_entropy(x, weight, targets, rows=1024, vocab_size=None,
                         softcap=None):
    """Mean cross-entropy of the logits x @ weightᵀ, never held at once.

    x: (N, C) states; weight: (V', C), of which the first vocab_size rows
    count (default: all); targets: (N,) int64, -100 is left out; rows:
    positions whose logits are held at a time; softcap: logits z become
    softcap · tanh(z / softcap). Returns a scalar in nats. Its gradients are
    made in the forward pass: to be differentiated once. The idea: Wijmans
    et al. 2025; Hsu et al. 2024. Built in chapter 4.
    """
    return _LinearCrossEntropy.apply(
        x, weight, targets, rows, vocab_size or len(weight), softcap)


# ch04_model/model.ipynb [ch04-two-uses]
class _TwoUses(torch.autograd.Function):
    """A table to look up in and to be the head; their gradients, in one."""

    @staticmethod
    def forward(ctx, table):
        return table.view_as(table), table.view_as(table)

    @staticmethod
    def backward(ctx, looked_up, head):
        return head.add_(looked_up)  # some rows, into the whole


def _tables(model):
    """What a GPT's embedding reads (None: its own), and what its head."""
    table = model.head.weight
    tied = table is model.token_embedding.weight
    if tied and table.device.type == "cpu":
        return _TwoUses.apply(table)
    return None, table


# ch04_model/model.ipynb [ch04-names]
def _gpt2_names(config):
    """Rows (our names, GPT-2's name, transposed); several of ours: stacked."""
    rows = [(["token_embedding.weight"], "transformer.wte.weight", False),
            (["position_embedding.weight"], "transformer.wpe.weight", False)]
    pairs = [("attention_norm", "ln_1"), ("feed_forward_norm", "ln_2"),
             ("attention.o_proj", "attn.c_proj"),
             ("feed_forward.up_proj", "mlp.c_fc"),
             ("feed_forward.down_proj", "mlp.c_proj")]
    for i in range(config.n_layer):
        ours, theirs = f"blocks.{i}.", f"transformer.h.{i}."
        for kind in ("weight", "bias"):
            rows += [([f"{ours}{a}.{kind}"], f"{theirs}{b}.{kind}",
                      a.endswith("proj") and kind == "weight")
                     for a, b in pairs]
            rows.append(([f"{ours}attention.{p}_proj.{kind}" for p in "qkv"],
                         f"{theirs}attn.c_attn.{kind}", kind == "weight"))
    rows += [([f"norm.{k}"], f"transformer.ln_f.{k}", False)
             for k in ("weight", "bias")]
    return rows


def _llama_names(config):
    """The same for Llama's and Qwen3's layout, where nothing is turned."""
    rows = [("token_embedding", "model.embed_tokens"), ("norm", "model.norm")]
    pairs = [("attention_norm", "input_layernorm"),
             ("feed_forward_norm", "post_attention_layernorm")]
    pairs += [(f"attention.{p}_proj", f"self_attn.{p}_proj") for p in "qkvo"]
    pairs += [(f"feed_forward.{p}_proj", f"mlp.{p}_proj")
              for p in ("gate", "up", "down")]
    if config.qk_norm:
        pairs += [(f"attention.{p}_norm", f"self_attn.{p}_norm") for p in "qk"]
    for i in range(config.n_layer):
        rows += [(f"blocks.{i}.{a}", f"model.layers.{i}.{b}")
                 for a, b in pairs]
    return [([f"{a}.weight"], f"{b}.weight", False) for a, b in rows]


# ch04_model/model.ipynb [ch04-layouts]
_LAYOUTS = {  # what each architecture of transformers computes
    "gpt2": dict(norm="layernorm", position="learned", bias=True,
                 qk_norm=False, activation=("gelu_tanh", "gelu")),
    "llama": dict(norm="rmsnorm", position="rope", bias=False, qk_norm=False,
                  activation="swiglu"),
}
_LAYOUTS["qwen3"] = _LAYOUTS["llama"] | {"qk_norm": True}
_ANY_VALUE = {*_SIZES, "norm_eps", "rope_theta", "tie_embeddings", "dropout",
              "init", "init_std", "pad_vocab_to"}


def _misfits(config, layout):
    """What keeps a configuration from being of a layout: a list of words.

    A field that no layout speaks of must have its default, so that a new
    one is never dropped in silence.
    """
    found = []
    for part in fields(config):
        value = getattr(config, part.name)
        wanted = _LAYOUTS[layout].get(part.name, part.default)
        allowed = wanted if isinstance(wanted, tuple) else (wanted,)
        if part.name not in _ANY_VALUE and value not in allowed:
            found.append(f"{part.name} must be "
                         f"{' or '.join(map(repr, allowed))}, not {value!r}")
    if layout == "gpt2" and config.n_kv_head != config.n_head:
        found.append("n_kv_head must be n_head")
    return found


# ch04_model/model.ipynb [ch04-layout-nearest]
def _layout(config):
    """The architecture in transformers that computes the same function."""
    misfits = {name: _misfits(config, name) for name in _LAYOUTS}
    nearest = min(misfits, key=lambda name: len(misfits[name]))
    if misfits[nearest]:
        raise ValueError(
            "no layout of transformers computes this configuration; for "
            f"{nearest}, the nearest, {' and '.join(misfits[nearest])}")
    return nearest


def _names(config, layout):
    """Rows (our names, their name, transposed) for every tensor."""
    rows = (_gpt2_names if layout == "gpt2" else _llama_names)(config)
    if not config.tie_embeddings:
        rows.append((["head.weight"], "lm_head.weight", False))
    return rows


# ch04_model/model.ipynb [ch04-their-config]
def _their_config(config, layout, tokenizer):
    """The config.json that transformers, llama.cpp and vLLM read."""
    c = config
    values = {"model_type": layout, "vocab_size": c.vocab_size,
              "tie_word_embeddings": c.tie_embeddings, "dtype": "float32",
              "torch_dtype": "float32"}
    if layout == "gpt2":
        values |= {
            "architectures": ["GPT2LMHeadModel"],
            "n_positions": c.context_length, "n_embd": c.d_model,
            "n_layer": c.n_layer, "n_head": c.n_head, "n_inner": c.d_ff,
            "layer_norm_epsilon": c.norm_eps,
            "activation_function":
                "gelu_new" if c.activation == "gelu_tanh" else "gelu",
        }
        values |= {f"{p}_pdrop": c.dropout for p in ("attn", "embd", "resid")}
    else:
        name = {"llama": "Llama", "qwen3": "Qwen3"}[layout]
        values |= {
            "architectures": [f"{name}ForCausalLM"],
            "max_position_embeddings": c.context_length,
            "hidden_size": c.d_model, "intermediate_size": c.d_ff,
            "num_hidden_layers": c.n_layer, "num_attention_heads": c.n_head,
            "num_key_value_heads": c.n_kv_head, "head_dim": c.d_head,
            "hidden_act": "silu", "rms_norm_eps": c.norm_eps,
            "attention_bias": False, "attention_dropout": c.dropout,
            "rope_theta": c.rope_theta, "rope_parameters": {
                "rope_type": "default", "rope_theta": c.rope_theta},
        }
    end = getattr(tokenizer, "end_of_text", None)
    return values | {"bos_token_id": end, "eos_token_id": end}


# ch04_model/model.ipynb [ch04-same-vocabulary]
def _same_vocabulary(tokenizer, config, folder):
    """Raise ValueError if a tokenizer's ids are not the model's."""
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} ids, the "
            f"model {config.vocab_size}: they do not belong together"
        )


# ch04_model/model.ipynb [ch04-to]
def to_transformers(model, tokenizer, folder):
    """Write a folder that transformers (and llama.cpp, vLLM) can load.

    The layout is GPT-2's, Llama's or, with QK-norm, Qwen3's; ValueError if
    the configuration is none of them or the tokenizer (it may be None) has
    another vocabulary. Returns the folder's Path. Built in chapter 4.
    """
    from safetensors.torch import save_file

    config, folder = model.config, Path(folder)
    layout = _layout(config)
    if tokenizer is not None:
        _same_vocabulary(tokenizer, config, folder)
    own, theirs = model.state_dict(), {}
    for ours, name, transposed in _names(config, layout):
        tensor = torch.cat([own[o].detach().cpu().float() for o in ours])
        if ours[0] in ("token_embedding.weight", "head.weight"):
            tensor = tensor[: config.vocab_size]  # no rows of padding
        theirs[name] = (tensor.T if transposed else tensor).contiguous()
    values = _their_config(config, layout, tokenizer)
    with atomic_folder(folder) as part:
        save_file(theirs, part / "model.safetensors", {"format": "pt"})
        write_json(part / "config.json", values)
        ends = {k: values[k] for k in ("bos_token_id", "eos_token_id")}
        write_json(part / "generation_config.json", ends)
        if tokenizer is not None:
            tokenizer.save(part)
            write_json(part / "tokenizer_config.json", {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": config.context_length,
                "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
                "clean_up_tokenization_spaces": False})
    return folder


# ch04_model/model.ipynb [ch04-our-config]
def _refuse(layout, faults):
    """Raise ValueError, naming the first fault that is true."""
    for name, found in faults.items():
        if found:
            raise ValueError(f"cannot load this {layout}: it has {name}")


_GPT2_BENDS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
               "gelu": "gelu"}


def _of_gpt2(values):
    """A ModelConfig from the config.json of a GPT-2."""
    get = values.get
    bend = get("activation_function", "gelu_new")
    _refuse("gpt2", {
        f"another activation, {bend}": bend not in _GPT2_BENDS,
        "scores that are not divided by √D":
            not get("scale_attn_weights", True)
            or get("scale_attn_by_inverse_layer_idx"),
        "attention to another text": get("add_cross_attention")})
    return ModelConfig.preset(
        "gpt2-124m-classic", vocab_size=values["vocab_size"],
        context_length=values["n_positions"], n_layer=values["n_layer"],
        n_head=values["n_head"], d_model=values["n_embd"],
        d_ff=get("n_inner"), norm_eps=get("layer_norm_epsilon", 1e-5),
        activation=_GPT2_BENDS[bend],
        tie_embeddings=get("tie_word_embeddings", True))


# ch04_model/model.ipynb [ch04-our-config-llama]
def _of_llama(values, layout):
    """A ModelConfig from the config.json of a Llama or a Qwen3."""
    get = values.get
    rope = get("rope_parameters") or get("rope_scaling") or {}
    d_model, n_head = values["hidden_size"], values["num_attention_heads"]
    kind = rope.get("rope_type", rope.get("type", "default"))  # older: type
    _refuse(layout, {
        "scaled RoPE": kind != "default",
        "biases": get("attention_bias") or get("mlp_bias"),
        "a sliding window": get("use_sliding_window")
            or "sliding_attention" in (get("layer_types") or []),
        "another activation": get("hidden_act", "silu") != "silu",
        "heads wider than d_model / n_head":
            (get("head_dim") or d_model // n_head) * n_head != d_model})
    return ModelConfig(
        vocab_size=values["vocab_size"], d_model=d_model, n_head=n_head,
        context_length=values["max_position_embeddings"],
        n_layer=values["num_hidden_layers"], d_ff=values["intermediate_size"],
        n_kv_head=get("num_key_value_heads"), qk_norm=layout == "qwen3",
        norm_eps=get("rms_norm_eps", 1e-6),
        tie_embeddings=get("tie_word_embeddings", False),
        rope_theta=float(rope.get("rope_theta")
                         or get("rope_theta") or 10000.0))


# ch04_model/model.ipynb [ch04-our-config-any]
def _our_config(values):
    """(layout, ModelConfig) from a config.json of transformers."""
    layout = values.get("model_type")
    if layout not in _LAYOUTS:
        raise ValueError(
            f"cannot load {layout!r}: {', '.join(_LAYOUTS)} are known")
    try:
        return layout, (_of_gpt2(values) if layout == "gpt2"
                        else _of_llama(values, layout))
    except KeyError as missing:
        raise ValueError(f"the config.json of this {layout} does not say "
                         f"{missing.args[0]}") from None


# ch04_model/model.ipynb [ch04-their-files]
def _their_files(folder):
    """All tensors of a folder's model.safetensors or of its shards."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    name, tensors = "model.safetensors", {}
    index, files = folder / f"{name}.index.json", [name]
    if index.exists() and not (folder / name).exists():
        files = sorted(set(read_json(index)["weight_map"].values()))
    for name in files:
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"{folder / name} is missing: a model is read from "
                "model.safetensors, or from all shards that its index names")
        try:
            tensors |= load_file(folder / name)
        except SafetensorError as error:
            raise ValueError(f"{folder / name} is cut short or not "
                             f"safetensors: {error}") from None
    return tensors


# ch04_model/model.ipynb [ch04-their-tensors]
_CONSTANTS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")


def _short(name):
    """A tensor's name without the prefix that a model with a head has."""
    return name.removeprefix("transformer.").removeprefix("model.")


def _their_tensors(folder, tied):
    """Their tensors under short names, without constants and second heads.
    """
    tensors = {_short(name): tensor
               for name, tensor in _their_files(folder).items()
               if not name.endswith(_CONSTANTS)}
    if tied and (head := tensors.pop("lm_head.weight", None)) is not None:
        table = tensors.get("wte.weight", tensors.get("embed_tokens.weight"))
        if table is not None and not torch.equal(head, table):
            raise ValueError(f"{folder}: config.json says that head and "
                             "embedding are one, but they differ")
    return tensors


# ch04_model/model.ipynb [ch04-load-exactly]
def _load_exactly(model, state, source):
    """Every tensor has its place and every place its tensor, or ValueError."""
    if model.config.tie_embeddings:
        state = {**state, "head.weight": state.get("token_embedding.weight")}
    own = model.state_dict()
    wrong = sorted(set(own) ^ set(state)) or [
        name for name in own
        if state[name] is None or state[name].shape != own[name].shape]
    if wrong:
        raise ValueError(
            f"{source} does not fit its configuration: {wrong[0]} is missing,"
            f" unknown or of another shape ({len(wrong)} such tensors)"
        )
    model.load_state_dict(state)


# ch04_model/model.ipynb [ch04-from]
def from_transformers(folder_or_id):
    """A GPT with the weights of a transformers folder or Hub id.

    Reads safetensors only, whole or in shards, in GPT-2's (with or without
    the prefix "transformer."), Llama's or Qwen3's layout. ValueError names
    what cannot be loaded, and a tensor that is missing, unknown or of a
    wrong shape; FileNotFoundError a missing file. Returns the model in
    eval mode, in float32. Built in chapter 4.
    """
    folder = Path(folder_or_id)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download
        folder = Path(snapshot_download(str(folder_or_id), allow_patterns=[
            "model*.safetensors", "*.json"]))
    layout, config = _our_config(read_json(folder / "config.json"))
    theirs = _their_tensors(folder, config.tie_embeddings)
    state = {}
    for ours, name, transposed in _names(config, layout):
        tensor = theirs.pop(_short(name), None)
        if tensor is None:
            raise ValueError(f"{folder} has no tensor {name}")
        tensor = (tensor.T if transposed else tensor).float()
        state |= zip(ours, tensor.chunk(len(ours)), strict=True)
    if theirs:
        raise ValueError(f"{folder} has a tensor that a {layout} does not "
                         f"have: {min(theirs)} ({len(theirs)} such)")
    model = GPT(config)
    _load_exactly(model, state, folder)
    return model.eval()


# ch04_model/model.ipynb [ch04-flops-code]
def flops_per_token(config, context=None, training=True):
    """Floating-point operations of the matrix products, per token.

    context: T, the length of the sequences (default context_length). A
    product of a vector with an n × m matrix counts 2nm; attention counts
    the whole T × T square. training=True: forward and backward, three
    times the forward. Sources: Kaplan et al. 2020, section 2.1 (who
    count half the square); Chowdhery et al. 2023, appendix B. Built in
    chapter 4.
    """
    T = config.context_length if context is None else context
    C, kv = config.d_model, config.n_kv_head * config.d_head
    matrices = 3 if config.activation == "swiglu" else 2
    layer = 2 * C * C + 2 * C * kv + matrices * C * config.d_ff
    forward = 2 * (config.n_layer * layer + config.vocab_rows * C)
    forward += 4 * config.n_layer * T * C  # q kᵀ and weights · v
    return forward * (3 if training else 1)


# ch04_model/model.ipynb [ch04-memory-layer]
def _kept_by_a_layer(config):
    """Numbers a token that a block keeps for its backward pass."""
    C, kv, F_ = config.d_model, config.n_kv_head * config.d_head, config.d_ff
    rms = config.norm == "rmsnorm"
    # 8 C: what goes into both norms and comes out of them; q, k, v (repeated
    # for their groups) and attention's result. RoPE: that result once more,
    # copied into order. RMS norm: x before its gain, twice a block.
    layer = (8 + (config.position == "rope") + 2 * rms) * C
    # q and k as they come into their norms, and before the gain.
    layer += 2 * (C + kv) if config.qk_norm else 0
    # SwiGLU: gate, silu(gate), up, their product; else before and after.
    return layer + (4 if config.activation == "swiglu" else 2) * F_


def _optimizer_bytes(config, optimizer):
    """Bytes of an optimiser's state: two means, or less."""
    table, C = parameter_table(config), config.d_model
    n, D = sum(table.values()), config.d_head
    feed = (3 if config.activation == "swiglu" else 2) * C * config.d_ff
    inner = config.n_layer * (
        2 * C * C + 2 * C * config.n_kv_head * D + feed)  # the matrices
    outer = sum(table[name] for name in (
        "token embedding", "position embedding", "head"))
    known = {"adamw": 8 * n, "muon": 4 * inner + 8 * (n - inner),
             # two bytes, and two float32 scales for each block of 256
             "adamw8bit": round((2 + 8 / 256) * (inner + outer))
             + 8 * (n - inner - outer)}
    if optimizer not in known:
        raise ValueError(f"optimizer is {optimizer!r}: choose one of "
                         f"{', '.join(known)}")
    return known[optimizer]


# ch04_model/model.ipynb [ch04-memory]
def memory_bytes(config, batch_size=1, context=None, training=True,
                 bytes_each=4, optimizer="adamw", accumulation=1,
                 checkpointing=False, loss_rows=0, shards=1):
    """Where a step's memory goes: a dict of bytes, with "total".

    In training: parameters, gradients, optimizer (state of "adamw", "muon"
    or "adamw8bit"), each divided by shards, the processes that share them;
    and the activations kept for the backward pass of one of `accumulation`
    pieces of the batch, bytes_each a number (4: float32), by PyTorch's
    kernels on a CPU. checkpointing: of each block its input, and whichever
    is more, one block made again or what the loss keeps. loss_rows: as in
    GPT. Without training: parameters and the cache of batch_size texts of
    length context (default context_length). Raises ValueError for an
    unknown optimizer or a batch that is not divisible. Built in chapter 4.
    """
    C, rows, L = config.d_model, config.vocab_rows, config.n_layer
    if batch_size % accumulation:
        raise ValueError(f"{batch_size} rows do not divide into "
                         f"{accumulation} equal pieces")
    tokens = batch_size // accumulation * (context or config.context_length)
    n = sum(parameter_table(config).values())
    parts = {"parameters": 4 * n // shards}
    if not training:
        kv = config.n_kv_head * config.d_head
        parts["cache"] = 2 * L * tokens * kv * bytes_each
        return parts | {"total": sum(parts.values())}
    layer = _kept_by_a_layer(config)
    # The last norm, in and out, and the odds of every id (twice, if bent).
    last = (2 + (config.norm == "rmsnorm")) * C
    if not loss_rows:
        last += config.vocab_size * (1 if config.logit_softcap is None else 2)
    last *= tokens * bytes_each
    if loss_rows:  # the head's gradient is made on the way forward
        last += 4 * rows * C
    parts["gradients"] = 4 * n // shards
    parts["optimizer"] = _optimizer_bytes(config, optimizer) // shards
    each = tokens * bytes_each
    if checkpointing:  # a block made again, and the slope that enters it
        kept = each * L * C + max(each * (layer + C), last)
    else:
        kept = each * L * layer + last
    parts["activations"] = kept
    return parts | {"total": sum(parts.values())}


# ch04_model/model.ipynb [ch04-save-code]
def save_model(model, folder, tokenizer=None, training=None):
    """Write a model's folder, whole or not at all; returns its Path.

    model.safetensors, config.json, training.json (the dict `training` and
    the SHA-256 of the weights) and, given a tokenizer, its three files.
    Raises ValueError if the tokenizer's vocabulary is not the model's.
    Built in chapter 4.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    if tokenizer is not None:
        _same_vocabulary(tokenizer, model.config, folder)
    state = {name: p.detach().cpu().contiguous()
             for name, p in model.state_dict().items()}
    if model.config.tie_embeddings:
        del state["head.weight"]  # the same tensor as the embedding
    with atomic_folder(folder) as part:
        save_file(state, part / "model.safetensors", {"format": "pt"})
        write_json(part / "config.json", model.config.to_dict())
        digest = sha256_file(part / "model.safetensors")
        write_json(part / "training.json",
                   {**(training or {}), "sha256": digest})
        if tokenizer is not None:
            tokenizer.save(part)
    return folder


# ch04_model/model.ipynb [ch04-load]
def load_model(folder, device="cpu"):
    """Read what `save_model` wrote: (GPT in eval mode, training dict).

    Raises FileNotFoundError if a file is missing, and ValueError if the
    weights are not those whose SHA-256 training.json records, do not fit
    config.json, or the tokenizer beside them has another vocabulary.
    Only safetensors and JSON are read. Built in chapter 4.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    for name in ("model.safetensors", "config.json", "training.json"):
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder / name} is missing: this is "
                                    "not a whole model folder")
    training = read_json(folder / "training.json")
    weights = folder / "model.safetensors"
    if sha256_file(weights) != training.get("sha256"):
        raise ValueError(
            f"{weights} is not the file that was saved (its SHA-256 differs "
            "from training.json): it is truncated or altered, make it again"
        )
    config = ModelConfig.from_dict(read_json(folder / "config.json"))
    if (folder / "vocab.json").exists():
        _same_vocabulary(BPETokenizer.load(folder), config, folder)
    model = GPT(config)
    _load_exactly(model, load_file(weights), weights)
    return model.to(device).eval(), training


# ch05_pretrain/pretrain.ipynb [pack]
def pack_documents(lengths, capacity):
    """Put documents into as few rows as best-fit decreasing finds.

    lengths: tokens of each document, none above `capacity`. Returns a list
    of rows, each a list of indices whose lengths sum to ≤ capacity. The
    longest goes first, each into the fullest row that still has room.
    Documents of equal length keep their order. Source: Ding et al. 2024,
    section 3. Built in chapter 5.
    """
    rows, by_room, rooms = [], [[] for _ in range(capacity + 1)], 0
    for i in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        need = int(lengths[i])
        fitting = rooms >> need  # bit r: some row has need + r tokens free
        if fitting:
            room = need + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            room, row = capacity, []
            rows.append(row)
        row.append(i)
        by_room[room - need].append(row)
        rooms |= 1 << (room - need)
    return rows


# ch05_pretrain/pretrain.ipynb [rows]
def _document_rows(starts, lengths, context, mix):
    """Rows of pieces (first token, number of tokens), in random order."""
    pieces = [(start + cut, min(context, length - cut))
              for start, length in zip(starts.tolist(), lengths.tolist())
              for cut in range(0, length, context)]
    packed = pack_documents([n for _, n in pieces], context)
    return [[pieces[i] for i in mix.permutation(packed[r]).tolist()]
            for r in mix.permutation(len(packed)).tolist()]


def _fill_row(x, y, row, tokens):
    """Write a row's pieces into x and y (T,): y is one token ahead."""
    first, at = row[0][0], 0
    for start, length in row:
        y[at:at + length] = tokens[start:start + length]
        at += length
    x[1:at] = y[:at - 1]
    if first:  # the end-of-text before, or where a long document was cut
        x[0] = tokens[first - 1]


# ch05_pretrain/pretrain.ipynb [batches]
class Batches:
    """An endless, repeatable stream of batches, which knows its position.

    data: a TokenDataset, or with windows="stream" any dataset of (x, y).
    Each epoch goes through the documents in an order that `seed` and the
    epoch decide alone. Rows hold whole documents (a longer one is cut),
    each after an end-of-text; what is left of a row is −100 in y. Raises
    ValueError if there is too little to read. Built in chapter 5.
    """

    CHUNK = 8192  # documents that are packed together

    def __init__(self, data, batch_size, context, seed=0,
                 windows="documents"):
        self.data, self.batch_size, self.context = data, batch_size, context
        self.seed, self.windows = seed, windows
        self.epoch = self.chunk = self.row = 0
        self.known = None  # the (epoch, chunk) whose rows are at hand
        if windows == "stream":
            self.count = len(data)
        else:
            self.tokens, self.count = data.tokens, len(data.starts)
            self.starts = np.asarray(data.starts, dtype=np.int64)
            ends = np.append(self.starts, len(data.tokens))[1:]
            self.lengths = ends - self.starts
            if len(data.tokens) < context:
                raise ValueError(
                    f"the corpus has {len(data.tokens)} tokens, fewer than "
                    f"one context of {context}: give more text")
            self.end_of_text = int(data.tokens[int(ends[0]) - 1])
        if not self.count:
            raise ValueError("the dataset is empty: nothing to learn from")

    def state_dict(self):
        """Where the next batch begins: three integers."""
        return {"epoch": self.epoch, "chunk": self.chunk, "row": self.row}

    def load_state_dict(self, state):
        """Go to where `state_dict` was taken."""
        self.epoch, self.chunk = state["epoch"], state["chunk"]
        self.row = state["row"]

    def next(self):
        """The next batch: x, y of shape (B, T), int64."""
        rows = [self._next_row() for _ in range(self.batch_size)]
        if self.windows == "stream":
            pairs = [self.data[int(i)] for i in rows]
            return tuple(torch.stack(part) for part in zip(*pairs))
        shape = (self.batch_size, self.context)
        x, y = np.full(shape, self.end_of_text), np.full(shape, -100)
        for r, row in enumerate(rows):
            _fill_row(x[r], y[r], row, self.tokens)
        return torch.from_numpy(x), torch.from_numpy(y)

    def _next_row(self):
        if self.known != (self.epoch, self.chunk):
            self.known, self.rows = (self.epoch, self.chunk), self._shuffle()
        if self.row == len(self.rows):
            self.chunk, self.row = self.chunk + 1, 0
            if self.chunk * self.CHUNK >= self.count:
                self.epoch, self.chunk = self.epoch + 1, 0
            return self._next_row()
        self.row += 1
        return self.rows[self.row - 1]

    def _shuffle(self):
        """The rows of this chunk of this epoch."""
        order = np.random.default_rng([self.seed, self.epoch])
        begin = self.chunk * self.CHUNK
        some = order.permutation(self.count)[begin:begin + self.CHUNK]
        if self.windows == "stream":
            return some
        mix = np.random.default_rng([self.seed, self.epoch, self.chunk])
        return _document_rows(self.starts[some], self.lengths[some],
                              self.context, mix)


# ch05_pretrain/pretrain.ipynb [prefetch]
class Prefetch:
    """A stream of batches whose next one is made while one is in use.

    batches: a `Batches`; device: where they will go (for a GPU they wait in
    pinned memory, from which the copy need not be waited for). The position
    is that of the batches handed out. Built in chapter 5.
    """

    def __init__(self, batches, device="cpu"):
        self.batches = batches
        self.pin = torch.device(device).type == "cuda"
        self.maker = ThreadPoolExecutor(1)
        self.position, self.coming = batches.state_dict(), None

    def state_dict(self):
        """Where the next batch begins: as in `Batches`."""
        return self.position

    def load_state_dict(self, state):
        """Go to where `state_dict` was taken."""
        if self.coming:
            self.coming.result()
        self.batches.load_state_dict(state)
        self.position, self.coming = self.batches.state_dict(), None

    def next(self):
        """The next batch: x, y of shape (B, T), int64."""
        ready = self.coming or self.maker.submit(self._make)
        batch, self.position = ready.result()
        self.coming = self.maker.submit(self._make)
        return batch

    def _make(self):
        batch = self.batches.next()
        if self.pin:
            batch = tuple(part.pin_memory() for part in batch)
        return batch, self.batches.state_dict()


# ch05_pretrain/pretrain.ipynb [precision]
def fast_dtype(device):
    """bfloat16 where the device multiplies it natively, else float32.

    Asks the hardware and not the clock, so that a machine always answers
    the same. Built in chapter 5.
    """
    device = torch.device(device)
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported()
    else:
        asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = device.type == "cpu" and any(
            getattr(torch.cpu, name, bool)() for name in asks)
    return torch.bfloat16 if native else torch.float32


def mixed_precision(device, precision="auto"):
    """A context in which matrix products are taken in a shorter format.

    precision: "auto" (what `fast_dtype` says), "float32" or "bfloat16".
    The weights themselves stay float32. Built in chapter 5.
    """
    dtype = (fast_dtype(device) if precision == "auto"
             else getattr(torch, precision))
    return torch.autocast(torch.device(device).type, torch.bfloat16,
                          enabled=dtype == torch.bfloat16)


def keep_freed_memory():
    """Tell glibc to keep freed memory for the next step (Linux only).

    A training step frees and asks for the same large blocks again and
    again; by default each goes back to the kernel, which clears it anew.
    Does nothing elsewhere. Built in chapter 5.
    """
    if platform.system() == "Linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-4, 0)  # M_MMAP_MAX: no separate mappings
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: give none back


# ch05_pretrain/pretrain.ipynb [document-nats]
def _scored_windows(data, documents, context):
    """(document, first token, tokens, not scored) for all to be scored."""
    ends = np.append(np.asarray(data.starts), len(data.tokens))[1:]
    for d in documents:
        start, end = int(data.starts[d]), int(ends[d])
        yield d, start, min(context, end - start), 0
        step = context // 2  # a long one: windows that overlap by half
        for first in range(start + step, end - step, step):
            yield d, first, min(context, end - first), context - step


def _scored_batch(data, batch):
    """x, y (B, T) of the windows in `batch`, padded on the right."""
    first = int(data.starts[1]) if len(data.starts) > 1 else len(data.tokens)
    end_of_text = int(data.tokens[first - 1])
    shape = (len(batch), max(job[2] for job in batch))
    x, y = np.full(shape, end_of_text), np.full(shape, -100)
    for r, (_, start, length, skip) in enumerate(batch):
        part = np.asarray(data.tokens[start:start + length], dtype=np.int64)
        x[r, 1:length] = part[:-1]
        if skip:  # not at a document's beginning
            x[r, 0] = int(data.tokens[start - 1])
        y[r, skip:length] = part[skip:]
    return torch.from_numpy(x), torch.from_numpy(y)


# ch05_pretrain/pretrain.ipynb [document-nats-2]
@torch.no_grad()
def document_nats(model, data, documents=None, context=None,
                  precision="float32"):
    """What each document costs the model: nats (N,), tokens (N,) in NumPy.

    data: a TokenDataset; documents: their numbers (default all). A document
    is read alone, from an end-of-text on, and its own end-of-text is scored
    too. Where it is longer than `context` (default the model's), it is
    read in windows that overlap by half, so every token is scored once and
    sees its document's beginning or at least half a context. Built in
    chapter 5.
    """
    context = context or model.config.context_length
    documents = range(len(data.starts)) if documents is None else documents
    place = {int(d): i for i, d in enumerate(documents)}
    jobs = sorted(_scored_windows(data, place, context), key=lambda j: j[2])
    nats, tokens = np.zeros(len(place)), np.zeros(len(place), dtype=int)
    device, was = next(model.parameters()).device, model.training
    numbers = 2**29 if device.type == "cuda" else 2**24  # logits at a time
    room = max(context, numbers // model.config.vocab_size)  # tokens
    model.eval()
    while jobs:
        count = max(1, min(len(jobs), room // jobs[-1][2]))
        jobs, batch = jobs[:-count], jobs[-count:]
        x, y = _scored_batch(data, batch)
        with mixed_precision(device, precision):
            logits, _ = model(x.to(device))
        losses = F.cross_entropy(logits.float().flatten(0, 1),
                                 y.to(device).flatten(), reduction="none")
        sums = losses.view(y.shape).double().sum(1).cpu().numpy()
        for job, loss in zip(batch, sums):
            nats[place[job[0]]] += loss
            tokens[place[job[0]]] += job[2] - job[3]
    model.train(was)
    return nats, tokens


# ch05_pretrain/pretrain.ipynb [evaluate]
def evaluate(model, data, max_documents=0, context=None,
             precision="float32"):
    """How well a model predicts a split, against what can be known.

    data: a TokenDataset; max_documents: the first so many (0: all).
    Returns a dict: loss (nats per token, end-of-text included),
    perplexity (its exponential), bits_per_byte, floor (the text's own nats
    per token, None if unknown), gap (loss − floor, or None), tokens,
    documents. Every scored token sees
    its document from the start, where that fits the context (see
    `document_nats`). The bytes of a part of a split are counted from the
    whole split's bytes per token. Raises ValueError if the split is empty,
    or its tokenizer has another vocabulary than the model. Built in
    chapter 5.
    """
    _same_vocabulary_as_data(model, data)
    every = len(data.starts)
    count = min(max_documents or every, every)
    if not count:
        raise ValueError("the split is empty: nothing to evaluate")
    nats, tokens = document_nats(model, data, range(count), context,
                                 precision)
    loss = float(nats.sum() / tokens.sum())
    bytes_per_token = data.index["bytes"] / data.index["tokens"]
    floor = None
    if data.nats is not None and np.isfinite(data.nats[:count]).all():
        floor = float(np.sum(data.nats[:count], dtype=float) / tokens.sum())
    return {"loss": loss, "perplexity": math.exp(loss), "floor": floor,
            "gap": None if floor is None else loss - floor,
            "bits_per_byte": loss / math.log(2) / bytes_per_token,
            "tokens": int(tokens.sum()), "documents": count}


def _same_vocabulary_as_data(model, data):
    theirs = getattr(data, "vocab_size", None)
    config = getattr(model, "config", None)
    if theirs and config and theirs != config.vocab_size:
        raise ValueError(
            f"the tokens were made with a vocabulary of {theirs}, the model "
            f"has {config.vocab_size}: they do not belong together")


# ch05_pretrain/pretrain.ipynb [newton-schulz]
def newton_schulz(matrices, steps=5, dtype=torch.bfloat16):
    """Push every singular value of each matrix towards 1.

    matrices: (..., M, N); returns the same shape, of dtype `dtype`. With
    X = U S Vᵀ the result is near U Vᵀ: five rounds of the odd polynomial
    3.4445 X − 4.7750 (X Xᵀ) X + 2.0315 (X Xᵀ)² X leave singular values
    between about 0.7 and 1.2. Source: Jordan et al. 2024. Built in
    chapter 5.
    """
    x = matrices.to(dtype).reshape(-1, *matrices.shape[-2:])
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT  # (B, M, M) with M ≤ N
        curve = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, curve, x, beta=3.4445)
    return (x if wide else x.mT).reshape(matrices.shape)


# ch05_pretrain/pretrain.ipynb [muon-update]
def _muon_update(params, group, states, orthogonal):
    """Move matrices of one shape by their orthogonal momentum."""
    momentum, lr, moved = group["momentum"], group["lr"], []
    for p in params:
        state = states[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        buffer = state["momentum_buffer"].lerp_(p.grad, 1 - momentum)
        moved.append(p.grad.lerp(buffer, momentum)
                     if group["nesterov"] else buffer)
    dtype = group["dtype"] or fast_dtype(params[0].device)
    update = orthogonal(torch.stack(moved), group["ns_steps"], dtype)
    rows, columns = params[0].shape
    scale = math.sqrt(max(1, rows / columns))
    if group["adjust_lr_fn"] == "match_rms_adamw":
        scale = 0.2 * math.sqrt(max(rows, columns))
    for p, u in zip(params, update):
        p.mul_(1 - lr * group["weight_decay"])
        p.add_(u.to(p.dtype), alpha=-lr * scale)


# ch05_pretrain/pretrain.ipynb [muon]
class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal: the optimiser for a network's matrices.

    params: 2-D parameters only, ValueError otherwise; embeddings, the head
    and norms belong to AdamW. lr: step size; the update of an M × N matrix
    is scaled by √max(1, M/N) ("original"), or by 0.2 √max(M, N) with
    adjust_lr_fn="match_rms_adamw", so that AdamW's rates serve. dtype: of
    the Newton-Schulz products (None: the fast one of the device).
    The same numbers as torch.optim.Muon, which newer versions have.
    Sources: Jordan et al. 2024; Liu et al. 2025. Built in chapter 5.
    """

    orthogonal = staticmethod(newton_schulz)

    def __init__(self, params, lr=1e-3, weight_decay=0.1, momentum=0.95,
                 nesterov=True, ns_steps=5, adjust_lr_fn=None, dtype=None):
        super().__init__(params, dict(
            lr=lr, weight_decay=weight_decay, momentum=momentum,
            nesterov=nesterov, ns_steps=ns_steps, adjust_lr_fn=adjust_lr_fn,
            dtype=dtype))
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.ndim != 2:
                raise ValueError("Muon is for matrices: a parameter of shape "
                                 f"{tuple(p.shape)} belongs to AdamW")

    @torch.no_grad()
    def step(self, closure=None):
        """One update; returns what `closure` returns, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            same = {}  # matrices of one shape are treated as one stack
            for p in group["params"]:
                if p.grad is not None:
                    same.setdefault((p.shape, p.device), []).append(p)
            for params in same.values():
                _muon_update(params, group, self.state, self.orthogonal)
        return loss


# ch05_pretrain/pretrain.ipynb [eight-codes]
def _dynamic_codes(signed):
    """256 values from -1 (or 0) to 1, evenly placed in each power of ten."""
    values = [torch.tensor([0.0, 1.0])]
    for e in range(7):  # the smaller the power, the fewer the values
        edges = torch.linspace(0.1, 1, 2**(6 - e if signed else 7 - e) + 1)
        middle = (edges[:-1] + edges[1:]) / 2 * 10.0**-e
        values += [middle, -middle] if signed else [middle]
    return torch.cat(values).sort().values


def quantize_blocks(values, codes, block=256):
    """Each number by the nearest of 256 codes, times its block's largest.

    values: a float tensor; codes: (256,), sorted, between -1 and 1. Returns
    indices, uint8 of the same shape, and scales, float32, one a block of
    `block` numbers. Source: Dettmers et al. 2022, section 2. Built in
    chapter 5.
    """
    flat = values.flatten()
    fill = -len(flat) % block
    blocks = F.pad(flat, (0, fill)).view(-1, block)
    scales = blocks.abs().amax(1)
    unit = blocks / scales.clamp_min(1e-38)[:, None]
    between = (codes[:-1] + codes[1:]) / 2
    indices = torch.bucketize(unit, between).to(torch.uint8)
    return indices.flatten()[:len(flat)].view_as(values), scales


def dequantize_blocks(indices, scales, codes, block=256):
    """The inverse of `quantize_blocks`, but for rounding: float32.

    Built in chapter 5.
    """
    values = codes[indices.flatten().int()]
    each = scales.repeat_interleave(block)[:len(values)]
    return (values * each).view(indices.shape)


# ch05_pretrain/pretrain.ipynb [eight-adam]
class Adam8bit(torch.optim.Optimizer):
    """AdamW that keeps the two means of each matrix in eight bits.

    lr, betas, eps, weight_decay: as in torch.optim.AdamW; its numbers, but
    for the rounding of the means. block: numbers that share a scale.
    Vectors are kept in float32. Source: Dettmers et al. 2022. Built in
    chapter 5.
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8,
                 weight_decay=1e-2, block=256):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps,
                                      weight_decay=weight_decay, block=block))

    @torch.no_grad()
    def step(self, closure=None):
        """One update; returns what `closure` returns, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                _adam8bit_update(p, self.state[p], group)
        return loss

    def load_state_dict(self, state_dict):
        """As any optimiser's, and the codes become bytes again."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in (n for n in state if n.endswith("_codes")):
                state[name] = state[name].to(torch.uint8)


# ch05_pretrain/pretrain.ipynb [eight-update]
def _adam8bit_update(p, state, group):
    """Move one parameter by AdamW's equation (chapter 5)."""
    if not state:
        state["step"] = torch.zeros(())
    state["step"] += 1
    (b1, b2), t = group["betas"], state["step"].item()
    m = _unpack(state, "m", p, group["block"]).lerp_(p.grad, 1 - b1)
    v = _unpack(state, "v", p, group["block"]).mul_(b2).addcmul_(
        p.grad, p.grad, value=1 - b2)
    p.mul_(1 - group["lr"] * group["weight_decay"])
    p.addcdiv_(m, (v / (1 - b2**t)).sqrt_().add_(group["eps"]),
               value=-group["lr"] / (1 - b1**t))
    _pack(state, "m", m, group["block"])
    _pack(state, "v", v, group["block"])


def _unpack(state, name, p, block):
    """The mean `name` of a parameter in float32; nought at first."""
    if name in state:
        return state[name]
    if f"{name}_codes" not in state:
        return torch.zeros_like(p, dtype=torch.float32)
    codes = _dynamic_codes(name == "m").to(p.device)
    return dequantize_blocks(
        state[f"{name}_codes"], state[f"{name}_scales"], codes, block)


def _pack(state, name, mean, block):
    if mean.ndim < 2:
        state[name] = mean
        return
    codes = _dynamic_codes(name == "m").to(mean.device)
    state[f"{name}_codes"], state[f"{name}_scales"] = quantize_blocks(
        mean, codes, block)


# ch05_pretrain/pretrain.ipynb [config]
@dataclass
class TrainConfig:
    """Everything that decides a training run, the model and data apart.

    steps: updates of the weights. batch_size: rows of `context` tokens in
    one update, over all devices; accumulation: pieces that each device cuts
    its share into, to save memory. context: T (None: the model's).
    optimizer: "muon" (Muon for the matrices, AdamW for the rest), "adamw",
    or "adamw8bit" (AdamW with its means in eight bits). learning_rate:
    AdamW's peak; muon_learning_rate: Muon's; embedding_learning_rate:
    AdamW's for an embedding table that is not the head too (None: the
    same). schedule: "wsd" (flat, then linear to
    final_rate × peak over the last share `cooldown` of the steps),
    "cosine" or "constant", after warmup_steps. betas, weight_decay: AdamW's
    (decay for Muon too); momentum, newton_schulz_rounds: Muon's.
    clip_norm: largest length of the gradient (0: no clipping). precision:
    "auto", "float32" or "bfloat16". windows: "documents" (rows of whole
    documents) or "stream".
    eval_every, checkpoint_every: in steps, 0 for never; eval_documents: how
    many (0: all); log_every: steps a line of the log. keep_checkpoints: of
    the latest; milestones: steps whose checkpoint is kept for ever. seed:
    of the batches' order; compile: through torch.compile, where it works.
    max_minutes: stop cleanly, with a checkpoint, after so long.
    checkpoint_activations: calculate each block again in the backward pass
    instead of keeping what it made; loss_rows: positions whose logits are
    held at a time (0: all). tensorboard: write event files beside the log.
    Raises ValueError on values without sense. Built in chapter 5.
    """

    steps: int = 1000
    batch_size: int = 32
    accumulation: int = 1
    context: int | None = None
    optimizer: str = "muon"
    learning_rate: float = 3e-3
    muon_learning_rate: float = 0.02
    embedding_learning_rate: float | None = None
    betas: tuple = (0.9, 0.95)
    momentum: float = 0.95
    newton_schulz_rounds: int = 5
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    schedule: str = "wsd"
    warmup_steps: int = 50
    cooldown: float = 0.5
    final_rate: float = 0.0
    precision: str = "auto"
    windows: str = "documents"
    seed: int = 0
    log_every: int = 1
    eval_every: int = 0
    eval_documents: int = 200
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    milestones: tuple = ()
    max_minutes: float | None = None
    compile: bool = False
    checkpoint_activations: bool = False
    loss_rows: int = 0
    tensorboard: bool = False

    def __post_init__(self):
        self.betas, self.milestones = tuple(self.betas), tuple(self.milestones)
        _check_training(self)


# ch05_pretrain/pretrain.ipynb [config-check]
def _check_training(c):
    """Raise ValueError where the fields of a TrainConfig make no sense."""
    for name, known in (("optimizer", ("muon", "adamw", "adamw8bit")),
                        ("schedule", ("wsd", "cosine", "constant")),
                        ("precision", ("auto", "float32", "bfloat16")),
                        ("windows", ("documents", "stream"))):
        if getattr(c, name) not in known:
            raise ValueError(f"{name} is {getattr(c, name)!r}: choose "
                             f"one of {', '.join(known)}")
    for name in ("steps", "batch_size", "accumulation", "log_every"):
        if getattr(c, name) < 1:
            raise ValueError(f"{name} must be at least 1, "
                             f"not {getattr(c, name)}")
    if c.batch_size % c.accumulation:
        raise ValueError(f"{c.batch_size} rows do not divide into "
                         f"{c.accumulation} equal pieces")
    if c.learning_rate <= 0:
        raise ValueError("learning_rate must be above 0, "
                         f"not {c.learning_rate}")


# ch05_pretrain/pretrain.ipynb [schedule]
def learning_rate(step, config):
    """AdamW's learning rate at `step` (0-based) of a TrainConfig's run.

    It climbs in a line over warmup_steps and reaches the peak at the last
    of them; then "constant", "cosine" (half a wave down to final_rate ×
    peak) or "wsd" (flat, then a line down over the last `cooldown` of the
    steps). Muon's rate is the same curve with another peak.
    Sources: Loshchilov and Hutter 2017 (cosine); Hu et al. 2024 (wsd).
    Built in chapter 5.
    """
    peak, low = config.learning_rate, config.final_rate
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return peak
    if config.schedule == "cosine":
        span = max(1, config.steps - config.warmup_steps)
        done = min(1.0, (step - config.warmup_steps) / span)
        share = 0.5 * (1 + math.cos(math.pi * done))
    else:
        share = min(1.0, max(0.0, (config.steps - step)
                             / max(1, round(config.cooldown * config.steps))))
    return peak * (low + (1 - low) * share)


# ch05_pretrain/pretrain.ipynb [optimizers]
def _sorted_parameters(model):
    """Learnable parameters: inner matrices, heads, tables only, the rest."""
    heads = {id(p) for name, p in model.named_parameters(
        remove_duplicate=False) if name.endswith("head.weight")}
    tables = {id(m.weight) for m in model.modules()
              if isinstance(m, torch.nn.Embedding)}
    learning = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in learning if p.ndim == 2]
    return ([p for p in matrices if id(p) not in heads | tables],
            [p for p in matrices if id(p) in heads],
            [p for p in matrices if id(p) in tables - heads],
            [p for p in learning if p.ndim != 2])


# ch05_pretrain/pretrain.ipynb [optimizers-2]
def make_optimizers(model, config):
    """The optimisers of a run, as a list, for what is to be learnt.

    With config.optimizer "muon": Muon for the matrices inside the network,
    AdamW for embeddings, the head, norms and biases; with "adamw": AdamW
    for all, with "adamw8bit" its means in eight bits. Weight decay pulls on
    what multiplies: the matrices and the head. A table that is only looked
    up has its own rate. Under µP AdamW's rate for the inner matrices is
    smaller by base width over width, and their decay larger, so that rate ×
    decay stays; Muon's steps need no change. Each parameter group carries
    its `peak` rate. Frozen parameters are left out. Built in chapter 5.
    """
    if hasattr(model, "make_optimizers"):  # one in shards has its own
        return model.make_optimizers(config)
    inner, heads, tables, rest = _sorted_parameters(model)
    optimizers, decay = [], config.weight_decay
    if config.optimizer == "muon" and inner:
        optimizers.append(Muon(inner, config.muon_learning_rate, decay,
                               config.momentum,
                               ns_steps=config.newton_schulz_rounds))
        inner = []
    rate = config.embedding_learning_rate or config.learning_rate
    scale = getattr(getattr(model, "config", None), "mup_scale", 1.0)
    groups = [{"params": inner, "weight_decay": decay / scale,
               "lr": config.learning_rate * scale},
              {"params": heads, "weight_decay": decay},
              {"params": tables, "weight_decay": 0.0, "lr": rate},
              {"params": rest, "weight_decay": 0.0}]
    if groups := [g for g in groups if g["params"]]:
        options = dict(lr=config.learning_rate, betas=config.betas)
        try:  # one fused pass over the parameters, where torch has it
            adamw = (Adam8bit(groups, **options)
                     if config.optimizer == "adamw8bit"
                     else torch.optim.AdamW(groups, fused=True, **options))
        except (RuntimeError, TypeError):
            adamw = torch.optim.AdamW(groups, **options)
        optimizers.append(adamw)
    for group in (g for o in optimizers for g in o.param_groups):
        group["peak"] = group["lr"]
    return optimizers


# ch05_pretrain/pretrain.ipynb [optimizer-step]
def _gradient_norm(grads):
    """The length of all gradients as one vector, a tensor ().

    Of large ones on a processor it is the length of the rows' lengths: all
    cores help with these, and no float32 sum gets so long that it is coarse.
    """
    return torch.nn.utils.get_total_norm([
        torch.linalg.vector_norm(g, dim=-1)
        if g.device.type == "cpu" and g.numel() > 2**19 else g
        for g in grads])


def optimizer_step(model, optimizers, step, config):
    """Clip the gradients, set this step's rates, update, clear.

    Returns the length of the whole gradient before clipping. Raises
    FloatingPointError, and changes nothing, if that is not finite.
    Built in chapter 5.
    """
    if hasattr(model, "optimizer_step"):  # spread in a way of its own
        return model.optimizer_step(step, config)
    params = [p for p in model.parameters() if p.grad is not None]
    limit = config.clip_norm or math.inf
    in_shards = hasattr(model, "clip_grad_norm_")  # it sees all, and clips
    norm = (model.clip_grad_norm_(limit) if in_shards
            else _gradient_norm([p.grad for p in params]))
    if not math.isfinite(norm):
        raise FloatingPointError(
            f"the gradient at step {step} is {float(norm)}")
    too_long = not in_shards and norm + 1e-6 > limit
    fused = (too_long and norm.dtype == torch.float32  # it takes no other
             and all(o.defaults.get("fused") for o in optimizers))
    if too_long and not fused:
        torch.nn.utils.clip_grads_with_norm_(params, limit, norm)
    share = learning_rate(step, config) / config.learning_rate
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        optimizer.grad_scale = (norm + 1e-6) / limit if fused else None
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(norm)


# ch05_pretrain/pretrain.ipynb [compile]
@functools.cache
def can_compile(kind="cpu"):
    """Whether torch.compile works on devices of this kind: it is tried.

    Built in chapter 5.
    """
    try:
        double = torch.compile(lambda x: x.sin() + x)
        double(torch.ones(64, device=kind))
    except Exception:  # no compiler, no headers, an unknown device …
        return False
    return True


class Compiled:
    """`with` it a model's blocks run compiled, if config.compile says so.

    It may be entered again and again; outside the blocks are as they were.
    dynamic: True where the shapes of batches differ. Nothing changes where
    torch.compile does not work. Built in chapter 5.
    """

    def __init__(self, model, config, dynamic=None):
        kind = next(model.parameters()).device.type
        spread = hasattr(model, "batch_loss")  # in a way of its own
        use = config.compile and not spread and can_compile(kind)
        self.blocks = [part for part in model.modules()
                       if use and isinstance(part, Block)]
        self.fast = [torch.compile(block.forward, dynamic=dynamic)
                     for block in self.blocks]

    def __enter__(self):
        for block, fast in zip(self.blocks, self.fast):
            block.forward = fast

    def __exit__(self, *error):
        for block in self.blocks:
            del block.forward  # the class's own is there again


# ch05_pretrain/pretrain.ipynb [workers]
def workers():
    """(rank, world): which of how many processes this is, (0, 1) alone.

    Built in chapter 5.
    """
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _wrapped(model, config, device):
    """The model as it is called in training, on each of the processes."""
    if hasattr(model, "batch_loss"):  # it is spread in a way of its own
        return model
    model.checkpointing = config.checkpoint_activations
    model.loss_rows = config.loss_rows
    if workers()[1] > 1:
        from torch.nn.parallel import DistributedDataParallel

        ids = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids)
    return model


# ch05_pretrain/pretrain.ipynb [batch-loss]
def batch_loss(called, x, y, config, backward=True):
    """Forward and backward over one batch, cut into pieces.

    called: the model, maybe spread over processes; x, y: (B, T), the whole
    batch of all processes, of which this one takes its rows. Each piece
    counts by its number of targets, so the gradient is that of the mean
    over the whole batch, however it is cut. Returns that mean, a float.
    Built in chapter 5.
    """
    if hasattr(called, "batch_loss"):
        return called.batch_loss(x, y, config)
    rank, world = workers()
    device = next(called.parameters()).device
    total = (y != -100).sum().item()
    x, y = x[rank::world], y[rank::world]
    sum_ = torch.zeros((), device=device)
    pieces = list(zip(x.chunk(config.accumulation),
                      y.chunk(config.accumulation)))
    for i, (xs, ys) in enumerate(pieces):
        share = (ys != -100).sum().item() * world / total
        last = i == len(pieces) - 1
        wait = (contextlib.nullcontext() if last or world == 1
                else called.no_sync())
        with wait:
            with mixed_precision(device, config.precision):
                _, loss = called(xs.to(device, non_blocking=True),
                                 ys.to(device, non_blocking=True))
            loss = loss.float() * share
            if backward:
                loss.backward()
        sum_ += loss.detach()
    if world > 1:
        import torch.distributed as dist

        dist.all_reduce(sum_)
    return sum_.item() / world


# ch05_pretrain/pretrain.ipynb [save-checkpoint]
def save_checkpoint(folder, model, optimizers=(), **state):
    """Write folder/step-…: all that a run needs to go on; returns its Path.

    state: JSON values, among them `step`. Two safetensors files (weights;
    optimiser and random states) and checkpoint.json with their SHA-256.
    The folder appears whole or not at all. Built in chapter 5.
    """
    from safetensors.torch import save_file

    place = Path(folder) / f"step-{state['step']:07d}"
    if hasattr(model, "save_checkpoint"):  # each process writes its shards
        return model.save_checkpoint(place, optimizers, state)
    extra = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        extra["random.cuda"] = torch.cuda.get_rng_state()
    for o, optimizer in enumerate(optimizers):
        for p, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                extra[f"{o}.{p}.{name}"] = torch.as_tensor(value)
    with atomic_folder(place) as part:
        save_file(_whole(_own_weights(model)), part / "model.safetensors")
        save_file(_whole(extra), part / "optimizer.safetensors")
        sums = {f.name: sha256_file(f) for f in sorted(part.iterdir())}
        write_json(part / "checkpoint.json", {**state, "sha256": sums})
    return place


def _whole(tensors):
    return {name: t.detach().cpu().contiguous().clone()
            for name, t in tensors.items()}


def _own_weights(model):
    """The state of a model, shared tensors once."""
    seen, own = set(), {}
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            own[name] = value
        seen.add(id(value))
    return own


# ch05_pretrain/pretrain.ipynb [load-checkpoint]
def latest_checkpoint(folder):
    """The last whole checkpoint in `folder`, or None. Built in chapter 5."""
    found = sorted(Path(folder).glob("step-*/checkpoint.json"))
    return found[-1].parent if found else None


def _read_state(place):
    """What checkpoint.json of a step-… folder says."""
    try:
        return read_json(place / "checkpoint.json")
    except ValueError as error:
        raise ValueError(f"{error}: remove this folder to go on from the "
                         "one before") from None


def _verified(folder):
    """(step-… folder, its state), after a look at every file's SHA-256."""
    folder = Path(folder)
    if not (folder / "checkpoint.json").exists():
        place = latest_checkpoint(folder)
        if place is None:
            raise FileNotFoundError(f"{folder} holds no whole checkpoint: "
                                    "start the run without resume")
        folder = place
    state = _read_state(folder)
    for name, digest in state["sha256"].items():
        path = folder / name
        if not path.exists() or sha256_file(path) != digest:
            raise ValueError(
                f"{path} is not the file that was saved (its SHA-256 "
                "differs): remove this folder to go on from the one before")
    return folder, state


# ch05_pretrain/pretrain.ipynb [load-checkpoint-2]
def _load_weights(folder, model):
    """Read a model's weights; returns all else that was saved."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    extra = load_file(folder / "optimizer.safetensors")
    own = _own_weights(model)
    if {n: t.shape for n, t in own.items()} != {
            n: t.shape for n, t in weights.items()}:
        raise ValueError(f"{folder} holds another model than the one given")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(weights[name])
    return extra


def _load_optimizers(optimizers, extra):
    for o, optimizer in enumerate(optimizers):
        state = {}
        for key, value in extra.items():
            head, _, rest = key.partition(".")
            if head == str(o):
                p, _, name = rest.partition(".")
                state.setdefault(int(p), {})[name] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})


# ch05_pretrain/pretrain.ipynb [load-checkpoint-3]
def load_checkpoint(folder, model, optimizers=()):
    """Read what `save_checkpoint` wrote into model and optimisers.

    folder: a step-… folder, or one that holds several (the last is taken).
    Sets torch's random states when optimisers are given, and returns the
    state. Raises FileNotFoundError if there is none, and ValueError, with
    nothing changed, if a file is truncated, altered or of another model.
    Built in chapter 5.
    """
    folder, state = _verified(folder)
    if hasattr(model, "load_checkpoint"):
        model.load_checkpoint(folder, optimizers)
        return state
    if not (folder / "model.safetensors").exists():
        raise ValueError(f"{folder} was written in shards: go on with the "
                         "flags that spread it (--fsdp 1 for one process)")
    extra = _load_weights(folder, model)
    if optimizers:
        _load_optimizers(optimizers, extra)
        torch.set_rng_state(extra["random.cpu"])
        if torch.cuda.is_available() and "random.cuda" in extra:
            torch.cuda.set_rng_state(extra["random.cuda"])
    return state


# ch05_pretrain/pretrain.ipynb [drop-checkpoints]
def _drop_old_checkpoints(folder, config):
    """Keep the last few, and those of the milestones."""
    if workers()[0] != 0:
        return
    spared = {f"step-{step:07d}" for step in config.milestones}
    whole = [p.parent for p in sorted(folder.glob("step-*/checkpoint.json"))
             if p.parent.name not in spared]
    for old in whole[:-config.keep_checkpoints or None]:
        shutil.rmtree(old)


# ch05_pretrain/pretrain.ipynb [history]
@dataclass
class History:
    """What happened in a run.

    records: one dict a logged step (step, loss, learning_rate, norm,
    tokens); evaluations: what `evaluate` returned, each with its step;
    system: of logged steps, seconds since the run began, seconds_per_step,
    and memory_bytes at its peak.
    steps, tokens, seconds: done so far, over all resumed parts.
    stopped: "done", "time" if max_minutes ended the run, or "signal".
    Built in chapter 5.
    """

    records: list = field(default_factory=list)
    evaluations: list = field(default_factory=list)
    system: list = field(default_factory=list)
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    stopped: str = "done"

    @property
    def losses(self):
        """The training loss of every logged step, in nats per token."""
        return [r["loss"] for r in self.records]

    @property
    def last(self):
        """The last evaluation, or None."""
        return self.evaluations[-1] if self.evaluations else None

    @classmethod
    def read(cls, path, before):
        """What a log says of the steps up to `before`."""
        history = cls()
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                except ValueError:  # the last line of a run that was killed
                    break
                if entry["step"] > before:
                    continue
                kind = ("evaluations" if "gap" in entry else
                        "records" if "norm" in entry else "system")
                getattr(history, kind).append(entry)
        return history

    def write(self, path):
        """Write the log anew, one JSON object a line."""
        entries = self.records + self.evaluations + self.system
        write_lines(path, sorted(entries, key=lambda e: e["step"]))


# ch05_pretrain/pretrain.ipynb [plot-history]
def plot_history(history, ax, floor=None, total=None):
    """Draw a run: training loss, validation loss, and the floor below.

    history: History; ax: a Matplotlib axis; floor: nats per token (default:
    from the evaluations); total: steps of the whole run. Built in
    chapter 5.
    """
    ax.clear()
    at = [r["step"] for r in history.records]
    ax.plot(at, history.losses, color="C7", lw=0.6, alpha=0.7)
    if history.evaluations:
        steps = [e["step"] for e in history.evaluations]
        losses = [e["loss"] for e in history.evaluations]
        ax.plot(steps, losses, "o-", color="C0")
        ax.annotate("validation", (steps[-1], losses[-1]), (0, 6),
                    textcoords="offset points", color="C0", ha="right")
        floor = floor or history.evaluations[-1]["floor"]
    if floor:
        ax.axhline(floor, color="C3", ls="--")
        ax.annotate("the floor: what the text itself holds",
                    (0.01, floor), (0, -11), color="C3", fontsize=8,
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points")
    ax.set(xlabel="step", ylabel="nats per token", ylim=(0, None),
           xlim=(0, total or None))


# ch05_pretrain/pretrain.ipynb [peak]
_PEAK_FLOPS = {  # dense bfloat16, from the makers' data sheets
    "B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12,
    "L40S": 362e12, "A100": 312e12, "RTX 4090": 165e12, "L4": 121e12,
    "RTX 3090": 71e12,
}


@functools.cache
def peak_flops(device="cpu", precision="auto"):
    """Operations a second that a device's matrix products can reach.

    For a GPU known by its name and bfloat16: the data sheet's. Otherwise
    the best of some products of two square matrices, measured once in a
    process. precision: as in `mixed_precision`. Built in chapter 5.
    """
    device = torch.device(device)
    dtype = (fast_dtype(device) if precision == "auto"
             else getattr(torch, precision))
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        words = set(re.split(r"[\s-]+", name))  # an L40 is no L4
        for known, peak in _PEAK_FLOPS.items():
            if words.issuperset(known.split()):
                return peak
    n, best = 4096 if device.type == "cuda" else 768, 0.0
    a = torch.ones(n, n, device=device, dtype=dtype)
    for _ in range(30):
        began = time.perf_counter()
        (a @ a)[0, 0].item()  # waits until the product is there
        best = max(best, 2 * n**3 / (time.perf_counter() - began))
    return best


# ch05_pretrain/pretrain.ipynb [progress]
class _LivePlot:
    """Redraws one picture of the run in a notebook."""

    def __init__(self, total):
        import matplotlib.pyplot as plt
        from IPython.display import display

        self.total = total
        self.figure, self.ax = plt.subplots()
        self.handle = display(self.figure, display_id=True)
        plt.close(self.figure)

    def __call__(self, history):
        plot_history(history, self.ax, total=self.total)
        self.handle.update(self.figure)


class _Printer:
    """Prints a line: the loss, and the pace since the line before."""

    def __init__(self, run):
        self.tokens, self.seconds = None, run.history.seconds
        self.flops = flops_per_token(run.model.config, run.context)
        self.peak = run.world * peak_flops(run.device, run.config.precision)

    def __call__(self, history):
        last, loss = history.last, history.losses[-1]
        shown = f", validation {last['loss']:.3f}" if last else ""
        if last and last["gap"] is not None:
            shown += f" (gap {last['gap']:.3f})"
        took = max(history.seconds - self.seconds, 1e-9)
        if self.tokens is None:  # much of it is not the step's
            told = f"ready to go on after {took:.1f} s"
        else:
            pace = (history.tokens - self.tokens) / took
            told = (f"{pace:,.0f} tokens/s, utilisation "
                    f"{pace * self.flops / self.peak:.0%}")
        self.tokens, self.seconds = history.tokens, history.seconds
        print(f"step {history.steps}: loss {loss:.3f}{shown}, {told}",
              flush=True)


def _reporter(progress, run):
    if callable(progress):
        return progress
    if progress == "auto":
        try:
            from IPython import get_ipython
            progress = ("plot" if hasattr(get_ipython(), "kernel")
                        else "print")
        except ImportError:
            progress = "print"
    if progress == "plot":
        return _LivePlot(run.config.steps)
    return _Printer(run) if progress == "print" else lambda history: None


# ch05_pretrain/pretrain.ipynb [run-state]
class _Run:
    """What `train` holds in its hands."""

    def __init__(self, model, data, config, folder):
        _same_vocabulary_as_data(model, data)
        self.context = config.context or model.config.context_length
        if self.context > model.config.context_length:
            raise ValueError(
                f"a context of {self.context} is longer than the model's "
                f"{model.config.context_length}: shorten it")
        self.rank, self.world = workers()
        shares = getattr(model, "shares", self.world)  # of a batch's rows
        if config.batch_size % (shares * config.accumulation):
            raise ValueError(
                f"{config.batch_size} rows do not divide among {shares} "
                f"processes × {config.accumulation} pieces")
        self.model, self.config = model, config
        self.folder = None if folder is None else Path(folder)
        self.device = next(model.parameters()).device
        self.optimizers = make_optimizers(model, config)
        self.batches = Prefetch(
            Batches(data, config.batch_size, self.context, config.seed,
                    config.windows), self.device)
        self.called = _wrapped(model, config, self.device)
        self.compiled = Compiled(model, config)
        self.history = History()
        index = getattr(data, "index", None) or {"documents": len(data)}
        self.about = json.loads(json.dumps({
            "config": asdict(config), "shape": model.config.to_dict(),
            "data": {k: index.get(k) for k in
                     ("tokenizer_sha256", "tokens", "documents")}}))


# ch05_pretrain/pretrain.ipynb [disk]
def _last_good(run):
    """Where the run could go on from, in words."""
    good = run.folder and latest_checkpoint(run.folder)
    return (f"the last good checkpoint is {good}" if good
            else "no checkpoint was written")


@contextlib.contextmanager
def _writing(run, what):
    """Make one sentence, an OSError, of any failure to write `what`."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error).split(": ")[-1]
        raise OSError(
            f"{what} of step {run.history.steps} could not be written "
            f"({why}): the run stops; {_last_good(run)}; make room, and "
            "start the same run again") from error


# ch05_pretrain/pretrain.ipynb [board]
def _peak_bytes(device):
    """The most memory that was in use: the GPU's, or the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class _Board:
    """TensorBoard's event files of a run, in folder/tensorboard."""

    def __init__(self, folder, history):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("tensorboard=True needs the package "
                              "tensorboard: install it, or leave it out"
                              ) from None
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.writer = SummaryWriter(folder / "tensorboard")
        for kind in (history.records, history.evaluations, history.system):
            for entry in kind:
                self.add(entry)

    def add(self, entry):
        """One line of the log, each number a curve."""
        group = ("validation" if "gap" in entry else
                 "train" if "norm" in entry else "system")
        for name, value in entry.items():
            if name != "step" and value is not None:
                self.writer.add_scalar(f"{group}/{name}", value,
                                       entry["step"])


# ch05_pretrain/pretrain.ipynb [run-step]
def _step(run):
    """One update of the weights, and its record."""
    step, config, history = run.history.steps, run.config, run.history
    began = time.perf_counter()
    x, y = run.batches.next()
    try:
        with run.compiled:
            loss = batch_loss(run.called, x, y, config)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss at step {step} is {loss}")
        norm = optimizer_step(run.model, run.optimizers, step, config)
    except FloatingPointError as error:
        raise FloatingPointError(
            f"{error}: the run stops; {_last_good(run)}; try a lower learning "
            "rate or a longer warm-up") from None
    history.steps += 1
    history.tokens += int((y != -100).sum())
    if step % config.log_every == 0:
        _log(run, history.records, {
            "step": history.steps, "loss": loss, "norm": norm,
            "learning_rate": learning_rate(step, config),
            "tokens": history.tokens})
        _log(run, history.system, {
            "step": history.steps,
            "seconds": history.seconds + time.perf_counter() - began,
            "seconds_per_step": time.perf_counter() - began,
            "memory_bytes": _peak_bytes(run.device)})


def _log(run, entries, entry):
    entries.append(entry)
    if run.rank == 0 and run.folder:
        with (_writing(run, "the log"),
              open(run.folder / "log.jsonl", "a", encoding="utf-8") as file):
            file.write(json.dumps(entry) + "\n")
            if run.config.tensorboard:
                run.board.add(entry)


# ch05_pretrain/pretrain.ipynb [run-resume]
_FREE_TO_CHANGE = {"max_minutes", "eval_every", "eval_documents", "log_every",
                   "checkpoint_every", "keep_checkpoints", "milestones",
                   "compile", "accumulation", "checkpoint_activations",
                   "loss_rows", "tensorboard"}


def _resume(run):
    """Go on from the last checkpoint of the run's folder."""
    place = latest_checkpoint(run.folder)
    before = _read_state(place)
    for part in ("config", "shape", "data"):
        for name, value in run.about[part].items():
            old = before[part].get(name)
            if old != value and name not in _FREE_TO_CHANGE:
                raise ValueError(
                    f"{place} was made with {name} = {old}, now it is "
                    f"{value}: restore it, or start with resume=False")
    state = load_checkpoint(place, run.model, run.optimizers)
    log = run.folder / "log.jsonl"
    if log.exists():
        run.history = History.read(log, state["step"])
        if run.rank == 0:
            with _writing(run, "the log"):
                run.history.write(log)
    if run.rank == 0:
        _sweep(run.folder)
    _open_board(run)
    run.history.steps, run.history.tokens = state["step"], state["tokens"]
    run.history.seconds = state["seconds"]
    run.batches.load_state_dict(state["position"])


# ch05_pretrain/pretrain.ipynb [run-begin]
def _begin(run):
    """A new run: what an earlier one left in the folder goes."""
    if run.rank == 0 and run.folder:
        run.folder.mkdir(parents=True, exist_ok=True)
        _sweep(run.folder, "step-*")
        (run.folder / "log.jsonl").unlink(missing_ok=True)
    _open_board(run)


def _open_board(run):
    if run.rank == 0 and run.folder and run.config.tensorboard:
        run.board = _Board(run.folder, run.history)


def _sweep(folder, *more):
    """Remove what a killed process had half written, or what is named."""
    for name in (".step-*", ".log.jsonl.*", *more):
        for old in folder.glob(name):
            shutil.rmtree(old) if old.is_dir() else old.unlink()


# ch05_pretrain/pretrain.ipynb [run-between]
def _between(run, validation, report, over):
    """What is due after a step: score, show, save."""
    config, history, folder = run.config, run.history, run.folder
    step, end = history.steps, over or run.history.steps == config.steps
    due = lambda every: end or (every and step % every == 0)  # noqa: E731
    if step == run.start + 1:  # of this sitting
        run.look_at = history.seconds + 30
    if half_a_minute := history.seconds >= run.look_at:
        run.look_at = math.inf
    if (validation is not None and over != "signal"
            and due(config.eval_every)):
        scores = evaluate(run.model, validation, config.eval_documents,
                          precision=config.precision)
        _log(run, history.evaluations, {"step": step, **scores})
        report(history)
    elif (due(max(1, config.steps // 10)) or step - run.start <= 2
          or half_a_minute):
        report(history)
    if end and folder and config.tensorboard:
        run.board.writer.flush()
    if folder and (due(config.checkpoint_every)
                   or step in config.milestones):
        with _writing(run, "the checkpoint"):
            save_checkpoint(
                folder, run.model, run.optimizers, step=step,
                tokens=history.tokens, seconds=history.seconds,
                position=run.batches.state_dict(), **run.about)
            _drop_old_checkpoints(folder, config)


def _agree(reason, run):
    """Why all stop now ("": they do not), if one of them has a reason."""
    if run.world == 1:
        return reason
    import torch.distributed as dist

    reasons = ("", "time", "signal")
    flag = torch.tensor(reasons.index(reason), device=run.device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return reasons[flag.item()]


# ch05_pretrain/pretrain.ipynb [signals]
class _Postponed:
    """Holds SIGINT and SIGTERM back, and does as they say when left.

    number: that of the signal that came, or None. Only the main thread
    hears signals; elsewhere nothing is held back.
    """

    def __init__(self, run):
        self.run, self.number, self.old = run, None, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, frame):
        if self.number == number == signal.SIGINT:  # asked twice
            raise KeyboardInterrupt
        self.number = number

    def __exit__(self, kind, error, trace):
        for number, old in self.old.items():
            signal.signal(number, old or signal.SIG_DFL)
        if self.number is not None and error is None:
            print(f"{signal.Signals(self.number).name}: the run stops after "
                  f"step {self.run.history.steps}; {_last_good(self.run)}; "
                  "start it again to go on", file=sys.stderr, flush=True)
            signal.raise_signal(self.number)


# ch05_pretrain/pretrain.ipynb [gone]
@contextlib.contextmanager
def _together(run):
    """Say it plainly when another process of the run has died."""
    try:
        yield
    except RuntimeError as error:
        signs = r"[Cc]onnection|[Gg]loo|NCCL|[Pp]eer"
        if run.world == 1 or not re.search(signs, str(error)):
            raise
        print("another process of this run is gone, so this one stops after "
              f"step {run.history.steps}; {_last_good(run)}; start the same "
              "run again", file=sys.stderr, flush=True)
        raise ConnectionError("another process of this run is gone") from error


# ch05_pretrain/pretrain.ipynb [train]
def train(model, data, config, validation=None, folder=None, resume=False,
          progress="auto"):
    """Train `model` on `data` as `config` says; returns the History.

    model: a GPT, changed in place. data, validation: TokenDatasets. folder:
    for log.jsonl and checkpoints (one is always written at the end).
    resume=True: go on from the last whole checkpoint there, bit for bit as
    if nothing had happened; without one, begin. progress: "auto" (a live
    plot in a notebook, else lines), "plot", "print", None, or a function of
    the History. With torch.distributed started, every process calls this
    with the same arguments. SIGINT and SIGTERM take effect when the step is
    done and saved. Raises FloatingPointError, naming the step and the last
    good checkpoint, when a loss is not finite; OSError, likewise, when
    something cannot be written, or when another process is gone (stderr
    names both at once); ValueError when data, model, config and checkpoint
    do not fit. Built in chapter 5.
    """
    run = _Run(model, data, config, folder)
    keep_freed_memory()
    if resume and folder and latest_checkpoint(folder):
        _resume(run)
    else:
        _begin(run)
    report = _reporter(progress if run.rank == 0 else None, run)
    began, before = time.perf_counter(), run.history.seconds
    run.start = run.history.steps
    limit = math.inf if config.max_minutes is None else config.max_minutes
    model.train()
    with _Postponed(run) as asked, _together(run):
        while run.history.steps < config.steps:
            _step(run)
            seconds = time.perf_counter() - began
            run.history.seconds = before + seconds
            late = seconds > 60 * limit
            over = _agree("signal" if asked.number else "time" * late, run)
            if run.rank == 0 or hasattr(model, "shares"):  # all have a part
                _between(run, validation, report, over)
            if over and run.history.steps < config.steps:
                run.history.stopped = over
                break
        _agree("", run)  # none leaves before all is saved
    model.eval()
    return run.history


# ch05_pretrain/pretrain.ipynb [recipe]
RECIPES = {
    "smoke": TrainConfig(
        steps=200, batch_size=16, context=128, warmup_steps=20,
        learning_rate=5e-3, muon_learning_rate=0.03, newton_schulz_rounds=3,
        embedding_learning_rate=0.05, cooldown=0.6),
    "pocket": TrainConfig(
        steps=3200, batch_size=8, context=256, warmup_steps=40,
        learning_rate=3e-3, muon_learning_rate=0.02, newton_schulz_rounds=3,
        embedding_learning_rate=0.05, cooldown=0.8, compile=True),
    "gpt2-124m": TrainConfig(  # 0.52 million tokens a step
        steps=2400, batch_size=512, accumulation=16, context=1024,
        warmup_steps=100, cooldown=0.5, eval_every=100, log_every=5,
        checkpoint_every=200, eval_documents=500, loss_rows=2**15),
}


# ch05_pretrain/pretrain.ipynb [sample]
def sample(logits, temperature=0.0, top_k=None, top_p=None, generator=None):
    """Choose the next ids (...,) from logits (..., V).

    temperature: 0 takes the likeliest; 1 draws as the model believes; more
    is bolder. top_k: only the k likeliest; top_p: only the likeliest that
    together hold the share p (the first is always kept). generator: a
    torch.Generator on the logits' device. Raises ValueError on values
    without sense. Source: Holtzman et al. 2020 (top-p). Built in chapter 5.
    """
    if temperature < 0 or (top_k is not None and top_k < 1) or (
            top_p is not None and not 0 < top_p <= 1):
        raise ValueError("temperature ≥ 0, top_k ≥ 1 and 0 < top_p ≤ 1 are "
                         f"wanted, not {temperature}, {top_k}, {top_p}")
    if temperature == 0:
        return logits.argmax(-1)
    logits, order = (logits.float() / temperature).sort(-1, descending=True)
    if top_k is not None:
        logits[..., top_k:] = -math.inf
    chances = logits.softmax(-1)
    if top_p is not None:
        before = chances.cumsum(-1) - chances  # held by the likelier ones
        chances = chances.masked_fill(before >= top_p, 0.0)
    flat = chances.flatten(0, -2) if chances.ndim > 1 else chances
    drawn = torch.multinomial(flat, 1, generator=generator)
    drawn = drawn.view(*chances.shape[:-1], 1)
    return order.gather(-1, drawn).squeeze(-1)


# ch05_pretrain/pretrain.ipynb [generate]
@torch.no_grad()
def generate(model, ids, max_new_tokens, temperature=0.0, top_k=None,
             top_p=None, stop=(), generator=None, use_cache=True):
    """Continue `ids`, (T,) or (B, T), by at most max_new_tokens ids.

    Returns prompt and continuation, of the same number of dimensions.
    stop: ids that end a row; the id itself is kept, and a row that ended
    is filled with the first of `stop` until all have. It ends early where
    the model's context is full. The rest as in `sample`; use_cache=False
    computes all anew for every token. Raises ValueError on an empty prompt
    or one longer than the context. Built in chapter 5.
    """
    batch = ids[None] if ids.ndim == 1 else ids
    if not batch.shape[1]:
        raise ValueError("the prompt is empty: begin with <|endoftext|>")
    rows = [len(batch[0])] * len(batch)
    new = _continue(model, batch, rows, max_new_tokens, stop, use_cache,
                    temperature, top_k, top_p, generator)
    out = torch.cat((batch, new), dim=1)
    return out[0] if ids.ndim == 1 else out


@torch.inference_mode()
def _continue(model, batch, lengths, max_new_tokens, stop, use_cache,
              *sampling):
    """New ids (B, N) after prompts of `lengths`, padded on the left."""
    device, was = next(model.parameters()).device, model.training
    temperature, top_k, top_p, generator = sampling
    batch = feed = batch.to(device)
    pad = torch.tensor([batch.shape[1] - n for n in lengths], device=device)
    pad = pad if pad.any() else None
    ends = torch.tensor(list(stop), dtype=torch.long, device=device)
    done = torch.zeros(len(batch), dtype=torch.bool, device=device)
    new = batch[:, :0]
    limit = model.config.context_length + 1 - batch.shape[1]
    cache = model.new_cache() if use_cache else None
    model.eval()
    for _ in range(min(max_new_tokens, max(limit, 1))):
        logits, _ = model(feed, cache=cache, left_pad=pad)
        token = sample(logits[:, -1], temperature, top_k, top_p, generator)
        if len(ends):
            token = torch.where(done, ends[0], token)
            done |= torch.isin(token, ends)
        new = torch.cat((new, token[:, None]), dim=1)
        if done.all():
            break
        feed = token[:, None] if use_cache else torch.cat((batch, new), dim=1)
    model.train(was)
    return new


# ch05_pretrain/pretrain.ipynb [generate-batch]
def generate_batch(model, prompts, max_new_tokens, stop=(), batch_size=64,
                   temperature=0.0, top_k=None, top_p=None, generator=None):
    """Continue many prompts of any lengths, quickly.

    prompts: a list of lists of ids. Returns a list of lists: only the new
    ids, up to the first of `stop`, which is kept as the sign that the row
    ended by itself. Prompts of like length go together, padded on the
    left; with temperature 0 each gets what `generate` alone would give it.
    Raises ValueError on an empty prompt or one longer than the context.
    Built in chapter 5.
    """
    if any(len(ids) == 0 for ids in prompts):
        raise ValueError("a prompt is empty: begin with <|endoftext|>")
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found, ends = [None] * len(prompts), set(stop)
    for start in range(0, len(order), batch_size):
        some = order[start:start + batch_size]
        lengths = [len(prompts[i]) for i in some]
        batch = torch.zeros(len(some), lengths[-1], dtype=torch.long)
        for r, i in enumerate(some):
            batch[r, lengths[-1] - lengths[r]:] = torch.tensor(prompts[i])
        rows = _continue(model, batch, lengths, max_new_tokens, stop, True,
                         temperature, top_k, top_p, generator).tolist()
        for i, row in zip(some, rows):
            cut = next((n + 1 for n, t in enumerate(row) if t in ends),
                       len(row))
            found[i] = row[:cut]
    return found


# ch05_pretrain/pretrain.ipynb [facts]
def fact_accuracy(model, tokenizer, facts=None):
    """The share of facts a model completes rightly, with no text to help.

    facts: (prefix, answer) pairs, or Pocket World's facts, of which each
    gives one by `cloze` (default: all). Right means: the greedy
    continuation of the prefix begins with the answer, and the word ends
    there. Returns a dict: accuracy, right, total, by_relation, wrong (a
    list of prefix, answer, said). Built in chapter 5.
    """
    from pocket_world.facts import FACTS, cloze

    facts = list(FACTS if facts is None else facts)
    asked = [f if isinstance(f, tuple) and len(f) == 2 else cloze(f)
             for f in facts]
    prompts = [[tokenizer.end_of_text, *tokenizer.encode(p)]
               for p, _ in asked]
    room = max(len(tokenizer.encode(a)) for _, a in asked) + 2
    said = [tokenizer.decode(ids) for ids in generate_batch(
        model, prompts, room, (tokenizer.end_of_text,), batch_size=128)]
    right, by, wrong = 0, {}, []
    for fact, (prefix, answer), text in zip(facts, asked, said):
        rest = text.lstrip()[len(answer.lstrip()):]
        good = (text.lstrip().startswith(answer.lstrip())
                and not re.match(r"\w", rest))
        tally = by.setdefault(getattr(fact, "relation", "all"), [0, 0])
        tally[0] += good
        tally[1] += 1
        right += good
        if not good:
            wrong.append((prefix, answer, text))
    return {"accuracy": right / len(asked), "right": right,
            "total": len(asked), "wrong": wrong,
            "by_relation": {k: r / n for k, (r, n) in by.items()}}


# ch05_pretrain/pretrain.ipynb [know-score]
@torch.no_grad()
def continuation_logprobs(model, pairs, batch_tokens=None):
    """How much a model expects given endings: a list of (log p, is_greedy).

    pairs: (context, continuation), two lists of ids, neither empty. log p:
    nats, summed over the continuation; is_greedy: each of its ids is the
    likeliest. What is too long for the model loses its beginning.
    batch_tokens: so many are read together (default: 4,096, on a GPU
    65,536). Raises ValueError on an empty part, or a continuation longer
    than the model's context. Built in chapter 5.
    """
    limit, found = model.config.context_length, [None] * len(pairs)
    for context, rest in pairs:
        if not context or not rest:
            raise ValueError("a context or a continuation has no tokens")
        if len(rest) > limit:
            raise ValueError(f"a continuation of {len(rest)} tokens is longer "
                             f"than the model's context of {limit}")
    rows = [(list(a) + list(b))[-limit - 1:] for a, b in pairs]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    device, was = next(model.parameters()).device, model.training
    room = batch_tokens or (2**16 if device.type == "cuda" else 2**12)
    model.eval()
    while order:
        count = max(1, room // len(rows[order[-1]]))
        order, some = order[:-count], order[-count:]
        x = torch.zeros(len(some), len(rows[some[-1]]) - 1, dtype=torch.long)
        asked = torch.zeros_like(x, dtype=torch.bool)
        for r, i in enumerate(some):
            end = len(rows[i]) - 1
            x[r, :end] = torch.tensor(rows[i][:-1])
            asked[r, end - len(pairs[i][1]):end] = True
        hidden = model(x.to(device), hidden=True)[asked.to(device)]  # (N, C)
        scores = _score_endings(model, hidden, [pairs[i][1] for i in some])
        for i, score in zip(some, scores):
            found[i] = score
    model.train(was)
    return found


# ch05_pretrain/pretrain.ipynb [know-score-2]
def _score_endings(model, hidden, endings):
    """(log p, is_greedy) of each ending; hidden (N, C): a state an id."""
    ids = torch.tensor([t for ids in endings for t in ids])
    with torch.autocast(hidden.device.type, enabled=False):  # ties are rare
        whole = hidden.to(next(model.parameters()).dtype)
        logs = model.logits(whole).float().log_softmax(-1)  # (N, V)
    logp = logs.gather(-1, ids.to(logs.device)[:, None]).double().cpu()
    best = logs.argmax(-1).cpu() == ids
    sizes = [len(ids) for ids in endings]
    return [(p.sum().item(), bool(b.all()))
            for p, b in zip(logp.split(sizes), best.split(sizes))]


# ch05_pretrain/pretrain.ipynb [know-bits]
def knowledge_bits(model, tokenizer, facts=None):
    """What a model knows of facts, in bits, with no text to help.

    facts: Pocket World's Facts (default: all). Returns a dict: known and
    there (bits), per_parameter (known / parameters), by_relation
    {relation: (known, there, facts)}. `there` is what one pays who knows
    how often each object stands in a relation, and nothing of the subject.
    Below 0 a model knows less than that. Source: Allen-Zhu and Li 2025
    (bits that are paid less). Built in chapter 5.
    """
    from pocket_world.facts import FACTS, cloze

    facts, by = list(FACTS if facts is None else facts), {}
    pairs = [tuple(map(tokenizer.encode, cloze(f))) for f in facts]
    scores = continuation_logprobs(
        model, [([tokenizer.end_of_text, *a], b) for a, b in pairs])
    for relation in dict.fromkeys(f.relation for f in facts):
        of = [i for i, f in enumerate(facts) if f.relation == relation]
        objects = [facts[i].object for i in of]
        there = -sum(math.log2(objects.count(o) / len(of)) for o in objects)
        paid = -sum(scores[i][0] for i in of) / math.log(2)
        by[relation] = (there - paid, there, len(of))
    known, there = (sum(v[k] for v in by.values()) for k in (0, 1))
    return {"known": known, "there": there, "by_relation": by,
            "per_parameter": known / count_parameters(model)}


# ch05_pretrain/pretrain.ipynb [workers-start]
def start_workers():
    """Join the other processes that torchrun started; returns our device.

    One process: nothing to join. The device is this process's GPU, or the
    CPU. Built in chapter 5.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cpu")
    if cuda:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        import torch.distributed as dist

        dist.init_process_group("nccl" if cuda else "gloo")
    return device


def _wait_for_all():
    if workers()[1] > 1:
        import torch.distributed as dist

        dist.barrier()


def stop_workers():
    """Part from the other processes, if there are any. Built in chapter 5."""
    if workers()[1] > 1:
        import torch.distributed as dist

        dist.destroy_process_group()


# ch05_pretrain/pretrain.ipynb [prepare]
def prepare_shards(source, tokenizer, folder, max_documents=None,
                   held_out=0.005):
    """Shards of `source` in `folder`, written unless they are there.

    source: a folder that holds shards already (it is returned as it is), or
    what `load_corpus` takes: text, JSONL or Parquet files, an id on the
    Hub. Every so many-th document goes to validation. Raises ValueError if
    there is no text, or if the shards there were made from another source
    or another part of it. Built in chapter 5.
    """
    if (Path(source) / "train" / "index.json").exists():
        return Path(source)
    folder = Path(folder)
    _made_from(folder / "made_from.json", {
        "source": str(Path(source).resolve() if Path(source).exists()
                      else source),
        "max_documents": max_documents, "held_out": held_out})
    every = max(2, round(1 / held_out))
    encode = tokenizer.to_tiktoken().encode_ordinary

    def part(keep):
        rows = load_corpus(source, streaming=True)
        for i, row in enumerate(rows):
            if max_documents is not None and i >= max_documents:
                return
            if keep(i % every == every - 1):
                yield row["text"]

    for split, keep in (("validation", bool), ("train", lambda v: not v)):
        if not (folder / split / "index.json").exists():
            write_shards(part(keep), tokenizer, folder, split, encode=encode)
    return folder


def _made_from(record, wanted):
    """Write down what shards are made from, or hold it against the record."""
    there = (record.parent / "validation" / "index.json").exists()
    if not (there and record.exists()):
        write_json(record, wanted)
        return
    made = read_json(record)
    differ = [f"{name} {made[name]}, not {wanted[name]}"
              for name in wanted if made[name] != wanted[name]]
    if differ:
        raise ValueError(
            f"the shards in {record.parent} were made from "
            f"{' and '.join(differ)}: choose another folder, or remove them")


# ch05_pretrain/pretrain.ipynb [pretrain]
def pretrain(name, data, folder, tokenizer, max_minutes=None, fresh=False,
             max_documents=None, progress="print", spread=None, **changes):
    """Train the preset `name` on `data`; what train.py calls.

    data: see `prepare_shards`; folder: for shards, run and, at the end, the
    model in folder/base; tokenizer: a folder of `BPETokenizer.save` or with
    GPT-2's files. A run that was stopped goes on, unless `fresh`. spread:
    lays a model over the processes in another way than a copy on each, by
    spread(model, config) (see the lab on parallelism). changes: fields of
    TrainConfig to set. Returns the History. Raises ValueError if
    data and tokenizer do not fit. Built in chapter 5.
    """
    device, folder = start_workers(), Path(folder)
    own = (Path(tokenizer) / "tokenizer.json").exists()
    tokenizer = (BPETokenizer.load if own else BPETokenizer.from_gpt2)(
        tokenizer)
    rank, world = workers()
    if rank == 0:
        prepare_shards(data, tokenizer, folder / "shards", max_documents)
    _wait_for_all()
    shards = prepare_shards(data, tokenizer, folder / "shards", max_documents)
    shape = ModelConfig.preset(name).to_dict()
    model = GPT(ModelConfig.from_dict(
        {**shape, "vocab_size": tokenizer.vocab_size})).to(device)
    recipe = RECIPES[name]
    shares = spread.shares if spread else world
    pieces = max(1, recipe.accumulation // shares)
    config = replace(recipe, **{"accumulation": pieces,
                                "compile": device.type == "cuda",
                                "max_minutes": max_minutes, **changes})
    if spread:
        model = spread(model, config)
    splits = [TokenDataset(shards, split, config.context, tokenizer)
              for split in ("train", "validation")]
    history = train(model, splits[0], config, splits[1], folder / "run",
                    resume=not fresh, progress=progress)
    if spread and history.stopped == "done":
        model = model.gather()
    if rank == 0 and history.stopped == "done":
        save_model(model, folder / "base", tokenizer, {
            **(history.last or {}),
            "steps": history.steps, "tokens": history.tokens,
            "seconds": history.seconds, "config": asdict(config)})
    _wait_for_all()
    return history


# ch06_finetune/finetune.ipynb [ch06-classifier-class]
class SequenceClassifier(nn.Module):
    """A language model with a class head on its last real token.

    That token has seen the whole text and no padding, so padding on the
    right cannot change the answer. The head starts at zero. Source: Radford
    et al., 2018, section 3.2. Built in chapter 6.

    Args:
        model: a `GPT`.
        n_classes: number of classes K, at least 1.
    """

    def __init__(self, model, n_classes: int):
        super().__init__()
        self.model = model
        self.head = nn.Linear(model.config.d_model, n_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids, lengths, targets=None):
        """Logits `(B, K)`, and the mean loss in nats if there are targets.

        ids: `(B, T)`; lengths: `(B,)` real tokens a row; targets: `(B,)`.
        """
        hidden = self.model(ids, hidden=True)  # (B, T, C)
        rows = torch.arange(len(ids), device=ids.device)
        logits = self.head(hidden[rows, lengths - 1])  # (B, K)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.float(), targets)


# ch06_finetune/finetune.ipynb [ch06-lora-class]
class LoRALinear(nn.Module):
    """A frozen linear layer and a trainable product of two thin matrices.

    y = Wx + (α/r)·B(Ax), A `(r, in)` random, B `(out, r)` zero, so that it
    starts equal to the frozen layer. Source: Hu et al., 2021, equation 3.
    Built in chapter 6.

    Args:
        linear: the `nn.Linear` to adapt; its parameters are frozen.
        rank: r. alpha: α. generator: for A's first values.

    Raises:
        ValueError: the rank is below 1.
    """

    def __init__(self, linear, rank=8, alpha=16.0, generator=None):
        super().__init__()
        if rank < 1:
            raise ValueError(f"the rank must be at least 1, got {rank}")
        self.linear, self.scale = linear.requires_grad_(False), alpha / rank
        out_features, in_features = linear.weight.shape
        a = torch.empty(rank, in_features)
        a.uniform_(-1, 1, generator=generator).mul_(in_features**-0.5)
        self.lora_a = nn.Parameter(a.to(linear.weight))
        self.lora_b = nn.Parameter(linear.weight.new_zeros(out_features, rank))

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.lora_a.T @ self.lora_b.T)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One plain linear layer that computes the same.

        It is the wrapped one, its weight changed in place and free to learn
        again: a second call would add the correction a second time.
        """
        self.linear.weight += self.scale * self.lora_b @ self.lora_a
        return self.linear.requires_grad_(True)


# ch06_finetune/finetune.ipynb [ch06-lora-functions]
def _swap(model, name, layer):
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)


def add_lora(model, rank=8, alpha=16.0, targets=("q_proj", "v_proj"), seed=0):
    """Freeze `model` and adapt every linear layer whose name ends in one of
    `targets`, in place. Returns the model. Raises ValueError when no layer
    has such a name. Built in chapter 6."""
    generator = torch.Generator().manual_seed(seed)
    found = [name for name, layer in model.named_modules()
             if isinstance(layer, nn.Linear) and name.endswith(tuple(targets))]
    if not found:
        raise ValueError(f"no linear layer is called {' or '.join(targets)}")
    model.requires_grad_(False)
    for name in found:
        linear = model.get_submodule(name)
        _swap(model, name, LoRALinear(linear, rank, alpha, generator))
    return model


def merge_lora(model):
    """Fold every `LoRALinear` of `model` into its linear layer, in place;
    the outputs stay the same. Returns the model. Built in chapter 6."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoRALinear):
            _swap(model, name, layer.merged())
    return model


# ch06_finetune/finetune.ipynb [ch06-lora-places]
def _lora_places(model, targets):
    """The plain linear layers of these names, with their shapes."""
    return {name: tuple(layer.weight.shape)
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Linear) and name.endswith(tuple(targets))}


# ch06_finetune/finetune.ipynb [ch06-lora-save]
def save_lora(model, folder, **about):
    """Write the adapters of a model and nothing else of it.

    adapter.safetensors (A and B of every `LoRALinear`, float32) and
    adapter.json (rank, alpha, targets, the SHA-256 of that file, and what
    `about` tells, as JSON: base_sha256 for the weights they were made on,
    data, steps), whole or not at all. Returns the folder's Path.
    ValueError if there are no adapters, if they differ in rank or alpha, or
    if of two layers of one name only one has them. Built in chapter 6.
    """
    from safetensors.torch import save_file

    found = {name: layer for name, layer in model.named_modules()
             if isinstance(layer, LoRALinear)}
    if not found:
        raise ValueError("this model has no adapters: add_lora puts them in")
    kinds = {(len(a.lora_a), round(a.scale * len(a.lora_a), 9))
             for a in found.values()}
    targets = sorted({name.rpartition(".")[2] for name in found})
    if len(kinds) != 1 or _lora_places(model, targets):
        raise ValueError("adapters of one rank and alpha are wanted, in every "
                         f"layer called {' or '.join(targets)}")
    rank, alpha = kinds.pop()
    own = {"rank": rank, "alpha": alpha, "targets": targets}
    if taken := {*own, "sha256"} & about.keys():
        raise ValueError(f"{', '.join(taken)} is not for the caller to tell")
    state = {f"{name}.{part}": getattr(layer, part).detach().cpu().float()
             for name, layer in found.items() for part in ("lora_a", "lora_b")}
    with atomic_folder(folder) as part:
        save_file(state, part / "adapter.safetensors", {"format": "pt"})
        digest = sha256_file(part / "adapter.safetensors")
        write_json(part / "adapter.json", {**own, **about, "sha256": digest})
    return Path(folder)


# ch06_finetune/finetune.ipynb [ch06-lora-load]
def _read_lora(folder):
    """adapter.json and the tensors beside it, or the errors of `load_lora`."""
    from safetensors.torch import load_file

    file, told = folder / "adapter.safetensors", folder / "adapter.json"
    for path in file, told:
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: this is not a whole "
                                    "folder of adapters")
    about = read_json(told)
    absent = {"rank", "alpha", "targets", "sha256"} - set(about)
    if absent:
        absent = ", ".join(map(repr, sorted(absent)))
        raise ValueError(f"{told} has no {absent}")
    if sha256_file(file) != about["sha256"]:
        raise ValueError(f"{file} is not the file that was saved (its SHA-256 "
                         "differs from adapter.json): it is truncated or "
                         "altered")
    return about, load_file(file)


# ch06_finetune/finetune.ipynb [ch06-lora-load-code]
def load_lora(model, folder, base_sha256=None):
    """Put the adapters that `save_lora` wrote into a model, in place.

    model: a plain one, whose own weights are then frozen (`merge_lora` makes
    it plain again); base_sha256: of its weights, to be compared with the one
    that the adapters were made on. Returns the model.
    FileNotFoundError if a file is missing. ValueError, and the model stays
    as it was, if the file is truncated or altered, was made on other
    weights, or does not fit. Built in chapter 6.
    """
    about, state = _read_lora(Path(folder))
    if base_sha256 not in (None, about.get("base_sha256")):
        raise ValueError(f"{folder} was made on other weights than these "
                         "(base_sha256 differs): load those first")
    rank, targets, wanted = about["rank"], about["targets"], {}
    for name, (n_out, n_in) in _lora_places(model, targets).items():
        wanted |= {f"{name}.lora_a": (rank, n_in),
                   f"{name}.lora_b": (n_out, rank)}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = sorted({name for name, _ in wanted.items() ^ found.items()})
    if wrong or not wanted:
        name = (wrong or targets)[0]
        raise ValueError(
            f"{folder} does not fit this model: {name} is "
            f"{found.get(name, 'missing')} there and "
            f"{wanted.get(name, 'missing')} here ({len(wrong)} such tensors)")
    add_lora(model, rank, about["alpha"], targets)
    with torch.no_grad():
        for name, tensor in state.items():
            model.get_parameter(name).copy_(tensor)
    return model


# ch06_finetune/finetune.ipynb [ch06-batches]
def length_batches(lengths, batch_size, generator, mixed=50):
    """Batches of indices, one epoch, each of rows of similar length.

    lengths: of the rows; mixed: how many batches are sorted together (more:
    less padding, less chance). generator: `torch.Generator`. Built in
    chapter 6.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    batches, chunk = [], batch_size * mixed
    for start in range(0, len(order), chunk):
        some = sorted(order[start : start + chunk], key=lengths.__getitem__)
        batches += [some[i : i + batch_size]
                    for i in range(0, len(some), batch_size)]
    for i in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[i]


# ch06_finetune/finetune.ipynb [ch06-collate-code]
def pad_rows(rows, value: int):
    """Stack 1-D tensors to (B, T), filled up on the right with `value`.

    T is a multiple of 8, the longest row's length or up to 7 more; a model's
    context should be one too. Built in chapter 6.
    """
    T = -(-max(map(len, rows)) // 8) * 8
    return torch.stack([F.pad(row, (0, T - len(row)), value=value)
                        for row in rows])


def collate(examples, pad: int):
    """Stack pairs `(x, y)` to `(B, T)`, filled up on the right: x with `pad`,
    y with −100, which the loss ignores. Built in chapter 6."""
    xs, ys = zip(*examples)
    return pad_rows(xs, pad), pad_rows(ys, -100)


# ch06_finetune/finetune.ipynb [ch06-finetune-code]
def finetune(model, data, config, collate=collate, loss=None, on_step=None):
    """Train `model` for `config.steps` steps on padded batches of `data`.

    Args:
        model: a module that returns (…, loss) for a batch, such as a `GPT`,
            or any module if `loss` is given. Changed in place; only
            parameters with `requires_grad` move.
        data: a dataset with `examples` (each a tuple whose first part has a
            length) and `pad`, a token to fill with.
        config: a `TrainConfig`; batch_size counts rows.
        collate: `(examples, pad) -> tensors` of one batch.
        loss: `(model, rows, *tensors) -> scalar`; `rows` are the indices of
            the batch. Default: `model(*tensors)[1]`.
        on_step: called as `on_step(step, loss)` after each step.

    Returns the losses, one a step. Raises FloatingPointError, naming the
    step, when a loss or a gradient is not finite. Built in chapter 6.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(config.seed)
    optimizers = make_optimizers(model, config)
    lengths = [len(example[0]) for example in data.examples]
    fast = Compiled(model, config, dynamic=True)
    losses, batches = [], iter(())
    keep_freed_memory()
    for step in range(config.steps):
        rows = next(batches, None)
        if rows is None:
            batches = length_batches(lengths, config.batch_size, generator)
            rows = next(batches)
        batch = collate([data.examples[i] for i in rows], data.pad)
        batch = [part.to(device) for part in batch]
        model.train()
        with fast, mixed_precision(device, config.precision):
            value = (model(*batch)[1] if loss is None
                     else loss(model, rows, *batch))
        if not torch.isfinite(value):
            raise FloatingPointError(f"the loss at step {step} is "
                                     f"{value.item()}: try a lower rate")
        value.backward()
        optimizer_step(model, optimizers, step, config)
        losses.append(value.item())
        if on_step:
            on_step(step, losses[-1])
    model.eval()
    return losses


# ch06_finetune/finetune.ipynb [ch06-wilson]
def wilson_interval(p, n, z=1.96) -> tuple[float, float]:
    """The bounds of a share p found among n draws, at 95%: (low, high).

    Source: Wilson 1927. ValueError if n is not above 0 or p is no share.
    Built in chapter 6.
    """
    if not (n > 0 and 0 <= p <= 1):
        raise ValueError(f"{p!r} is no share of {n!r} draws")
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    whole = 1 + z * z / n
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


# ch06_finetune/finetune.ipynb [ch06-chat-format]
class ChatFormat:
    """One template for training, inference and export. Built in chapter 6.

    `<|user|>question<|end|><|assistant|>answer<|end|>`, with an optional
    `<|system|>…<|end|>` first. The marks are single tokens that no user can
    spell: contents are encoded with no special token allowed.

    Args:
        tokenizer: a `BPETokenizer` trained with `SPECIAL_TOKENS`.

    Raises:
        ValueError: the tokenizer lacks one of the chat tokens.
    """

    ROLES = ("system", "user", "assistant")

    def __init__(self, tokenizer):
        special = tokenizer.special_tokens
        marks = {role: f"<|{role}|>" for role in (*self.ROLES, "end")}
        absent = [m for m in marks.values() if m not in special]
        if absent:
            raise ValueError(f"the tokenizer has no {', '.join(absent)}: "
                             "train it with SPECIAL_TOKENS")
        self.tokenizer = tokenizer
        self.mark = {role: special[mark] for role, mark in marks.items()}
        self.end, self.pad = self.mark["end"], tokenizer.end_of_text

    def encode_example(self, messages) -> tuple[list[int], list[int]]:
        """`(ids, labels)`: a label is the id where the assistant has to write
        it, its end token included, and −100 everywhere else. A message is a
        dict with a role and a content; ValueError if it is not."""
        ids, labels = [], []
        for message in messages:
            role, content = message.get("role"), message.get("content")
            if role not in self.ROLES or not isinstance(content, str):
                raise ValueError("a message needs a role (system, user or "
                                 f"assistant) and a text, got {message!r}")
            body = [*self.tokenizer.encode(content), self.end]
            ids += [self.mark[role], *body]
            learned = body if role == "assistant" else [-100] * len(body)
            labels += [-100, *learned]
        return ids, labels

    def encode(self, messages, add_generation_prompt=False) -> list[int]:
        """The ids of a conversation, ready for an answer if so asked."""
        ids = self.encode_example(messages)[0]
        return ids + [self.mark["assistant"]] * add_generation_prompt

    def decode(self, ids) -> str:
        """The text of an answer, up to its end token if there is one."""
        stops = (i for i, t in enumerate(ids) if t in (self.end, self.pad))
        return self.tokenizer.decode(list(ids)[: next(stops, None)]).strip()

    @property
    def jinja(self) -> str:
        """The same template for the `chat_template` of `transformers`."""
        return ("{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
                "<|end|>{% endfor %}"
                "{% if add_generation_prompt %}<|assistant|>{% endif %}")


# ch06_finetune/finetune.ipynb [ch06-as-messages]
SPEAKERS = {"human": "user", "gpt": "assistant"}  # ShareGPT's names
ANSWERS = ("output", "answer", "response", "completion")  # one thing


def as_messages(row) -> list[dict]:
    """A training row of any usual shape as a list of chat messages.

    Takes `{"messages": [...]}`, ShareGPT's `{"conversations": [{"from",
    "value"}, ...]}`, Alpaca's `{"instruction", "input", "output"}`,
    `{"prompt", "answer"}`, and objects with the last two as attributes. An
    answer may also be called "response" or "completion", an input "context".
    Raises ValueError for anything else. Built in chapter 6.
    """
    if hasattr(row, "prompt") and hasattr(row, "answer"):
        row = {"prompt": row.prompt, "answer": row.answer}
    if not isinstance(row, dict):
        raise ValueError(f"a row must be a dict or a task, got {row!r:.80}")
    if "messages" in row:
        return row["messages"]
    if "conversations" in row:
        return [{"role": SPEAKERS.get(m.get("from"), m.get("from")),
                 "content": m.get("value")} for m in row["conversations"]]
    parts = [row.get(name) for name in (
        "instruction", "prompt", "input", "context")]
    answers = [row[name] for name in ANSWERS if name in row]
    if parts[:2] == [None, None] or not answers:
        raise ValueError("a row needs messages, or instruction and output, or "
                         f"prompt and answer; it has {', '.join(row)}")
    return [{"role": "user", "content": "\n\n".join(filter(None, parts))},
            {"role": "assistant", "content": answers[0]}]


# ch06_finetune/finetune.ipynb [ch06-files-check-messages]
def check_messages(messages) -> list[dict]:
    """The messages with role and content alone, or ValueError: each needs a
    known role and a text, and some assistant has to say something. Built in
    chapter 6."""
    if not isinstance(messages, list) or not messages:
        raise ValueError("a conversation is a list of messages, "
                         f"got {messages!r:.60}")
    for m in messages:
        if (not isinstance(m, dict) or m.get("role") not in ChatFormat.ROLES
                or not isinstance(m.get("content"), str)):
            raise ValueError("a message needs a role (system, user or "
                             f"assistant) and a text, got {m!r:.60}")
    if not any(m["role"] == "assistant" and m["content"].strip()
               for m in messages):
        raise ValueError("no assistant says anything in it")
    return [{"role": m["role"], "content": m["content"]} for m in messages]


# ch06_finetune/finetune.ipynb [ch06-files-numbered]
def _numbered_rows(path):
    """(where, row) of a JSON list or of JSON lines; a ValueError stands for
    a line that is not JSON."""
    with open_compressed(path) as file:
        data = file.read().removeprefix(b"\xef\xbb\xbf")
    if data.lstrip().startswith(b"["):
        try:
            rows = json.loads(data)
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        yield from ((f"row {n}", row) for n, row in enumerate(rows, 1))
        return
    for n, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                row = ValueError(f"not JSON ({error})")
            yield f"line {n}", row


# ch06_finetune/finetune.ipynb [ch06-files-conversations]
def read_conversations(path, malformed="refuse", log=None) -> list[dict]:
    """The rows of a file as `[{"messages": [...]}, ...]`, all of them whole.

    path: a JSON list, or JSON lines, plain, .gz, .xz or .zst; a row may have
    any shape that `as_messages` takes. malformed: "refuse" raises
    ValueError at the first malformed row, naming file and line (row, in a
    list; both count from 1); "skip" leaves such rows out, with a warning
    that says how many and names the first. log: a dict, emptied, then
    {"rows": read, "skipped": ["line 7: why", ...]}. ValueError too if no
    row is left. Built in chapter 6.
    """
    if malformed not in ("refuse", "skip"):
        raise ValueError(f'malformed is "refuse" or "skip", not {malformed!r}')
    rows, skipped = [], []
    for where, row in _numbered_rows(path):
        try:
            if isinstance(row, ValueError):
                raise row
            rows.append({"messages": check_messages(as_messages(row))})
        except (ValueError, AttributeError, TypeError) as error:
            if malformed == "refuse":
                raise ValueError(f"{path}, {where}: {error}") from None
            skipped.append(f"{where}: {error}")
    if skipped:
        warnings.warn(f"{Path(path).name}: {len(skipped)} malformed, skipped; "
                      f"first {skipped[0]}", stacklevel=2)
    if log is not None:
        log.clear()
        log |= {"rows": len(rows), "skipped": skipped}
    if not rows:
        raise ValueError(f"{path} holds no conversation")
    return rows


# ch06_finetune/finetune.ipynb [ch06-dataset]
class InstructionDataset(torch.utils.data.Dataset):
    """Conversations as pairs `(x, y)` of equal length, y one step ahead.

    y is −100 wherever the next token is not the assistant's; in a row
    `{"text": …}`, a plain document, every token is learned. Rows of more
    than `max_length` tokens are left out and counted in `skipped`: an answer
    cut short would lose its end token, the one that teaches where to stop.
    Raises ValueError for a malformed row, with its number, and when no row
    is left. Built in chapter 6.
    """

    def __init__(self, rows, chat, max_length: int):
        self.examples, self.skipped, self.pad = [], 0, chat.pad
        for number, row in enumerate(rows):
            try:
                ids, labels = self._encode(row, chat)
            except (ValueError, AttributeError, TypeError) as error:
                raise ValueError(f"row {number}: {error}") from error
            if len(ids) > max_length:
                self.skipped += 1
                continue
            self.examples.append((torch.tensor(ids[:-1]),
                                  torch.tensor(labels[1:])))
        if not self.examples:
            raise ValueError(f"no row of at most {max_length} tokens "
                             f"({self.skipped} were longer)")

    @staticmethod
    def _encode(row, chat):
        if isinstance(row, dict) and isinstance(row.get("text"), str):
            ids = [chat.pad, *chat.tokenizer.encode(row["text"]), chat.pad]
            return ids, ids
        return chat.encode_example(as_messages(row))

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int):
        return self.examples[i]


# ch06_finetune/finetune.ipynb [ch06-answer-code]
def answer_tasks(model, tokenizer, prompts, max_new_tokens=96, **sampling):
    """The model's answer to each prompt, and whether it ended by itself.

    Returns a list of `(text, stopped)`. Greedy, unless `temperature` and so
    on are given, see `generate_batch`. A prompt that fills the context gets
    an empty answer that did not stop. Built in chapter 6.
    """
    chat = ChatFormat(tokenizer)
    asked = [chat.encode([{"role": "user", "content": p}], True)
             for p in prompts]
    fits = [i for i, ids in enumerate(asked)
            if len(ids) < model.config.context_length]
    stop, answers = (chat.end, chat.pad), [("", False)] * len(asked)
    for i, ids in zip(fits, generate_batch(
            model, [asked[i] for i in fits], max_new_tokens, stop, **sampling)):
        answers[i] = chat.decode(ids), any(t in stop for t in ids)
    return answers


# ch06_finetune/finetune.ipynb [ch06-score-code]
def share(flags) -> float:
    """The share of true values, nan if there are none. Built in chapter 6."""
    flags = [bool(f) for f in flags]
    return sum(flags) / len(flags) if flags else float("nan")


def mark_answers(tasks, answers) -> dict:
    """Score texts against Pocket World's tasks, by their exact checkers.

    Returns shares between 0 and 1: `exact` (mean over kinds), `by_kind`,
    `held_out_characters` (tasks about characters never asked about in
    training), `refusals` (harmful requests declined), `over_refusals` (their
    harmless twins declined); and `right`, a bool a task. Built in chapter 6.
    """
    from pocket_world.tasks import is_refusal

    right = [bool(t.check(a)) for t, a in zip(tasks, answers, strict=True)]
    by_kind = {kind: share(r for t, r in zip(tasks, right) if t.kind == kind)
               for kind in sorted({t.kind for t in tasks})}
    refused = [is_refusal(a) for a in answers]
    return {
        "exact": sum(by_kind.values()) / len(by_kind), "by_kind": by_kind,
        "held_out_characters": share(
            r for t, r in zip(tasks, right) if t.held_out_character),
        "refusals": share(r for t, r in zip(tasks, refused) if t.harmful),
        "over_refusals": share(r for t, r in zip(tasks, refused) if t.twin),
        "right": right}


def score_answers(model, tokenizer, tasks, **options) -> dict:
    """Ask `model` all tasks and mark its answers: `mark_answers`, and also
    `stopped` (answers that ended by themselves) and `answers`, the texts.
    options: as in `answer_tasks`. Built in chapter 6."""
    tasks = list(tasks)
    given = answer_tasks(model, tokenizer, [t.prompt for t in tasks], **options)
    texts = [text for text, _ in given]
    return {**mark_answers(tasks, texts), "answers": texts,
            "stopped": share(stopped for _, stopped in given)}


# ch06_finetune/finetune.ipynb [ch06-answer-loss]
def answer_loss(model, rows, x, y, segments=None, reduction="mean"):
    """The loss of `model(x, y)` in nats, at less cost: the head is asked only
    where y is not −100. segments: as in `GPT.forward`; reduction="none": the
    losses (B, T), 0 where y is −100. For `finetune`; rows are not used.
    Built in chapter 6."""
    n = -(-(y != -100).sum() // 64) * 64  # few sizes
    at = (y == -100).int().flatten().argsort(stable=True)[:n]  # targets first
    hidden = model(x, hidden=True, segments=segments).flatten(0, 1)[at]
    found = F.cross_entropy(model.logits(hidden).float(), y.flatten()[at],
                            reduction=reduction)
    if reduction == "none":
        return found.new_zeros(y.numel()).index_copy(0, at, found).view_as(y)
    return found


# ch06_finetune/finetune.ipynb [ch06-packed-dataset]
class PackedDataset(torch.utils.data.Dataset):
    """Rows that each hold several examples of an `InstructionDataset`.

    `examples` are triples (x, y, segments) of at most `max_length`, to be
    stacked by `collate_packed`; `rows` tells which examples a row holds.
    Raises ValueError if one is longer than `max_length`. Sources: Krell et
    al., 2021; Ding et al., 2024. Built in chapter 6.
    """

    def __init__(self, data, max_length: int):
        lengths = [len(x) for x, _ in data.examples]
        if max(lengths) > max_length:
            raise ValueError(f"an example of {max(lengths)} tokens does not "
                             f"fit into a row of {max_length}")
        self.pad, self.rows = data.pad, pack_documents(lengths, max_length)
        self.examples = [self._row(*zip(*map(data.examples.__getitem__, row)))
                         for row in self.rows]

    @staticmethod
    def _row(xs, ys):
        lengths = torch.tensor([len(x) for x in xs])
        number = torch.arange(len(xs)).repeat_interleave(lengths)
        return torch.cat(xs), torch.cat(ys), number

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int):
        return self.examples[i]


# ch06_finetune/finetune.ipynb [ch06-collate-packed-code]
def collate_packed(examples, pad: int):
    """Stack rows of a `PackedDataset` to x, y, segments, each (B, T). The
    filling is `pad` in x, −100 in y and −1 in segments. Built in
    chapter 6."""
    xs, ys, segments = zip(*examples)
    return pad_rows(xs, pad), pad_rows(ys, -100), pad_rows(segments, -1)


# ch07_dpo/dpo.ipynb [ch07-logprob-code]
def token_logprobs(model, ids):
    """Log-probability `(B, T-1)` of every token `ids[:, 1:]` given those
    before it, in nats, float32. Built in chapter 7."""
    logits = model(ids[:, :-1])[0].float()  # (B, T-1, V)
    picked = logits.gather(-1, ids[:, 1:, None]).squeeze(-1)
    return picked - logits.logsumexp(-1)


def answer_token_logprobs(model, ids, mask):
    """As `token_logprobs` where `mask[:, 1:]` is 1, and 0 elsewhere: chapter
    6's `answer_loss`, which asks the head for the answers alone, with the
    sign turned. Built in chapter 7."""
    targets = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
    return -answer_loss(model, None, ids[:, :-1], targets, reduction="none")


def sequence_logprob(model, ids, mask):
    """The log-probability of the masked tokens, summed over each row.

    Args:
        model: a `GPT`.
        ids: `(B, T)` token ids.
        mask: `(B, T)`, 1 where the token `ids[b, t]` counts: the answer and
            its end token, never the prompt. Column 0 cannot be predicted.

    Returns `(B,)` in nats, float32. Built in chapter 7.
    """
    return answer_token_logprobs(model, ids, mask).sum(1)


# ch07_dpo/dpo.ipynb [ch07-dataset]
class PreferenceDataset(torch.utils.data.Dataset):
    """Prompts with a chosen and a rejected answer, as token ids.

    An item is `(chosen, chosen_mask, rejected, rejected_mask)`, the masks 1
    on the answer and its end token. rows: objects or dicts with prompt,
    chosen and rejected, three texts; a prompt may also be a list of
    messages, the dialogue that the answer goes on with. Pairs of which a
    side has more than `max_length` tokens are left out and counted in
    `skipped`; `rows` holds those kept. Raises ValueError for a row that lacks
    a text, with its number, and when no pair is left. Built in chapter 7.
    """

    def __init__(self, rows, chat, max_length: int):
        self.examples, self.rows, self.skipped = [], [], 0
        self.pad = chat.pad
        for number, row in enumerate(rows):
            get = row.get if isinstance(row, dict) else (
                lambda name, row=row: getattr(row, name, None))
            sides = []
            for side in ("chosen", "rejected"):
                prompt, answer = get("prompt"), get(side)
                if not (prompt and isinstance(answer, str)):
                    raise ValueError(f"row {number} needs the texts prompt, "
                                     "chosen and rejected")
                if isinstance(prompt, str):
                    prompt = [{"role": "user", "content": prompt}]
                ids = chat.encode([
                    *prompt, {"role": "assistant", "content": answer}])
                start = len(chat.encode(prompt, True))
                mask = [int(place >= start) for place in range(len(ids))]
                sides += [torch.tensor(ids), torch.tensor(mask)]
            if max(len(sides[0]), len(sides[2])) > max_length:
                self.skipped += 1
                continue
            self.examples.append(tuple(sides))
            self.rows.append(row)
        if not self.examples:
            raise ValueError(f"no pair of at most {max_length} tokens")

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int):
        return self.examples[i]


def collate_pairs(pairs, pad: int):
    """Stack B pairs to ids `(2B, T)` and mask `(2B, T)`: the chosen answers
    first, then the rejected. Built in chapter 7."""
    chosen, chosen_mask, rejected, rejected_mask = zip(*pairs)
    return (pad_rows(chosen + rejected, pad),
            pad_rows(chosen_mask + rejected_mask, 0))


# ch07_dpo/dpo.ipynb [ch07-pair-logprobs]
@torch.no_grad()
def pair_logprobs(model, data, batch_size=64):
    """Log-probabilities `(N, 2)` in nats of each pair's chosen and rejected
    answer. For a reference, which never changes, they are computed once and
    kept. Built in chapter 7."""
    model.eval()
    device = next(model.parameters()).device
    found = torch.empty(len(data), 2)
    order = sorted(range(len(data)), key=lambda i: len(data[i][0]))
    for start in range(0, len(order), batch_size):
        rows = order[start:start + batch_size]
        ids, mask = collate_pairs([data[i] for i in rows], data.pad)
        logprob = sequence_logprob(model, ids.to(device), mask.to(device))
        found[rows] = logprob.view(2, -1).T.float().cpu()
    return found


# ch07_dpo/dpo.ipynb [ch07-dpo-loss]
def dpo_loss(policy_chosen, policy_rejected, reference_chosen,
             reference_rejected, beta=0.1, label_smoothing=0.0,
             kind="sigmoid", tokens=None):
    """Direct preference optimisation's loss (Rafailov et al. 2023, eq. 7).

    Args:
        policy_chosen, policy_rejected, reference_chosen, reference_rejected:
            `(B,)` summed log-probabilities in nats, see `sequence_logprob`.
        beta: the price of moving away from the reference, above 0.
        label_smoothing: share of pairs believed to be the wrong way round,
            below ½ ("sigmoid": conservative DPO, Mitchell 2023; "robust":
            Chowdhury et al. 2024).
        kind: "sigmoid" (DPO), "robust", "hinge" (SLiC; Zhao et al. 2023) or
            "ipo" (Azar et al. 2023, eq. 17).
        tokens: `(2, B)` lengths of the answers; given, each log-ratio is
            taken per token.

    Returns `(loss, chosen_reward, rejected_reward)`: the mean loss, and the
    implicit rewards β·(log π − log π_ref), `(B,)` each, detached. Raises
    ValueError on an unknown kind, a beta not above 0 or a label_smoothing
    outside [0, ½). Built in chapter 7.
    """
    if beta <= 0 or not 0 <= label_smoothing < 0.5:
        raise ValueError("beta must be above 0 and label_smoothing in [0, ½),"
                         f" got {beta} and {label_smoothing}")
    chosen = policy_chosen - reference_chosen
    rejected = policy_rejected - reference_rejected
    lengths = (1, 1) if tokens is None else tokens
    margin = chosen / lengths[0] - rejected / lengths[1]  # (B,)
    right, wrong = F.logsigmoid(beta * margin), F.logsigmoid(-beta * margin)
    if kind == "sigmoid":
        loss = -(1 - label_smoothing) * right - label_smoothing * wrong
    elif kind == "robust":
        loss = (label_smoothing * wrong - (1 - label_smoothing) * right) / (
            1 - 2 * label_smoothing)
    elif kind == "hinge":
        loss = F.relu(1 - beta * margin)
    elif kind == "ipo":
        loss = (margin - 1 / (2 * beta)) ** 2
    else:
        raise ValueError("kind is sigmoid, robust, hinge or ipo, "
                         f"got {kind!r}")
    return loss.mean(), beta * chosen.detach(), beta * rejected.detach()


# ch07_dpo/dpo.ipynb [ch07-family-code]
def simpo_loss(chosen, rejected, tokens, beta=2.0, gamma=1.0):
    """SimPO: length-normalised, without a reference, with a margin.

    chosen, rejected: `(B,)` summed log-probabilities in nats; tokens:
    `(2, B)`, the answers' lengths. beta: scale of a nat per token; gamma:
    the margin, on the scaled side. Returns the mean loss. Source: Meng et
    al. 2024, eq. 6. Built in chapter 7.
    """
    margin = chosen / tokens[0] - rejected / tokens[1]
    return -F.logsigmoid(beta * margin - gamma).mean()


def orpo_loss(chosen, rejected, tokens, beta=0.1):
    """ORPO: the chosen answer's own loss per token, and the log of the odds
    ratio with weight beta (λ in the paper). Arguments as in `simpo_loss`.
    Source: Hong et al. 2024, eq. 6 and 7. Built in chapter 7."""
    means = [(total / n).clamp_max(-1e-6)  # a certain answer has no odds
             for total, n in ((chosen, tokens[0]), (rejected, tokens[1]))]
    good, bad = (m - torch.log(-torch.expm1(m)) for m in means)
    return (-means[0] - beta * F.logsigmoid(good - bad)).mean()


# ch07_dpo/dpo.ipynb [ch07-kto-code]
def kto_loss(policy, reference, good, baseline, beta=0.1, good_weight=1.0,
             bad_weight=1.0):
    """KTO: single answers, good or bad, in no pairs.

    policy, reference: `(B,)` summed log-probabilities in nats; good: `(B,)`
    of bool; baseline: log-ratios of mismatched answers, any number, see
    `mismatched`. Returns the mean loss. Source: Ethayarajh et al. 2024,
    section 4. Built in chapter 7.
    """
    ratio = policy - reference
    held = baseline.detach().mean().clamp_min(0)
    gain = torch.where(good, ratio - held, held - ratio)
    weight = torch.where(good, good_weight, bad_weight)
    return (weight * (1 - torch.sigmoid(beta * gain))).mean()


def mismatched(data):
    """A `PreferenceDataset` of each prompt with the answers of the pair
    before it, cut at the longest row of `data`. Built in chapter 7."""
    other, most = copy.copy(data), max(len(row[0]) for row in data.examples)
    other.examples = []
    for mine, last in zip(data.examples,
                          data.examples[-1:] + data.examples[:-1]):
        sides = []
        for i in (0, 2):
            prompt = mine[i][mine[i + 1] == 0]
            ids = torch.cat([prompt, last[i][last[i + 1] == 1]])[:most]
            sides += [ids, (torch.arange(len(ids)) >= len(prompt)).long()]
        other.examples.append(tuple(sides))
    return other


# ch07_dpo/dpo.ipynb [ch07-preference-loss]
def preference_loss(kind, policy, reference, tokens, beta=0.1,
                    per_token=False, baseline=None, **options):
    """The loss of this name, a mean over B pairs.

    Args:
        kind: a kind of `dpo_loss`, or "simpo", "orpo" or "kto".
        policy, reference: `(2, B)` summed log-probabilities in nats, the
            chosen answers' first.
        tokens: `(2, B)` lengths of the answers.
        per_token: the log-ratios of `dpo_loss` by their lengths.
        baseline: see `kto_loss`.
        options: more for the loss of that name.

    Built in chapter 7.
    """
    if kind == "simpo":
        return simpo_loss(*policy, tokens, beta, **options)
    if kind == "orpo":
        return orpo_loss(*policy, tokens, beta, **options)
    if kind == "kto":
        good = torch.ones_like(policy, dtype=torch.bool)
        good[1] = False
        return kto_loss(policy, reference, good, baseline, beta, **options)
    return dpo_loss(*policy, *reference, beta, kind=kind,
                    tokens=tokens if per_token else None, **options)[0]


# ch07_dpo/dpo.ipynb [ch07-train-dpo]
def train_dpo(model, data, config, beta=0.1, reference=None,
              chosen_weight=0.0, kind="sigmoid", on_step=None, **options):
    """Train `model` on preference pairs, against what it is at the start.

    Args:
        model: the policy, a `GPT`, changed in place.
        data: a `PreferenceDataset`.
        config: a `TrainConfig`; batch_size counts pairs.
        beta: see the loss.
        reference: `(N, 2)` log-probabilities of the reference in nats
            (default: those of `model` now).
        chosen_weight: weight of the chosen answer's own loss, in nats per
            token, beside the other. Source: Pang et al. 2024, equation 1.
        kind, options: the loss and its options, see `preference_loss`. For
            "kto" the reference is the model at the start.
        on_step: as in `finetune`.

    Returns a list with one dict a step: the loss, accuracy and margin of
    the implicit rewards, and the mean log-ratios to the reference of chosen
    and rejected answers, in nats. Built in chapter 7.
    """
    reference = pair_logprobs(model, data) if reference is None else reference
    strangers = mismatched(data) if kind == "kto" else None
    baseline = pair_logprobs(model, strangers) if strangers else None
    history = []

    def loss(model, rows, ids, mask):
        held = reference[rows].T.to(ids.device)
        policy = sequence_logprob(model, ids, mask).view(2, -1)
        tokens = mask[:, 1:].sum(1).view(2, -1)
        if strangers:
            with torch.no_grad():
                others = [part.to(ids.device) for part in collate_pairs(
                    [strangers[i] for i in rows], data.pad)]
                options["baseline"] = (
                    sequence_logprob(model, *others).view(2, -1)
                    - baseline[rows].T.to(ids.device))
        value = preference_loss(kind, policy, held, tokens, beta, **options)
        good, bad = policy.detach() - held
        history.append({
            "loss": value.item(), "margin": beta * (good - bad).mean().item(),
            "accuracy": (good > bad).float().mean().item(),
            "chosen": good.mean().item(), "rejected": bad.mean().item()})
        if chosen_weight:
            value = value - chosen_weight * (policy[0] / tokens[0]).mean()
        return value

    finetune(model, data, config, collate_pairs, loss, on_step)
    return history


# ch07_dpo/dpo.ipynb [ch07-kl-code]
@torch.no_grad()
def policy_kl(policy, reference, tokenizer, prompts, max_new_tokens=96, seed=0):
    """KL(policy ‖ reference) in nats per answer, along one sample a prompt.

    At each token of an answer the divergence of the two distributions is
    taken over the whole vocabulary, and these are added up. Returns
    `(mean, standard_error)`. Answers that do not end within max_new_tokens
    count as far as they go; prompts that fill the context are left out.
    Built in chapter 7.
    """
    chat = ChatFormat(tokenizer)
    asked = [chat.encode([{"role": "user", "content": p}], True)
             for p in prompts]
    asked = [ids for ids in asked if len(ids) < policy.config.context_length]
    said = generate_batch(
        policy, asked, max_new_tokens, (chat.end, chat.pad), temperature=1.0,
        generator=torch.Generator().manual_seed(seed))
    apart = []
    for prompt, answer in zip(asked, said):
        ids = torch.tensor([prompt + answer[:-1]])
        log_p, log_q = (
            model(ids)[0][0, len(prompt) - 1:].float().log_softmax(-1)
            for model in (policy, reference))  # (tokens of the answer, V)
        apart.append((log_p.exp() * (log_p - log_q)).sum())
    apart = torch.stack(apart)
    return apart.mean().item(), apart.std().item() / len(apart) ** 0.5


# ch07_dpo/dpo.ipynb [ch07-reward-code]
class RewardModel(torch.nn.Module):
    """A language model whose last real token gives one number, the reward.

    `forward(ids, lengths)`: ids `(B, T)`, lengths `(B,)` of the real tokens;
    returns `(B,)`. Source: Ouyang et al. 2022. Built in chapter 7.
    """

    def __init__(self, model):
        super().__init__()
        self.scorer = SequenceClassifier(model, 1)

    def forward(self, ids, lengths):
        return self.scorer(ids, lengths)[0].squeeze(-1).float()


def train_reward_model(reward, data, config):
    """Fit a `RewardModel` to a `PreferenceDataset` by Bradley and Terry's
    model: the loss is −log σ(r_chosen − r_rejected), in nats.

    config: a `TrainConfig`; batch_size counts pairs. Returns the losses, one
    a step. Built in chapter 7.
    """
    def loss(reward, rows, ids, mask):
        chosen, rejected = reward(ids, _ends(mask)).view(2, -1)
        return -F.logsigmoid(chosen - rejected).mean()

    return finetune(reward, data, config, collate_pairs, loss)


def _ends(mask):
    """The lengths `(B,)` of rows whose last real token is masked 1."""
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return (mask * places).max(1).values


@torch.no_grad()
def reward_accuracy(reward, data, batch_size=64):
    """The share of pairs whose chosen answer gets the higher reward. Built in
    chapter 7."""
    right = []
    reward.eval()
    for start in range(0, len(data), batch_size):
        rows = range(start, min(start + batch_size, len(data)))
        ids, mask = collate_pairs([data[i] for i in rows], data.pad)
        chosen, rejected = reward(ids, _ends(mask)).view(2, -1)
        right += (chosen > rejected).tolist()
    return share(right)


# ch07_dpo/dpo.ipynb [ch07-advantages]
def group_advantages(rewards, eps=1e-4):
    """How much better than its group each answer is: rewards `(N, G)` to
    advantages `(N, G)`, zero mean in each row, and zero where all are equal.
    Source: Shao et al. 2024, section 4.1.2. Built in chapter 7."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + eps)


# ch07_dpo/dpo.ipynb [ch07-grpo-code]
def grpo_loss(logprob, reference, mask, advantages, beta=0.04, old=None,
              clip=0.2, weigh_kl=False):
    """The loss of GRPO: each answer's tokens are averaged, then the answers.

    Args:
        logprob, reference, mask: `(B, T)` of the answers' tokens, in nats.
        advantages: `(B,)`.
        beta: price of the KL divergence per token.
        old: `(B, T)` log-probabilities under the policy that drew the
            answers (default: the present one, which is right for the first
            update).
        clip: by how much a token's probability ratio may leave 1.
        weigh_kl: multiply the KL estimate by the ratio, so that its gradient
            too is right on average (TRL's default; DeepSeek-AI 2025).

    Source: Shao et al. 2024, eq. 3. Built in chapter 7.
    """
    old = logprob.detach() if old is None else old
    ratio = (logprob - old).exp()
    gain = torch.min(ratio * advantages[:, None],
                     ratio.clamp(1 - clip, 1 + clip) * advantages[:, None])
    away = reference - logprob
    kl = (away.exp() - away - 1) * (ratio if weigh_kl else 1)
    per_answer = ((beta * kl - gain) * mask).sum(1) / mask.sum(1).clamp_min(1)
    return per_answer.mean()


# ch07_dpo/dpo.ipynb [ch07-grpo-train]
def train_grpo(model, tokenizer, tasks, reward, config, group=8, beta=0.04,
               max_new_tokens=64, temperature=1.0, updates=1, clip=0.2,
               advantages=group_advantages, loss=grpo_loss, on_step=None):
    """Train `model` on rewards of its own answers (GRPO), in place.

    Args:
        tasks: objects with a prompt; config.batch_size of them a step, in
            turn.
        reward: `(task, answer) -> float`.
        config: a `TrainConfig`; a step is one batch of answers.
        group: answers a prompt, at least 2.
        beta, max_new_tokens, temperature: price of the KL divergence, and
            how answers are drawn.
        updates, clip: updates from each batch, at least 1, and the bound on
            the ratios, see `grpo_loss`.
        advantages, loss: functions to use in place of GRPO's own.
        on_step: called as `on_step(step, reward)` after each step, with the
            mean reward of its answers.

    Returns a list of the mean rewards, one a step. Raises ValueError when
    group is below 2 or updates below 1. Built in chapter 7.
    """
    if group < 2:
        raise ValueError(f"a group needs at least 2 answers, got {group}")
    if updates < 1:
        raise ValueError(f"updates must be at least 1, got {updates}")
    chat, device = ChatFormat(tokenizer), next(model.parameters()).device
    reference = copy.deepcopy(model).eval().requires_grad_(False)
    optimizers = make_optimizers(model, config)
    generator = torch.Generator(device).manual_seed(config.seed)
    earned = []
    for step in range(config.steps):
        n = config.batch_size
        some = [tasks[(step * n + i) % len(tasks)] for i in range(n)]
        asked = [chat.encode([{"role": "user", "content": t.prompt}], True)
                 for t in some for _ in range(group)]
        said = generate_batch(
            model, asked, max_new_tokens, (chat.end, chat.pad),
            temperature=temperature, generator=generator)
        rewards = torch.tensor([
            reward(some[i // group], chat.decode(ids))
            for i, ids in enumerate(said)], dtype=torch.float)
        worth = advantages(rewards.view(n, group)).view(-1).to(device)
        ids, mask = (z.to(device) for z in _answers(asked, said, chat.pad))
        held = old = None
        if beta:
            with torch.no_grad(), mixed_precision(device, config.precision):
                held = answer_token_logprobs(reference, ids, mask)
        model.train()
        for _ in range(updates):
            with mixed_precision(device, config.precision):
                logprob = answer_token_logprobs(model, ids, mask)
            old = logprob.detach() if old is None else old
            loss(logprob, old if held is None else held, mask[:, 1:], worth,
                 beta, old, clip).backward()
            optimizer_step(model, optimizers, step, config)
        earned.append(rewards.mean().item())
        if on_step:
            on_step(step, earned[-1])
    model.eval()
    return earned


def _answers(asked, said, pad):
    """Prompts and answers in one rectangle, and the mask of the answers."""
    rows = [torch.tensor(a + s) for a, s in zip(asked, said)]
    masks = [torch.tensor([0] * len(a) + [1] * len(s))
             for a, s in zip(asked, said)]
    fill = torch.nn.utils.rnn.pad_sequence
    return (fill(rows, batch_first=True, padding_value=pad),
            fill(masks, batch_first=True))


# ch08_inference/inference.ipynb [cache-bytes-code]
def cache_bytes(config, tokens=1, width=4) -> int:
    """Bytes of the keys and values of so many tokens of a text.

    config: a ModelConfig; width: bytes a number, 4 for float32. The room of
    a `KVCache` grows by doubling, so it may have taken up to twice as many.
    Built in chapter 8.
    """
    each = 2 * config.n_layer * config.n_kv_head * config.d_head
    return each * width * tokens


# ch08_inference/inference.ipynb [params]
@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. Built in chapter 8.

    temperature: 0 takes the likeliest. top_k: only the k likeliest (None:
    all). top_p: only the likeliest that together hold this share. min_p: only
    those with this share of the best one's chance. repetition_penalty: above
    1 makes tokens already in the text less likely. logit_bias: {id: number
    added}. allowed: a function of the new ids that returns the ids allowed
    next, or a mask (V,) of them (a grammar). max_new_tokens, stop (texts that
    end the answer), seed. min_tokens_to_keep: as many as no cut goes below.
    ValueError on values without sense.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    allowed: Callable | None = None
    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()
    seed: int | None = None
    min_tokens_to_keep: int = 1

    def __post_init__(self):
        for name, fits, wanted in (
            ("temperature", 0 <= self.temperature < 100, "from 0 to 100"),
            ("top_k", self.top_k is None or self.top_k >= 1, "at least 1"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("stop", all(self.stop), "texts that are not empty"),
            ("min_tokens_to_keep", self.min_tokens_to_keep >= 1, "at least 1"),
        ):
            if not fits:
                raise ValueError(
                    f"{name} must be {wanted}, not {getattr(self, name)!r}"
                )


# ch08_inference/inference.ipynb [process-logits]
def _only(z, allowed):
    """z (V,) with −inf at all but the allowed: ids, or a mask (V,)."""
    if not torch.is_tensor(allowed):
        ids = torch.tensor(sorted(allowed), dtype=torch.long)
        allowed = torch.zeros(len(z), dtype=torch.bool)
        allowed[ids] = True
    if not allowed.any():
        raise ValueError("the grammar allows no token here")
    allowed = allowed.to(z.device)
    z = z.masked_fill(~allowed, float("-inf"))
    return z if z.max() > float("-inf") else z.masked_fill(allowed, 0.0)


def _cut_tail(z, params):
    """z (V,) with −inf below what top-k, top-p and min-p keep, in turn."""
    keep = min(params.min_tokens_to_keep, len(z))
    if params.top_k is not None:
        k = min(max(params.top_k, keep), len(z))
        z = z.masked_fill(z < z.topk(k).values[-1], float("-inf"))
    if params.top_p < 1:
        rising, order = z.sort()
        cut = rising.softmax(-1).cumsum(-1) <= 1 - params.top_p
        cut[-keep:] = False
        z[order[cut]] = float("-inf")
    if params.min_p > 0:
        chances = z.softmax(-1)
        cut = chances < params.min_p * chances.max()
        cut[chances.topk(keep).indices] = False
        z = z.masked_fill(cut, float("-inf"))
    return z


# ch08_inference/inference.ipynb [process-all-code]
def process_logits(logits, params, seen=(), new=()):
    """Logits (V,) bent and cut as SamplingParams ask; float32, −inf: never.

    seen: ids of the text so far (for the penalty); new: those of them that
    the model wrote (for the grammar). Equal to the bit to what the
    processors of `transformers` make of them. ValueError if the grammar
    allows nothing. Sources: Fan et al. 2018 (top-k), Holtzman et al. 2020
    (top-p), Nguyen et al. 2025 (min-p), Keskar et al. 2019 (penalty). Built
    in chapter 8.
    """
    z = logits.float().clone()                                      # (V,)
    for token, bias in params.logit_bias.items():
        z[token] += bias
    if params.repetition_penalty != 1 and len(seen):
        at = torch.as_tensor(list(set(seen)), device=z.device)
        factor = params.repetition_penalty
        z[at] = torch.where(z[at] < 0, z[at] * factor, z[at] / factor)
    if params.allowed is not None:
        z = _only(z, params.allowed(list(new)))
    if params.temperature == 0:
        best = z.argmax()
        return torch.full_like(z, float("-inf")).index_fill(0, best, 0.0)
    return _cut_tail(z / params.temperature, params)


def choose_token(logits, params, seen=(), new=(), generator=None) -> int:
    """One id drawn from logits (V,) as SamplingParams ask.

    generator: a torch.Generator on the CPU. Built in chapter 8.
    """
    z = process_logits(logits, params, seen, new)
    if params.temperature == 0:
        return int(z.argmax())
    return int(torch.multinomial(z.softmax(-1).cpu(), 1, generator=generator))


# ch08_inference/inference.ipynb [one-of]
def one_of(tokenizer, answers, end):
    """A grammar for `SamplingParams.allowed`: exactly one of some texts.

    answers: list of str; end: the id that must follow. Built in chapter 8.
    """
    rows = [[*tokenizer.encode(answer), end] for answer in answers]

    def allowed(new):
        n = len(new)
        return {row[n] for row in rows if row[:n] == new and len(row) > n}

    return allowed


# ch08_inference/inference.ipynb [text-stream]
class TextStream:
    """Token ids in, whole characters out. Built in chapter 8.

    `push(id)` returns the text that is certain now, `finish()` the rest.
    stop: texts that end the answer; the first to be complete does, neither
    it nor what follows is returned, and `stopped` becomes True. `text` is
    all that was returned, the same however the bytes were cut into tokens.
    """

    def __init__(self, tokenizer, stop=()):
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held, self.text, self.stopped = "", "", False

    def push(self, token: int) -> str:
        """The text that `token` makes certain, perhaps empty."""
        return self._send(self.tokenizer.decode_bytes([token]))

    def finish(self) -> str:
        """What was held back; half a character becomes U+FFFD."""
        return self._send(b"", final=True)

    def _send(self, data, final=False):
        if self.stopped:
            return ""
        self._held += self._decoder.decode(data, final)
        found = [(at + len(s), at) for s in self.stop
                 if (at := self._held.find(s)) >= 0]
        if found:                          # the first that is complete
            self.stopped, keep = True, min(found)[1]
        else:
            keep = len(self._held)
            if not final:
                keep -= max((n for s in self.stop for n in range(1, len(s))
                             if self._held.endswith(s[:n])), default=0)
        piece, self._held = self._held[:keep], self._held[keep:]
        self.text += piece
        return piece


# ch08_inference/inference.ipynb [stream-code]
@torch.no_grad()
def stream(model, tokenizer, messages, params=None, chat=None):
    """The answer to a conversation, piece by piece as it is written.

    messages: dicts with "role" and "content"; params: SamplingParams; chat:
    how they become ids (default: ChatFormat(tokenizer)). Yields pieces of
    str, which never end inside a character. ValueError if the conversation
    leaves no room in the model's context. Built in chapter 8.
    """
    params, chat = params or SamplingParams(), chat or ChatFormat(tokenizer)
    ids = chat.encode(messages, add_generation_prompt=True)
    room = model.config.context_length - len(ids)
    if room < 1:
        raise ValueError(
            f"the conversation has {len(ids)} tokens and leaves no room in a "
            f"context of {model.config.context_length}: shorten it"
        )
    device = next(model.parameters()).device
    dice = torch.Generator().manual_seed(
        torch.seed() if params.seed is None else params.seed)
    text, new = TextStream(tokenizer, params.stop), []
    cache, feed = model.new_cache(), ids
    for _ in range(min(room, params.max_new_tokens)):
        at = torch.tensor([feed], device=device)
        logits, _ = model(at, cache=cache)
        token = choose_token(logits[0, -1], params, ids + new, new, dice)
        if token in (chat.end, chat.pad):
            break
        new, feed = [*new, token], [token]
        yield text.push(token)
        if text.stopped:
            return
    yield text.finish()


# ch08_inference/inference.ipynb [fast-linear]
def _slabs(weight):
    """How many slabs of rows a weight (out, in) is cut into: 1, not at all."""
    if weight.device.type != "cpu" or weight.numel() < 2**20:
        return 1
    out, least = len(weight), 2 * torch.get_num_threads()
    return next((n for n in range(least, out) if out % n == 0), 1)


class FastLinear(torch.nn.Module):
    """A linear layer laid out in memory for products with a single row.

    weight: (out, in); bias: (out,) or None. Large ones on a CPU are taken in
    slabs, which all cores share; other tall ones are kept column by column.
    Its numbers are copied, and carry no gradient. Built in chapter 8.
    """

    def __init__(self, weight, bias=None):
        super().__init__()
        weight = weight.detach()
        tall = weight.shape[0] > weight.shape[1] and _slabs(weight) == 1
        self.register_buffer(
            "weight", weight.mT.contiguous().mT if tall else weight.clone())
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x):
        """x (..., in) to (..., out)."""
        return F.linear(x, self.weight, self.bias)

    def product(self):
        """A function of x (B, in), without a module's own overhead."""
        weight, bias, n = self.weight.mT, self.bias, _slabs(self.weight)
        whole = ((lambda x: torch.mm(x, weight)) if bias is None
                 else lambda x: torch.addmm(bias, x, weight))
        if n == 1:
            return whole
        slabs = self.weight.unflatten(0, (n, -1)).mT  # (n, in, out / n)

        def product(x):
            if len(x) > 1:  # several rows: as the library likes
                return whole(x)
            y = torch.bmm(x.expand(n, -1, -1), slabs)  # (n, 1, out / n)
            y = y.view(1, -1)  # (1, out)
            return y if bias is None else y.add_(bias)

        return product

    def rows(self, first, last):
        """The layer of these outputs alone; the numbers are shared."""
        part = copy.copy(self)
        part._buffers = {name: None if t is None else t[first:last]
                         for name, t in self._buffers.items()}
        return part


# ch08_inference/inference.ipynb [fast-norm]
def _quick_rms_norm(weight, eps):
    """A function of x (..., D): its RMS norm times weight (..., D)."""
    D = weight.shape[-1]
    weight, floor = D**0.5 * weight, weight.new_tensor((D * eps)**0.5)

    def norm(x):
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x * weight).div_(torch.hypot(length, floor))

    return norm


def _quick_norm(norm):
    """The function that a norm of chapter 4 is, in few calls."""
    weight = norm.weight.detach()
    if isinstance(norm, RMSNorm):
        return _quick_rms_norm(weight, norm.eps)
    bias = None if norm.bias is None else norm.bias.detach()
    return lambda x: F.layer_norm(x, weight.shape, weight, bias, norm.eps)


# ch08_inference/inference.ipynb [fast-block]
def _joined(layers, linear):
    """Linear layers over one input as a single one, by linear(weight, bias)."""
    weights, biases = zip(*((layer.weight, layer.bias) for layer in layers))
    return linear(torch.cat(weights),
                  None if biases[0] is None else torch.cat(biases))


class FastBlock(Block):
    """A Block with joined products; its old parts are views of them.

    linear(weight, bias): a layer that multiplies. Built in chapter 8.
    """

    def __init__(self, block, config, linear):
        with torch.device("meta"):                 # a form without numbers
            super().__init__(config)
        self.attention_norm = copy.deepcopy(block.attention_norm)
        self.feed_forward_norm = copy.deepcopy(block.feed_forward_norm)
        a, old = self.attention, block.attention
        H, G, D = old.n_head, old.n_kv_head, old.d_head
        self.qkv = _joined((old.q_proj, old.k_proj, old.v_proj), linear)
        a.q_proj = self.qkv.rows(0, H * D)
        a.k_proj = self.qkv.rows(H * D, (H + G) * D)
        a.v_proj = self.qkv.rows((H + G) * D, (H + 2 * G) * D)
        a.o_proj = _joined((old.o_proj,), linear)
        a.q_norm, a.k_norm = copy.deepcopy((old.q_norm, old.k_norm))
        f, old, width = self.feed_forward, block.feed_forward, config.d_ff
        first = [old.gate_proj] if f.activation == "swiglu" else []
        self.up = _joined([*first, old.up_proj], linear)
        if first:
            f.gate_proj = self.up.rows(0, width)
        f.up_proj = self.up.rows(len(first) * width, None)
        f.down_proj = _joined((old.down_proj,), linear)


# ch08_inference/inference.ipynb [fast-feed]
def _feed_way(block):
    """The function x + feed_forward(norm(x)), x (B, C), of a FastBlock."""
    norm, layer = _quick_norm(block.feed_forward_norm), block.feed_forward
    up, down = block.up.product(), layer.down_proj.product()

    def feed(x):
        if layer.activation != "swiglu":
            return down(layer.bend(up(x)))
        gate, value = up(x).chunk(2, dim=-1)
        return down(F.silu(gate).mul_(value))

    if block.post_norm:
        return lambda x: norm(x + feed(x))
    return lambda x: x + feed(norm(x))


# ch08_inference/inference.ipynb [fast-step]
def _short_way(block):
    """The function step(x, cache, mask, rope) of a FastBlock.

    x (B, C), one new position a row, to (B, C); cache: of this layer; mask:
    bool, (B, 1, 1, S) or None; rope: cosines and signed sines, each
    broadcastable to (B, 1, 1, D), or None.
    """
    a, post = block.attention, block.post_norm
    H, G, D, window = a.n_head, a.n_kv_head, a.d_head, a.window
    before = _quick_norm(block.attention_norm)
    qkv, out, feed = block.qkv.product(), a.o_proj.product(), _feed_way(block)
    head_norm = None if a.q_norm is None else _quick_rms_norm(torch.stack(
        [a.q_norm.weight] * H + [a.k_norm.weight] * G).detach()[:, None],
        a.q_norm.eps)

    def step(x, cache, mask=None, rope=None):
        B = len(x)
        heads = qkv(x if post else before(x)).view(B, H + 2 * G, 1, D)
        qk, v = heads.split((H + G, G), dim=1)
        if head_norm is not None:
            qk = head_norm(qk)
        if rope is not None:
            qk = torch.addcmul(qk * rope[0], qk.roll(D // 2, -1), rope[1])
        q, k = qk.split((H, G), dim=1)
        k, v = cache.update(k, v)                         # (B, G, S, D)
        if window:
            k, v = k[:, :, -window:], v[:, :, -window:]
            mask = None if mask is None else mask[..., -window:]
        y = F.scaled_dot_product_attention(
            q.reshape(B, G, H // G, D), k, v, attn_mask=mask)
        x = x + out(y.reshape(B, H * D))
        return feed(before(x) if post else x)

    return step


# ch08_inference/inference.ipynb [fast-gpt]
class FastGPT(GPT):
    """A GPT arranged for writing: the same weights, the same tokens.

    model: a GPT without adapters; its numbers are copied. linear(weight,
    bias): the layer that multiplies. One token a row behind a cache goes a
    short way, all else chapter 4's. For use, not for training, and on the
    device where the model is. ValueError on LoRA layers. Built in chapter 8.
    """

    def __init__(self, model, linear=FastLinear):
        torch.nn.Module.__init__(self)
        if any(not hasattr(layer, "weight") for block in model.blocks
               for layer in block.attention.children() if layer is not None):
            raise ValueError("merge the adapters first: call merge_lora")
        self.config = c = model.config
        self.token_embedding, self.position_embedding, self.norm = (
            copy.deepcopy((model.token_embedding, model.position_embedding,
                           model.norm)))
        self.drop = model.drop
        self.blocks = torch.nn.ModuleList(
            FastBlock(block, c, linear) for block in model.blocks)
        self.head = linear(model.head.weight)
        if c.position == "rope":
            cos, sin = rope_table(
                torch.arange(c.context_length), rope_frequencies(
                    c.d_head, c.rope_theta))
            like = self.head.weight
            self.register_buffer("turns", torch.stack(
                (torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1))
            ).to(like.device)[:, :, None, None])           # (2, T, 1, 1, D)
        self.requires_grad_(False).eval()
        self._steps = [_short_way(block) for block in self.blocks]
        self._last = _quick_norm(self.norm), self.head.product()

    def forward(self, ids, targets=None, cache=None, hidden=False,
                left_pad=None):
        """As a GPT's; one id a row behind a cache is quickest."""
        past = cache[0].length if cache else 0
        if not past or ids.shape[1] > 1 or hidden or targets is not None:
            return super().forward(ids, targets, cache, hidden, left_pad)
        if past >= self.config.context_length:
            raise ValueError(f"{past + 1} ids are longer than the model's "
                             f"context of {self.config.context_length}")
        at, mask = slice(past, past + 1), None
        if left_pad is not None:
            key = torch.arange(past + 1, device=ids.device)
            mask = (key >= left_pad[:, None])[:, None, None]
            at = past - left_pad
        return self.step(ids[:, 0], at, cache, mask)[:, None], None

    def step(self, ids, at, cache, mask=None):
        """Logits (B, V) after ids (B,), one new id a row.

        at: their positions, (B,), or a slice of one for all; cache: one for
        each layer; mask: bool, (B, 1, 1, S), True where a row may look.
        """
        x, rope, c = self.token_embedding(ids), None, self.config
        if c.position == "learned":
            x = x + self.position_embedding.weight[at]
        if c.position == "rope":
            rope = self.turns[:, at]
        for step, layer in zip(self._steps, cache):
            x = step(x, layer, mask, rope)
        norm, head = self._last
        x = norm(x)
        z = head(x * c.mup_scale if c.mup_base_width else x)
        if c.logit_softcap is not None:
            z = c.logit_softcap * torch.tanh(z / c.logit_softcap)
        return z[:, :c.vocab_size]


# ch08_inference/inference.ipynb [block-pool]
class BlockPool:
    """Keys and values of many conversations, in blocks. Built in chapter 8.

    config: a ModelConfig; block_size: positions a block. Block 0 belongs to
    nobody and takes what is padding. `free`: the blocks without an owner,
    the next to be taken first; `kept`: (L, slots, 2, G, D). Source: Kwon et
    al. 2023, section 4.1.
    """

    def __init__(self, config, n_blocks, block_size=16, device="cpu",
                 dtype=torch.float32):
        self.block_size = block_size
        self.free = OrderedDict.fromkeys(range(1, n_blocks + 1))
        self.owners = [0] * (n_blocks + 1)
        self.kept = torch.zeros(
            config.n_layer, (n_blocks + 1) * block_size, 2, config.n_kv_head,
            config.d_head, device=device, dtype=dtype)

    def needed(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.block_size)

    def take(self, n: int) -> list[int]:
        """n free blocks; MemoryError if there are fewer."""
        if n > len(self.free):
            raise MemoryError(f"{n} blocks wanted, {len(self.free)} are free")
        blocks = [self.free.popitem(last=False)[0] for _ in range(n)]
        return self.hold(blocks)

    def hold(self, blocks) -> list[int]:
        """One owner more for each of these blocks."""
        for block in blocks:
            self.free.pop(block, None)
            self.owners[block] += 1
        return blocks

    def give_back(self, blocks) -> None:
        """One owner less; without any, a block is free."""
        for block in blocks:
            self.owners[block] -= 1
            if not self.owners[block]:
                self.free[block] = None

    def slots(self, blocks, length: int) -> np.ndarray:
        """Where the first `length` positions of a conversation lie."""
        first = np.array(blocks, dtype=np.int64)[:, None] * self.block_size
        return (first + np.arange(self.block_size)).ravel()[:length]


# ch08_inference/inference.ipynb [paged-cache]
class PagedCache:
    """One layer's cache for the rows of one step; used like a `KVCache`.

    kept: (slots, 2, G, D) of a BlockPool; slots: (B, S), where each position
    of each row lies, 0 for padding on the left; new: (B, T), where the last
    T are to be written, 0 for those that are there. Built in chapter 8.
    """

    def __init__(self, kept, slots, new):
        self.kept, self.slots, self.new = kept, slots.flatten(), new.flatten()
        self.shape, self.length = slots.shape, slots.shape[1] - new.shape[1]

    def update(self, k, v):
        """Write k, v (B, G, T, D); return all, (B, G, S, D)."""
        both = torch.stack((k, v), dim=3).transpose(1, 2)    # (B, T, G, 2, D)
        self.kept.index_copy_(0, self.new, both.flatten(0, 1).transpose(
            1, 2).to(self.kept.dtype))
        found = self.kept.index_select(0, self.slots).view(
            *self.shape, *self.kept.shape[1:])               # (B, S, 2, G, D)
        keys, values = found.permute(2, 0, 3, 1, 4)
        return keys, values


# ch08_inference/inference.ipynb [prefix-pool]
class SharedPool(BlockPool):
    """A BlockPool that knows its full blocks again. Built in chapter 8.

    `known`: {(name of the block before, ids): block}; `names`: {block: (its
    name, its key in known)}. Source: Kwon et al. 2023, section 4.4.
    """

    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.known, self.names, self.named = {}, {}, 0

    def find(self, ids) -> list[int]:
        """Blocks that hold the beginning of ids; the caller owns them now."""
        size, name, found = self.block_size, 0, []
        for at in range(0, len(ids) - size + 1, size):
            block = self.known.get((name, tuple(ids[at:at + size])))
            if block is None:
                break
            name = self.names[block][0]
            found.append(block)
        return self.hold(found)

    def remember(self, ids, blocks) -> None:
        """What is written in a conversation's full blocks: these ids."""
        size, name = self.block_size, 0
        for i, block in enumerate(blocks[:len(ids) // size]):
            key = name, tuple(ids[i * size:(i + 1) * size])
            if key not in self.known:
                self._forget(block)
                self.named += 1
                self.known[key], self.names[block] = block, (self.named, key)
            name = self.names[self.known[key]][0]

    def take(self, n):
        """As in BlockPool; what was in the blocks is forgotten."""
        blocks = super().take(n)
        for block in blocks:
            self._forget(block)
        return blocks

    def _forget(self, block):
        if block in self.names:
            del self.known[self.names.pop(block)[1]]

    def give_back(self, blocks):
        """As in BlockPool, the end of a conversation to be taken first."""
        super().give_back(reversed(blocks))
        for block in blocks:
            if not self.owners[block] and block not in self.names:
                self.free.move_to_end(block, last=False)


# ch08_inference/inference.ipynb [generation-request]
@dataclass(eq=False)
class GenerationRequest:
    """One conversation in the engine. Built in chapter 8.

    ids: the prompt; params: SamplingParams; on_text(piece, finish) is called
    from the engine's thread with each piece of text; finish is None until
    the last call, then "stop", "length", "cancelled" or "error". text: the
    stream that turns ids into text; room: the most new ids that fit; new:
    the ids so far; blocks: of the cache; read: positions that they hold;
    dice: the generator of its seed.
    """

    ids: list[int]
    params: SamplingParams
    on_text: Callable
    text: TextStream
    room: int
    new: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    read: int = 0
    finish: str | None = None
    dice: torch.Generator | None = None

    @property
    def length(self) -> int:
        """Tokens so far, the prompt's and the model's."""
        return len(self.ids) + len(self.new)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is all that is asked for."""
        p = self.params
        return p == SamplingParams(max_new_tokens=p.max_new_tokens,
                                   stop=p.stop, seed=p.seed)

    def end(self, why, piece="") -> None:
        """Tell the customer that this was all."""
        self.finish = why
        self.on_text(piece, why)

    def accept(self, token, ends) -> None:
        """Take the model's next token; ends: the ids that end an answer."""
        if token in ends:
            self.end("stop", self.text.finish())
            return
        self.new.append(token)
        piece = self.text.push(token)
        if self.text.stopped:
            self.end("stop", piece)
        elif len(self.new) >= self.room:
            self.end("length", piece + self.text.finish())
        elif piece:
            self.on_text(piece, None)


# ch08_inference/inference.ipynb [scheduler]
class Scheduler:
    """Who is served now, and in which blocks. Built in chapter 8.

    pool: a SharedPool; max_batch: rows of a step. `waiting`, `running`: lists
    of GenerationRequests; `cancelled`: a set of those to drop; `interrupted`:
    how often one has stepped back.
    """

    def __init__(self, pool, max_batch):
        self.pool, self.max_batch, self.interrupted = pool, max_batch, 0
        self.waiting, self.running, self.cancelled = [], [], set()

    def admit(self) -> list:
        """Drop the cancelled; let in who fits, in the order they came.

        If nobody comes in, each that runs gets the block that it needs.
        """
        gone, self.cancelled = self.cancelled, set()
        for row in [r for r in self.running + self.waiting if r in gone]:
            row.end("cancelled")
        self.waiting = [r for r in self.waiting if not r.finish]
        self.leave()
        new = []
        while (self.waiting and len(self.running) < self.max_batch
               and self._seat(self.waiting[0])):
            new.append(self.waiting.pop(0))
            self.running.append(new[-1])
        if not new:
            self._grow()
        return new

    def leave(self) -> None:
        """Those who have finished give their blocks back."""
        for row in [r for r in self.running if r.finish]:
            self.running.remove(row)
            self._empty(row)


# ch08_inference/inference.ipynb [scheduler-blocks]
class PagedScheduler(Scheduler):
    """A Scheduler that hands out blocks one by one. Built in chapter 8."""

    def _seat(self, row) -> bool:
        """Blocks for all that a row has so far, or none; did it get them?"""
        blocks = self.pool.find((row.ids + row.new)[:-1])
        more = self.pool.needed(row.length) - len(blocks)
        if more + len(self.running) > len(self.pool.free):
            self.pool.give_back(blocks)
            return False
        row.read = len(blocks) * self.pool.block_size
        row.blocks = blocks + self.pool.take(more)
        return True

    def _grow(self) -> None:
        """A block for each row whose last is full; who came last makes room."""
        for row in list(self.running):
            while row in self.running and (
                    self.pool.needed(row.length) > len(row.blocks)):
                if self.pool.free:
                    row.blocks += self.pool.take(1)
                else:
                    last = self.running.pop()
                    self._empty(last)
                    self.waiting.insert(0, last)
                    self.interrupted += 1

    def _empty(self, row) -> None:
        self.pool.give_back(row.blocks)
        row.blocks, row.read = [], 0


# ch08_inference/inference.ipynb [engine-core]
class EngineCore(PagedScheduler):
    """Many conversations over one model, a step at a time.

    model, tokenizer: as from chapters 4 and 2. max_batch: rows of a step;
    n_blocks, block_size: memory for keys and values (default: max_batch full
    contexts). Built in chapter 8.
    """

    def __init__(self, model, tokenizer, max_batch=8, n_blocks=None,
                 block_size=16):
        config, weights = model.config, model.norm.weight
        full = -(-config.context_length // block_size)
        super().__init__(
            SharedPool(config, n_blocks or max_batch * full, block_size,
                       weights.device, weights.dtype), max_batch)
        self.blocks = len(self.pool.free)
        self.model, self.tokenizer = model.eval(), tokenizer
        self.chat = ChatFormat(tokenizer)

    def request(self, messages, params=None, on_text=None):
        """A GenerationRequest for a conversation; ValueError if too long."""
        params = params or SamplingParams()
        ids = self.chat.encode(messages, add_generation_prompt=True)
        context = self.model.config.context_length
        if len(ids) >= context:
            raise ValueError(
                f"the conversation has {len(ids)} tokens, and the model's "
                f"context is {context}: shorten it"
            )
        room = min(params.max_new_tokens, context - len(ids))
        if self.pool.needed(len(ids) + room) > self.blocks:
            raise ValueError("this answer does not fit the engine's memory: "
                             "ask for fewer max_new_tokens")
        dice = torch.Generator()
        dice.manual_seed(dice.seed() if params.seed is None else params.seed)
        text = TextStream(self.tokenizer, params.stop)
        nobody = lambda piece, finish: None                   # noqa: E731
        return GenerationRequest(ids, params, on_text or nobody, text, room,
                                 dice=dice)

    @property
    def ends(self) -> tuple:
        """The ids that end an answer."""
        return self.chat.end, self.chat.pad

    def step(self) -> bool:
        """Read new prompts, or write one token a row; False if idle."""
        rows = self.admit() or list(self.running)
        if not rows:
            return False
        logits = self._forward(rows)
        likeliest = logits.argmax(-1).tolist()
        for i, row in enumerate(rows):
            row.read = row.length
            if row.read % self.pool.block_size == 0 or not row.new:
                self.pool.remember(row.ids + row.new, row.blocks)
            try:
                row.accept(likeliest[i] if row.greedy else choose_token(
                    logits[i], row.params, row.ids + row.new, row.new,
                    row.dice), self.ends)
            except ValueError:                    # its grammar has no way on
                row.end("error")
        self.leave()
        return True

    @torch.inference_mode()
    def _forward(self, rows):
        """Logits (B, V) after all that each row has."""
        S, T = max(r.length for r in rows), max(r.length - r.read for r in rows)
        slots, new = np.zeros((2, len(rows), S), dtype=np.int64)
        ids = np.zeros((len(rows), T), dtype=np.int64)
        for i, row in enumerate(rows):
            n, at = row.length, self.pool.slots(row.blocks, row.length)
            slots[i, S - n:] = at
            new[i, S - n + row.read:] = at[row.read:]
            ids[i, max(T - n, 0):] = (row.ids + row.new)[-T:]
        pad = torch.tensor([S - row.length for row in rows])
        slots, new, ids, pad = (
            x.to(self.pool.kept.device) for x in
            (torch.from_numpy(slots), torch.from_numpy(new[:, S - T:].copy()),
             torch.from_numpy(ids), pad))
        cache = [PagedCache(kept, slots, new) for kept in self.pool.kept]
        if T == 1:
            return self.model(ids, cache=cache, left_pad=pad)[0][:, -1]
        x = self.model(ids, cache=cache, left_pad=pad, hidden=True)
        return self.model.logits(x[:, -1])


# ch08_inference/inference.ipynb [engine]
class Busy(RuntimeError):
    """The engine's waiting room is full. Built in chapter 8."""


class Engine(EngineCore):
    """An EngineCore with a thread that turns it. Built in chapter 8.

    max_waiting: requests that may wait; name: what the server calls the
    model. Use as a context manager, or `start()` and `close()`.
    """

    def __init__(self, model, tokenizer, max_batch=8, n_blocks=None,
                 block_size=16, max_waiting=64, name="pocket"):
        super().__init__(model, tokenizer, max_batch, n_blocks, block_size)
        self.max_waiting, self.name = max_waiting, name
        self._changed = threading.Condition()
        self._thread, self._open = None, True

    def submit(self, messages, params=None, on_text=None):
        """Queue a conversation; returns its GenerationRequest.

        ValueError if it is too long; Busy if too many wait or the engine is
        closed.
        """
        request = self.request(messages, params, on_text)
        with self._changed:
            if not self._open:
                raise Busy("the engine is closed")
            if len(self.waiting) >= self.max_waiting:
                raise Busy(f"{len(self.waiting)} requests wait already")
            self.waiting.append(request)
            self._changed.notify()
        return request

    def cancel(self, request) -> None:
        """Stop a request; its blocks are free after the next step."""
        with self._changed:
            self.cancelled.add(request)
            self._changed.notify()

    def answer(self, conversations, params=None) -> list[str]:
        """The answers to several conversations, written side by side."""
        asked = [self.submit(c, params) for c in conversations]
        while self._thread is None and any(not r.finish for r in asked):
            self.step()
        while any(not r.finish for r in asked):
            time.sleep(0.001)
        return [r.text.text for r in asked]

    def admit(self):
        """As in Scheduler, while nobody else touches the lists."""
        with self._changed:
            return super().admit()

    def start(self):
        """Work in a thread of its own from now on."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        return self

    def close(self) -> None:
        """Finish the step at hand and end; who is left is cancelled."""
        with self._changed:
            self._open = False
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self.cancelled |= {*self.running, *self.waiting}
        self.admit()

    def __enter__(self):
        return self.start()

    def __exit__(self, *error):
        self.close()

    def _work(self):
        while self._open:
            with self._changed:
                if not self.waiting + self.running:
                    self._changed.wait(timeout=1)
            try:
                self.step()
            except Exception as error:            # tell everybody, and go on
                print(f"engine: {type(error).__name__}: {error}")
                for row in [r for r in self.running if not r.finish]:
                    row.end("error")
                self.leave()


# ch08_inference/inference.ipynb [prompt-lookup]
def prompt_lookup(ids, k, longest=3) -> list[int]:
    """Guess the next k ids: what followed the last time these ids stood here.

    ids: list of int. Tries the last `longest` ids, then fewer. Source: Saxena
    2023, prompt lookup decoding. Built in chapter 8.
    """
    for n in range(longest, 0, -1):
        tail = ids[-n:]
        for at in range(len(ids) - n - 1, -1, -1):
            if ids[at:at + n] == tail:
                return ids[at + n:at + n + k]
    return []


# ch08_inference/inference.ipynb [speculative]
def keep_or_replace(p, guess, q=None, generator=None):
    """An id distributed as p, from a guess that was drawn from q.

    p, q: (V,), the chances of the model and of the guesser (None: it was
    certain). Returns (id, whether it is the guess that was kept). Source:
    Leviathan et al. 2023, algorithm 1. Built in chapter 8.
    """
    q = torch.zeros_like(p).index_fill(
        0, torch.tensor(guess), 1.0) if q is None else q
    if torch.rand((), generator=generator) * q[guess] < p[guess]:
        return guess, True
    rest = (p - q).clamp_min(0)
    rest = rest if rest.any() else p             # equal, but for the rounding
    return int(torch.multinomial(rest, 1, generator=generator)), False


def _verify(logits, guess, q, params, seen, start, stop, generator):
    """The ids of a step: guesses as long as they hold, and one id more."""
    new = []
    for i, row in enumerate(logits):
        text = seen + new
        z = process_logits(row, params, text, text[start:])
        p = z.softmax(-1).cpu()
        token, held = keep_or_replace(
            p, guess[i], None if q is None else q[i], generator
        ) if i < len(guess) else (int(torch.multinomial(
            p, 1, generator=generator)), False)
        new.append(token)
        if not held or token in stop:
            break
    return new


# ch08_inference/inference.ipynb [speculative-loop-code]
@torch.no_grad()
def speculative_generate(model, ids, max_new_tokens, draft=prompt_lookup, k=8,
                         stop=(), counts=None, params=None, generator=None):
    """A continuation of ids (T,) as the model alone gives it, in fewer steps.

    draft(ids, k): at most k guessed ids, or a pair: the ids and the chances
    (k, V) from which they were drawn. stop: ids that end the text (kept).
    counts: a dict that gets "steps", "guessed" and "accepted". params:
    SamplingParams (default: greedy, as `generate`); generator: on the CPU.
    ValueError on an empty prompt. Source: Leviathan et al. 2023. Built in
    chapter 8.
    """
    if not len(ids):
        raise ValueError("the prompt is empty: begin with <|endoftext|>")
    seen, device = ids.tolist(), next(model.parameters()).device
    params, start = params or SamplingParams(), len(seen)
    context = model.config.context_length
    left = min(max_new_tokens, max(1, context + 1 - start))
    cache, feed = model.new_cache(), seen
    tally = {"steps": 0, "guessed": 0, "accepted": 0}
    while left > 0:
        room = min(k, left - 1, context - len(seen))
        guess = draft(seen, room) if room > 0 else []
        guess, q = guess if isinstance(guess, tuple) else (guess, None)
        read = torch.tensor([feed + guess], device=device)
        logits = model(read, cache=cache)[0][0]                # (T, V)
        new = _verify(logits[len(feed) - 1:], guess, q, params, seen, start,
                      stop, generator)
        seen, feed = seen + new, new[-1:]
        left = 0 if new[-1] in stop else left - len(new)
        for layer in cache:
            layer.trim(min(layer.length, len(seen) - 1))
        tally["steps"] += 1
        tally["guessed"] += len(guess)
        tally["accepted"] += sum(a == b for a, b in zip(guess, new))
    if counts is not None:
        counts.update(tally)
    return torch.tensor(seen, device=ids.device)


# ch08_inference/inference.ipynb [draft-model-code]
class DraftModel:
    """A small model that guesses for a large one. Built in chapter 8.

    model: a GPT of the same vocabulary; params: SamplingParams, best those
    of the large one (default: greedy; the grammar is not asked); generator:
    on the CPU. Called with ids and k: guessed ids, and their chances (k, V).
    """

    def __init__(self, model, params=None, generator=None):
        self.model, self.generator = model.eval(), generator
        self.params = replace(params or SamplingParams(), allowed=None)
        self.cache, self.read = model.new_cache(), []

    @torch.no_grad()
    def __call__(self, ids, k):
        k = min(k, self.model.config.context_length + 1 - len(ids))
        if k < 1:
            return []
        pairs = zip(self.read, ids[:-1])
        same = next((n for n, (a, b) in enumerate(pairs) if a != b),
                    min(len(self.read), len(ids) - 1))
        for layer in self.cache:
            layer.trim(same)
        seen, feed, chances = list(ids), ids[same:], []
        device = next(self.model.parameters()).device
        for _ in range(k):
            at = torch.tensor([feed], device=device)
            logits = self.model(at, cache=self.cache)[0][0, -1]
            z = process_logits(logits, self.params, seen)
            chances.append(z.softmax(-1).cpu())
            feed = [int(torch.multinomial(
                chances[-1], 1, generator=self.generator))]
            seen += feed
        self.read = seen[:-1]
        return seen[len(ids):], torch.stack(chances)


# ch08_inference/inference.ipynb [pack]
def pack_bits(values, bits):
    """Whole numbers (..., N) from 0 to 2^bits − 1, packed into uint8.

    bits: 2, 4 or 8; N a multiple of 8 / bits. Built in chapter 8.
    """
    places = torch.arange(0, 8, bits, device=values.device)
    parts = values.to(torch.int32).unflatten(-1, (-1, len(places)))
    return (parts << places).sum(-1).to(torch.uint8)


def unpack_bits(packed, bits):
    """The inverse of `pack_bits`. Built in chapter 8."""
    places = torch.arange(0, 8, bits, device=packed.device)
    parts = packed[..., None].to(torch.int32) >> places
    return (parts & (2**bits - 1)).flatten(-2)


# ch08_inference/inference.ipynb [quantized-linear]
class QuantizedLinear(torch.nn.Module):
    """A linear layer whose weight is kept in 2, 4 or 8 bits.

    weight: (out, in), rounded in groups of `group` along each row, a scale of
    16 bits each. It is unpacked for every use: less memory, not less work.
    ValueError on other bits, or rows that do not fall into groups. Built in
    chapter 8.
    """

    def __init__(self, weight, bias=None, bits=8, group=32):
        super().__init__()
        rows, width = weight.shape
        if bits not in (2, 4, 8):
            raise ValueError(f"bits must be 2, 4 or 8, not {bits}")
        if width % group or group * bits % 8:
            raise ValueError(f"rows of {width} do not fall into groups of "
                             f"{group} that fill whole bytes")
        self.bits, self.width, self.bias = bits, width, bias
        top = 2 ** (bits - 1) - 1
        w = weight.detach().float().view(rows, -1, group)
        scale = (w.abs().amax(-1, keepdim=True) / top).half()
        steps = w / scale.float().clamp_min(1e-12)
        steps = steps.round().clamp(-top, top) + top
        self.register_buffer("scale", scale)
        self.register_buffer("packed", pack_bits(steps, bits))

    @property
    def weight(self):
        """The weight as it is now, (out, in), float32."""
        steps = unpack_bits(self.packed, self.bits) - (2**(self.bits - 1) - 1)
        return (steps * self.scale.float()).flatten(1)

    def forward(self, x):
        """x (..., in) to (..., out)."""
        return torch.nn.functional.linear(x, self.weight.to(x.dtype), self.bias)


class QuantizedEmbedding(torch.nn.Module):
    """The rows of a QuantizedLinear, looked up by id. Built in chapter 8."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def forward(self, ids):
        """ids (...) to (..., C)."""
        rows, places = ids.unique(return_inverse=True)
        table = self.table
        steps = unpack_bits(table.packed[rows], table.bits)
        steps = steps - (2**(table.bits - 1) - 1)
        return (steps * table.scale[rows].float()).flatten(1)[places]


# ch08_inference/inference.ipynb [quantize-code]
def quantize(model, bits=8, group=32):
    """A copy of a GPT with its matrices and token table in `bits` bits.

    bits: 8, 4 or 2; group: weights that share a scale. Norms, biases and
    learned positions stay as they are. ValueError on other sizes. Source:
    Dettmers et al. 2022, with one scale a group. Built in chapter 8.
    """
    small = copy.deepcopy(model).eval()
    for block in small.blocks:
        for part in block.attention, block.feed_forward:
            for name, layer in list(part.named_children()):
                if isinstance(layer, torch.nn.Linear):
                    setattr(part, name, QuantizedLinear(
                        layer.weight, layer.bias, bits, group))
    tied = model.config.tie_embeddings
    table = QuantizedLinear(small.token_embedding.weight, None, bits, group)
    head = table if tied else QuantizedLinear(
        small.head.weight, None, bits, group)
    small.token_embedding, small.head = QuantizedEmbedding(table), head
    return small


def model_bytes(model) -> int:
    """Bytes of a model's parameters and buffers, each counted once.

    Built in chapter 8.
    """
    tensors = {t.data_ptr(): t for t in
               (*model.parameters(), *model.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


# ch08_inference/inference.ipynb [int8-linear]
class Int8Linear(torch.nn.Module):
    """A linear layer that multiplies whole numbers of 8 bits.

    weight: (out, in), rounded with one scale a row; bias: (out,) or None.
    Its inputs are rounded too, with one scale for each. On the CPU. Source:
    Dettmers et al. 2022, section 3. Built in chapter 8.
    """

    def __init__(self, weight, bias=None):
        super().__init__()
        steps, scale = self.whole(weight.detach().float())
        self.register_buffer("steps", steps)                    # (out, in)
        self.register_buffer("scale", scale[:, 0])              # (out,)
        self.register_buffer("bias", None if bias is None else bias.detach())

    @staticmethod
    def whole(rows):
        """rows (N, K) as int8 (N, K) and the scale of each (N, 1)."""
        scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127
        return (rows / scale).round_().to(torch.int8), scale

    @property
    def weight(self):
        """The weight as it is now, (out, in), float32."""
        return self.steps * self.scale[:, None]

    def forward(self, x):
        """x (..., in) to (..., out), float32."""
        steps, scale = self.whole(x.reshape(-1, x.shape[-1]).float())
        y = torch._int_mm(steps, self.steps.T) * self.scale * scale
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], -1)

    def product(self):
        """A function of x (B, in), as a FastLinear's."""
        return self.forward

    def rows(self, first, last):
        """The layer of these outputs alone; the numbers are shared."""
        return FastLinear.rows(self, first, last)


# ch08_inference/inference.ipynb [dequantize-code]
def dequantize(model):
    """The inverse of `quantize`: a plain GPT, its weights in float32.

    They are the rounded ones; what rounding took is gone. Built in chapter 8.
    """
    with torch.device("meta"):                   # shapes without any numbers
        plain = GPT(model.config)
    state = {}
    for name, tensor in model.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        if leaf == "packed":
            name = owner.removesuffix(".table") + ".weight"
            tensor = model.get_submodule(owner).weight
        if leaf != "scale":
            state[name] = tensor.clone()
    plain.load_state_dict(state, assign=True)
    if model.config.tie_embeddings:
        plain.head.weight = plain.token_embedding.weight
    return plain.eval()


# ch08_inference/inference.ipynb [shards-code]
def _into_shards(state, shard_bytes):
    """Tensors by name, in order, as a list of dicts that fit a file each."""
    shards, room = [], 0
    for name, tensor in state.items():
        size = tensor.nbytes + len(name) + 128   # with its line in the header
        if size > shard_bytes - 128:
            raise ValueError(f"{name} alone has {tensor.nbytes:,} bytes: "
                             f"shards of {shard_bytes:,} are too small")
        if size > room:
            shards.append({})
            room = shard_bytes - 128
        shards[-1][name] = tensor
        room -= size
    return shards


# ch08_inference/inference.ipynb [write-shards]
def _digest(sums):
    """One SHA-256 for all shards, from the SHA-256 of each."""
    text = "".join(sums[name] for name in sorted(sums))
    return hashlib.sha256(text.encode()).hexdigest()


def _write_shards(shards, folder):
    """Write the shards and their index; the SHA-256 of each by its name."""
    from safetensors.torch import save_file

    places, sums = {}, {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / name, {"format": "pt"})
        places |= dict.fromkeys(shard, name)
        sums[name] = sha256_file(folder / name)
    size = sum(t.nbytes for shard in shards for t in shard.values())
    write_json(folder / "model.safetensors.index.json",
               {"metadata": {"total_size": size}, "weight_map": places})
    return sums


# ch08_inference/inference.ipynb [packed-state]
def _packed_state(model, bits, group):
    """The tensors of a plain GPT as they are written: packed, on the CPU."""
    if any(isinstance(part, (LoRALinear, QuantizedLinear))
           for part in model.modules()):
        raise ValueError("a plain GPT is wanted: call merge_lora or "
                         "dequantize first")
    state = {}
    for name, tensor in quantize(model, bits, group).state_dict().items():
        if model.config.tie_embeddings and name.startswith("head."):
            continue
        if not name.endswith((".packed", ".scale")):
            tensor = tensor.float()
        state[name] = tensor.detach().cpu().contiguous()
    return state


# ch08_inference/inference.ipynb [save-quantized]
def save_quantized(model, folder, tokenizer=None, bits=8, group=None,
                   shard_bytes=45_000_000, training=None):
    """Write a GPT in `bits` bits, whole or not at all; returns the Path.

    model: a plain GPT; group: weights that share a scale (None: 64, or 32
    where the rows do not fall into 64s); shard_bytes: the most that one file
    of weights may have. The folder holds safetensors shards with their
    index, config.json, quantization.json (bits, group, the SHA-256 of each
    shard), training.json (the dict `training`, and one SHA-256 for all
    shards) and a given tokenizer's files. ValueError if the model is not
    plain, the tokenizer not its own, or a tensor larger than a shard. Built
    in chapter 8.
    """
    folder, config = Path(folder), model.config
    if tokenizer is not None and tokenizer.vocab_size != config.vocab_size:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size} ids, the "
                         f"model {config.vocab_size}")
    if group is None:
        group = 32 if config.d_model % 64 or config.d_ff % 64 else 64
    shards = _into_shards(_packed_state(model, bits, group), shard_bytes)
    with atomic_folder(folder) as part:
        sums = _write_shards(shards, part)
        write_json(part / "config.json", config.to_dict())
        write_json(part / "quantization.json",
                   {"bits": bits, "group": group, "sha256": sums})
        write_json(part / "training.json",
                   {**(training or {}), "sha256": _digest(sums)})
        if tokenizer is not None:
            tokenizer.save(part)
    return folder


# ch08_inference/inference.ipynb [whole-folder]
def _must_exist(folder, names):
    for name in names:
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder / name} is missing: this is not "
                                    "a whole folder of quantised weights")


def _whole_folder(folder):
    """(config, quantization.json), or the errors of `load_quantized`."""
    told = folder / "quantization.json"
    _must_exist(folder, [told.name, "config.json", "training.json"])
    plan = read_json(told)
    absent = {"bits", "group", "sha256"} - set(plan)
    if absent:
        raise ValueError(f"{told} has no {', '.join(sorted(absent))}")
    _must_exist(folder, plan["sha256"])
    if _digest(plan["sha256"]) != read_json(
            folder / "training.json").get("sha256"):
        raise ValueError(f"quantization.json and training.json in {folder} "
                         "describe different weights (SHA-256)")
    config = ModelConfig.from_dict(read_json(folder / "config.json"))
    if (folder / "vocab.json").exists():
        ids = BPETokenizer.load(folder).vocab_size
        if ids != config.vocab_size:
            raise ValueError(f"{folder}: the tokenizer has {ids} ids, the "
                             f"model {config.vocab_size}")
    return config, plan


# ch08_inference/inference.ipynb [load-quantized]
def load_quantized(folder, device="cpu", dequantized=True):
    """Read what `save_quantized` wrote: a GPT in eval mode.

    dequantized=True: a plain one, weights in float32, for all that the book
    does with a model; False: as `quantize` gives it, to compute only.
    FileNotFoundError if a file is missing; ValueError if a shard is not the
    one that was saved, or does not fit config.json. Only safetensors and
    JSON are read. Built in chapter 8.
    """
    from safetensors.torch import load_file

    folder, state = Path(folder), {}
    config, plan = _whole_folder(folder)
    for name, digest in plan["sha256"].items():
        if sha256_file(folder / name) != digest:
            raise ValueError(f"{folder / name} is not the file that was saved "
                             "(its SHA-256 differs from quantization.json): "
                             "it is truncated or altered")
        state |= load_file(folder / name)
    if config.tie_embeddings:
        table = "token_embedding.table."
        state |= {f"head.{name.removeprefix(table)}": tensor
                  for name, tensor in state.items() if name.startswith(table)}
    with torch.device("meta"):
        small = quantize(GPT(config), plan["bits"], plan["group"])
    try:
        small.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{folder} does not fit its config.json: "
                         f"{error}") from None
    return (dequantize(small) if dequantized else small).to(device)


# ch08_inference/inference.ipynb [api-error]
class APIError(ValueError):
    """A fault to report to a client. Built in chapter 8.

    status: the HTTP status; kind: OpenAI's "type"; param: the field at fault;
    headers: of the reply.
    """

    def __init__(self, message, status=400, kind="invalid_request_error",
                 param=None, code=None, headers=None):
        super().__init__(message)
        self.status, self.headers = status, headers
        self.body = {"error": {
            "message": message, "type": kind, "param": param, "code": code}}


def _field(body, name, kinds, default):
    """body[name] if it is of these kinds, or an APIError."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kinds) or (
            isinstance(value, bool) and bool not in kinds):
        raise APIError(f"{name} has the wrong type: {type(value).__name__}",
                       param=name)
    return value


def _number(body, name):
    """body[name] if it is a number that is finite, or an APIError."""
    value = _field(body, name, (int, float), None)
    try:
        if value is None or math.isfinite(value):
            return value
    except OverflowError:                         # an int of 400 digits, say
        pass
    raise APIError(f"{name} must be a finite number", param=name)


# ch08_inference/inference.ipynb [parse-messages]
def _well_formed(text) -> str:
    """The text without lone surrogates, which no encoding can hold."""
    return text.encode("utf-8", "replace").decode()


def parse_messages(body) -> list[dict]:
    """The conversation of a request, contents as str, or an APIError.

    Built in chapter 8.
    """
    messages = _field(body, "messages", (list,), None)
    if not messages:
        raise APIError("messages must be a list with at least one message",
                       param="messages")
    found = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in ChatFormat.ROLES:
            raise APIError(f"{where} needs a role: one of "
                           f"{', '.join(ChatFormat.ROLES)}", param=where)
        content = message.get("content")
        if isinstance(content, list):                # parts, as some send it
            parts = [p.get("text") if isinstance(p, dict) else None
                     for p in content]
            if not all(isinstance(part, str) for part in parts):
                raise APIError(f"{where} has a part that is no text",
                               param=where)
            content = "".join(parts)
        if not isinstance(content, str) or not content.strip():
            raise APIError(f"{where} has no text", param=where)
        found.append({"role": role, "content": _well_formed(content)})
    return found


# ch08_inference/inference.ipynb [parse-prompt]
def parse_prompt(body) -> str:
    """The beginning of a text in a request, or an APIError.

    A str, or a list of one. Built in chapter 8.
    """
    prompt = _field(body, "prompt", (str, list), "")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise APIError("prompt must be one text: this server takes neither "
                       "several nor token ids", param="prompt")
    if not prompt.strip():
        raise APIError("prompt has no text", param="prompt")
    return _well_formed(prompt)


# ch08_inference/inference.ipynb [parse-params]
def _logit_bias(body, vocab_size) -> dict[int, float]:
    """The bias of a request, or an APIError."""
    asked = _field(body, "logit_bias", (dict,), {})
    try:
        bias = {int(i): float(b) for i, b in asked.items()}
    except (ValueError, TypeError, OverflowError):
        raise APIError("logit_bias must be {token id: number}",
                       param="logit_bias") from None
    if len(bias) > 300 or not all(
            0 <= i < vocab_size and abs(b) <= 1e9 for i, b in bias.items()):
        raise APIError(
            f"logit_bias must be at most 300 numbers from -1e9 to 1e9, for "
            f"ids below {vocab_size}", param="logit_bias")
    return bias


def _stop_texts(body) -> tuple[str, ...]:
    """The texts that shall end an answer, or an APIError."""
    stop = _field(body, "stop", (str, list), [])
    stop = [stop] if isinstance(stop, str) else stop
    if len(stop) > 4 or not all(
            isinstance(s, str) and 0 < len(s) <= 200 for s in stop):
        raise APIError("stop must be up to four texts, each of 1 to 200 "
                       "characters", param="stop")
    return tuple(stop)


# ch08_inference/inference.ipynb [parse-wishes]
def parse_params(body, vocab_size, longest=1024, usual=256) -> SamplingParams:
    """The SamplingParams of a request, or an APIError naming the field.

    vocab_size: ids a logit_bias may name; longest: tokens at most; usual:
    tokens where none are asked for. Built in chapter 8.
    """
    for name in ("tools", "functions", "logprobs", "suffix",
                 "presence_penalty", "frequency_penalty"):
        if body.get(name):
            raise APIError(f"this server has no {name}", param=name)
    if _field(body, "n", (int,), 1) != 1:
        raise APIError("n must be 1: one answer at a time", param="n")
    most = _field(body, "max_completion_tokens", (int,),
                  _field(body, "max_tokens", (int,), usual))
    if not 1 <= most <= longest:
        raise APIError(f"max_tokens must be from 1 to {longest}",
                       param="max_tokens")
    wishes = {name: _number(body, name) for name in (
        "temperature", "top_p", "min_p", "repetition_penalty")}
    if 0 < (wishes["temperature"] or 0) < 0.01:
        wishes["temperature"] = 0
    if 0 < (wishes["top_p"] or 0) < 1e-6:
        wishes["top_p"] = 1e-6
    if not 0.01 <= (wishes["repetition_penalty"] or 1) <= 100:
        raise APIError("repetition_penalty must be from 0.01 to 100",
                       param="repetition_penalty")
    wishes |= {name: _field(body, name, (int,), None)
               for name in ("top_k", "seed")}
    if not -2**63 <= (wishes["seed"] or 0) < 2**63:
        raise APIError("seed must fit into 64 bits", param="seed")
    wishes = {k: v for k, v in wishes.items() if v is not None}
    stop, bias = _stop_texts(body), _logit_bias(body, vocab_size)
    try:
        return SamplingParams(**wishes, stop=stop, logit_bias=bias,
                              max_new_tokens=most)
    except ValueError as error:
        raise APIError(str(error), param=str(error).split()[0]) from None


# ch08_inference/inference.ipynb [events-code]
def _busy(why, status=429) -> APIError:
    """The house is full: come back in a second."""
    return APIError(f"{why}: try again soon", status, "rate_limit_error",
                    code="busy", headers={"Retry-After": "1"})


async def answer_events(engine, asked, params, seconds=120, gone=None):
    """Pieces of an answer from a running Engine: (text, finish, request).

    asked: messages, or what else the engine's format reads; seconds: until
    the answer is cut; gone: a coroutine function that returns when the client
    has hung up. finish is None until the last, then the engine's, "timeout" or
    "gone". Whoever stops reading cancels the request. APIError if the prompt
    is too long (400) or the engine is busy (429). Built in chapter 8.
    """
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue()

    def on_text(piece, finish):
        with contextlib.suppress(RuntimeError):    # the loop may have ended
            loop.call_soon_threadsafe(pieces.put_nowait, (piece, finish))

    try:
        request = engine.submit(asked, params, on_text)
    except Busy as error:
        raise _busy(error) from None
    except ValueError as error:
        raise APIError(str(error), code="context_length_exceeded") from None

    def stop(why):
        engine.cancel(request)
        pieces.put_nowait(("", why))

    timer, said = loop.call_later(seconds, stop, "timeout"), False
    watch = asyncio.ensure_future(gone() if gone else loop.create_future())
    watch.add_done_callback(lambda w: w.cancelled() or stop("gone"))
    try:
        while True:
            piece, finish = await pieces.get()
            said = said or bool(piece)
            if finish == "timeout" and not said:
                raise _busy(f"no answer within {seconds:g} seconds")
            yield piece, finish, request
            if finish:
                return
    finally:
        timer.cancel(), watch.cancel()
        if not request.finish:
            engine.cancel(request)


# ch08_inference/inference.ipynb [completion-shapes]
@dataclass
class Answer:
    """One answer in OpenAI's shape, whole or in pieces. Built in chapter 8.

    model: its name; number: of the answer; chat: False for a plain text;
    usage: whether a stream ends with the tokens used; prefix: of the text.
    """

    model: str
    number: int
    chat: bool = True
    usage: bool = False
    prefix: str = ""

    def __post_init__(self):
        self.created = int(time.time())

    def body(self, choices, piece=False, request=None) -> dict:
        """What goes out; the tokens of a request are counted where given."""
        kind = "chat.completion" if self.chat else "text_completion"
        kind += ".chunk" if piece and self.chat else ""
        body = {"id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.number}",
                "object": kind, "created": self.created, "model": self.model,
                "choices": choices}
        if request is not None:
            asked, said = len(request.ids), len(request.new)
            body["usage"] = {"prompt_tokens": asked, "completion_tokens": said,
                             "total_tokens": asked + said}
        elif self.usage:
            body["usage"] = None
        return body

    def whole(self, text, finish, request) -> dict:
        """The answer as one body."""
        content = ({"message": {"role": "assistant", "content": text.strip()}}
                   if self.chat else {"text": self.prefix + text})
        return self.body([{"index": 0, **content, "logprobs": None,
                           "finish_reason": finish}], request=request)

    def piece(self, text="", finish=None, **more) -> dict:
        """A piece of it; more: such as the role, which goes first."""
        if self.chat:
            delta = {**more, "content": text} if text or more else {}
        content = {"delta": delta} if self.chat else {"text": text}
        return self.body([{"index": 0, **content, "logprobs": None,
                           "finish_reason": finish}], piece=True)


# ch08_inference/inference.ipynb [app-helpers]
def _how_it_ended(finish) -> str:
    """The protocol's word; APIError if the answer was not finished."""
    if finish in ("error", "cancelled"):         # cancelled: it is closing
        raise APIError("the answer could not be finished",
                       500 if finish == "error" else 503, "server_error")
    return "stop" if finish == "stop" else "length"


async def as_events(answer, events, first):
    """Server-sent events for the pieces of one answer. Built in chapter 8."""
    def line(body):
        return f"data: {json.dumps(body)}\n\n"

    try:
        yield line(answer.piece(role="assistant") if answer.chat
                   else answer.piece(answer.prefix))
        piece, finish, request = first
        while True:
            if piece:
                yield line(answer.piece(piece))
            if finish:
                break
            piece, finish, _ = await anext(events)
        yield line(answer.piece(finish=_how_it_ended(finish)))
        if answer.usage:
            yield line(answer.body([], piece=True, request=request))
    except APIError as fault:                    # too late for a status
        yield line(fault.body)
    finally:
        await events.aclose()
    yield "data: [DONE]\n\n"


async def as_whole(answer, events, first) -> dict:
    """One answer as a dict for JSON. Built in chapter 8."""
    said, (piece, finish, request) = [first[0]], first
    try:
        while not finish:
            piece, finish, _ = await anext(events)
            said.append(piece)
    finally:
        await events.aclose()
    return answer.whole("".join(said), _how_it_ended(finish), request)


# ch08_inference/inference.ipynb [body-code]
@dataclass(frozen=True)
class Limits:
    """What a server grants to one request. Built in chapter 8.

    body_bytes; prompt_tokens (None: what the model's context holds);
    new_tokens; seconds, to send the body, and again for the answer.
    """

    body_bytes: int = 1_000_000
    prompt_tokens: int | None = None
    new_tokens: int = 1024
    seconds: float = 120.0


def _once(pairs) -> dict:
    """A JSON object of which no name stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_number(name):
    """For NaN and Infinity."""
    raise ValueError(f"{name} is no number")


# ch08_inference/inference.ipynb [body-read]
async def read_json_body(request, limits) -> dict:
    """The JSON object in an HTTP request, or an APIError. Built in chapter 8.

    limits: body_bytes and seconds of Limits.
    """
    from starlette.requests import ClientDisconnect

    data, largest = bytearray(), limits.body_bytes
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                data += part
                if len(data) > largest:
                    raise APIError(
                        f"the request is larger than {largest} bytes", 413)
        body = json.loads(data, object_pairs_hook=_once,
                          parse_constant=_no_number)
    except TimeoutError:
        raise APIError("the request did not come to its end", 408) from None
    except ClientDisconnect:
        raise APIError("the client hung up") from None
    except APIError:
        raise
    except (ValueError, RecursionError) as error:
        why = str(error) if str(error).endswith(("twice", "number")) else ""
        raise APIError("the request is not JSON" + (why and f": {why}")
                       ) from None
    if not isinstance(body, dict):
        raise APIError("the request must be a JSON object")
    return body


async def hung_up(request) -> None:
    """Returns when the client of a request has gone. Built in chapter 8."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


# ch08_inference/inference.ipynb [prompt-code]
class ChatOrText:
    """A format that reads messages by `chat`, and a str as a text.

    In the place of an Engine's `chat`. Built in chapter 8.
    """

    def __init__(self, chat):
        self.chat, self.tokenizer = chat, chat.tokenizer
        self.end, self.pad = chat.end, chat.pad

    def encode(self, asked, add_generation_prompt=False) -> list[int]:
        """The ids of a conversation, or of the beginning of a text."""
        if isinstance(asked, str):
            return [self.tokenizer.end_of_text, *self.tokenizer.encode(asked)]
        return self.chat.encode(asked, add_generation_prompt)


def check_length(asked, tokenizer, most) -> None:
    """APIError if messages or a text hold more than `most` tokens for sure.

    By the longest token's bytes; what passes is counted after. Built in
    chapter 8.
    """
    texts = [asked] if isinstance(asked, str) else [
        message["content"] for message in asked]
    size = sum(len(text.encode()) for text in texts)
    if size > most * max(map(len, tokenizer.token_bytes)):
        raise APIError(f"the prompt has {size} bytes, and the model's context "
                       f"is {most} tokens: shorten it",
                       code="context_length_exceeded")


# ch08_inference/inference.ipynb [metrics-code]
class Histogram:
    """How many values lie at or under each bound. Built in chapter 8."""

    def __init__(self, bounds):
        self.bounds, self.sum = tuple(bounds), 0.0
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def samples(self) -> dict:
        """{"_bucket{le=…}": count so far, …, "_sum": …, "_count": …}."""
        sums = list(itertools.accumulate(self.counts))
        return {f'_bucket{{le="{bound}"}}': n for bound, n in
                zip((*self.bounds, "+Inf"), sums)} | {
            "_sum": self.sum, "_count": sums[-1]}


def prometheus_text(families) -> str:
    """Prometheus's text format, version 0.0.4. Built in chapter 8.

    families: (name, kind, what it is, {what follows the name: number}).
    """
    return "".join(
        f"# HELP llm_{name} {about}.\n# TYPE llm_{name} {kind}\n"
        + "".join(f"llm_{name}{rest} {n}\n" for rest, n in samples.items())
        for name, kind, about, samples in families)


# ch08_inference/inference.ipynb [metrics-follow]
class ServerMetrics:
    """What a server has done and does, for Prometheus. Built in chapter 8.

    `follow` counts one answer's events, `count` what had none; `text` is
    what stands at /metrics.
    """

    BOUNDS = tuple(b * 10.0**e for e in range(-4, 2) for b in (1, 2, 5))

    def __init__(self, engine):
        self.engine = engine
        self.outcomes, self.read, self.written = collections.Counter(), 0, 0
        self.first, self.each = Histogram(self.BOUNDS), Histogram(self.BOUNDS)

    def count(self, outcome: str) -> None:
        """One more request that ended so."""
        self.outcomes[outcome] += 1

    async def follow(self, events):
        """The same events; once they end, they are counted."""
        began, first, outcome, request = time.perf_counter(), None, "gone", None
        try:
            async with contextlib.aclosing(events):
                async for piece, finish, request in events:
                    if piece and first is None:
                        first = time.perf_counter()
                        self.first.add(first - began)
                    outcome = finish or outcome
                    yield piece, finish, request
        except APIError:
            outcome = None                       # counted where it is told
            raise
        finally:
            if outcome:
                self.count(outcome)
            if request is not None:
                self.read += len(request.ids)
                self.written += len(request.new)
                if first and len(request.new) > 1:
                    self.each.add((time.perf_counter() - first)
                                  / (len(request.new) - 1))

    def text(self) -> str:
        """All numbers, a line each."""
        engine, counter, gauge = self.engine, "counter", "gauge"
        ended = {f'{{outcome="{k}"}}': n for k, n in self.outcomes.items()}
        return prometheus_text((
            ("requests_total", counter, "Requests by how they ended", ended),
            ("prompt_tokens_total", counter, "Tokens read", {"": self.read}),
            ("generation_tokens_total", counter, "Tokens written",
             {"": self.written}),
            ("requests_running", gauge, "Requests being answered",
             {"": len(engine.running)}),
            ("requests_waiting", gauge, "Requests in the queue",
             {"": len(engine.waiting)}),
            ("free_blocks", gauge, "Blocks of the cache that are free",
             {"": len(engine.pool.free)}),
            ("time_to_first_token_seconds", "histogram",
             "From the request to the first text", self.first.samples()),
            ("time_per_output_token_seconds", "histogram",
             "Between two tokens of an answer", self.each.samples())))


# ch08_inference/inference.ipynb [door-code]
def doorkeeper(key=None, hosts=()):
    """A function that refuses requests, for FastAPI's Depends.

    key: what must follow "Authorization: Bearer", if there is one; hosts: the
    names by which the server may be called, if not all, and where its own
    page may lie. Built in chapter 8.
    """
    from starlette.requests import Request

    def is_ours(place):                          # a name, perhaps with a port
        return re.sub(r":\d*$", "", place) in hosts

    async def check(request: Request):
        headers = request.headers
        named, origin = headers.get("host", ""), headers.get("origin")
        if hosts and not is_ours(named):
            raise APIError(f"this server is not called {named[:80]!r}", 403)
        page = (origin or "").partition("//")[2]
        if origin and page != named and not is_ours(page):
            raise APIError("pages of other sites may not ask here", 403)
        if key is None:
            return
        brought = headers.get("authorization", "").encode("latin-1", "replace")
        if not hmac.compare_digest(brought, f"Bearer {key}".encode()):
            raise APIError("this server asks for an API key, and this was not "
                           "the right one", 401, code="invalid_api_key",
                           headers={"WWW-Authenticate": "Bearer"})

    return check


# ch08_inference/inference.ipynb [faults-code]
def tell_faults(app, metrics) -> None:
    """Let a FastAPI app tell every fault in OpenAI's shape, and count it.

    Built in chapter 8.
    """
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    @app.exception_handler(APIError)
    async def known(request, fault):
        if fault.status < 500:                   # the others have been
            metrics.count("busy" if fault.status == 429 else "refused")
        return JSONResponse(fault.body, fault.status, fault.headers)

    @app.exception_handler(HTTPException)
    async def unknown_address(request, fault):
        return await known(request, APIError(
            f"{request.method} {request.url.path}: {fault.detail}",
            fault.status_code, headers=fault.headers))

    @app.exception_handler(Exception)
    async def unexpected(request, fault):
        metrics.count("error")
        return await known(request, APIError("the server made a mistake", 500,
                                             "server_error"))


# ch08_inference/inference.ipynb [answers-code]
def known_model(engine, name) -> str:
    """The name, if it is that of the engine's model; else an APIError.

    Built in chapter 8.
    """
    if name != engine.name:
        raise APIError(f"there is no model {name[:80]!r}: only {engine.name!r}",
                       404, param="model", code="model_not_found")
    return name


def parse_request(engine, body, chat, limits, number):
    """(what is asked, its Answer, SamplingParams, whether to stream).

    chat: whether it came to the chat's address; number: of the answer.
    APIError on any fault. Built in chapter 8.
    """
    name = known_model(engine, _field(body, "model", (str,), engine.name))
    asked = parse_messages(body) if chat else parse_prompt(body)
    params = parse_params(body, engine.tokenizer.vocab_size, limits.new_tokens,
                          min(256 if chat else 16, limits.new_tokens))
    most = min(engine.model.config.context_length,
               limits.prompt_tokens or math.inf)
    check_length(asked, engine.tokenizer, most)
    if limits.prompt_tokens and len(engine.chat.encode(asked, True)) > most:
        raise APIError(f"the prompt has more than {most} tokens",
                       code="context_length_exceeded")
    streamed = _field(body, "stream", (bool,), False)
    wishes = _field(body, "stream_options", (dict,), {})
    if wishes and not streamed:
        raise APIError("stream_options are for streams",
                       param="stream_options")
    usage = _field(wishes, "include_usage", (bool,), False)
    echo = not chat and _field(body, "echo", (bool,), False)
    answer = Answer(name, number, chat, usage, asked if echo else "")
    return asked, answer, params, streamed


# ch08_inference/inference.ipynb [answers-routes]
def add_answers(app, door, engine, limits, metrics) -> None:
    """The two addresses that answer: a chat and a text. Built in chapter 8.

    app: a FastAPI application; door: what is asked of every request first.
    """
    from fastapi import Request
    from fastapi.responses import StreamingResponse

    engine.chat = ChatOrText(engine.chat)
    numbers = itertools.count(1)

    async def respond(request, chat):
        body = await read_json_body(request, limits)
        asked, answer, params, streamed = parse_request(
            engine, body, chat, limits, next(numbers))
        events = metrics.follow(answer_events(
            engine, asked, params, limits.seconds, lambda: hung_up(request)))
        first = await anext(events)              # faults before any headers
        if not streamed:
            return await as_whole(answer, events, first)
        return StreamingResponse(
            as_events(answer, events, first), media_type="text/event-stream",
            headers={"Cache-Control": "no-cache"})

    @app.post("/v1/chat/completions", dependencies=door)
    async def chat(request: Request):
        return await respond(request, chat=True)

    @app.post("/v1/completions", dependencies=door)
    async def text(request: Request):
        return await respond(request, chat=False)


# ch08_inference/inference.ipynb [views-code]
PAGE_HEADERS = {
    "Content-Security-Policy":
        "default-src 'none'; style-src 'unsafe-inline'; script-src "
        "'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def add_views(app, door, engine, metrics, page=None) -> None:
    """The addresses that only look. Built in chapter 8.

    app, door: as in `add_answers`; page: a file to show at /.
    """
    from fastapi.responses import FileResponse, PlainTextResponse

    card = {"id": engine.name, "object": "model", "created": 0,
            "owned_by": "you"}

    @app.get("/v1/models", dependencies=door)
    async def models():
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{name:path}", dependencies=door)
    async def model(name: str):
        return card | {"id": known_model(engine, name)}

    @app.get("/health")
    async def health():
        return {"status": "ok", "running": len(engine.running),
                "waiting": len(engine.waiting),
                "free_blocks": len(engine.pool.free)}

    @app.get("/metrics", dependencies=door)
    async def figures():
        return PlainTextResponse(metrics.text(),
                                 media_type="text/plain; version=0.0.4")

    @app.get("/")
    async def home():
        if page is None:
            raise APIError("this server has no page", 404)
        return FileResponse(page, media_type="text/html", headers=PAGE_HEADERS)


# ch08_inference/inference.ipynb [app]
def create_app(engine, page=None, key=None, limits=None, hosts=()):
    """A FastAPI application that serves an Engine over HTTP.

    POST /v1/chat/completions and /v1/completions (with server-sent events if
    "stream"), GET /v1/models and /v1/models/{id}, /health, /metrics, and at /
    the file `page`. Faults come in OpenAI's shape. key, hosts: see
    `doorkeeper`; limits: Limits. Without a key it asks nobody who he is: bind
    it to 127.0.0.1. Built in chapter 8.
    """
    from fastapi import Depends, FastAPI

    @contextlib.asynccontextmanager
    async def life(app):
        engine.start()
        yield
        engine.close()

    app = FastAPI(title="The model of the book", lifespan=life, docs_url=None,
                  redoc_url=None, openapi_url=None)
    metrics = ServerMetrics(engine)
    tell_faults(app, metrics)
    door = [Depends(doorkeeper(key, hosts))]
    add_answers(app, door, engine, limits or Limits(), metrics)
    add_views(app, door, engine, metrics, page)
    return app


# ch08_inference/inference.ipynb [terminal-chat]
def chat_in_terminal(model, tokenizer, params=None, read=input,
                     write=print, chat=None) -> None:
    """Ask the model questions until an empty line or end of input.

    Each question stands for itself: the book's model was trained on single
    questions. read(prompt) and write(text, end, flush) can be replaced, and
    the format with `chat`, as in `stream`. Built in chapter 8.
    """
    params = params or SamplingParams(max_new_tokens=200)
    while True:
        try:
            asked = read("you   > ").strip()
        except (EOFError, KeyboardInterrupt):
            asked = ""
        if not asked:
            return
        write("model > ", end="", flush=True)
        try:
            for piece in stream(model, tokenizer,
                                [{"role": "user", "content": asked}], params,
                                chat):
                write(piece, end="", flush=True)
        except (ValueError, KeyboardInterrupt) as error:
            write(f"[{error}]", end="", flush=True)
        write("", end="\n", flush=True)


# ch08_inference/inference.ipynb [load-pretrained]
def load_pretrained(name="gpt2-124m", stage="dpo", device="cpu", folder=None):
    """A trained model that comes with the book: (GPT, BPETokenizer).

    stage: "base", "instruct" or "dpo"; folder: where base/, instruct/ and
    dpo/ lie, instead of models/<name>/. The GPT is plain and in eval mode,
    its weights float32. FileNotFoundError if the weights are not there;
    ValueError on another stage, and on weights that are altered or were not
    made on each other. Built in chapter 8.
    """
    stages = ["base", "instruct", "dpo"]
    if stage not in stages:
        raise ValueError(f"no stage {stage!r}: there are {', '.join(stages)}")
    if folder is None:
        folder = project_root() / "models" / name
    base = Path(folder) / "base"
    if not base.is_dir():
        raise FileNotFoundError(f"{base} is missing: this copy of the book "
                                f"has no weights of {name}")
    model, tokenizer = load_quantized(base), BPETokenizer.load(base)
    below = read_json(base / "training.json")["sha256"]
    for part in stages[1:stages.index(stage) + 1]:
        merge_lora(load_lora(model, Path(folder) / part, below))
        below = read_json(Path(folder) / part / "adapter.json")["sha256"]
    return model.requires_grad_(True).to(device).eval(), tokenizer


# ch08_inference/inference.ipynb [plain-text]
class PlainText:
    """The format of a model that only continues. Built in chapter 8.

    In the place of ChatFormat, for `stream`, `chat_in_terminal` and an
    Engine's `chat`: the messages' contents, one after the other, with a
    blank line between, behind the token that begins a document.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.end = self.pad = tokenizer.end_of_text

    def encode(self, messages, add_generation_prompt=False) -> list[int]:
        """The ids of the text so far, which the model goes on with."""
        text = "\n\n".join(message["content"] for message in messages)
        return [self.end, *self.tokenizer.encode(text)]


# ch08_inference/inference.ipynb [export-transformers]
def export_transformers(model, tokenizer, folder):
    """A chat model as a folder that transformers (and vLLM) can load.

    As `to_transformers`, with the chat template, and with <|end|> and
    <|endoftext|> as the ids that end an answer. Returns the folder. Built in
    chapter 8.
    """
    folder, chat = to_transformers(model, tokenizer, folder), ChatFormat(
        tokenizer)
    settings = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", {
        **settings, "eos_token": "<|end|>", "pad_token": "<|endoftext|>",
        "chat_template": chat.jinja})
    write_json(folder / "generation_config.json", {
        "bos_token_id": chat.pad, "pad_token_id": chat.pad,
        "eos_token_id": [chat.end, chat.pad], "do_sample": False})
    return folder


# ch08_inference/inference.ipynb [gguf-settings]
def gguf_settings(writer, config, tokenizer, layout) -> None:
    """Write the table of settings and the vocabulary of a GGUF file.

    writer: a gguf.GGUFWriter; layout: "gpt2", "llama" or "qwen3". Built in
    chapter 8.
    """
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_head)
    writer.add_vocab_size(config.vocab_size)
    if layout == "gpt2":
        writer.add_layer_norm_eps(config.norm_eps)
    else:
        writer.add_head_count_kv(config.n_kv_head)
        writer.add_key_length(config.d_head)
        writer.add_value_length(config.d_head)
        writer.add_rope_dimension_count(config.d_head)
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_layer_norm_rms_eps(config.norm_eps)
    whole = json.loads(tokenizer_json(tokenizer))
    special = tokenizer.special_tokens
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*whole["model"]["vocab"], *special])
    writer.add_token_types([1] * len(tokenizer.vocab) + [3] * len(special))
    writer.add_token_merges([" ".join(m) for m in whole["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.end_of_text)
    writer.add_eos_token_id(special.get("<|end|>", tokenizer.end_of_text))
    writer.add_add_bos_token(False)
    if "<|end|>" in special:
        writer.add_chat_template(ChatFormat(tokenizer).jinja)


# ch08_inference/inference.ipynb [q8-code]
def q8_0(weight) -> np.ndarray:
    """A matrix (N, K) in GGUF's format Q8_0: uint8 (N, 34 K / 32).

    Blocks of 32 numbers: a scale in float16, then 32 int8. ValueError if the
    rows do not fall into blocks. Source: llama.cpp, block_q8_0. Built in
    chapter 8.
    """
    w = np.asarray(weight, dtype=np.float32)
    if w.shape[-1] % 32:
        raise ValueError(f"rows of {w.shape[-1]} do not fall into blocks of 32")
    blocks = w.reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore"):
        per = np.where(scale == 0, 0, 1 / scale)
    steps = blocks * per
    low = np.floor(np.abs(steps))
    away = low + np.floor(2 * (np.abs(steps) - low))          # half: up
    steps = (np.sign(steps) * away).astype(np.int8)
    rows = np.hstack((scale.astype(np.float16).view(np.uint8),
                      steps.view(np.uint8)))
    return rows.reshape(*w.shape[:-1], -1)


# ch08_inference/inference.ipynb [gguf-export]
def export_gguf(model, tokenizer, path, quantized=None):
    """One GGUF file for llama.cpp. Returns its Path.

    quantized: None for float32, or "Q8_0" for matrices in 8 bits (rows that
    do not fall into blocks of 32, norms, biases and learned positions stay).

    ValueError if llama.cpp has no architecture that computes this model, or
    no pattern that cuts as this tokenizer does. Built in chapter 8.
    """
    import gguf
    from safetensors.torch import load_file

    if quantized not in (None, "Q8_0"):
        raise ValueError(f'quantized must be None or "Q8_0": {quantized!r}')
    digit = [t[-1:].isdigit() and u[:1].isdigit() for t, u in tokenizer.merges]
    if tokenizer.pattern != GPT2_PATTERN and (
            tokenizer.pattern != DIGIT_PATTERN or any(digit)):
        raise ValueError("llama.cpp has no pattern that cuts text as this "
                         "tokenizer does: train with one of the book's two")
    path, config = Path(path), model.config
    with tempfile.TemporaryDirectory() as folder:
        to_transformers(model, tokenizer, folder)
        layout = read_json(Path(folder) / "config.json")["model_type"]
        state = load_file(Path(folder) / "model.safetensors")
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[layout], config.n_layer)
    with atomic_file(path) as part:
        writer = gguf.GGUFWriter(part, layout)
        gguf_settings(writer, config, tokenizer, layout)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quantized
                             else gguf.LlamaFileType.ALL_F32)
        for name, tensor in state.items():
            if layout == "gpt2" and ".h." in name and tensor.ndim == 2:
                tensor = tensor.T                   # theirs is (in, out)
            if layout == "llama" and name.endswith(("q_proj.weight",
                                                    "k_proj.weight")):
                tensor = tensor.view(-1, 2, config.d_head // 2,
                                     config.d_model).transpose(1, 2)
                tensor = tensor.reshape(-1, config.d_model)
            their = names.get_name(name, try_suffixes=(".weight", ".bias"))
            tensor, kind = tensor.float().contiguous().numpy(), None
            if (quantized and tensor.ndim == 2 and tensor.shape[1] % 32 == 0
                    and not their.startswith("position_embd")):
                tensor, kind = q8_0(tensor), gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(their, tensor, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


# ch08_inference/inference.ipynb [report-code]
def has_tiles() -> bool:
    """Whether the processor multiplies whole tiles of bfloat16 (AMX).

    False where PyTorch is too old to say. Built in chapter 8.
    """
    able = getattr(torch.cpu, "get_capabilities", dict)()
    return able.get("amx_bf16", False)


def report_card(folder=None) -> dict:
    """Put the figures of all chapters into artifacts/<preset>/report.json.

    folder: the artifacts of a run (default: this one's). Reads
    measured/*.json; seconds and peak memory come from measured/run.json,
    which `make book` writes. Returns the card, a dict. FileNotFoundError
    names the chapter whose figures are missing (3 and 4 may be). Built in
    chapter 8.
    """
    import importlib.metadata
    import platform

    folder = Path(folder or artifact())
    card = {"preset": folder.name, "seconds": None, "peak_memory_bytes": None}
    run = folder / "measured" / "run.json"
    if run.exists():
        took = read_json(run)
        card |= {k: took.get(k) for k in ("seconds", "peak_memory_bytes")}
    card["hardware"] = {
        "machine": platform.machine(), "system": platform.system(),
        "cores": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "tiles": has_tiles(),
        "products_in": str(fast_dtype("cpu")).removeprefix("torch."),
        "accelerator": torch.cuda.get_device_name(0)
        if torch.cuda.is_available() else "none"}
    card["versions"] = {"python": platform.python_version()} | {
        name: importlib.metadata.version(name)
        for name in ("torch", "numpy", "transformers", "tokenizers")}
    for chapter in ("ch01", "ch02", "ch03", "ch04", "ch05", "ch06", "ch07",
                    "ch08"):
        measures = folder / "measured" / f"{chapter}.json"
        if not measures.exists() and chapter not in ("ch03", "ch04"):
            raise FileNotFoundError(
                f"{measures} is missing: run `make {chapter}` first")
        card |= read_json(measures) if measures.exists() else {}
    write_json(folder / "report.json", card)
    return card


# ch08_inference/inference.ipynb [report-lines]
REPORT_LINES = (
    ("The run", (
        ("minutes", "run.minutes", "<=", 25),
        ("memory, GB", "run.gigabytes", "<=", 8))),
    ("Data", (
        ("main text from pages, F1", "data.extract_f1", ">=", 0.97),
        ("near-duplicates found", "data.duplicates_recall", ">=", 0.95),
        ("… of them true", "data.duplicates_precision", ">=", 0.95))),
    ("Tokenizer", (
        ("vocabulary", "tokenizer.vocab_size", None, None),
        ("bytes per token", "tokenizer.bytes_per_token", None, None))),
    ("Base model", (
        ("parameters", "base.parameters", None, None),
        ("loss, nats per token", "base.loss_nats", None, None),
        ("the text's own floor", "base.floor_nats", None, None),
        ("above the floor", "base.gap_nats", "<=", 0.15),
        ("facts known", "base.facts", ">=", 0.95))),
    ("Classifier", (
        ("accuracy", "classify.accuracy", ">", "classify.bag_of_words"),
        ("bag of words", "classify.bag_of_words", None, None),
        ("… and of their pairs", "classify.pairs_of_words", None, None))),
    ("Instructions", (
        ("exact answers", "instruct.exact", ">=", 0.80),
        ("the weakest kind", "instruct.weakest", ">=", 0.50),
        ("kinds below a simple rule", "instruct.below_rule", "<=", 0),
        ("answers that end", "instruct.stopped", ">=", 0.95),
        ("about held-out characters", "instruct.held_out_characters", None,
         None),
        ("harmful requests declined", "instruct.refusals", ">=", 0.95),
        ("harmless ones declined", "instruct.over_refusals", "<=", 0.05))),
    ("Preferences", (
        ("prefers the chosen, before", "dpo.preference_accuracy_before", None,
         None),
        ("… after", "dpo.prefers_after", None, None),
        ("the chosen gained more", "dpo.preference_accuracy", ">=", 0.90),
        ("score before", "dpo.score_before", None, None),
        ("score", "dpo.score_after", ">", "dpo.score_least"),
        ("exact answers before", "dpo.exact_before", None, None),
        ("exact answers", "dpo.exact_after", ">=", "dpo.exact_least"),
        ("harmful requests declined", "dpo.refusals", ">=", 0.95),
        ("harmless ones declined", "dpo.over_refusals", "<=", 0.05))),
    ("Own attempts", (
        ("score", "dpo.grpo_score", None, None),
        ("exact answers", "grpo.exact", None, None),
        ("harmful requests declined", "grpo.refusals", None, None),
        ("harmless ones declined", "grpo.over_refusals", None, None))),
    ("Inference", (
        ("tokens a second", "inference.tokens_per_second", None, None),
        ("… without a cache", "inference.tokens_per_second_no_cache", None,
         None),
        ("… many at a time", "inference.tokens_per_second_batched", None,
         None),
        ("same tokens", "inference.cache_equals_no_cache", ">=", True),
        ("megabytes", "inference.megabytes", None, None),
        ("… in 8 bits", "inference.megabytes_8_bits", None, None),
        ("8 bits cost, nats per token", "inference.loss_8_bits", None,
         None))),
)


# ch08_inference/inference.ipynb [report-rows-code]
_NEWER_FIGURES = ("dpo.prefers_after",)  # older runs have not measured them


def _derived(card) -> dict:
    """Figures that follow from those of the card, where it has them."""
    formulas = {
        "run.minutes": lambda c: c["seconds"] / 60,
        "run.gigabytes": lambda c: c["peak_memory_bytes"] / 1e9,
        "base.gap_nats": lambda c: c["base.loss_nats"] - c["base.floor_nats"],
        "instruct.weakest": lambda c: min(c["instruct.by_kind"].values()),
        "instruct.below_rule": lambda c: sum(
            c["instruct.by_kind"][kind] < rule
            for kind, rule in c["instruct.baseline_by_kind"].items()),
        "dpo.score_least":
            lambda c: c["dpo.score_before"] + c["dpo.score_interval"],
        "dpo.exact_least": lambda c: c["dpo.exact_before"] - 0.02,
        "inference.megabytes": lambda c: c["inference.bytes"] / 1e6,
        "inference.megabytes_8_bits":
            lambda c: c["inference.bytes_8_bits"] / 1e6,
    }
    found = {}
    for key, formula in formulas.items():
        with contextlib.suppress(KeyError, TypeError):  # not measured
            found[key] = formula(card)
    return found


def report_rows(card) -> list[tuple]:
    """Rows (part, label, value, sign, bar, reached) of a report card.

    sign and bar are None where nothing was asked; reached is then None too.
    A figure that is missing has the value None; one that older runs have
    not measured is left out. Built in chapter 8.
    """
    card, rows = {**card, **_derived(card)}, []
    tests = {">=": lambda v, b: v >= b, "<=": lambda v, b: v <= b,
             ">": lambda v, b: v > b}
    for part, lines in REPORT_LINES:
        for label, key, sign, bar in lines:
            value = card.get(key)
            if value is None and key in _NEWER_FIGURES:
                continue
            bar = card.get(bar) if isinstance(bar, str) else bar
            known = sign and value is not None and bar is not None
            reached = bool(tests[sign](value, bar)) if known else None
            rows.append((part, label, value, sign, bar, reached))
    return rows


# ch08_inference/inference.ipynb [wilson-code]
def _draws(card) -> dict[tuple[str, str], int]:
    """{(part, label): n} of the card's shares whose n it knows."""
    return {(part, label): card[f"{key}_of"]
            for part, lines in REPORT_LINES for label, key, _, _ in lines
            if card.get(key) is not None and card.get(f"{key}_of")}


def report_intervals(card) -> dict[tuple[str, str], tuple[float, float]]:
    """{(part, label): (low, high)} of the card's rows that are shares.

    For those whose number of draws the card knows. Built in chapter 8.
    """
    draws = _draws(card)
    return {
        (part, label): wilson_interval(card[key], draws[part, label])
        for part, lines in REPORT_LINES for label, key, _, _ in lines
        if (part, label) in draws}


# ch08_inference/inference.ipynb [report-print]
def report_number(value) -> str:
    """A figure of the card as people write it. Built in chapter 8."""
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.3f}"


def report_aim(sign, bar) -> str:
    """What a row asks of its figure, or nothing. Built in chapter 8."""
    if not sign:
        return ""
    aim = report_number(bar)
    sign = {">=": "≥", "<=": "≤"}.get(sign, sign)
    return aim if isinstance(bar, bool) else f"{sign} {aim}"


def print_report(path=None) -> None:
    """Print a report card with its bars; what was missed is marked.

    path: a report.json (default: this run's). Built in chapter 8.
    """
    card = read_json(path or artifact("report.json", made_by="ch08"))
    seconds, memory = card.get("seconds"), card.get("peak_memory_bytes")
    print(f"report card, preset {card['preset']}"
          + (f", {seconds / 60:.1f} minutes" if seconds else "")
          + (f", {memory / 1e9:.1f} GB at most" if memory else ""))
    before, sure, draws = None, report_intervals(card), _draws(card)
    for part, label, value, sign, bar, reached in report_rows(card):
        wanted = report_aim(sign, bar)
        mark = {True: "", False: "MISSED", None: ""}[reached]
        shown = part if part != before else ""
        low, high = sure.get((part, label), (None, None))
        bounds = "" if low is None else f"{low:.3f}–{high:.3f}"
        n = draws.get((part, label))
        print(f"{shown:13}{label:28}{report_number(value):>9}"
              f"{f'of {n:,}' if n else '':>10}  {bounds:13}{wanted:9}{mark}"
              .rstrip())
        before = part


# ch03_attention/lab_learning.ipynb [value]
class Value:
    """A tensor that knows what it was made from, and how to hand on slopes.

    data: a tensor of any shape. makers: pairs of a Value and a rule, which
    turns the slope of a loss for this value into that for the maker. After
    `loss.backward()` each `grad` holds the slope of the loss, of the shape
    of `data`; like PyTorch's it is added to what was there before. Source:
    Linnainmaa 1976. Built in the lab on learning.
    """

    def __init__(self, data, *makers):
        self.data, self.makers, self.grad = data, makers, None

    def __add__(self, other):
        return Value(self.data + other.data, (self, lambda g: g),
                     (other, lambda g: g))

    def __mul__(self, other):
        return Value(self.data * other.data, (self, lambda g: g * other.data),
                     (other, lambda g: g * self.data))

    def __matmul__(self, other):
        return Value(self.data @ other.data, (self, lambda g: g @ other.data.T),
                     (other, lambda g: self.data.T @ g))

    def tanh(self):
        y = self.data.tanh()
        return Value(y, (self, lambda g: g * (1 - y * y)))

    def order(self):
        """This value and all that it was made from, each before its makers."""
        seen, order = set(), []

        def visit(value):
            if value not in seen:
                seen.add(value)
                for maker, _ in value.makers:
                    visit(maker)
                order.append(value)

        visit(self)
        return order[::-1]

    def backward(self):
        """Add the slopes of this value to the `grad` of all its makers."""
        slopes = {self: torch.ones_like(self.data)}
        for value in self.order():
            g = slopes.pop(value)
            value.grad = g if value.grad is None else value.grad + g
            for maker, rule in value.makers:
                share = rule(g).sum_to_size(maker.data.shape)
                slopes[maker] = slopes.get(maker, 0) + share


# ch03_attention/lab_learning.ipynb [look-up]
def look_up(table: Value, ids: torch.Tensor) -> Value:
    """Rows of a table (V, C) for ids (B, n), end to end: (B, n·C).

    Built in the lab on learning.
    """
    def rule(g):
        slope = torch.zeros_like(table.data)
        return slope.index_add(0, ids.flatten(), g.reshape(-1, slope.shape[1]))

    return Value(table.data[ids].flatten(1), (table, rule))


# ch03_attention/lab_learning.ipynb [nats]
def letter_loss(scores: Value, targets: torch.Tensor) -> Value:
    """Mean cross-entropy in nats of scores (B, V) against ids (B,): a scalar.

    Built in the lab on learning.
    """
    log_p = scores.data.log_softmax(-1)  # (B, V)
    row = torch.arange(len(targets))

    def rule(g):
        slope = log_p.exp()
        slope[row, targets] -= 1  # what was expected, less what came
        return g * slope / len(targets)

    return Value(-log_p[row, targets].mean(), (scores, rule))


# ch04_model/lab_experts.ipynb [mixture]
class MixtureOfExperts(nn.Module):
    """n_expert feed-forward layers, of which each position uses n_active.

    d_ff: width of one expert. sum_to_one: the shares of those chosen are
    brought to the sum 1. lean_rate: by how much `lean`, which is added to
    the shares when experts are chosen, moves at a step of training, up for
    those with too little work and down for those with too much. activation,
    bias: of the experts. After a call, `chosen` (N, k) are the experts of
    each position and `balance` is the loss of Fedus et al. 2022, equation 4;
    `loads`: each expert's share of the work, at every step of training.
    Sources: Shazeer et al. 2017; Jiang et al. 2024, section 2.1. Built in
    the lab on experts.
    """

    def __init__(self, d_model, d_ff, n_expert, n_active, sum_to_one=True,
                 lean_rate=0.0, activation="swiglu", bias=False):
        super().__init__()
        self.n_expert, self.n_active = n_expert, n_active
        self.sum_to_one, self.lean_rate = sum_to_one, lean_rate
        self.router = nn.Linear(d_model, n_expert, bias=False)
        self.experts = nn.ModuleList(
            FeedForward(d_model, d_ff, activation, bias)
            for _ in range(n_expert))
        self.register_buffer("lean", torch.zeros(n_expert))
        self.loads = []

    def forward(self, x):
        """x (B, T, C) to (B, T, C)."""
        rows = x.flatten(0, -2)  # (N, C)
        with torch.autocast(x.device.type, enabled=False):  # in float32
            router = self.router.weight.float()
            shares = F.linear(rows.float(), router).softmax(-1)  # (N, E)
        chosen = (shares + self.lean).topk(self.n_active).indices  # (N, k)
        weights = shares.gather(1, chosen)  # (N, k)
        if self.sum_to_one:
            weights = weights / weights.sum(1, keepdim=True)
        out = torch.zeros(rows.shape, device=x.device)
        for e, expert in enumerate(self.experts):
            # the rows that chose e, and whether first, second, …
            row, rank = (chosen == e).nonzero(as_tuple=True)
            said = expert(rows[row]) * weights[row, rank, None]
            out = out.index_add(0, row, said)
        self.look(shares, chosen)
        return out.to(x.dtype).view_as(x)

    def look(self, shares, chosen):
        """Keep who was chosen, and what the balance is."""
        load = torch.bincount(chosen.flatten(), minlength=self.n_expert)
        load = load / chosen.numel()  # (E,)
        self.chosen = chosen
        self.balance = self.n_expert * (load * shares.mean(0)).sum()
        if self.training:
            self.loads.append(load)
            self.lean += self.lean_rate * torch.sign(1 / self.n_expert - load)


# ch04_model/lab_experts.ipynb [gpt]
class SparseGPT(GPT):
    """A GPT whose feed-forward layers are mixtures of experts.

    price: of the mean `balance` of the blocks, in nats, in training.
    mixture: what else MixtureOfExperts takes. With `checkpointing` each
    block, and so its load and lean, is counted twice a step. Built in the
    lab on experts.
    """

    def __init__(self, config, generator=None, price=0.0, **mixture):
        super().__init__(config)
        self.price = price
        for block in self.blocks:
            block.feed_forward = MixtureOfExperts(
                config.d_model, activation=config.activation,
                bias=config.bias, **mixture)
        initialise(self, generator)

    def forward(self, ids, targets=None, **more):
        logits, loss = super().forward(ids, targets, **more)
        mixtures = [block.feed_forward for block in self.blocks]
        if self.training and loss is not None and self.price:
            balance = torch.stack([each.balance for each in mixtures])
            loss = loss + self.price * balance.mean()
        for each in mixtures:  # nothing is to hold on to this step
            each.balance = each.balance.detach()
        return logits, loss


# ch05_pretrain/lab_ablations.ipynb [abl-fold]
@torch.no_grad()
def fold_mup(model):
    """A GPT without µP that computes what the GPT `model` computes.

    The factor before the head goes into the gain of the last norm, so a
    trained model can be written for any program that knows nothing of µP.
    Built in the lab on ablations.
    """
    plain = GPT(replace(model.config, mup_base_width=None))
    plain.load_state_dict(model.state_dict())
    for p in plain.norm.parameters():
        p *= model.config.mup_scale
    return plain.to(next(model.parameters()).device).train(model.training)


# ch05_pretrain/lab_ablations.ipynb [abl-coordinates]
def coordinate_check(config, rate=2**-6, steps=4, seed=0):
    """How far a few steps of AdamW move what a model computes.

    Returns {"stream": ..., "logits": ...}: after each of `steps` steps the
    root mean square of the change since the start, in the stream before
    the last norm and in the logits, on the batch that is learnt. Under µP
    neither depends on config.d_model, and without it both grow.
    Source: Yang et al. 2022, appendix D.1. Built in the lab on ablations.
    """
    draw = torch.Generator().manual_seed(seed)
    model = GPT(config, draw)
    ids = torch.randint(config.vocab_size, (4, 33), generator=draw)
    how = TrainConfig(optimizer="adamw", learning_rate=rate, weight_decay=0.0,
                      warmup_steps=0, schedule="constant",
                      precision="float32")
    optimizers, seen = make_optimizers(model, how), []
    hook = model.norm.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].detach()))
    logits = []
    for step in range(steps + 1):
        with torch.no_grad():
            logits.append(model(ids[:, :-1])[0])
        if step < steps:
            batch_loss(model, ids[:, :-1], ids[:, 1:], how)
            optimizer_step(model, optimizers, step, how)
    hook.remove()
    change = lambda z: [(b - z[0]).square().mean().sqrt().item()  # noqa: E731
                        for b in z[1:]]
    return {"stream": change(seen[::2]), "logits": change(logits)}


# ch05_pretrain/lab_evaluation.ipynb [ev-pair]
def encode_pair(encode, context, continuation, prefix):
    """Ids of a context and of what follows it, cut where the harness cuts.

    encode: text to ids; prefix: the id that stands for an empty context.
    Both texts are encoded as one and cut where the ids of the context
    alone would end; spaces at the context's end go with what follows.
    Raises ValueError if one side is left without an id. Source: TemplateLM
    of lm-evaluation-harness. Built in the lab on evaluation.
    """
    whole = encode(context + continuation)
    if context == "":
        cut = whole[:1] == [prefix]
        first, rest = whole[:1] if cut else [prefix], whole[cut:]
    else:
        first = encode(context.rstrip())
        rest = whole[len(first):]
    if not first or not rest:
        raise ValueError(
            f"the context …{context[-40:]!r} or its continuation "
            f"{continuation[:40]!r} has no token of its own: give both some "
            "text, and break them between words")
    return first, rest


# ch05_pretrain/lab_evaluation.ipynb [ev-windows]
def rolling_windows(ids, prefix, length):
    """(context, continuation) pairs that score each of the ids once.

    Each is as long as a model of `length` tokens can read. The first
    begins after `prefix`, one in the middle has one id before it, and the
    last as many as fit. Built in the lab on evaluation.
    """
    ids, windows = [prefix, *ids], []
    for start in range(1, len(ids), length):
        end = min(start + length, len(ids))
        windows.append((ids[max(0, end - length - 1):start], ids[start:end]))
    return windows


# ch05_pretrain/lab_evaluation.ipynb [ev-lm]
def harness_lm(model, tokenizer, seed=0):
    """Our GPT as a model of lm-evaluation-harness (a subclass of its LM).

    Give it to `lm_eval.simple_evaluate(model=…)`, or to `run_tasks`. The
    answers are those of the harness's own HFLM over the folder that
    `to_transformers` writes; where HFLM stops at an assertion, a ValueError
    says why. seed: for tasks that ask for a temperature. Raises ValueError
    if tokenizer and model do not belong together. Built in the lab on
    evaluation.
    """
    from lm_eval.api.model import LM

    config, end = model.config, tokenizer.end_of_text
    if tokenizer.vocab_size != config.vocab_size or end is None:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} ids and the model "
            f"{config.vocab_size}: they must be of one size, with an "
            "<|endoftext|>")
    tiktoken, length = tokenizer.to_tiktoken(), config.context_length

    def encode(text):
        return tiktoken.encode(text, allowed_special="all")

    class HarnessLM(LM):
        """The three questions a benchmark may ask."""

        def loglikelihood(self, requests):
            return continuation_logprobs(model, [
                encode_pair(encode, *r.args, end) for r in requests])

        def loglikelihood_rolling(self, requests):
            parts = [rolling_windows(encode(r.args[0]), end, length)
                     for r in requests]
            scores = iter(continuation_logprobs(model, sum(parts, [])))
            return [sum(next(scores)[0] for _ in part) for part in parts]

        def generate_until(self, requests):
            prompts = [encode(r.args[0]) or [end] for r in requests]
            wanted = [r.args[1] for r in requests]
            return _harness_answers(model, tokenizer, prompts, wanted, seed)

    return HarnessLM()


# ch05_pretrain/lab_evaluation.ipynb [ev-options]
def _generation_options(wanted):
    """(stop texts, new tokens, options of `sample`) of a task's kwargs."""
    wanted = dict(wanted)
    until = wanted.pop("until", None) or []
    names = ("max_gen_toks", "max_new_tokens", "max_tokens",
             "max_completion_tokens")  # the first that is there counts
    counts = [wanted.pop(name, None) for name in names]
    count = next((n for n in counts if n is not None), 256)
    sampling = {name: wanted.pop(name) for name in
                ("temperature", "top_k", "top_p") if name in wanted}
    sampling["temperature"] = float(sampling.get("temperature", 0.0))
    if wanted.pop("do_sample", None) is False:
        sampling["temperature"] = 0.0
    if wanted:
        raise ValueError(f"unknown options for a generation: {sorted(wanted)}")
    return [until] if isinstance(until, str) else until, int(count), sampling


# ch05_pretrain/lab_evaluation.ipynb [ev-generate]
def _harness_answers(model, tokenizer, prompts, options, seed):
    """What the model says after each prompt, with each one's options."""
    groups, found = {}, [None] * len(prompts)
    for i, wanted in enumerate(options):
        groups.setdefault(json.dumps(wanted, sort_keys=True), []).append(i)
    special = set(tokenizer.special_tokens.values())
    device = next(model.parameters()).device
    for wanted, some in groups.items():
        until, count, sampling = _generation_options(json.loads(wanted))
        room = model.config.context_length - count
        if room < 1:
            raise ValueError(
                f"{count} new tokens leave no room for a prompt in a context "
                f"of {model.config.context_length}: set max_gen_toks lower")
        draw = torch.Generator(device).manual_seed(seed)
        said = generate_batch(model, [prompts[i][-room:] for i in some], count,
                              (tokenizer.end_of_text,), generator=draw,
                              **sampling)
        for i, ids in zip(some, said):
            text = tokenizer.decode([t for t in ids if t not in special])
            found[i] = min((text.split(s)[0] for s in until if s), key=len,
                           default=text)
    return found


# ch05_pretrain/lab_evaluation.ipynb [ev-tasks]
def local_task(name, rows, description=""):
    """A task of lm-evaluation-harness from rows at hand; fetches nothing.

    rows: dicts with context, choices (a list of str) and gold (the index
    of the right one), scored by acc and acc_norm; or with context and
    continuation, by acc and perplexity. A space is put between context and
    what follows. description: a text before each context. Raises
    ValueError without rows. Built in the lab on evaluation.
    """
    if not rows:
        raise ValueError(f"the task {name} has no rows")
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    config = {"task": name, "test_split": "test", "doc_to_text": "context",
              "custom_dataset": lambda: {"test": Dataset.from_list(rows)},
              "description": description}
    if "choices" in rows[0]:
        config |= {"output_type": "multiple_choice",
                   "doc_to_choice": "choices", "doc_to_target": "gold"}
    else:
        config |= {"output_type": "loglikelihood",
                   "doc_to_target": lambda row: " " + row["continuation"]}
    return ConfigurableTask(config=config)


# ch05_pretrain/lab_evaluation.ipynb [ev-run]
def run_tasks(lm, tasks):
    """Ask a model of the harness the given tasks: {task: {metric: value}}.

    Beside acc, acc_norm or perplexity each has n, the number of examples,
    and samples: {metric: array (n,)}, in the order of the rows. Built in
    the lab on evaluation.
    """
    from lm_eval.evaluator import evaluate as ask

    by_name = {task.config.task: task for task in tasks}
    answers, found = ask(lm, by_name, bootstrap_iters=0), {}
    for name, rows in answers["samples"].items():
        rows = sorted(rows, key=lambda row: row["doc_id"])
        values = {key.partition(",")[0]: value
                  for key, value in answers["results"][name].items()
                  if isinstance(value, float)}
        found[name] = {**values, "n": len(rows), "samples": {
            m: np.array([row[m] for row in rows]) for m in rows[0]["metrics"]}}
    return found


# ch05_pretrain/lab_evaluation.ipynb [ev-facts]
def fact_choices(ask=None, n_choices=4, seed=0, facts=None):
    """Pocket World's facts as multiple choice: rows for `local_task`.

    ask: a Fact to its context (default: the beginning of a sentence). The
    wrong choices are right for other subjects of the same relation, drawn
    by seed. Rows also hold `relation`. Built in the lab on evaluation.
    """
    from pocket_world.facts import FACTS, cloze

    draw, pools, rows = random.Random(seed), {}, []
    facts = FACTS if facts is None else facts
    for fact in FACTS:
        pools.setdefault(fact.relation, {})[fact.object] = None
    for fact in facts:
        others = [o for o in pools[fact.relation] if o != fact.object]
        choices = draw.sample(others, min(n_choices - 1, len(others)))
        gold = draw.randrange(len(choices) + 1)
        choices.insert(gold, fact.object)
        rows.append({"context": ask(fact) if ask else cloze(fact)[0],
                     "choices": choices, "gold": gold,
                     "relation": fact.relation})
    return rows


# ch05_pretrain/lab_evaluation.ipynb [ev-bench]
BENCHMARKS = {  # a file, and which of its fields are what
    "hellaswag": ("hellaswag_val.jsonl.xz", "ctx", "endings", "label"),
    "arc_easy": ("arc_easy.jsonl", "query", "choices", "gold"),
    "piqa": ("piqa.jsonl", "query", "choices", "gold"),
    "lambada_openai": ("lambada_openai.jsonl.xz", "context", "continuation"),
}


def benchmark_rows(name, folder, limit=None, seed=0):
    """Rows for `local_task` of a public benchmark, from a local file.

    name: a key of BENCHMARKS; folder: where its file lies; limit: so many,
    drawn by seed (default: all). Raises ValueError for another name, and
    FileNotFoundError. Built in the lab on evaluation.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"no benchmark {name!r}: {', '.join(BENCHMARKS)}")
    file, *fields = BENCHMARKS[name]
    path = Path(folder) / file
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {name} is read from it")
    opened = lzma.open if path.suffix == ".xz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if limit is not None and limit < len(rows):
        rows = random.Random(seed).sample(rows, limit)
    new = ("context", "choices", "gold")[:len(fields)]
    if name == "lambada_openai":
        new = ("context", "continuation")
    rows = [dict(zip(new, (row[f] for f in fields))) for row in rows]
    if fields[0] == "query":  # the words that ask for an answer
        for row in rows:
            row["context"] = row["context"].removesuffix("\n") + "\nAnswer:"
    return rows


# ch05_pretrain/lab_evaluation.ipynb [ev-cloze]
CLOZES = {  # kind: its genre, and lines whose (last) word is settled
    "a sum": ("sums", r"So [\d +-]+ = (\d+)\."),
    "a sorted list": ("lists", r"(?:: |So )(?:[a-zA-Z' ]+, )+([a-zA-Z' ]+)\.$"),
    "a verb's -ing form": ("verb_table", r"^\w+, \w+, \w+, (\w+)"),
    "a sentence changed": ("grammar", r" -> .* (\w+)\.$"),
    "a riddle": ("riddle", r"[?.] (?:Who [^?]*\?|Say my name\.) (\w+)\.$"),
    "a translation": ("dialect", r" = .* (\w+)\.$"),
}


def cloze_tasks(rows):
    """Places in texts of the valley where the next words can be known.

    rows: dicts with text and genre. Returns rows for `local_task`: context
    (the document up to there), continuation, kind (a key of CLOZES). What
    comes next follows from the text, or from it and the valley's facts and
    words; nothing is left to chance. Built in the lab on evaluation.
    """
    return [
        {"context": row["text"][:found.start(1) - 1],
         "continuation": found[1], "kind": kind}
        for kind, (genre, line) in CLOZES.items()
        for row in rows if row["genre"] == genre
        for found in re.finditer(line, row["text"], re.M)]


# ch05_pretrain/lab_memory.ipynb [meter]
class LiveMemory(TorchDispatchMode):
    """Counts the bytes of all tensors made inside it that are still alive.

    *known: models or tensors that were there before, and do not count.
    now, peak: bytes; course: `now` after each operation. Built in the lab
    on memory.
    """

    def __init__(self, *known):
        super().__init__()
        self.now = self.peak = 0
        self.course, self.alive = [], set()
        for one in known:
            for tensor in getattr(one, "parameters", lambda: [one])():
                self.alive.add(tensor.untyped_storage()._cdata)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            # a sparse tensor is counted by its parts
            if (isinstance(leaf, torch.Tensor)
                    and leaf.layout == torch.strided):
                self._born(leaf.untyped_storage())
        self.peak = max(self.peak, self.now)
        self.course.append(self.now)
        return out

    def _born(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.alive:
            self.alive.add(key)
            self.now += size
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key, size):
        self.alive.discard(key)
        self.now -= size


# ch05_pretrain/lab_parallelism.ipynb [check]
def _refusals(plan, shape, config, world):
    """Pairs (what would not work, the sentence that says so)."""
    tensor, stages = plan.tensor_parallel, plan.pipeline_parallel
    sizes = [f"{name.replace('_', '-')} {n}" for name, n in
             asdict(plan).items()]
    yield min(asdict(plan).values()) < 1, (
        f"{' × '.join(sizes)}: each must be at least 1")
    yield plan.world != world, (
        f"{' × '.join(sizes)} makes {plan.world} processes, and there are "
        f"{world}: give torchrun --nproc-per-node {plan.world}")
    for name in ("n_head", "n_kv_head", "d_ff", "context_length", "context"):
        n = getattr(shape, name, None) or config.context or tensor
        yield n % tensor, (f"{name} {n} does not divide among {tensor} "
                           "processes: choose another --tensor-parallel")
    yield tensor > 1 and shape.norm_position == "post", (
        "tensor parallelism is written for norms before the layers "
        "(norm_position 'pre')")
    yield stages > shape.n_layer, (
        f"{shape.n_layer} layers are too few for {stages} stages: choose a "
        "smaller --pipeline-parallel")
    yield shape.n_layer % stages, (
        f"{shape.n_layer} layers do not divide into {stages} equal stages: "
        "choose another --pipeline-parallel")
    yield stages > 1 and config.batch_size % (
        plan.shares * config.accumulation), (
        f"{config.batch_size} rows do not divide among {plan.shares} shares "
        f"× {config.accumulation} micro-batches: change --accumulation")
    yield shape.dropout > 0, (
        "a model in shards is trained without dropout (set it to 0): its "
        "processes would draw different masks")


# ch05_pretrain/lab_parallelism.ipynb [plan]
@dataclass
class Plan:
    """How one run is spread over processes, and who holds what.

    The product of the four is the number of processes. data_parallel:
    copies, each reading its own rows; fsdp: processes that share one copy's
    weights, gradients and optimiser states among them, and read their own
    rows too; tensor_parallel: processes that each compute some heads and
    some columns of every layer; pipeline_parallel: stages of whole layers.
    A plan is called with a model and a TrainConfig, on every process, and
    returns a `SpreadGPT`. Built in the lab on parallelism.
    """

    data_parallel: int = 1
    fsdp: int = 1
    tensor_parallel: int = 1
    pipeline_parallel: int = 1

    @property
    def world(self):
        """Processes in all."""
        return self.shares * self.tensor_parallel * self.pipeline_parallel

    @property
    def shares(self):
        """Among how many the rows of a batch are dealt out."""
        return self.data_parallel * self.fsdp

    def check(self, shape, config, world):
        """ValueError, in one sentence, if it does not fit what is there.

        shape: ModelConfig; config: TrainConfig; world: processes.
        """
        for bad, sentence in _refusals(self, shape, config, world):
            if bad:
                raise ValueError(sentence)

    def __call__(self, model, config):
        """The model, spread; every process has built the same one."""
        self.check(model.config, config, workers()[1])
        return SpreadGPT(model, self, config)


# ch05_pretrain/lab_parallelism.ipynb [mesh]
def _mesh(plan, device):
    """The processes as an array: pipeline × data × fsdp × tensor.

    Neighbours along the last axis talk most, and torchrun puts neighbours
    on one machine.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    if not dist.is_initialized():  # one process, which has nobody to join
        dist.init_process_group(store=dist.HashStore(), rank=0, world_size=1)
    return init_device_mesh(
        device.type, (plan.pipeline_parallel, plan.data_parallel, plan.fsdp,
                      plan.tensor_parallel),
        mesh_dim_names=("pipeline", "data", "fsdp", "tensor"))


# ch05_pretrain/lab_parallelism.ipynb [shard]
def shard(model, mesh):
    """FSDP2: every parameter cut along its rows over mesh axis "fsdp".

    Each layer is gathered before it is computed, forward and backward, and
    let go after it; gradients are summed over all processes and each keeps
    its rows. Over mesh axis "data" whole copies of that are kept equal.
    mesh: a DeviceMesh with these two axes. Source: Zhao et al. 2023. Built
    in the lab on parallelism.
    """
    from torch.distributed.fsdp import fully_shard

    warnings.filterwarnings("ignore", "FSDP2-wrapped module")  # of views
    for block in _blocks(model):
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def _blocks(model):
    blocks = model.blocks
    return list(blocks.values() if hasattr(blocks, "values") else blocks)


# ch05_pretrain/lab_parallelism.ipynb [tensor]
def _layer_plan(activation):
    """Which matrix of a layer is cut which way, for `parallelize_module`."""
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel, RowwiseParallel)

    first = [f"attention.{p}_proj" for p in "qkv"] + ["feed_forward.up_proj"]
    if activation == "swiglu":
        first.append("feed_forward.gate_proj")
    second = ["attention.o_proj", "feed_forward.down_proj"]
    return ({name: ColwiseParallel() for name in first}
            | {name: RowwiseParallel(output_layouts=Shard(1))
               for name in second})


# ch05_pretrain/lab_parallelism.ipynb [tensor-2]
def tensor_parallel(model, mesh):
    """Megatron's cut: heads and columns dealt out over a 1-D mesh.

    The first matrices of each layer are cut by output, the second ones by
    input; between layers the stream is cut along time, where the norms
    work (sequence parallelism). The tables are cut along the vocabulary.
    Sources: Shoeybi et al. 2019; Korthikanti et al. 2023. Built in the lab
    on parallelism.
    """
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel, PrepareModuleOutput, RowwiseParallel,
        SequenceParallel, parallelize_module)

    gather = PrepareModuleOutput(
        output_layouts=Shard(1), desired_output_layouts=Replicate(),
        use_local_output=False)  # so that q, k and v share one gradient
    for block in _blocks(model):
        parallelize_module(block, mesh, _layer_plan(model.config.activation))
        for name in ("attention_norm", "feed_forward_norm"):
            parallelize_module(block, mesh, {name: SequenceParallel()})
            parallelize_module(block, mesh, {name: gather})
    split = PrepareModuleOutput(output_layouts=Replicate(),
                                desired_output_layouts=Shard(1))
    ends = {"token_embedding": RowwiseParallel(input_layouts=Replicate()),
            "drop": split, "norm": SequenceParallel(),
            "head": ColwiseParallel(input_layouts=Shard(1),
                                    output_layouts=Shard(-1),
                                    use_local_output=False)}
    parallelize_module(model, mesh, {
        name: how for name, how in ends.items() if hasattr(model, name)})
    if model.config.tie_embeddings and hasattr(model, "head"):
        model.head.weight = model.token_embedding.weight
    return model


# ch05_pretrain/lab_parallelism.ipynb [stage]
class Stage(torch.nn.Module):
    """Some layers of a GPT, under the names they have in the whole.

    The first stage takes ids (B, T), the others the stream (B, T, C); the
    last gives logits. With tied tables the first and the last both keep
    the one table. Built in the lab on parallelism.
    """

    checkpointing = False  # as in a GPT

    def __init__(self, model, stage, stages, precision="float32"):
        super().__init__()
        self.config, self.precision = model.config, precision
        self.first, self.last = stage == 0, stage == stages - 1
        each = len(model.blocks) // stages
        self.blocks = torch.nn.ModuleDict({
            str(i): model.blocks[i]
            for i in range(stage * each, (stage + 1) * each)})
        tied = model.config.tie_embeddings and (self.first or self.last)
        if self.first or tied:
            self.token_embedding = model.token_embedding
        if self.last or tied:  # so that both ends know it as a head
            self.head = model.head
        if self.first:
            self.position_embedding = model.position_embedding
            self.drop = model.drop
        if self.last:
            self.norm = model.norm

    def forward(self, x):
        """ids (B, T) or the stream (B, T, C) to the stream or logits."""
        with mixed_precision(x.device, self.precision):
            if self.first:
                x, _, _ = GPT._embed(self, x, None, None)
            for block in self.blocks.values():
                x = (checkpoint(block, x, use_reentrant=False)
                     if self.checkpointing and self.training else block(x))
            return GPT.logits(self, self.norm(x)) if self.last else x


# ch05_pretrain/lab_parallelism.ipynb [loss]
def _local(tensor):
    """What this process holds of a tensor, sharded or not."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _full(tensor):
    """The whole of a tensor, sharded or not; all its processes call this."""
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor")
            else tensor)


def _sum_of_losses(logits, targets):
    """In nats, over the targets (B, T) that are not −100."""
    if any(place.is_replicate() for place in getattr(logits, "placements", ())):
        logits = _full(logits)  # a padded vocabulary is cut on all processes
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(),
                           reduction="sum")


# ch05_pretrain/lab_parallelism.ipynb [pieces]
def _cut_vocabulary(plan):
    """A context in which the loss reads logits cut along the vocabulary."""
    if plan.tensor_parallel == 1:
        return contextlib.nullcontext()
    from torch.distributed.tensor.parallel import loss_parallel

    return loss_parallel()


def _pieces_loss(spread, x, y, config, weight):
    """Forward and backward, piece by piece: the weighted sum, a float.

    Between pieces every process holds all gradients of its layers whole:
    they are sent, and cut into shares, with the last piece.
    """
    loss, last = 0.0, config.accumulation - 1
    for i, (xs, ys) in enumerate(zip(x.chunk(last + 1), y.chunk(last + 1))):
        if spread.shares > 1:  # True here would send with every piece
            spread.model.set_requires_gradient_sync(i == last)
        with _cut_vocabulary(spread.plan):
            with mixed_precision(x.device, config.precision):
                if spread.plan.tensor_parallel > 1:
                    piece = _sum_of_losses(spread.model(xs)[0], ys)
                else:
                    mean = spread.model(xs, ys)[1]
                    piece = mean * (ys != -100).sum().item()
            piece = piece * weight
            piece.backward()
        loss += _full(piece.detach()).item()
    return loss


# ch05_pretrain/lab_parallelism.ipynb [pipeline]
def _schedule(spread, pieces):
    """Who works on which micro-batch when: PyTorch's 1F1B, or GPipe's."""
    from torch.distributed.pipelining import (
        PipelineStage, Schedule1F1B, ScheduleGPipe)

    stages, at = spread.plan.pipeline_parallel, spread.at["pipeline"]
    stage = PipelineStage(spread.model, at, stages, spread.device,
                          group=spread.group("pipeline"))
    kind = Schedule1F1B if pieces >= stages else ScheduleGPipe
    return kind(stage, pieces, scale_grads=False, loss_fn=lambda logits, y:
                _sum_of_losses(logits, y) * spread.weight)


def _pipeline_loss(spread, x, y, config, weight):
    """The same through a pipeline; the last stage has the loss, others 0."""
    if spread.schedule is None:
        spread.schedule = _schedule(spread, config.accumulation)
    spread.weight, losses = weight, []
    last = spread.at["pipeline"] == spread.plan.pipeline_parallel - 1
    with _cut_vocabulary(spread.plan):
        if spread.at["pipeline"] == 0:
            spread.schedule.step(x)
        elif last:
            spread.schedule.step(target=y, losses=losses)
        else:
            spread.schedule.step()
    return sum(_full(loss.detach()).item() for loss in losses)


# ch05_pretrain/lab_parallelism.ipynb [through]
def _through_the_stages(spread, x):
    """A forward pass alone, stage by stage; the logits, told to all."""
    import torch.distributed as dist

    group, at = spread.group("pipeline"), spread.at["pipeline"]
    stages, shape = spread.plan.pipeline_parallel, spread.config
    like, (B, T) = dict(device=x.device, dtype=spread.dtype), x.shape
    if at:
        x = torch.empty(B, T // spread.plan.tensor_parallel, shape.d_model,
                        **like)
        dist.recv(x, dist.get_global_rank(group, at - 1), group)
    x = _full(spread.model(x)).to(spread.dtype).contiguous()
    if at < stages - 1:
        dist.send(x, dist.get_global_rank(group, at + 1), group)
        x = torch.empty(B, T, shape.vocab_size, **like)
    dist.broadcast(x, dist.get_global_rank(group, stages - 1), group)
    return x


# ch05_pretrain/lab_parallelism.ipynb [gradients]
def _finish_gradients(spread):
    """Add up what several processes found for weights that all hold."""
    import torch.distributed as dist

    for name, p in spread.model.named_parameters():
        if getattr(p.grad, "placements", ()) != getattr(p, "placements", ()):
            p.grad = p.grad.redistribute(placements=p.placements)
        if (spread.plan.tensor_parallel > 1
                and name.endswith(("q_norm.weight", "k_norm.weight"))):
            # each process saw its own heads only
            dist.all_reduce(_local(p.grad), group=spread.group("tensor"))
        if spread.ends and name == "token_embedding.weight":
            dist.all_reduce(_local(p.grad), group=spread.ends)


# ch05_pretrain/lab_parallelism.ipynb [length]
def _gradient_length(spread):
    """The length of the gradient over all that is held anywhere.

    Every process adds up the squares of its part, divided by the number of
    processes that hold the same part, and one sum goes round.
    """
    import torch.distributed as dist

    total = torch.zeros((), dtype=torch.float64, device=spread.device)
    here = spread.mesh.size() // spread.plan.pipeline_parallel
    for name, p in spread.model.named_parameters():
        if spread.at["pipeline"] and name == "token_embedding.weight":
            continue  # the first stage counts the tied table
        parts = math.prod(
            p.device_mesh.size(axis)
            for axis, place in enumerate(getattr(p, "placements", ()))
            if not place.is_replicate())
        total += _local(p.grad).double().square().sum() * parts / here
    dist.all_reduce(total)
    return total.sqrt().item()


# ch05_pretrain/lab_parallelism.ipynb [muon]
def spread_newton_schulz(matrices, steps=5, dtype=torch.bfloat16):
    """`newton_schulz` for a stack of matrices that lie in shards.

    matrices: (N, M, K). Every process holds a part of each matrix; dealt
    out anew, it holds some matrices whole, orthogonalises those, and the
    parts go back to where they came from. Built in the lab on parallelism.
    """
    if not hasattr(matrices, "placements"):
        return newton_schulz(matrices, steps, dtype)
    from torch.distributed.tensor import DTensor, Shard

    mesh, places = matrices.device_mesh, matrices.placements
    whole = matrices.redistribute(placements=[Shard(0)] * mesh.ndim)
    done = newton_schulz(whole.to_local(), steps, dtype)
    return DTensor.from_local(
        done, mesh, whole.placements, run_check=False, shape=matrices.shape,
        stride=matrices.stride()).redistribute(placements=places)


class SpreadMuon(Muon):
    """Muon for matrices in shards: each process does its share of them.

    The same updates as Muon's. Built in the lab on parallelism.
    """

    orthogonal = staticmethod(spread_newton_schulz)


# ch05_pretrain/lab_parallelism.ipynb [optimizers]
def _spread_optimizers(spread, config):
    """Those of `make_optimizers`, by groups that lie in the same way."""
    result = []
    for optimizer in make_optimizers(spread.model, config):
        groups = []
        for group in optimizer.param_groups:
            alike = {}
            for p in group["params"]:
                lies = (getattr(p, "device_mesh", None),
                        getattr(p, "placements", None))
                alike.setdefault(lies, []).append(p)
            groups += [{**group, "params": part} for part in alike.values()]
        kind = (SpreadMuon if isinstance(optimizer, Muon)
                else type(optimizer))
        result.append(kind(groups))
    return result


# ch05_pretrain/lab_parallelism.ipynb [checkpoint]
def _named_state(spread, optimizers):
    """All this process holds of a run: weights and optimiser, by name."""
    names = {p: name for name, p in spread.model.named_parameters()}
    state = {f"model.{name}": p.detach() for p, name in names.items()}
    for o, optimizer in enumerate(optimizers):
        for p, values in optimizer.state.items():
            for key, value in values.items():
                state[f"optimizer.{o}.{names[p]}.{key}"] = torch.as_tensor(
                    value)
    return state


# ch05_pretrain/lab_parallelism.ipynb [save]
def _save_shards(spread, place, optimizers, state):
    """Write a checkpoint, each process its part; whole or not at all."""
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp

    rank, world = workers()
    warnings.filterwarnings("ignore", "torch.distributed is disabled")
    with contextlib.ExitStack() as stack:
        part = [str(stack.enter_context(atomic_folder(place)))
                if rank == 0 else None]
        if world > 1:
            dist.broadcast_object_list(part)
        dcp.save(_named_state(spread, optimizers),
                 storage_writer=_storage("Writer", part[0]),
                 no_dist=world == 1)
        if rank == 0:
            folder = Path(part[0])
            sums = {f.name: sha256_file(f) for f in sorted(folder.iterdir())}
            write_json(folder / "checkpoint.json", {**state, "sha256": sums})
    if world > 1:
        dist.barrier()
    return place


# ch05_pretrain/lab_parallelism.ipynb [load]
def _load_shards(spread, folder, optimizers):
    """Read what this process needs, however many wrote it."""
    import torch.distributed.checkpoint as dcp

    warnings.filterwarnings("ignore", "torch.distributed is disabled")
    reader = _storage("Reader", str(folder))
    names = {name: p for name, p in spread.model.named_parameters()}
    known = reader.read_metadata().state_dict_metadata
    _same_weights(spread, folder, known)
    for key in known if optimizers else ():
        kind, o, *rest = key.split(".")
        p = names.get(".".join(rest[:-1]))
        if kind == "optimizer" and p is not None:
            like = (torch.zeros_like(p) if known[key].size == p.shape
                    else torch.zeros(known[key].size))
            optimizers[int(o)].state[p][rest[-1]] = like
    dcp.load(_named_state(spread, optimizers), storage_reader=reader,
             no_dist=workers()[1] == 1)


def _storage(kind, folder):
    """DCP's "Writer" or "Reader" of safetensors files, one a process."""
    import torch.distributed.checkpoint as dcp

    if hasattr(dcp, "HuggingFaceStorageWriter"):
        options = {"save_distributed": True} if kind == "Writer" else {}
        return getattr(dcp, f"HuggingFaceStorage{kind}")(folder, **options)
    return getattr(dcp, f"FileSystem{kind}")(folder)  # before PyTorch 2.8


def _same_weights(spread, folder, known):
    """ValueError if a checkpoint is not of this model."""
    for name, p in spread.model.named_parameters():
        size = getattr(known.get(f"model.{name}"), "size", None)
        if size != p.shape:
            raise ValueError(f"{folder} holds another model than the one "
                             f"given: {name} is {tuple(p.shape)} here and "
                             f"{size and tuple(size)} there")


# ch05_pretrain/lab_parallelism.ipynb [gather]
def _gather(spread):
    """The whole model on the first process's CPU; None on the others."""
    import torch.distributed as dist

    with torch.device("meta"):
        names = {name: p.shape for name, p in
                 GPT(spread.config).named_parameters()}
    whole = GPT(spread.config) if workers()[0] == 0 else None
    target = dict(whole.named_parameters()) if whole else {}
    own = dict(spread.model.named_parameters())
    if spread.at["pipeline"]:
        own.pop("token_embedding.weight", None)
    for name, shape in names.items():
        full = (_full(own[name].detach()) if name in own else
                torch.zeros(shape, dtype=spread.dtype, device=spread.device))
        if spread.plan.pipeline_parallel > 1:  # one stage has it, others 0
            dist.all_reduce(full, group=spread.group("pipeline"))
        if whole:
            target[name].data = full.cpu()
    return whole


# ch05_pretrain/lab_parallelism.ipynb [spread]
def _end_stages(mesh, config, at):
    """The group of the first and last stage that hold a tied table."""
    import torch.distributed as dist

    if not config.tie_embeddings:
        return None
    mine = None
    for pair in mesh.mesh[[0, -1]].flatten(1).T.tolist():
        group = dist.new_group(pair)
        if dist.get_rank() in pair:
            mine = group
    return mine


class _Layout(torch.nn.Module):
    """Who this process is, and its part of the model."""

    def __init__(self, model, plan, config):
        super().__init__()
        p = next(model.parameters())
        self.device, self.dtype, self.config = p.device, p.dtype, model.config
        self.plan, self.shares = plan, plan.shares
        self.mesh = mesh = _mesh(plan, p.device)
        self.at = {name: mesh.get_local_rank(name)
                   for name in mesh.mesh_dim_names}
        self.share = self.at["data"] * plan.fsdp + self.at["fsdp"]
        self.schedule = self.ends = None
        if plan.pipeline_parallel > 1:
            self.ends = _end_stages(mesh, model.config, self.at["pipeline"])
            model = Stage(model, self.at["pipeline"], plan.pipeline_parallel,
                          config.precision)
        model.checkpointing = config.checkpoint_activations
        model.loss_rows = config.loss_rows
        if plan.tensor_parallel > 1:
            tensor_parallel(model, mesh["tensor"])
        axes = ("data", "fsdp") if plan.data_parallel > 1 else ("fsdp",)
        self.model = shard(model, mesh[axes]) if plan.shares > 1 else model

    def group(self, axis):
        """The processes that differ from this one along one axis alone."""
        return self.mesh.get_group(axis)


# ch05_pretrain/lab_parallelism.ipynb [spread-called]
class _Spread(_Layout):
    """The part of a model here, called by all processes at once."""

    finish_gradients = _finish_gradients

    def forward(self, ids):
        """ids (B, T) to (logits (B, T, V), None), on every process."""
        T = ids.shape[1]  # made divisible, since time is cut as well
        ids = F.pad(ids, (0, -T % self.plan.tensor_parallel))
        logits = (_through_the_stages(self, ids)
                  if self.plan.pipeline_parallel > 1
                  else _full(self.model(ids)[0]))
        if self.shares > 1:  # no backward pass comes that would let go of it
            self.model.reshard()
        return logits[:, :T], None

    def batch_loss(self, x, y, config):
        """Chapter 5's `batch_loss`: the mean over the whole batch."""
        import torch.distributed as dist

        total = (y != -100).sum().item()
        x, y = (z[self.share::self.shares].to(self.device) for z in (x, y))
        how = (_pipeline_loss if self.plan.pipeline_parallel > 1
               else _pieces_loss)
        loss = torch.tensor(how(self, x, y, config, self.shares / total),
                            dtype=torch.float64, device=self.device)
        self.finish_gradients()
        if self.mesh.size() > 1:
            dist.all_reduce(loss)
        return loss.item() / (self.plan.tensor_parallel * self.shares)


# ch05_pretrain/lab_parallelism.ipynb [spread-gpt]
class SpreadGPT(_Spread):
    """A GPT that lies on several processes and knows how to be trained so.

    model: the whole GPT, the same on every process (what belongs elsewhere
    is let go); plan: Plan; config: TrainConfig. Called with ids (B, T) by
    all processes at once, it gives (logits, None) to each, so `evaluate`
    works as ever. What `train` does in another way for it are the methods
    below. Built in the lab on parallelism.
    """

    def clip_grad_norm_(self, limit):
        """Cut the gradient to `limit`; its length before that, a float."""
        norm = _gradient_length(self)
        if norm > limit:
            for p in self.model.parameters():
                _local(p.grad).mul_(limit / (norm + 1e-6))
        return norm

    def make_optimizers(self, config):
        """Chapter 5's optimisers, for parameters in shards."""
        return _spread_optimizers(self, config)

    def save_checkpoint(self, place, optimizers, state):
        """Write the folder `place`, each process its part; returns it."""
        return _save_shards(self, place, optimizers, state)

    def load_checkpoint(self, folder, optimizers):
        """Read a folder that any number of processes wrote."""
        _load_shards(self, folder, optimizers)

    def gather(self):
        """The whole GPT on the first process, None on the others."""
        return _gather(self)


# ch05_pretrain/lab_parallelism.ipynb [launch]
_CHILD = """import json, sys, llm_utils
name, arguments, place = sys.argv[1:]
device = llm_utils.start_workers()
found = getattr(llm_utils, name)(**json.loads(arguments))
llm_utils.write_json(f"{place}/{llm_utils.workers()[0]}.json", found)
llm_utils.stop_workers()
"""


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def launch(world, name, timeout=120, **arguments):
    """Call one of llm_utils's functions on `world` new processes.

    They find each other on this machine alone. arguments and what the
    function returns: JSON values. Returns a list, one result a process.
    Raises RuntimeError with the last lines of a process that failed, or
    TimeoutError after `timeout` seconds; none is left running. Built in
    the lab on parallelism.
    """
    with tempfile.TemporaryDirectory() as place:
        common = {**os.environ, "WORLD_SIZE": str(world),
                  "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1",
                  "MASTER_PORT": str(_free_port())}
        order = [sys.executable, "-c", _CHILD, name, json.dumps(arguments),
                 place]
        with contextlib.ExitStack() as stack:
            logs = [stack.enter_context(open(f"{place}/{rank}.log", "w+"))
                    for rank in range(world)]
            children = [subprocess.Popen(
                order, stderr=log, env={**common, "RANK": str(rank),
                                        "LOCAL_RANK": str(rank)})
                for rank, log in enumerate(logs)]
            _wait(children, logs, time.monotonic() + timeout)
        return [read_json(f"{place}/{rank}.json") for rank in range(world)]


# ch05_pretrain/lab_parallelism.ipynb [wait]
def _wait(children, logs, end):
    """Until all are done; if one fails or time is up, none goes on."""
    try:
        while any(child.poll() is None for child in children):
            if any(child.poll() for child in children):
                time.sleep(0.5)  # the others' last words
                break
            if time.monotonic() > end:
                raise TimeoutError(f"{len(children)} processes are not done "
                                   "in the time they had: they were ended")
            time.sleep(0.05)
    finally:
        for child in children:
            child.kill()
            child.wait()
    said = []
    for child, log in zip(children, logs):
        if child.returncode > 0:
            log.seek(0)
            said.append(log.read()[-2000:])
    if said:  # whoever fell first may bring the others down
        raise RuntimeError("a process failed:\n" + "\n".join(said))


# ch05_pretrain/lab_parallelism.ipynb [traffic]
class Traffic(TorchDispatchMode):
    """Counts what this process receives: bytes by kind of message.

    world: processes in each group. A ring is assumed, as NCCL has it: of n
    processes each receives (n − 1)/n of what an all-gather gives or a
    reduce-scatter takes, and twice that share for an all-reduce. Built in
    the lab on parallelism.
    """

    KINDS = (("allgather", "all-gather", 0), ("all_gather", "all-gather", 1),
             ("reduce_scatter", "reduce-scatter", 2),
             ("allreduce", "all-reduce", 2), ("all_reduce", "all-reduce", 2),
             ("recv", "receive", 2))

    def __init__(self, world):
        super().__init__()
        self.world, self.bytes = world, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run `func`, and count it if it is a message."""
        out = func(*args, **(kwargs or {}))
        if func.namespace in ("c10d", "_c10d_functional"):
            for word, kind, _ in self.KINDS:
                if word in func.__name__:
                    self._count(kind, _nbytes(args), _nbytes(out))
                    break
        return out

    def _count(self, kind, given, got):
        share = (self.world - 1) / self.world
        size = {"all-gather": max(given, got), "reduce-scatter": given,
                "all-reduce": 2 * given, "receive": given / share}[kind]
        self.bytes[kind] = self.bytes.get(kind, 0) + size * share


def _nbytes(tree):
    """Bytes of the largest tensor in nested lists and tuples."""
    if isinstance(tree, torch.Tensor):
        return tree.nbytes
    if isinstance(tree, (list, tuple)):
        return max(map(_nbytes, tree), default=0)
    return 0


# ch05_pretrain/lab_parallelism.ipynb [try]
def try_plans(trials, shape, steps=3):
    """Train a small model by each plan, and tell what this process held.

    trials: dicts of a plan's sizes and, under "rows", of a batch's rows;
    with "uneven" some rows have few targets, and with "forget" gradients
    that several processes share are not summed, which is a fault; shape:
    fields of a ModelConfig. For `launch`: all processes call it. Returns a
    dict for each trial: losses, lengths (of the gradients), bytes (held in
    weights, gradients and AdamW's means), traffic (received in a step, by
    kind), share (of each parameter, by name). Built in the lab on
    parallelism.
    """
    shape, results = ModelConfig(**shape), []
    for trial in trials:
        plan = Plan(**{k: n for k, n in trial.items() if hasattr(Plan, k)})
        config = TrainConfig(batch_size=trial["rows"], optimizer="adamw",
                             accumulation=plan.pipeline_parallel,
                             precision="float32", warmup_steps=0)
        spread = plan(GPT(shape), config).train()
        if trial.get("forget"):
            spread.finish_gradients = lambda: None
        results.append(_try_plan(spread, config, steps, trial.get("uneven")))
    return results


def trial_batch(shape, rows, draw, uneven=False):
    """x, y (rows, context) of random ids; uneven: some rows of y end early.
    draw: a torch.Generator. Built in the lab on parallelism."""
    ids = torch.randint(shape.vocab_size, (rows, shape.context_length + 1),
                        generator=draw)
    x, y = ids[:, :-1], ids[:, 1:].clone()
    if uneven:
        y[:rows // 3, 10:] = -100
    return x, y


def _try_plan(spread, config, steps, uneven):
    draw, losses, lengths = torch.Generator().manual_seed(0), [], []
    optimizers = spread.make_optimizers(config)
    whole = {name: p.numel() for name, p in GPT(spread.config)
             .named_parameters()}
    for step in range(steps):
        x, y = trial_batch(spread.config, config.batch_size, draw, uneven)
        with Traffic(workers()[1]) as traffic:
            losses.append(spread.batch_loss(x, y, config))
        params = dict(spread.model.named_parameters())
        held = sum(_local(p.grad).nbytes for p in params.values())
        lengths.append(optimizer_step(spread, optimizers, step, config))
    held += sum(_local(t).nbytes for t in
                _named_state(spread, optimizers).values() if t.ndim)
    return {"losses": losses, "lengths": lengths, "bytes": held,
            "traffic": traffic.bytes,
            "share": {name: _local(p).numel() / whole[name]
                      for name, p in params.items()}}


# ch05_pretrain/lab_parallelism.ipynb [zero-settings]
_SAID_BY = {  # keys of DeepSpeed's that the recipe decides, and its flags
    "train_batch_size": "--batch-size",
    "train_micro_batch_size_per_gpu": "--accumulation",
    "gradient_accumulation_steps": "--accumulation",
    "gradient_clipping": "--clip-norm", "optimizer": "--optimizer",
    "scheduler": "--schedule", "fp16": "--precision", "bf16": "--precision",
    "amp": "--precision", "torch_autocast": "--precision"}


def _zero_refusals(settings, shape, config):
    """Pairs (what would not work, the sentence that says so)."""
    zero, world = settings.get("zero_optimization"), workers()[1]
    stage = zero.get("stage") if isinstance(zero, dict) else None
    yield stage not in (1, 2, 3), (
        "DeepSpeed's file must have a zero_optimization with a stage of 1, "
        f"2 or 3; it has {stage}")
    for key, flag in _SAID_BY.items():
        yield settings.get(key, "auto") != "auto", (
            f"DeepSpeed's file says {key}, which {flag} decides: take it out")
    yield config.optimizer != "adamw", (
        "DeepSpeed keeps a matrix as slices of one long row, which "
        f"{config.optimizer} cannot update: add --optimizer adamw")
    yield config.batch_size % (world * config.accumulation), (
        f"{config.batch_size} rows do not divide among {world} processes × "
        f"{config.accumulation} micro-batches: change --accumulation")
    yield shape.dropout > 0, (
        "under DeepSpeed a model is trained without dropout (set it to 0): "
        "a checkpoint would not hold every process's dice")


# ch05_pretrain/lab_parallelism.ipynb [zero-plan]
@dataclass
class ZeroPlan:
    """ZeRO by DeepSpeed over all processes, as its JSON file says.

    settings: what the file says, a dict. Stage 1 deals out the means of
    AdamW, stage 2 the gradients too, stage 3 the weights as well. Called
    like a `Plan`, it returns a `ZeroGPT`. Source: Rajbhandari et al. 2020.
    Built in the lab on parallelism.
    """

    settings: dict

    @classmethod
    def read(cls, path):
        """The plan of a file; ValueError if there is none, or no JSON."""
        if not Path(path).is_file():
            raise ValueError(f"{path} is not there: --deepspeed asks for a "
                             "JSON file of DeepSpeed's settings")
        settings = read_json(path)
        if not isinstance(settings, dict):
            raise ValueError(f"{path} holds no JSON object: {{…}}")
        return cls(settings)

    @property
    def shares(self):
        """Among how many the rows of a batch are dealt out: all."""
        return workers()[1]

    def check(self, shape, config):
        """ValueError, in one sentence, if it does not fit what is there.

        shape: ModelConfig; config: TrainConfig.
        """
        for bad, sentence in _zero_refusals(self.settings, shape, config):
            if bad:
                raise ValueError(sentence)

    def __call__(self, model, config):
        """The model, spread; every process has built the same one."""
        self.check(model.config, config)
        return ZeroGPT(model, self.settings, config)


# ch05_pretrain/lab_parallelism.ipynb [zero-package]
def _deepspeed():
    """The package; ImportError, in one sentence, without it."""
    try:
        import deepspeed
    except ImportError:
        raise ImportError("DeepSpeed is not installed: pip install "
                          "deepspeed==0.19.8, or leave out --deepspeed"
                          ) from None
    if not torch.cuda.is_available():  # gloo sends; nothing to be compiled
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
    return deepspeed


# ch05_pretrain/lab_parallelism.ipynb [zero-engine]
def _engine(model, adamw, settings, config):
    """DeepSpeed's engine around a GPT and its AdamW."""
    import torch.distributed as dist

    deepspeed, device = _deepspeed(), next(model.parameters()).device
    if not dist.is_initialized():  # one process, which has nobody to join
        dist.init_process_group(store=dist.HashStore(), rank=0, world_size=1)
        os.environ.setdefault("LOCAL_RANK", "0")
    with mixed_precision(device, config.precision):
        short = torch.is_autocast_enabled(device.type)
    pieces = workers()[1] * config.accumulation
    model.checkpointing = config.checkpoint_activations
    model.loss_rows = config.loss_rows
    return deepspeed.initialize(model=model, optimizer=adamw, config={
        **settings, "gradient_accumulation_steps": config.accumulation,
        "train_micro_batch_size_per_gpu": config.batch_size // pieces,
        "train_batch_size": config.batch_size,
        "gradient_clipping": config.clip_norm,
        "zero_allow_untested_optimizer": True,
        "torch_autocast": {"enabled": short, "dtype": "bfloat16",
                           "lower_precision_safe_modules": []}})[0]


# ch05_pretrain/lab_parallelism.ipynb [zero-means]
def _make_means(engine, adamw, config):
    """AdamW's means, at 0 as before its first step, and known by name.

    DeepSpeed makes them in a first step: so one is done that moves nothing.
    """
    from deepspeed.utils import lazy_init_hp_params_optimizer_state as link

    ids = torch.zeros(1, 2, dtype=torch.long, device=engine.device)
    for group in engine.optimizer.param_groups:
        group["lr"] = 0.0
    for _ in range(config.accumulation):
        engine.backward(0 * engine(ids, ids)[1])
        engine.step()
    for state in adamw.state.values():
        state["step"].zero_()
    slices = getattr(engine.optimizer, "single_partition_of_fp32_groups", ())
    for i, flat in enumerate(slices):  # in stages 1 and 2 it names one group
        link(engine.optimizer.bit16_groups[i], flat, adamw.state)


# ch05_pretrain/lab_parallelism.ipynb [zero-loss]
def _zero_loss(zero, x, y, config):
    """Forward and backward, piece by piece: the mean over the batch."""
    import torch.distributed as dist

    (rank, world), last = workers(), config.accumulation - 1
    weight = world / (y != -100).sum().item()  # the engine takes a mean
    x, y = (z[rank::world].to(zero.engine.device) for z in (x, y))
    loss = torch.zeros((), dtype=torch.float64, device=x.device)
    for i, (xs, ys) in enumerate(zip(x.chunk(last + 1), y.chunk(last + 1))):
        mean = zero.engine(xs, ys)[1]
        piece = mean.float() * (weight * (ys != -100).sum().item())
        zero.engine.backward(piece, scale_wrt_gas=False)
        if i < last:
            zero.engine.step()  # counts the piece, and updates nothing
        loss += piece.detach()
    dist.all_reduce(loss)
    return loss.item() / world


def _zero_step(zero, step, config):
    """Set the rates, clip, update, clear: the length of the gradient."""
    share = learning_rate(step, config) / config.learning_rate
    for group in zero.engine.optimizer.param_groups:
        group["lr"] = group["peak"] * share
    zero.engine.step()  # changes nothing if the gradient is not finite
    norm = float(zero.engine.get_global_grad_norm())
    if not math.isfinite(norm):
        raise FloatingPointError(f"the gradient at step {step} is {norm}")
    return norm


# ch05_pretrain/lab_parallelism.ipynb [zero-save]
def _gather_zero(zero, step=None):
    """(GPT, its AdamW) on the first process's CPU; None on the others.

    step: how many steps AdamW has done; without it, it is left empty.
    """
    from deepspeed.utils import (
        safe_get_full_fp32_param, safe_get_full_optimizer_state)

    whole = GPT(zero.config) if workers()[0] == 0 else None
    adamw = make_optimizers(whole, zero.recipe)[0] if whole else None
    target = dict(whole.named_parameters()) if whole else {}
    for name, p in zero.engine.module.named_parameters():
        parts = {"": safe_get_full_fp32_param(p)}
        for key in ("exp_avg", "exp_avg_sq") if step else ():
            parts[key] = safe_get_full_optimizer_state(p, key)
        if whole:
            own = target[name]
            parts = {k: t.cpu().view_as(own) for k, t in parts.items()}
            own.data = parts.pop("")
            if step:
                adamw.state[own] = {**parts, "step": torch.tensor(float(step))}
    return whole, adamw


def _save_zero(zero, place, state):
    """Write chapter 5's checkpoint, by the first process."""
    import torch.distributed as dist

    whole, adamw = _gather_zero(zero, state["step"])
    if whole:
        save_checkpoint(place.parent, whole, [adamw], **state)
    dist.barrier()


# ch05_pretrain/lab_parallelism.ipynb [zero-load]
def _load_zero(zero, folder):
    """Read a checkpoint of chapter 5 into an engine."""
    from deepspeed.utils import (
        safe_set_full_fp32_param, safe_set_full_optimizer_state)
    from deepspeed.runtime.zero import GatheredParameters

    whole = GPT(zero.config)
    (adamw,) = make_optimizers(whole, zero.recipe)
    step = load_checkpoint(folder, whole, [adamw])["step"]
    read = dict(whole.named_parameters())
    for name, p in zero.engine.module.named_parameters():
        value, state = read[name], adamw.state[read[name]]
        with GatheredParameters([p], modifier_rank=0), torch.no_grad():
            p.copy_(value)  # what is computed with
        safe_set_full_fp32_param(p, value.to(p.device))  # what is updated
        for key in ("exp_avg", "exp_avg_sq"):
            safe_set_full_optimizer_state(p, state[key].to(p.device), key)
    for state in zero.adamw.state.values():
        state["step"].fill_(step)


# ch05_pretrain/lab_parallelism.ipynb [zero-gpt]
class ZeroGPT(torch.nn.Module):
    """A GPT that DeepSpeed spreads; for `train` what a `SpreadGPT` is.

    model: the whole GPT, the same on every process; settings: DeepSpeed's,
    a dict (see `ZeroPlan`); config: TrainConfig. Raises ImportError without
    the package deepspeed. Built in the lab on parallelism.
    """

    def __init__(self, model, settings, config):
        super().__init__()
        self.config, self.recipe = model.config, config
        self.shares = workers()[1]
        (self.adamw,) = make_optimizers(model, config)
        self.engine = _engine(model, self.adamw, settings, config)
        _make_means(self.engine, self.adamw, config)

    def forward(self, ids):
        """ids (B, T) to (logits (B, T, V), None), on every process."""
        return self.engine(ids)[0], None

    def batch_loss(self, x, y, config):
        """Chapter 5's `batch_loss`: the mean over the whole batch."""
        return _zero_loss(self, x, y, config)

    def optimizer_step(self, step, config):
        """Chapter 5's `optimizer_step`: the engine does all of it."""
        return _zero_step(self, step, config)

    def make_optimizers(self, config):
        """None beside the engine's own."""
        return []

    def save_checkpoint(self, place, optimizers, state):
        """Write chapter 5's checkpoint, the folder `place`; returns it."""
        _save_zero(self, place, state)
        return place

    def load_checkpoint(self, folder, optimizers):
        """Read what `save_checkpoint` wrote, here or without DeepSpeed."""
        _load_zero(self, folder)

    def gather(self):
        """The whole GPT on the first process, None on the others."""
        return _gather_zero(self)[0]


# ch06_finetune/lab_elsewhere.ipynb [else-template]
def training_template(chat) -> str:
    """The template of a `ChatFormat` with TRL's marks around what is learned:
    the assistant's text and its end token. Built in the lab on running
    elsewhere."""
    body = "{{ m['content'] }}<|end|>"
    return chat.jinja.replace(body, (
        "{% if m['role'] == 'assistant' %}{% generation %}" + body
        + "{% endgeneration %}{% else %}" + body + "{% endif %}"))


# ch06_finetune/lab_elsewhere.ipynb [else-peft-code]
def _peft_names(config):
    """Our names of linear layers to those in transformers, where a layer of
    ours is one of theirs."""
    rows = _names(config, _layout(config))
    return {ours[0].removesuffix(".weight"): theirs.removesuffix(".weight")
            for ours, theirs, turned in rows
            if len(ours) == 1 and not turned and theirs.endswith(".weight")}


def lora_to_peft(model, folder, base_model=""):
    """Write the adapters of a model as peft's `PeftModel` reads them.

    adapter_config.json and adapter_model.safetensors, for the model that
    `to_transformers` writes; base_model: where that lies. Returns the
    folder's Path. ValueError if there are no adapters, if they differ in
    rank or alpha, or if the layout has no such layer. Built in the lab on
    running elsewhere.
    """
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as place:
        about, state = _read_lora(save_lora(model, Path(place, "adapter")))
    names, tensors = _peft_names(model.config), {}
    for name, tensor in state.items():
        layer, _, part = name.rpartition(".")
        if layer not in names:
            raise ValueError(f"{layer} is not a layer of its own in the layout "
                             f"{_layout(model.config)} of transformers")
        part = part.replace("lora_a", "lora_A").replace("lora_b", "lora_B")
        tensors[f"base_model.model.{names[layer]}.{part}.weight"] = tensor
    targets = {name.rsplit(".", 3)[1] for name in tensors}
    with atomic_folder(folder) as new:
        save_file(tensors, new / "adapter_model.safetensors", {"format": "pt"})
        write_json(new / "adapter_config.json", {
            "peft_type": "LORA", "task_type": "CAUSAL_LM",
            "base_model_name_or_path": str(base_model), "r": about["rank"],
            "lora_alpha": about["alpha"], "target_modules": sorted(targets),
            "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
            "inference_mode": True})
    return Path(folder)


# ch06_finetune/lab_elsewhere.ipynb [else-recipe-schedule]
def _their_run(config):
    """What a TrainConfig says, in names that transformers' Trainer knows."""
    if config.optimizer == "muon" or config.embedding_learning_rate:
        raise ValueError("TRL and Axolotl have neither our Muon nor a rate for "
                         'the embeddings alone: take optimizer="adamw"')
    name, more = "constant_with_warmup", {}
    if config.schedule == "cosine":
        name, more = "cosine_with_min_lr", {"min_lr_rate": config.final_rate}
    elif config.schedule == "wsd":
        decline = max(1, round(config.cooldown * config.steps))
        if decline + config.warmup_steps > config.steps:
            raise ValueError(f"{config.warmup_steps} steps of warm-up and "
                             f"{decline} of decline are more than the "
                             f"{config.steps} of the run: shorten one")
        name, more = "warmup_stable_decay", {
            "num_decay_steps": decline, "decay_type": "linear",
            "min_lr_ratio": config.final_rate}
    return {
        "max_steps": config.steps, "learning_rate": config.learning_rate,
        "gradient_accumulation_steps": config.accumulation,
        "warmup_steps": config.warmup_steps,
        "lr_scheduler_kwargs": more, "weight_decay": config.weight_decay,
        "adam_beta1": config.betas[0], "adam_beta2": config.betas[1],
        "adam_epsilon": 1e-8, "max_grad_norm": config.clip_norm,
        "seed": config.seed,
        "gradient_checkpointing": config.checkpoint_activations,
        }, name, {"adamw": "adamw_torch_fused",
                  "adamw8bit": "adamw_bnb_8bit"}[config.optimizer]


# ch06_finetune/lab_elsewhere.ipynb [else-recipe-axolotl]
def axolotl_config(config, chat, model, data, max_length, lora=None,
                   packing=False, output="outputs") -> dict:
    """A run of chapter 6 as the settings of Axolotl, ready for YAML.

    config: a `TrainConfig`; chat: a `ChatFormat`; model: the folder that
    `to_transformers` wrote; data: a file of `{"messages": ...}` lines;
    max_length: tokens of a row; lora: None, or a dict with rank, alpha and
    targets as in `add_lora`. Raises ValueError where Axolotl has no such
    setting. Built in the lab on running elsewhere.
    """
    run, schedule, optimizer = _their_run(config)
    values = {
        "base_model": str(model), "chat_template": "jinja",
        "chat_template_jinja": chat.jinja, "eot_tokens": ["<|end|>"],
        "special_tokens": {"pad_token": "<|endoftext|>"},
        "datasets": [{
            "path": str(data), "ds_type": "json", "type": "chat_template",
            "field_messages": "messages", "roles_to_train": ["assistant"],
            "train_on_eos": "turn"}],
        "train_on_inputs": False, "sequence_len": max_length,
        "sample_packing": packing, "optimizer": optimizer,
        "lr_scheduler": schedule,
        "micro_batch_size": config.batch_size // config.accumulation, **run,
        "bf16": {"auto": "auto"}.get(config.precision,
                                     config.precision == "bfloat16"),
        "val_set_size": 0.0, "logging_steps": 1, "output_dir": str(output)}
    if lora:
        values |= {"adapter": "lora", "lora_r": lora["rank"],
                   "lora_alpha": lora["alpha"], "lora_dropout": 0.0,
                   "lora_target_modules": list(lora["targets"])}
    return values


# ch06_finetune/lab_elsewhere.ipynb [else-recipe-trl]
_TRL_SCRIPT = '''"""Instruction tuning by TRL: python this_file.py"""

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
{imports}
tokenizer = AutoTokenizer.from_pretrained({model!r})
tokenizer.chat_template = (
{template})
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained({model!r}, dtype="float32"),
    processing_class=tokenizer,
    train_dataset=load_dataset("json", data_files={data!r}, split="train"),
    args=SFTConfig(
{settings}
    ),
{adapter})
trainer.train()
trainer.save_model()
'''


def _keywords(values, indent):
    return "\n".join(f"{' ' * indent}{k}={v!r}," for k, v in values.items())


# ch06_finetune/lab_elsewhere.ipynb [else-recipe-trl-code]
def trl_script(config, chat, model, data, max_length, lora=None,
               packing=False, output="outputs") -> str:
    """A run of chapter 6 as a Python script for TRL; arguments and errors
    as in `axolotl_config`. Built in the lab on running elsewhere."""
    run, schedule, optimizer = _their_run(config)
    settings = {
        "output_dir": str(output), **run, "optim": optimizer,
        "lr_scheduler_type": schedule, "per_device_train_batch_size":
            config.batch_size // config.accumulation,
        "assistant_only_loss": True, "max_length": max_length,
        "packing": packing, "logging_steps": 1, "save_strategy": "no",
        "report_to": "none"}
    if config.precision != "auto":  # TRL looks at the machine by itself
        settings["bf16"] = config.precision == "bfloat16"
    adapter = imports = ""
    if lora:
        imports = "from peft import LoraConfig\n"
        values = {"r": lora["rank"], "lora_alpha": lora["alpha"],
                  "target_modules": list(lora["targets"]),
                  "lora_dropout": 0.0, "task_type": "CAUSAL_LM"}
        adapter = ("    peft_config=LoraConfig(\n"
                   f"{_keywords(values, 8)}\n    ),\n")
    template = training_template(chat)
    lines = [f"    {template[i:i + 60]!r}\n"
             for i in range(0, len(template), 60)]
    return _TRL_SCRIPT.format(
        model=str(model), data=str(data), template="".join(lines),
        settings=_keywords(settings, 8), adapter=adapter, imports=imports)


# ch06_finetune/lab_elsewhere.ipynb [else-schema]
def unknown_keys(schema, values, path="") -> list[str]:
    """Keys of `values` (dicts and lists, as from YAML) that a pydantic model
    does not name, at any depth. Built in the lab on running elsewhere."""
    import typing

    from pydantic import BaseModel

    def models(kind):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return [kind]
        return sum(map(models, typing.get_args(kind)), [])

    known = {alias: field for name, field in schema.model_fields.items()
             for alias in (name, field.alias) if alias}
    found = []
    for key, value in values.items():
        if key not in known:
            found.append(path + key)
            continue
        inner = models(known[key].annotation)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict) and inner:
                tries = [unknown_keys(m, part, f"{path}{key}.") for m in inner]
                found += min(tries, key=len)
    return found


# ch07_dpo/lab_reinforcement.ipynb [rl-rloo-code]
def rloo_advantages(rewards):
    """Each reward less the mean of the others in its group: `(N, G)` to
    `(N, G)`, G at least 2. Source: Kool et al. 2019; Ahmadian et al. 2024.
    Built in the lab on reinforcement."""
    group = rewards.shape[1]
    if group < 2:
        raise ValueError(f"leaving one out needs 2 answers, got {group}")
    return (rewards - rewards.mean(1, keepdim=True)) * group / (group - 1)


def batch_advantages(rewards):
    """Each reward less the mean of the whole batch: `(N, G)` to `(N, G)`.
    Source: Williams 1992. Built in the lab on reinforcement."""
    return rewards - rewards.mean()


# ch07_dpo/lab_reinforcement.ipynb [rl-reinforce-code]
def reinforce_loss(logprob, reference, mask, advantages, beta=0.0, old=None,
                   clip=0.2):
    """The loss of REINFORCE and RLOO: whole answers, by their advantages.

    As `grpo_loss` (arguments, shapes and units are the same), but the ratio
    and its clipping are those of the answer's summed log-probability, and
    so is the KL estimate. Source: Ahmadian et al. 2024, eq. 9, clipped as
    in TRL. Built in the lab on reinforcement.
    """
    old = logprob.detach() if old is None else old
    ratio = ((logprob - old) * mask).sum(1).exp()
    gain = torch.min(ratio * advantages,
                     ratio.clamp(1 - clip, 1 + clip) * advantages)
    away = (reference - logprob) * mask
    kl = (away.exp() - away - 1).sum(1)
    return (beta * kl - gain).mean()


# ch07_dpo/lab_reinforcement.ipynb [rl-pass]
def pass_at_k(n, right, k):
    """The chance that k of n answers, of which `right` are right, hold a
    right one: an unbiased estimate of solving a task in k tries.

    Raises ValueError unless 0 ≤ right ≤ n and 1 ≤ k ≤ n. Source: Chen et
    al. 2021, eq. 1. Built in the lab on reinforcement.
    """
    if not (0 <= right <= n and 1 <= k <= n):
        raise ValueError(f"no {k} of {n} answers with {right} right")
    return 1 - math.comb(n - right, k) / math.comb(n, k)


# ch07_dpo/lab_reinforcement.ipynb [rl-best-code]
def best_of(judged, values, n):
    """What the best of n answers is worth on average, over all subsets.

    judged: `(…, N)` numbers by which the best is picked; values: `(…, N)`
    what each answer is really worth. Of equals one is as good as another:
    they share their places. Returns `(…,)`. Raises ValueError unless
    1 ≤ n ≤ N. Built in the lab on reinforcement.
    """
    N = judged.shape[-1]
    if not 1 <= n <= N:
        raise ValueError(f"cannot pick the best of {n} from {N}")
    below = (judged[..., None, :] < judged[..., None]).sum(-1)
    upto = (judged[..., None, :] <= judged[..., None]).sum(-1)
    ways = torch.tensor([math.comb(i, n) for i in range(N + 1)],
                        dtype=torch.float64)
    chance = (ways[upto] - ways[below]) / (upto - below) / ways[N]
    return (chance * values).sum(-1)


# ch08_inference/lab_decoding.ipynb [dec-forms]
def _exactly(text):
    """The form of one text alone. Built in the lab on decoding."""
    return "all", [("set", [(ord(c), ord(c))]) for c in text]


def _maybe(form):
    """The form, or nothing. Built in the lab on decoding."""
    return "repeat", form, 0, 1


def _outside(ranges, last=0x10FFFF):
    """The code points that lie in none of `ranges`, as ranges.

    ranges: pairs (first, last) of code points. Built in the lab on decoding.
    """
    free, found = 0, []
    for a, b in sorted(ranges):
        if free < a:
            found.append((free, a - 1))
        free = max(free, b + 1)
    return found + ([(free, last)] if free <= last else [])


# ch08_inference/lab_decoding.ipynb [dec-reader]
class _Pattern:
    """A regular expression, read from left to right."""

    def __init__(self, text):
        self.text, self.at = text, 0

    def peek(self, n=1):
        return self.text[self.at:self.at + n]

    def take(self, *wanted):
        """The first of `wanted` that stands here, passed over; or ""."""
        for w in wanted:
            if self.text.startswith(w, self.at):
                self.at += len(w)
                return w
        return ""

    def next(self):
        if self.at >= len(self.text):
            self.fail("it ends too soon")
        self.at += 1
        return self.text[self.at - 1]

    def fail(self, why):
        raise ValueError(f"the pattern {self.text!r}, at place {self.at}: "
                         f"{why}")


def parse_regex(pattern):
    """The form of a regular expression, which describes a whole text.

    pattern: characters, . [a-z] [^a-z] \\d \\w \\s (of ASCII) and their
    capitals, groups, |, *, +, ?, {m}, {m,} and {m,n}. ValueError on what is
    not a pattern, and on anchors, looks ahead, references back, flags and
    lazy repeats, which this small language has not. Built in the lab on
    decoding.
    """
    reader = _Pattern(pattern)
    form = _alternatives(reader)
    if reader.peek():
        reader.fail("a ) closes nothing")
    return form


# ch08_inference/lab_decoding.ipynb [dec-parser]
def _alternatives(p):
    parts = [_sequence(p)]
    while p.take("|"):
        parts.append(_sequence(p))
    return parts[0] if len(parts) == 1 else ("any", parts)


def _sequence(p):
    parts = []
    while p.peek() and p.peek() not in "|)":
        form = _atom(p)
        if bounds := _times(p):
            form = "repeat", form, *bounds
            if p.peek() and p.peek() in "*+?{":
                p.fail("two repeats in a row: lazy ones are not supported")
        parts.append(form)
    return "all", parts


def _times(p):
    """(least, most) of the repeat that stands here, or None."""
    if sign := p.take("*", "+", "?"):
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
    if not p.take("{"):
        return None
    body = ""
    while (c := p.next()) != "}":
        body += c
    least, comma, most = body.partition(",")
    if not least.isdecimal() or most and not most.isdecimal():
        p.fail("{ must be followed by numbers: {2}, {2,} or {2,5}; or \\{")
    most = (int(most) if most else None) if comma else int(least)
    if most is not None and most < int(least):
        p.fail("the most is less than the least")
    return int(least), most


# ch08_inference/lab_decoding.ipynb [dec-atoms]
_CLASSES = {"d": [(48, 57)], "w": [(48, 57), (65, 90), (95, 95), (97, 122)],
            "s": [(9, 13), (32, 32)]}
_CLASSES |= {k.upper(): _outside(v) for k, v in _CLASSES.items()}
_CONTROLS = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11, "0": 0}


def _atom(p):
    c = p.next()
    if c == "(":
        if p.take("?") and not p.take(":"):
            p.fail("of the groups with a question mark only (?: is known")
        form = _alternatives(p)
        if not p.take(")"):
            p.fail("a ( is never closed")
        return form
    if c == "[":
        return "set", _bracket(p)
    if c == ".":
        return "set", _outside([(10, 10)])
    if c in "^$":
        p.fail("a pattern describes the whole text: leave out ^ and $")
    if c in "*+?{":
        p.fail("there is nothing to repeat")
    return "set", _escape(p) if c == "\\" else [(ord(c), ord(c))]


# ch08_inference/lab_decoding.ipynb [dec-escape]
def _escape(p):
    """The ranges of what follows a backslash."""
    c = p.next()
    if c in _CLASSES:
        return _CLASSES[c]
    if c in "xu":
        digits = "".join(p.next() for _ in range(2 if c == "x" else 4))
        if not all(d in "0123456789abcdefABCDEF" for d in digits):
            p.fail(f"\\{c} must be followed by hexadecimal digits")
        code = int(digits, 16)
    elif c.isascii() and c.isalnum() and c not in _CONTROLS:
        p.fail(f"\\{c} is not supported")
    else:
        code = _CONTROLS.get(c, ord(c))
    return [(code, code)]


def _bracket(p):
    """The ranges of [...], whose first bracket is read."""
    ranges, out, first = [], bool(p.take("^")), True
    while first or p.peek() != "]":
        first, c = False, p.next()
        here = _escape(p) if c == "\\" else [(ord(c), ord(c))]
        if p.peek() == "-" and p.peek(2) not in ("-", "-]"):
            p.next()
            c = p.next()
            there = _escape(p) if c == "\\" else [(ord(c), ord(c))]
            a, b = here[0][0], there[0][1]
            single = len(here) == len(there) == 1 and (
                here[0][0] == here[0][1] and there[0][0] == there[0][1])
            if not single or b < a:
                p.fail("a range must run from one character to a later one")
            here = [(a, b)]
        ranges += here
    p.next()
    return _outside(ranges) if out else ranges


# ch08_inference/lab_decoding.ipynb [dec-utf8]
def utf8_ranges(first, last):
    """Spell the code points first to last: yields lists of byte ranges.

    Each list has a pair (low, high) for every byte, and all texts that take
    a byte of each are the UTF-8 of a code point of the range. Surrogates
    are none and left out. Built in the lab on decoding.
    """
    for cut in (0x7F, 0x7FF, 0xD7FF, 0xDFFF, 0xFFFF):     # more bytes, or none
        if first <= cut < last:
            yield from utf8_ranges(first, cut)
            yield from utf8_ranges(cut + 1, last)
            return
    if first > last or 0xD800 <= first <= 0xDFFF:
        return
    for bits in 6, 12, 18:       # the last bytes run through all they can be
        low = (1 << bits) - 1
        if first >> bits != last >> bits:
            if first & low:
                middle = (first | low) + 1
            elif last & low != low:
                middle = last & ~low
            else:
                continue
            yield from utf8_ranges(first, middle - 1)
            yield from utf8_ranges(middle, last)
            return
    yield list(zip(chr(first).encode(), chr(last).encode()))


# ch08_inference/lab_decoding.ipynb [dec-nodes]
class _Nodes:
    """Nodes and what joins them; a method for each kind of form."""

    def __init__(self, most_nodes):
        self.edges, self.jumps, self.calls = [], [], []
        self.most_nodes = most_nodes

    def node(self):
        if len(self.edges) >= self.most_nodes:
            raise ValueError(f"the form needs more than {self.most_nodes:,} "
                             "nodes: repeat less")
        for kept in self.edges, self.jumps, self.calls:
            kept.append([])
        return len(self.edges) - 1

    def add(self, form, a):
        """Add the nodes of a form that begins at a; returns where it ends."""
        return getattr(self, "_" + form[0])(a, *form[1:])

    def _join(self, nodes):
        """A new node to which all of `nodes` jump."""
        new = self.node()
        for node in nodes:
            self.jumps[node].append(new)
        return new

    def _set(self, a, ranges):
        ends = []
        for spelling in itertools.chain(*(utf8_ranges(*r) for r in ranges)):
            at = a
            for low, high in spelling:
                new = self.node()
                self.edges[at].append((low, high, new))
                at = new
            ends.append(at)
        return self._join(ends)

    def _all(self, a, parts):
        for part in parts:
            a = self.add(part, a)
        return a

    def _any(self, a, parts):
        return self._join([self.add(part, a) for part in parts])

    def _repeat(self, a, part, least, most):
        for _ in range(least):
            a = self.add(part, a)
        if most is None:
            a = self._join([a])                 # the loop comes back to here
            self.jumps[self.add(part, a)].append(a)
            return self._join([a])
        ends = [a]
        for _ in range(most - least):
            ends.append(self.add(part, ends[-1]))
        return self._join(ends)

    def _call(self, a, rule):
        new = self.node()
        self.calls[a].append((rule, new))
        return new


# ch08_inference/lab_decoding.ipynb [dec-automaton]
class ByteAutomaton(_Nodes):
    """Nodes joined by bytes, by nothing, or by calls of rules.

    rules: {name: form}; start: the name of the rule that a whole text has.
    A node has `edges` (low, high, node), `jumps` (node) and `calls` (rule,
    node to come back to). `ends[name]`: the first and last node of a rule;
    `distance[node]`: the fewest bytes to the end of its rule. ValueError if
    no text has this form, or it needs more than most_nodes. Sources:
    Thompson 1968; Woods 1970 (calls). Built in the lab on decoding.
    """

    def __init__(self, rules, start="", most_nodes=200_000):
        super().__init__(most_nodes)
        self.start, self.ends = start, {}
        for name, form in rules.items():
            first = self.node()
            self.ends[name] = first, self.add(form, first)
        self.lasts = {last for _, last in self.ends.values()}
        self.distance = [math.inf] * len(self.edges)
        for last in self.lasts:
            self.distance[last] = 0
        while self._shorten():
            pass
        if math.isinf(self.distance[self.ends[start][0]]):
            raise ValueError("no text has this form")

    def _shorten(self):
        """Look at each node once; is anything nearer than was known?"""
        far, shorter = self.distance, False
        for node in reversed(range(len(far))):
            ways = [far[to] for to in self.jumps[node]]
            ways += [1 + far[to] for *_, to in self.edges[node]]
            ways += [far[self.ends[rule][0]] + far[back]
                     for rule, back in self.calls[node]]
            if min(ways, default=math.inf) < far[node]:
                far[node], shorter = min(ways), True
        return shorter


# ch08_inference/lab_decoding.ipynb [dec-closure]
def _without_a_byte(automaton, stacks):
    """The stacks that `stacks` lead to by jumps, calls and returns alone.

    Only those that can read a byte, and the empty one, from all of which a
    complete text can be reached; a frozenset.
    """
    m, todo, seen = automaton, list(stacks), set()
    deepest = max(map(len, stacks)) + len(m.ends)
    while todo:
        stack = todo.pop()
        if stack in seen or any(m.distance[n] == math.inf for n in stack):
            continue
        if len(stack) > deepest:
            raise ValueError("a rule calls itself before it writes anything")
        seen.add(stack)
        if stack:
            below, node = stack[:-1], stack[-1]
            todo += [(*below, to) for to in m.jumps[node]]
            todo += [(*below, back, m.ends[rule][0])
                     for rule, back in m.calls[node]]
            todo += [below] if node in m.lasts else []
    return frozenset(s for s in seen if not s or m.edges[s[-1]])


# ch08_inference/lab_decoding.ipynb [dec-states]
class StateTable:
    """The states in which a ByteAutomaton can be, numbered as they turn up.

    A state is a set of stacks, one for each way to have read the bytes so
    far: a stack holds where to go on when the rules at hand have ended, and,
    on top, the node reached. The empty stack stands for a complete text.
    State 0 has read nothing. Source: Rabin and Scott 1959. Built in the lab
    on decoding.
    """

    def __init__(self, automaton):
        self.automaton, self.states, self._number = automaton, [], {}
        self._rows, self._far = {}, []
        self._enter([(automaton.ends[automaton.start][0],)])

    def _enter(self, stacks):
        state = _without_a_byte(self.automaton, stacks)
        if state not in self._number:
            self._number[state] = len(self.states)
            self.states.append(state)
            far = self.automaton.distance
            self._far.append(min(sum(far[n] for n in s) for s in state))
        return self._number[state]

    def row(self, state) -> dict:
        """{byte: state} of all bytes that may come in a state."""
        if state not in self._rows:
            m, row = self.automaton, {}
            moves = [(low, high, (*s[:-1], to)) for s in self.states[state]
                     if s for low, high, to in m.edges[s[-1]]
                     if m.distance[to] < math.inf]
            cuts = sorted({at for a, b, _ in moves for at in (a, b + 1)})
            for first, end in itertools.pairwise(cuts):
                stacks = [s for a, b, s in moves if a <= first <= b]
                if stacks:
                    to = self._enter(stacks)
                    row |= dict.fromkeys(range(first, end), to)
            self._rows[state] = row
        return self._rows[state]

    def complete(self, state) -> bool:
        """May the text end here?"""
        return () in self.states[state]

    def distance(self, state) -> int:
        """The fewest bytes from here to a complete text."""
        return self._far[state]

    def read(self, data, state=0):
        """The state after some bytes, or None where one may not come."""
        for byte in data:
            state = self.row(state).get(byte)
            if state is None:
                return None
        return state


# ch08_inference/lab_decoding.ipynb [dec-trie]
def token_trie(tokenizer):
    """The ordinary tokens by their bytes: {byte: (ids that end here, trie)}.

    ValueError if a byte is no token of its own: then there might be a text
    that cannot be gone on with. Built in the lab on decoding.
    """
    special = set(tokenizer.special_tokens.values())
    trie = {}
    for token, data in enumerate(tokenizer.token_bytes):
        if token not in special:
            at = trie
            for byte in data[:-1]:
                at = at.setdefault(byte, ([], {}))[1]
            at.setdefault(data[-1], ([], {}))[0].append(token)
    if len(trie) < 256 or not all(ids for ids, _ in trie.values()):
        raise ValueError("this tokenizer has not every byte as a token")
    return trie


# ch08_inference/lab_decoding.ipynb [dec-grammar]
class TokenGrammar:
    """A form for `SamplingParams.allowed`: which ids may come next.

    automaton: a ByteAutomaton; tokenizer: with all bytes among its tokens;
    end: the id that ends the answer, allowed where the text is complete.
    max_new_tokens: with it, only what leaves room to complete the text, the
    end included, is allowed. Called with the new ids it returns a mask (V,),
    bool. ValueError if max_new_tokens are too few, and on ids that the form
    forbids. Source: Willard and Louf 2023. Built in the lab on decoding.
    """

    def __init__(self, automaton, tokenizer, end, max_new_tokens=None):
        self.table, self.tokenizer = StateTable(automaton), tokenizer
        self.end, self.room = end, max_new_tokens
        self._trie, self._needs = token_trie(tokenizer), {}
        needed = self.table.distance(0) + 1
        if max_new_tokens is not None and max_new_tokens < needed:
            raise ValueError(f"the shortest answer has {needed} bytes with "
                             f"its end: max_new_tokens={max_new_tokens} is "
                             "too few")

    def state(self, ids):
        """The number of the state after ids; ValueError if they break it."""
        state = self.table.read(self.tokenizer.decode_bytes(ids))
        if state is None:
            raise ValueError("the text so far has not the form")
        return state

    def needs(self, state):
        """How many tokens suffice after each next one, (V,); inf: never."""
        if state not in self._needs:
            needs = [math.inf] * self.tokenizer.vocab_size
            self._walk(self._trie, state, needs)
            if self.table.complete(state):
                needs[self.end] = 0.0
            self._needs[state] = torch.tensor(needs)
        return self._needs[state]

    def _walk(self, trie, state, needs):
        for byte, to in self.table.row(state).items():
            if byte in trie:
                ids, longer = trie[byte]
                for token in ids:
                    needs[token] = self.table.distance(to) + 1.0   # the end
                self._walk(longer, to, needs)

    def __call__(self, new):
        left = math.inf if self.room is None else self.room - len(new) - 1
        needs = self.needs(self.state(new))
        return (needs <= left) & (needs < math.inf)


# ch08_inference/lab_decoding.ipynb [dec-regex-grammar]
def regex_grammar(pattern, tokenizer, end, max_new_tokens=None):
    """A TokenGrammar: the answer has the form of a regular expression.

    pattern: as for `parse_regex`. Built in the lab on decoding.
    """
    return TokenGrammar(ByteAutomaton({"": parse_regex(pattern)}), tokenizer,
                        end, max_new_tokens)


# ch08_inference/lab_decoding.ipynb [dec-json-string]
_SHORT = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 34: '"', 92: "\\"}
_CONTROL = [*range(32), 127]
_ALL = [(0, 0x10FFFF)]


def _in_json(ranges):
    """The form of a character of `ranges` as a JSON string spells it.

    What may stand as it is does so; a quotation mark, a backslash and the
    control characters are escaped. Built in the lab on decoding.
    """
    chars = _outside([*_outside(ranges), *((c, c) for c in _CONTROL),
                     (34, 34), (92, 92)])
    has = {c for c in {*_SHORT, *_CONTROL}
           if any(a <= c <= b for a, b in ranges)}
    parts = [("set", chars)]
    if short := [(ord(s), ord(s)) for c, s in _SHORT.items() if c in has]:
        parts.append(("all", [_exactly("\\"), ("set", short)]))
    for high in 0, 1, 7:
        low = [(ord(d), ord(d)) for c in has.intersection(_CONTROL)
               if c // 16 == high for d in {f"{c % 16:x}", f"{c % 16:X}"}]
        if low:
            parts.append(("all", [_exactly(f"\\u00{high}"), ("set", low)]))
    return "any", parts


def _spelled(form):
    """The same form with each character as a JSON string spells it."""
    kind, *rest = form
    if kind == "set":
        return _in_json(rest[0])
    if kind == "repeat":
        return kind, _spelled(rest[0]), *rest[1:]
    return kind, [_spelled(part) for part in rest[0]]


# ch08_inference/lab_decoding.ipynb [dec-json-values]
def _string_form(least=0, most=None, pattern=None):
    """The form of a JSON string of least to most characters, or a pattern.

    pattern: found anywhere in the string unless it begins with ^ and ends
    with $. Built in the lab on decoding.
    """
    more = "repeat", ("call", "character"), least, most
    if pattern is None:
        return "all", [_exactly('"'), more, _exactly('"')]
    first = pattern.startswith("^")
    last = bool(re.search(r"(?<!\\)(\\\\)*\$$", pattern))
    form = parse_regex(pattern[first:len(pattern) - last])
    if form[0] == "any" and (first or last):
        raise ValueError(f"the pattern {pattern!r}: put the alternatives "
                         "between ^ and $ into a group")
    return "all", [_exactly('"'), *([] if first else [more]), _spelled(form),
                   *([] if last else [more]), _exactly('"')]


def _list_form(first, item, comma, last, least=0, most=None):
    """The form of least to most items between two signs.

    item: a form. Built in the lab on decoding.
    """
    if most == 0:
        return _exactly(first + last)
    more = "repeat", ("all", [_exactly(comma), item]), max(least - 1, 0), (
        most and most - 1)
    items = "all", [item, more]
    return "all", [_exactly(first), items if least else _maybe(items),
                   _exactly(last)]


def _object_form(parts, comma):
    """The form of a JSON object; parts: (form of "name: value", required).

    Properties come in this order; one that is not required may be left out.
    Built in the lab on decoding.
    """
    begun, fresh = ("all", []), ("all", [])  # what may follow from here on
    for form, required in reversed(parts):
        start, more = ("all", [form, begun]), ("all", [_exactly(comma), form])
        fresh = start if required else ("any", [start, fresh])
        begun = "all", [more if required else _maybe(more), begun]
    return "all", [_exactly("{"), fresh, _exactly("}")]


# ch08_inference/lab_decoding.ipynb [dec-json-look]
_TYPES = {"string": str, "integer": int, "number": (int, float),
          "boolean": bool, "null": type(None), "array": list, "object": dict}
_NOTES = {"title", "description", "default", "examples", "$schema", "$id",
          "$comment", "$defs", "definitions"}


def _is_a(value, kind):
    """Has a value of Python the type that JSON calls `kind`?"""
    return isinstance(value, _TYPES[kind]) and (
        kind == "boolean" or not isinstance(value, bool))


def _known_keys(pointer, schema, *known):
    """ValueError if a schema has keys that are not known here."""
    if odd := sorted(set(schema) - _NOTES - set(known)):
        raise ValueError(f"{pointer} uses {', '.join(odd)}, which is not "
                         f"supported; known here: {', '.join(known)}")


def _kinds(pointer, schema, otherwise):
    kinds = schema.get("type", otherwise)
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or not set(kinds) <= set(_TYPES):
        raise ValueError(f"{pointer} has the type {kinds}: it must be of "
                         f"{', '.join(_TYPES)}")
    return kinds


def _bounds(pointer, schema, least, most):
    low, high = schema.get(least, 0), schema.get(most)
    for name, n in (least, low), (most, high):
        if n is not None and not (_is_a(n, "integer") and n >= 0):
            raise ValueError(f"{pointer}: {name} must be a whole number from "
                             f"0 up, not {n!r}")
    if high is not None and high < low:
        raise ValueError(f"{pointer}: {most} is less than {least}")
    return low, high


# ch08_inference/lab_decoding.ipynb [dec-json-rules]
class JsonRules:
    """The rules of a JSON schema: one for each schema in it, by its pointer.

    schema: a dict or bool; separators: as for `json.dumps`. `rules`: {name:
    form}; `start`: the name of the first. ValueError tells what is not
    supported. Built in the lab on decoding.
    """

    def __init__(self, schema, separators=(", ", ": ")):
        self.schema, (self.comma, self.colon) = schema, separators
        self.rules = {"character": _in_json(_ALL)}
        self.start = self.call("#", schema)[1]

    def call(self, pointer, schema):
        """The call of a schema's rule, which is made when first called."""
        if not isinstance(schema, (dict, bool)):
            raise ValueError(f"{pointer} is not a schema: {schema!r}")
        if schema is True or schema is not False and not set(schema) - _NOTES:
            pointer, schema = "anything", {"type": list(_TYPES)}
        if pointer not in self.rules:
            self.rules[pointer] = None      # begun, so that it can call itself
            self.rules[pointer] = self.form(pointer, schema)
        return "call", pointer

    def form(self, pointer, schema):
        """The form of a schema with keys, or of False, which nothing has."""
        if schema is False:
            return "any", []
        if "$ref" in schema:
            _known_keys(pointer, schema, "$ref")
            return self.call(schema["$ref"], self._find(schema["$ref"]))
        if "anyOf" in schema:
            _known_keys(pointer, schema, "anyOf")
            return "any", [self.call(f"{pointer}/anyOf/{i}", part)
                           for i, part in enumerate(schema["anyOf"])]
        for key in "const", "enum":
            if key in schema:
                _known_keys(pointer, schema, key, "type")
                values = [schema[key]] if key == "const" else schema[key]
                return "any", [_exactly(self._text(v)) for v in values if any(
                    _is_a(v, k) for k in _kinds(pointer, schema, [*_TYPES]))]
        kinds = _kinds(pointer, schema, None)
        known = [key for k in kinds for key in _JSON_FORMS[k][1]]
        _known_keys(pointer, schema, "type", *known)
        return "any", [_JSON_FORMS[k][0](self, pointer, schema)
                       for k in kinds]

    def _text(self, value):
        return json.dumps(value, ensure_ascii=False, allow_nan=False,
                          separators=(self.comma, self.colon))

    def _find(self, pointer):
        """The schema to which a pointer within the schema points."""
        at = self.schema
        first, *names = str(pointer).split("/")
        try:
            for name in names:
                name = name.replace("~1", "/").replace("~0", "~")
                at = at[int(name) if isinstance(at, list) else name]
        except (KeyError, IndexError, ValueError, TypeError):
            first = None
        if first != "#":
            raise ValueError(f"$ref {pointer!r} leads nowhere in this schema")
        return at


# ch08_inference/lab_decoding.ipynb [dec-json-forms]
def _json_string(rules, pointer, schema):
    bounds = _bounds(pointer, schema, "minLength", "maxLength")
    if "pattern" in schema and bounds != (0, None):
        raise ValueError(f"{pointer} has a pattern and a length: the pattern "
                         "has to say both")
    return _string_form(*bounds, schema.get("pattern"))


def _json_array(rules, pointer, schema):
    item = rules.call(pointer + "/items", schema.get("items", True))
    return _list_form("[", item, rules.comma, "]", *_bounds(
        pointer, schema, "minItems", "maxItems"))


def _json_object(rules, pointer, schema):
    named = schema.get("properties", {})
    required, others = schema.get("required", []), schema.get(
        "additionalProperties", True)
    if missing := [name for name in required if name not in named]:
        raise ValueError(f"{pointer} requires {missing[0]!r}, which is none "
                         "of its properties")
    if not named and others is not False:    # names that nobody has laid down
        value = rules.call(pointer + "/additionalProperties", others)
        return _list_form("{", ("all", [
            _string_form(), _exactly(rules.colon), value]), rules.comma, "}")
    parts = []
    for name, part in named.items():
        at = name.replace("~", "~0").replace("/", "~1")
        value = rules.call(f"{pointer}/properties/{at}", part)
        parts.append((("all", [_exactly(rules._text(name) + rules.colon),
                               value]), name in required))
    return _object_form(parts, rules.comma)


# ch08_inference/lab_decoding.ipynb [dec-json-grammar]
def _plain(form):
    return lambda rules, pointer, schema: form


_WHOLE = r"-?(0|[1-9][0-9]*)"
_JSON_FORMS = {                            # how it is made, and of which keys
    "string": (_json_string, ("minLength", "maxLength", "pattern")),
    "array": (_json_array, ("items", "minItems", "maxItems")),
    "object": (_json_object, ("properties", "required",
                              "additionalProperties")),
    "integer": (_plain(parse_regex(_WHOLE)), ()),
    "number": (_plain(parse_regex(
        _WHOLE + r"(\.[0-9]+)?([eE][+\-]?[0-9]+)?")), ()),
    "boolean": (_plain(parse_regex("true|false")), ()),
    "null": (_plain(_exactly("null")), ()),
}


def json_grammar(schema, tokenizer, end, max_new_tokens=None,
                 separators=(", ", ": ")):
    """A TokenGrammar: the answer is JSON that a schema describes.

    schema: a dict or bool with type, properties, required,
    additionalProperties, items, minItems, maxItems, minLength, maxLength,
    pattern, enum, const, anyOf and $ref (within it, recursive too). Where
    properties are named, only those are written, in their order. separators:
    as for `json.dumps`. ValueError on any other key. Built in the lab on
    decoding.
    """
    made = JsonRules(schema, separators)
    return TokenGrammar(ByteAutomaton(made.rules, made.start), tokenizer, end,
                        max_new_tokens)


# ch08_inference/lab_tools.ipynb [tools-calculate]
_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub,
               ast.Mult: operator.mul}


def _value(node):
    """The number that a parsed sum comes to."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](
            _value(node.left), _value(node.right))
    raise ValueError("neither a whole number nor an operation")


def calculate(text: str) -> str:
    """What a sum comes to, as text.

    text: whole numbers, brackets, +, - and *, at most 60 characters. Raises
    ValueError, with a sentence that a model may read, for anything else.
    Nothing in the text is ever executed. Built in the lab on tools.
    """
    try:
        if len(text) <= 60:
            return str(_value(ast.parse(text.strip(), mode="eval").body))
    except (SyntaxError, ValueError):
        pass
    raise ValueError(f"{text[:60]!r} is not a sum of at most 60 characters")


# ch08_inference/lab_tools.ipynb [tools-loop]
def read_call(tools, said):
    """(name, wish) of a call, None if an answer is no call.

    tools: by name. A call begins with the name of one; the wish is what
    follows it. Built in the lab on tools.
    """
    for name in tools:
        if said.startswith(f"{name} "):
            return name, said.removeprefix(f"{name} ")
    return None


def use_tool(tools, said):
    """The result of a call, as text; None if an answer is no call.

    tools: functions from text to text, by name; see `read_call`. A ValueError
    of the tool becomes the result "error: …". Built in the lab on tools.
    """
    if (call := read_call(tools, said)) is None:
        return None
    name, wish = call
    try:
        return tools[name](wish)
    except ValueError as error:
        return f"error: {error}"


def answer_with_tools(model, tokenizer, questions, tools, max_new_tokens=60,
                      calls=3):
    """Answer each question, obeying at most so many calls of tools.

    tools: see `use_tool`. Returns for each question its conversation, a list
    of messages: the user's question, then by turns the assistant's calls and,
    from the system, their results, and last the answer (a call, if there were
    no more to be had). A conversation that has filled the context ends with
    the system's word. Built in the lab on tools.
    """
    chat = ChatFormat(tokenizer)
    talks = [[{"role": "user", "content": q}] for q in questions]
    for left in range(calls, -1, -1):  # one round more: the last may not call
        waiting, prompts = [], []
        for talk in talks:
            if talk[-1]["role"] == "assistant":
                continue
            prompt = chat.encode(talk, True)
            if len(prompt) < model.config.context_length:
                waiting.append(talk)
                prompts.append(prompt)
        answers = generate_batch(model, prompts, max_new_tokens,
                                 (chat.end, chat.pad), batch_size=128)
        for talk, answer in zip(waiting, answers):
            said = chat.decode(answer)
            talk.append({"role": "assistant", "content": said})
            if left and (result := use_tool(tools, said)) is not None:
                talk.append({"role": "system", "content": result})
    return talks
