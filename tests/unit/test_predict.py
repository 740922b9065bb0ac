# SPDX-License-Identifier: Apache-2.0
"""Predictors: what is learnt, that nothing is predicted by who has seen it, files, refusals."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predict_synthetic import fitted, make_told

from sprout.cli import run
from sprout.errors import PredictorError
from sprout.predict import second
from sprout.predict.check import check, publishable
from sprout.predict.document import HEADER, MAGIC, Predictor, dump, load, parse, save
from sprout.predict.first import First, ridge
from sprout.predict.fit import FITS, Fitted, fit
from sprout.predict.sample import FOLDS, Sample, fingerprint
from sprout_ext.reference.scorer import second_stage

optimize = pytest.importorskip("scipy.optimize")
sparse = pytest.importorskip("scipy.sparse")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, Predictor]:
    return fitted(make_told(tmp_path_factory.mktemp("told") / "b"))


def test_what_the_words_tell_is_learnt(told: tuple[Sample, Predictor]) -> None:
    sample, predictor = told
    report = predictor.meta.report
    assert report.preference.low > 0
    assert report.energy.low > 0
    assert report.refusal() is None
    scores = predictor.scorer().score_many([b"explain in depth why river", b"name one river"])
    assert scores[0].argmax() == 3  # joules of L0
    assert scores[0, 0] > 0.6 > 0.3 > scores[1, 0]
    assert scores[0, 3] > 4 * scores[1, 3]
    assert {each.name for each in report.classes} == set(sample.classes)
    assert sum(each.prompts for each in report.classes) == report.prompts


def test_it_is_calibrated_on_prompts_that_it_has_not_seen(told: tuple[Sample, Predictor]) -> None:
    """Few of the bins may lie far out: 1.5 half widths are 2.9 standard errors."""
    report = told[1].meta.report
    far = [b for b in report.reliability if abs(b.predicted - b.observed) > 1.5 * b.half]
    assert len(far) <= 1
    joules, predicted = told[1].judged.joules, told[1].judged.predicted_joules
    assert predicted.sum(axis=0) == pytest.approx(joules.sum(axis=0), rel=0.05)


def test_what_words_do_not_tell_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = make_told(tmp_path / "b", told=False), tmp_path / "predictor"
    assert run(["predictor", "fit", "--bundle", str(folder), "--out", str(file)]) == 1
    assert "no better than class means" in capsys.readouterr().err
    assert list(tmp_path.glob("predictor*")) == []


def test_a_predictor_worse_than_class_means_is_refused(told: tuple[Sample, Predictor]) -> None:
    sample, predictor = told
    turned = predictor.judged.predicted_preference[:, ::-1]
    wrong = replace(as_fitted(predictor), preferences=turned)
    report = check(sample, wrong)
    assert report.preference.high < 0
    with pytest.raises(PredictorError, match="worse than class means at preference"):
        publishable(report)


def as_fitted(predictor: Predictor) -> Fitted:
    judged = predictor.judged
    return Fitted(
        First(predictor.table, predictor.scales, predictor.biases),
        predictor.second,
        judged.predicted_preference,
        judged.predicted_joules,
    )


def test_no_prompt_is_predicted_by_who_has_seen_it(told: tuple[Sample, Predictor]) -> None:
    """Other outcomes of one fold leave its own predictions as they are, and move the others'."""
    sample, predictor = told
    at = sample.judged
    fold = sample.fold[at]
    turned = sample.preferred.copy()
    own = at[fold == 0]
    turned[own] = 2 - turned[own]
    louder = sample.joules.copy()
    louder[sample.fold == 0] *= 3
    changed = fit(replace(sample, preferred=turned, joules=louder))
    same = changed.preferences[fold == 0] == predictor.judged.predicted_preference[fold == 0]
    assert same.all()
    assert (changed.joules[fold == 0] == predictor.judged.predicted_joules[fold == 0]).all()
    others = changed.preferences[fold != 0] - predictor.judged.predicted_preference[fold != 0]
    assert np.abs(others).max() > 0.01


def test_equal_texts_are_of_one_fold(told: tuple[Sample, Predictor]) -> None:
    sample = told[0]
    twice = replace(sample, texts=(sample.texts[0],) * len(sample.texts))
    assert len(set(twice.fold.tolist())) == 1
    assert np.bincount(sample.fold, minlength=FOLDS).min() > len(sample.texts) / FOLDS / 2


