#!/usr/bin/env bash
# Times whole builds: the same generated contexts through Strata and every other builder found on this machine.
#
#   benches/compare.sh [--runs N] [--builders LIST] [--scenarios LIST] [--format table|json]
#
# Builders: strata (target/strata), buildah (its own isolation with runc, or chroot where that fails), buildctl (where
# $BUILDKIT_HOST is set), docker (where a daemon answers). Each run goes through all of them in turn, so that a slow
# minute of the machine hits all. The order turns by one from run to run.
#
# Scenarios:
#   chain       40 RUN steps, each a line written to a file
#   files       COPY of 10,000 files of 8 KiB, all new
#   files-noop  the same, unchanged
#   files-edit  the same with one of the files changed
#   big         COPY of a file of 512 MiB, new
#   big-noop    the same, unchanged
#   stages      8 independent stages that each sleep for a second
#   noop        a build of one RUN, unchanged
#
# After the runs each scenario is built once more by strata, without a clock, for the most memory that one of its
# processes had at a time.
#
# Every builder has the base image before the clock starts, keeps its result in its own store, and exports nothing.
# Every build is stopped after five minutes. Everything made is in one directory below $STRATA_BENCH_DIR (/var/tmp),
# which is removed at the end; what docker or buildkitd keep in their own caches is theirs to prune.
set -euo pipefail
cd "$(dirname "$0")/.."

runs=5
format=table
builders=
scenarios=chain,files,files-noop,files-edit,big,big-noop,stages,noop

say() { printf 'compare: %s\n' "$*" >&2; }
fail() { say "$*"; exit "${code:-3}"; }

while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || code=2 fail "$1 takes a value, or is unknown"
    case $1 in
        --runs) runs=$2 ;;
        --builders) builders=$2 ;;
        --scenarios) scenarios=$2 ;;
        --format) format=$2 ;;
        *) code=2 fail "unknown option $1" ;;
    esac
    shift 2
done
[[ $runs =~ ^[1-9][0-9]*$ ]] || code=2 fail "--runs takes a number, not $runs"
case $format in table | json) ;; *) code=2 fail "--format is table or json" ;; esac

if [ -z "${REGISTRY:-}" ]; then
    exec scripts/registry with "$0" --runs "$runs" --builders "$builders" --scenarios "$scenarios" --format "$format"
fi

