# Completion of cubbyhole for fish. Namespaces and keys come from the store.

function __cubbyhole_words
    set -l words (commandline -opc)
    set -l token (commandline -ct)
    # Remove quotes: the tool expects the words as arguments.
    set -l begun (string unescape -- "$token")
    set -l lines (cubbyhole complete-words fish -- $words "$begun" 2>/dev/null)
    if test "$lines[1]" = files
        __fish_complete_path "$begun"
    else if set -q lines[2]
        printf '%s\n' $lines[2..-1]
    end
end

complete -c cubbyhole -f -a '(__cubbyhole_words)'