def test_done_is_called_as_often_as_promised(told: tuple[Sample, Predictor]) -> None:
    calls: list[None] = []
    fit(told[0], done=lambda: calls.append(None))
    assert len(calls) == FITS


def test_the_scorer_is_the_second_stage_of_the_fit(told: tuple[Sample, Predictor]) -> None:
    """What is fitted in NumPy is what the compiled scorer computes."""
    sample, predictor = told
    texts = list(sample.texts[:50])
    scorer, levels = predictor.scorer(), len(sample.levels)
    heads = scorer.heads_many(texts)
    length = second.log_length(np.array([len(text) for text in texts]))
    x = second.features(heads, length, levels)
    q, joules = second.predict(x, predictor.second)
    np.testing.assert_allclose(scorer.score_many(texts), np.hstack([q, joules]), rtol=1e-10)
    np.testing.assert_allclose(
        second_stage(heads, length, predictor.second), np.hstack([q, joules]), rtol=1e-10
    )


def test_ridge_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    x = sparse.random(80, 30, 0.2, format="csr", random_state=1, dtype=np.float32)
    y = rng.normal(size=(80, 2)).astype(np.float32)
    dense = x.toarray().astype(float)
    exact = np.linalg.solve(dense.T @ dense + 3 * np.eye(30), dense.T @ y)
    np.testing.assert_allclose(ridge(x, y, 3.0, 40), exact, atol=2e-4)


def test_the_second_stage_is_at_its_optimum() -> None:
    """Newton's against scipy's L-BFGS; the gamma regression's score equations hold."""
    rng = np.random.default_rng(3)
    n, k, levels = 400, 6, 3
    x = np.hstack([np.ones((n, 1)), rng.normal(size=(n, k - 1))])
    penalty = np.full(k, 2.0)
    preferred = rng.integers(0, levels, n)
    won = np.eye(levels)[preferred]

    def loss(flat: Any) -> float:
        w = flat.reshape(levels, k)
        logits = x @ w.T
        log_sum = np.log(np.exp(logits).sum(axis=1))
        return float((log_sum - (logits * won).sum(axis=1)).sum() + 0.5 * (penalty * w * w).sum())

    theirs = optimize.minimize(loss, np.zeros(levels * k), method="L-BFGS-B")
    ours = second.fit_preferences(x, preferred, levels, penalty)
    assert loss(ours.ravel()) == pytest.approx(theirs.fun, rel=1e-6)
    joules = np.exp(x @ rng.normal(size=k) * 0.3) * rng.gamma(4, 0.25, n)
    w = second.fit_joules(x, joules, penalty)
    score = x.T @ (joules * np.exp(-x @ w) - 1) - penalty * w
    assert np.abs(score).max() < 1e-4


def test_too_few_judged_prompts(told: tuple[Sample, Predictor]) -> None:
    sample = told[0]
    preferred = sample.preferred.copy()
    preferred[np.flatnonzero(sample.label == 1)[20:]] = -1
    with pytest.raises(PredictorError, match="judged prompts, at least 50"):
        fit(replace(sample, preferred=preferred))


def test_samples_that_no_predictor_can_be_of(told: tuple[Sample, Predictor]) -> None:
    sample = told[0]
    alike = replace(sample, texts=(b"the same",) * len(sample.texts))
    with pytest.raises(PredictorError, match="too much alike"):
        fit(alike)
    with pytest.raises(PredictorError, match="at most 8 levels, and 48 of both"):
        fit(replace(sample, classes=tuple(map(str, range(46)))))
    with pytest.raises(PredictorError, match="at least two levels"):
        fit(replace(sample, levels=("L0",), joules=sample.joules[:, :1]))
    with pytest.raises(PredictorError, match="energy is 0"):
        fit(replace(sample, joules=sample.joules * [1, 0, 1]))


