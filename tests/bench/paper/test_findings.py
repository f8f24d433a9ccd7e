"""From results to figures beside the paper's."""

from dataclasses import replace

import pytest

from apparate_jax.bench.paper import findings
from apparate_jax.bench.paper.findings import Subject
from tests.bench.paper import made


def subject(kind="text", **changed):
    return Subject("w", kind, replace(made.CONFIG, **changed))


def by_key(found):
    return {one.published.key: one for one in found}


def test_latency_of_text():
    result = made.systems(apparate=0.30, oracle=0.60, past_20=0.40, past_40=0.30, past_80=0.24)
    found = findings.latency(subject(), result)
    one = by_key(found)
    assert (one["p50 saved"].ours.mean, one["p50 saved"].verdict) == (pytest.approx(30), "better")
    assert one["p25 saved"].verdict == "equal" and one["p95 saved"].verdict == "better"
    assert one["throughput"].verdict == "equal"
    assert (one["of optimal"].ours.mean, one["of optimal"].verdict) == (pytest.approx(50), "better")
    past = [f for f in found if f.published.key == "gap to past"]
    assert [round(f.ours.mean) for f in past] == [25, 0, -25]
    assert [f.verdict for f in past] == ["worse", "better", "better"]
    assert past[0].published.what.endswith("the past 20 batches")


def test_the_same_figures_of_images_lie_elsewhere():
    one = by_key(findings.latency(subject("images"), made.systems(apparate=0.30, oracle=0.60)))
    assert one["p50 saved"].verdict == one["of optimal"].verdict == "worse"


def test_the_runs_differences_are_the_tolerance():
    result = made.systems()
    for row, saved in zip(
        [r for r in result["by_seed"] if r["system"] == "apparate"], (0.20, 0.30), strict=True
    ):
        row["p50_saved_frac"] = saved
    ours = by_key(findings.latency(subject(), result))["p50 saved"]
    assert ours.ours.tolerance == pytest.approx(5) and ours.verdict == "equal"


def test_without_a_kind_or_with_other_settings_nothing_is_judged():
    result = made.systems()
    for who, reason in ((subject(None), "kind"), (subject(accuracy=0.9), "constraint is 0.9 here")):
        one = by_key(findings.latency(who, result))["p50 saved"]
        assert one.verdict == "not comparable" and reason in one.reason and one.ours is not None
    budget = findings.settings("budget")(
        subject(ramp_budget=0.05), made.study("budget", ["2%", "5%"])
    )
    assert [one.verdict for one in budget] == ["better", "worse"]


def test_nothing_to_gain_is_not_comparable():
    one = by_key(findings.latency(subject(), made.systems(oracle=0.0)))["of optimal"]
    assert one.ours is None and one.reason == "the optimum saves nothing of the median"


def test_a_remark_where_a_system_breaks_the_constraint():
    result = made.systems(past_20=0.4)
    for row in result["by_seed"]:
        if row["system"] == "past-20":
            row["agreement"] = 0.93
    past, *_ = (f for f in findings.latency(subject(), result) if f.published.key == "gap to past")
    assert past.reason == "past-20 agrees in 93.0% only, below the constraint"


def test_others_are_not_judged_and_stand_beside_their_kind():
    one = by_key(findings.existing(subject(), made.systems()))
    assert one["deebert median"].verdict == "as published"
    assert one["deebert agreement"].verdict == "higher"
    assert one["branchynet median"].reason == "the paper's is of images"
    assert one["deebert median"].reason == ""
    light = by_key(findings.existing(subject(), {**made.systems(), "heavy": False}))
    assert "no recording with DeeBERT's own" in light["deebert median"].reason
    assert one["two-layer p50"].ours.mean == 0 and one["two-layer p50"].verdict == "worse"


def test_accuracy_of_tuning_once_and_always():
    one = by_key(findings.held(subject(), made.systems()))
    assert one["continual agreement"].verdict == "better"
    assert one["continual saved"].verdict == "worse"
    assert one["once saved"].verdict == "lower" and one["agreement"].verdict == "equal"


