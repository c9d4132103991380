"""The answer in one line of at most 200 characters, composed from the table's lines."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssgd_analysis.comparison.lines import UNMEASURED, Line
from ssgd_analysis.comparison.sentences import capital

LIMIT = 200
NO_RIVAL = "There is nothing to compare: only one group was given."
NOTHING = "Neither flatness nor accuracy was measured: see the outcomes."
# word of the table → how it answers the question, in the order of an answer
FLATTER = {
    "flatter": "yes",
    "sharper": "no, sharper",
    "same": "no, equally flat",
    "undecided": "undecided",
    "losses differ": "not answered",
    "not comparable": "not comparable",
    UNMEASURED: UNMEASURED,
}
ACCURATE = {
    "higher": "yes",
    "lower": "no, less accurate",
    "not shown to differ": "not shown to differ",
    UNMEASURED: UNMEASURED,
}


@dataclass(frozen=True)
class Form:
    """How much an answer says.

    Args:
        details: numbers in brackets.
        width: the longest name, characters; ``None``: any.
        places: name the settings; else count them.
    """

    details: bool
    width: int | None
    places: bool

    def name(self, text: str) -> str:
        """A name cut in its middle, as its ends distinguish it."""
        if self.width is None or len(text) <= self.width:
            return text
        head = self.width // 2
        return f"{text[:head]}…{text[len(text) - (self.width - head - 1) :]}"


FORMS = (
    Form(True, None, True),
    Form(False, None, True),
    Form(False, 24, True),
    Form(False, 24, False),
    Form(False, 12, False),
)


@dataclass(frozen=True)
class Query:
    """What is asked of every line.

    Args:
        adjective: of which a "yes" says that it holds.
        words: word of a line → its answer.
        accuracy: the question is about accuracy.
    """

    adjective: str
    words: dict[str, str]
    accuracy: bool = False

    def word(self, line: Line) -> str:
        """The word of a line."""
        return line.accuracy if self.accuracy else line.flatness


def answer(lines: Sequence[Line]) -> str:
    """Is each group flatter than its baseline? One line, whatever the names.

    A group that is compared in several settings gets one clause. What does not fit is left out in
    this order: numbers in brackets, the middle of long names, names of settings, clauses, whose
    number is then given. Without a flatness metric the question is whether it is more accurate.

    Args:
        lines: of the table.

    Example:
        >>> names = {"subject": "S-SGD", "over": "SGD", "group": "S-SGD", "baseline": "SGD"}
        >>> words = {"flatness": "undecided", "accuracy": "higher", "detail": "one seed"}
        >>> answer([Line(setting="batch 32", **names, **words)])
        'Is S-SGD flatter than SGD? Undecided at batch 32 (one seed). Its test accuracy is higher.'
    """
    if not lines:
        return NO_RIVAL
    query = Query("flatter", FLATTER)
    if all(line.flatness == UNMEASURED for line in lines):
        query = Query("more accurate", ACCURATE, accuracy=True)
        if all(line.accuracy == UNMEASURED for line in lines):
            return NOTHING
    for form in FORMS:
        text = " ".join(_sentences(lines, query, form))
        if len(text) <= LIMIT:
            return _with_accuracy(text, lines, query)
    return _fitting(_sentences(lines, query, FORMS[-1]))


def _fitting(sentences: Sequence[str]) -> str:
    """As many sentences as fit, and the number of the others."""
    for count in range(len(sentences) - 1, 0, -1):
        rest = f"And {len(sentences) - count} more: see the table."
        text = " ".join([*sentences[:count], rest])
        if len(text) <= LIMIT:
            return text
    return f"{sentences[0][: LIMIT - 1]}…"


def _with_accuracy(text: str, lines: Sequence[Line], query: Query) -> str:
    """With a sentence on accuracy, where the answer is about one line and it fits."""
    if query.accuracy or len(lines) > 1 or lines[0].accuracy == UNMEASURED:
        return text
    whole = f"{text} Its test accuracy is {lines[0].accuracy}."
    return whole if len(whole) <= LIMIT else text


def _sentences(lines: Sequence[Line], query: Query, form: Form) -> list[str]:
    """One sentence for each rival; the first of a question holds the question."""
    rivals: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        rivals.setdefault((line.subject, line.over), []).append(line)
    if len({subject for subject, _ in rivals}) == 1:
        return [
            f"{'Than' if index else _question(subject, query, form)} {form.name(over)}?"
            f" {capital(_clause(own, query, form))}."
            for index, ((subject, over), own) in enumerate(rivals.items())
        ]
    found, asked = [], ""
    for (subject, over), own in rivals.items():
        start = "" if over == asked else f"{capital(query.adjective)} than {form.name(over)}? "
        found.append(f"{start}{form.name(subject)}: {_clause(own, query, form)}.")
        asked = over
    return found


def _question(subject: str, query: Query, form: Form) -> str:
    return f"Is {form.name(subject)} {query.adjective} than"


def _clause(lines: Sequence[Line], query: Query, form: Form) -> str:
    """What is said of one rival: each word with the settings where it holds."""
    parts = []
    for word, said in query.words.items():
        own = [line for line in lines if query.word(line) == word]
        if own:
            parts.append(said + _where(own, len(lines), form) + _brackets(own, query, form))
    return "; ".join(parts)


def _where(own: Sequence[Line], count: int, form: Form) -> str:
    """The settings, as in: at batch size 32 and 64."""
    if count > 1 and len(own) == count:
        return " in both settings" if count == 2 else f" in all {count} settings"
    if not form.places:
        return f" in {len(own)} of {count} settings" if count > 1 else ""
    names = [form.name(line.setting) for line in own]
    if names == [""]:
        return " elsewhere" if count > 1 else ""
    heads = {name.rpartition(" ")[0] for name in names}
    if len(heads) == 1:  # batch size 32, batch size 64
        names = [names[0], *(name.rpartition(" ")[2] for name in names[1:])]
    *first, last = [name or "elsewhere" for name in names]
    return f" at {', '.join(first)} and {last}" if first else f" at {last}"


def _brackets(own: Sequence[Line], query: Query, form: Form) -> str:
    """The detail, if there is one for all these settings."""
    details = {line.detail for line in own}
    if not form.details or query.accuracy or len(details) > 1 or details == {""}:
        return ""
    return f" ({details.pop()})"
