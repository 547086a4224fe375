"""Convert HTML to the text that a page shows, without tags."""

import html
import re

_TAG = re.compile(r"</?([A-Za-z][\w-]*)[^<>]*>|<!--.*?-->|<[!?][^<>]*>", re.DOTALL)
_HIDDEN = re.compile(r"<(script|style|template)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)", re.IGNORECASE | re.DOTALL)
# Block elements, which are on lines of their own, and inline elements; anything else in angle brackets is not HTML.
_BLOCK = re.compile(
    "address|article|aside|blockquote|br|center|dd|details|div|dl|dt|fieldset|figcaption|figure|footer|form|h[1-6]|header"
    "|hr|legend|li|main|nav|ol|p|pre|section|summary|table|tbody|td|tfoot|th|thead|tr|ul"
)
_WITHIN = re.compile(
    "a|abbr|acronym|audio|b|base|bd[io]|big|body|button|canvas|caption|cite|code|col|colgroup|data|datalist|del|dfn"
    "|dialog|em|embed|font|head|html|i|iframe|img|input|ins|kbd|label|link|map|mark|meta|meter|object|option|output"
    "|param|picture|progress|q|rp|rt|ruby|s|samp|script|select|slot|small|source|span|strike|strong|style|sub|sup|svg"
    r"|template|textarea|time|title|track|tt|u|var|video|wbr|\w+-[\w-]*"
)


def _replace(match: re.Match[str]) -> str:
    name = (match[1] or "").lower()
    if _BLOCK.fullmatch(name):
        return "\n"
    return "" if not name or _WITHIN.fullmatch(name) else match[0]


def strip_tags(text: str) -> str:
    """Remove HTML tags, and put blocks on lines of their own; text in angle brackets that is not an element stays."""
    return _TAG.sub(_replace, text)


def read_html(text: str) -> str:
    """The visible text of a block of HTML."""
    return html.unescape(strip_tags(" ".join(_HIDDEN.sub("", text).split())))
