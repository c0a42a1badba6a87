"""Parsing YAML that may be hostile: no longer, deeper, or larger by its aliases than a config is."""

from typing import Any

import yaml

MOST_BYTES = 1 << 16
MOST_TOKENS = 5000
MOST_CHARACTERS = 1 << 18  # with every alias written out
DEEPEST = 20
LONGEST_NUMBER = 40  # characters


def parse_yaml(text: str | bytes) -> Any:
    """Parse YAML with its safe types.

    Raises:
        ValueError: it is none, or larger than a config is; the message says why.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"it is longer than {MOST_BYTES:,} bytes")
    try:
        return yaml.load(text, _BoundedLoader)  # noqa: S506 - it is a SafeLoader
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except Exception as error:  # PyYAML's constructors raise a dozen kinds
        raise ValueError(" ".join(str(error).split())) from error


class _BoundedLoader(yaml.SafeLoader):
    """A SafeLoader that stops early; a key that is there twice is an error, where PyYAML silently takes the last."""

    def fetch_more_tokens(self) -> None:
        """Read on, unless there was enough."""
        if self.tokens_taken > MOST_TOKENS or self.flow_level > DEEPEST:
            raise yaml.scanner.ScannerError(problem="there are too many entries", problem_mark=self.get_mark())
        super().fetch_more_tokens()

    def get_single_node(self) -> yaml.Node | None:
        """Return the whole text, unless it grows by its aliases."""
        node: yaml.Node | None = super().get_single_node()
        _check_growth(node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping, as PyYAML does."""
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"{key.value} is there twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Make a number of a length that numbers have."""
        if len(node.value) > LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(problem="a number is too long", problem_mark=node.start_mark)
        make = self.construct_yaml_int if node.tag.endswith(":int") else self.construct_yaml_float
        number: int | float = make(node)
        return number


for _kind in ("int", "float"):
    _BoundedLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _BoundedLoader.construct_number)


def _check_growth(root: yaml.Node | None) -> None:
    """Walk through all that the text stands for, as often as its aliases say, for as long as a config is."""
    left, nodes = MOST_CHARACTERS, [root] if root else []
    while nodes:
        value = nodes.pop().value
        left -= 1 + len(value)
        if left < 0:
            raise ValueError("its aliases make it far longer than a config")
        for part in value if isinstance(value, list) else ():
            nodes.extend(part if isinstance(part, tuple) else [part])