def test_a_file_comes_back_as_it_was(told: tuple[Sample, Predictor], tmp_path: Path) -> None:
    _, predictor = told
    save(predictor, tmp_path / "p")
    found = load(tmp_path / "p")
    assert found.meta == predictor.meta
    texts = [b"explain in depth why", b"", bytes(range(256))]
    assert np.array_equal(found.scorer().score_many(texts), predictor.scorer().score_many(texts))
    assert np.array_equal(found.judged.fold, predictor.judged.fold)
    assert len(found.sha256) == 64
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_no_prompt_stands_in_the_file(told: tuple[Sample, Predictor]) -> None:
    sample, predictor = told
    with np.load(io.BytesIO(dump(predictor)[HEADER:])) as archive:
        everything = b"".join(archive[name].tobytes() for name in archive.files)
    assert b"garden" not in everything
    assert fingerprint(sample.texts[sample.judged[0]]) == int(predictor.judged.fingerprint[0])


def packed(body: bytes) -> bytes:
    return MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def with_arrays(predictor: Predictor, **changes: Any) -> bytes:
    """The file with arrays changed, added or (None) left out, and an honest checksum."""
    with np.load(io.BytesIO(dump(predictor)[HEADER:])) as archive:
        arrays = {name: archive[name] for name in archive.files} | changes
    body = io.BytesIO()
    np.savez_compressed(body, **{k: v for k, v in arrays.items() if v is not None})
    return packed(body.getvalue())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"table": np.zeros((32768, 8), dtype=np.int8)}, "description does not fit|don't fit"),
        ({"table": np.zeros((32767, 5), dtype=np.int8)}, "weights don't fit"),
        ({"table": np.zeros((32768, 5))}, "table is float64"),
        ({"table": None}, "lacks or adds table"),
        ({"more": np.zeros(3)}, "lacks or adds more"),
        ({"scales": np.full(5, np.nan)}, "scales holds numbers that are not finite"),
        ({"second": np.zeros((6, 3, 4))}, "weights don't fit"),
        ({"second": np.zeros((4, 3, 5))}, "description does not fit"),
        ({"bits": np.array(40, dtype=np.uint32)}, "weights don't fit"),
        ({"orders": np.array([5, 2], dtype=np.uint32)}, "weights don't fit"),
        ({"label": np.array([7])}, "not of 1 prompts"),
        ({"label": np.array([], dtype=np.int64)}, "0 judged"),
        ({"meta": np.frombuffer(b"{}", dtype=np.uint8)}, "description is malformed"),
        ({"meta": np.frombuffer(b"\xff\xfe", dtype=np.uint8)}, "description is malformed"),
        ({"meta": np.array([{}], dtype=object)}, r"meta is object \(1,\)"),
    ],
)
def test_a_malformed_file_says_what_is_wrong(
    told: tuple[Sample, Predictor], change: dict[str, Any], what: str
) -> None:
    with pytest.raises(PredictorError, match=what):
        parse(with_arrays(told[1], **change))


def test_out_of_range_outcomes(told: tuple[Sample, Predictor]) -> None:
    judged = told[1].judged
    for name, value in (("preferred", 3), ("label", -1), ("joules", -1.0)):
        array = getattr(judged, name).copy()
        array.flat[0] = value
        with pytest.raises(PredictorError, match=f"{name} (is out of its range|holds negative)"):
            parse(with_arrays(told[1], **{name: array}))


