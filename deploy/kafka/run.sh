#!/bin/sh
# Apache Kafka for tests: one KRaft node on free loopback ports.
#
#   run.sh start DIR   starts it with its data below DIR (created), waits until it answers, prints host:port
#   run.sh stop DIR    stops it
#   run.sh run CMD...  starts it in a temporary directory, runs CMD with FOOTFALL_TEST_KAFKA set, stops it
#
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

free_ports() {
    python3 -c '
import socket
sockets = [socket.socket() for _ in range(2)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in sockets])'
}

start() {
    directory=$1
    command -v java > /dev/null || fail "java is missing: apt-get install -y openjdk-17-jre-headless"
    jars=$(class_path)
    mkdir -p "$directory"
    directory=$(cd "$directory" && pwd)
    # shellcheck disable=SC2046 # two numbers, to be taken apart
    set -- $(free_ports)
    sed -e "s|@PORT@|$1|g" -e "s|@CONTROLLER_PORT@|$2|g" -e "s|@DIRECTORY@|$directory|g" \
        "$here/server.properties" > "$directory/server.properties"
    if [ ! -d "$directory/data" ]; then
        id=$(java -cp "$jars" kafka.tools.StorageTool random-uuid 2> /dev/null)
        java -cp "$jars" kafka.tools.StorageTool format --standalone -t "$id" -c "$directory/server.properties" \
            > "$directory/format.log" 2>&1 || fail "cannot format its storage; see $directory/format.log"
    fi
    nohup java -Xms512M -Xmx512M -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
        -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -cp "$jars" kafka.Kafka "$directory/server.properties" > "$directory/server.log" 2>&1 < /dev/null &
    echo $! > "$directory/pid"
    tries=0
    until answers "$1"; do
        kill -0 "$(cat "$directory/pid")" 2> /dev/null || fail "it ended; see $directory/server.log"
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "it does not answer after 60 s; see $directory/server.log"
        sleep 0.2
    done
    echo "127.0.0.1:$1"
}

# Whether a Metadata request (version 1, no topics) gets an answer that lists a broker.
answers() {
    python3 - "$1" << 'PYTHON'
import socket, struct, sys
request = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)
try:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2) as s:
        s.sendall(struct.pack(">i", len(request)) + request)
        reply = s.recv(4096)
    sys.exit(0 if len(reply) >= 12 and struct.unpack(">i", reply[8:12])[0] == 1 else 1)
except OSError:
    sys.exit(1)
PYTHON
}

stop() {
    pid=$(cat "$1/pid" 2> /dev/null) || return 0
    kill "$pid" 2> /dev/null || true
    tries=0
    while kill -0 "$pid" 2> /dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 150 ] || { kill -9 "$pid" 2> /dev/null || true; break; }
        sleep 0.2
    done
    rm -f "$1/pid"
}

case ${1:-} in
    start) [ $# -eq 2 ] || fail "usage: run.sh start DIR"; start "$2" ;;
    stop) [ $# -eq 2 ] || fail "usage: run.sh stop DIR"; stop "$2" ;;
    run)
        shift
        [ $# -gt 0 ] || fail "usage: run.sh run CMD..."
        temporary=$(mktemp -d)
        trap 'stop "$temporary"; rm -rf "$temporary"' EXIT
        trap 'exit 130' INT TERM
        # In a file: a command substitution would wait for the server, which holds its end of the pipe.
        start "$temporary" > "$temporary/address"
        FOOTFALL_TEST_KAFKA=$(cat "$temporary/address")
        export FOOTFALL_TEST_KAFKA
        "$@"
        ;;
    *) fail "usage: run.sh start DIR | stop DIR | run CMD..." ;;
esac
