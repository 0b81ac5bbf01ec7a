"""Serve the model that you trained, or talk with it in the terminal.

python ch08_inference/serve.py            a server and a page to chat on
python ch08_inference/serve.py --chat     in the terminal
python ch08_inference/serve.py --model base --temperature 0.8 --chat
python ch08_inference/serve.py --model gpt2-124m --chat
"""

import argparse
import contextlib
import os
import socket
import sys
from pathlib import Path

from llm_utils import (
    BPETokenizer,
    Engine,
    FastGPT,
    Limits,
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
LOCAL = ("127.0.0.1", "localhost", "[::1]")
MODELS = (
    "dpo (as long as it is there), instruct, base or a path; "
    f"{PRETRAINED}, {PRETRAINED}/instruct or {PRETRAINED}/base for the "
    "weights that come with the book"
)

CLIENT = """\
from Python, with the package openai:

  client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
  client.chat.completions.create(model="dpo", messages=[…])

without it: curl http://127.0.0.1:8000/v1/completions \\
              -d '{"prompt": "The ferry", "max_tokens": 30}'
"""


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Serve the model that you trained, or talk with it.",
        epilog=CLIENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", metavar="NAME", help=MODELS)
    talk = parser.add_argument_group("in the terminal")
    talk.add_argument(
        "--chat", action="store_true", help="talk here, and serve nobody"
    )
    talk.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="0 (default): the likeliest word each time",
    )
    serve = parser.add_argument_group("who may come in")
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="127.0.0.1 (default) is this machine alone; 0.0.0.0 is everybody "
        "who can reach it: ask for a key then",
    )
    serve.add_argument(
        "--name",
        action="append",
        default=[],
        help="another name of this server, such as that of the proxy before "
        "it; may be given more than once",
    )
    serve.add_argument("--port", type=int, default=8000, help="default 8000")
    serve.add_argument(
        "--api-key",
        metavar="KEY",
        default=os.environ.get("LLM_API_KEY") or None,
        help="ask for this key; better put it into LLM_API_KEY, since the "
        "list of processes shows what stands here",
    )
    limits = parser.add_argument_group("limits")
    for name, kind, default, told in (
        ("--batch", int, 8, "answers written at the same time"),
        ("--queue", int, 64, "requests that may wait; the next get a 429"),
        ("--seconds", float, Limits.seconds, "for one answer"),
        ("--max-tokens", int, Limits.new_tokens, "in one answer"),
        ("--max-prompt", int, None, "tokens; default: the model's context"),
        ("--max-body", int, Limits.body_bytes, "bytes of one request"),
    ):
        shown = told if default is None else f"{told}; default {default:,.0f}"
        limits.add_argument(
            name, type=kind, default=default, metavar="N", help=shown
        )
    wanted = parser.parse_args(arguments)
    for name in ("batch", "queue", "seconds", "max_tokens", "max_body"):
        if not getattr(wanted, name) > 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0")
    if wanted.max_prompt is not None and wanted.max_prompt < 1:
        parser.error("--max-prompt must be above 0")
    return wanted


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
    model = FastGPT(model)
    plain = PlainText(tokenizer) if base else None
    if wanted.chat:
        print(greeting(base, training))
        chat_in_terminal(model, tokenizer, params, chat=plain)
        return 0
    shown = name if name.startswith(PRETRAINED) else Path(name).name
    engine = Engine(
        model,
        tokenizer,
        max_batch=wanted.batch,
        max_waiting=wanted.queue,
        name=shown,
    )
    engine.chat = plain or engine.chat
    return serve(engine, wanted)


def serve(engine: Engine, wanted: argparse.Namespace) -> int:
    """Answer over HTTP until somebody ends it; 1 if the port is taken."""
    import uvicorn

    version6 = ":" in wanted.host
    try:
        listener = socket.create_server(
            (wanted.host, wanted.port),
            family=socket.AF_INET6 if version6 else socket.AF_INET,
        )
    except (OSError, OverflowError) as error:
        print(
            f"{wanted.host}:{wanted.port} cannot be opened ({error}): "
            "--port takes another, 0 any that is free",
            file=sys.stderr,
        )
        return 1
    limits = Limits(
        wanted.max_body, wanted.max_prompt, wanted.max_tokens, wanted.seconds
    )
    local = wanted.host in ("127.0.0.1", "localhost", "::1")
    hosts = (*LOCAL, *wanted.name) if local else tuple(wanted.name)
    app = create_app(engine, PAGE, wanted.api_key, limits, hosts)
    if not (local or wanted.api_key):
        print(
            "Careful: everybody who can reach this machine may ask the model. "
            "LLM_API_KEY=… asks for a key.",
            file=sys.stderr,
        )
    at = f"[{wanted.host}]" if version6 else wanted.host
    home = f"http://{at}:{listener.getsockname()[1]}"
    print(
        f"The chat page: {home}/   for programs: {home}/v1   (Ctrl-C ends)",
        flush=True,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=3,
        )
    )
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
