#!/bin/sh
# Apache Kafka for tests: KRaft nodes, each broker and controller, on free loopback ports.
#
#   run.sh start DIR [N]      starts N (1) of them with their data in DIR/1, DIR/2 … (created), waits until they answer,
#                             prints host:port,host:port …
#   run.sh stop DIR           stops them
#   run.sh boot DIR/2         starts one that was killed again; its process id is in DIR/2/pid
#   run.sh run [-n N] CMD...  starts them in a temporary directory, runs CMD with FOOTFALL_TEST_KAFKA (host:port …) and
#                             FOOTFALL_TEST_KAFKA_DIR set, stops them
#
# Of several brokers every topic has as many copies, and a record is acked once two have it.
# Needs Java 17 and Maven, which fetches the jars once and keeps them.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/footfall/kafka

fail() { echo "kafka: $*" >&2; exit 1; }

class_path() {
    list=$cache/classpath-$(cksum < "$here/pom.xml" | tr -d ' ')
    if [ ! -s "$list" ] || ! first_jar_exists "$list"; then
        command -v mvn > /dev/null || fail "mvn is missing: apt-get install -y maven"
        mkdir -p "$cache"
        echo "kafka: fetching Apache Kafka with Maven (once)" >&2
        mvn -B -q -f "$here/pom.xml" dependency:build-classpath "-Dmdep.outputFile=$list.new" > "$cache/mvn.log" 2>&1 ||
            fail "Maven cannot fetch Apache Kafka; see $cache/mvn.log"
        mv "$list.new" "$list"
    fi
    cat "$list"
}

first_jar_exists() { [ -f "$(cut -d: -f1 "$1")" ]; }

# free_ports COUNT
free_ports() {
    python3 - "$1" << 'PYTHON'
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in sockets])
PYTHON
}

start() {
    directory=$1
    count=$2
    jars=$(class_path)
    mkdir -p "$directory"
    directory=$(cd "$directory" && pwd)
    # shellcheck disable=SC2046 # numbers, to be taken apart
    set -- $(free_ports $((2 * count)))
    addresses='' voters='' node=1
    for port in "$@"; do
        if [ $node -le "$count" ]; then
            addresses="$addresses${addresses:+,}127.0.0.1:$port"
        else
            voters="$voters${voters:+,}$((node - count))@127.0.0.1:$port"
        fi
        node=$((node + 1))
    done
    id=$(python3 -c 'import base64, uuid; print(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))')
    copies=$count
    [ "$count" -gt 1 ] && in_sync=2 || in_sync=1
    for node in $(nodes "$count"); do
        mkdir -p "$directory/$node"
        sed -e "s|@NODE@|$node|g" -e "s|@DIRECTORY@|$directory/$node|g" -e "s|@VOTERS@|$voters|g" \
            -e "s|@ADDRESS@|$(echo "$addresses" | cut -d, -f"$node")|g" \
            -e "s|@CONTROLLER@|$(echo "$voters" | cut -d, -f"$node" | cut -d@ -f2)|g" \
            -e "s|@COPIES@|$copies|g" -e "s|@IN_SYNC@|$in_sync|g" \
            "$here/server.properties" > "$directory/$node/server.properties"
        [ -d "$directory/$node/data" ] ||
            java -Xmx128M -cp "$jars" kafka.tools.StorageTool format -t "$id" -c "$directory/$node/server.properties" \
                > "$directory/$node/format.log" 2>&1 || fail "cannot format its storage; see $directory/$node/format.log"
        launch "$directory/$node"
    done
    for node in $(nodes "$count"); do
        until_answers "$directory/$node"
    done
    echo "$addresses"
}

nodes() { seq 1 "$1"; }

# The node in this directory; it serves some seconds later.
launch() {
    [ "$(brokers_of "$1")" -gt 1 ] && heap=256M || heap=512M
    nohup java "-Xms$heap" "-Xmx$heap" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
        -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -cp "$(class_path)" kafka.Kafka "$1/server.properties" >> "$1/server.log" 2>&1 < /dev/null &
    echo $! > "$1/pid"
}

# How many there are, itself included.
brokers_of() { sed -n 's/^controller.quorum.voters=//p' "$1/server.properties" | tr ',' '\n' | wc -l; }

until_answers() {
    port=$(sed -n 's/^listeners=PLAINTEXT:\/\/127.0.0.1:\([0-9]*\),.*/\1/p' "$1/server.properties")
    tries=0
    until answers "$port" "$(brokers_of "$1")"; do
        kill -0 "$(cat "$1/pid")" 2> /dev/null || fail "it ended; see $1/server.log"
        tries=$((tries + 1))
        [ $tries -lt 450 ] || fail "it does not answer after 90 s; see $1/server.log"
        sleep 0.2
    done
}

# Whether a Metadata request (version 1, no topics) to the port gets an answer that lists so many brokers.
answers() {
    python3 - "$1" "$2" << 'PYTHON'
import socket, struct, sys
request = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)
try:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2) as s:
        s.sendall(struct.pack(">i", len(request)) + request)
        reply = s.recv(4096)
    sys.exit(0 if len(reply) >= 12 and struct.unpack(">i", reply[8:12])[0] == int(sys.argv[2]) else 1)
except OSError:
    sys.exit(1)
PYTHON
}

# All are told first: the last controller waits for the others.
stop() {
    for file in "$1"/*/pid; do
        [ -f "$file" ] && kill "$(cat "$file")" 2> /dev/null || true
    done
    for file in "$1"/*/pid; do
        [ -f "$file" ] || continue
        pid=$(cat "$file")
        tries=0
        while kill -0 "$pid" 2> /dev/null; do
            tries=$((tries + 1))
            [ $tries -lt 50 ] || { kill -9 "$pid" 2> /dev/null || true; break; }
            sleep 0.2
        done
        rm -f "$file"
    done
}

usage() { fail "usage: run.sh start DIR [N] | stop DIR | boot DIR/N | run [-n N] CMD..."; }

case ${1:-} in
    start | boot | run) command -v java > /dev/null || fail "java is missing: apt-get install -y openjdk-17-jre-headless" ;;
esac
case ${1:-} in
    start) [ $# -eq 2 ] || [ $# -eq 3 ] || usage; start "$2" "${3:-1}" ;;
    stop) [ $# -eq 2 ] || usage; stop "$2" ;;
    boot) [ $# -eq 2 ] || usage; launch "$2"; until_answers "$2" ;;
    run)
        shift
        brokers=1
        [ "${1:-}" != -n ] || { brokers=${2:-}; shift 2; }
        [ $# -gt 0 ] || usage
        temporary=$(mktemp -d)
        trap 'stop "$temporary"; rm -rf "$temporary"' EXIT
        trap 'exit 130' INT TERM
        # In a file: a command substitution would wait for the servers, which hold their end of the pipe.
        start "$temporary" "$brokers" > "$temporary/addresses"
        FOOTFALL_TEST_KAFKA=$(cat "$temporary/addresses")
        FOOTFALL_TEST_KAFKA_DIR=$temporary
        export FOOTFALL_TEST_KAFKA FOOTFALL_TEST_KAFKA_DIR
        "$@"
        ;;
    *) usage ;;
esac
