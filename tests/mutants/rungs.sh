# Part of `check`: which test programs a rung is, how they are built and run, and what their end means.

ALL_RUNGS=(unit golden paper envelopes model simulation wal process real)
# Programs are told apart by package and name, `raft-core:lib`; those without a package are of the root.
package_of() { [ "${1%%:*}" = "$1" ] && echo raft-leaderboard || echo "${1%%:*}"; }

# The programs of a rung for a patch; nothing if the rung does not concern its crate. The digests of
# `determinism` are not asked: they notice that anything is different, wrong or not.
programs() {
    local rung=$1 patch=$2
    case $rung/$(name_of "$patch") in
        unit/core/*) echo "raft-core:lib quorum log promises" ;;
        unit/wal/*) echo "raft-wal:lib" ;;
        unit/grpc/*) echo "raft-grpc:lib" ;;
        unit/app/*) echo "leaderboard-app:lib" ;;
        wal/wal/*) field Tests "$patch" | grep -oE 'test [a-z_]+' | sed 's/^test /raft-wal:/' | tr '\n' ' ' ;;
        process/grpc/*) echo "raft-grpc:cluster raft-grpc:network raft-grpc:shutdown raft-grpc:strangers" ;;
        process/app/*) echo "leaderboard-app:balancer leaderboard-app:rest leaderboard-app:process" ;;
        golden/core/* | paper/core/* | envelopes/core/* | model/core/*) echo "$rung" ;;
        simulation/core/* | simulation/wal/* | simulation/app/*) echo "simulation" ;;
        real/grpc/* | real/app/*) echo "processes durability" ;;
    esac
}

# Builds programs in a tree, and notes where each is.
build() {
    local tree=$1 name package program listing
    shift
    declare -A arguments
    for name in "$@"; do
        [ -z "${built[$tree/$name]:-}" ] || continue
        package=$(package_of "$name")
        case $name in
            *:lib) arguments[$package]+=" --lib" ;;
            *) arguments[$package]+=" --test ${name#*:}" ;;
        esac
    done
    for package in "${!arguments[@]}"; do
        # The arguments are meant to be split.
        # shellcheck disable=SC2086
        listing=$(cd "$tree" && cargo test --no-run -p "$package" ${arguments[$package]} 2>&1 </dev/null) || {
            grep -v '^warning' <<<"$listing" | tail -60
            return 1
        }
        while read -r name program; do
            [ "$package" = raft-leaderboard ] || name=$package:$name
            case $program in /*) ;; *) program=$tree/$program ;; esac
            built[$tree/$name]=$program
        done < <(sed -nE 's/^ *Executable unittests src\/lib.rs \((.*)\)$/lib \1/p
                          s/^ *Executable tests\/([a-z_]+)(\.rs|\/main\.rs) \((.*)\)$/\1 \3/p' <<<"$listing")
    done
}

# Forgets what was built in a tree.
forget() {
    local one
    for one in "${!built[@]}"; do
        case $one in "$1"/*) unset "built[$one]" ;; esac
    done
}

# Runs one program, which may take so many seconds of a processor. Sets code, and adds to took.
run_program() {
    local tree=$1 name=$2 limit=$3 log=$4 directory package
    shift 4
    package=$(package_of "$name")
    directory=$tree
    [ "$package" = raft-leaderboard ] || directory=$tree/$package
    code=0
    (
        cd "$directory"
        ulimit -t "$limit" -v 8000000 -c 0
        export CARGO_MANIFEST_DIR=$directory
        TIMEFORMAT='%U %S'
        # For those that wait for ever: others take of the machine as well, so patience is long.
        { time timeout -k 10 $((limit * 5 + 60)) "${built[$tree/$name]}" "$@" >>"$log" 2>&1 </dev/null; } 2>"$log.time"
    ) || code=$?
    took=$(awk -v before="$took" 'NF == 2 { before += $1 + $2 } END { printf "%.2f", before }' "$log.time")
}

# Runs one rung, of a tree, with a patch by number. Sets verdict, count, took, by.
run_rung() {
    local rung=$1 programs=$2 tree=$3 number=$4 log=$target/$1.log name patience limit
    limit=$(limit_of "$rung" "$programs")
    for patience in 1 4; do
        took=0 count=- by=- verdict=missed
        : >"$log"
        for name in $programs; do
            if [ "$rung" = simulation ]; then
                MUTANT=$number FIRST_SEED=1 SEEDS=$seeds STOP_AT_FIRST=1 SHRINK=0 \
                    run_program "$tree" "$name" $((limit * patience)) "$log" every_invariant --nocapture
            else
                MUTANT=$number run_program "$tree" "$name" $((limit * patience)) "$log"
            fi
            judge "$rung" "$log"
            [ "$verdict" = missed ] || break
        done
        # Only who takes much longer than that as well has hung.
        [ "$verdict" = hang ] || break
    done
    [ "$rung" = simulation ] || return 0
    count=$(sed -n 's/^seed \([0-9]*\): .*/\1/p' "$log" | head -1)
    # None failed, or what was to happen did not happen in them. Who died has not said in which.
    [ -n "$count" ] || [ "$code" -gt 101 ] || count=$seeds
    count=${count:--}
}

# What the end of a program means. Noticed is only what a test has noticed: a test that failed, or a
# program that died in one.
judge() {
    local rung=$1 log=$2
    case $code in
        0) return ;;
        124 | 137 | 152) verdict=hang by=- && return ;;
    esac
    by=$(names_of_failures "$rung" "$log")
    verdict=caught
    [ -z "$by" ] || return 0
    if [ "$code" -gt 128 ] && grep -qE '^(running [0-9]+ tests?|test .*)' "$log"; then
        by="died of signal $((code - 128))"
        ! grep -q 'memory allocation of' "$log" || by="memory without an end"
        ! grep -q 'stack overflow' "$log" || by="stack overflow"
    else
        verdict=error by="exit code $code"
    fi
}

# The tests that failed, or which invariant broke.
names_of_failures() {
    if [ "$1" = simulation ]; then
        sed -nE 's/^seed [0-9]+: (.*)/\1/p;s/^(only [0-9]+ .* seeds)$/\1/p' "$2" | head -1 | tr '\t' ' ' | cut -c1-120
    else
        sed -n 's/^    \([A-Za-z0-9_:]*\)$/\1/p' "$2" | sort -u | awk '
            NR <= 3 { text = text (NR > 1 ? " " : "") $0 }
            END { if (NR > 3) text = text " and " (NR - 3) " more"; if (NR) print text }'
    fi
}

# How many seconds of a processor a rung may take: twice what it takes without a patch, and 10 more.
limit_of() {
    awk -F'\t' -v name="$(name_without "$2")" -v rung="$1" \
        '$1 == name && $2 == rung && $3 == "missed" { took = $5 } END { print int(took * 2 + 10) }' "$results"
}
