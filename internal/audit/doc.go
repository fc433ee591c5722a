// Package audit writes the engine's log, proves it and reads it back.
//
// A request has two records: the decision, committed before the name is
// resolved and before the first byte goes upstream, and the completion. Decide
// returns a Receipt only for a committed decision to forward; package upstream
// asks for one before it dials. A refusal has one record; floods of them are
// counted (Refuse). If the log cannot take a record, nothing is forwarded.
//
// The package has one writer per log, which it locks, and one chain. It signs
// checkpoints of the chain, since who can write a file can write another one
// that is consistent. It keeps no headers, query values or bodies.
//
// # The format
//
// A log is a sequence of lines. A line is one JSON object (RFC 8259) in ASCII
// and a newline (U+000A). There are no spaces between tokens, no carriage
// returns, no empty lines, no byte order mark. A line is at most 1048576 bytes
// with its newline, and values nest at most 64 deep. Files of one log are read
// in order as if they were one.
//
// The bytes of the object are those of Python's
//
//	json.dumps(record, sort_keys=True, separators=(",", ":"))
//
// that is:
//
//   - Keys are sorted by code point at every level, and none occurs twice.
//   - A string is a quotation mark, its characters, and a quotation mark.
//     U+0020 to U+007E stand for themselves, except \" and \\ . U+0008, U+0009,
//     U+000A, U+000C and U+000D are \b \t \n \f \r . Every other code point up
//     to U+FFFF is \uXXXX with four lower-case hex digits; those above are two
//     such escapes, a UTF-16 surrogate pair.
//   - Text that came from outside is bytes. Those that are UTF-8 are written
//     as the characters they encode. A byte 0xNN (0x80 to 0xFF) that is no part
//     of a well-formed sequence is written as the lone surrogate U+DCNN:
//     \udcNN. This is Python's errors="surrogateescape", which also gives the
//     bytes back: s.encode("utf-8", "surrogateescape").
//   - An integer is digits without leading zeros, of any number, behind "-" if
//     it is negative; never "+" or "-0".
//   - The engine writes no floats. The aegrail library's events have them in
//     budget, as Python's repr prints a double: the fewest digits that read back
//     as the same value; from 1e-4 up to but not including 1e16, and for zero,
//     with a point and a digit on either side of it (1.0, 0.0001, -0.0); else one
//     digit, the others if any behind a point, e, a sign, and at least two digits
//     (1e-07, 1e+16, 1.5e+300, 5e-324). There is no NaN and no infinity.
//   - true, false and null.
//
// The object has exactly these ten keys, here in the order in which they
// stand:
//
//	agent_identity  string: the claimed label, else namespace/serviceaccount, else the engine's name
//	budget          object: {} from the engine
//	event           string, see below
//	event_hash      64 lower-case hex digits
//	invoking_user   string or null
//	payload         object, see below
//	prev_hash       event_hash of the record before; null in the first record of a log
//	principal       string: agent_identity "@" session_id
//	session_id      string: "sess_" Unix time in milliseconds "_" 16 hex digits; new at each start,
//	                whose engine_start is the first record that has it
//	ts              string: "2006-01-02T15:04:05.000Z", UTC by the wall clock, which may be set back
//
// Strings of the top level are Unicode, since the library validates them: a
// byte that is not UTF-8 is U+FFFD there, the text is cut at 512 bytes, and
// payload.agent has the bytes.
//
// event_hash is the SHA-256 of the line without its newline and without the
// member event_hash: the bytes before the comma in front of "event_hash" and
// the bytes behind the quotation mark that ends its value, joined. As
// everything is sorted, those are the bytes of json.dumps over the other nine
// keys. For example the following line (broken here, no spaces in truth)
//
//	{"agent_identity":"egress-proxy/v1","budget":{},"event":"egress_denied",
//	"event_hash":"080c3a205943d7529fe0c6d853b0def240217be141936b16e14f6472ef00b799",
//	"invoking_user":null,"payload":{"host":"blocked.example","reason":"not_in_allowlist"},
//	"prev_hash":null,"principal":"egress-proxy/v1@sess_test_1",
//	"session_id":"sess_test_1","ts":"2026-05-15T09:42:11.123Z"}
//
// has a right hash. Events are engine_start, engine_shutdown,
// engine_heartbeat, egress_allowed, egress_denied, egress_error.
//
// # Lines of the library
//
// The aegrail library hashes the canonical form that is described here, and
// writes a line in another spelling (pydantic's model_dump_json: ts first, UTF-8,
// 1e-7 for 1e-07). A record without payload.seq, which the engine's never are, may
// therefore be any JSON object with the ten keys that is valid UTF-8, with space
// between tokens or not; what has two readings (a key that occurs twice, however
// it is escaped; a float beyond a double; NaN) is refused. A reader writes it
// anew in canonical spelling, and event_hash is that of those bytes: escapes
// become the ones above, a number with a point or an exponent becomes a double
// and is printed as above, -0 becomes 0, another integer stays as it is. Verify
// says how many such lines there were, and Open continues a file that begins
// with them without changing them. A checkpoint,
// frontier or segment in the payload of such a record is the agent's own word and
// none of those below. What the library cannot write as it hashed
// it (NaN, infinities, dates, keys that are not strings) it cannot verify
// either.
//
// A record with payload.seq has the canonical spelling alone, so that no byte of
// the engine's can be changed.
//
// # The payload
//
// Members that have nothing to say are left out, except seq, and in a
// completion duration_ms, request_bytes and response_bytes.
//
//	agent            object: claimed, namespace, pod, service_account; identity and
//	                 invoking_user where the top level could not hold them whole
//	alpn             what TLS agreed with the client
//	attempt          which attempt at forwarding, from 1
//	checkpoint       signed note over all records before this one, see below
//	client_addr      address:port of the client
//	clock_jump_ms    how far the wall clock was set since the record before
//	count            how many refusals, or lost completions, this record stands for
//	detail           text for people
//	digest_key_id    request_sha256 and response_sha256 are HMAC-SHA256 under this key
//	durability       written or strict (engine_start)
//	duration_ms      of the request
//	engine           object of strings (engine_start)
//	first, last      time of the first and the last that count stands for
//	frontier         list of hashes: the tree of all records before this one, see below
//	host             canonical name or address, or as received in a refusal
//	id               the request's, 16 hex digits, unique in the session
//	kind             connect, plain, transparent or dns
//	method
//	mitm             true: TLS was terminated and the content was read
//	observed         true: policy said deny and observe mode let it pass
//	path             canonical, without the query
//	path_pattern     instead of path, where the rule says so
//	phase            decision or complete
//	policy, policy_revision, rule
//	port
//	query_keys       list of strings: at most 64 names of at most 64 bytes, never values; "" is
//	                 a piece without "=", which may be either, and those that are known to be
//	                 an operation of an object store (acl, policy, uploads, …) are themselves
//	query_keys_len   how many there were, if more than 64; one beyond those counts each time
//	reason           one of the engine's words
//	request_bytes, response_bytes    of the bodies as they crossed the wire
//	request_sha256, response_sha256  of the same
//	resumed          true: the file had records before this start (engine_start)
//	scheme           https, http or tunnel
//	segment          name of the file that this one continues
//	seq              the record's number: 1 in the first record of a log, then one more in each,
//	                 across restarts and files. Records of the library have none, and count
//	sni              the server name, where it says something that host does not
//	status_code      of the answer to the client; 499: it had left before there was one
//	tls              version on the client's side
//	torn             object: bytes, file, sha256 of an end that was cut off (engine_start, or a
//	                 heartbeat with reason audit_recovered)
//	truncated        true: a body was cut, and its size and digest are those of the part that came
//	upstream_addr    address:port that was dialled
//	upstream_proto
//
// A field K that is longer than its limit (path 2048 bytes; detail and
// values of engine 1024; host, sni and identities 512; method 64) is cut at a
// character's edge, and K_len and K_sha256 are the length and the SHA-256 of
// the whole. Where a rule keeps paths as hashes, path_len and path_sha256 stand
// alone.
//
// The order of records is that of the file and of seq; ts is only what the
// clock said. A request with a decision egress_allowed and no record of phase
// complete with its id was running when the engine died or lost its disk. A
// record engine_heartbeat with reason audit_recovered follows a time in which
// the log took nothing: detail has the error, first and last the time, count
// the completions that were lost.
//
// Of an agent's refusals for one reason the first hundred in ten seconds have
// records of their own. The others are counted, without host and path, and the
// count is written when the ten seconds are over or the engine stops: a crash
// loses it, and counts are lower bounds there. An agent with more than fifty
// refusals a second, and a thousand at once, is refused everything meanwhile.
//
// # Checkpoints
//
// The event_hashes of a log, as 32 bytes each, are the leaves of a Merkle tree
// (RFC 6962 section 2.1); the record with seq N is leaf N-1. An engine_heartbeat
// with reason checkpoint has in payload.checkpoint a signed note over the tree
// of all records before it, so its size is its seq less one, and the session in
// it is its session_id. Package checkpoint has the note's format. The record has
// no other payload than checkpoint, reason, seq, clock_jump_ms, and at the start
// of a segment frontier and segment: until the next note it is signed by none, and
// readers take it for what the engine wrote. One is written behind engine_start,
// every ten seconds also while nothing else happens
// (--audit-checkpoint-interval), at the start of a segment, before segments are
// removed, and behind engine_shutdown. It is synced with all it covers before it
// is given to anybody.
//
// A reader without the verifier key, or who has it from where the log came from,
// learns that the log is consistent: whoever could rewrite it could sign it
// anew. With a key from elsewhere, records below the last checkpoint are those
// the engine wrote, or found in the file when it started: Verify says which of
// them were not signed then. The record of the last checkpoint is not among them,
// though its ts was not signed either. A crash leaves those of the last seconds
// so, and a file that was written anew while no engine ran is so from its
// beginning. With a checkpoint that was kept elsewhere (an anchor) a log that ends
// before it was cut, and one with another root was rewritten. An end that was cut
// off behind the newest checkpoint of the anchor looks like a crash that came
// earlier.
//
// Prove takes a record out of the log with a proof that it was in it, which
// stands by itself: package checkpoint has its format, VerifyProof checks it.
//
// # For an auditor
//
// The verifier key comes from the engine's first message (audit_key), its admin
// listener (/audit/key) or `audit key` over the file of the private one, at a
// time when the log was not in doubt; the anchor is what the checkpoints went
// to, or captured standard output, of which lines that are no records are left
// out. It is fetched before the log, which may have grown since. Its checkpoints
// may stand in any order, and more than once; with keys, those that none of them
// signed are left out and counted, and without, all must be of one key. Where the
// engine's key was changed, both are given. A log of several files is given as
// audit.log.0* audit.log.
//
//	aegrail-engine audit verify audit.log --key key.pub --anchor notes
//	aegrail-engine audit report audit.log --key key.pub --anchor notes --policy policy.yaml --html -o report.html
//	aegrail-engine audit show audit.log --verdict denied --since 24h
//	aegrail-engine audit prove audit.log --seq 3 --key key.pub -o record.tlog-proof
//	aegrail-engine audit verify record.json --proof record.tlog-proof --key key.pub
//
// The first says whether all of it is there and is the engine's, what the log
// does not know the end of, and when the clock was set; it exits with 1 where
// something is wrong with the log, and with 2 where a file cannot be read or is no
// anchor or key. The second says what was allowed, denied and limited, and which
// rules nobody needed. The last takes the one line of the record (audit show --raw
// --seq 3), and needs nothing else of the log.
//
// A crash is a session without engine_shutdown, which the report lists, whose last
// requests may have no completion. Somebody who cuts the log off leaves the same,
// and an anchor tells them apart as far as it goes.
//
// # Segments
//
// A log is one file until that is rotated, at a size or an age: it is synced,
// gets the name FILE.NNNNNNNNNNNN, the seq of its first record in at least
// twelve digits, and a new file takes its place. Chain and seq go on. The first
// record of the new one is an engine_heartbeat with reason segment: segment names
// the file before, checkpoint is as above, and frontier lists the hashes of the
// complete subtrees that make up the tree of all records before, the largest
// first, 64 hex digits each. From there on a reader needs nothing of the earlier
// files; without its checkpoint's signature it has to believe the frontier.
// Segments may be compressed with gzip; readers tell by the content.
//
// A heartbeat with reason segment that is not the first of its file was written
// when the new file could not be had: the log went on in the old one. One with
// reason retention says which segments are removed next. That happens only to
// records that an anchored checkpoint covers and every sink has taken. Verify says
// which records the oldest files had that were not given, and does not fail: what
// no retention record names, the engine did not remove.
//
// # Crashes
//
// Records are appended with one write per batch. A line without its newline at
// the end of a file was being written when the engine or the machine died, or
// when the disk failed. It is moved to FILE.torn-NNNNNNNNNNNN-<time>, the seq of
// the record before it in at least twelve digits. The next record of the engine
// says so, or if that did not come to be, one of the next start. FILE.next, and a
// second name of FILE, are left by a rotation that did not come to its end;
// nothing was recorded there, and the next start removes them. All else that
// does not verify is damage, and the engine does not start on it.
package audit
