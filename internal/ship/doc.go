// Package ship takes the audit log out of the engine: checkpoints to anchors,
// records to sinks.
//
// An anchor is a place that whoever can change the log cannot change: a file on
// another volume, or an HTTP endpoint. It takes signed checkpoints, of which
// the newest covers all before it, so a newer one supersedes one that waits.
//
// A sink is somebody who wants every record: an OpenTelemetry collector or a
// webhook. It reads the log's file, which is its queue, so nothing is lost while
// the receiver is away, nothing is held in memory, and nobody who writes the
// log waits for it. Its position is in a file beside the log; after a restart
// it goes on from there.
//
// None of this is in the way of a request. What does not get out is counted,
// said once, and tried again for ever; the log's retention keeps what Removable
// does not cover.
//
// # A second way out
//
// Beside package upstream this is the only code that opens connections, and it
// opens them without the address guard. The addresses are the operator's
// (--audit-anchor, --audit-sink), nothing that an agent sends selects one or
// changes one, redirects are not followed, no proxy is taken from the
// environment, and what is sent is the log and nothing else.
//
// # The wire
//
// A file anchor is notes, each followed by one empty line. The last whole note
// in it is the newest.
//
// An HTTP anchor is sent each checkpoint as the body of a POST with Content-Type
// text/plain.
//
// A webhook is sent batches of records, in order, as the body of a POST with
// Content-Type application/x-ndjson: the lines of the log as they are. A large
// body has Content-Encoding gzip. X-Aegrail-First-Seq and X-Aegrail-Last-Seq are
// the positions of the first and the last record.
//
// Both have the header X-Aegrail-Log with the session_id of the engine that
// sends, which is not that of every record in a batch.
//
// An OTLP sink is sent batches of records as OTLP over HTTP (protobuf, gzip): the
// body is the line of the log as it is, the attributes are its fields, flat.
//
// A status of 2xx acknowledges. A record is delivered at least once: after a
// restart, or when an answer was lost, some come again. They have the same seq
// and the same event_hash. Where another event_hash comes under a seq, the machine
// or its disk failed before the records that the receiver has were on it
// (--audit-durability strict), and the chain of what it has does not join: what
// the log has in their place is sent as well.
//
// # The position
//
// FILE.KIND-ID.ack holds the seq of the last record that the receiver
// acknowledged, in decimal, and a newline. ID stands for the receiver's address
// without credentials and query. Without the file a sink begins with the oldest
// record that is there. A position that the log does not have is refused at
// start.
package ship
