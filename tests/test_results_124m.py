"""The record of the 124M run: whole, and its figures agree with each other."""

import json
import math
import re

import numpy as np
import pytest
import torch

import chapters
import keys
import llm_utils as lu
import readme

FOLDER = lu.project_root() / "results" / "gpt2-124m"
ASKED = {
    "parameters",
    "tokens",
    "tokens_per_second",
    "utilisation",
    "hardware",
    "versions",
    "commands",
    "config",
    "curve",
    "data_card",
    "sha256",
    "evaluation",
    "samples",
}
PARTS = ("run", "compare", "pack", "classify", "instruct", "evaluate")


@pytest.fixture(scope="module")
def record():
    """Every file of the record, by its name."""
    return {f.stem: lu.read_json(f) for f in sorted(FOLDER.glob("*.json"))}


@pytest.fixture(scope="module")
def runs(record):
    """The base's run, and the two short ones."""
    two = {name: record["compare"][name] for name in ("modern", "classic")}
    return {"base": record["run"], **two}


def strings(value, at=()):
    """(path, text) of every text in a value of JSON."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield (*at, "key"), key
            yield from strings(part, (*at, key))
    elif isinstance(value, list):
        for part in value:
            yield from strings(part, at)


def bytes_per_token(figures):
    return figures["loss"] / math.log(2) / figures["bits_per_byte"]


def test_the_record_is_whole(record):
    run = record["run"]
    assert set(PARTS) <= set(record)
    assert [key for key in sorted(ASKED) if not run.get(key)] == []
    assert set(run["parts"]) == set(record) - {"run"}
    assert len(run["samples"]) == 20
    assert run["samples"] == record["samples"]["base"]
    assert re.fullmatch("[0-9a-f]{64}", run["sha256"])
    assert {"torch", "python", "cuda"} <= set(run["versions"])
    for name, part in record.items():
        assert part["command"] and part["hardware"]["device"], name


def test_the_parts_are_of_one_run(record):
    run = record["run"]
    assert run["evaluation"] == record["evaluate"]["base"]
    assert run["validation"]["loss"] == pytest.approx(
        record["pack"]["loss"]["float32"], abs=1e-3
    )
    assert run["evaluation"]["loss"] == pytest.approx(
        run["validation"]["loss"], abs=1e-3
    )
    losses = record["pack"]["loss"]
    assert record["pack"]["cost"] == losses["8 bits"] - losses["float32"]
    cards = {record[name]["hardware"]["device"] for name in PARTS}
    assert len(cards) == 1


@pytest.mark.parametrize("name", ["base", "modern", "classic"])
def test_the_tokens_are_those_of_the_steps(runs, name):
    run = runs[name]
    config = run["config"]["train"]
    most = config["steps"] * config["batch_size"] * config["context"]
    assert run["steps"] == config["steps"]
    assert 0.99 * most < run["tokens"] <= most


def test_the_text_was_read_at_most_four_times(record):
    run = record["run"]
    text = run["data_card"]["splits"]["train"]["bytes"]
    epochs = run["tokens"] * bytes_per_token(run["validation"]) / text
    assert 1 < epochs <= 4


@pytest.mark.parametrize("name", ["base", "modern", "classic"])
def test_the_parameters_are_those_of_the_config(runs, name):
    run = runs[name]
    shape = lu.ModelConfig.from_dict(run["config"]["model"])
    with torch.device("meta"):
        assert lu.count_parameters(lu.GPT(shape)) == run["parameters"]


@pytest.mark.parametrize("name", ["base", "modern", "classic"])
def test_the_curve_goes_forward(runs, name):
    run = runs[name]
    curve = run["curve"]
    sizes = {len(curve[key]) for key in ("tokens", "seconds", "train")}
    assert len(sizes) == 1
    for key, last in (("tokens", run["tokens"]), ("seconds", run["seconds"])):
        assert (np.diff(curve[key]) > 0).all()
        assert 0 < curve[key][0] < curve[key][-1] <= last
    points = curve["validation"]
    assert (np.diff([p["tokens"] for p in points]) > 0).all()
    assert points[-1]["step"] == run["steps"]
    assert points[-1]["tokens"] == run["tokens"]
    assert np.isfinite([p["loss"] for p in points] + curve["train"]).all()


@pytest.mark.parametrize("name", ["base", "modern", "classic"])
def test_the_speed_follows_from_the_curve(record, runs, name, monkeypatch):
    run = runs[name]
    tokens, seconds = (np.array(run["curve"][k]) for k in ("tokens", "seconds"))
    first = np.flatnonzero(seconds >= min(60, seconds[-1] / 2))[0]
    speed = (tokens[-1] - tokens[first]) / (seconds[-1] - seconds[first])
    assert run["tokens_per_second"] == pytest.approx(speed, rel=1e-3)

    device = record["run"]["hardware"]["device"]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: device)
    peak = lu.peak_flops.__wrapped__("cuda", "bfloat16")
    shape = lu.ModelConfig.from_dict(run["config"]["model"])
    each = lu.flops_per_token(shape, run["config"]["train"]["context"])
    assert run["utilisation"] == pytest.approx(speed * each / peak, rel=1e-3)
    assert 0 < run["utilisation"] < 1


def test_bits_per_byte_follow_from_the_loss(record):
    """One text has one number of bytes a token, whatever the loss."""
    run = record["run"]
    whole = bytes_per_token(run["validation"])
    assert bytes_per_token(run["evaluation"]) == pytest.approx(whole, rel=1e-9)
    some = [bytes_per_token(p) for p in run["curve"]["validation"]]
    assert some == pytest.approx([some[0]] * len(some), rel=1e-9)
    assert some[0] == pytest.approx(whole, rel=0.05)
    two = [bytes_per_token(record["compare"][n]) for n in ("modern", "classic")]
    assert two[0] == pytest.approx(two[1], rel=1e-9)


def test_shares_are_shares(record):
    found = record["evaluate"]
    for task in lu.BENCHMARKS:
        marks, n = found["base"][task], found["examples"][task]
        assert 0 <= found["chance"][task] <= marks["acc"] + 0.1 <= 1.1
        share = marks["acc"]
        error = math.sqrt(share * (1 - share) / (n - 1))
        assert marks["acc_stderr"] == pytest.approx(error, rel=1e-6)
    for mark in record["classify"]["test"].values():
        low, high = mark["interval"]
        assert 0 <= low <= mark["accuracy"] <= high <= 1
        assert 0 <= mark["balanced_accuracy"] <= 1
    assert all(0 <= v <= 1 for v in record["instruct"]["stopped"].values())


def test_the_record_names_no_place_on_a_machine(record):
    """Samples are left out: they may say what they like."""
    place = re.compile(r"(?:^|[\s=\"'(])(?:~|/[\w.-]+)/\w|\b[A-Z]:\\")
    assert place.search("python a.py --data /some/where")
    assert [
        text
        for name, part in record.items()
        for at, text in strings(part)
        if name != "samples" and "samples" not in at and place.search(text)
    ] == []


def test_a_chapter_depends_on_the_record_it_draws(monkeypatch, tmp_path):
    exports = keys.Exports((keys.ROOT / "llm_utils.py").read_text("utf-8"))
    found = {
        chapter.number
        for chapter in chapters.existing()
        if "results/gpt2-124m" in keys.key(chapter, "pocket", exports)
    }
    assert found == {5, 6, 8}
    chapter = chapters.CHAPTERS[4]
    old = keys.key(chapter, "pocket", exports)
    digest = keys.file_digest
    monkeypatch.setattr(
        keys,
        "file_digest",
        lambda path: "another" if path == FOLDER else digest(path),
    )
    new = keys.key(chapter, "pocket", exports)
    assert keys.changes(old, new) == ["results/gpt2-124m"]


def test_the_readme_holds_the_figures_of_the_run(monkeypatch, tmp_path):
    told = readme.README.read_text("utf-8")
    assert readme.large_figures(FOLDER) in told
    for part in PARTS:
        figures = lu.read_json(FOLDER / f"{part}.json")
        (tmp_path / f"{part}.json").write_text(json.dumps(figures), "utf-8")
    run = lu.read_json(tmp_path / "run.json")
    run["tokens_per_second"] *= 2
    (tmp_path / "run.json").write_text(json.dumps(run), "utf-8")
    monkeypatch.setattr(readme, "LARGE", tmp_path)
    assert readme.main(["--check"]) == 1
