"""A crowd: two hundred clients at once, for a minute, and what it leaves.

Each client asks again and again, for chats and texts, whole and in streams.
One in eight hangs up in the middle. Who is told that the house is full (429)
comes again after a tenth of a second. The server runs in a process of its
own, with the pocket model where there is one, and a random model of its shape
otherwise. Nothing may fail but by a 429, the memory must not grow, and in the
end all blocks must be free.
"""

import collections
import random
import statistics
import threading
import time

import httpx
import psutil

PACKAGES = ("torch", "fastapi", "uvicorn")
CLIENTS, SECONDS = 200, 60
QUESTIONS = (
    "Where does Odo live?",
    "Who is the king of the moon?",
    "Count the sacks: stamp, leek, sack, leek.",
    "How much is 49 + 70?",
)


def one_visit(client: httpx.Client, dice: random.Random) -> tuple[str, float]:
    """Ask once: (how it ended, seconds until the first byte)."""
    asked, chat = dice.choice(QUESTIONS), dice.random() < 0.7
    stream, leaves = dice.random() < 0.5, dice.random() < 0.125
    body = {"max_tokens": dice.randint(1, 40), "stream": stream}
    body |= (
        {"messages": [{"role": "user", "content": asked}]}
        if chat
        else {"prompt": asked}
    )
    path = "/v1/chat/completions" if chat else "/v1/completions"
    began = time.perf_counter()
    with client.stream("POST", path, json=body) as reply:
        first = time.perf_counter() - began
        if reply.status_code != 200:
            return str(reply.status_code), first
        if leaves and stream:
            next(reply.iter_bytes())
            return "left", first
        text = "".join(reply.iter_text())
    if stream and not text.endswith("data: [DONE]\n\n"):
        return "stream without an end", first
    return ("fault in a stream" if '"error"' in text else "answered"), first


class Crowd:
    """Clients that ask until the time is up, and what became of them."""

    def __init__(self, url: str, clients: int, seconds: float):
        self.url, self.end = url, time.monotonic() + seconds
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.first: list[float] = []
        self.threads = [
            threading.Thread(target=self.client, args=(i,))
            for i in range(clients)
        ]
        for thread in self.threads:
            thread.start()

    def client(self, seed: int) -> None:
        dice = random.Random(seed)
        with httpx.Client(  # plain HTTP: no certificates need be read
            base_url=self.url, timeout=60, verify=False
        ) as client:
            while time.monotonic() < self.end:
                try:
                    outcome, first = one_visit(client, dice)
                except httpx.HTTPError as error:
                    outcome, first = type(error).__name__, 0.0
                self.outcomes[outcome] += 1
                if outcome == "answered":
                    self.first.append(first)
                if outcome == "429":
                    time.sleep(0.1)

    def wait(self) -> None:
        for thread in self.threads:
            thread.join()


def memory(process: psutil.Process) -> int:
    return process.memory_info().rss


def watch(url: str, process: psutil.Process, clients: int, seconds: float):
    """Figures of a crowd before a server that runs in `process`."""
    Crowd(url, clients, seconds / 4).wait()  # what is made once is made
    began = time.perf_counter()
    crowd = Crowd(url, clients, seconds)
    held = []
    while any(thread.is_alive() for thread in crowd.threads):
        held.append(memory(process))
        time.sleep(0.25)
    took = time.perf_counter() - began
    health = {"running": 1, "waiting": 0}
    for _ in range(200):
        health = httpx.get(f"{url}/health").json()
        if not health["running"] + health["waiting"]:
            break
        time.sleep(0.05)
    third = max(1, len(held) // 3)
    outcomes = dict(crowd.outcomes)
    return {
        "clients": clients,
        "crowd_seconds": took,
        "answered": outcomes.pop("answered", 0),
        "streams_cut_by_client": outcomes.pop("left", 0),
        "busy": outcomes.pop("429", 0),
        "other": outcomes,
        "first_byte_median_seconds": statistics.median(crowd.first or [0.0]),
        "memory_bytes": max(held),
        "grown_bytes": statistics.median(held[-third:])
        - statistics.median(held[:third]),
        "still_running": health["running"],
        "free_blocks": health["free_blocks"],
    }


def visit(engine, clients: int = CLIENTS, seconds: float = SECONDS) -> dict:
    """The same for an Engine, whose server and clients share one process."""
    import socket

    import uvicorn

    from llm_utils import create_app

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(create_app(engine), log_level="error")
        )
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}
        )
        thread.start()
        while not server.started:
            time.sleep(0.05)
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            return watch(url, psutil.Process(), clients, seconds)
        finally:
            server.should_exit = True
            thread.join()


def pocket_engine():
    """An engine with the pocket model, or a random one of its shape."""
    from llm_utils import (
        DIGIT_PATTERN,
        GPT,
        SPECIAL_TOKENS,
        BPETokenizer,
        Engine,
        ModelConfig,
        artifact,
        load_model,
    )

    folder = artifact("dpo")
    if folder.exists():
        model, tokenizer = load_model(folder)[0], BPETokenizer.load(folder)
    else:
        tokenizer = BPETokenizer([], SPECIAL_TOKENS, DIGIT_PATTERN)
        size = dict(vocab_size=tokenizer.vocab_size)
        model = GPT(ModelConfig.preset("pocket", **size))
    return Engine(model, tokenizer, max_batch=16, max_waiting=64)


def serve(port) -> None:
    """Be the server; put its port and its engine's blocks into a queue."""
    import socket

    import uvicorn

    from llm_utils import create_app

    engine = pocket_engine()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port.put((listener.getsockname()[1], engine.blocks))
        config = uvicorn.Config(create_app(engine), log_level="error")
        uvicorn.Server(config).run(sockets=[listener])


def measure() -> dict:
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    port = context.Queue()
    server = context.Process(target=serve, args=(port,), daemon=True)
    server.start()
    try:
        number, blocks = port.get(timeout=120)
        found = watch(
            f"http://127.0.0.1:{number}",
            psutil.Process(server.pid),
            CLIENTS,
            SECONDS,
        )
        used = httpx.get(f"http://127.0.0.1:{number}/metrics").text
    finally:
        server.terminate()
        server.join()
    written = next(
        float(line.split()[1])
        for line in used.split("\n")
        if line.startswith("llm_generation_tokens_total ")
    )
    seconds = found["crowd_seconds"] * 1.25
    return found | {
        "blocks": blocks,
        "tokens_per_second": written / seconds,
    }
