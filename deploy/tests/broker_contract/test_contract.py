"""What the pipeline expects of a Kafka broker, through confluent-kafka. Apache Kafka is right wherever they differ."""

import itertools
import threading
import time
import uuid

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from conftest import DEADLINE, eventually

MIB = 1 << 20
# Recent enough for retention to leave it alone.
HOUR_AGO = int((time.time() - 3600) * 1000)


class Kafka:
    """Clients for one broker, closed at the end of the test."""

    def __init__(self, address):
        self.address = address
        self.admin = AdminClient({"bootstrap.servers": address})
        self.opened = []

    def topic(self, partitions=1, **config):
        name = f"t-{uuid.uuid4().hex[:12]}"
        config = {key.replace("_", "."): str(value) for key, value in config.items()}
        self.admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(DEADLINE)
        eventually("the topic is there", lambda: name in self.admin.list_topics(timeout=5).topics)
        return name

    def producer(self, **config):
        config = {key.replace("_", "."): value for key, value in config.items()}
        return Producer({"bootstrap.servers": self.address, "enable.idempotence": True, "linger.ms": 5, **config})

    def consumer(self, group=None, **config):
        config = {key.replace("_", "."): value for key, value in config.items()}
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": group or f"g-{uuid.uuid4().hex[:12]}",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 200,
                "topic.metadata.refresh.interval.ms": 500,
                **config,
            }
        )
        self.opened.append(consumer)
        return consumer

    def produce(self, topic, values, producer=None, **common):
        """Produces the values and returns the delivered messages, in order of delivery."""
        producer = producer or self.producer()
        delivered = []

        def on_delivery(error, message):
            assert error is None, error
            delivered.append(message)

        for value in values:
            while True:
                try:
                    producer.produce(topic, value, on_delivery=on_delivery, **common)
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(DEADLINE) == 0
        return delivered

    def read(self, topic, count, partition=0, offset=OFFSET_BEGINNING, **config):
        consumer = self.consumer(**config)
        consumer.assign([TopicPartition(topic, partition, offset)])
        return take(consumer, count)

    def watermarks(self, topic, partition=0):
        consumer = self.opened[0] if self.opened else self.consumer()
        return consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10, cached=False)

    def close(self):
        for consumer in self.opened:
            consumer.close()


def take(consumer, count, deadline=DEADLINE):
    messages = []
    end = time.monotonic() + deadline
    while len(messages) < count:
        assert time.monotonic() < end, f"only {len(messages)} of {count} messages came"
        for message in consumer.consume(count - len(messages), 0.2):
            assert message.error() is None, message.error()
            messages.append(message)
    return messages


def code_of(error):
    return error.value.args[0].code()


@pytest.fixture
def kafka(address):
    kafka = Kafka(address)
    yield kafka
    kafka.close()


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_what_is_produced_is_read_back_in_order_and_intact(kafka, codec):
    topic = kafka.topic()
    values = [b"%d " % number * 50 for number in range(500)]
    headers = [("trace", b"1"), ("trace", b"2"), ("empty", b""), ("null", None)]
    kafka.produce(topic, values, kafka.producer(compression_type=codec), key=b"k", headers=headers, timestamp=HOUR_AGO)
    messages = kafka.read(topic, 500)
    assert [message.value() for message in messages] == values
    assert [message.offset() for message in messages] == list(range(500))
    assert messages[7].key() == b"k"
    assert messages[7].headers() == headers
    assert messages[7].timestamp() == (1, HOUR_AGO)


def test_a_null_key_and_a_null_value_stay_null(kafka):
    topic = kafka.topic()
    kafka.produce(topic, [None])
    kafka.produce(topic, [b""], key=b"")
    null, empty = kafka.read(topic, 2)
    assert (null.key(), null.value()) == (None, None)
    assert (empty.key(), empty.value()) == (b"", b"")