@pytest.mark.parametrize(
    ("study", "settings", "keys"),
    [
        ("accuracy", ("0.5%", "1.0%", "5.0%"), ["accuracy 1.0%", "accuracy 5.0%"]),
        ("slo", ("x1: batch 1", "x2: batch 4"), ["slo x1", "slo x2"]),
        ("window", ("256",), []),
    ],
)
def test_settings_that_the_paper_has_too(study, settings, keys):
    found = findings.settings(study)(subject(), made.study(study, settings))
    assert [one.published.key for one in found] == keys
    assert all(one.ours.mean == pytest.approx(20) for one in found)


def test_falls():
    rows = [made.row("apparate", 0, s, p50_saved_frac=v) for s, v in
            (("our ramps", 0.2), ("DeeBERT's ramps", 0.1))]  # fmt: skip
    (ramps,) = findings.ramps(subject(), made.result(rows))
    assert (ramps.ours.mean, ramps.verdict) == (pytest.approx(50), "higher")
    (without,) = findings.ablation(subject(), made.systems(no_adjustment=0.15))
    assert (without.ours.mean, without.verdict) == (pytest.approx(25), "as published")


def test_platforms_are_never_comparable():
    found = findings.platforms(subject(), made.study("platform", ("batch 1", "to 8, 2 under way")))
    assert {one.verdict for one in found} == {"not comparable"}
    assert found[0].ours.mean == 8.0 and found[0].ours.runs == 1


def test_searches():
    rows = [
        {"setting": "512", "system": name, "seed": 0, "of_exact_frac": frac, "search_ms": ms}
        for name, frac, ms in (("exact", 1.0, 0.5), ("greedy", 0.9, 0.3), ("grid", 1.02, 9.0))
    ]
    one = by_key(findings.tuner(subject(), made.result(rows)))
    assert one["search"].verdict == "better" and one["grid"].verdict == "lower"
    assert one["search loss"].ours.mean == pytest.approx(100 * (1 - 1 / 1.02))


def test_overheads_with_and_without_the_models_size():
    one = by_key(findings.overheads(subject(), made.overheads()))
    assert (one["ramp latency"].ours.mean, one["ramp latency"].verdict) == (3.0, "worse")
    assert "name its checkpoint" in one["ramp parameters"].reason
    assert one["adjustment"].verdict == "better"
    assert one["message"].verdict == "not comparable"
    one = by_key(findings.overheads(subject(), made.overheads(100_000)))
    assert (one["ramp parameters"].ours.mean, one["ramp parameters"].verdict) == (2.0, "equal")


def test_a_profile_in_which_ramps_are_free_is_not_believed():
    result = made.overheads()
    result["shapes"][1]["added_frac"] = -0.1
    one = by_key(findings.overheads(subject(), result))["ramp latency"]
    assert one.verdict == "not comparable" and "record the stream again" in one.reason


def test_live_has_the_noise_floor_as_tolerance():
    def ratios(*rounds):
        return {"median": rounds[0], "rounds": list(rounds)}

    compared = {"p50_ratio": ratios(0.72), "p95_ratio": ratios(0.9),
                "throughput_ratio": ratios(0.99)}  # fmt: skip
    report = {"compared": compared, "apparate": {"agreement": 0.992}}
    one = by_key(findings.live(subject(), report))
    assert one["p50 saved"].verdict == "better" and one["throughput"].verdict == "equal"
    compared["noise_floor"] = {"p50_ratio": ratios(0.9, 1.1), "p95_ratio": ratios(1.0)}
    one = by_key(findings.live(subject(), report))
    assert one["p50 saved"].verdict == "equal" and "10.0 points" in one["p50 saved"].reason
    compared["throughput_ratio"] = ratios(0.9)
    compared["noise_floor"]["throughput_ratio"] = ratios(0.85)
    assert by_key(findings.live(subject(), report))["throughput"].verdict == "equal"


def test_what_classifiers_lack():
    assert {one.verdict for one in findings.generative()} == {"not comparable"}
