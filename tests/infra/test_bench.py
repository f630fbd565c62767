"""Laws of the load bench, against a fake server behind httpx's transport seam."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from cluster.__main__ import cli
from infra.bench import BenchError, BenchOptions, BenchReport, render, run_bench
from infra.bench.endpoint import Endpoint, connect
from infra.bench.options import GENERATE, Prompt, load_prompts
from infra.bench.sample import Sample, TurnResult
from infra.bench.schedule import Question, Turn, question, turns
from infra.bench.stats import compare, mode_stats, paired_ratios, spread

PROMPTS = tuple(Prompt(str(i), f"kind{i // 4}", f"prompt {i}") for i in range(8))
COUNTS = {"draft_tokens": 8, "full_rows": 6, "full_passes": 2, "tokens_by_tier": {"draft": 3}}


class FakeServer(httpx.AsyncBaseTransport):
    """Streams "<prompt> a b c" as four tokens; `texts`, `faults` change a mode's answer."""

    def __init__(self, texts: dict | None = None, faults: dict | None = None):
        self.texts = texts or {}
        self.faults = faults or {}
        self.bodies: list[dict] = []
        self.headers: list[httpx.Headers] = []
        self.active: list[str] = []
        self.most_active = 0
        self.mixed = False
        self.complete = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.headers.append(request.headers)
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "fake"}]})
        body = json.loads(request.content)
        self.bodies.append(body)
        fault = self.faults.get(self.mode_of(body))
        if fault == "status":
            return httpx.Response(503, text="too\nbusy")
        return httpx.Response(200, stream=Answer(self, body, fault))

    def mode_of(self, body: dict) -> str:
        return body.get("viaserve", {}).get("mode", "default")

    @property
    def modes_asked(self) -> list[str]:
        return [self.mode_of(body) for body in self.bodies]


class Answer(httpx.AsyncByteStream):
    """One streamed answer; notes what runs beside it."""

    def __init__(self, server: FakeServer, body: dict, fault: str | None):
        self.server, self.body, self.fault = server, body, fault

    async def __aiter__(self) -> AsyncIterator[bytes]:
        server, mode = self.server, self.server.mode_of(self.body)
        server.active.append(mode)
        server.most_active = max(server.most_active, len(server.active))
        server.mixed = server.mixed or len(set(server.active)) > 1
        await asyncio.sleep(0)
        text = self.body["messages"][0]["content"] + server.texts.get(mode, " a b c")
        try:
            yield event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
            for piece in text.split(" "):
                yield event({"choices": [{"delta": {"content": piece + " "}}]})
            if self.fault == "event":
                yield event({"error": {"message": "worker lost"}})
            if self.fault == "hang":
                await asyncio.Event().wait()
            if self.fault == "cut":
                return
            usage = {"completion_tokens": 4}
            yield b": a comment\n\n"
            yield event({"choices": [], "usage": usage, "viaserve": {"mode": mode, **COUNTS}})
            yield b"data: [DONE]\n\n"
            server.complete += 1
        finally:
            server.active.remove(mode)


def event(message: dict) -> bytes:
    return b"data: " + json.dumps(message).encode() + b"\n\n"