def test_offsets_by_time_name_the_first_record_at_or_after_it(kafka):
    topic = kafka.topic()
    producer = kafka.producer(compression_type="lz4")
    base = HOUR_AGO
    for step in range(10):
        kafka.produce(topic, [b"v"] * 3, producer, timestamp=base + step * 1000)
    consumer = kafka.consumer()

    def at(timestamp):
        return consumer.offsets_for_times([TopicPartition(topic, 0, timestamp)], timeout=10)[0].offset

    assert [at(base - 5), at(base), at(base + 1), at(base + 4000), at(base + 9000)] == [0, 0, 3, 12, 27]
    assert at(base + 9001) == OFFSET_END


def test_offsets_by_time_look_into_a_batch(kafka):
    topic = kafka.topic()
    producer = kafka.producer(linger_ms=500, compression_type="zstd")
    base = HOUR_AGO
    for number in range(20):
        producer.produce(topic, b"v", timestamp=base + number)
    assert producer.flush(DEADLINE) == 0
    consumer = kafka.consumer()
    found = consumer.offsets_for_times([TopicPartition(topic, 0, base + 13)], timeout=10)
    assert found[0].offset == 13


def test_watermarks_and_seek(kafka):
    topic = kafka.topic()
    assert kafka.watermarks(topic) == (0, 0)
    kafka.produce(topic, [b"%d" % number for number in range(100)])
    assert kafka.watermarks(topic) == (0, 100)
    consumer = kafka.consumer()
    consumer.assign([TopicPartition(topic, 0, 90)])
    assert take(consumer, 1)[0].offset() == 90
    consumer.seek(TopicPartition(topic, 0, 5))
    assert take(consumer, 2)[1].value() == b"6"


def test_a_waiting_reader_gets_a_record_at_once(kafka):
    topic = kafka.topic()
    consumer = kafka.consumer(fetch_wait_max_ms=20_000)
    consumer.assign([TopicPartition(topic, 0, 0)])
    assert consumer.consume(1, 1.0) == []
    began = time.monotonic()
    kafka.produce(topic, [b"now"])
    take(consumer, 1)
    assert time.monotonic() - began < 5


def test_a_record_larger_than_the_fetch_size_still_comes(kafka):
    topic = kafka.topic()
    kafka.produce(topic, [b"x" * 300_000, b"small"])
    large, small = kafka.read(topic, 2, fetch_message_max_bytes=1000, fetch_max_bytes=1000, message_max_bytes=1000)
    assert (len(large.value()), small.value()) == (300_000, b"small")


def test_a_position_outside_the_log_is_reported(kafka):
    topic = kafka.topic()
    kafka.produce(topic, [b"v"] * 10)
    consumer = kafka.consumer(auto_offset_reset="error")
    consumer.assign([TopicPartition(topic, 0, 1000)])
    messages = []
    eventually("the reset is reported", lambda: messages.extend(consumer.consume(1, 0.2)) or messages)
    assert messages[0].error().code() == KafkaError._AUTO_OFFSET_RESET
    assert kafka.read(topic, 1, offset=1000, auto_offset_reset="earliest")[0].offset() == 0


def test_unknown_topics_are_refused_not_created(kafka):
    producer = kafka.producer(**{"message.timeout.ms": 3000, "topic.metadata.propagation.max.ms": 500})
    errors = []
    producer.produce("no-such-topic", b"v", on_delivery=lambda error, _: errors.append(error.code()))
    producer.flush(DEADLINE)
    assert errors[0] in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
    assert "no-such-topic" not in kafka.admin.list_topics(timeout=5).topics


def test_a_batch_over_the_topics_limit_is_refused(kafka):
    topic = kafka.topic(max_message_bytes=10_000)
    producer = kafka.producer(message_max_bytes=1_000_000)
    errors = []
    producer.produce(topic, b"x" * 20_000, on_delivery=lambda error, _: errors.append(error.code()))
    producer.flush(DEADLINE)
    assert errors == [KafkaError.MSG_SIZE_TOO_LARGE]


