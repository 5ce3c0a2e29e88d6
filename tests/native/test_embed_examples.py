"""The programs of examples/embed: each builds and classifies the digits as Python does."""
from __future__ import annotations

import http.client
import http.server
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from native.tools import tool

import torturous as torch
from torturous.nn import functional as F

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "embed"
FLAGS = ["-O2", "-Wall", "-Wextra", "-Werror"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What make.py writes, after a short training."""
    folder = tmp_path_factory.mktemp("embed")
    subprocess.run([sys.executable, EXAMPLES / "make.py", folder, "--epochs", "4"], check=True, capture_output=True,
                   env={**os.environ, "PYTHONPATH": str(ROOT)})
    return folder


@pytest.fixture(scope="module")
def right(built: Path) -> str:
    """What a program should print: the digits that the weights classify right in Python."""
    w = torch.load(built / "net" / "net.safetensors")
    images, labels = digits(built)
    x = F.relu(F.max_pool2d(F.conv2d(torch.tensor(images), w["conv1.weight"], w["conv1.bias"]), 2))
    x = F.relu(F.max_pool2d(F.conv2d(x, w["conv2.weight"], w["conv2.bias"]), 2))
    x = F.relu(F.linear(x.view(-1, 320), w["fc1.weight"], w["fc1.bias"]))
    scores = F.linear(x, w["fc2.weight"], w["fc2.bias"]).numpy()
    correct = int((scores.argmax(1) == labels).sum())
    assert correct > len(labels) // 2
    return f"{correct} of {len(labels)} digits are right\n"


def digits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    content = (folder / "digits.bin").read_bytes()
    count = int.from_bytes(content[:4], "little")
    end = 4 + count * 784 * 4
    return np.frombuffer(content[4:end], "<f4").reshape(count, 1, 28, 28).copy(), np.frombuffer(content[end:], np.uint8)


def output(*command: str | Path, **environment: str) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def compiled(built: Path, source: str, bundle: str, *options: str) -> Path:
    program = built / Path(source).stem
    subprocess.run([tool("cc"), *FLAGS, f"-I{built / bundle}", EXAMPLES / source, built / bundle / f"lib{bundle}.a",
                    "-o", program, *options], check=True)
    return program


def test_programs_that_measure_compile(built: Path) -> None:
    for source, bundle in (("c/speed.c", "net"), ("c/step_speed.c", "train")):
        compiled(built, source, bundle, "-pthread", "-lm")


def test_c(built: Path, right: str) -> None:
    program = compiled(built, "c/classify.c", "net")
    assert output(program, built / "net" / "net.safetensors", built / "digits.bin") == right


def test_cpp(built: Path, right: str) -> None:
    cmake, _ = tool("cmake"), tool("g++")
    folder = built / "cpp"
    subprocess.run([cmake, "-S", EXAMPLES / "cpp", "-B", folder, f"-DCMAKE_PREFIX_PATH={built / 'net'}"], check=True,
                   capture_output=True)
    subprocess.run([cmake, "--build", folder], check=True, capture_output=True)
    assert output(folder / "classify", built / "net" / "net.safetensors", built / "digits.bin") == right


def test_pkg_config(built: Path) -> None:
    flags = output(tool("pkg-config"), "--cflags", "--libs", "net", PKG_CONFIG_PATH=str(built / "net"))
    program = built / "by_pkg_config"
    subprocess.run([tool("cc"), EXAMPLES / "c" / "classify.c", *flags.split(), "-o", program], check=True)


def test_rust(built: Path, right: str) -> None:
    cargo, _ = tool("cargo"), tool("rustc")
    said = output(cargo, "run", "-q", "--offline", "--release", "--manifest-path", EXAMPLES / "rust" / "Cargo.toml",
                  "--", built / "net" / "net.safetensors", built / "digits.bin",
                  NET_BUNDLE=str(built / "net"), CARGO_TARGET_DIR=str(built / "rust"))
    assert said == right


def test_python(built: Path, right: str) -> None:
    tool("ld", "ld.lld")
    said = output(sys.executable, EXAMPLES / "python" / "classify.py", built / "digits.bin",
                  PYTHONPATH=str(built / "net"))
    assert said == right


GO = """
package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"

	"example.org/classify/net"
)