@pytest.fixture
def prompts_file(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    fields = [{"id": p.id, "category": p.category, "turns": [p.text, "more"]} for p in PROMPTS]
    path.write_text("\n".join(json.dumps(line) for line in fields) + "\n")
    return path


def options(path: Path, **changed) -> BenchOptions:
    return BenchOptions(**{"prompts": path, "modes": ("off", "two", "three"), **changed})


async def bench(path: Path, server: FakeServer, **changed) -> BenchReport:
    return await run_bench(options(path, **changed), server)


def sample(mode: str, prompt: int, seconds: float, text: str = "x", tokens: int = 10) -> Sample:
    asked = Question(mode, PROMPTS[prompt], 1, 0)
    return Sample(asked, text, tokens, seconds, (seconds / 2, seconds), COUNTS)


def result(*samples: Sample) -> TurnResult:
    turn = Turn(samples[0].question.mode, 1, tuple(s.question for s in samples))
    return TurnResult(turn, samples, sum(s.e2e_s for s in samples))


def test_modes_take_turns_on_each_chunk_and_the_first_rotates(tmp_path: Path):
    found = list(turns(options(tmp_path, rounds=2), PROMPTS[:4], ("a", "b", "c"), 2))
    assert [turn.mode for turn in found] == list("abcbcacababc")
    chunks = [tuple(q.prompt.id for q in turn.questions) for turn in found]
    assert chunks == [("0", "1")] * 3 + [("2", "3")] * 3 + [("0", "1")] * 3 + [("2", "3")] * 3
    assert {turn.questions[0].round for turn in found[6:]} == {1}


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_one_mode_at_a_time_and_never_more_streams_than_asked(prompts_file, concurrency):
    server = FakeServer()
    await bench(prompts_file, server, concurrency=(concurrency,), warmup=0, waves=2)
    assert server.most_active == concurrency
    assert not server.mixed
    assert server.complete == len(server.bodies)


async def test_every_mode_gets_every_prompt_with_the_same_seed(prompts_file):
    server = FakeServer()
    report = await bench(prompts_file, server, seed=7, rounds=2, concurrency=(1, 4), warmup=0)
    assert {body["seed"] for body in server.bodies} == {7}
    for mode in ("off", "two", "three"):
        assert server.modes_asked.count(mode) == 8 * 2 * 2
    assert [(s.concurrency, s.mode, s.requests) for s in report.modes] == [
        (c, mode, 16) for c in (1, 4) for mode in ("off", "two", "three")
    ]


async def test_request_carries_the_options_and_the_key_stays_out_of_the_report(prompts_file):
    server = FakeServer()
    changed = {"gamma": 3, "block": 5, "ignore_eos": True, "api_key": "hush", "limit": 1}
    report = await bench(prompts_file, server, modes=("two",), max_tokens=9, **changed)
    body = server.bodies[-1]
    assert body["viaserve"] == {"mode": "two", "gamma": 3, "block": 5}
    assert (body["model"], body["max_tokens"], body["ignore_eos"]) == ("fake", 9, True)
    assert body["stream_options"] == {"include_usage": True}
    assert server.headers[-1]["authorization"] == "Bearer hush"
    assert "hush" not in report.to_json() + render(report)


async def test_default_mode_sends_no_extension(prompts_file):
    server = FakeServer()
    await bench(prompts_file, server, modes=("default",), limit=1)
    assert all("viaserve" not in body for body in server.bodies)


def test_random_plans_are_seeded_and_in_bounds(tmp_path: Path):
    asked = options(tmp_path, random_plan=True, gamma=3, block=5)
    plans = [
        (q.gamma, q.block) for p in PROMPTS for q in [question(asked, "two", p, 1, r) for r in "ab"]
    ]
    again = [
        (q.gamma, q.block) for p in PROMPTS for q in [question(asked, "two", p, 1, r) for r in "ab"]
    ]
    assert plans == again
    assert len(set(plans)) > 3
    assert {gamma for gamma, _ in plans} <= {1, 2, 3}
    assert {block for _, block in plans} <= {1, 2, 3, 4, 5}


async def test_equal_texts_are_identical(prompts_file):
    report = await bench(prompts_file, FakeServer(), require_identical=True)
    assert (report.identity.prompts, report.identity.differ) == (8, 0)
    assert not report.failed
    assert "the same text for 8 of 8 prompts" in render(report)


@pytest.mark.parametrize("require", [False, True])
async def test_divergence_is_found_and_fails_only_where_equality_is_required(prompts_file, require):
    server = FakeServer(texts={"three": " a X c"})
    report = await bench(prompts_file, server, require_identical=require)
    first = report.identity.first
    assert report.identity.differ == 8
    assert first is not None
    assert (first.prompt_id, first.modes) == ("0", ("off@1", "three@1"))
    assert first.index == len("prompt 0 a ")
    assert (first.context[0][-4:], first.context[1][-4:]) == ("b c ", "X c ")
    assert report.failed is require
    assert "off@1 and three@1 part at character 11" in render(report)


def test_shorter_text_parts_at_its_end():
    found = compare([sample("a", 0, 1, "same"), sample("b", 0, 1, "same and more")])
    assert found.first is not None
    assert found.first.index == 4


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("status", "HTTP 503: too busy"),
        ("event", "worker lost"),
        ("cut", "ended without [DONE]"),
        ("hang", "no complete answer in 0.05 s"),
    ],
)
async def test_errors_are_counted_and_the_first_is_shown(prompts_file, fault, message):
    server = FakeServer(faults={"two": fault})
    changed = {"modes": ("off", "two"), "warmup": 0, "timeout_s": 0.05 if fault == "hang" else 9}
    report = await bench(prompts_file, server, limit=2, **changed)
    assert (report.errors, report.failed) == (2, True)
    assert message in report.first_error
    assert message in render(report)
    off, two = report.modes
    assert (off.errors, two.errors, two.tokens, two.ratio) == (0, 2, 0, None)


