"""What the book needs beyond Sphinx: badges, and references where they stand.

`#| export` becomes a small badge, and the `# NBVAL_…` lines are hidden. The
references of a chapter are plain paragraphs at its end; Sphinx would number
them and, in the PDF, gather those of all chapters on the last page.
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

MARK = "#| export"
BADGE = "exported to llm_utils.py"


def replace_code(node: nodes.literal_block, text: str) -> None:
    """Change the code shown; Sphinx colours it only if rawsource agrees."""
    node.rawsource = text
    node.children = []
    node += nodes.Text(text)


def badge() -> nodes.container:
    text = nodes.emphasis("", BADGE)
    return nodes.container(
        "", nodes.paragraph("", "", text), classes=["export-badge"]
    )


class Directives(SphinxPostTransform):
    """What a code cell tells the tools is not for the reader."""

    default_priority = 50

    def run(self, **kwargs) -> None:
        for node in list(self.document.findall(nodes.literal_block)):
            lines = node.astext().split("\n")
            exported = lines[0].strip() == MARK
            rest = lines[1:] if exported else lines
            shown = [x for x in rest if not x.startswith("# NBVAL_")]
            if not exported and shown == lines:
                continue
            replace_code(node, "\n".join(shown).strip("\n"))
            if exported:
                node.parent.insert(node.parent.index(node), badge())


class References(SphinxPostTransform):
    """Citations as paragraphs; the text cites by author and year."""

    default_priority = 6  # right after sphinxcontrib-bibtex made them

    def run(self, **kwargs) -> None:
        for citation in list(self.document.findall(nodes.citation)):
            paragraph = citation.children[-1]
            anchor = nodes.target("", "", ids=citation["ids"])
            entry = nodes.container("", anchor, paragraph)
            entry["classes"] = ["reference-entry"]
            citation.replace_self(entry)


def setup(app: Sphinx) -> dict:
    app.add_post_transform(Directives)
    app.add_post_transform(References)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
