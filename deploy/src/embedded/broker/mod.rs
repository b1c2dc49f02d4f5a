//! Single-node broker that speaks the Kafka protocol on a real socket.