async def test_failed_warm_up_ends_the_run_with_its_reason(prompts_file):
    with pytest.raises(BenchError, match="warm-up of mode two failed: HTTP 503"):
        await bench(prompts_file, FakeServer(faults={"two": "status"}))


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_server_error_is_told_in_its_words_alone(prompts_file, streamed):
    body = {"error": {"message": "This model has no\n chat template.", "type": "invalid_request"}}

    def refuse(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/models"):
            return httpx.Response(200, json={"data": [{"id": "m"}]})
        return (
            httpx.Response(200, content=event(body)) if streamed else httpx.Response(400, json=body)
        )

    with pytest.raises(BenchError) as told:
        await run_bench(options(prompts_file), httpx.MockTransport(refuse))
    said = "error in the stream" if streamed else "HTTP 400"
    assert str(told.value).endswith(f"{said}: This model has no chat template.")


async def test_absent_server_is_one_readable_line(prompts_file):
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    with pytest.raises(BenchError, match=r"no server answers at .*: connection refused"):
        await run_bench(options(prompts_file), httpx.MockTransport(refuse))


async def test_server_counts_become_figures_per_token(prompts_file):
    report = await bench(prompts_file, FakeServer(), limit=4)
    stats = report.modes[0]
    assert (stats.full_passes_per_token, stats.full_rows_per_token) == (0.5, 1.5)
    assert stats.draft_acceptance == 3 / 8
    assert (stats.requests, stats.tokens) == (4, 16)


async def test_server_without_the_extension_leaves_those_figures_out(prompts_file, monkeypatch):
    monkeypatch.setattr("infra.bench.endpoint.EXTENSION", "other")
    report = await bench(prompts_file, FakeServer(), modes=("default",), limit=1)
    assert report.modes[0].full_rows_per_token is None


def test_percentiles_interpolate_and_nothing_has_none():
    found = spread(range(1, 12))
    assert found is not None
    assert (found.p50, found.p90) == (6.0, 10.0)
    assert spread([]) is None


def test_ratios_are_paired_by_prompt():
    off = [result(sample("off", 0, 10), sample("off", 1, 1))]
    two = [result(sample("two", 0, 5), sample("two", 1, 2), sample("two", 2, 9))]
    assert paired_ratios(two, off) == pytest.approx([0.5, 2.0])
    stats = mode_stats(two, off)
    assert stats.ratio is not None
    assert stats.ratio.p50 == pytest.approx(1.25)
    assert stats.tokens_per_s == pytest.approx(30 / 16)
    assert stats.ttft_s == spread([2.5, 1, 4.5])
    assert stats.token_s == spread([2.5 / 9, 1 / 9, 4.5 / 9])


async def test_report_is_one_json_line_and_a_table(prompts_file):
    report = await bench(prompts_file, FakeServer())
    line = report.to_json()
    assert "\n" not in line
    assert json.loads(line)["modes"][2]["mode"] == "three"
    assert json.loads(line)["failed"] is False
    table = render(report)
    assert all(mode in table for mode in ("off", "two", "three"))


def test_limit_spreads_over_the_file(prompts_file):
    assert [prompt.id for prompt in load_prompts(prompts_file, 4)] == ["0", "2", "4", "6"]
    assert len(load_prompts(prompts_file, 99)) == 8


def test_a_prompt_may_hold_any_character_that_json_may(tmp_path: Path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"turns": ["a\u2028b\u0085c"]}\r\n', encoding="utf-8", newline="")
    assert [prompt.text for prompt in load_prompts(path)] == ["a\u2028b\u0085c"]


@pytest.mark.parametrize("line", ["{", "[]", '{"turns": []}', '{"turns": [1]}'])
def test_bad_prompt_is_named_by_its_line(tmp_path: Path, line: str):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"turns": ["fine"]}\n' + line + "\n")
    with pytest.raises(BenchError, match=r"prompts\.jsonl:2: not a prompt"):
        load_prompts(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"modes": ()},
        {"modes": ("a", "a")},
        {"concurrency": (0,)},
        {"limit": 0},
        {"warmup": -1},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
        {"temperature": float("inf")},
        {"temperature": -0.1},
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, changed):
    with pytest.raises(BenchError):
        options(tmp_path, **changed)


