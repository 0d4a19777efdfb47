"""What tests start in place of llama-server. The file's name and the prompt say what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from struct import pack
from typing import Any

ARGUMENTS = sys.argv[1:]
MODEL = Path(ARGUMENTS[ARGUMENTS.index("--model") + 1])
PORT = int(ARGUMENTS[ARGUMENTS.index("--port") + 1])
META = {"n_ctx": 256, "n_ctx_train": 512, "n_vocab": 10, "n_embd": 2, "n_params": 9, "size": 99}


def note(kind: str, what: Any) -> None:
    """Write down what happened, for the test."""
    with MODEL.with_suffix(f".{kind}").open("a") as file:
        file.write(json.dumps(what) + "\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer({}, 503 if MODEL.stem == "stalls" else 200)
        elif self.allowed():
            self.answer({} if MODEL.stem == "mute" else {"data": [{"meta": META}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self.allowed():
            return
        note("requests", [self.path, body])
        if self.path == "/apply-template":
            self.answer({"prompt": f"<{body['messages'][-1]['content']}>"})
        elif self.path == "/v1/embeddings":
            vector = b64encode(pack("<2f", 3, 4)).decode()
            data = [{"index": i, "embedding": vector} for i in range(len(body["input"]))]
            self.answer({"data": data, "usage": {"prompt_tokens": 2}})
        elif self.path == "/v1/rerank":
            data = [{"index": i, "relevance_score": 0.5} for i in range(len(body["documents"]))]
            self.answer({"results": data, "usage": {"prompt_tokens": 2}})
        else:
            self.complete(body["prompt"])

    def complete(self, prompt: Any) -> None:
        error = {"message": "too long", "type": "exceed_context_size_error", "n_ctx": 256}
        if prompt == "too long":
            self.answer({"error": error}, 400)
        elif prompt == "odd":
            self.answer(["?"], 500)
        else:
            self.stream(prompt)

    def stream(self, prompt: Any) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        progress = {"total": 3, "cache": 1, "processed": 3, "time_ms": 500}
        self.send({"content": "", "stop": False, "prompt_progress": progress})
        count = 10**9 if prompt == "endless" else 300 if prompt == "long" else 1
        probs = [{"id": 1, "token": "a", "bytes": [97], "prob": 0.5, "top_probs": []}]
        try:
            for number in range(count):
                said = {"content": "ab", "stop": False, "tokens_predicted": number + 1}
                self.send(said | {"tokens_evaluated": 3, "completion_probabilities": probs})
        except OSError:
            note("closed", prompt)
            return
        if prompt == "die":
            os._exit(3)
        elif prompt == "silent":
            time.sleep(60)
        elif prompt == "garbage":
            self.wfile.write(b"data: {\n\n")
        elif prompt == "error":
            self.send({"error": {"message": "no", "type": "unavailable_error"}})
        elif prompt != "half":
            timings = {"cache_n": 1, "prompt_ms": 1000, "predicted_ms": 2000}
            end = {"content": "", "stop": True, "stop_type": "eos", "timings": timings}
            self.send(end | {"tokens_predicted": count, "tokens_evaluated": 3})
        self.close_connection = True

    def send(self, event: dict[str, Any]) -> None:
        self.wfile.write(f": ping\n\ndata: {json.dumps(event)}\n\n".encode())

    def allowed(self) -> bool:
        allowed = self.headers["authorization"] == f"Bearer {os.environ['LLAMA_API_KEY']}"
        if not allowed:
            self.answer({"error": {"message": "who are you?"}}, 401)
        return allowed

    def answer(self, what: Any, status: int = 200) -> None:
        data = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    note("starts", ARGUMENTS)
    starts = len(MODEL.with_suffix(".starts").read_text().splitlines())
    match MODEL.stem:
        case "oom":
            sys.exit("ggml_backend_cpu_buffer: failed to allocate buffer of size 1")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "broken":
            sys.exit("no such tensor")
        case "port" if starts < 3:
            sys.exit(f"couldn't bind HTTP server socket, port: {PORT}")
        case "ports":
            sys.exit(f"couldn't bind HTTP server socket, port: {PORT}")
        case "relapse" if starts > 1:
            sys.exit("no such tensor")
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()


main()
