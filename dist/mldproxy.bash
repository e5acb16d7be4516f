# Completion of mldproxy's commands, options and interfaces for bash. It asks the program itself, so
# it knows what that version has. Put it into /usr/share/bash-completion/completions/mldproxy.
# shellcheck shell=bash

_mldproxy() {
    local current="${COMP_WORDS[COMP_CWORD]}" command="${COMP_WORDS[1]}" words
    if ((COMP_CWORD == 1)); then
        words="$(mldproxy --help 2>/dev/null | sed -n '/^Commands:/,$ s/^  \([a-z]\{1,\}\) .*/\1/p')"
        words+=' --help --version'
    elif [[ $current == -* ]]; then
        words="$(mldproxy "$command" --help 2>/dev/null | sed -n 's/^  \(--[a-z0-9-]*\).*/\1/p')"
    else
        words="$(cd /sys/class/net && echo *)"
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _mldproxy mldproxy