def test_a_keyless_record_in_a_compacted_topic_is_refused(kafka):
    topic = kafka.topic(cleanup_policy="compact")
    producer = kafka.producer(compression_type="lz4")
    errors = []
    producer.produce(topic, b"v" * 100, on_delivery=lambda error, _: errors.append(error.code()))
    producer.flush(DEADLINE)
    assert errors == [KafkaError.INVALID_RECORD]


def test_a_record_from_the_far_future_is_refused(kafka):
    topic = kafka.topic()
    producer = kafka.producer()
    errors = []
    tomorrow = int((time.time() + 86_400) * 1000)
    producer.produce(topic, b"v", timestamp=tomorrow, on_delivery=lambda error, _: errors.append(error.code()))
    producer.flush(DEADLINE)
    assert errors == [KafkaError.INVALID_TIMESTAMP]


# The client counts a terminating zero, so 4095 is the longest it can send.
METADATA = ["", "v1;end=17;rows=3;hash=0123456789abcdef", "ünï¢ødé ☃", "x" * 4095]


@pytest.mark.parametrize("metadata", METADATA, ids=["empty", "plain", "unicode", "longest"])
def test_commit_metadata_comes_back(kafka, metadata):
    topic, group = kafka.topic(2), f"g-{uuid.uuid4().hex}"
    kafka.consumer(group).commit(offsets=[TopicPartition(topic, 1, 42, metadata)], asynchronous=False)
    wanted = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    nothing, committed = kafka.consumer(group).committed(wanted, timeout=10)
    assert nothing.offset < 0
    assert (committed.offset, committed.metadata or "") == (42, metadata)


def test_commit_metadata_over_4096_bytes_is_refused(kafka):
    topic = kafka.topic()
    with pytest.raises(KafkaException) as error:
        kafka.consumer().commit(offsets=[TopicPartition(topic, 0, 1, "x" * 4097)], asynchronous=False)
    assert code_of(error) == KafkaError.OFFSET_METADATA_TOO_LARGE


class Member:
    """A consumer polled on a thread of its own, with a log of its rebalances."""

    def __init__(self, kafka, topic, group, strategy, **config):
        self.consumer = kafka.consumer(group, partition_assignment_strategy=strategy, **config)
        kafka.opened.remove(self.consumer)
        self.owned, self.revocations, self.values = set(), [], []
        self.cooperative = strategy == "cooperative-sticky"
        self.running = True
        self.consumer.subscribe([topic], on_assign=self.assigned, on_revoke=self.revoked)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def assigned(self, _, partitions):
        numbers = {one.partition for one in partitions}
        self.owned = self.owned | numbers if self.cooperative else numbers

    def revoked(self, _, partitions):
        gone = {one.partition for one in partitions}
        self.revocations.append(gone)
        self.owned -= gone

    def run(self):
        while self.running:
            for message in self.consumer.consume(100, 0.05):
                if message.error() is None:
                    self.values.append(message.value())
        self.consumer.close()

    def stop(self):
        self.running = False
        self.thread.join()


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_a_group_divides_the_partitions_and_inherits_those_of_a_leaver(kafka, strategy):
    topic, group = kafka.topic(4), f"g-{uuid.uuid4().hex}"
    members = [Member(kafka, topic, group, strategy)]
    try:
        eventually("the first has all", lambda: members[0].owned == {0, 1, 2, 3})
        members.append(Member(kafka, topic, group, strategy))
        balanced = lambda: all(len(one.owned) == 2 for one in members) and members[0].owned.isdisjoint(members[1].owned)
        eventually("both have two", balanced)
        if strategy == "cooperative-sticky":
            assert [len(gone) for gone in members[0].revocations] == [2], "only what moves is revoked"
        values = [b"%d" % number for number in range(400)]
        producer = kafka.producer()
        for partition in range(4):
            kafka.produce(topic, values[partition::4], producer, partition=partition)
        eventually("all is read once", lambda: sum(len(one.values) for one in members) >= 400)
        assert sorted(members[0].values + members[1].values) == sorted(values)
        members.pop().stop()
        eventually("the first has all again", lambda: members[0].owned == {0, 1, 2, 3})
    finally:
        for member in members:
            member.stop()