func main() {
	weights, _ := os.ReadFile(os.Args[1])
	content, _ := os.ReadFile(os.Args[2])
	count := int(binary.LittleEndian.Uint32(content))
	images := make([]float32, count*784)
	for k := range images {
		images[k] = math.Float32frombits(binary.LittleEndian.Uint32(content[4+4*k:]))
	}
	labels := content[4+4*len(images):]
	model, err := net.New(weights)
	if err != nil {
		panic(err)
	}
	workspace, err := net.NewWorkspace(64)
	if err != nil {
		panic(err)
	}
	correct := 0
	for first := 0; first < count; first += 64 {
		batch := min(64, count-first)
		scores := make([]float32, batch*10)
		if err := model.Run(images[first*784:(first+batch)*784], scores, batch, workspace); err != nil {
			panic(err)
		}
		for k := 0; k < batch; k++ {
			best := 0
			for d := 1; d < 10; d++ {
				if scores[10*k+d] > scores[10*k+best] {
					best = d
				}
			}
			if byte(best) == labels[first+k] {
				correct++
			}
		}
	}
	if model.Run(images[:784], make([]float32, 9), 1, workspace) == nil {
		panic("a slice that is too short")
	}
	fmt.Printf("%d of %d digits are right\\n", correct, count)
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}
"""


def test_go(built: Path, right: str) -> None:
    go, _ = tool("go"), tool("cc")
    folder = built / "go"
    (folder / "net").mkdir(parents=True)
    for name in ("net.go", "net.h", "libnet.a"):
        shutil.copy(built / "net" / name, folder / "net")
    (folder / "go.mod").write_text("module example.org/classify\n\ngo 1.18\n")
    (folder / "main.go").write_text(GO)
    subprocess.run([go, "build", "-o", "classify", "."], cwd=folder, check=True,
                   env={**os.environ, "GOFLAGS": "-mod=mod", "GOCACHE": str(built / "gocache"), "GOPROXY": "off"})
    assert output(folder / "classify", built / "net" / "net.safetensors", built / "digits.bin") == right


def test_training_goes_on_in_c(built: Path) -> None:
    program = compiled(built, "c/continue.c", "train")
    result = built / "trained.safetensors"
    said = output(program, built / "train" / "train.safetensors", built / "training.bin", result)
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", said)]
    assert len(losses) == 8 and losses[-1] < losses[0] / 2
    # Python and the inference library read what came out.
    state = torch.load(result)
    assert int(state["torturous.step"]) > 0
    classify = compiled(built, "c/classify.c", "net")
    assert int(output(classify, result, built / "digits.bin").split()[0]) > 180


def test_a_server_under_load(built: Path) -> None:
    """A thousand requests over sixteen connections, every answer right."""
    program = compiled(built, "server/server.c", "net", "-pthread", "-lm", "-D_GNU_SOURCE")
    images, _ = digits(built)
    pixels = np.clip(np.rint((images.reshape(len(images), 784) * 0.3081 + 0.1307) * 255), 0, 255).astype(np.uint8)
    server = subprocess.Popen(
        [program, built / "net" / "net.safetensors", "0", "16"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline().split()[-1])
        answers: dict[int, int] = {}
        times: list[float] = []

        def ask(connection_number: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            for number in range(connection_number, 1000, 16):
                started = time.perf_counter()
                connection.request("POST", "/classify", pixels[number % len(pixels)].tobytes())
                response = connection.getresponse()
                body = json.loads(response.read())
                times.append(time.perf_counter() - started)
                assert response.status == 200 and abs(sum(body["probabilities"]) - 1) < 1e-3
                answers[number] = body["digit"]
            connection.close()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == list(range(1000))
        for number, digit in answers.items():  # The same question has the same answer.
            assert digit == answers[number % len(pixels)]
        print(f"1,000 requests, p99 {1e3 * float(np.percentile(times, 99)):.2f} ms")
        for request, status in (("GET /classify", 404), ("POST /classify", 400)):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request(*request.split(), body=b"too short")
            assert connection.getresponse().status == status
            connection.close()
    finally:
        server.kill()
        server.wait()


class Served(http.server.SimpleHTTPRequestHandler):
    """The page's folder; the page says itself what it looks like as soon as it is ready."""
    REPORT = b"""<script>
      new MutationObserver(() => fetch("/seen", {method: "POST", body: document.documentElement.outerHTML}))
        .observe(document.body, {attributeFilter: ["data-ready"]});
    </script>"""

    def __init__(self, *request: object, seen: queue.Queue[str], directory: str) -> None:
        self.seen = seen
        super().__init__(*request, directory=directory)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.path != "/index.html":
            super().do_GET()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write((Path(self.directory) / "index.html").read_bytes() + self.REPORT)

    def do_POST(self) -> None:
        self.seen.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("drawing, digit", [("140,40,140,240", "1"), ("70,50,200,50,120,240", "7")])
def test_the_page(drawing: str, digit: str, built: Path, tmp_path: Path) -> None:
    """Headless Chromium draws with the mouse; the page shows the digit."""
    tool("wasm-ld")
    browser = tool("chromium", "chromium-browser", "google-chrome")
    seen: queue.Queue[str] = queue.Queue()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Served, seen=seen, directory=str(built / "wasm")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    said = tmp_path / "said"
    with said.open("w") as said_by_browser:
        running = subprocess.Popen(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}",
             f"http://127.0.0.1:{server.server_port}/index.html#{drawing}"],
            stdout=said_by_browser, stderr=said_by_browser)
    try:
        page = seen.get(timeout=120)
    except queue.Empty:
        pytest.fail(f"the page never was ready; the browser said {said.read_text()[-2000:]}")
    finally:
        running.kill()
        running.wait()
        server.shutdown()
    assert f'data-digit="{digit}"' in page
