#compdef cubbyhole
# Completion of cubbyhole for zsh. Namespaces and keys come from the store.

_cubbyhole() {
    local quote=${compstate[quote]} begun line
    local -a lines whole whole_shown open open_shown
    # Remove quotes: the tool expects the words as arguments.
    begun=${(Q)${:-$quote$PREFIX$quote}}
    lines=("${(@f)$(cubbyhole complete-words zsh -- "${(@Q)words[1,CURRENT-1]}" "$begun" 2>/dev/null)}")
    if [[ ${lines[1]} == files ]]; then
        compset -P '--*='
        compset -P 'redb:'
        _files
        return
    fi
    for line in "${(@)lines[2,-1]}"; do
        local name=${line%%$'\t'*}
        local shown=$name
        [[ $line == *$'\t'* ]] && shown="$name  -- ${line#*$'\t'}"
        if [[ $name == *[:/=] ]]; then
            open+=("$name")
            open_shown+=("$shown")
        else
            whole+=("$name")
            whole_shown+=("$shown")
        fi
    done
    local -a as_list
    [[ ${lines[2]} == *$'\t'* ]] && as_list=(-l)
    (( $#whole )) && compadd $as_list -d whole_shown -a whole
    # No space after a name that continues.
    (( $#open )) && compadd $as_list -S '' -d open_shown -a open
    (( $#whole + $#open ))
}

if [[ ${funcstack[1]} == _cubbyhole ]]; then
    _cubbyhole "$@"
else
    compdef _cubbyhole cubbyhole
fi
