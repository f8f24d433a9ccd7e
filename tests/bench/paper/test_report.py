"""The report: one file that needs no other, and what stands in it."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from apparate_jax.bench.paper.report import write_report
from apparate_jax.bench.paper.sections import SECTIONS
from tests.bench.paper import made

PNG = b"\x89PNG"


class Page(HTMLParser):
    """Addresses of a page, its ids, and its text."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.ids, self.words, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "srcset", "data", "poster", "action"):
                self.addresses.append(value)
            if key == "id":
                self.ids.append(value)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    given = made.given(folder, replace(made.CONFIG, quick=True))
    done = made.done(
        given,
        systems=made.systems(apparate=0.31, oracle=0.6),
        accuracy=made.study("accuracy", ("1.0%", "2.0%"), ("apparate", "oracle")),
        overheads=made.overheads(100_000),
    )
    report = write_report(given, done, folder)
    return folder, report, Page((folder / "report.html").read_text(encoding="utf-8"))


def test_it_needs_no_other_file(written):
    folder, _, page = written
    assert page.addresses and all(
        a.startswith(("data:image/png;base64,", "#")) for a in page.addresses
    )
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    style = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(|https?:", style.split("</style>")[0])
    links = [a[1:] for a in page.addresses if a.startswith("#")]
    assert set(links) <= set(page.ids) and len(page.ids) == len(set(page.ids))


def test_every_section_and_every_finding_is_in_it(written):
    _, report, page = written
    assert [section["key"] for section in report["sections"]] == [s.key for s in SECTIONS]
    for section in report["sections"]:
        assert section["title"] in page.text
        for block in section["blocks"]:
            for finding in block["findings"]:
                assert finding["sentence"] in page.text
    assert "not comparable, nobody asked." in page.text
    assert "A quick run." in page.text


def test_the_summary_is_computed(written):
    _, report, page = written
    (words,) = report["summary"]
    saved = words["figures"][0]
    assert saved["verdict"] == "better" and saved["sentence"] in page.text
    assert words["of_optimal"] == pytest.approx(51.667, abs=0.01) and words["constraint_held"]
    assert words["overview"]["paper"] == [10.0, 24.2]
    found = [f["verdict"] for s in report["sections"] for b in s["blocks"] for f in b["findings"]]
    assert report["verdicts"]["worse"] == found.count("worse")


def test_json_and_pictures_lie_beside_it(written):
    folder, report, _ = written
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report))
    pictures = [b["picture"] for s in report["sections"] for b in s["blocks"] if b["picture"]]
    assert "plots/words--accuracy.png" in pictures and len(pictures) == 5
    for name in (*pictures, report["overview"]):
        assert (folder / name).read_bytes().startswith(PNG)
    assert not list(folder.glob(".*.partial"))


def test_names_are_no_markup(tmp_path):
    given = made.given(tmp_path)
    result = made.systems()
    result["rows"][0]["system"] = "<b>bold</b>"
    result["exit_rates"] = {"<i>": 1.0}
    (tmp_path / "words.npz").unlink()
    made.tiny.recording(60, workload="<script>x</script>").save(tmp_path / "words.npz")
    write_report(given, made.done(given, systems=result), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in text and "&lt;script&gt;" in text
