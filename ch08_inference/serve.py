"""Serve the model that you trained, or talk with it in the terminal.

python ch08_inference/serve.py            a server and a page to chat on
python ch08_inference/serve.py --chat     in the terminal
python ch08_inference/serve.py --model base --temperature 0.8 --chat
"""

import argparse
import sys
from pathlib import Path

from llm_utils import (
    BPETokenizer,
    Engine,
    SamplingParams,
    artifact,
    chat_in_terminal,
    create_app,
    load_model,
)

PAGE = Path(__file__).with_name("chat.html")


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Serve the model that you trained, or talk with it."
    )
    parser.add_argument(
        "--chat", action="store_true", help="talk in the terminal"
    )
    parser.add_argument(
        "--model", help="dpo (as long as it is there), instruct, base or a path"
    )
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="default 8000")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="--chat only, default 0"
    )
    return parser.parse_args(arguments)


def model_folder(name: str | None) -> Path:
    """The folder of a model by its name or path; the best there is if None."""
    if name is None:
        name = "dpo" if artifact("dpo").exists() else "instruct"
    makers = {"base": "ch05", "instruct": "ch06", "dpo": "ch07"}
    if name in makers:
        return artifact(name, made_by=makers[name])
    return Path(name)


def main(arguments: list[str] | None = None) -> int:
    wanted = options(arguments)
    try:
        folder = model_folder(wanted.model)
        model, _ = load_model(folder)
        tokenizer = BPETokenizer.load(folder)
        params = SamplingParams(
            temperature=wanted.temperature, max_new_tokens=200
        )
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if wanted.chat:
        print("Ask something about the valley; an empty line ends the talk.")
        chat_in_terminal(model, tokenizer, params)
        return 0
    import uvicorn

    app = create_app(Engine(model, tokenizer, name=folder.name), PAGE)
    print(f"The chat page: http://{wanted.host}:{wanted.port}/  (Ctrl-C ends)")
    uvicorn.run(app, host=wanted.host, port=wanted.port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
