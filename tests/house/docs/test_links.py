"""Links between pages lead somewhere on a code host: the file exists, and so does the heading."""

import re

from support.pages import ROOT, anchors, pages

EXAMPLES = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "examples").glob("**/README.md"))]


def test_relative_links_lead_somewhere() -> None:
    for name in (*pages(), *EXAMPLES, "benchmarks/README.md"):
        file = ROOT / name
        for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8")):
            if target.startswith(("http://", "https://")):
                continue
            path, _, anchor = target.partition("#")
            found = (file.parent / path) if path else file
            assert found.exists(), f"{name}: {target}"
            assert not anchor or anchor in anchors(found.read_text(encoding="utf-8")), f"{name}: {target}"


def test_pages_of_the_site_do_not_link_out_of_it() -> None:
    for name in pages():
        if name.startswith("docs/"):
            text = (ROOT / name).read_text(encoding="utf-8")
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
                inside = target.startswith("http") or (ROOT / name).parent.joinpath(target).resolve().is_relative_to(
                    ROOT / "docs"
                )
                assert inside, f"{name}: {target} is not part of the site"


def test_index_for_language_models_leads_somewhere() -> None:
    text = (ROOT / "llms.txt").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert text.startswith("# pytest-mlpatterns\n\n> ")
    assert len(targets) > 15
    assert [target for target in targets if not (ROOT / target).is_file()] == []
