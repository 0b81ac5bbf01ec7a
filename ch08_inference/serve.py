"""Serve the model that you trained, or talk with it in the terminal.

python ch08_inference/serve.py            a server and a page to chat on
python ch08_inference/serve.py --chat     in the terminal
python ch08_inference/serve.py --model base --temperature 0.8 --chat
python ch08_inference/serve.py --model gpt2-124m --chat
"""

import argparse
import sys
from pathlib import Path

from llm_utils import (
    BPETokenizer,
    Engine,
    PlainText,
    SamplingParams,
    artifact,
    chat_in_terminal,
    create_app,
    load_model,
    load_pretrained,
)

PAGE = Path(__file__).with_name("chat.html")
PRETRAINED = "gpt2-124m"
MODELS = (
    "dpo (as long as it is there), instruct, base or a path; "
    f"{PRETRAINED}, {PRETRAINED}/instruct or {PRETRAINED}/base for the "
    "weights that come with the book"
)


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Serve the model that you trained, or talk with it."
    )
    parser.add_argument(
        "--chat", action="store_true", help="talk in the terminal"
    )
    parser.add_argument("--model", help=MODELS)
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="default 8000")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="--chat only, default 0"
    )
    return parser.parse_args(arguments)


def model_folder(name: str) -> Path:
    """The folder of a model by its name or path."""
    makers = {"base": "ch05", "instruct": "ch06", "dpo": "ch07"}
    if name in makers:
        return artifact(name, made_by=makers[name])
    return Path(name)


def load(name: str):
    """(model, tokenizer, the dict of its training) by a name or path."""
    known, _, stage = name.partition("/")
    if known == PRETRAINED:
        return *load_pretrained(known, stage or "dpo"), {}
    folder = model_folder(name)
    model, training = load_model(folder)
    return model, BPETokenizer.load(folder), training


def greeting(base: bool, training: dict) -> str:
    """What to type; only the valley's models know the valley."""
    if base:
        return "Begin a text, and the model goes on; an empty line ends it."
    valley = "pocket_world" in str(training.get("data"))
    about = " about the valley" if valley else ""
    return f"Ask something{about}; an empty line ends the talk."


def main(arguments: list[str] | None = None) -> int:
    wanted = options(arguments)
    name = wanted.model or ("dpo" if artifact("dpo").exists() else "instruct")
    base = Path(name).name == "base"  # it continues, and answers nothing
    try:
        model, tokenizer, training = load(name)
        params = SamplingParams(
            temperature=wanted.temperature, max_new_tokens=200
        )
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    plain = PlainText(tokenizer) if base else None
    if wanted.chat:
        print(greeting(base, training))
        chat_in_terminal(model, tokenizer, params, chat=plain)
        return 0
    import uvicorn

    shown = name if name.startswith(PRETRAINED) else Path(name).name
    engine = Engine(model, tokenizer, name=shown)
    engine.chat = plain or engine.chat
    app = create_app(engine, PAGE)
    print(f"The chat page: http://{wanted.host}:{wanted.port}/  (Ctrl-C ends)")
    uvicorn.run(app, host=wanted.host, port=wanted.port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