def test_damage_at_any_place_is_found(told: tuple[Sample, Predictor], tmp_path: Path) -> None:
    whole = dump(told[1])
    rng = np.random.default_rng(0)
    for at in (0, len(MAGIC), HEADER - 1, HEADER, *rng.integers(HEADER, len(whole), 30)):
        raw = bytearray(whole)
        raw[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(PredictorError):
            parse(bytes(raw))
    for size in (0, 5, HEADER, len(whole) // 2, len(whole) - 1):
        with pytest.raises(PredictorError):
            parse(whole[:size])
    with pytest.raises(PredictorError, match="archive is malformed"):
        parse(packed(b"no archive"))
    with pytest.raises(PredictorError, match="can't read"):
        load(tmp_path / "absent")


def test_an_archive_that_unpacks_without_end_is_refused(
    told: tuple[Sample, Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sprout.predict.document.MOST_UNPACKED", 1000)
    with pytest.raises(PredictorError, match="unpacks to more"):
        parse(dump(told[1]))


def with_member(predictor: Predictor, name: str, content: bytes, method: int) -> bytes:
    """The file with one member's bytes in place of its own, and an honest checksum."""
    body = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(dump(predictor)[HEADER:])) as whole,
        zipfile.ZipFile(body, "w") as made,
    ):
        for each in whole.namelist():
            changed = each == f"{name}.npy"
            made.writestr(
                each,
                content if changed else whole.read(each),
                method if changed else zipfile.ZIP_DEFLATED,
            )
    return body.getvalue()


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes((version, 0)) + len(text).to_bytes(2, "little") + text + data


TABLE = "{'descr': '|i1', 'fortran_order': False, 'shape': SHAPE}"


@pytest.mark.parametrize(
    ("content", "method", "what"),
    [
        # 100 TB that it does not hold, and other sizes that can't be
        (npy(TABLE.replace("SHAPE", "(10000000, 10000000)"), b"abc"), 8, "not of the size"),
        (npy(TABLE.replace("SHAPE", "(1, 2)"), b"abc"), 8, "not of the size"),
        (npy(TABLE.replace("SHAPE", f"(0, {10**30})")), 8, "archive is malformed"),
        (npy(TABLE.replace("SHAPE", "(-1, -3)"), b"abc"), 8, "archive is malformed"),
        # headers that NumPy's parser fails at, each in another way
        (npy(TABLE.replace("SHAPE", "(" * 150)), 8, "archive is malformed"),
        (npy("-" * 9000 + "1"), 8, "archive is malformed"),
        (npy(TABLE.replace("'|i1'", "()").replace("SHAPE", "()")), 8, "archive is malformed"),
        (npy(TABLE.replace("SHAPE", "(1, 1)"), b"a", version=3), 8, r"format \(3, 0\)"),
        (b"no array", 8, "archive is malformed"),
        # decoders that take what memory the data say
        (npy(TABLE.replace("SHAPE", "(1, 1)"), b"a"), zipfile.ZIP_LZMA, "by method 14"),
        (npy(TABLE.replace("SHAPE", "(1, 1)"), b"a"), zipfile.ZIP_BZIP2, "by method 12"),
    ],
    ids=[
        *("more than it holds", "less than it holds", "endless and empty", "negative"),
        *("open parentheses", "deep expression", "type of nothing", "other format", "no header"),
        *("lzma", "bzip2"),
    ],
)
def test_a_crafted_array_is_refused_before_it_is_made(
    told: tuple[Sample, Predictor], content: bytes, method: int, what: str
) -> None:
    with pytest.raises(PredictorError, match=what):
        parse(packed(with_member(told[1], "table", content, method)))


def test_a_crafted_archive_is_refused(told: tuple[Sample, Predictor]) -> None:
    body = with_member(told[1], "table", npy(TABLE.replace("SHAPE", "(1, 1)"), b"a"), 8)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        info = archive.getinfo("table.npy")
    data = info.header_offset + 30 + len("table.npy")
    spoilt = bytearray(body)
    spoilt[data : data + info.compress_size] = b"\xff" * info.compress_size
    with pytest.raises(PredictorError, match=r"malformed: error: .*decompressing"):
        parse(packed(bytes(spoilt)))
    encrypted = bytearray(body)
    entry = body.index(b"PK\x01\x02")
    encrypted[entry + 8] |= 1  # asks for a password
    with pytest.raises(PredictorError, match="archive is malformed: RuntimeError"):
        parse(packed(bytes(encrypted)))
    twice = io.BytesIO(body)
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(twice, "a") as archive,
    ):
        archive.writestr("table.npy", b"")
    with pytest.raises(PredictorError, match="an array twice"):
        parse(packed(twice.getvalue()))
    with zipfile.ZipFile(twice := io.BytesIO(body), "a") as archive:
        archive.writestr("table", b"")
    with pytest.raises(PredictorError, match="lacks or adds table"):
        parse(packed(twice.getvalue()))


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = make_told(tmp_path / "b"), tmp_path / "predictor"
    assert run(["predictor", "fit", "--bundle", str(folder), "--out", str(file)]) == 0
    assert "calibration error" in capsys.readouterr().out
    assert run(["predictor", "inspect", str(file), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["judged"] == 600
    assert shown["report"]["preference"]["low"] > 0
    file.write_bytes(b"x")
    assert run(["predictor", "inspect", str(file)]) == 1
    assert "no predictor: make one" in capsys.readouterr().err
