"""Text from elsewhere: what a lesson must not hold, because a website or this build would suffer from it.

JupyterLab takes script out of Markdown, a website runs it. So a lesson may hold the few tags below and links to where
one can look; whatever else there is, is refused, however it is written. What is HTML and what a link, markdown-it
decides, which MyST is made of.
"""

import html
import re
from collections.abc import Iterator

import yaml
from markdown_it import MarkdownIt

TAGS = set("details summary a img b i em strong code pre kbd sub sup br hr p span div".split())
TAGS |= set("table thead tbody tr th td ul ol li figure figcaption".split())
ATTRIBUTES = set("class id title lang alt src href width height align open colspan rowspan".split())
SCHEMES = {"http", "https", "mailto"}
DIRECTIVES = {"slips"}
COMMANDS = re.compile(r"\\(?:href|url|class|cssId|style|require|html\w*)\b")  # with which maths becomes HTML
MOST_LETTERS = 120_000  # of a lesson; the longest has about half of that

VALUE = r"""\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'=<>`]+)"""
TAG = re.compile(rf"</?([a-zA-Z][\w-]*)((?:\s+[a-zA-Z_:][\w.:-]*(?:{VALUE})?)*)\s*/?>")
ATTRIBUTE = re.compile(rf"([a-zA-Z_:][\w.:-]*)({VALUE})?")

Fault = tuple[str, str]  # what is wrong, how to mend it


class AsWritten(MarkdownIt):
    """It shows us every link, as it was written; by itself it takes some away."""

    def validateLink(self, url: str) -> bool:
        return True

    def normalizeLink(self, url: str) -> str:
        return url


MARKDOWN = AsWritten("commonmark").enable("table")


def faults_of_source(text: str) -> Iterator[Fault]:
    """What makes reading a lesson endless: its length, and YAML that repeats itself by aliases."""
    if len(text) > MOST_LETTERS:
        yield f"{len(text):,} characters", f"make two lessons of it: {MOST_LETTERS:,} at most"
        return
    options = re.findall(r"^(?:`{3,}|~{3,})\{[^\n]*\n((?::[^\n]*\n)+)", text, re.M)
    if re.search(r"^(?:`{3,}|~{3,})\{code-cell\}[^\n]*\n---", text, re.M):
        yield "a block of options between lines of ---", "write them as lines of `:tags: [setup]`"
    for block in [text.split("\n---\n")[0], *options]:
        if re.search(r"[&*]\w", block) and has_aliases(block.replace("\n:", "\n").removeprefix(":")):
            yield "an alias in YAML", "write out what it stands for"


def has_aliases(block: str) -> bool:
    """Does this YAML name a part of itself? One that cannot be read is refused by those who need it."""
    try:
        return any(isinstance(token, (yaml.AliasToken, yaml.AnchorToken)) for token in yaml.scan(block))
    except yaml.YAMLError:
        return False


def faults_of_markdown(source: str) -> Iterator[Fault]:
    """HTML, links and directives that are not for a lesson."""
    state: dict = {}
    tokens = MARKDOWN.parse(source, state)
    for token in [inner for outer in tokens for inner in (outer, *(outer.children or []))]:
        if token.type in ("html_block", "html_inline"):
            yield from faults_of_html(token.content)
        directive = re.match(r"\{([^}]*)\}", token.info.strip()) if token.type == "fence" else None
        if directive and directive[1] not in DIRECTIVES:
            yield f"the directive {directive[0]}", "write Markdown: a lesson is a notebook, too"
        for name in ("href", "src"):
            if name in token.attrs:
                yield from faults_of_address(str(token.attrs[name]))
    for reference in state.get("references", {}).values():
        yield from faults_of_address(reference["href"])
    for command in COMMANDS.findall(source):
        yield f"{command} in maths", "write the link or the style outside it"


def faults_of_html(content: str) -> Iterator[Fault]:
    """Tags and attributes that a lesson may not have, and what looks like a tag and is none."""
    mend = f"the tags are {', '.join(sorted(TAGS))}"
    rest, position = without_comments(content), 0
    for tag in TAG.finditer(rest):
        yield from unfinished(rest[position : tag.start()])
        position = tag.end()
        if tag[1].lower() not in TAGS:
            yield f"the tag <{tag[1]}>", mend
        for attribute in ATTRIBUTE.finditer(tag[2]):
            name, value = attribute[1].lower(), (attribute[2] or "").strip().removeprefix("=").strip().strip("\"'")
            if name not in ATTRIBUTES:
                yield f"the attribute {name} of <{tag[1]}>", f"the attributes are {', '.join(sorted(ATTRIBUTES))}"
            elif name in ("href", "src"):
                yield from faults_of_address(value)
    yield from unfinished(rest[position:])


def without_comments(content: str) -> str:
    """HTML without its comments; one that does not end stays."""
    kept, position = [], 0
    while (begin := content.find("<!--", position)) >= 0 and (end := content.find("-->", begin + 4)) >= 0:
        kept.append(content[position:begin])
        position = end + 3
    return "".join([*kept, content[position:]])


def unfinished(text: str) -> Iterator[Fault]:
    if found := re.search(r"<[a-zA-Z/!?][^\n]{0,30}", text):
        yield f"{found[0]!r}, which is no whole tag", "finish it, or write &lt;"


def faults_of_address(address: str) -> Iterator[Fault]:
    """Where a link may lead: to http, https and mailto, or into this repository."""
    plain = re.sub(r"[\x00-\x20\x7f-\xa0]", "", html.unescape(address))  # as a browser reads it
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", plain)
    if scheme and scheme[1].lower() not in SCHEMES:
        yield f"a link to {address[:60]!r}", f"the schemes are {', '.join(sorted(SCHEMES))}"
    elif re.match(r"[/\\]{2}", plain):
        yield f"a link to {address[:60]!r}", "write https:// in front"
