"""The semantic stage: cached vectors, refusals with a reason, groups, and semantic duplicates."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import curation
from engine.core.config import save_settings
from engine.core.errors import BadInput, ServiceUnreachable, UsageProblem
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.dedup import semantic, tfidf
from engine.corpus.dedup.semantic import semantic_stage
from engine.corpus.dedup.semantic_guards import may_mean_the_same
from engine.corpus.embedding import calibration, embedder
from engine.corpus.embedding.backends import OllamaEmbedder, SentenceTransformerEmbedder, prefix_of
from engine.corpus.embedding.calibration import calibrate, confident_threshold, labelled_pairs, threshold
from engine.corpus.embedding.embedder import describe_embedder, open_embedder
from engine.corpus.embedding.measured import describe_effect
from engine.corpus.embedding.vector_cache import vectors
from engine.corpus.filters.cache import load
from engine.corpus.filters.normalise import letters
from engine.corpus.review.store import ReviewStore
from engine.corpus.stats import corpus_stats
from engine.health.grades import Grade
from engine.health.preflight import find_check
from engine.memory.records import Conversation
from engine.memory.store import MemoryStore
from engine.runs import network_guard
from tests.corpus_store import conversation, distinct, memory
from tests.embedder import save_embedder

if TYPE_CHECKING:
    from engine.corpus.embedding.backends import Matrix

TALKS = [
    conversation("a", "北京有哪些值得去的博物馆？", "可以去国家博物馆和首都博物馆，都要提前预约。", at=3.0),
    conversation("b", "去北京玩，有哪些值得去的博物馆？", "首都博物馆和国家博物馆都可以，要先预约。", at=2.0),
    conversation("c", "感冒了应该吃什么药？", "多喝水多休息，发烧时按说明书吃退烧药。", at=1.0),
]


def run(
    store: MemoryStore, tmp_path: Path, setting: str = "", settings: Settings | None = None
) -> list[tuple[str, str]]:
    """Builds with the semantic stage; what it logged, as (level, text)."""
    logged: list[tuple[str, str]] = []
    build_corpus(
        store,
        settings or Settings(),
        now=1.0,
        semantic_stage=partial(
            semantic_stage,
            setting=setting,
            root=tmp_path,
            log=lambda text, level: logged.append((level, text)),
        ),
    )
    return logged


def rows(store: MemoryStore) -> list[tuple[str, str, str, str]]:
    """Conversation, action, reason and duplicate of the rows of the stage, by external id."""
    return list(
        store.connection.execute(
            "SELECT c.external_id, l.action, l.reason, t.external_id FROM ledger l "
            "JOIN conversations c ON c.id = l.conversation_id JOIN conversations t ON t.id = l.twin "
            "WHERE l.stage = 'semantic' ORDER BY 1"
        )
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [turn.text for talk in TALKS for turn in talk.turns]
    texts += [text for pair in labelled_pairs() for text in (pair.one, pair.other)]
    characters = {character for text in texts for character in text.lower() if not character.isspace()}
    return save_embedder(tmp_path_factory.mktemp("model") / "tiny", "".join(characters))


class CountingEmbedder:
    """An embedder that counts the encoded texts."""

    def __init__(self, inner: SentenceTransformerEmbedder) -> None:
        self.inner = inner
        self.name = inner.name
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> Matrix:
        self.texts += texts
        return self.inner.encode(texts)

    def unknown_share(self, texts: Sequence[str]) -> float:
        return self.inner.unknown_share(texts)

    def fits_context(self, text: str) -> bool:
        return self.inner.fits_context(text)


def test_a_real_model_loads_offline_and_its_vectors_are_cached_by_content(
    tmp_path: Path, folder: Path
) -> None:
    with network_guard.loopback_only(), memory(tmp_path, TALKS) as store:
        model = CountingEmbedder(SentenceTransformerEmbedder(folder))
        ids = [talk.id for talk in store.conversations()]
        first = vectors(store, model, ids)
        assert first.shape == (3, 2, 32)
        assert np.allclose(np.linalg.norm(first, axis=2), 1.0, atol=1e-5)
        assert len(model.texts) == 1 + 2 * len(ids)
        model.texts.clear()
        again = vectors(store, model, ids[::-1])
        assert model.texts == ["?"]
        assert np.array_equal(again[::-1], first)
        ((kept, name),) = store.connection.execute("SELECT COUNT(*), embedder FROM embeddings GROUP BY 2")
        assert (kept, name) == (3, model.name)
        store.forget(ids[:1])
        assert store.connection.execute("SELECT COUNT(*) FROM embeddings").fetchone()[0] == 2


def test_an_embedder_groups_the_corpus_and_is_recorded(tmp_path: Path, folder: Path) -> None:
    with memory(tmp_path, TALKS) as store:
        logged = run(store, tmp_path, str(folder))
        assert [level for level, _text in logged] == ["info"]
        assert SentenceTransformerEmbedder(folder).name in logged[0][1]
        assert {action for _id, action, _reason, _twin in rows(store)} <= {"group"}
        dump = list(store.connection.iterdump())
        run(store, tmp_path, str(folder))
        assert list(store.connection.iterdump()) == dump


def test_an_embedder_with_unknown_tokens_is_replaced_by_ngrams(tmp_path: Path) -> None:
    small = save_embedder(tmp_path / "latin", "的了")
    with memory(tmp_path, TALKS) as store:
        logged = run(store, tmp_path, "latin")
        assert logged[0][0] == "warning"
        assert "does not know" in logged[0][1] and "2 %" in logged[0][1] and small.name in logged[0][1]
        assert "n-grams" in logged[1][1]
        assert rows(store) == [("a", "group", "alike", "b")]
        assert store.connection.execute("SELECT COUNT(*) FROM embeddings").fetchone()[0] == 0


def test_without_an_embedder_ngrams_group_and_nothing_is_dropped(tmp_path: Path) -> None:
    with memory(tmp_path, [*TALKS, *(distinct(n) for n in range(20))]) as store:
        (message,) = run(store, tmp_path)
        assert message[0] == "detail"
        assert rows(store) == [("a", "group", "alike", "b")]
        states = store.connection.execute("SELECT DISTINCT state, stage, reason FROM corpus").fetchall()
        assert states == [("accepted", "", "")]
        assert run(store, tmp_path, "off") == []
        assert rows(store) == []


def test_above_the_limit_only_the_newest_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfidf, "MAX_TEXTS", 2)
    with memory(tmp_path, TALKS) as store:
        logged = [text for _level, text in run(store, tmp_path)]
        assert "newest 2 of 3" in logged[0] and "n-grams" in logged[1]
        assert store.connection.execute("SELECT COUNT(*) FROM corpus").fetchone()[0] == 3
    with pytest.raises(ValueError, match="2 at most"):
        list(tfidf.similar_pairs(["a", "b", "c"]))


class SynonymEmbedder:
    """An embedder that knows the paraphrases among the labelled pairs and the synonyms used here."""

    name = "synonyms"
    meanings = (("好用", "实用"), ("哪款", "什么样的"), ("选择", "挑选"))

    def __init__(self) -> None:
        self.differ = {text for pair in labelled_pairs() if not pair.same for text in (pair.one, pair.other)}
        self.same = {
            pair.other: pair.one for pair in labelled_pairs() if pair.same and pair.other not in self.differ
        }

    def encode(self, texts: Sequence[str]) -> Matrix:
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> Matrix:
        text = self.same.get(text, text)
        if text not in self.differ:
            for one, other in self.meanings:
                text = text.replace(other, one)
            # embedders hardly see numbers and negation
            text = "".join(character for character in text if not character.isdigit()).replace("不要", "要")
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        vector = np.random.default_rng(seed).standard_normal(64).astype(np.float32)
        unit: Matrix = vector / np.linalg.norm(vector)
        return unit

    def unknown_share(self, texts: Sequence[str]) -> float:
        return 0.0

    def fits_context(self, text: str) -> bool:
        return len(text) <= 500


def shoes(
    id_: str, *, at: float, word: str = "实用", how: str = "要", price: int = 300, more: str = ""
) -> Conversation:
    return conversation(
        id_,
        f"平时跑步穿什么样的鞋比较{word}？",
        f"建议挑选{price}元左右、鞋底稍厚的那种，{how}买太重的，另外鞋带系紧一些会更{word}，下雨天注意防滑。"
        + more,
        at=at,
    )


@pytest.fixture
def synonym_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "open_embedder", lambda setting, root: SynonymEmbedder())


def test_only_confident_semantic_duplicates_are_dropped(tmp_path: Path, synonym_embedder: None) -> None:
    long = "还可以看看评测。" * 100
    talks = [
        shoes("kept", at=9.0),
        conversation(
            "twin",
            "平时跑步穿哪款鞋比较好用？",
            "建议选择300元左右、鞋底稍厚的那种，要买太重的，另外鞋带系紧一些会更好用，下雨天注意防滑。",
            at=8.0,
        ),
        shoes("price", at=7.0, price=900, word="好用"),
        shoes("negated", at=6.0, how="不要", word="好用"),
        shoes("longer", at=5.0, more=long),
        distinct(1),
    ]
    settings = Settings(near_threshold=1.0)
    with memory(tmp_path, talks) as store, ReviewStore(store.path) as review:
        logged = run(store, tmp_path, "any", settings)
        assert "semantic duplicates dropped: 1" in logged[0][1]
        found = {id_: (action, twin) for id_, action, _reason, twin in rows(store)}
        dropped = [id_ for id_, (action, _twin) in found.items() if action == "drop"]
        assert len(dropped) == 1 and dropped[0] in ("kept", "twin")
        assert {*dropped, found[dropped[0]][1]} == {"kept", "twin"}
        (item,) = review.page("stage:semantic state:dropped")
        assert (item.state, item.reason) == ("dropped", "same_meaning")
        assert len({row[0] for row in store.connection.execute(
            "SELECT k.cluster FROM corpus k JOIN conversations c ON c.id = k.conversation_id "
            "WHERE c.external_id IN ('kept', 'twin')"
        )}) == 1  # fmt: skip
        review.decide(item.id, "accepted")
        run(store, tmp_path, "any", settings)
        assert review.item(item.id).state == "accepted"
        review.undo()
        review.edit(str(item.duplicate_of), 1, "这双鞋我自己试过，很好。")
        run(store, tmp_path, "any", settings)
        assert review.count("stage:semantic state:dropped") == 0


def test_thresholds_are_measured_per_language_and_may_be_missing(folder: Path) -> None:
    assert calibrate(SentenceTransformerEmbedder(folder)).drops == {}
    found = calibrate(SynonymEmbedder())
    assert set(found.drops) == set(found.groups) == {"en", "zh"}
    sure = [(0.9, True)] * 19 + [(0.9, False)]
    assert threshold([*sure, (0.8, False), (0.7, True)]) == 0.9
    assert threshold([(0.9, True)] * 3) is None
    assert threshold([(0.9, True)] * 9 + [(0.9, False)]) is None
    assert threshold([]) is None


def test_dropping_needs_a_statistically_significant_threshold() -> None:
    assert confident_threshold([(0.9, True)] * 76) is None
    assert confident_threshold([(0.9, True)] * 77) == 0.9
    assert confident_threshold([(0.9, True)] * 77 + [(0.8, False)] * 5) == 0.9
    assert confident_threshold([(0.9, True)] * 114 + [(0.9, False)]) == 0.9
    assert confident_threshold([(0.9, True)] * 113 + [(0.9, False)]) is None
    assert confident_threshold([]) is None


@given(st.lists(st.tuples(st.floats(-1, 1), st.booleans()), max_size=300))
def test_the_confident_threshold_is_never_below_the_observed_one(cosines: list[tuple[float, bool]]) -> None:
    sure, seen = confident_threshold(cosines), threshold(cosines)
    if sure is not None:
        assert seen is not None and seen <= sure
        above = [same for cosine, same in cosines if cosine >= sure]
        assert sum(above) >= 0.95 * len(above)


def test_the_embedder_benchmark_scores_only_what_it_would_drop(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(pair.one, pair.other, pair.same) for pair in labelled_pairs() if pair.language == "zh"]
    (weak,) = curation._embedder(str(folder), rows[:20])
    assert weak.met and "no reliable threshold" in weak.notes
    monkeypatch.setattr(curation, "open_embedder", lambda setting, root: SynonymEmbedder())
    (sure,) = curation._embedder("any", rows)
    assert sure.met and sure.ours > 0.95 and "of the paraphrases" in sure.notes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("打开空调要多久", "关闭空调要多久"),
        ("房租是2000元", "房租是3000元"),
        ("可以吃", "不可以吃"),
        ("怎么用Linux", "怎么用Windows"),
        ("A队赢了B队", "B队赢了A队"),
        ("turn it on", "turn it off"),
        ("I do eat meat", "I don't eat meat"),
        ("Anna paid Bob", "Bob paid Anna"),
        ("你好", "hello"),
        ("Yes, it is safe for children.", "No, it is not safe for children."),
        ("Six minutes are enough for it.", "Ten minutes are enough for it."),
        ("Take it twice a day.", "Take it three times a day."),
        ("The first version came in spring.", "The second version came in spring."),
        ("Use half of the flour.", "Use two of the bags."),
        ("The museum is closed on Mondays.", "The museum is closed on Sundays."),
        ("It was written by Jane Austen.", "It was written by Emily Bronte."),
        ("Trains run from Paris to London.", "Trains run from London to Paris."),
        ("What exercises help against back pain?", "What exercises can cause back pain?"),
        ("My sister lent my brother her bicycle.", "My brother lent my sister his bicycle."),
        ("How do I sort in ascending order?", "How do I sort in descending order?"),
        ("How do I merge two branches in git?", "How do I rename two branches in git?"),
        ("Is it safe to eat raw salmon?", "Is it safe to eat salmon?"),
        ("Who is the oldest person alive?", "Who is the youngest person alive?"),
        ("How far is the moon from the earth?", "How far is the sun from the earth?"),
        ("三个月的宝宝能喝水吗", "三岁的宝宝能喝水吗"),
        ("周一开会", "周二开会"),
        ("第三章讲了什么", "第五章讲了什么"),
        ("轻的行李怎么寄", "重的行李怎么寄"),
    ],
)
def test_numbers_negation_names_and_order_change_the_meaning(one: str, other: str) -> None:
    assert not may_mean_the_same(one, other)
    assert may_mean_the_same(one, one) and may_mean_the_same(other, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I fix a leaking tap?", "My faucet drips; how can I repair it?"),
        ("Why do cats purr?", "What is the reason that cats purr?"),
        ("What is the capital of Australia?", "Which city is Australia's capital?"),
        ("How long does it take to boil an egg?", "For how many minutes should an egg be boiled?"),
        ("怎么重置我的密码？", "我忘了密码，应该怎样重新设置？"),
    ],
)
def test_other_words_may_mean_the_same(one: str, other: str) -> None:
    assert may_mean_the_same(one, other)


def test_the_guards_leave_most_labelled_paraphrases_and_few_that_only_look_alike() -> None:
    english = [pair for pair in labelled_pairs() if pair.language == "en"]
    passed = {
        same: [may_mean_the_same(pair.one, pair.other) for pair in english if pair.same == same]
        for same in (True, False)
    }
    assert sum(passed[True]) >= 0.8 * len(passed[True])
    assert sum(passed[False]) <= 0.1 * len(passed[False])


def test_every_two_members_of_a_group_are_alike(tmp_path: Path) -> None:
    """A common subject makes no group of everything: conversations lie on a line, each alike its next two."""
    talks = [distinct(n, at=1e9 - n) for n in range(30)]
    with memory(tmp_path, talks) as store:
        build_corpus(store, Settings())
        entries = load(store.connection, dict.fromkeys(sorted(talk.id for talk in talks), b"")).entries
        pairs = [(n - gap, n, 1.0 - gap / 10) for n in range(30) for gap in (1, 2) if n >= gap]
        groups = semantic._group(entries, pairs)
        members: dict[str, set[int]] = {}
        for place, entry in enumerate(entries):
            for row in entry.rows:
                members.setdefault(str(row.duplicate_of), set()).add(place)
    position = {entry.id: place for place, entry in enumerate(entries)}
    assert groups == len(members) > 5
    for leader, others in members.items():
        together = sorted({position[leader], *others})
        assert together[-1] - together[0] <= 2


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (("multilingual-e5-small", ""), "query: "),
        (("my model", "intfloat/e5-base-v2"), "query: "),
        (("jeffh/intfloat-multilingual-e5-large:f16",), "query: "),
        (("multilingual-e5-large-instruct", ""), ""),
        (("bge-small-zh-v1.5", "all-MiniLM-L6-v2"), ""),
    ],
)
def test_e5_gets_the_prefix_of_its_model_card(names: tuple[str, ...], prefix: str) -> None:
    assert prefix_of(*names) == prefix


def test_an_e5_model_encodes_its_prefix(tmp_path: Path) -> None:
    characters = "query: 你好"
    plain, e5 = (
        SentenceTransformerEmbedder(save_embedder(tmp_path / name, characters))
        for name in ("plain", "multilingual-e5-small")
    )
    assert np.allclose(e5.encode(["你好"]), plain.encode(["query: 你好"]), atol=1e-5)
    assert e5.name.endswith("-query") and not plain.name.endswith("-query")


def test_check_says_what_the_embedder_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_db = tmp_path / "memory" / "memory.db"
    assert describe_effect(memory_db, "off") == describe_effect(memory_db, "") == ""
    assert "until h2q-tui corpus build" in describe_effect(memory_db, "some/synonyms")
    synonyms = SynonymEmbedder()
    synonyms.name = "synonyms-1"
    monkeypatch.setattr(embedder, "open_embedder", lambda setting, root: synonyms)
    with memory(tmp_path, TALKS) as store:
        run(store, tmp_path, "some/synonyms")
    assert describe_effect(memory_db, "some/synonyms") == "leaves out semantic duplicates in en, zh"
    assert "until h2q-tui corpus build" in describe_effect(memory_db, "some/other")
    monkeypatch.setattr(calibration, "CONFIDENCE", 1.0)
    calibration.calibration_version.cache_clear()
    assert "until h2q-tui corpus build" in describe_effect(memory_db, "some/synonyms")
    with memory(tmp_path, TALKS) as store:
        run(store, tmp_path, "some/synonyms")
    assert describe_effect(memory_db, "some/synonyms").startswith("groups only: no similarity")
    calibration.calibration_version.cache_clear()


def test_ngram_similarity_is_a_cosine(tmp_path: Path) -> None:
    texts = [letters(turn.text) for talk in TALKS for turn in talk.turns]
    found = list(tfidf.similar_pairs([*texts, texts[0]], 0.1))
    assert (0, 6) in {(pair.first, pair.second) for pair in found}
    assert all(0.1 <= pair.similarity <= 1.0 + 1e-5 and pair.first < pair.second for pair in found)
    assert list(tfidf.similar_pairs(["abc", "xyz"])) == []


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no embedder"):
        describe_embedder("nowhere", tmp_path)
    (tmp_path / "m").mkdir()
    with pytest.raises(BadInput, match=r"modules\.json"):
        describe_embedder("m", tmp_path)
    modules = tmp_path / "m" / "modules.json"
    modules.write_text("[{]")
    with pytest.raises(BadInput, match="cannot be read"):
        open_embedder("m", tmp_path)
    modules.write_text(json.dumps([{"path": "", "type": "my_code.Evil"}]))
    with pytest.raises(BadInput, match=r"my_code\.Evil"):
        open_embedder("m", tmp_path)
    modules.write_text(json.dumps([{"path": "", "type": "sentence_transformers.models.Transformer"}]))
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(BadInput, match="pickled"):
        open_embedder("m", tmp_path)


def test_a_damaged_model_is_logged_and_the_corpus_is_built(tmp_path: Path, folder: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in folder.rglob("*"):
        if path.is_file():
            target = broken / path.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes()[: 100 if path.suffix == ".safetensors" else None])
    with memory(tmp_path, TALKS) as store:
        logged = run(store, tmp_path, "broken")
        assert logged[0][0] == "warning" and str(broken) in logged[0][1]
        assert store.connection.execute("SELECT COUNT(*) FROM corpus").fetchone()[0] == 3


class _Ollama(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer({"models": [{"model": "bge-m3:latest", "digest": "sha256:0123456789abcdef"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        rows = [[float(len(text)), 1.0, 0.0] for text in request["input"]]
        self._answer({"model": request["model"], "embeddings": rows})

    def _answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Ollama)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_ollama_computes_vectors(host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    with network_guard.loopback_only():
        model = open_embedder("ollama:bge-m3", tmp_path)
        assert model is not None and model.name == "ollama:bge-m3-01234567"
        found = model.encode(["a" * n for n in range(70)])
        assert found.shape == (70, 3)
        assert np.allclose(np.linalg.norm(found, axis=1), 1.0)
        with pytest.raises(BadInput, match="no model other"):
            OllamaEmbedder("other")
    assert "bge-m3" in describe_embedder("ollama:bge-m3", tmp_path)


def test_a_missing_or_remote_ollama_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnreachable):
        OllamaEmbedder("bge-m3", "http://127.0.0.1:9")
    with pytest.raises(UsageProblem):
        OllamaEmbedder("bge-m3", "http://192.0.2.1:11434")


def test_check_and_stats_name_the_embedder(tmp_path: Path, folder: Path) -> None:
    workspace = Workspace(tmp_path)
    item = find_check("embedder").run(workspace)
    assert item.grade is Grade.PASS and "n-grams" in item.detail
    save_settings(workspace, Settings(embedder=str(folder)))
    item = find_check("embedder").run(workspace)
    assert item.grade is Grade.PASS and str(folder) in item.detail
    save_settings(workspace, Settings(embedder="nowhere"))
    item = find_check("embedder").run(workspace)
    assert item.grade is Grade.WARN and "nowhere" in item.detail
    with memory(tmp_path, TALKS) as store:
        run(store, tmp_path)
        figures = corpus_stats(store)
        assert (figures.embedder, figures.grouped) == ("n-grams", 1)
        assert len(figures.quality) == 3 and figures.quality == sorted(figures.quality)
        assert sum(figures.masked.values()) == figures.masked_turns
