# Part of `check`: the tables of README.md, from results.tsv.

table() {
    local readme=$here/README.md fresh
    fresh=$(mktemp)
    sed '/^<!-- table -->$/q' "$readme" >"$fresh"
    { echo && counts | sed 's/^/    /'; } >>"$fresh"
    rows "core/" "raft-core" unit golden paper envelopes model simulation >>"$fresh"
    rows "grpc/" "raft-grpc" unit process real >>"$fresh"
    rows "app/" "leaderboard-app" unit process real simulation >>"$fresh"
    rows "wal/" "raft-wal" unit wal simulation >>"$fresh"
    cat "$fresh" >"$readme"
    rm "$fresh"
}

rows() {
    local prefix=$1 crate=$2 patch name rung
    shift 2
    printf '\n### %s\n\n| patch | entry | what is put in | source |' "$crate"
    printf ' %s |' "$@"
    printf '\n|---|---|---|---|'
    printf -- '---|%.0s' "$@"
    echo
    prefixes=("$prefix")
    while read -r patch; do
        name=$(name_of "$patch")
        printf '| %s | %s | %s | %s |' "${name#*/}" "$(field Entry "$patch")" \
            "$(field Defect "$patch")$(alone "$patch")" "$(field Source "$patch")"
        for rung in "$@"; do cell "$name" "$rung"; done
        echo
    done < <(patches)
}

alone() {
    local why
    why=$(field Alone "$1")
    [ -z "$why" ] || echo " *One rung only: $why*"
}

cell() {
    awk -F'\t' -v patch="$1" -v rung="$2" '
        $1 == patch && $2 == rung { verdict = $3; seeds = $4; seconds = $5 }
        END {
            if (verdict == "") text = ""
            else if (verdict == "missed") text = (rung == "simulation" ? "– " seeds : "–")
            else if (verdict == "hang") text = "hangs"
            else if (rung == "simulation") text = "**" seeds "**, " seconds " s"
            else text = "**" seconds " s**"
            printf " %s |", text
        }' "$results"
}

# How many patches of a crate are noticed by two rungs, by one, by none; and the median of the first seeds.
counts() {
    local crate patch name
    for crate in core grpc app wal; do
        prefixes=("$crate/")
        while read -r patch; do
            name=$(name_of "$patch")
            echo "$(noticed "$name") $(needed "$patch")"
        done < <(patches) | awk -v crate="$crate" '
            { all++; if ($1 >= 2) two++; else if ($1 == 1) one++; else none++; if ($1 < $2) few++ }
            END { printf "%s: %d patches, noticed by two rungs or more %d, by one %d, by none %d; too few for %d\n",
                      crate, all, two, one, none, few }'
    done
    for crate in core/ app/ wal/ ""; do medians "$crate"; done
}

# How many patches of a crate the simulation noticed, and after how many seeds.
medians() {
    printf '%s' "${1:-all/}" | tr / ' '
    awk -F'\t' -v crate="$1" '$2 == "simulation" && index($1, crate) == 1 && $1 !~ /^none/ { verdict[$1] = $3; seeds[$1] = $4 }
        END { for (patch in verdict) print (verdict[patch] == "caught" && seeds[patch] + 0 > 0 ? seeds[patch] : verdict[patch] == "missed" ? 1e9 : 1e8) }' "$results" |
        sort -n | awk '{ seed[NR] = $1; if ($1 < 1e9) caught++ }
            END { printf "simulation: %d measured, %d noticed", NR, caught
                  printf "; first seed, median of those noticed: %d, of all: ", seed[int((caught + 1) / 2)]
                  middle = seed[int((NR + 1) / 2)]; print (middle < 1e8 ? middle : "none") }'
}
