"""Every command and every code block of the site and the README runs, in the order of its page.

The budgets are those of the pages, but `quick` and `smoke` are reduced to a few steps.
"""

from typing import Any

import pytest
from helpers import blocks as code

ROOT = code.ROOT
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in code.pages()}
#: Overviews: their commands contain placeholders and are only parsed.
OVERVIEWS = ("README.md",)
#: Pages with their own test.
TESTED_ELSEWHERE = ("docs/examples/privbench-letters/README.md",)
#: Pages that may skip blocks, because these are not commands of privbench.
MAY_SKIP: tuple[str, ...] = (
    "docs/tutorial.md",
    "docs/cluster.md",
    "docs/submitting.md",
    "docs/weights.md",
    "docs/reliability.md",
)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in TESTED_ELSEWHERE])
def test_page(page: str, session: Any) -> None:
    for block in code.blocks(PAGES[page], page):
        if page in OVERVIEWS and block.mode == "run" and block.language in code.SHELL:
            for words in code.lines(block):
                session.command(words, "parse")
        else:
            session.run(block)


def test_a_block_that_does_not_run_has_a_reason() -> None:
    for page, text in PAGES.items():
        for block in code.blocks(text, page):
            assert block.reason or block.mode not in code.NEEDS_REASON, f"{block.location} needs a reason"
            assert block.mode != "skip" or page in MAY_SKIP, f"{block.location} must not be skipped"


def test_every_marker_precedes_a_block() -> None:
    for page, text in PAGES.items():
        marked = [block for block in code.blocks(text, page) if block.mode != "run"]
        assert len(marked) == text.count("<!-- test:"), f"{page} has a marker without a block"


@pytest.mark.parametrize(
    "words",
    [["run", "--defence", "none"], ["rum"], ["zoo", "list", "a", "--name", "b"], ["run", "--seed", "one"], ["data"]],
)
def test_an_invalid_command_line_fails(words: list[str], session: Any) -> None:
    with pytest.raises(AssertionError, match="exited with 2"):
        session.command(["privbench", *words], "parse")


def test_parsing_runs_nothing(session: Any) -> None:
    session.command(["privbench", "run", "--defense", "none", "--attack", "kedmi"], "parse")
    session.command(["privbench", "new", "defense", "my_defense"], "parse")
    assert [path.name for path in session.root.iterdir()] == ["results"]
    session.command(["privbench", "list", "defenses"])
    assert "bido_hsic" in session.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```\nprivbench list\n```", "unknown language"),
        ("    fpr = 1\n    privbench list", "is a command"),
        ("<!-- test: hope -->\n```bash\nprivbench list\n```", "unknown marker"),
        ("```text\nprivbench list\n```", "is a command"),
        ("```bash\nprivbench lost\n```", "exited with 2"),
        ("```bash\nprivbench list | head\n```", "not supported"),
        ("```bash\nfrobnicate\n```", "not a supported command"),
        ("```bash\n# nothing\n```", "has no command"),
        ("```python\nimport privbench\nprivbench.nothing\n```", "no attribute"),
        ("<!-- test: parse: x -->\n```python\nif\n```", "SyntaxError"),
        ("```toml\na = \n```", "TOMLDecodeError"),
        ("<!-- test: exit 1 -->\n```bash\nprivbench list\n```", "exited with 0"),
        ("    make love", "has no target"),
        ("```bash\npip install 'privbench[bread]'\n```", "no extra"),
    ],
)
def test_a_broken_block_fails(text: str, message: str, session: Any) -> None:
    (block,) = code.blocks(text, "page.md")
    with pytest.raises(AssertionError, match=message):
        session.run(block)
