"""How large a YAML file becomes once its aliases are replaced by what they stand for."""

import yaml  # type: ignore[import-untyped]


def expanded_nodes(text: bytes) -> int:
    """Return the number of values a YAML text has with all aliases written out.

    Nine lines of nine aliases each, to the line before, are 9^9 values; counting them takes as
    long as reading the text.

    Raises
    ------
    yaml.YAMLError
        The text is no YAML.
    """
    known: dict[str, int] = {}
    # Values and anchor of every collection that is still open; the outermost holds the documents.
    counts, anchors = [0], [""]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            counts[-1] += known.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            counts.append(1)
            anchors.append(event.anchor or "")
        elif isinstance(event, yaml.CollectionEndEvent):
            inside, anchor = counts.pop(), anchors.pop()
            known[anchor] = inside
            counts[-1] += inside
        elif isinstance(event, yaml.ScalarEvent):
            known[event.anchor or ""] = 1
            counts[-1] += 1
    return counts[0]