def test_a_static_member_that_comes_back_keeps_its_partitions(kafka):
    topic, group = kafka.topic(4), f"g-{uuid.uuid4().hex}"
    static = {"group_instance_id": "one", "session_timeout_ms": 20_000}
    other = Member(kafka, topic, group, "range", group_instance_id="two")
    member = Member(kafka, topic, group, "range", **static)
    try:
        eventually("both have two", lambda: len(member.owned) == len(other.owned) == 2)
        before, rebalances = set(member.owned), len(other.revocations)
        member.stop()
        member = Member(kafka, topic, group, "range", **static)
        eventually("it has them again", lambda: member.owned == before)
        assert len(other.revocations) == rebalances, "the other member noticed nothing"
    finally:
        member.stop()
        other.stop()


def test_members_that_vanish_lose_their_partitions_after_the_session_timeout(kafka):
    topic, group = kafka.topic(2), f"g-{uuid.uuid4().hex}"
    # This client leaves no trace but its silence: it is not polled, so it leaves by its own poll limit.
    silent = kafka.consumer(group, session_timeout_ms=1000, max_poll_interval_ms=1000)
    owned = []
    silent.subscribe([topic], on_assign=lambda _, partitions: owned.extend(partitions))
    eventually("it has both", lambda: silent.consume(1, 0.1) is not None and len(owned) == 2)
    member = Member(kafka, topic, group, "range")
    try:
        eventually("the other takes over", lambda: member.owned == {0, 1})
        with pytest.raises(KafkaException):
            silent.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
    finally:
        member.stop()


def test_groups_are_listed_described_and_deleted(kafka):
    topic, group = kafka.topic(), f"g-{uuid.uuid4().hex}"
    member = Member(kafka, topic, group, "range", client_id="probe")
    try:
        eventually("it has the partition", lambda: member.owned == {0})
        described = kafka.admin.describe_consumer_groups([group])[group].result(DEADLINE)
        assert (described.state.name, described.partition_assignor) == ("STABLE", "range")
        assert [one.client_id for one in described.members] == ["probe"]
        assert described.members[0].assignment.topic_partitions == [TopicPartition(topic, 0)]
        listed = kafka.admin.list_consumer_groups().result(DEADLINE)
        assert group in [one.group_id for one in listed.valid]
        with pytest.raises(KafkaException) as error:
            kafka.admin.delete_consumer_groups([group])[group].result(DEADLINE)
        assert code_of(error) == KafkaError.NON_EMPTY_GROUP
    finally:
        member.stop()
    kafka.consumer(group).commit(offsets=[TopicPartition(topic, 0, 7)], asynchronous=False)
    offsets = kafka.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(DEADLINE)
    assert [(one.partition, one.offset) for one in offsets.topic_partitions] == [(0, 7)]
    kafka.admin.delete_consumer_groups([group])[group].result(DEADLINE)
    assert kafka.consumer(group).committed([TopicPartition(topic, 0)], timeout=10)[0].offset < 0
    with pytest.raises(KafkaException) as error:
        kafka.admin.delete_consumer_groups([group])[group].result(DEADLINE)
    assert code_of(error) == KafkaError.GROUP_ID_NOT_FOUND


def test_retention_by_time_removes_old_records_and_keeps_the_offsets(kafka):
    topic = kafka.topic(retention_ms=60_000, segment_bytes=MIB)
    producer = kafka.producer()
    kafka.produce(topic, [b"x" * 10_000] * 250, producer, timestamp=HOUR_AGO)
    eventually("all are gone", lambda: kafka.watermarks(topic) == (250, 250))
    kafka.produce(topic, [b"new"], producer)
    assert kafka.read(topic, 1)[0].offset() == 250


