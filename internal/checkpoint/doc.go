// Package checkpoint is what makes the audit log answer for its length and its
// past: a Merkle tree over the records, signed statements about that tree
// (checkpoints), and short proofs that one record is in it.
//
// A hash chain shows that no record was changed against the others. It does not
// show that the last ones were cut off, or that all were written anew. A
// checkpoint does, if it is kept where whoever rewrites the log cannot reach it
// (an anchor): it names how many records there were and what all of them were,
// in 32 bytes and a signature.
//
// Package audit writes records and checkpoints; this package knows neither
// files nor networks nor clocks, and no record's inside. A Frontier, a Proof
// and Verifiers are values without locks; a Signer may be used by several
// goroutines at once.
//
// # The tree
//
// It is the Merkle hash tree of RFC 6962, section 2.1, with SHA-256. The log's
// records, in their order and from the log's first, are its leaves. The data of
// a leaf is the record's event_hash as 32 bytes, which commits to the whole
// record and, by prev_hash, to all before it. With || for joining bytes:
//
//	leaf(event_hash)   = SHA-256(0x00 || event_hash)
//	node(left, right)  = SHA-256(0x01 || left || right)
//	root of no leaves  = SHA-256("")
//	root of one leaf   = leaf(event_hash)
//	root of n > 1      = node(root of the first k, root of the other n-k),
//	                     k the largest power of two that is smaller than n
//
// The record that stands at position N of the log (its payload.seq, from 1) is
// leaf N-1. A tree has at most 2^62 leaves.
//
// # The frontier
//
// A tree of n leaves falls into perfect trees, one for each bit that is set in
// n, the largest first and leftmost: 7 leaves are a tree of 4, one of 2 and
// one of 1. The roots of those, in that order, are the frontier. It is all that
// has to be known of the past to append, and to compute the root: the last two
// are joined by node(left, right), the result with the one before, and so on to
// the first. A log whose old segments are gone goes on from it (Restore).
//
// # The checkpoint
//
// A checkpoint is a C2SP checkpoint (c2sp.org/tlog-checkpoint) in a signed note
// (c2sp.org/signed-note). It is text in UTF-8, and every line ends with a
// newline (U+000A):
//
//	origin      the name of the log and of its key: 1 to 128 bytes U+0021 to U+007E without "+"
//	size        how many leaves; decimal, no sign, no leading zero; at most 2^62
//	root        the root at that size; base64 (RFC 4648 section 4, padded), 44 characters
//	session ID  "session", a space, the writer's session_id: 1 to 64 bytes U+0021 to U+007E
//	time TIME   "time", a space, when it was signed: 2006-01-02T15:04:05.000Z, always UTC
//	            an empty line
//	— NAME SIG  one line or more: U+2014, a space, the key's name, a space, base64
//
// SIG is 4 bytes of key id, most significant first, and then the signature. A
// signature of ours is the 64 bytes of Ed25519 (RFC 8032) over the text, which
// is everything up to and with the newline in front of the empty line. Its key
// is named like the origin. What other keys signed is kept and counts for
// nothing here, so that witnesses may sign too. The last two lines of the text
// are extension lines to other readers of such notes.
//
// There is one spelling. What is not exactly that is refused: other lines, a
// size like 010, base64 whose unused bits are set, a second signature by the
// same key, a note of more than 4096 bytes.
//
// For example, over a log of seven records whose event hashes are the SHA-256
// of the numbers 0 to 6 in eight bytes each, most significant first, and with a
// key whose seed is the SHA-256 of its name (the last line is broken here)
//
//	aegrail.example/prod
//	7
//	O65gRQT8qxl4MRupmEYzrYi4wQSDKZASM0XbbIFrd8g=
//	session sess_1778838131123_0123456789abcdef
//	time 2026-05-15T09:42:11.123Z
//
//	— aegrail.example/prod eR6yJO2Q5ETjOzHLF+VeKM92I+Bju4XIgV8AloSI1zwkIw4UX8//Lfbi8f9lxcrn2
//	    DCHFRSEKpHKhCn4G+X4AqPfMQE=
//
// is a right note, which this verifier key checks:
//
//	aegrail.example/prod+791eb224+Ae4suzssn2C5xdPL4HsByp0JrIhOvrtP83fwGSPpkwIs
//
// # Keys
//
// A key is one line, as golang.org/x/mod/sumdb/note writes it:
//
//	PRIVATE+KEY+NAME+ID+SEED   the signer's; a secret
//	NAME+ID+KEY                the verifier's
//
// SEED is base64 of 0x01 and the 32-byte seed of RFC 8032; KEY is base64 of
// 0x01 and the 32-byte public key. ID, eight lower-case hex digits, is the
// first four bytes of SHA-256(NAME || 0x0A || 0x01 || public key). A file of
// verifier keys has one a line; empty lines and lines that begin with # are
// comments.
//
// The verifier key must come from somewhere else than the log: whoever can
// rewrite a log can also sign it with a key of their own.
//
// # The anchor
//
// An anchor file has notes, one empty line between two of them. It is only
// appended to. An end that is no whole note was still being written, and is
// left out; whoever goes on with such a file cuts that end off first.
//
// # The proof
//
// A proof says that one record is in the tree of one checkpoint. It is a C2SP
// tlog-proof (c2sp.org/tlog-proof), every line with its newline:
//
//	c2sp.org/tlog-proof@v1
//	index N     the leaf, from 0, so the record's seq less one; decimal, no leading zero
//	HASH        any number of lines, base64 of 32 bytes: the audit path of RFC 6962,
//	            section 2.1.1, from the leaf's sibling up to a child of the root
//	            an empty line
//	            the checkpoint, as above, to the end
//
// An "extra" line, which the specification lets others write, is refused: it is
// not covered by the signature. A proof does not hold the record. To check one:
// take the record's line, see that its event_hash is its hash (package audit
// says how), compute leaf(event_hash), join it with each hash of the path
// (below), compare with the root, and check the signature. With i the index, s
// the size less one and h the leaf:
//
//	for each hash p of the path, while s > 0:
//	    if i is odd, or i = s: h = node(p, h); then, while i is even and not 0: i = i/2, s = s/2
//	    otherwise:             h = node(h, p)
//	    i = i/2, s = s/2, rounding down
//
// The path is right if all of it was used, s is 0, and h is the root. A proof
// is below 2 KiB for logs of up to 2^32 records.
package checkpoint