work=$(mktemp -d "${STRATA_BENCH_DIR:-/var/tmp}/strata-bench.XXXXXX")
cleanup() {
    # Buildah leaves its storage directory mounted on itself.
    umount --lazy "$work/buildah/overlay" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

context=$work/context
measurements=$work/measurements
log=$work/log
BASE=$(scripts/base-images busybox)

# --- builders: builder_NAME sets `command` to one build of $context

export STRATA_ROOT=$work/strata DOCKER_BUILDKIT=1
buildah_isolation=oci

builder_strata() { command=(target/strata build --progress plain -t bench --build-arg "BASE=$BASE" "$context"); }

builder_buildah() {
    command=(buildah --root "$work/buildah" --runroot "$work/buildah-run" --storage-driver overlay bud --quiet --layers
        --isolation "$buildah_isolation" --runtime runc --tls-verify=false --build-arg "BASE=$BASE" -t bench "$context")
}

builder_buildctl() {
    command=(buildctl build --frontend dockerfile.v0 --local "context=$context" --local "dockerfile=$context"
        --opt "build-arg:BASE=$BASE" --progress plain)
}

builder_docker() { command=(docker build --network host --quiet --build-arg "BASE=$BASE" -t strata-bench "$context"); }

# Prints the builders that can be used here.
find_builders() {
    [ -x target/strata ] && echo strata || say "no target/strata; run 'make build'"
    command -v buildah >/dev/null && echo buildah
    [ -n "${BUILDKIT_HOST:-}" ] && command -v buildctl >/dev/null && echo buildctl
    command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1 && echo docker
    true
}

# --- scenarios: prepare_NAME RUN makes $context so that nothing of it is known to any builder

header() { printf 'ARG BASE\nFROM ${BASE}\n'; }

prepare_chain() {
    header >"$context/Dockerfile"
    local step
    for step in $(seq 40); do
        echo "RUN echo $1-$stamp-$step >/step-$step" >>"$context/Dockerfile"
    done
}

# Writes the files anew, with other content and the same names.
prepare_files() {
    { header; echo 'COPY data /data'; } >"$context/Dockerfile"
    python3 - "$context/data" <<'PYTHON'
import os, sys
root = sys.argv[1]
for directory in range(100):
    os.makedirs(f"{root}/{directory}", exist_ok=True)
    for number in range(100):
        with open(f"{root}/{directory}/{number}", "wb") as file:
            file.write(os.urandom(4096).hex().encode())
PYTHON
}

# The clock starts after every builder has built the files as they were; see `measure`.
prepare_files-noop() { prepare_files "$1"; }
change_files-noop() { :; }

prepare_files-edit() { prepare_files "$1"; }
change_files-edit() { echo "changed in run $1 of $stamp" >"$context/data/42/42"; }

prepare_big() {
    { header; echo 'COPY big /big'; } >"$context/Dockerfile"
    head -c 536870912 /dev/urandom >"$context/big"
}

prepare_big-noop() { prepare_big "$1"; }
change_big-noop() { :; }

prepare_stages() {
    local stage
    echo 'ARG BASE' >"$context/Dockerfile"
    for stage in $(seq 8); do
        printf 'FROM ${BASE} AS s%s\nRUN sleep 1; echo %s >/out\n' "$stage" "$1-$stamp-$stage" >>"$context/Dockerfile"
    done
    echo 'FROM ${BASE}' >>"$context/Dockerfile"
    for stage in $(seq 8); do
        echo "COPY --from=s$stage /out /out-$stage" >>"$context/Dockerfile"
    done
}

prepare_noop() { { header; echo "RUN echo noop-$stamp >/noop"; } >"$context/Dockerfile"; }
change_noop() { :; }

# --- measuring

# Runs one build without a clock; stops everything where it fails.
build() {
    "builder_$1"
    timeout --kill-after=10 300 "${command[@]}" >"$log" 2>&1 ||
        fail "$1 failed; its last words:"$'\n'"$(tail -n 20 "$log")"
}

# Runs one build with a clock; notes the microseconds. The start of `timeout`, about a millisecond, is in them.
timed() {
    # What the builder before still does after it said that it was done is not this one's.
    sync
    sleep 2
    local start=$EPOCHREALTIME
    build "$1"
    printf '%s %s %s\n' "$2" "$1" "$((${EPOCHREALTIME/./} - ${start/./}))" >>"$measurements"
}

# One run of one scenario through every builder, beginning with another one each time.
measure() {
    local scenario=$1 run=$2 builder index count=${#found[@]}
    rm -rf "$context"
    mkdir "$context"
    "prepare_$scenario" "$run"
    if declare -F "change_$scenario" >/dev/null; then
        for builder in "${found[@]}"; do build "$builder"; done
        "change_$scenario" "$run"
    fi
    for ((index = 0; index < count; index++)); do
        timed "${found[(index + run) % count]}" "$scenario"
    done
}

# Notes the kilobytes that strata's largest process had resident in one more build of a scenario.
weigh() {
    rm -rf "$context"
    mkdir "$context"
    "prepare_$1" "$((runs + 1))"
    if declare -F "change_$1" >/dev/null; then
        build strata
        "change_$1" "$((runs + 1))"
    fi
    builder_strata
    python3 - "$1" "${command[@]}" >>"$measurements" 2>>"$log" <<'PYTHON'
import resource, subprocess, sys
scenario, *command = sys.argv[1:]
subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
print(scenario, "memory", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
PYTHON
}

stamp=$(date +%s%N)
if [ -n "$builders" ]; then
    IFS=, read -ra found <<<"$builders"
else
    mapfile -t found < <(find_builders)
fi
[ "${#found[@]}" -gt 0 ] || fail "found no builder"
for builder in "${found[@]}"; do
    declare -F "builder_$builder" >/dev/null || code=2 fail "unknown builder $builder"
done

# Everyone gets the base, and buildah the isolation that works here.
mkdir "$context"
{ header; echo "RUN echo warm-up-$stamp"; } >"$context/Dockerfile"
for builder in "${found[@]}"; do
    if [ "$builder" = buildah ] && ! (build buildah) 2>/dev/null; then
        buildah_isolation=chroot
    fi
    build "$builder"
done

IFS=, read -ra wanted <<<"$scenarios"
for scenario in "${wanted[@]}"; do
    declare -F "prepare_$scenario" >/dev/null || code=2 fail "unknown scenario $scenario"
done
for scenario in "${wanted[@]}"; do
    for run in $(seq "$runs"); do
        say "$scenario, run $run of $runs"
        measure "$scenario" "$run"
    done
    [[ " ${found[*]} " != *" strata "* ]] || weigh "$scenario"
done

python3 - "$measurements" "$format" "$buildah_isolation" <<'PYTHON'
import json, os, platform, statistics, sys

path, style, isolation = sys.argv[1:]
times, memory = {}, {}
with open(path, encoding="ascii") as lines:
    for line in lines:
        scenario, builder, figure = line.split()
        if builder == "memory":
            memory[scenario] = round(int(figure) / 1024, 1)
        else:
            times.setdefault(scenario, {}).setdefault(builder, []).append(int(figure) / 1000)
builders = sorted({builder for row in times.values() for builder in row}, key=lambda name: (name != "strata", name))
report = {
    "machine": {"cpus": os.cpu_count(), "kernel": platform.release()},
    "buildah_isolation": isolation,
    "strata_peak_mebibytes": memory,
    "milliseconds": {
        scenario: {
            builder: {
                "median": round(statistics.median(values), 1),
                "min": round(min(values), 1),
                "max": round(max(values), 1),
                "runs": [round(value, 1) for value in values],
                **({"ratio": round(statistics.median(values) / statistics.median(row["strata"]), 2)} if "strata" in row else {}),
            }
            for builder, values in row.items()
        }
        for scenario, row in times.items()
    },
}
if style == "json":
    print(json.dumps(report, indent=2))
else:
    print(f"median milliseconds (times as long as strata); {os.cpu_count()} processors, Linux {platform.release()}")
    print(f"{'scenario':<10}" + "".join(f"{builder:>22}" for builder in builders) + "  strata's memory" * bool(memory))
    for scenario, row in report["milliseconds"].items():
        cells = (row.get(builder) for builder in builders)
        texts = ("-" if cell is None else f"{cell['median']:.1f}" + (f" ({cell['ratio']:.2f})" if "ratio" in cell else "") for cell in cells)
        print(f"{scenario:<10}" + "".join(f"{text:>22}" for text in texts) + (f"{memory[scenario]:>8.1f} MiB" if scenario in memory else ""))
PYTHON