def test_retention_by_size_removes_the_oldest_segments(kafka):
    topic = kafka.topic(retention_bytes=MIB, segment_bytes=MIB)
    kafka.produce(topic, [b"x" * 10_000] * 500)
    low, high = eventually("some are gone", lambda: (marks := kafka.watermarks(topic))[0] > 0 and marks)
    assert high == 500
    eventually("as many as can go", lambda: (500 - kafka.watermarks(topic)[0]) * 10_000 < 2.2 * MIB)
    low = kafka.watermarks(topic)[0]
    assert (500 - low) * 10_000 >= 0.9 * MIB, "what is within the limit stays"
    assert kafka.read(topic, 1)[0].offset() == low


def test_compaction_keeps_the_newest_record_of_each_key(kafka):
    config = {"cleanup_policy": "compact", "segment_bytes": MIB, "min_cleanable_dirty_ratio": 0.01}
    topic = kafka.topic(**config)
    producer = kafka.producer(compression_type="none")
    headers = [("h", b"1"), ("h", b"2")]
    for round_ in range(50):
        for key in range(10):
            producer.produce(topic, b"%d:%d " % (round_, key) * 1500, key=b"k%d" % key, headers=headers)
        producer.flush(DEADLINE)
    kafka.produce(topic, [None], producer, key=b"k0")
    # What is written after this closes the segments in which the above lies.
    kafka.produce(topic, [b"x" * 10_000] * 250, producer, key=b"filler")
    high = kafka.watermarks(topic)[1]

    def survivors():
        consumer = kafka.consumer(enable_partition_eof=True)
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        messages = []
        while True:
            message = consumer.poll(DEADLINE)
            if message.error():
                assert message.error().code() == KafkaError._PARTITION_EOF
                kafka.opened.remove(consumer)
                consumer.close()
                return messages
            messages.append(message)

    def is_compacted():
        keys = [message.key() for message in survivors()]
        return all(keys.count(b"k%d" % key) <= 1 for key in range(10))

    eventually("one record per key is left", is_compacted)
    left = {message.key(): message for message in survivors()}
    for key in range(1, 10):
        message = left[b"k%d" % key]
        assert message.value() == b"49:%d " % key * 1500
        assert (message.offset(), message.headers()) == (490 + key, headers)
    assert b"k0" not in left or left[b"k0"].value() is None
    assert left[b"filler"].offset() == high - 1 == 750


def test_deleted_records_are_gone_for_good(kafka):
    topic = kafka.topic()
    kafka.produce(topic, [b"%d" % number for number in range(100)])
    result = kafka.admin.delete_records([TopicPartition(topic, 0, 60)])
    assert list(result.values())[0].result(DEADLINE).low_watermark == 60
    assert kafka.watermarks(topic) == (60, 100)
    assert kafka.read(topic, 1, offset=10, auto_offset_reset="earliest")[0].value() == b"60"
    with pytest.raises(KafkaException) as error:
        list(kafka.admin.delete_records([TopicPartition(topic, 0, 101)]).values())[0].result(DEADLINE)
    assert code_of(error) == KafkaError.OFFSET_OUT_OF_RANGE


