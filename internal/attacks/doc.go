// Command attacks sends the catalogue of attacks to the engine and to other
// proxies, and says what reached the server behind them.
//
//	go run .                  the engine, and every peer that can be had
//	go run . -peers none      the engine alone
//	go run . -o ATTACKS.md    the table goes into that file
//	go run . -only S10 -v     rows that match a regular expression, each with its verdict
//	go run . -flood R2        floods that match a regular expression and nothing else
//	go run . -peers none -generated=false -h2spec=false -floods=false
//	                          the rows and nothing else
//
// It exits 1 unless the engine met every row and every generated case, its log
// says exactly what arrived, and it passes what net/http passes of h2spec.
//
// # Who decides
//
// A TLS server on loopback that keeps every byte of every connection, and reads
// them as the strictest reader there is (strict.go, which shares no code with
// the engine and none with net/http). A proxy's own answer counts for nothing:
// a refusal that comes after bytes of the request reached the upstream is
// through.
//
// Each row has a host of its own (c17.api.test), so that bytes belong to a row
// however connections are pooled and whenever they come. Rows run eight at a
// time and are judged when all is quiet.
//
// # Generated cases
//
// Thousands more (generate.go) go to the engine alone: every odd byte at every
// place of each framing field, every byte in paths, hosts and names, spellings
// of chunk sizes, pairs of requests, combinations of pseudo fields, header
// blocks and ClientHellos cut at every byte. The oracle is one for all: nothing
// arrives, or what was sent arrives with one reading, allowed by the policy and
// named by the log. Then every distinct stream of bytes that the engine sent is
// replayed to Go's, nginx's, Node's and h11's parsers, and all must read the
// same requests, paths and bodies in it.
//
// # h2spec and floods
//
// h2spec runs against the engine, through a tunnel, and against net/http's own
// server in the same run (h2spec.go). Floods (floods.go) meet an engine of their
// own with its limits as they are shipped. The attackers and a well-behaved
// client are processes of their own, the client with an identity of its own by
// its address; memory, goroutines, the growth of the log and the client's
// latencies are printed beside their targets, and none of it is asserted: a
// duration is no test. Slow heads, slow bodies and slow reading are
// slowhttptest's (slow.go), which is installed as peers are.
//
// # What the policy is
//
// POST /v1/chat/completions and GET below /files/ at the hosts of class api,
// and nothing else; the other classes (case.go) add what single rows need: a
// rule that reads a body, one that allows a WebSocket, names that point inside.
// Each peer is told the same by the means that its operators have.
//
// # What is not the same
//
// The engine's and the Go libraries' DNS is the run's own, mitmproxy's and
// Squid's are told the names, gomitmproxy reaches them through a forwarder, and
// HAProxy has its servers by address. HAProxy takes no CONNECT: it gets the TLS
// connection itself, as if redirected. What a proxy cannot express is n/a.
//
// The engine is put together from the product's packages as its program does
// it, but for that DNS, and for three limits that a run with thousands of names
// from one address would meet: mints a second, connections of a client, and
// refusals that are written one by one. Floods meet them as they are shipped.
//
// # What it is not
//
// Nothing leaves the machine's loopback, except that missing peers are installed
// by apt where that can be done. gomitmproxy is GPL-3.0: it is a separate process
// of this module, and nothing of it is linked into the product. Linux only.
package main
