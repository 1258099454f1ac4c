# Checks what can be known of the Dockerfile without an engine: known instructions, stages that
# exist before they are used, pinned base images, a numeric USER, exec-form commands (the images
# have no shell), and that compose.yaml asks only for stages that there are.
#
#   awk -f .ci/dockerfile.awk Dockerfile compose.yaml

function complain(text) {
    printf "%s:%d: %s\n", FILENAME, first_line, text
    failed = 1
}

function check(instruction,    words, count, name, i, from) {
    count = split(instruction, words, /[ \t]+/)
    name = toupper(words[1])
    if (name !~ /^(ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|RUN|STOPSIGNAL|USER|VOLUME|WORKDIR)$/)
        complain("unknown instruction " words[1])
    else if (name == "FROM") {
        if (!(words[2] in stages) && words[2] != "scratch" && words[2] !~ /:[^:]+$/)
            complain("base image " words[2] " is neither a stage above nor pinned to a tag")
        if (count == 4 && toupper(words[3]) == "AS")
            stages[words[4]] = 1
        else
            complain("a stage without a name: expected FROM image AS name")
    }
    else if (name == "COPY") {
        from = ""
        for (i = 2; i <= count; i++)
            if (sub(/^--from=/, "", words[i])) from = words[i]
        if (from != "" && !(from in stages))
            complain("COPY from " from ", which is no stage above")
    }
    else if (name == "USER" && words[2] !~ /^[0-9]+(:[0-9]+)?$/)
        complain("USER " words[2] " is not numeric")
    else if ((name == "CMD" || name == "ENTRYPOINT") && instruction !~ /^[A-Za-z]+ \[".*"\]$/)
        complain(name " is not in exec form")
    else if (name == "HEALTHCHECK" && instruction !~ / CMD \[".*"\]$/)
        complain("HEALTHCHECK is not in exec form")
}

FILENAME ~ /Dockerfile$/ {
    if ($0 ~ /^[ \t]*(#.*)?$/) next
    if (pending == "") first_line = FNR
    pending = pending $0
    if (sub(/\\$/, "", pending)) next
    check(pending)
    pending = ""
    next
}

match($0, /target: *[a-z-]+/) {
    first_line = FNR
    target = substr($0, RSTART, RLENGTH)
    sub(/target: */, "", target)
    if (!(target in stages)) complain("build target " target " is no stage of the Dockerfile")
    targets++
}

END {
    if (pending != "") complain("the last instruction is not finished")
    if (targets == 0) { print "no build target found in compose.yaml"; failed = 1 }
    exit failed
}