def test_topics_are_created_grown_described_and_deleted(kafka):
    topic = kafka.topic(2, cleanup_policy="compact", retention_ms=123_000)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    described = kafka.admin.describe_configs([resource])[resource].result(DEADLINE)
    assert described["cleanup.policy"].value == "compact"
    assert described["retention.ms"].value == "123000"
    assert (described["retention.ms"].is_default, described["retention.bytes"].is_default) == (False, True)
    kafka.admin.create_partitions([NewPartitions(topic, 5)])[topic].result(DEADLINE)
    eventually("it has five", lambda: len(kafka.admin.list_topics(topic, timeout=5).topics[topic].partitions) == 5)
    kafka.produce(topic, [b"v"], key=b"k", partition=4)
    with pytest.raises(KafkaException) as error:
        kafka.admin.create_partitions([NewPartitions(topic, 3)])[topic].result(DEADLINE)
    assert code_of(error) == KafkaError.INVALID_PARTITIONS
    change = ConfigEntry("retention.ms", "456000", incremental_operation=AlterConfigOpType.SET)
    altered = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])
    kafka.admin.incremental_alter_configs([altered])[altered].result(DEADLINE)
    value = lambda: kafka.admin.describe_configs([resource])[resource].result(DEADLINE)["retention.ms"].value
    eventually("it is altered", lambda: value() == "456000")
    kafka.admin.delete_topics([topic])[topic].result(DEADLINE)
    eventually("it is gone", lambda: topic not in kafka.admin.list_topics(timeout=5).topics)


REFUSED = [
    (dict(num_partitions=0), KafkaError.INVALID_PARTITIONS),
    (dict(num_partitions=1, replication_factor=3), KafkaError.INVALID_REPLICATION_FACTOR),
    (dict(num_partitions=1, config={"no.such.setting": "1"}), KafkaError.INVALID_CONFIG),
    (dict(num_partitions=1, config={"cleanup.policy": "shred"}), KafkaError.INVALID_CONFIG),
    (dict(num_partitions=1, config={"segment.bytes": "1000"}), KafkaError.INVALID_CONFIG),
]


@pytest.mark.parametrize("arguments, code", REFUSED, ids=["partitions", "replicas", "setting", "policy", "segment"])
def test_a_topic_that_cannot_be_is_refused(kafka, arguments, code):
    name = f"t-{uuid.uuid4().hex}"
    arguments = {"replication_factor": 1, **arguments}
    with pytest.raises(KafkaException) as error:
        kafka.admin.create_topics([NewTopic(name, **arguments)])[name].result(DEADLINE)
    assert code_of(error) == code


def test_topic_names_are_checked_and_taken_once(kafka):
    topic = kafka.topic()
    for name, code in [(topic, KafkaError.TOPIC_ALREADY_EXISTS), ("a/b", KafkaError.TOPIC_EXCEPTION)]:
        with pytest.raises(KafkaException) as error:
            kafka.admin.create_topics([NewTopic(name, 1, 1)])[name].result(DEADLINE)
        assert code_of(error) == code


def test_acked_records_survive_kill_9_once(own_broker):
    kafka = Kafka(own_broker.address)
    topic = kafka.topic(2)
    producer = kafka.producer(compression_type="lz4", reconnect_backoff_max_ms=200, retry_backoff_ms=20)
    acked, numbers = set(), itertools.count()
    group = f"g-{uuid.uuid4().hex}"

    def on_delivery(error, message):
        assert error is None, error
        acked.add(message.value())

    for kill in range(3):
        goal = len(acked) + 2000
        while len(acked) < goal:
            producer.produce(topic, b"%d" % next(numbers), on_delivery=on_delivery)
            producer.poll(0 if len(producer) < 5000 else 0.1)
        kafka.consumer(group).commit(offsets=[TopicPartition(topic, 0, kill, f"kill {kill}")], asynchronous=False)
        own_broker.kill()
        own_broker.start()
        committed = kafka.consumer(group).committed([TopicPartition(topic, 0)], timeout=10)[0]
        assert (committed.offset, committed.metadata) == (kill, f"kill {kill}")
    assert producer.flush(DEADLINE) == 0
    stored = []
    for partition in range(2):
        stored += [one.value() for one in kafka.read(topic, kafka.watermarks(topic, partition)[1], partition)]
    kafka.close()
    assert len(acked) == next(numbers), "every record was acked in the end"
    assert acked - set(stored) == set(), "nothing acked is lost"
    assert len(stored) == len(set(stored)), "nothing is stored twice"
