"""What is wrong with a command's arguments: one line that quotes them and tells the remedy.

Typer's own errors say what they mean in boxes, and in pydantic's words; they are told apart here by what they carry,
which has stayed the same over its versions, not by their classes, which have not.
"""

import re
from collections.abc import Iterator
from typing import Any, get_args

from capcsim.errors import closest

COMMAND = "capcsim"
EXPECTED = (
    (r"valid integer", "a whole number"),
    (r"valid (number|float)", "a number"),
    (r"greater than or equal to ([^\s,]+)|x\s*>=\s*([^\s,]+)", "at least {}"),
    (r"less than or equal to ([^\s,]+)|x\s*<=\s*([^\s,]+)", "at most {}"),
    (r"is not one of (.+)", "one of {}"),
)
"""What typer says of a value, over its versions, and what that means."""


def usage_message(error: Any) -> str:
    """What typer found wrong, on one line."""
    context: Any = getattr(error, "ctx", None)
    command = context.command_path if context else COMMAND
    text = " ".join(error.format_message().split())
    param = getattr(error, "param", None)
    if text.startswith("Missing ") and param is not None:
        said = f"Missing {param.param_type_name} {_name(param)}{_meaning(param)}"
    elif param is not None:
        said = _value(error, param, text)
    elif getattr(error, "option_name", None):
        said = _option(error, context, text)
    elif unknown := re.match(r"No such command '(.*?)'", text):
        commands = context.command.list_commands(context)
        near = closest(unknown[1], commands) or f"; there are {', '.join(commands)}"
        said = f"No such command {unknown[1]!r}{near}"
    elif extra := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", text):
        said = f"Unexpected argument {extra[1]!r}; a value with blanks needs quotes"
    else:
        said = text.rstrip(".")
    return f"{said}; see {command} --help"


def _name(param: Any) -> str:
    """As it is written on the command line."""
    options = [name for name in param.opts if name.startswith("--")]
    return str(options[0] if options else param.metavar or param.name.upper())


def _meaning(param: Any) -> str:
    meaning = str(getattr(param, "help", None) or "").rstrip(".")
    return f": {meaning[:1].lower()}{meaning[1:]}" if meaning else ""


def _value(error: Any, param: Any, text: str) -> str:
    """A value of the wrong kind: what was given, and what may be."""
    cause: Any = getattr(error, "__cause__", None)
    details = cause.errors() if hasattr(cause, "errors") else []
    quoted = re.search(r": '(.*?)' ", text)
    given = f" {details[0]['input']!r}" if details else f" {quoted[1]!r}" if quoted else ""
    for pattern, words in EXPECTED:
        if found := re.search(pattern, error.message):
            bound = next((group for group in found.groups() if group), "") if found.groups() else ""
            return f"{_name(param)}{given}: {words.format(bound.rstrip('.'))}"
    return f"{_name(param)}{given}: {' '.join(error.message.split()).rstrip('.')}"


def _option(error: Any, context: Any, text: str) -> str:
    """An option that there is not, or one without its value."""
    name = error.option_name
    params = context.command.params if context else []
    if not text.startswith("No such option"):
        known = next((param for param in params if name in param.opts), None)
        return f"{name} needs a value{_meaning(known)}" if "requires" in text else text.rstrip(".")
    options = [option for param in params for option in param.opts if option.startswith("--")]
    if "--set" in options and (key := _scenario_key(name.lstrip("-"))):
        return f"No such option {name!r}; did you mean --set {key}=VALUE?"
    return f"No such option {name!r}{closest(name, options)}"


def _scenario_key(word: str) -> str | None:
    """The dotted key of a scenario whose last part is this word."""
    from capcsim.scenario import Scenario

    def keys(model: Any, prefix: str = "") -> Iterator[str]:
        for name, field in model.model_fields.items():
            kinds = (field.annotation, *get_args(field.annotation))
            sections = [kind for kind in kinds if hasattr(kind, "model_fields")]
            for section in sections:
                yield from keys(section, f"{prefix}{name}.")
            if not sections:
                yield f"{prefix}{name}"

    plain = word.replace("-", "_")
    return next((key for key in keys(Scenario) if plain in (key, key.rsplit(".")[-1], key.replace(".", "_"))), None)
