"""A shell's completion of commands, options and settings, as a script that needs no Python each time Tab is pressed."""

import argparse
from collections.abc import Mapping

from jobs.settings_help import all_settings

# zsh understands bash's way after bashcompinit. The first word behind a command is mostly a file, so no setting is
# offered there. `=` parts words in bash: what stands behind it may be a file as well.
_SCRIPT = """# triptych: completion for bash and zsh
if [ -n "$ZSH_VERSION" ]; then autoload -Uz compinit bashcompinit && compinit && bashcompinit; fi
_triptych() {
    local offered settings word="${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=()
    case "$COMP_CWORD:${COMP_WORDS[1]}" in
        1:*) offered="@COMMANDS@" ;;
@CASES@
    esac
    [ "$COMP_CWORD" -gt 2 ] && offered="$offered $settings"
    case "$word" in
        =|*/*) return ;;
        *) [ "${COMP_WORDS[COMP_CWORD-1]}" = "=" ] || COMPREPLY=($(compgen -W "$offered" -- "$word")) ;;
    esac
    case "${COMPREPLY[0]}" in *=) compopt -o nospace 2>/dev/null ;; esac
}
complete -o default -F _triptych triptych
"""


def completion_script(parser: argparse.ArgumentParser) -> str:
    """Return the script for a command line; `eval` of it, or a line in the shell's start-up file, switches it on."""
    commands = _commands(parser)
    paths = [one.path for one in all_settings() if "<" not in one.path]
    overrides = [f"{path}=" for path in dict.fromkeys(paths)]
    cases = []
    for name, command in commands.items():
        words = [option for action in command._actions for option in action.option_strings]
        words += [str(choice) for action in command._actions for choice in action.choices or ()]
        words += paths if name == "settings" else []
        takes_settings = any(action.dest == "overrides" for action in command._actions)
        settings = " ".join(overrides) if takes_settings else ""
        cases.append(f'        *:{name}) offered="{" ".join(words)}" settings="{settings}" ;;')
    return _SCRIPT.replace("@COMMANDS@", " ".join(["--help --version", *commands])).replace("@CASES@", "\n".join(cases))


def _commands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    found = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return next(found).choices