@pytest.mark.parametrize("url", ["http://host:1", "http://host:1/", "http://host:1/v1"])
def test_url_may_end_in_v1_or_not(tmp_path: Path, url: str):
    assert str(connect(options(tmp_path, url=url), None).base_url) == "http://host:1/v1/"


CHILD = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["content"] == "prompt 6":
        sys.exit(3)
    text = asked["content"] + " a b c "
    print(json.dumps({"text": text, "tokens": 4, "e2e_s": 1.0, "chunk_s": [0.5, 1]}), flush=True)
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "fake_generate.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("infra.bench.baseline.CHILD", "fake_generate")
    return tmp_path


async def test_baseline_takes_turns_at_the_first_concurrency_only(prompts_file, child):
    changed = {"baseline_generate": child, "concurrency": (1, 2), "threads": 1}
    report = await bench(prompts_file, FakeServer(), modes=("off",), limit=2, **changed)
    rows = [(stats.mode, stats.concurrency) for stats in report.modes]
    assert rows == [("off", 1), (GENERATE, 1), ("off", 2)]
    assert report.generate is not None
    assert (report.generate.prompts, report.generate.differ) == (2, 0)
    assert not report.failed


async def test_baseline_that_dies_is_an_error_of_its_own(prompts_file, child):
    report = await bench(prompts_file, FakeServer(), modes=("off",), baseline_generate=child)
    assert report.errors == 2
    assert report.first_error == "generate: generate: its process ended with 3"
    assert report.modes[0].errors == 0


async def test_endpoint_times_each_piece(prompts_file):
    server = FakeServer()
    asked = options(prompts_file, modes=("off",))
    async with connect(asked, server) as client:
        found = await Endpoint(client, asked, "fake").ask(Question("off", PROMPTS[0], 1, 0))
    assert found.ok
    assert len(found.chunk_s) == 5
    assert list(found.chunk_s) == sorted(found.chunk_s)
    assert found.e2e_s >= found.chunk_s[-1]


def test_command_prints_a_table_and_a_line_or_the_line_alone(prompts_file, monkeypatch, tmp_path):
    def to_fake(options: BenchOptions, transport: object) -> httpx.AsyncClient:
        return connect(options, FakeServer(faults={"three_tier": "cut"}))

    monkeypatch.setattr("infra.bench.run.connect", to_fake)
    out = tmp_path / "out.json"
    given = ["bench", "--prompts", str(prompts_file), "--warmup", "0", "--out", str(out)]
    both = CliRunner().invoke(cli, given)
    assert both.exit_code == 1, "requests failed"
    table, line = both.stdout.rstrip().rsplit("\n", 1)
    assert table.lstrip().startswith("mode")
    assert json.loads(line)["errors"] == len(PROMPTS)
    alone = CliRunner().invoke(cli, [*given, "--json", "--modes", "off,two_tier"])
    assert alone.exit_code == 0
    assert json.loads(alone.stdout)["failed"] is False
    assert out.read_text() == alone.stdout
    assert "requests" in alone.stderr, "progress"


async def test_progress_counts_every_request_once(prompts_file):
    told = []
    await run_bench(options(prompts_file, rounds=2), FakeServer(), lambda *seen: told.append(seen))
    total = 2 * 3 * len(PROMPTS)
    assert [done for done, _, _ in told] == list(range(1, total + 1))
    assert {whole for _, whole, _ in told} == {total}
    assert told[0][2] == "off"
