"""Every command and every block of code on the site and in the README runs, in the order of its page.

Budgets are the pages' own, but what `quick` and `smoke` spend is cut down to a few steps.
"""

from typing import Any

import pytest
from helpers import blocks as code

ROOT = code.ROOT
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in code.pages()}
#: Overviews: their commands are there to be looked at, with placeholders, and are parsed.
OVERVIEWS = ("README.md",)
#: Pages that have a test of their own.
ELSEWHERE = ("docs/examples/privbench-letters/README.md",)
#: Where something may be skipped, because it is not privbench's.
SKIPPING: tuple[str, ...] = (
    "docs/tutorial.md",
    "docs/cluster.md",
    "docs/submitting.md",
    "docs/weights.md",
    "docs/reliability.md",
)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE])
def test_page(page: str, session: Any) -> None:
    for block in code.blocks(PAGES[page], page):
        if page in OVERVIEWS and block.mode == "run" and block.language in code.SHELL:
            for words in code.lines(block):
                session.command(words, "parse")
        else:
            session.run(block)


def test_what_is_not_run_says_why() -> None:
    for page, text in PAGES.items():
        for block in code.blocks(text, page):
            assert block.reason or block.mode not in code.NEED_REASON, f"{block.place} is not run and says not why"
            assert block.mode != "skip" or page in SKIPPING, f"{block.place} may not be skipped"


def test_markers_stand_before_blocks() -> None:
    for page, text in PAGES.items():
        marked = [block for block in code.blocks(text, page) if block.mode != "run"]
        assert len(marked) == text.count("<!-- test:"), f"{page} has a marker that no block follows"


@pytest.mark.parametrize(
    "words",
    [["run", "--defence", "none"], ["rum"], ["zoo", "list", "a", "--name", "b"], ["run", "--seed", "one"], ["data"]],
)
def test_a_wrong_command_line_is_found(words: list[str], session: Any) -> None:
    with pytest.raises(AssertionError, match="ended with 2"):
        session.command(["privbench", *words], "parse")


def test_parsing_runs_nothing(session: Any) -> None:
    session.command(["privbench", "run", "--defense", "none", "--attack", "kedmi"], "parse")
    session.command(["privbench", "new", "defense", "my_defense"], "parse")
    assert [path.name for path in session.root.iterdir()] == ["results"]
    session.command(["privbench", "list", "defenses"])
    assert "bido_hsic" in session.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```\nprivbench list\n```", "names no language"),
        ("    fpr = 1\n    privbench list", "is a command"),
        ("<!-- test: hope -->\n```bash\nprivbench list\n```", "unknown marker"),
        ("```text\nprivbench list\n```", "is a command"),
        ("```bash\nprivbench lost\n```", "ended with 2"),
        ("```bash\nprivbench list | head\n```", "not understood"),
        ("```bash\nfrobnicate\n```", "no way to run"),
        ("```bash\n# nothing\n```", "no command"),
        ("```python\nimport privbench\nprivbench.nothing\n```", "no attribute"),
        ("<!-- test: parse: x -->\n```python\nif\n```", "SyntaxError"),
        ("```toml\na = \n```", "TOMLDecodeError"),
        ("<!-- test: exit 1 -->\n```bash\nprivbench list\n```", "ended with 0"),
        ("    make love", "has no rule"),
        ("```bash\npip install 'privbench[bread]'\n```", "no extra"),
    ],
)
def test_a_block_that_does_not_work_is_found(text: str, said: str, session: Any) -> None:
    (block,) = code.blocks(text, "page.md")
    with pytest.raises(AssertionError, match=said):
        session.run(block)
