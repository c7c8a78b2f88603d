# Completion of cubbyhole for bash. Namespaces and keys come from the store.

_cubbyhole() {
    local how= line
    COMPREPLY=()
    # Pass the whole line, because bash splits words at every `:`.
    {
        IFS= read -r how
        while IFS= read -r line; do
            COMPREPLY+=("$line")
        done
    } < <(cubbyhole complete-words bash -- "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
    # bash 3 has no compopt.
    case $how in
        files) compopt -o default 2>/dev/null ;;
        nospace) compopt -o nospace 2>/dev/null ;;
    esac
    return 0
}

complete -o nosort -F _cubbyhole cubbyhole 2>/dev/null || complete -F _cubbyhole cubbyhole
